//! The example program of the library does what it says.

use std::path::Path;

#[allow(dead_code, clippy::print_stdout, unreachable_pub, reason = "a program")]
#[path = "../../../../examples/library/src/main.rs"]
mod program;

#[test]
fn the_example_program_works() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/sentiment/train.jsonl");
    let dir = tempfile::tempdir().unwrap();
    program::train_and_classify(&data, &dir.path().join("first")).unwrap();
    program::cancel_and_resume(&data, &dir.path().join("second")).unwrap();
}
