//! What the parts do together, seen from outside: one module per subject.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests, and their helpers that are no tests themselves"
)]

mod demonstrations;
mod encode;
mod explain;
mod generate;
mod generator;
mod inspect;
mod joint;
mod shared_data;
mod verbalizer;

use foreword_backbone::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

/// The root of the workspace.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The bundled model's tokenizer: byte-level BPE with `<s>` in front.
fn tiny_tokenizer() -> Tokenizer {
    Tokenizer::from_bytes(&std::fs::read(workspace().join("crates/foreword-tiny/tokenizer.json")).unwrap())
        .unwrap()
}

/// A path beside the workspace, where it is there.
fn shared(name: &str) -> Option<PathBuf> {
    let path = workspace().join("../shared").join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not here", path.display());
        return None;
    }
    Some(path)
}

/// A tokenizer beside the workspace, where it is there.
fn shared_tokenizer(name: &str) -> Option<Tokenizer> {
    shared(name).map(|path| Tokenizer::from_bytes(&std::fs::read(path).unwrap()).unwrap())
}
mod golden;
mod laws;
mod loss;
mod parity;
mod population;
mod prefix;
mod step_time;
