//! The prompt directory from outside.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, but their helpers are not seen as tests"
)]

/// Damaged and random bytes.
mod damage;
/// Writing, overwriting, and files that do not belong together.
mod directory;
/// Prompts, passports and damaged files to test with.
mod fixtures;
/// `foreword.json`: its bytes, and what is refused.
mod passport;
/// Directories that PEFT wrote, and bytes that PEFT would write.
mod peft;
/// `adapter_model.safetensors`: what is refused, and that values survive.
mod tensors;
