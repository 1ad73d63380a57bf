//! Feeds `task_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| foreword_fuzz::check("task_file", bytes));
