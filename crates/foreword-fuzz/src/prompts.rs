//! Prompt directories and the files in them.

use std::cell::OnceCell;
use std::fs;
use std::path::Path;

use foreword::format::foreign::{from_npy, from_torch, to_npy};
use foreword::format::{ADAPTER_FILE, PASSPORT_FILE, TENSORS_FILE};
use foreword::{AdapterConfig, Passport, PromptDirectory, SoftPrompt};
use tempfile::TempDir;

use crate::parts;

/// Works in this thread's scratch directory.
pub(crate) fn scratch(work: impl FnOnce(&Path)) {
    thread_local!(static SCRATCH: OnceCell<TempDir> = const { OnceCell::new() });
    SCRATCH.with(|dir| {
        work(dir.get_or_init(|| tempfile::tempdir().expect("a scratch directory is made")).path());
    });
}

/// The input in three parts; an empty one is a file that is not there.
pub(crate) fn directory(bytes: &[u8]) {
    let [adapter, passport, tensors] = parts(bytes);
    scratch(|dir| {
        for (file, bytes) in [(ADAPTER_FILE, adapter), (PASSPORT_FILE, passport), (TENSORS_FILE, tensors)] {
            let path = dir.join(file);
            if bytes.is_empty() {
                let _ = fs::remove_file(path);
            } else {
                fs::write(path, bytes).expect("a scratch file is written");
            }
        }
        match PromptDirectory::read(dir) {
            Ok(read) => assert!(read.adapter.is_some() || read.passport.is_some()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

pub(crate) fn torch_file(bytes: &[u8]) {
    match from_torch(bytes) {
        Ok(rows) => assert_eq!(from_npy(&to_npy(&rows)).ok(), Some(rows)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

pub(crate) fn npy_file(bytes: &[u8]) {
    match from_npy(bytes) {
        Ok(rows) => assert_eq!(from_npy(&to_npy(&rows)).ok(), Some(rows)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

pub(crate) fn adapter_config(bytes: &[u8]) {
    let path = Path::new(ADAPTER_FILE);
    if let Ok(config) = AdapterConfig::from_json(bytes, path) {
        assert!(config.n_virtual() > 0 && config.width() > 0);
        let again = config.to_json().expect("what was read can be written");
        assert!(AdapterConfig::from_json(&again, path).is_ok());
    }
}

pub(crate) fn passport(bytes: &[u8]) {
    let path = Path::new(PASSPORT_FILE);
    if let Ok(passport) = Passport::from_json(bytes, path) {
        let again = passport.to_json(&passport.tensors_digest).expect("what was read can be written");
        assert_eq!(Passport::from_json(&again, path).expect("what was written can be read"), passport);
    }
}

pub(crate) fn tensors(bytes: &[u8]) {
    if let Ok(rows) = SoftPrompt::from_safetensors(bytes) {
        assert!(rows.values().iter().all(|value| value.is_finite()));
        assert_eq!(rows.values().len(), rows.n_virtual() * rows.width());
        let again = rows.to_safetensors().expect("what was read can be written");
        assert_eq!(SoftPrompt::from_safetensors(&again).expect("what was written can be read"), rows);
    }
}
