//! What the tests of several crates share: where data lies, golden numbers, and a stand-in for the Hugging Face hub.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::new_without_default,
    missing_docs,
    reason = "for tests alone"
)]

pub mod golden;
pub mod stand_in;

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A path in `../shared`, which is not in the repository; says so where it is missing.
#[must_use]
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = root().join("../shared").join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not here", path.display());
        return None;
    }
    Some(path)
}

/// A JSON file of the repository.
#[must_use]
pub fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(root().join(path)).unwrap()).unwrap()
}
