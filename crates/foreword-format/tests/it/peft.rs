//! Directories that PEFT wrote, and bytes that PEFT would write.
//!
//! `tests/data` holds what `save_pretrained` of PEFT 0.21.2 wrote for random models of hidden size 8: three virtual
//! tokens by PROMPT_TUNING and P_TUNING on a Llama, by PROMPT_TUNING on a T5, and the config of a LoRA.

use std::fs;
use std::path::Path;

use foreword_format::{
    ADAPTER_FILE, AdapterConfig, FormatError, Method, Overwrite, PICKLE_FILE, PeftTask, PeftType,
    PromptDirectory, SoftPrompt, TENSORS_FILE,
};
use proptest::prelude::*;

use crate::fixtures::{check_error, check_refused, data, directory_with, message, names, one_tensor, rows};

fn adapter(json: &str) -> Result<AdapterConfig, FormatError> {
    AdapterConfig::from_json(json.as_bytes(), Path::new(ADAPTER_FILE))
}

#[test]
fn a_prompt_from_peft_is_read_and_written_again_to_the_byte() {
    let from = data("prompt-tuning");
    let prompt = PromptDirectory::read(&from).unwrap();
    assert_eq!((prompt.rows.n_virtual(), prompt.rows.width()), (3, 8));
    assert!(prompt.passport.is_none());
    assert_eq!(prompt.adapter.as_ref().unwrap().task, Some(PeftTask::CausalLm));

    let scratch = tempfile::tempdir().unwrap();
    let to = scratch.path().join("deep/er");
    prompt.write(&to, Overwrite::Refuse).unwrap();
    for file in [ADAPTER_FILE, TENSORS_FILE] {
        assert_eq!(fs::read(to.join(file)).unwrap(), fs::read(from.join(file)).unwrap(), "{file}");
    }
    assert_eq!(names(&to), [ADAPTER_FILE, TENSORS_FILE]);
}

#[test]
fn a_kv_prefix_from_peft_is_read_and_written_again_to_the_byte() {
    // Two layers whose keys have two heads of twelve numbers.
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/parity/llama-tiny/prefix-tuning");
    let prompt = PromptDirectory::read(&from).unwrap();
    assert_eq!((prompt.rows.n_virtual(), prompt.rows.width()), (6, 2 * 2 * 24));
    assert_eq!(prompt.method(), Method::Prefix);

    let scratch = tempfile::tempdir().unwrap();
    prompt.write(scratch.path(), Overwrite::Replace).unwrap();
    for file in [ADAPTER_FILE, TENSORS_FILE] {
        assert_eq!(
            fs::read(scratch.path().join(file)).unwrap(),
            fs::read(from.join(file)).unwrap(),
            "{file}"
        );
    }
    let mut made = AdapterConfig::causal_lm_prefix(6, 2, 2, 24).unwrap();
    made.base_model = prompt.adapter.as_ref().unwrap().base_model.clone();
    assert_eq!(Some(made), prompt.adapter);
    let cartridge = r#"{"peft_type": "CARTRIDGE", "num_virtual_tokens": 2, "token_dim": 4, "num_layers": 3}"#;
    assert_eq!(
        (adapter(cartridge).unwrap().method(), adapter(cartridge).unwrap().width()),
        (Method::Prefix, 24)
    );
}

#[test]
fn the_config_is_written_as_peft_writes_it() {
    let mut config = AdapterConfig::causal_lm(8, 32).unwrap();
    config.n_heads = Some(4);
    config.n_layers = Some(2);
    let expected = r#"{
  "auto_mapping": null,
  "base_model_name_or_path": null,
  "inference_mode": true,
  "modules_to_save": null,
  "num_attention_heads": 4,
  "num_layers": 2,
  "num_transformer_submodules": 1,
  "num_virtual_tokens": 8,
  "peft_type": "PROMPT_TUNING",
  "peft_version": "0.21.2",
  "prompt_tuning_init": "RANDOM",
  "prompt_tuning_init_text": null,
  "revision": null,
  "task_type": "CAUSAL_LM",
  "token_dim": 32,
  "tokenizer_kwargs": null,
  "tokenizer_name_or_path": null
}"#;
    assert_eq!(String::from_utf8(config.to_json().unwrap()).unwrap(), expected);
    assert_eq!(adapter(expected).unwrap(), config);
}

#[test]
fn names_are_escaped_as_python_escapes_them() {
    let mut config = AdapterConfig::causal_lm(1, 1).unwrap();
    let name = "Modell-ä/日本/😀/\u{7f}\"\\\n";
    config.base_model = Some(name.to_owned());
    let text = String::from_utf8(config.to_json().unwrap()).unwrap();
    // json.dumps(name) in Python 3.11
    assert!(text.contains(r#""Modell-\u00e4/\u65e5\u672c/\ud83d\ude00/\u007f\"\\\n""#), "{text}");
    assert_eq!(adapter(&text).unwrap(), config);
}

#[test]
fn p_tuning_is_read_as_the_rows_that_its_encoder_made() {
    let prompt = PromptDirectory::read(&data("p-tuning")).unwrap();
    let config = prompt.adapter.as_ref().unwrap();
    assert_eq!(config.peft_type(), PeftType::PTuning);
    assert_eq!((prompt.rows.n_virtual(), prompt.rows.width()), (3, 8));

    let scratch = tempfile::tempdir().unwrap();
    prompt.write(scratch.path(), Overwrite::Refuse).unwrap();
    let written = PromptDirectory::read(scratch.path()).unwrap();
    assert_eq!(written.rows, prompt.rows);
    assert_eq!(written.adapter.unwrap().peft_type(), PeftType::PromptTuning);
}

#[test]
fn an_encoder_decoder_prompt_is_the_first_half_of_what_peft_stores() {
    let all =
        SoftPrompt::from_safetensors(&fs::read(data("encoder-decoder").join(TENSORS_FILE)).unwrap()).unwrap();
    assert_eq!(all.n_virtual(), 6);
    let prompt = PromptDirectory::read(&data("encoder-decoder")).unwrap();
    assert_eq!(prompt.adapter.as_ref().unwrap().task, Some(PeftTask::Seq2SeqLm));
    assert_eq!(prompt.rows.n_virtual(), 3);
    assert_eq!(prompt.rows.values(), &all.values()[..3 * 8]);

    let scratch = tempfile::tempdir().unwrap();
    prompt.write(scratch.path(), Overwrite::Refuse).unwrap();
    let written = PromptDirectory::read(scratch.path()).unwrap();
    assert_eq!(written.rows, prompt.rows);
    assert_eq!(written.adapter.unwrap().task, Some(PeftTask::Seq2SeqLm));
}

#[test]
fn other_versions_of_peft_lack_fields_and_have_others() {
    let sparse = r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "token_dim": 4}"#;
    let config = adapter(sparse).unwrap();
    assert_eq!((config.n_virtual(), config.width(), config.task), (2, 4, None));
    let dir = directory_with(&rows(2, 4), &[(ADAPTER_FILE, sparse)]);
    assert_eq!(PromptDirectory::read(dir.path()).unwrap().rows, rows(2, 4));

    let rich = r#"{"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 2, "token_dim": 4,
        "prompt_tuning_init": "SAMPLE_VOCAB", "peft_version": "0.99.0", "future": {"a": [1, null]}}"#;
    assert_eq!(adapter(rich).unwrap(), AdapterConfig::causal_lm(2, 4).unwrap());

    // Without the number of submodules, PEFT stores two copies for an encoder-decoder.
    let seq2seq = r#"{"peft_type": "PROMPT_TUNING", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 2, "token_dim": 4}"#;
    let dir = directory_with(&rows(4, 4), &[(ADAPTER_FILE, seq2seq)]);
    assert_eq!(PromptDirectory::read(dir.path()).unwrap().rows.values(), &rows(4, 4).values()[..8]);
    let dir = directory_with(&rows(2, 4), &[(ADAPTER_FILE, seq2seq)]);
    check_refused(dir.path(), &["stored rows 4", "says 2"]);
}

#[test]
fn other_adapters_are_refused_by_name() {
    check_refused(
        &data("lora"),
        &["adapter_config.json", "LORA", "PROMPT_TUNING, P_TUNING and PREFIX_TUNING"],
    );
    for (json, part) in [
        (r#"{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": "x"}"#, "line 1"),
        (r#"{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 2, "token_dim": 4}"#, "num_layers"),
        (
            r#"{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 2, "token_dim": 4, "num_layers": 0}"#,
            "of 0 numbers",
        ),
        (
            r#"{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 2, "token_dim": 4, "num_layers": 3,
                "num_transformer_submodules": 2}"#,
            "num_transformer_submodules 2",
        ),
        (r#"{"peft_type": "MULTITASK_PROMPT_TUNING"}"#, "MULTITASK_PROMPT_TUNING"),
        (r#"{"num_virtual_tokens": 2, "token_dim": 4}"#, "peft_type"),
        (r#"{"peft_type": "PROMPT_TUNING", "task_type": "SEQ_CLS"}"#, "SEQ_CLS"),
        (r#"{"peft_type": "PROMPT_TUNING", "token_dim": 4}"#, "num_virtual_tokens"),
        (r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2}"#, "token_dim"),
        (r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 0, "token_dim": 4}"#, "0 virtual tokens"),
        (r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "token_dim": 0}"#, "of 0 numbers"),
        (r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": -2, "token_dim": 4}"#, "-2"),
        (r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 1e99, "token_dim": 4}"#, "line 1"),
        (
            r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "token_dim": 4, "num_transformer_submodules": 3}"#,
            "num_transformer_submodules 3",
        ),
        ("[]", "adapter_config.json"),
        ("", "EOF"),
    ] {
        check_error(&adapter(json).unwrap_err(), &[part]);
    }
    assert!(matches!(AdapterConfig::causal_lm(0, 4), Err(FormatError::Empty { .. })));
}

#[test]
fn absurd_sizes_do_not_overflow() {
    let json = format!(
        r#"{{"peft_type": "PROMPT_TUNING", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": {0}, "token_dim": {0}}}"#,
        u64::MAX
    );
    let dir = directory_with(&rows(2, 4), &[(ADAPTER_FILE, &json)]);
    check_refused(dir.path(), &["stored rows"]);
}

#[test]
fn a_pickle_is_never_read() {
    let dir = tempfile::tempdir().unwrap();
    let config = AdapterConfig::causal_lm(2, 4).unwrap();
    fs::write(dir.path().join(ADAPTER_FILE), config.to_json().unwrap()).unwrap();
    fs::write(dir.path().join(PICKLE_FILE), b"\x80\x02.").unwrap();
    check_refused(dir.path(), &[PICKLE_FILE, "is a pickle", "foreword import", "runs nothing"]);

    fs::write(dir.path().join(TENSORS_FILE), rows(2, 4).to_safetensors().unwrap()).unwrap();
    assert_eq!(PromptDirectory::read(dir.path()).unwrap().rows, rows(2, 4));
}

#[test]
fn a_prompt_with_a_trained_part_of_the_model_is_refused() {
    let dir = directory_with(&rows(1, 1), &[]);
    let mut config = AdapterConfig::causal_lm(1, 1).unwrap();
    config.base_model = Some("m".to_owned());
    fs::write(dir.path().join(ADAPTER_FILE), config.to_json().unwrap()).unwrap();
    let header = r#"{"prompt_embeddings":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},
        "base_model.lm_head.weight":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    fs::write(dir.path().join(TENSORS_FILE), crate::fixtures::safetensors(header, &[0; 8])).unwrap();
    check_refused(dir.path(), &["base_model.lm_head.weight"]);

    fs::write(dir.path().join(TENSORS_FILE), one_tensor("lora_A", "F32", &[1, 1], &[0; 4])).unwrap();
    let error = PromptDirectory::read(dir.path()).unwrap_err();
    assert!(matches!(error, FormatError::NoPromptTensor { .. }), "{}", message(&error));
}

proptest! {
    #[test]
    fn a_config_survives_being_written_and_read(
        name in proptest::option::of(any::<String>()),
        revision in proptest::option::of("[a-f0-9]{0,40}"),
        sizes in (1..usize::MAX, 1..usize::MAX),
        n_layers in proptest::option::of(any::<usize>()),
    ) {
        let mut config = AdapterConfig::causal_lm(sizes.0, sizes.1).unwrap();
        config.base_model = name;
        config.revision = revision;
        config.n_layers = n_layers;
        let bytes = config.to_json().unwrap();
        prop_assert!(bytes.is_ascii());
        prop_assert_eq!(AdapterConfig::from_json(&bytes, Path::new("x")).unwrap(), config);
    }
}
