//! The kept inputs, replayed: what a fuzzer once found interesting, and everything that was ever wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests, and their helpers that are no tests themselves"
)]

use std::fs;
use std::path::{Path, PathBuf};

use foreword_fuzz::{TARGETS, check};

/// What the corpora may take in all, and the most inputs of one.
const MOST_BYTES: u64 = 1 << 20;
const MOST_INPUTS: usize = 120;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The inputs of a target, by name.
fn inputs(target: &str) -> Vec<PathBuf> {
    let dir = fuzz().join("corpus").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_kept_input_keeps_the_law() {
    for target in TARGETS {
        for path in inputs(target.name) {
            let bytes = fs::read(&path).unwrap();
            let checked = std::panic::catch_unwind(|| check(target.name, &bytes));
            assert!(checked.is_ok(), "{} breaks the law, as said above", path.display());
        }
    }
}

/// What a GGUF file says of itself, wrong in one place: many such files, in every `cargo test`.
#[test]
fn gguf_files_with_one_wrong_byte_keep_the_law() {
    for path in inputs("gguf") {
        let bytes = fs::read(&path).unwrap();
        for i in 0..400usize {
            let mut bytes = bytes.clone();
            // Nearly everything worth damaging lies before the numbers.
            let at = i * 7919 % bytes.len().min(2200);
            bytes[at] ^= [1, 0x80, 0xff, 0x10][i % 4];
            let checked = std::panic::catch_unwind(|| check("gguf", &bytes));
            assert!(checked.is_ok(), "{} breaks the law with another byte {at}", path.display());
        }
    }
}

#[test]
fn every_target_has_a_fuzzer_and_a_small_corpus() {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let mut bytes = 0;
    for target in TARGETS {
        let name = target.name;
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml lacks {name}");
        let feeds = fs::read_to_string(fuzz().join("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(
            feeds.contains(&format!("foreword_fuzz::check(\"{name}\", bytes)")),
            "{name} feeds something else"
        );
        let inputs = inputs(name);
        assert!((1..=MOST_INPUTS).contains(&inputs.len()), "{name} has {} inputs", inputs.len());
        bytes += inputs.iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>();
    }
    assert!(bytes <= MOST_BYTES, "the corpora take {bytes} bytes: minimise them");
    let corpora = fs::read_dir(fuzz().join("corpus")).unwrap().count();
    assert_eq!(corpora, TARGETS.len(), "a corpus without a target");
}
