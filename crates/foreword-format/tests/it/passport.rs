//! `foreword.json`: its bytes, and what is refused.

use std::path::Path;

use foreword_format::digest::sha256;
use foreword_format::{CalibrationMethod, CalibrationRecord, FormatError, Passport, Placement, TaskKind};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{check_error, passport, rows};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn read(bytes: &[u8]) -> Result<Passport, FormatError> {
    Passport::from_json(bytes, Path::new("p/foreword.json"))
}

/// The example as JSON, to be spoilt.
fn example() -> Value {
    serde_json::from_slice(&passport(&rows(3, 4)).to_json(DIGEST).unwrap()).unwrap()
}

#[test]
fn the_bytes_are_these() {
    let expected = include_str!("../data/foreword.json");
    let bytes = passport(&rows(3, 4)).to_json(DIGEST).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    let read = read(expected.as_bytes()).unwrap();
    assert_eq!(read, Passport { tensors_digest: DIGEST.to_owned(), ..passport(&rows(3, 4)) });
}

#[test]
fn what_earlier_versions_wrote_is_read() {
    let now = include_str!("../data/foreword.json");
    let then = now.replace(r#""method": "prompt""#, r#""method": "prompt-tuning""#);
    let then = then.replace(r#"    "width": 4"#, r#"    "hidden": 4"#);
    assert_ne!(then, now);
    assert_eq!(read(then.as_bytes()).unwrap(), read(now.as_bytes()).unwrap());

    let mut then: Value = serde_json::from_str(now).unwrap();
    then["task"].as_object_mut().unwrap().remove("label_names").unwrap();
    then["training"]["data"]["train"].as_object_mut().unwrap().remove("file_digest").unwrap();
    let read = read(then.to_string().as_bytes()).unwrap();
    assert!(read.task.label_names.is_empty() && read.training.data["train"].file_digest.is_none());
    let again = String::from_utf8(read.to_json(DIGEST).unwrap()).unwrap();
    assert!(!again.contains("label_names") && !again.contains("file_digest"));
}

#[test]
fn the_order_in_which_a_spec_was_built_does_not_show() {
    let mut one = passport(&rows(3, 4));
    let mut other = one.clone();
    one.base_model.spec = json!({ "a": 1, "b": [{ "c": 2, "d": 3 }] });
    other.base_model.spec = json!({ "b": [{ "d": 3, "c": 2 }], "a": 1 });
    one.training.settings.insert("s".to_owned(), json!({ "x": 1, "y": 2 }));
    other.training.settings.insert("s".to_owned(), json!({ "y": 2, "x": 1 }));
    assert_eq!(one.to_json(DIGEST).unwrap(), other.to_json(DIGEST).unwrap());
}

#[test]
fn another_version_is_refused_before_its_fields_are_looked_at() {
    let error = read(br#"{"format_version": 2, "news": true}"#).unwrap_err();
    assert!(matches!(error, FormatError::FormatVersion { found: 2, supported: 1, .. }), "{error}");
    let mut old = passport(&rows(3, 4));
    old.format_version = 0;
    assert!(matches!(old.to_json(DIGEST), Err(FormatError::FormatVersion { found: 0, .. })));
}

#[test]
fn unknown_missing_and_mistyped_fields_are_refused_by_name() {
    #[track_caller]
    fn check(spoil: impl FnOnce(&mut Value), parts: &[&str]) {
        let mut json = example();
        spoil(&mut json);
        check_error(&read(json.to_string().as_bytes()).unwrap_err(), parts);
    }
    check(|json| json["extra"] = json!(1), &["foreword.json", "unknown field `extra`"]);
    check(|json| json["task"]["labls"] = json!({}), &["unknown field `labls`"]);
    check(|json| json["base_model"]["path"] = json!("/home"), &["unknown field `path`"]);
    check(|json| json["training"]["seconds"] = json!(1), &["unknown field `seconds`"]);
    check(|json| json["training"]["seed"] = json!(-1), &["-1"]);
    check(|json| json["task"]["placement"] = json!("AfterBos"), &["AfterBos", "after-bos"]);
    check(|json| json["task"]["kind"] = json!("regression"), &["regression"]);
    check(|json| json["metrics"]["test"]["loss"] = json!(null), &["null"]);
    check(|json| json["tensors_digest"] = json!("md5:0"), &["tensors_digest", "md5:0"]);
    check(|json| json["tokenizer_digest"] = json!(""), &["tokenizer_digest"]);
    check(|json| json["base_model"]["embeddings"]["digest"] = json!("x"), &["embeddings.digest"]);
    check(|json| json["base_model"]["embeddings"]["sketch"] = json!([1e300]), &["out of range"]);
    check(|json| json["training"]["data"]["train"]["digest"] = json!("x"), &["training.data"]);
    check(|json| json["training"]["n_virtual"] = json!(0), &["training.n_virtual"]);
    check(|json| json["training"]["best_step"] = json!(401), &["401", "400"]);
    check(|json| json["task"]["max_length"] = json!(0), &["task.max_length"]);
    check(|json| json["task"]["labels"] = json!({}), &["labels"]);
    check(
        |json| drop(json.as_object_mut().unwrap().remove("tokenizer_digest")),
        &["missing field `tokenizer_digest`"],
    );
}

#[test]
fn a_number_that_json_lacks_is_not_written() {
    for bad in [f64::NAN, f64::INFINITY] {
        let mut record = passport(&rows(3, 4));
        record.metrics.entry("dev".to_owned()).or_default().insert("loss".to_owned(), bad);
        check_error(&record.to_json(DIGEST).unwrap_err(), &["metrics.dev.loss"]);
    }
    let mut record = passport(&rows(3, 4));
    record.base_model.embeddings.sketch[1] = f32::NAN;
    check_error(&record.to_json(DIGEST).unwrap_err(), &["sketch", "NaN"]);
}

#[test]
fn a_calibration_is_optional_and_belongs_to_the_labels() {
    let mut record = passport(&rows(3, 4));
    record.tensors_digest = DIGEST.to_owned();
    let without = String::from_utf8(record.to_json(DIGEST).unwrap()).unwrap();
    assert!(!without.contains("calibration"));
    assert_eq!(read(without.as_bytes()).unwrap().calibration, None);
    let offsets = [("negative", 0.25), ("positive", 0.0)].map(|(label, offset)| (label.to_owned(), offset));
    record.calibration = Some(CalibrationRecord {
        method: CalibrationMethod::ContentFree,
        temperature: 1.5,
        offsets: offsets.into(),
    });
    let bytes = record.to_json(DIGEST).unwrap();
    assert_eq!(read(&bytes).unwrap(), record);
    let check = |spoil: &dyn Fn(&mut Value), parts: &[&str]| {
        let mut json: Value = serde_json::from_slice(&bytes).unwrap();
        spoil(&mut json["calibration"]);
        check_error(&read(json.to_string().as_bytes()).unwrap_err(), parts);
    };
    check(&|json| json["method"] = json!("magic"), &["calibration \"magic\"", "content-free"]);
    check(&|json| json["temperature"] = json!(0), &["calibration.temperature is 0"]);
    check(&|json| json["offsets"]["neutral"] = json!(0), &["calibration.offsets", "each label"]);
    check(&|json| drop(json["offsets"].as_object_mut().unwrap().remove("negative")), &["each label"]);
    check(&|json| json["seed"] = json!(0), &["unknown field `seed`"]);
    record.calibration.as_mut().unwrap().temperature = f64::NAN;
    check_error(&record.to_json(DIGEST).unwrap_err(), &["calibration.temperature is NaN"]);
}

#[test]
fn names_are_the_same_in_code_and_file() {
    for placement in [Placement::Front, Placement::AfterBos, Placement::Suffix] {
        assert_eq!(json!(placement), json!(placement.to_string()));
    }
    for kind in [TaskKind::Classification, TaskKind::Generation] {
        assert_eq!(json!(kind), json!(kind.to_string()));
    }
    for objective in [foreword_format::Objective::Label, foreword_format::Objective::Lm] {
        assert_eq!(json!(objective), json!(objective.to_string()));
    }
}

proptest! {
    #[test]
    fn a_passport_survives_being_written_and_read(
        template in any::<String>(),
        labels in proptest::collection::btree_map(any::<String>(), any::<String>(), 1..4),
        numbers in proptest::collection::btree_map(any::<String>(), any::<u64>().prop_map(f64::from_bits), 0..4),
        sketch in proptest::collection::vec(any::<u32>().prop_map(f32::from_bits), 0..4),
        seed in any::<u64>(),
    ) {
        let mut record = passport(&rows(3, 4));
        record.tensors_digest = sha256(b"");
        record.task.template = template;
        record.task.labels = labels;
        record.training.seed = seed;
        let finite = numbers.values().all(|v| v.is_finite()) && sketch.iter().all(|v| v.is_finite());
        record.metrics.insert("dev".to_owned(), numbers);
        record.base_model.embeddings.sketch = sketch;
        match record.to_json(&sha256(b"")) {
            Ok(bytes) => {
                prop_assert!(finite);
                prop_assert_eq!(&read(&bytes).unwrap(), &record);
                prop_assert_eq!(record.to_json(&sha256(b"")).unwrap(), bytes);
            }
            Err(error) => prop_assert!(!finite, "{}", error),
        }
    }
}
