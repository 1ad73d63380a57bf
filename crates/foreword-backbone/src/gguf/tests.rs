//! Files made by hand: what other programs write, and what nobody should.

use super::config::{query_scale_divisor, translate};
use super::*;

/// A file in the making.
#[derive(Default)]
struct File {
    keys: Vec<Vec<u8>>,
    tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl File {
    fn key(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.keys.push([&text(key)[..], &kind.to_le_bytes(), value].concat());
        self
    }

    fn count(self, key: &str, n: u32) -> Self {
        self.key(key, 4, &n.to_le_bytes())
    }

    fn number(self, key: &str, number: f32) -> Self {
        self.key(key, 6, &number.to_le_bytes())
    }

    fn text(self, key: &str, value: &str) -> Self {
        self.key(key, 8, &text(value))
    }

    fn tensor(mut self, name: &str, dims: &[u64], numbers: &[f32]) -> Self {
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.tensors.push((name.to_owned(), dims.to_vec(), 0, bytes));
        self
    }

    fn bytes(&self, version: u32, alignment: usize) -> Vec<u8> {
        let mut bytes = [&b"GGUF"[..], &version.to_le_bytes()].concat();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.keys.len() as u64).to_le_bytes());
        bytes.extend(self.keys.concat());
        let mut data = Vec::new();
        for (name, dims, kind, numbers) in &self.tensors {
            bytes.extend(text(name));
            bytes.extend((dims.len() as u32).to_le_bytes());
            bytes.extend(dims.iter().flat_map(|n| n.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend((data.len() as u64).to_le_bytes());
            data.extend(numbers);
            data.resize(data.len().next_multiple_of(alignment), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(alignment), 0);
        bytes.extend(data);
        bytes
    }

    fn config(&self) -> Result<serde_json::Value, String> {
        let bytes = self.bytes(3, 32);
        let gguf = Gguf::parse("x.gguf", &bytes).unwrap();
        translate(&gguf, &[&bytes]).map_err(|error| error.to_string())
    }
}

#[test]
fn values_of_every_type_are_read_where_they_lie() {
    let array = |kind: u32, n: u64, items: &[u8]| [&kind.to_le_bytes()[..], &n.to_le_bytes(), items].concat();
    let file = File::default()
        .key("u8", 0, &[200])
        .key("i8", 1, &[200])
        .key("u16", 2, &[1, 2])
        .key("i16", 3, &(-3i16).to_le_bytes())
        .count("u32", 7)
        .key("i32", 5, &(-5i32).to_le_bytes())
        .number("f32", 1e-5)
        .key("bool", 7, &[1])
        .text("string", "naïve")
        .key("u64", 10, &u64::MAX.to_le_bytes())
        .key("i64", 11, &i64::MIN.to_le_bytes())
        .key("f64", 12, &0.1f64.to_le_bytes())
        .key("strings", 9, &array(8, 2, &[text("a"), text("")].concat()))
        .key("same", 9, &array(4, 3, &[6u32, 6, 6].map(u32::to_le_bytes).concat()))
        .key("other", 9, &array(4, 2, &[6u32, 7].map(u32::to_le_bytes).concat()))
        .count("general.alignment", 64)
        .tensor("t", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    for version in [2, 3] {
        let bytes = file.bytes(version, 64);
        let gguf = Gguf::parse("x.gguf", &bytes).unwrap();
        let whole = |key: &str| gguf.get(key).and_then(Value::integer);
        assert_eq!(["u8", "i8", "u16", "i16"].map(whole), [Some(200), Some(-56), Some(513), Some(-3)]);
        assert_eq!(["u32", "i32"].map(whole), [Some(7), Some(-5)]);
        assert_eq!(["u64", "i64"].map(whole), [Some(u64::MAX.into()), Some(i64::MIN.into())]);
        // The decimal that was meant, not the single-precision number next to it.
        assert_eq!((gguf.number("f32").unwrap(), gguf.number("f64").unwrap()), (Some(1e-5), Some(0.1)));
        assert_eq!(gguf.flag("bool").unwrap(), Some(true));
        assert_eq!(gguf.text("string").unwrap().as_deref(), Some("naïve"));
        let strings = gguf.array("strings").unwrap().unwrap();
        assert_eq!(
            strings.items().map(|item| item.text().unwrap().into_owned()).collect::<Vec<_>>(),
            ["a", ""]
        );
        assert_eq!(gguf.count("same").unwrap(), Some(6));
        assert!(gguf.count("other").is_err() && gguf.count("i32").is_err() && gguf.flag("u8").is_err());
        assert!(gguf.count("nothing").unwrap().is_none());
        let tensor = &gguf.tensors["t"];
        assert_eq!(tensor.shape, [3, 2]);
        assert_eq!(tensor.range.start % 64, 0);
        assert_eq!(bytes[tensor.range.clone()][..4], 1f32.to_le_bytes());
    }
    let says = |file: File, what: &str| {
        let bytes = file.bytes(3, 32);
        let error = Gguf::parse("x.gguf", &bytes).err().unwrap().to_string();
        assert!(error.contains(what), "{error}");
    };
    says(File::default().key("a", 9, &array(9, 1, &array(4, 0, &[]))), "arrays of arrays");
    says(File::default().key("a", 13, &[]), "13 is no type");
    says(File::default().key("a", 7, &[2]), "2 is no boolean");
    says(File::default().count("a", 1).count("a", 1), "`a` is duplicated");
    says(File::default().count("general.alignment", 48), "no power of two");
    says(File::default().tensor("t", &[1; 5], &[0.0]), "5 dimensions");
    says(File::default().tensor("t", &[1 << 40, 1 << 40], &[0.0]), "can't be stored");
    says(File::default().tensor("t", &[4], &[0.0; 4]).tensor("t", &[4], &[0.0; 4]), "`t` is duplicated");
}

/// The keys that all of these have.
fn llama_like(architecture: &str) -> File {
    let at = |key: &str| format!("{architecture}.{key}");
    File::default()
        .text("general.architecture", architecture)
        .count(&at("embedding_length"), 8)
        .count(&at("attention.head_count"), 2)
        .count(&at("block_count"), 3)
        .count(&at("feed_forward_length"), 16)
        .count(&at("context_length"), 4096)
        .number(&at("attention.layer_norm_rms_epsilon"), 1e-6)
        .tensor("token_embd.weight", &[8, 2], &[0.0; 16])
}

#[test]
fn the_metadata_of_other_programs_is_what_config_json_would_say() {
    let config = llama_like("llama").count("llama.rope.dimension_count", 4).config().unwrap();
    assert_eq!(config["model_type"], "llama");
    assert_eq!(config["tie_word_embeddings"], true);
    assert_eq!((config["head_dim"].as_u64(), config["rms_norm_eps"].as_f64()), (Some(4), Some(1e-6)));
    // Llama 3's divisors alone: of 64 numbers a head, base 500,000, as 3.1 has them.
    let rope = |original_context| crate::spec::Rope {
        theta: 500_000.0,
        width: 64,
        pairing: foreword_kernels::Pairing::Halves,
        scaling: crate::spec::RopeScaling::Llama3 {
            factor: 32.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context,
        },
    };
    let wide = |divisors: &[f32]| {
        let file = llama_like("llama")
            .number("llama.rope.freq_base", 500_000.0)
            .count("llama.attention.key_length", 64);
        file.count("llama.attention.value_length", 64).tensor("rope_freqs.weight", &[32], divisors)
    };
    for original in [8192, 2048] {
        let config = wide(&crate::rotary::divisors(&rope(original))).config().unwrap();
        let scaling = &config["rope_scaling"];
        assert_eq!(
            (scaling["factor"].as_f64(), scaling["low_freq_factor"].as_f64()),
            (Some(32.0), Some(1.0))
        );
        assert_eq!(scaling["original_max_position_embeddings"], original);
    }
    assert!(wide(&[1.5; 32]).config().unwrap_err().contains("other factors than those of Llama 3"));
    let long = llama_like("phi3").count("phi3.rope.scaling.original_context_length", 2048);
    let long = long.count("phi3.rope.dimension_count", 2).number("phi3.rope.scaling.attn_factor", 1.19);
    let long = long.tensor("rope_factors_long.weight", &[1], &[1.1]).tensor(
        "rope_factors_short.weight",
        &[1],
        &[1.05],
    );
    let config = long.config().unwrap();
    assert_eq!(config["rope_scaling"]["long_factor"][0], 1.1);
    assert_eq!(
        (
            config["original_max_position_embeddings"].as_u64(),
            config["rope_scaling"]["short_factor"][0].as_f64()
        ),
        (Some(2048), Some(1.05))
    );
    let config = llama_like("gemma3").count("gemma3.attention.sliding_window", 512).config().unwrap();
    assert_eq!(
        (config["sliding_window"].as_u64(), config["query_pre_attn_scalar"].as_f64()),
        (Some(512), Some(4.0))
    );
    // Of the largest models the hidden width decides: 4,608 / 32 and 5,376 / 32.
    assert_eq!(
        (query_scale_divisor(4608, 32, 128, 46, 46), query_scale_divisor(5376, 32, 128, 62, 62)),
        (144, 168)
    );
    let says = |file: File, what: &str| {
        let error = file.config().unwrap_err();
        assert!(error.contains(what), "{error}");
    };
    says(llama_like("llama").count("llama.expert_count", 8), "mixtures of experts are read from");
    says(llama_like("llama").count("llama.rope.dimension_count", 2), "`llama.rope.dimension_count` is not 4");
    // The family will refuse it.
    let odd = llama_like("qwen2")
        .text("qwen2.attention.kind", "mean")
        .count("qwen2.pooling_type", 1)
        .config()
        .unwrap();
    assert_eq!((&odd["qwen2.attention.kind"], odd.get("qwen2.pooling_type")), (&"mean".into(), None));
    says(llama_like("mamba"), "architecture `mamba` is not supported; supported are llama");
}

fn strings(texts: &[&str]) -> Vec<u8> {
    let items: Vec<u8> = texts.iter().flat_map(|t| text(t)).collect();
    [&8u32.to_le_bytes()[..], &(texts.len() as u64).to_le_bytes(), &items].concat()
}

#[derive(serde::Deserialize)]
struct Cuts {
    tokens: Vec<String>,
    merges: Vec<String>,
    texts: Vec<String>,
    cases: Vec<Cut>,
}

#[derive(serde::Deserialize)]
struct Cut {
    names: Vec<String>,
    ids: Vec<Vec<u32>>,
}

fn cuts() -> Cuts {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/tokens/cuts.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The `tokenizer.json` of a file with the tokens of `cuts.json`.
fn cut_by(cuts: &Cuts, name: &str) -> Vec<u8> {
    let all = |texts: &[String]| strings(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let file = File::default().text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", name);
    let file = file.key("tokenizer.ggml.tokens", 9, &all(&cuts.tokens));
    let bytes = file.key("tokenizer.ggml.merges", 9, &all(&cuts.merges)).bytes(3, 32);
    let file = tokenizer::read(&Gguf::parse("x.gguf", &bytes).unwrap()).unwrap().0;
    let json = file.json().into_owned();
    // Written in parts, it is what it would be as one value.
    let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(value.to_string().as_bytes(), json);
    json
}

#[test]
fn texts_are_cut_as_the_models_own_tokenizers_do() {
    let cuts = cuts();
    let names: Vec<&String> = cuts.cases.iter().flat_map(|case| &case.names).collect();
    for name in ["gpt-4o", "dbrx", "tekken", "llama4", "falcon3", "stablelm2", "olmo", "smaug-bpe"] {
        assert!(names.iter().any(|known| *known == name), "{name}");
    }
    for Cut { names, ids } in &cuts.cases {
        for name in names {
            let tokenizer = crate::tokenizer::Tokenizer::from_bytes(&cut_by(&cuts, name)).unwrap();
            for (text, ids) in cuts.texts.iter().zip(ids) {
                assert_eq!(&tokenizer.encode_plain(text).unwrap(), ids, "{name}: {text:?}");
            }
        }
    }
}

/// Every pre-tokenizer that is read is written under a name that means the same.
#[test]
fn pre_tokenizers_are_written_by_their_names() {
    let cuts = cuts();
    let mut written = Vec::new();
    for name in cuts.cases.iter().flat_map(|case| &case.names) {
        let json = cut_by(&cuts, name);
        let made = tokenizer::from_json(&json).unwrap();
        let again = cut_by(&cuts, made.pre);
        assert_eq!(String::from_utf8(again).unwrap(), String::from_utf8(json).unwrap(), "{name}");
        written.push(made.pre);
    }
    written.sort_unstable();
    written.dedup();
    assert_eq!(
        written,
        [
            "dbrx",
            "deepseek-coder",
            "gpt-2",
            "gpt-4o",
            "llama-bpe",
            "olmo",
            "qwen2",
            "seed-coder",
            "smollm",
            "tekken"
        ]
    );
}

#[test]
fn tokenizers_that_are_not_known_are_refused_by_name() {
    let file = |model: &str, pre: &str| {
        let file = File::default().text("tokenizer.ggml.model", model).text("tokenizer.ggml.pre", pre);
        let file = file.key("tokenizer.ggml.tokens", 9, &strings(&["a", "b", "ab", "1"]));
        file.key("tokenizer.ggml.merges", 9, &strings(&["a b"]))
    };
    let json = |file: File| {
        let bytes = file.bytes(3, 32);
        tokenizer::read(&Gguf::parse("x.gguf", &bytes).unwrap()).map_err(|error| error.to_string())
    };
    let says = |file: File, what: &str| {
        let error = json(file).unwrap_err();
        assert!(error.contains(what), "{error}");
    };
    says(file("gpt2", "kimi-k2"), "`tokenizer.ggml.pre` is kimi-k2");
    says(file("t5", "default"), "`tokenizer.ggml.model` is t5; gpt2 and llama are read");
    says(file("llama", "default"), "`tokenizer.ggml.scores` is missing");
    says(file("gpt2", "gpt-2").count("tokenizer.ggml.bos_token_id", 9), "is 9, but there are 4 tokens");
    // Every known way to cut texts makes a tokenizer that can be read, and is in the docs.
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/quantised.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    for entry in pre_tokenizers::PRE_TOKENIZERS {
        for pre in entry.names {
            let json = json(file("gpt2", pre).count("tokenizer.ggml.bos_token_id", 3)).unwrap();
            let tokenizer = crate::tokenizer::Tokenizer::of(&json.0).unwrap();
            assert_eq!(tokenizer.encode_joined("ab").unwrap(), [2], "{pre}");
            assert_eq!(tokenizer.encode_plain("1").unwrap(), [3]);
            assert_eq!(tokenizer.bos(), entry.add_bos.then_some(3), "{pre}");
            assert!(docs.contains(&format!("`{pre}`")), "{pre}");
        }
    }
}

/// Every split of a piece into two is a merge, and no other: against a search without shortcuts.
#[test]
fn merges_of_scores_are_all_splits_into_pieces() {
    let letters = ["a", "b", "é", "▁", "好", "\""];
    let mut tokens: Vec<String> = letters.map(str::to_owned).to_vec();
    let mut state = 7u64;
    let mut draw = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    while tokens.len() < 6000 {
        let text = format!("{}{}", tokens[draw(tokens.len())], tokens[draw(tokens.len().min(60))]);
        if !tokens.contains(&text) {
            tokens.push(text);
        }
    }
    let scores: Vec<f32> = tokens.iter().map(|_| -(draw(50) as f32)).collect();
    let all = tokens.iter().map(String::as_str).collect::<Vec<_>>();
    let of_scores = [&6u32.to_le_bytes()[..], &(scores.len() as u64).to_le_bytes()].concat();
    let of_scores =
        [of_scores, scores.iter().flat_map(|score| score.to_le_bytes()).collect::<Vec<_>>()].concat();
    let file = File::default().text("tokenizer.ggml.model", "llama");
    let file = file.key("tokenizer.ggml.tokens", 9, &strings(&all));
    let bytes = file.key("tokenizer.ggml.scores", 9, &of_scores).bytes(3, 32);
    let file = tokenizer::read(&Gguf::parse("x.gguf", &bytes).unwrap()).unwrap().0;
    let json: serde_json::Value = serde_json::from_slice(&file.json()).unwrap();
    let ids: BTreeMap<&str, usize> = all.iter().zip(0..).map(|(text, id)| (*text, id)).collect();
    let mut expected = Vec::new();
    for (id, text) in all.iter().enumerate() {
        for (at, _) in text.char_indices().skip(1) {
            let halves = text.split_at(at);
            if let (Some(left), Some(right)) = (ids.get(halves.0), ids.get(halves.1)) {
                let n = |text: &str| -(text.chars().count() as i64);
                expected.push((-scores[id] as i64, n(halves.0), n(halves.1), left, right, halves));
            }
        }
    }
    expected.sort_unstable();
    let expected: Vec<_> = expected.into_iter().map(|(.., (left, right))| [left, right]).collect();
    assert!(expected.len() > tokens.len());
    assert_eq!(json["model"]["merges"], serde_json::json!(expected));
}
