//! GGUF files: the same model as in safetensors, whichever format its numbers are in, and what damaged files say.

use std::path::{Path, PathBuf};

use foreword_backbone::{
    Backbone, Gradient, Identity, Input, Match, Model, ModelFiles, Quantisation, Save, Tokenizer, write_gguf,
};
use foreword_kernels::{Backend, Bytes, Cpu, Dtype, Forest, Parent};

use crate::golden::root;

const MODELS: [&str; 10] = [
    "llama-tiny",
    "llama-plain",
    "mistral-tiny",
    "qwen2-tiny",
    "qwen3-tiny",
    "gemma-tiny",
    "gemma2-tiny",
    "gemma3-tiny",
    "phi3-tiny",
    "gpt2-tiny",
];

fn untouched(name: &str) -> ModelFiles {
    ModelFiles::directory(&root().join("testdata/models").join(name)).unwrap()
}

/// The same without what GGUF can't express.
fn source(name: &str) -> ModelFiles {
    let mut files = untouched(name);
    let mut config: serde_json::Value = serde_json::from_slice(&files.config).unwrap();
    let without: &[&str] = match name {
        "mistral-tiny" => &["sliding_window"],
        "qwen3-tiny" => &["layer_types", "use_sliding_window", "rope_parameters"],
        "phi3-tiny" => &["rope_scaling", "original_max_position_embeddings"],
        _ => &[],
    };
    for key in without {
        config[key] = serde_json::Value::Null;
    }
    files.config = config.to_string().into_bytes();
    files
}

fn bundled() -> ModelFiles {
    ModelFiles::directory(&root().join("crates/foreword-tiny")).unwrap()
}

fn written(files: &ModelFiles, to: Quantisation) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut last = 0.0;
    let report = write_gguf(files, to, &mut bytes, |done| {
        assert!(done > last && done <= 1.0);
        last = done;
        true
    })
    .unwrap();
    assert_eq!(report.bytes, bytes.len() as u64);
    assert!((last - 1.0f64).abs() < 1e-12);
    bytes
}

fn of(name: &str, bytes: Vec<u8>) -> ModelFiles {
    ModelFiles::from_gguf(name.to_owned(), "model.gguf".to_owned(), Bytes::from(bytes)).unwrap()
}

/// The same file without the whole `tokenizer.json`: the key becomes another one.
fn without_whole_tokenizer(bytes: &[u8]) -> Vec<u8> {
    let (key, other) = (b"tokenizer.huggingface.json", b"tokenizer.huggingface.gone");
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at..at + key.len()].copy_from_slice(other);
    bytes
}

/// Logits of a few tokens, and the gradient of their rows.
fn run(backbone: &Backbone<Cpu>) -> [Vec<f32>; 2] {
    let tokens: Vec<u32> = (0..21).map(|i| (i * 37 + 5) % backbone.spec().vocab as u32).collect();
    let all: Vec<usize> = (0..tokens.len()).collect();
    let mut forest = Forest::new();
    forest.push(Parent::Root, tokens.len());
    let rows = backbone.embed(&tokens);
    let input = Input { rows, forest: &forest, context: &[], output_rows: &all, save: Save::All };
    let output = backbone.forward(input).unwrap();
    let backend = backbone.backend();
    let logits = backbone.logits(&output.hidden);
    // A gradient that reaches every row: the logits themselves.
    let d_logits = backend.rows(logits.clone(), backbone.spec().vocab);
    let d_hidden = backend.linear_gradient(&d_logits, backbone.head().weight, None);
    let gradient = Gradient {
        forest: &forest,
        context: &[],
        key_values: &output.key_values,
        d_hidden: Some(d_hidden),
        d_key_values: None,
        d_context: Vec::new(),
        gradient_rows: &all,
    };
    let d_rows = backbone.backward(&output.tape.unwrap(), gradient);
    [logits, d_rows.into_values()]
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b))) / norm(&mut b.iter().map(|&v| f64::from(v)))
}

fn load(files: &ModelFiles) -> Model<Cpu> {
    Model::load(files, Cpu::new(2).unwrap()).unwrap()
}

#[test]
fn a_model_written_as_gguf_is_the_same_model() {
    for name in MODELS {
        let files = source(name);
        let model = load(&files);
        let expected = run(&model.backbone);
        let formats = [
            (Quantisation::F32, 1e-6),
            (Quantisation::F16, 5e-3),
            (Quantisation::Bf16, 2e-2),
            (Quantisation::Q8_0, 0.12),
        ];
        for (to, bound) in formats {
            let what = format!("{name} as {}", to.as_str());
            let again = load(&of(name, written(&files, to)));
            assert_eq!(again.backbone.spec(), model.backbone.spec(), "{what}");
            assert_eq!(again.end_tokens, model.end_tokens, "{what}");
            assert_eq!(again.tokenizer.digest(), model.tokenizer.digest(), "{what}");
            for (got, expected) in run(&again.backbone).iter().zip(&expected) {
                let far = distance(got, expected);
                assert!(far < bound, "{what}: {far:e}");
            }
            let matched = again.backbone.identity().compare(model.backbone.identity());
            assert!(matches!(matched, Match::Same | Match::OtherFormat), "{what}: {matched:?}");
        }
        // Written twice it is the same bytes, also from the GGUF file of another format.
        let once = written(&files, Quantisation::F32);
        assert!(written(&of(name, once.clone()), Quantisation::F32) == once, "{name}");
    }
}

/// Numbers as a program writes them that read them from a GGUF file: each through single precision.
fn through_single(value: &serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Number(number) if number.is_f64() => {
            f64::from(number.as_f64().unwrap() as f32).into()
        }
        serde_json::Value::Array(items) => items.iter().map(through_single).collect(),
        serde_json::Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), through_single(value))).collect()
        }
        other => other.clone(),
    }
}

#[test]
fn a_model_that_went_through_single_precision_is_the_same_model() {
    let mut n_changed = 0;
    for name in MODELS {
        let files = source(name);
        let identity = |files: &ModelFiles| load(files).backbone.identity().clone();
        let own = identity(&files);
        let mut saved = source(name);
        let config: serde_json::Value = serde_json::from_slice(&saved.config).unwrap();
        saved.config = through_single(&config).to_string().into_bytes();
        let again = identity(&saved);
        n_changed += usize::from(again.spec != own.spec);
        let gguf = identity(&of(name, written(&saved, Quantisation::F32)));
        for (one, other) in [(&own, &again), (&own, &gguf), (&gguf, &again)] {
            for matched in [one.compare(other), other.compare(one)] {
                assert!(matches!(matched, Match::Same | Match::OtherFormat), "{name}: {matched:?}");
            }
        }
    }
    assert!(n_changed >= 5, "{n_changed}");
}

#[test]
fn chat_templates_go_into_the_file() {
    let chat = |config: serde_json::Value, template: Option<&str>| {
        let mut files = source("llama-tiny");
        files.chat.tokenizer_config = Some(config.to_string().into_bytes());
        files.chat.template = template.map(|text| text.as_bytes().to_vec());
        let bytes = written(&files, Quantisation::Q8_0);
        let has_key = bytes.windows(27).any(|window| window == b"tokenizer.chat_template\x08\0\0\0");
        let config = of("x", bytes).chat.tokenizer_config;
        let read: Option<serde_json::Value> = config.map(|bytes| serde_json::from_slice(&bytes).unwrap());
        (read, has_key)
    };
    let one = serde_json::json!({
        "chat_template": "{{ bos_token }}{{ messages[0].content }}", "bos_token": "<|im_start|>",
        "eos_token": { "content": "</s>" }, "model_max_length": 9,
    });
    let (read, has_key) = chat(one.clone(), None);
    let read = read.unwrap();
    assert_eq!((&read["chat_template"], &read["bos_token"]), (&one["chat_template"], &one["bos_token"]));
    assert_eq!((&read["eos_token"], read.get("model_max_length"), has_key), (&one["eos_token"], None, true));
    // The template's own file has the first word.
    let (read, _) = chat(one, Some("in a file"));
    assert_eq!(read.unwrap()["chat_template"], "in a file");
    let several = serde_json::json!({
        "chat_template": [{ "name": "tool_use", "template": "a" }, { "name": "default", "template": "b" }],
    });
    let (read, has_key) = chat(several.clone(), None);
    assert_eq!((read, has_key), (Some(several), true));
    assert_eq!(chat(serde_json::json!({ "bos_token": "<s>" }), None), (None, false));
}

#[test]
fn what_gguf_has_no_words_for_is_not_written() {
    for (name, says) in [
        ("qwen3-tiny", "sliding_window"),
        ("mistral-tiny", "sliding_window"),
        ("phi3-tiny", "positions"),
        ("falcon-tiny", "models of the family falcon are not written yet"),
    ] {
        let mut bytes = Vec::new();
        let error =
            write_gguf(&untouched(name), Quantisation::Q8_0, &mut bytes, |_| true).unwrap_err().to_string();
        assert!(error.contains(says) && bytes.is_empty(), "{name}: {error}");
    }
    let stopped = write_gguf(&source("llama-tiny"), Quantisation::Q8_0, &mut Vec::new(), |done| done < 0.5);
    assert!(stopped.unwrap_err().to_string().contains("stopped"));
}

#[test]
fn numbers_stay_in_their_blocks_and_take_the_formats_that_fit_their_rows() {
    let files = bundled();
    let mut bytes = Vec::new();
    let report = write_gguf(&files, Quantisation::Q4K, &mut bytes, |_| true).unwrap();
    // Rows of 192 are no whole blocks of 256: only those of 512 can be in four bits.
    let numbers =
        |dtype| report.formats.iter().find(|(d, ..)| *d == dtype).map(|&(_, n, numbers)| (n, numbers));
    assert_eq!(numbers(Dtype::Q4K), Some((6, 6 * 192 * 512)));
    assert_eq!(numbers(Dtype::Q8_0), Some((37, 8192 * 192 + 6 * 192 * (192 * 2 + 2 * 64 + 2 * 512))));
    assert_eq!(numbers(Dtype::F32), Some((13, 13 * 192)));
    assert_eq!((report.formats.len(), report.n_fallback, report.lacks_tokenizer), (3, 37, false));
    let model = load(&of("foreword-tiny", bytes));
    assert_eq!(model.backbone.embeddings().table().dtype(), Dtype::Q8_0);
    assert!(model.backbone.weight_bytes() < report.source_bytes * 6 / 10);
    let all = [(Quantisation::Q8_0, 0.03), (Quantisation::Q4K, 0.1), (Quantisation::Q4_0, 0.2)];
    let expected = run(&load(&files).backbone);
    for (to, bound) in all {
        let [logits, gradient] = run(&load(&of("foreword-tiny", written(&files, to))).backbone);
        let far = [distance(&logits, &expected[0]), distance(&gradient, &expected[1])];
        assert!(far[0] < bound && far[1] < 4.0 * bound, "{}: {far:?}", to.as_str());
    }
}

/// Tokenizers made from GGUF's words alone, against the `tokenizer.json` that they were written from.
#[test]
fn tokenizers_made_from_tokens_and_merges_tokenise_alike() {
    let shared = root().join("../shared");
    let mut texts = lines(&shared);
    texts.extend(
        ["", " ", "  two  spaces ", "naïve 好 123\n\u{1f600}\t'll", "<s> </s> <unk>", "…—“quoted”"]
            .map(str::to_owned),
    );
    let mut models: Vec<(&str, ModelFiles)> = MODELS.iter().map(|name| (*name, source(name))).collect();
    models.push(("foreword-tiny", bundled()));
    match ModelFiles::directory(&shared.join("models/stories260K")) {
        Ok(files) => models.push(("stories260K", files)),
        Err(_) => eprintln!("skipped: stories260K is not here"),
    }
    if let Some(tokenizer) = gpt2(&shared.join("tokenizers/gpt2")) {
        models.push(("GPT-2", ModelFiles { tokenizer: tokenizer.into(), ..source("gpt2-tiny") }));
    }
    for (what, files) in &mut models {
        // By a name that says Phi-3, llama.cpp knows more of the special tokens than their file says.
        files.name = "made".to_owned();
        let bytes = written(files, Quantisation::Bf16);
        let made = of("made", without_whole_tokenizer(&bytes));
        assert_ne!(made.tokenizer.json(), files.tokenizer.json());
        let [made, own] = [&made, &*files].map(|files| Tokenizer::of(&files.tokenizer).unwrap());
        assert_eq!(made.leading(), own.leading(), "{what}");
        assert_eq!(made.vocab_size(), own.vocab_size(), "{what}");
        // The tiny models' tokenizers are much alike: a few texts for each of them.
        let texts = if what.contains("-tiny") && *what != "foreword-tiny" {
            &texts[texts.len() - 60..]
        } else {
            &texts
        };
        for text in texts {
            let (a, b) = (made.encode_context(text).unwrap(), own.encode_context(text).unwrap());
            assert_eq!(a, b, "{what}: {text:?}");
            assert_eq!(made.decode(&a).unwrap(), own.decode(&b).unwrap(), "{what}: {text:?}");
            let joined = |tokenizer: &Tokenizer| tokenizer.encode_joined(&format!(" {text}")).unwrap();
            assert_eq!(joined(&made), joined(&own), "{what}: {text:?}");
        }
        eprintln!("{what}: {} texts tokenised alike", texts.len());
    }
}

/// The `tokenizer.json` of GPT-2, from the files of old.
fn gpt2(directory: &Path) -> Option<Vec<u8>> {
    let vocabulary = std::fs::read(directory.join("vocab.json")).ok()?;
    let merges = std::fs::read_to_string(directory.join("merges.txt")).ok()?;
    let merges: Vec<&str> = merges.lines().skip(1).filter(|line| !line.is_empty()).collect();
    let vocabulary: serde_json::Value = serde_json::from_slice(&vocabulary).unwrap();
    let byte_level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
    });
    let added = serde_json::json!([{
        "id": 50256, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true
    }]);
    let file = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                   "vocab": vocabulary, "merges": merges }
    });
    Some(file.to_string().into_bytes())
}

/// A few thousand real lines, where there are some, and those of the repository.
fn lines(shared: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    let data = ["sst2_sentences", "sms_spam", "ag_news", "e2e_clean", "cola"]
        .map(|name| shared.join("data").join(name));
    let data = data.into_iter().chain([root().join("testdata/parity"), root().join("examples/sentiment")]);
    for directory in data {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.is_file()) {
            let bytes = std::fs::read(file).unwrap();
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(60_000)]);
            texts.extend(text.lines().take(400).map(str::to_owned));
        }
    }
    assert!(texts.len() > 20);
    texts
}

#[test]
fn the_same_table_is_known_in_every_format_and_another_one_is_not() {
    let identity = |files: &ModelFiles| -> Identity { load(files).backbone.identity().clone() };
    let tiny = identity(&bundled());
    let mut formats = vec![tiny.clone()];
    for to in Quantisation::ALL {
        formats.push(identity(&of("foreword-tiny", written(&bundled(), to))));
    }
    for one in &formats {
        for other in &formats {
            assert!(
                matches!(one.compare(other), Match::Same | Match::OtherFormat),
                "{} {}",
                one.dtype,
                other.dtype
            );
        }
    }
    let directory = root().join("../shared/models/foreword-raw");
    if !directory.is_dir() {
        eprintln!("skipped: {} is not here", directory.display());
        return;
    }
    let raw = ModelFiles::directory(&directory).unwrap();
    for to in Quantisation::ALL {
        let raw = identity(&of("foreword-raw", written(&raw, to)));
        for one in &formats {
            assert_eq!(raw.compare(one), Match::OtherWeights, "{} {}", raw.dtype, one.dtype);
        }
    }
}

#[test]
fn damaged_files_are_errors_that_say_where() {
    let bytes = written(&source("llama-tiny"), Quantisation::Q8_0);
    let open = |bytes: &[u8]| {
        let files = ModelFiles::from_gguf("x".to_owned(), "x.gguf".to_owned(), Bytes::copy_from_slice(bytes));
        files.and_then(|files| Model::load(&files, Cpu::new(1).unwrap())).map_err(|error| error.to_string())
    };
    assert!(open(&bytes).is_ok());
    for n in (0..bytes.len() - 32).step_by(331) {
        assert!(open(&bytes[..n]).is_err(), "{n} bytes");
    }
    let changed = |at: usize, with: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        open(&bytes).map(|_| ()).unwrap_err()
    };
    let find = |text: &str| bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    let says = |error: &str, what: &str| assert!(error.contains(what), "{error}");
    says(&changed(0, b"GGML"), "does not begin with GGUF");
    says(&changed(4, &1u32.to_le_bytes()), "version 1");
    says(&changed(4, &3u32.to_be_bytes()), "big-endian");
    says(&changed(8, &u64::MAX.to_le_bytes()), "tensors, more than fit");
    says(&changed(16, &u64::MAX.to_le_bytes()), "keys, more than fit");
    says(&changed(24, &u64::MAX.to_le_bytes()), "more than fit");
    says(&changed(find("llama.block_count"), b"llama.block_kount"), "`llama.block_count` is missing");
    says(&changed(find("llama.vocab_size"), b"llama.vokab_size"), "`llama.vokab_size` is not understood");
    says(&changed(find("general.architecture") + 32, b"llamx"), "architecture `llamx` is not supported");
    let tensor = find("blk.1.ffn_up.weight");
    says(&changed(tensor, b"blk.1.ffn_xx.weight"), "is missing from the weights");
    let (shape, kind, offset) = (tensor + 19 + 4, tensor + 19 + 20, tensor + 19 + 24);
    says(&changed(shape, &u64::MAX.to_le_bytes()), "can't be stored");
    says(&changed(kind, &16u32.to_le_bytes()), "is stored as IQ2_XXS, which is not read");
    says(&changed(offset, &(1u64 << 40).to_le_bytes()), "leaves the file");
    says(&changed(offset, &1u64.to_le_bytes()), "no multiple of 32");
    says(&changed(offset, &0u64.to_le_bytes()), "share bytes");
}
