//! Readers of data files.

use std::path::Path;

use foreword::Dataset;

/// Reads a file of this name, and then each of its cells.
fn read(bytes: &[u8], name: &str) {
    match Dataset::from_bytes(bytes, Path::new(name)) {
        Ok(data) => walk(&data),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn walk(data: &Dataset) {
    assert!(data.n() > 0);
    let fields: Vec<_> = data.fields().iter().filter_map(|name| data.field(name)).collect();
    assert_eq!(fields.len(), data.fields().len());
    for row in 0..data.n() {
        // Wide rows times many fields would be the test's own work, not the reader's.
        for &field in fields.iter().take(8) {
            let _ = data.text(row, field);
        }
        let _ = data.location(row);
    }
}

pub(crate) fn jsonl(bytes: &[u8]) {
    read(bytes, "d.jsonl");
}

pub(crate) fn json(bytes: &[u8]) {
    read(bytes, "d.json");
}

pub(crate) fn csv(bytes: &[u8]) {
    read(bytes, "d.csv");
}

pub(crate) fn tsv(bytes: &[u8]) {
    read(bytes, "d.tsv");
}

pub(crate) fn parquet(bytes: &[u8]) {
    read(bytes, "d.parquet");
}

/// Known by its content, packed or not.
pub(crate) fn packed(bytes: &[u8]) {
    if let Ok(data) = Dataset::from_stream(bytes, "standard input") {
        walk(&data);
    }
}
