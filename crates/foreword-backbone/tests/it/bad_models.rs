//! Damaged or foreign models are refused with a message that says what is wrong.

use std::fs;
use std::path::Path;

use foreword_backbone::{Backbone, ModelFiles};
use foreword_kernels::{Bytes, Cpu};
use proptest::prelude::*;

use crate::golden::{Files as _, Golden, root, tiny_models};

/// A copy of a model in a new directory.
fn copy(model: &str) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(root().join("testdata/models").join(model)).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, to.path().join(from.file_name().unwrap())).unwrap();
    }
    to
}

/// The message that loading gives.
fn refusal(dir: &Path) -> String {
    let load = ModelFiles::directory(dir).and_then(|files| Backbone::load(&files, Cpu::new(1).unwrap()));
    load.expect_err("the model loads").to_string()
}

#[track_caller]
fn check(model: &str, damage: impl FnOnce(&Path), expected: &str) {
    let dir = copy(model);
    damage(dir.path());
    let message = refusal(dir.path());
    assert!(message.contains(expected), "{message:?} does not say {expected:?}");
}

fn edit_config(from: &str, to: &str) -> impl FnOnce(&Path) {
    move |dir| {
        let path = dir.join("config.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }
}

#[test]
fn missing_files_are_named() {
    assert!(refusal(Path::new("no/such/model")).contains("can't read no/such/model"));
    check(
        "gpt2-tiny",
        |dir| fs::remove_file(dir.join("tokenizer.json")).unwrap(),
        "it has no tokenizer.json",
    );
    check("gpt2-tiny", |dir| fs::remove_file(dir.join("config.json")).unwrap(), "it has no config.json");
    check("gpt2-tiny", |dir| fs::remove_file(dir.join("model.safetensors")).unwrap(), "no model.safetensors");
    let pickled = |dir: &Path| {
        fs::rename(dir.join("model.safetensors"), dir.join("pytorch_model.bin")).unwrap();
    };
    check("gpt2-tiny", pickled, "a pickle, which Foreword never reads");
    let shard = "model-00002-of-00002.safetensors";
    check("llama-plain", |dir| fs::remove_file(dir.join(shard)).unwrap(), shard);
}

#[test]
fn damaged_weights_are_refused() {
    let truncate = |dir: &Path| {
        let path = dir.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 10]).unwrap();
    };
    check("llama-tiny", truncate, "model.safetensors: not a whole safetensors file");
    let empty = |dir: &Path| fs::write(dir.join("model.safetensors"), []).unwrap();
    check("llama-tiny", empty, "not a whole safetensors file");
    let outside = |dir: &Path| {
        fs::write(dir.join("model.safetensors.index.json"), r#"{"weight_map":{"a":"../../x.safetensors"}}"#)
            .unwrap();
    };
    check("llama-plain", outside, "no file beside the index");
}

#[test]
fn every_key_of_the_configuration_counts() {
    check(
        "llama-tiny",
        edit_config("\"llama\"", "\"mamba\""),
        "model_type `mamba` is not supported; supported are bloom, cohere, falcon, gemma",
    );
    check("llama-tiny", edit_config("\"hidden_size\"", "\"hidden_width\""), "`hidden_size` is missing");
    check(
        "llama-tiny",
        edit_config("\"vocab_size\"", "\"logit_scale\": 2, \"vocab_size\""),
        "`logit_scale` is not understood",
    );
    check(
        "llama-tiny",
        edit_config("\"llama3\"", "\"ntk\""),
        "supported are default, linear, dynamic, llama3",
    );
    // Not its keys.
    check("llama-tiny", edit_config("\"llama3\"", "\"yarn\""), "`rope_parameters.high_freq_factor`");
    check("llama-tiny", edit_config("\"silu\"", "\"mish\""), "`hidden_act` is \"mish\"");
    check("qwen2-tiny", edit_config("\"use_cache\"", "\"use_mrope\": true, \"use_cache\""), "only false");
    check(
        "falcon-tiny",
        edit_config("\"alibi\": false", "\"alibi\": true"),
        "only false is supported: distances",
    );
    check("opt-tiny", edit_config("_before\": true", "_before\": false"), "only true is supported: norms");
    check(
        "llama-tiny",
        edit_config("\"intermediate_size\": 56", "\"intermediate_size\": 57"),
        "config.json asks for [57, 32]",
    );
    check("llama-tiny", edit_config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"), "`layers.2.");
    check(
        "llama-tiny",
        edit_config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"),
        "has no place for, such as `layers.1.",
    );
    check(
        "llama-tiny",
        edit_config("\"num_attention_heads\": 4", "\"num_attention_heads\": 3"),
        "must divide the 3 query heads",
    );
    check("llama-tiny", edit_config("{", "["), "config.json is not a JSON object");
}

#[test]
fn numbers_that_become_none_in_single_precision_are_refused() {
    let llama = |from: &str, to: &str, expected: &str| check("llama-tiny", edit_config(from, to), expected);
    llama("1e-05", "1e-300", "`rms_norm_eps` is 1e-300, a positive number was expected");
    llama("1e-05", "1e300", "`rms_norm_eps` is 1e+300, a positive number was expected");
    llama(
        "\"rope_theta\": 10000.0",
        "\"rope_theta\": 1e-30",
        "`rope_parameters.rope_theta` is 1e-30, it must be at least 1",
    );
    llama("\"factor\": 8.0", "\"factor\": 1e-20", "`rope_parameters.factor` is 1e-20, it stretches");
    let (from, to) = ("\"low_freq_factor\": 1.0", "\"low_freq_factor\": 3.9999999999");
    llama(from, to, "`rope_parameters.low_freq_factor` is 3.9999999999, it must be below high_freq_factor");
}

#[test]
fn contradictions_and_hostile_sizes_are_refused() {
    // qwen2-tiny stores a head of its own.
    check(
        "qwen2-tiny",
        edit_config("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true"),
        "`lm_head.weight` holds other numbers",
    );
    let both = "\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, \
                \"original_max_position_embeddings\": 64}, \"rope_parameters\": {\"rope_type\": \"default\"}, \"vocab_size\"";
    check(
        "llama-plain",
        |dir| {
            let path = dir.join("config.json");
            let text = fs::read_to_string(&path).unwrap().replace("\"rope_scaling\": null,", "");
            fs::write(path, text.replacen("\"vocab_size\"", both, 1)).unwrap();
        },
        "it contradicts rope_parameters",
    );
    let layers = edit_config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 2147483647");
    check("qwen2-tiny", layers, "at most 10000 layers");
    check(
        "llama-tiny",
        edit_config("\"vocab_size\"", "\"rope_interleaved\": true, \"vocab_size\""),
        "only false is supported",
    );
}

#[test]
fn a_tokenizer_whose_ids_leave_the_table_is_refused() {
    let mut files = ModelFiles::directory(&root().join("testdata/models/llama-tiny")).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&files.tokenizer.json()).unwrap();
    let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
    // The count stays the same.
    vocabulary.insert("d".into(), 60_000.into());
    files.tokenizer = serde_json::to_vec(&json).unwrap().into();
    let message = foreword_backbone::Model::load(&files, Cpu::new(1).unwrap()).unwrap_err().to_string();
    assert!(message.contains("tokens up to number 60000"), "{message}");
}

/// config.json as transformers 5 writes it, every default spelled out, says what the shorter or older one says.
#[test]
fn the_configuration_that_transformers_writes_says_the_same() {
    let mut n = 0;
    for entry in fs::read_dir(root().join("testdata/configs")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let mut files = ModelFiles::directory(&root().join("testdata/models").join(name)).unwrap();
        let load = |files: &ModelFiles| {
            let loaded = Backbone::load(files, Cpu::new(1).unwrap());
            loaded.unwrap_or_else(|error| panic!("{name}: {error}")).spec().clone()
        };
        let ours = load(&files);
        files.config = fs::read(&path).unwrap();
        assert_eq!(load(&files), ours, "{name}");
        n += 1;
    }
    assert!(n > 15);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Bytes flipped or cut anywhere in config.json or the weights: an error or a model, never a panic.
    #[test]
    fn damage_never_panics(family: usize, at in 0usize..1 << 20, byte: u8, cut: bool, in_config: bool) {
        let names = tiny_models();
        let mut files = Golden::read(&names[family % names.len()]).files().unwrap();
        let mut damaged = if in_config { files.config.clone() } else { files.weights[0].1.to_vec() };
        // Mostly the header, where damage matters.
        let at = at % damaged.len().min(4096);
        if cut { damaged.truncate(at) } else { damaged[at] = byte }
        if in_config { files.config = damaged } else { files.weights[0].1 = Bytes::from(damaged) }
        let _ = Backbone::load(&files, Cpu::new(1).unwrap());
    }
}
