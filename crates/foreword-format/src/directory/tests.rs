//! Tests of what is read if the replacement of a prompt is interrupted after each of its steps.

use std::collections::BTreeMap;

use super::*;
use crate::{
    BaseModel, EmbeddingFingerprint, FORMAT_VERSION, Objective, TaskKind, TaskRecord, TrainingRecord,
};

/// A passport for `rows`.
fn passport(rows: &SoftPrompt, placement: Placement, name: &str) -> Passport {
    let digest = digest::sha256(name.as_bytes());
    Passport {
        format_version: FORMAT_VERSION,
        foreword_version: "0.1.0".to_owned(),
        tensors_digest: digest::sha256(&rows.to_safetensors().unwrap()),
        base_model: BaseModel {
            name: name.to_owned(),
            spec: serde_json::json!({}),
            ignored_config_keys: Vec::new(),
            embeddings: EmbeddingFingerprint {
                dtype: "f32".to_owned(),
                digest: digest.clone(),
                sketch: vec![],
            },
        },
        tokenizer_digest: digest,
        task: TaskRecord {
            kind: TaskKind::Generation,
            template: "{text}".to_owned(),
            chat: None,
            labels: BTreeMap::new(),
            label_names: BTreeMap::new(),
            joining: crate::Joining::Whole,
            placement,
            objective: Objective::Lm,
            max_length: 64,
            text_field: None,
            label_field: None,
            target_field: None,
        },
        training: TrainingRecord {
            method: Method::Prompt,
            n_virtual: rows.n_virtual(),
            width: rows.width(),
            init: "random".to_owned(),
            seed: 0,
            settings: BTreeMap::new(),
            steps: 1,
            best_step: 1,
            data: BTreeMap::new(),
        },
        metrics: BTreeMap::new(),
        calibration: None,
    }
}

/// The three kinds of prompt directory: directly from PEFT, also for PEFT, and with a placement that PEFT does not support.
fn kinds(value: f32, name: &str) -> [PromptDirectory; 3] {
    let rows = SoftPrompt::new(vec![value; 8], 2, 4).unwrap();
    let mut adapter = AdapterConfig::causal_lm(2, 4).unwrap();
    adapter.base_model = Some(name.to_owned());
    let front = Some(passport(&rows, Placement::Front, name));
    let suffix = Some(passport(&rows, Placement::Suffix, name));
    [
        PromptDirectory { rows: rows.clone(), adapter: Some(adapter.clone()), passport: None },
        PromptDirectory { rows: rows.clone(), adapter: Some(adapter), passport: front },
        PromptDirectory { rows, adapter: None, passport: suffix },
    ]
}

/// Begins to replace the prompt in `dir` by `new`, and is killed after `n_steps`.
fn replace_until(new: &PromptDirectory, dir: &Path, n_steps: usize) {
    let mut replacement = Replacement::stage(dir, &new.contents(dir).unwrap()).unwrap();
    for step in Step::ALL.into_iter().take(n_steps) {
        replacement.take(step).unwrap();
    }
    let Replacement { tensors, adapter, passport, old_adapter, old_tensors, .. } = replacement;
    [tensors, adapter, passport].into_iter().flatten().for_each(Staged::abandon);
    [old_adapter, old_tensors].into_iter().flatten().for_each(SetAside::abandon);
}

#[test]
fn a_replacement_cut_off_anywhere_is_the_old_prompt_or_the_new_or_refused() {
    for old in kinds(1.0, "old") {
        for new in kinds(2.0, "new") {
            for n_steps in 0..=Step::ALL.len() {
                let scratch = tempfile::tempdir().unwrap();
                let dir = scratch.path();
                old.write(dir, Overwrite::Refuse).unwrap();
                replace_until(&new, dir, n_steps);

                let what = format!("{n_steps} steps from {old:?} to {new:?}");
                match (n_steps, PromptDirectory::read(dir)) {
                    (0, read) => assert_eq!(read.unwrap(), old, "{what}"),
                    (5, read) => assert_eq!(read.unwrap(), new, "{what}"),
                    (1, Ok(read)) => {
                        // Without the old adapter_config.json, which only PEFT needs beside a passport.
                        assert!(old.passport.is_some(), "{what}");
                        assert_eq!(
                            (read.rows, read.passport),
                            (old.rows.clone(), old.passport.clone()),
                            "{what}"
                        );
                    }
                    (4, Ok(read)) => {
                        // The new rows as PEFT reads them.
                        assert!(old.passport.is_none() && new.adapter.is_some(), "{what}");
                        assert_eq!(
                            (read.rows, read.adapter),
                            (new.rows.clone(), new.adapter.clone()),
                            "{what}"
                        );
                    }
                    (_, read) => assert!(read.is_err(), "{what}: {read:?}"),
                }
            }
        }
    }
}

#[test]
fn a_step_that_fails_puts_back_what_was_there() {
    for old in kinds(1.0, "old") {
        for new in kinds(2.0, "new") {
            for n_steps in 0..Step::ALL.len() {
                let scratch = tempfile::tempdir().unwrap();
                let dir = scratch.path();
                old.write(dir, Overwrite::Refuse).unwrap();
                let n_files = fs::read_dir(dir).unwrap().count();

                let mut replacement = Replacement::stage(dir, &new.contents(dir).unwrap()).unwrap();
                Step::ALL.into_iter().take(n_steps).for_each(|step| replacement.take(step).unwrap());
                replacement.undo();

                let what = format!("{n_steps} steps from {old:?} to {new:?}");
                assert_eq!(PromptDirectory::read(dir).unwrap(), old, "{what}");
                assert_eq!(fs::read_dir(dir).unwrap().count(), n_files, "temporary files are left, {what}");
            }
        }
    }
}

#[test]
fn a_write_that_fails_midway_leaves_the_old_prompt() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let [old, ..] = kinds(1.0, "old");
    let [_, new, _] = kinds(2.0, "new");
    old.write(dir, Overwrite::Refuse).unwrap();
    let replacement = Replacement::stage(dir, &new.contents(dir).unwrap()).unwrap();
    fs::create_dir(dir.join(PASSPORT_FILE)).unwrap(); // no file can be moved over a directory
    assert!(matches!(replacement.finish(), Err(FormatError::Io { .. })));
    fs::remove_dir(dir.join(PASSPORT_FILE)).unwrap();
    assert_eq!(PromptDirectory::read(dir).unwrap(), old);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 2, "temporary files are left");
}
