//! The frozen models: parity with transformers, the laws of the forest, and what bad files say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "tests, and their helpers that are no tests themselves"
)]

mod bad_models;
mod config_keys;
mod forest;
mod gguf;
mod golden;
mod info;
mod parity;
mod specs;
mod table;
mod tokens;
mod variants;
