//! Feeds `adapter_config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| foreword_fuzz::check("adapter_config", bytes));
