//! Feeds `npy_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| foreword_fuzz::check("npy_file", bytes));
