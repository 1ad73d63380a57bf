//! Prompts, passports and damaged files to test with.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use foreword_format::digest::sha256;
use foreword_format::{
    AdapterConfig, BaseModel, DataRecord, EmbeddingFingerprint, FORMAT_VERSION, FormatError, Method,
    Objective, Passport, Placement, PromptDirectory, SoftPrompt, TENSORS_FILE, TaskKind, TaskRecord,
    TrainingRecord,
};
use serde_json::json;

/// A file or directory of `tests/data`.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// P × H different numbers. [P, H]
pub(crate) fn rows(n_virtual: usize, hidden: usize) -> SoftPrompt {
    let values = (0..n_virtual * hidden).map(|idx| idx as f32 * 0.125 - 1.0).collect();
    SoftPrompt::new(values, n_virtual, hidden).unwrap()
}

/// A passport with something in every field.
pub(crate) fn passport(rows: &SoftPrompt) -> Passport {
    Passport {
        format_version: FORMAT_VERSION,
        foreword_version: "0.1.0".to_owned(),
        tensors_digest: sha256(&rows.to_safetensors().unwrap()),
        base_model: BaseModel {
            name: "foreword-tiny".to_owned(),
            spec: json!({ "vocab": 4096, "hidden": rows.width(), "norm": { "kind": "rms", "eps": 1e-5 } }),
            ignored_config_keys: Vec::new(),
            embeddings: EmbeddingFingerprint {
                dtype: "bf16".to_owned(),
                digest: sha256(b"table"),
                sketch: vec![0.1, -2.5],
            },
        },
        tokenizer_digest: sha256(b"tokenizer"),
        task: TaskRecord {
            kind: TaskKind::Classification,
            template: "{text}\nSentiment:".to_owned(),
            chat: None,
            labels: [("positive", " positive"), ("negative", " negative")]
                .map(|(label, text)| (label.to_owned(), text.to_owned()))
                .into(),
            label_names: [("0".to_owned(), "negative".to_owned())].into(),
            joining: foreword_format::Joining::Whole,
            placement: Placement::Front,
            objective: Objective::Label,
            max_length: 512,
            text_field: Some("text".to_owned()),
            label_field: Some("label".to_owned()),
            target_field: None,
        },
        training: TrainingRecord {
            method: Method::Prompt,
            n_virtual: rows.n_virtual(),
            width: rows.width(),
            init: "text:Classify.".to_owned(),
            seed: u64::MAX,
            settings: [("learning_rate".to_owned(), json!("auto")), ("batch_size".to_owned(), json!(32))]
                .into(),
            steps: 400,
            best_step: 360,
            data: [(
                "train".to_owned(),
                DataRecord { digest: sha256(b"train"), file_digest: Some(sha256(b"file")), examples: 6920 },
            )]
            .into(),
        },
        metrics: [
            ("test.bare".to_owned(), [("accuracy".to_owned(), 0.647)].into()),
            (
                "test".to_owned(),
                BTreeMap::from([("loss".to_owned(), 1.0 / 3.0), ("accuracy".to_owned(), 0.775)]),
            ),
        ]
        .into(),
        calibration: None,
    }
}

/// A prompt with all three files.
pub(crate) fn prompt() -> PromptDirectory {
    let rows = rows(3, 4);
    let mut adapter = AdapterConfig::causal_lm(3, 4).unwrap();
    adapter.base_model = Some("foreword-tiny".to_owned());
    adapter.n_heads = Some(2);
    adapter.n_layers = Some(1);
    PromptDirectory { passport: Some(passport(&rows)), rows, adapter: Some(adapter) }
}

/// A safetensors file with this header and body.
pub(crate) fn safetensors(header: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(body);
    bytes
}

/// A safetensors file whose one tensor has this name, type and shape.
pub(crate) fn one_tensor(name: &str, dtype: &str, shape: &[usize], body: &[u8]) -> Vec<u8> {
    let header = json!({ name: { "dtype": dtype, "shape": shape, "data_offsets": [0, body.len()] } });
    safetensors(&header.to_string(), body)
}

/// The names in `dir`, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// All bytes in `dir`, by name.
pub(crate) fn snapshot(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    names(dir)
        .into_iter()
        .filter_map(|name| Some((fs::read(dir.join(&name)).ok()?, name)))
        .map(swap)
        .collect()
}

fn swap<A, B>((a, b): (A, B)) -> (B, A) {
    (b, a)
}

/// A new directory with these files and the tensors of `rows`.
pub(crate) fn directory_with(rows: &SoftPrompt, files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(TENSORS_FILE), rows.to_safetensors().unwrap()).unwrap();
    for (name, contents) in files {
        fs::write(dir.path().join(name), contents).unwrap();
    }
    dir
}

/// The message of an error with all its causes, as the command line prints it.
pub(crate) fn message(error: &FormatError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Asserts that reading `dir` fails with a message that has each of `parts`, begins in lower case (or with a path) and
/// has no full stop.
#[track_caller]
pub(crate) fn check_refused(dir: &Path, parts: &[&str]) {
    check_error(&PromptDirectory::read(dir).unwrap_err(), parts);
}

/// Asserts as [`check_refused`] on an error.
#[track_caller]
pub(crate) fn check_error(error: &FormatError, parts: &[&str]) {
    let text = message(error);
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    assert!(!text.starts_with(|c: char| c.is_ascii_uppercase()), "{text}");
    assert!(!text.ends_with('.'), "{text}");
}
