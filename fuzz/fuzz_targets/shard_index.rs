//! Feeds `shard_index`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| foreword_fuzz::check("shard_index", bytes));
