//! Feeds `prompt_directory`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| foreword_fuzz::check("prompt_directory", bytes));
