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
mod init;
mod inspect;
mod joint;
mod shared_data;
mod verbalizer;

use foreword_backbone::tokenizer::Tokenizer;
use foreword_testkit::{root, shared};

/// The bundled model's tokenizer: byte-level BPE with `<s>` in front.
fn tiny_tokenizer() -> Tokenizer {
    Tokenizer::from_bytes(&std::fs::read(root().join("crates/foreword-tiny/tokenizer.json")).unwrap())
        .unwrap()
}

/// A tokenizer beside the workspace, where it is there.
fn shared_tokenizer(name: &str) -> Option<Tokenizer> {
    shared(name).map(|path| Tokenizer::from_bytes(&std::fs::read(path).unwrap()).unwrap())
}
mod golden;
mod laws;
mod length;
mod loss;
mod parity;
mod population;
mod prefix;
