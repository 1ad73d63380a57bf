//! Reads data from a file or from standard input.

use std::io::Read as _;
use std::path::Path;

use crate::Dataset;
use crate::data::ReadOptions;
use crate::data::split::stratified_sample;
use crate::error::Result;
use crate::settings::TaskKind;

use crate::display::count;
use crate::error::UserError;
use crate::notice::Observer;

/// The path of standard input.
const DASH: &str = "-";
/// The name of standard input in messages.
const STANDARD_INPUT: &str = "standard input";

/// Whether a path is standard input; a file of that name is `./-`.
pub fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == DASH
}

/// Reads a file or directory, or standard input to its end, and reports how it was read.
pub fn read(path: &Path, options: &ReadOptions, observer: &dyn Observer) -> Result<Dataset> {
    let dataset = if is_standard_input(path) {
        Dataset::from_stream_with(&standard_input()?, STANDARD_INPUT, options)?
    } else {
        Dataset::read_with(path, options)?
    };
    for notice in dataset.notices() {
        if notice.is_warning { observer.warn(&notice.text) } else { observer.say(&notice.text) }
    }
    Ok(dataset)
}

fn standard_input() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| UserError::new(format!("cannot read {STANDARD_INPUT}: {error}")))?;
    Ok(bytes)
}

/// Samples `limit` examples and keeps their order: stratified by `labels`, or uniformly without labels. Reports it if
/// examples are left out. `what`: the name of the examples.
pub fn drawn(
    data: Dataset,
    (labels, kind): (&[usize], TaskKind),
    limit: Option<usize>,
    (seed, what): (u64, &str),
    observer: &dyn Observer,
) -> Dataset {
    let n = data.n();
    let Some(limit) = limit.filter(|&limit| limit < n) else { return data };
    observer.say(&format!(
        "--limit: {} of {} {what}, drawn by {} (seed {seed})",
        count(limit as u64),
        count(n as u64),
        if kind == TaskKind::Classification { "label" } else { "chance" }
    ));
    data.take(&stratified_sample(labels, limit, seed))
}

/// The first `limit` texts, for prediction only. Reports it if texts are left out.
pub fn first(data: Dataset, limit: Option<usize>, observer: &dyn Observer) -> Dataset {
    let n = data.n();
    let Some(limit) = limit.filter(|&limit| limit < n) else { return data };
    observer.say(&format!("--limit: the first {} of {} texts", count(limit as u64), count(n as u64)));
    data.take(&(0..limit).collect::<Vec<_>>())
}
