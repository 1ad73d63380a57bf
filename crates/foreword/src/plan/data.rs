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
///
/// # Errors
/// If it can't be read.
pub fn read(path: &Path, options: &ReadOptions, observer: &dyn Observer) -> Result<Dataset> {
    let dataset = unreported(path, options)?;
    tell(std::slice::from_ref(&dataset), observer);
    Ok(dataset)
}

/// As [`read`], for several files; what holds for more than one of them is reported once.
///
/// # Errors
/// If one can't be read.
pub fn read_all(paths: &[&Path], options: &ReadOptions, observer: &dyn Observer) -> Result<Vec<Dataset>> {
    let mut datasets = Vec::with_capacity(paths.len());
    let read = paths.iter().try_for_each(|path| {
        datasets.push(unreported(path, options)?);
        Ok(())
    });
    tell(&datasets, observer);
    read.map(|()| datasets)
}

fn unreported(path: &Path, options: &ReadOptions) -> Result<Dataset> {
    Ok(if is_standard_input(path) {
        Dataset::from_stream_with(&standard_input()?, STANDARD_INPUT, options)?
    } else {
        Dataset::read_with(path, options)?
    })
}

/// Reports how files were read. A notice begins with its file: the same about several files names them all.
fn tell(datasets: &[Dataset], observer: &dyn Observer) {
    let mut said: Vec<(bool, &str, Vec<String>)> = Vec::new();
    for dataset in datasets {
        let name = dataset.path().map(|path| path.display().to_string());
        for notice in dataset.notices() {
            let own = name
                .as_ref()
                .and_then(|name| Some((name, notice.text.strip_prefix(name.as_str())?.strip_prefix(": ")?)));
            let (names, rest) = match own {
                Some((name, rest)) => (vec![name.clone()], rest),
                None => (Vec::new(), notice.text.as_str()),
            };
            let same = |(warning, text, _): &&mut (bool, &str, Vec<String>)| {
                *warning == notice.is_warning && *text == rest
            };
            match said.iter_mut().find(same) {
                Some((_, _, known)) => known.extend(names),
                None => said.push((notice.is_warning, rest, names)),
            }
        }
    }
    for (is_warning, text, names) in said {
        let text = if names.is_empty() { text.to_owned() } else { format!("{}: {text}", names.join(", ")) };
        if is_warning { observer.warn(&text) } else { observer.say(&text) }
    }
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
