//! What is wrong: each thing that was given wrongly ends with 1 and says what to change, and leaves nothing behind.

use std::fs;

use crate::scene::{Ran, Scene, model, root, sentences};

/// Trains on these examples with these flags; nothing may be written.
fn train_on(name: &str, contents: &str, flags: &[&str]) -> String {
    let scene = Scene::new();
    scene.file(name, contents);
    let llama = model("llama-tiny");
    refused(&scene, &[&["train", name, "--model", &llama, "--steps", "1", "--out", "p"], flags].concat())
}

/// Runs, and checks that nothing new lies there.
#[track_caller]
fn refused(scene: &Scene, args: &[&str]) -> String {
    let before = scene.names();
    let ran = scene.run(args);
    assert_eq!(scene.names(), before);
    assert_eq!(ran.stdout, "");
    scene.told(&errors(ran))
}

/// Without the conversation before the error.
fn errors(mut ran: Ran) -> Ran {
    if let Some(at) = ran.stderr.find("error:") {
        ran.stderr.drain(..at);
    }
    ran
}

const GOOD: &str = r#"{"text": "good", "label": "up"}
{"text": "bad", "label": "down"}
{"text": "fine", "label": "up"}
{"text": "poor", "label": "down"}
"#;

#[test]
fn data_that_is_not_there_or_cannot_be_read() {
    let scene = Scene::new();
    insta::assert_snapshot!(refused(&scene, &["train", "none.jsonl"]), @r#"
    exit 1
    error: cannot read none.jsonl: No such file or directory (os error 2)
    "#);
    insta::assert_snapshot!(refused(&scene, &["train", "none.toml"]), @r#"
    exit 1
    error: cannot read the task file none.toml: No such file or directory (os error 2)
    "#);
    insta::assert_snapshot!(refused(&scene, &["train"]), @r#"
    exit 1
    error: there is nothing to learn from
    hint: give a task file, training data, or --train FILE
    "#);
    insta::assert_snapshot!(train_on("d.jsonl", "", &[]), @r#"
    exit 1
    error: d.jsonl has no examples
    "#);
    insta::assert_snapshot!(train_on("d.jsonl", &GOOD.replace("\"bad\",", "\"bad\""), &[]), @r#"
    exit 1
    error: d.jsonl, line 2, column 16: expected `,` or `}`
    hint: correct it, or leave such rows out with --skip-bad
    "#);
    insta::assert_snapshot!(train_on("d.xlsx", "PK\u{3}\u{4}", &[]), @r#"
    exit 1
    error: d.xlsx: this is an Excel workbook or a zip archive: save the sheet as CSV UTF-8, or unzip it, and give the file that comes out
    "#);
    insta::assert_snapshot!(train_on("d.jsonl", GOOD, &["--encoding", "utf-99"]), @r#"
    exit 1
    error: invalid value 'utf-99' for '--encoding <NAME>': "utf-99" is no encoding of the Encoding Standard: use one such as utf-8, utf-16le, windows-1252, latin-1, windows-1251, shift_jis or gbk

    For more information, try '--help'.
    "#);
    insta::assert_snapshot!(train_on("d.jsonl", GOOD, &["--label-field", "lable"]), @r#"
    exit 1
    error: d.jsonl has no field "lable" (did you mean "label"?), its fields are: "text", "label"
    hint: name the fields with --text-field, and --label-field or --target-field, or those that --template asks for
    "#);
    insta::assert_snapshot!(train_on("d.jsonl", GOOD, &["--template", "{premise}"]), @r#"
    exit 1
    error: d.jsonl has no field "premise", its fields are: "text", "label"
    hint: name the fields with --text-field, and --label-field or --target-field, or those that --template asks for
    "#);
}

#[test]
fn labels_that_do_not_serve() {
    insta::assert_snapshot!(train_on("d.jsonl", &GOOD.replace("down", "up"), &[]), @r#"
    exit 1
    error: one class only, "up", a classification needs at least two labels
    hint: give examples of every label, or name the labels with --labels 'negative= negative,positive= positive'
    "#);
    insta::assert_snapshot!(train_on("d.jsonl", GOOD, &["--labels", "up=,down= down"]), @r#"
    exit 1
    error: the string "" of the label "up" gives no tokens, choose another string with --labels
    "#);
    insta::assert_snapshot!(train_on("d.jsonl", GOOD, &["--labels", "up= x,down= x"]), @r#"
    exit 1
    error: the labels "down" and "up" are the same tokens, choose other strings for them with --labels
    "#);
    insta::assert_snapshot!(train_on("d.jsonl", GOOD, &["--labels", "up"]), @r#"
    exit 1
    error: invalid value 'up' for '--labels <LABEL=TEXT,…>': "up" has no '=', write LABEL=TEXT,LABEL=TEXT and \, for a comma inside a text

    For more information, try '--help'.
    "#);
    let scene = Scene::new();
    scene
        .file("d.jsonl", GOOD)
        .file("t.jsonl", GOOD.replace("\"fine\", \"label\": \"up\"", "\"fine\", \"label\": \"upp\""));
    let llama = model("llama-tiny");
    insta::assert_snapshot!(refused(&scene, &["train", "d.jsonl", "--test", "t.jsonl", "--model", &llama]), @r#"
    exit 1
    error: t.jsonl, line 3, field "label": unknown label "upp" (did you mean "up"?), the labels are: "down", "up"
    hint: the labels are those of the training data unless --labels names them; add examples of this one, name it, or correct it
    "#);
}

#[test]
fn settings_that_cannot_be() {
    insta::assert_snapshot!(train_on("d.jsonl", GOOD, &["--virtual-tokens", "100000"]), @r#"
    exit 1
    error: 100000 virtual tokens do not fit into the model's context of 512; use fewer
    "#);
    insta::assert_snapshot!(train_on("d.jsonl", GOOD, &["--max-length", "3"]), @r#"
    exit 1
    error: d.jsonl, line 2: the template alone takes 8 tokens and the label or target after it 3, more than the 3 there is room for: give a larger --max-length or a shorter template
    "#);
    insta::assert_snapshot!(train_on("d.jsonl", GOOD, &["--init", "from:nowhere"]), @r#"
    exit 1
    error: nowhere is not a directory; give the directory that holds adapter_model.safetensors
    "#);
    insta::assert_snapshot!(train_on("d.jsonl", GOOD, &["--train", "d.jsonl"]), @r#"
    exit 1
    error: both d.jsonl and --train name the training data
    hint: give one of them
    "#);
    insta::assert_snapshot!(train_on("d.toml", "[train]\nstep = 3\n", &[]), @r#"
    exit 1
    error: d.toml, line 2, column 1: unknown field `step`, expected one of `steps`, `epochs`, `minutes`, `max_steps`, `batch_size`, `learning_rate`, `schedule`, `warmup`, `max_grad_norm`, `weight_decay`, `shuffle`, `eval_every`, `patience`, `keep`, `keep_by`, `class_weights`, `micro_batch_tokens`, `memory`, `context_cache_dir`, `seed`, `candidates`, `ensemble`, `token_dropout`, `noise`, `ema_decay`, `trust_region`
    "#);
    insta::assert_snapshot!(train_on("d.jsonl", GOOD, &["--template", "{text"]), @r#"
    exit 1
    error: invalid value '{text' for '--template <TEXT|chat>': template "{text", column 1: '{' without its '}' (write '{{' for a brace)

    For more information, try '--help'.
    "#);
    insta::assert_snapshot!(train_on("d.jsonl", GOOD, &["--placement", "middle"]), @r#"
    exit 1
    error: invalid value 'middle' for '--placement <PLACE>'
      [possible values: front, after-bos, system, suffix]

    For more information, try '--help'.
    "#);
}

#[test]
fn places_that_are_taken() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    scene.file("d.jsonl", GOOD);
    fs::create_dir(scene.path("p")).unwrap();
    scene.file("p/notes.txt", "mine");
    let train = ["train", "d.jsonl", "--model", &llama, "--steps", "1", "--out"];
    insta::assert_snapshot!(refused(&scene, &[&train[..], &["p"]].concat()), @r#"
    exit 1
    error: p already has notes.txt in it; pass --force to replace the prompt there, or another --out
    "#);
    insta::assert_snapshot!(refused(&scene, &[&train[..], &["d.jsonl"]].concat()), @r#"
    exit 1
    error: cannot write a prompt to --out d.jsonl: d.jsonl is not a directory
    "#);
    insta::assert_snapshot!(refused(&scene, &[&train[..], &["d.jsonl/p"]].concat()), @r#"
    exit 1
    error: cannot write a prompt to --out d.jsonl/p: d.jsonl is not a directory
    "#);
    insta::assert_snapshot!(refused(&scene, &[&train[..], &["q", "--log", "nowhere/l.jsonl"]].concat()), @r#"
    exit 1
    error: cannot write --log nowhere/l.jsonl: No such file or directory (os error 2)
    "#);
    fs::create_dir(scene.path("logs")).unwrap();
    insta::assert_snapshot!(refused(&scene, &[&train[..], &["q", "--log", "logs"]].concat()), @r#"
    exit 1
    error: cannot write --log logs: Is a directory (os error 21)
    "#);
    fs::create_dir(scene.path("sentiment-prompt")).unwrap();
    scene.file("sentiment-prompt/notes.txt", "mine");
    insta::assert_snapshot!(refused(&scene, &["quickstart"]), @r#"
    exit 1
    error: sentiment-prompt already has notes.txt in it; pass --force to replace the prompt there, or another --out
    "#);
}

#[test]
fn models_that_are_none() {
    let scene = Scene::new();
    let sentences = sentences();
    let eval =
        |model: &str| refused(&scene, &["eval", "--prompt", "none", "--data", &sentences, "--model", model]);
    insta::assert_snapshot!(eval("Qwen3-0.6B"), @r#"
    exit 1
    error: the model Qwen3-0.6B is neither a bundled model, nor a directory or .gguf file, nor org/name of the Hugging Face hub
    hint: perhaps Qwen/Qwen3-0.6B of the Hugging Face hub is meant; give foreword-tiny (bundled), a directory with config.json, tokenizer.json and model.safetensors, a .gguf file, or org/name
    "#);
    insta::assert_snapshot!(eval("gpt2"), @r#"
    exit 1
    error: the model gpt2 is neither a bundled model, nor a directory or .gguf file, nor org/name of the Hugging Face hub
    hint: perhaps openai-community/gpt2 of the Hugging Face hub is meant; give foreword-tiny (bundled), a directory with config.json, tokenizer.json and model.safetensors, a .gguf file, or org/name
    "#);
    insta::assert_snapshot!(eval("my-reviews"), @r#"
    exit 1
    error: the model my-reviews is neither a bundled model, nor a directory or .gguf file, nor org/name of the Hugging Face hub
    hint: give foreword-tiny (bundled), a directory with config.json, tokenizer.json and model.safetensors, a .gguf file, or org/name
    "#);

    let llama = root().join("testdata/models/llama-tiny");
    let copy = |name: &str| scene.copy(&llama, name);
    fs::remove_file(copy("no-tokenizer").join("tokenizer.json")).unwrap();
    insta::assert_snapshot!(eval("no-tokenizer"), @r#"
    exit 1
    error: no-tokenizer is no model directory: it has no tokenizer.json; a Hugging Face directory holds config.json, tokenizer.json and model.safetensors (or its shards with model.safetensors.index.json); vocab.json and merges.txt will do instead of tokenizer.json, and a tokenizer of another kind becomes one with `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)` in Python
    "#);

    let weights = copy("cut-off").join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 100]).unwrap();
    insta::assert_snapshot!(eval("cut-off"), @r#"
    exit 1
    error: the model cut-off: model.safetensors: not a whole safetensors file (incomplete metadata, file not fully covered); download or copy it again
    "#);

    let config = copy("other").join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"model_type\": \"llama\"", "\"model_type\": \"mamba\"")).unwrap();
    // The list of families grows.
    let other = eval("other");
    let (told, families) = other.split_once("; supported are ").unwrap();
    assert_eq!(told, "exit 1\nerror: the model other: config.json: model_type `mamba` is not supported");
    assert!(families.split(", ").any(|family| family == "llama"), "{families}");
}

#[test]
fn devices_that_are_none() {
    let scene = Scene::new();
    let classify = |device: &str| {
        refused(&scene, &["classify", "--prompt", "none", "--labels", "a= a,b= b", "--device", device, "x"])
    };
    let cuda = classify("cuda:0");
    // A build that can use a GPU, too, has none of this number.
    let without = cfg!(not(feature = "cuda"));
    assert!(without || classify("cuda:99").starts_with("exit 1\nerror: --device cuda:99 can't be used"));
    if without {
        insta::assert_snapshot!(cuda, @r#"
        exit 1
        error: --device cuda:0: this foreword was built without cuda
        hint: build it with `cargo build --release --features cuda`, for which CONTRIBUTING.md says what is needed; or take --device cpu
        "#);
    }
    assert!(classify("gpu").contains("a device is auto, cpu, cuda:0 (or another number) or metal"));
}

#[test]
fn prompts_that_do_not_fit() {
    let scene = Scene::new();
    let sentences = sentences();
    assert_eq!(scene.train("p", "1", &[]).code, 0);
    let llama = root().join("testdata/models/llama-tiny");
    let eval = |prompt: &str, model: &str| {
        refused(&scene, &["eval", "--prompt", prompt, "--data", &sentences, "--model", model])
    };
    insta::assert_snapshot!(eval("nowhere", &model("llama-tiny")), @r#"
    exit 1
    error: there is no prompt directory nowhere
    hint: `foreword train` makes one; --prompt none is the bare model
    "#);
    insta::assert_snapshot!(refused(&scene, &["eval", "--prompt", "p", "--data", &sentences]), @r#"
    exit 1
    error: the prompt p was made for "llama-tiny", whose location is unknown
    hint: give the directory of that model with --model
    "#);
    insta::assert_snapshot!(eval("p", &model("gpt2-tiny")), @r#"
    exit 1
    error: the prompt has rows of width 32, but those of gpt2-tiny have width 36: it was made for another model (llama-tiny)
    hint: give the model that the prompt was made for with --model, or train a prompt for this one
    "#);
    insta::assert_snapshot!(eval("p", &model("qwen2-tiny")), @r#"
    exit 1
    error: the soft prompt was made for llama-tiny, which qwen2-tiny is not: vocab 397 instead of 401, context 256 instead of 512, head_width 8 instead of 12, output_bias false instead of true, intermediate 64 instead of 56, mlp_bias false instead of true, norm_eps 1e-6 instead of 0.00001, positions {"kind":"rotary","theta":1000000.0} instead of {"factor":8.0,"high_frequency_factor":4.0,"kind":"rotary","low_frequency_factor":1.0,"original_context":64,"scaling":"llama3","theta":10000.0}
    hint: give the model that the prompt was made for with --model, or train a prompt for this one
    "#);

    // The same model but for the signs of its embeddings.
    let weights = scene.copy(&llama, "other-weights").join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let offsets = &tensors["model.embed_tokens.weight"]["data_offsets"];
    let range =
        header + offsets[0].as_u64().unwrap() as usize..header + offsets[1].as_u64().unwrap() as usize;
    bytes[range].iter_mut().skip(3).step_by(4).take(64).for_each(|byte| *byte ^= 0x80);
    fs::write(&weights, bytes).unwrap();
    insta::assert_snapshot!(eval("p", "other-weights"), @r#"
    exit 1
    error: the soft prompt was made for llama-tiny, and other-weights has the same shape but other weights; a soft prompt means nothing to another model, so give the one it was made for, or tune a new one
    "#);

    let prompt = scene.copy(&root().join("testdata/parity/llama-tiny/end"), "nan");
    let tensors = prompt.join("adapter_model.safetensors");
    let mut bytes = fs::read(&tensors).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..header + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&tensors, bytes).unwrap();
    insta::assert_snapshot!(eval("nan", &model("llama-tiny")), @r#"
    exit 1
    error: nan/adapter_model.safetensors: row 0, column 0 of the prompt is NaN; a run that diverged cannot be used
    "#);
}

#[test]
fn nothing_to_classify() {
    let scene = Scene::new();
    let none = ["classify", "--prompt", "none"];
    let labels = ["--labels", "a= a,b= b"];
    insta::assert_snapshot!(refused(&scene, &none), @r#"
    exit 1
    error: nothing says which labels there are
    hint: name them with their texts, as in --labels 'negative= negative,positive= positive'
    "#);
    insta::assert_snapshot!(refused(&scene, &[&none[..], &labels].concat()), @r#"
    exit 1
    error: there is no text to classify
    hint: give texts, --data FILE, or - to read texts from standard input, one a line
    "#);
    insta::assert_snapshot!(refused(&scene, &[&none[..], &labels, &["-"]].concat()), @r#"
    exit 1
    error: standard input has no lines, so there is no text to classify
    "#);
    let two = ["--template", "{premise} so {hypothesis}", "x"];
    insta::assert_snapshot!(refused(&scene, &[&none[..], &labels, &two].concat()), @r#"
    exit 1
    error: the template has several fields (premise, hypothesis), and the text "x" is no JSON object with them
    hint: write '{"premise": "…", "hypothesis": "…"}', or --field premise=… --field hypothesis=…, or give --data FILE
    "#);
}

#[test]
fn a_run_that_diverges_keeps_its_best_prompt() {
    let scene = Scene::new();
    let ran = scene.train("p", "50", &["--learning-rate", "3e38", "--max-grad-norm", "0", "--warmup", "0"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    insta::assert_snapshot!(scene.told(&errors(Ran { stdout: String::new(), ..ran })), @r#"
    exit 2
    error: the loss or its gradient was not a finite number at step 2
    hint: try a lower --learning-rate, or leave it at auto with --max-grad-norm 1
    "#);
    let passport: serde_json::Value =
        serde_json::from_slice(&fs::read(scene.path("p/foreword.json")).unwrap()).unwrap();
    assert_eq!(passport["training"]["best_step"], 0);
    let (llama, prompt) = (model("llama-tiny"), ["classify", "--prompt", "p", "x", "--model"]);
    assert_eq!(scene.run(&[&prompt[..], &[&llama]].concat()).code, 0);
}

/// A place that takes no files even from those who may do all.
#[cfg(target_os = "linux")]
#[test]
fn an_out_directory_that_takes_no_files_is_found_before_the_data_is_read() {
    if !std::path::Path::new("/proc/self").exists() {
        eprintln!("skipped: /proc is not mounted");
        return;
    }
    let scene = Scene::new();
    let llama = model("llama-tiny");
    let args = ["train", "absent.jsonl", "--model", &llama, "--out", "/proc/self/prompt"];
    let message = refused(&scene, &args);
    assert!(message.starts_with(
        "exit 1\nerror: cannot write a prompt to --out /proc/self/prompt: /proc/self is not writable ("
    ));
}

#[test]
fn a_log_takes_no_other_files_place() {
    let scene = Scene::new();
    scene.file("a.jsonl", GOOD);
    let llama = model("llama-tiny");
    let base = ["train", "a.jsonl", "--model", &llama, "--steps", "1", "--out", "p", "--log"];
    let message = refused(&scene, &[&base[..], &["./a.jsonl"]].concat());
    assert!(message.contains("--log ./a.jsonl is read by this run"), "{message}");
    assert_eq!(fs::read_to_string(scene.path("a.jsonl")).unwrap(), GOOD);
    fs::create_dir(scene.path("p")).unwrap();
    let message = refused(&scene, &[&base[..], &["p/foreword.json"]].concat());
    assert!(message.contains("lies in --out"), "{message}");
}

#[test]
fn a_peft_directory_of_a_model_of_other_depth_is_refused() {
    let scene = Scene::new();
    let dir = scene.copy(&root().join("testdata/parity/llama-tiny/start"), "start");
    let config = dir.join("adapter_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"num_layers\": 2", "\"num_layers\": 60")).unwrap();
    let llama = model("llama-tiny");
    let args = ["classify", "--prompt", "start", "--model", &llama, "--labels", "a= a,b= b", "x"];
    let message = refused(&scene, &args);
    assert!(message.contains("num_layers 2 instead of 60"), "{message}");
}

#[test]
fn a_damaged_model_gives_no_answer() {
    let scene = Scene::new();
    let dir = scene.copy(&root().join("testdata/models/qwen2-tiny"), "damaged");
    let path = dir.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let place = &json["model.layers.0.mlp.down_proj.weight"]["data_offsets"];
    let at = |i: usize| header + place[i].as_u64().unwrap() as usize;
    bytes[at(0)..at(1)].fill(0xFF);
    fs::write(&path, bytes).unwrap();
    let args = ["classify", "--prompt", "none", "--model", "damaged", "--labels", "a= a,b= b", "x"];
    let message = refused(&scene, &args);
    assert!(message.starts_with("exit 2") && message.contains("is not a finite number"), "{message}");
}
