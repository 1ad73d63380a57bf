//! What every reader of Foreword must withstand, one [`Target`] each, for the fuzzer and for the tests.
//!
//! The law: whatever the bytes, a reader returns, with a value or an error. It does not panic, it does not take longer than
//! [`MOST_TIME`], and it does not hold more memory than [`Target::base`] and [`Target::multiple`] times the bytes it was
//! given. What it accepts, the rest of the program can use: a target goes on with a value that was read.
//!
//! `fuzz/` feeds these targets from libFuzzer; `tests/corpus.rs` feeds them the kept inputs in every `cargo test`.

#![allow(
    clippy::expect_used,
    reason = "for tests alone: a target that can't do its work ends, as one that breaks the law does"
)]

mod data;
mod files;
mod memory;
mod models;
mod prompts;
mod tiny;
mod tokenizers;

use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// The longest that a reader may take with one input of a corpus.
pub const MOST_TIME: Duration = Duration::from_secs(5);

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// One reader.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of the fuzzer's binary and of the corpus.
    pub name: &'static str,
    /// Memory that may be held whatever the input, in bytes.
    pub base: usize,
    /// Memory that may be held for each byte of the input.
    pub multiple: usize,
    run: fn(&[u8]),
}

/// All readers. The multiples: a JSON value takes up to 32 times its text (`[0,0,…`), and a row of data that is one byte
/// and a line break is a string, a list and a place, with as much again while lists grow.
pub const TARGETS: [Target; 20] = [
    Target { name: "prompt_directory", base: MIB, multiple: 200, run: prompts::directory },
    Target { name: "adapter_config", base: MIB, multiple: 200, run: prompts::adapter_config },
    Target { name: "passport", base: MIB, multiple: 200, run: prompts::passport },
    Target { name: "prompt_tensors", base: MIB, multiple: 200, run: prompts::tensors },
    Target { name: "model_weights", base: MIB, multiple: 200, run: models::weights },
    Target { name: "model_config", base: MIB, multiple: 200, run: models::config },
    Target { name: "gguf", base: 8 * MIB, multiple: 2 * KIB, run: models::gguf },
    Target { name: "shard_index", base: MIB, multiple: 200, run: models::shard_index },
    Target { name: "tokenizer", base: 8 * MIB, multiple: 2 * KIB, run: tokenizers::tokenizer },
    Target { name: "task_file", base: MIB, multiple: 400, run: files::task_file },
    Target { name: "data_jsonl", base: MIB, multiple: 200, run: data::jsonl },
    Target { name: "data_json", base: MIB, multiple: 200, run: data::json },
    Target { name: "data_csv", base: MIB, multiple: 200, run: data::csv },
    Target { name: "data_tsv", base: MIB, multiple: 200, run: data::tsv },
    Target { name: "data_parquet", base: 256 * MIB, multiple: 32 * KIB, run: data::parquet },
    Target { name: "data_packed", base: 800 * MIB, multiple: 100 * KIB, run: data::packed },
    Target { name: "torch_file", base: 8 * MIB, multiple: 400, run: prompts::torch_file },
    Target { name: "npy_file", base: MIB, multiple: 200, run: prompts::npy_file },
    Target { name: "template", base: MIB, multiple: 200, run: files::template },
    Target { name: "checkpoint", base: MIB, multiple: 200, run: files::checkpoint },
];

/// Holds a reader to the law.
///
/// # Panics
/// If there is no target of that name, or if the reader breaks the law.
pub fn check(name: &str, bytes: &[u8]) {
    // The allocator counts for all threads: one target at a time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    pass_over_guarded_panics();
    let target = TARGETS.iter().find(|target| target.name == name);
    let Some(target) = target else { panic!("there is no target {name}") };
    let started = Instant::now();
    let peak = memory::peak_of(|| (target.run)(bytes));
    let (took, most) = (started.elapsed(), target.base + target.multiple * bytes.len());
    assert!(took <= MOST_TIME, "{name} took {took:?} with {} bytes", bytes.len());
    assert!(peak <= most, "{name} held {peak} bytes with {} bytes of input, more than {most}", bytes.len());
}

/// Panics that are turned into errors are no finding; a fuzzer's hook would end the process.
fn pass_over_guarded_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_reader = std::thread::current().name() == Some(foreword::data::READER_THREAD);
            if !is_reader && !foreword::tokenizer::is_guarded() {
                hook(panic);
            }
        }));
    });
}

/// The input in parts: each but the last has its length before it, as two bytes.
fn parts<const N: usize>(mut bytes: &[u8]) -> [&[u8]; N] {
    let mut parts = [[].as_slice(); N];
    for part in &mut parts[..N - 1] {
        let (length, rest) = bytes.split_at(bytes.len().min(2));
        let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        (*part, bytes) = rest.split_at(rest.len().min(length));
    }
    parts[N - 1] = bytes;
    parts
}
