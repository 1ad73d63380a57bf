//! Feeds `gguf`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| foreword_fuzz::check("gguf", bytes));
