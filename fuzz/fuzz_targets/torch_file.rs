//! Feeds `torch_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| foreword_fuzz::check("torch_file", bytes));
