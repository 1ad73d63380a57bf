//! Keys of real `config.json` files: which of them count, and what becomes of the others.

use foreword_backbone::{Backbone, BackboneError, Model, ModelFiles, ModelInfo};
use foreword_kernels::Cpu;
use serde_json::{Value, json};

use crate::golden::root;

fn with(model: &str, keys: &Value) -> ModelFiles {
    let mut files = ModelFiles::directory(&root().join("testdata/models").join(model)).unwrap();
    let mut config: Value = serde_json::from_slice(&files.config).unwrap();
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    files.config = config.to_string().into_bytes();
    files
}

fn refusal(files: &ModelFiles) -> String {
    Backbone::load(files, Cpu::new(1).unwrap()).expect_err("the model loads").to_string()
}

#[test]
fn keys_of_published_models_without_effect_are_known() {
    let keys = json!({
        "is_llama_config": true, "rope_interleaved": false, "pretraining_tp": 1, "_num_labels": 1,
        "transformers.js_config": { "dtype": "q4" }, "partial_rotary_factor": 1, "unsloth_fixed": true,
        "auto_map": { "AutoConfig": "configuration_x.XConfig" }, "model_max_length": 2048, "_commit_hash": null,
        "use_flash_attention": true, "max_window_layers": 28, "lm_head_bias": false, "tie_encoder_decoder": false,
        "z_loss": 1e-4, "_model_name_or_path": "x", "_sliding_window_pattern": 6, "use_bidirectional_attention": false,
        "ep_plan": null, "layer_types": ["full_attention", "full_attention"], "use_mrope": false,
        "quantization_config": null, "pruned_heads": {}, "sliding_window": null, "fp16": true, "vision_tower": "",
        "_attn_implementation": "eager", "bos_token": "<s>", "is_causal": true, "custom_note": [], "base_model_tp_plan": null,
        "training_args": { "lr": 1e-4 }, "sentence_transformers": { "version": "3" },
    });
    for model in ["llama-tiny", "granite-tiny"] {
        let mut keys = keys.clone();
        if model == "granite-tiny" {
            let keys = keys.as_object_mut().unwrap();
            keys.retain(|key, _| {
                !["is_llama_config", "layer_types", "rope_interleaved"].contains(&key.as_str())
            });
        }
        let files = with(model, &keys);
        let plain = with(model, &json!({}));
        let spec = |files: &ModelFiles| Backbone::load(files, Cpu::new(1).unwrap()).unwrap().spec().clone();
        assert_eq!(spec(&files), spec(&plain));
        assert!(ModelInfo::of(&files).refused.is_none());
    }
    // The first files of Gemma 2 have a key twice.
    let window = with("gemma2-tiny", &json!({}));
    let window: Value = serde_json::from_slice(&window.config).unwrap();
    let window = window["sliding_window"].as_u64().unwrap();
    assert!(ModelInfo::of(&with("gemma2-tiny", &json!({ "sliding_window_size": window }))).refused.is_none());
    let other = refusal(&with("gemma2-tiny", &json!({ "sliding_window_size": window + 1 })));
    assert!(other.contains("`sliding_window_size`"), "{other}");
}

#[test]
fn keys_that_might_count_are_refused_by_name() {
    let says = |keys: Value, expected: &str| {
        let message = refusal(&with("llama-tiny", &keys));
        assert!(message.contains(expected), "{message:?} does not say {expected:?}");
    };
    says(
        json!({ "logit_scale": 2 }),
        "config.json: `logit_scale` is not understood: the model might compute",
    );
    says(json!({ "logit_scale": 2, "clip_qkv": 8 }), "`logit_scale`, `clip_qkv` are not understood");
    // Off is not absent where every decoder has it.
    says(json!({ "is_causal": false }), "`is_causal` is not understood");
    says(
        json!({ "layer_types": ["full_attention", "sliding_attention"] }),
        "`layer_types` is not understood",
    );
    says(json!({ "sliding_window": 128 }), "`sliding_window` is not understood");
    says(json!({ "use_bidirectional_attention": true }), "`use_bidirectional_attention` is not understood");
}

#[test]
fn weights_that_are_quantised_in_another_way_say_how_to_go_on() {
    let says = |keys: Value, expected: &str| {
        let message = refusal(&with("llama-tiny", &keys));
        assert!(message.contains(expected), "{message:?} does not say {expected:?}");
    };
    let by = |method: &str| json!({ "quantization_config": { "quant_method": method, "bits": 4 } });
    says(
        by("gptq"),
        "the weights are quantised by gptq, which is not read; use the model that it was made from",
    );
    says(by("bitsandbytes"), "quantised by bitsandbytes, which is not read; write them plain in Python");
    says(json!({ "quantization": { "group_size": 64, "bits": 4 } }), "quantised by MLX");
    // Merged after training with quantised weights: only the note is left.
    let files = with("llama-tiny", &by("bitsandbytes")).ignoring(&["quantization_config".to_owned()]);
    Backbone::load(&files, Cpu::new(1).unwrap()).unwrap();
}

#[test]
fn a_key_can_be_ignored_and_is_part_of_the_identity() {
    let keys = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect::<Vec<_>>();
    let odd = json!({
        "logit_scale": 2, "vendor.note": 1,
        "rope_parameters": { "rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0, "house_style": 7 },
    });
    let files = with("llama-tiny", &odd);
    let BackboneError::UnknownKeys { keys: unknown, .. } =
        Backbone::load(&files, Cpu::new(1).unwrap()).unwrap_err()
    else {
        panic!("another error");
    };
    assert_eq!(unknown, ["rope_parameters.house_style"]);
    let ignored = keys(&[
        "logit_scale",
        "rope_parameters.house_style",
        "vendor.note",
        "nothing",
        "rope_parameters.nothing",
    ]);
    assert_eq!(files.understood(&ignored), [""; 0]);
    assert_eq!(
        files.understood(&keys(&["vendor", "logit_scale", "hidden_size"])),
        [""; 0],
        "others are not understood"
    );
    let known = with("llama-tiny", &json!({"vendor": 1}));
    for key in ["hidden_size", "num_key_value_heads", "rope_parameters"] {
        assert_eq!(known.understood(&keys(&["vendor", key, "transformers_version", "nothing"])), [key]);
    }
    let files = files.ignoring(&ignored);
    assert_eq!(files.ignored_config_keys, ignored[..3]);
    let model = Model::load(&files, Cpu::new(1).unwrap()).unwrap();
    assert_eq!(model.backbone.identity().ignored_config_keys, ignored[..3]);
    // What a family needs can't be left out.
    let files = with("llama-tiny", &json!({})).ignoring(&keys(&["hidden_size"]));
    assert!(refusal(&files).contains("`hidden_size` is missing"));
    // Bytes that are no JSON are refused as before.
    let mut files = with("llama-tiny", &json!({}));
    files.config = b"[".to_vec();
    assert!(refusal(&files.ignoring(&ignored)).contains("config.json is not a JSON object"));
}
