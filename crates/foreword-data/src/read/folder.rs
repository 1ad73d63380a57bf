//! Directories: a folder of texts for each label, texts alone, or parts of one data set.

use super::super::{Cell, DataError, FieldIdx, ReadNotice, ReadOptions, Row, Unit};
use super::source::Source;
use super::{Kind, Table, encoding};
use foreword_format::digest::Digest;
use std::fs;
use std::path::{Path, PathBuf};

/// Maximum size of all files in bytes.
const MOST_BYTES: u64 = 4 << 30;
/// Maximum number of names in a message.
const MOST_NAMED: usize = 8;
/// Folders of texts that have no label.
const UNLABELLED: [&str; 4] = ["unsup", "unsupervised", "unlabeled", "unlabelled"];
/// What Hugging Face `save_to_disk` writes beside the parts of a data set, and beside the folders of its splits.
const STATE: &str = "state.json";
const SPLITS: &str = "dataset_dict.json";
const INFO: &str = "dataset_info.json";

/// What is in a directory, without hidden files, in the order of names.
struct Listing {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

/// Reads a directory; returns the table and its digest, that of the names and contents of its files.
pub(crate) fn read(path: &Path, options: &ReadOptions) -> Result<(Table, String), DataError> {
    let Listing { folders, files } = list(path)?;
    let has = |name: &str| files.iter().any(|file| is_named(file, name));
    if has(SPLITS) || has_splits(&folders)? {
        return Err(refused(path, &format!("holds the splits {}: give one of them", names(&folders))));
    }
    if has(STATE) {
        return saved(path, &files, options);
    }
    let parts: Vec<PathBuf> = files.iter().filter(|file| super::is_data_name(file)).cloned().collect();
    if !parts.is_empty() && folders.is_empty() {
        return data_files(path, &parts, options);
    }
    let texts: Vec<PathBuf> = files.iter().filter(|file| is_text(file)).cloned().collect();
    if folders.is_empty() && !texts.is_empty() {
        let texts = texts.into_iter().map(|file| (None, file)).collect();
        return text_files(path, texts, Vec::new(), options);
    }
    classes(path, &folders, &files, options)
}

fn list(path: &Path) -> Result<Listing, DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?.path();
        let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with(['.', '_']) {
            continue;
        }
        if entry.is_dir() { folders.push(entry) } else { files.push(entry) }
    }
    folders.sort();
    files.sort();
    Ok(Listing { folders, files })
}

fn is_named(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|found| found == name)
}

/// The last part of a path.
fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn names(paths: &[PathBuf]) -> String {
    let named: Vec<String> = paths.iter().take(MOST_NAMED).map(|path| name_of(path)).collect();
    let more = paths.len().checked_sub(MOST_NAMED).filter(|more| *more > 0);
    more.map_or_else(|| named.join(", "), |more| format!("{} and {more} more", named.join(", ")))
}

fn refused(path: &Path, reason: &str) -> DataError {
    DataError::Folder { path: path.to_owned(), reason: format!("this directory {reason}") }
}

/// Whether the folders are data sets themselves: those of `save_to_disk`, or folders of folders with texts.
fn has_splits(folders: &[PathBuf]) -> Result<bool, DataError> {
    for folder in folders {
        let Listing { folders: inner, files } = list(folder)?;
        let is_saved = files.iter().any(|file| is_named(file, STATE));
        if is_saved || !inner.is_empty() && !files.iter().any(|file| is_class_text(file)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the name is that of a text among other files.
fn is_text(path: &Path) -> bool {
    super::ending(path).is_some_and(|ending| ending == "txt")
}

/// Whether the name can be that of a text in the folder of a label: also one without an ending, as in 20 Newsgroups.
fn is_class_text(path: &Path) -> bool {
    super::ending(path)
        .is_none_or(|ending| ending == "txt" || ending.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A folder of texts for each label.
fn classes(
    path: &Path,
    folders: &[PathBuf],
    files: &[PathBuf],
    options: &ReadOptions,
) -> Result<(Table, String), DataError> {
    let (mut texts, mut notices, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    let mut say = |text: String| {
        notices.push(ReadNotice { text: format!("{}: {text}", path.display()), is_warning: false });
    };
    for folder in folders {
        let label = name_of(folder);
        let Listing { folders: inner, files } = list(folder)?;
        let (found, others): (Vec<PathBuf>, Vec<PathBuf>) =
            files.into_iter().partition(|file| is_class_text(file));
        let others = [inner, others].concat();
        if !others.is_empty() {
            say(format!("not read in the folder {label}, which is for texts (.txt): {}", names(&others)));
        }
        if UNLABELLED.contains(&label.to_lowercase().as_str()) {
            say(format!("the folder {label} is not read, for its {} texts have no label", found.len()));
        } else if !found.is_empty() {
            counts.push(format!("{label} ({})", found.len()));
            texts.extend(found.into_iter().map(|file| (Some(label.clone()), file)));
        }
    }
    if texts.is_empty() {
        let what = "holds no data: expected a folder of .txt files for each label, .txt files, data files, or a data set \
                    that Hugging Face save_to_disk wrote";
        return Err(refused(path, what));
    }
    let n_labels = counts.len();
    counts.truncate(MOST_NAMED);
    let more =
        if n_labels > MOST_NAMED { format!(" and {} more", n_labels - MOST_NAMED) } else { String::new() };
    say(format!("a folder for each label: {}{more}", counts.join(", ")));
    if !files.is_empty() {
        say(format!("the files beside the folders are not read: {}", names(files)));
    }
    text_files(path, texts, notices, options)
}

/// Files with a text each, and its label.
fn text_files(
    path: &Path,
    texts: Vec<(Option<String>, PathBuf)>,
    mut notices: Vec<ReadNotice>,
    options: &ReadOptions,
) -> Result<(Table, String), DataError> {
    let has_labels = texts.iter().any(|(label, _)| label.is_some());
    let names: &[&str] = if has_labels { &["text", "label", "file"] } else { &["text", "file"] };
    let mut table = Table::new(names.iter().map(|&name| name.to_owned()).collect(), Vec::new());
    let (mut digest, mut n_bytes, mut said) = (Digest::new(), 0, Vec::new());
    for (label, file) in texts {
        let bytes = fs::read(&file).map_err(|source| DataError::Io { path: file.clone(), source })?;
        n_bytes += bytes.len() as u64;
        if n_bytes > MOST_BYTES {
            return Err(DataError::TooLarge { path: path.to_owned(), most: MOST_BYTES });
        }
        let name = relative(path, &file);
        add_to_digest(&mut digest, &name, &bytes);
        let mut source = Source::new(&file, options);
        source.unit = Unit::File;
        let text = match encoding::decode(&bytes, &mut source) {
            Ok(decoded) if decoded.bad_lines.is_empty() => {
                decoded.text.trim_end_matches(['\r', '\n']).to_owned()
            }
            Ok(decoded) => {
                let location = source.location(decoded.bad_lines[0]);
                source.skip(1, DataError::NotInEncoding { location, encoding: "UTF-8" })?;
                table.about.skipped.extend(source.finish(Table::new(Vec::new(), Vec::new())).about.skipped);
                continue;
            }
            Err(error) => {
                source.skip(1, error)?;
                table.about.skipped.extend(source.finish(Table::new(Vec::new(), Vec::new())).about.skipped);
                continue;
            }
        };
        said.extend(source.finish(Table::new(Vec::new(), Vec::new())).about.notices);
        let values = [Some(text), label, Some(name)].into_iter().flatten().map(Cell::Text);
        let cells = values.enumerate().map(|(idx, cell)| (FieldIdx(idx), cell)).collect();
        table.rows.push(Row { line: 1, file: u32::try_from(table.about.files.len()).ok(), cells });
        table.about.files.push(file);
    }
    notices.extend(summarised(said));
    let n_skipped = table.about.skipped.len();
    if let Some(first) = table.about.skipped.first() {
        let text = format!(
            "{}: {n_skipped} files were left out, the first: {} ({})",
            path.display(),
            first.location,
            first.reason
        );
        notices.push(ReadNotice { text, is_warning: true });
    }
    table.about.unit = Unit::File;
    table.about.notices = notices;
    Ok((table, digest.finish()))
}

/// What was said about many files: the first message, and how many more there are.
fn summarised(mut said: Vec<ReadNotice>) -> Option<ReadNotice> {
    let n_more = said.len().checked_sub(1)?;
    let mut first = said.swap_remove(0);
    if n_more > 0 {
        first.text.push_str(&format!(", and {n_more} more such files"));
    }
    Some(first)
}

fn relative(path: &Path, file: &Path) -> String {
    file.strip_prefix(path).unwrap_or(file).to_string_lossy().replace('\\', "/")
}

/// Names and lengths too: two texts are not their concatenation.
fn add_to_digest(digest: &mut Digest, name: &str, bytes: &[u8]) {
    digest.update(format!("{} {}\n{name}\n", name.len(), bytes.len()).as_bytes());
    digest.update(bytes);
}

/// What Hugging Face `save_to_disk` writes: parts, in the order that the state has, and the names of classes.
fn saved(path: &Path, files: &[PathBuf], options: &ReadOptions) -> Result<(Table, String), DataError> {
    let read = |name: &str| -> Result<serde_json::Value, DataError> {
        let Some(file) = files.iter().find(|file| is_named(file, name)) else {
            return Ok(serde_json::Value::Null);
        };
        let bytes = fs::read(file).map_err(|source| DataError::Io { path: file.clone(), source })?;
        serde_json::from_slice(&bytes)
            .map_err(|error| refused(path, &format!("has an {name} that can't be read ({error})")))
    };
    let state = read(STATE)?;
    let parts = state.get("_data_files").and_then(serde_json::Value::as_array);
    let parts: Vec<PathBuf> = parts
        .into_iter()
        .flatten()
        .filter_map(|part| Some(path.join(part.get("filename")?.as_str()?)))
        .collect();
    let indices = state.get("_indices_data_files").or_else(|| state.get("_indices_files"));
    if indices.and_then(serde_json::Value::as_array).is_some_and(|files| !files.is_empty()) {
        return Err(refused(
            path,
            "holds a selection of rows by index, of an old version: save it again with a newer one",
        ));
    }
    if parts.is_empty() || !parts.iter().all(|part| part.parent() == Some(path)) {
        return Err(refused(path, "has a state.json that names no parts"));
    }
    let (mut table, digest) = concatenated(path, &parts, options)?;
    if table.about.class_names.is_empty() {
        table.about.class_names = super::class_names(&read(INFO)?.to_string(), &table.fields);
    }
    Ok((table, digest))
}

/// A directory of data files: one alone, or the parts of one data set, as `train-00000-of-00002.parquet`.
fn data_files(path: &Path, files: &[PathBuf], options: &ReadOptions) -> Result<(Table, String), DataError> {
    let part = |file: &PathBuf| -> Option<(String, usize, usize)> {
        let name = name_of(file);
        let (front, total) = name.split_once("-of-")?;
        let (stem, number) = front.rsplit_once('-')?;
        let (total, ending) = total.split_once('.')?;
        Some((format!("{stem}.{ending}"), number.parse().ok()?, total.parse().ok()?))
    };
    let parts: Option<Vec<_>> = files.iter().map(part).collect();
    let is_whole = parts.is_some_and(|parts| {
        let total = parts[0].2;
        let is_next = |(at, (stem, number, of)): (usize, &(String, usize, usize))| {
            (stem, *number, *of) == (&parts[0].0, at, total)
        };
        parts.len() == total && parts.iter().enumerate().all(is_next)
    });
    if is_whole || files.len() == 1 {
        let (mut table, digest) = concatenated(path, files, options)?;
        let text = format!("{}: read from {}", path.display(), names(files));
        table.about.notices.insert(0, ReadNotice { text, is_warning: false });
        return Ok((table, digest));
    }
    Err(refused(path, &format!("holds several data files: give one of {}", names(files))))
}

/// The rows of several files with the same fields, one file after another.
fn concatenated(path: &Path, parts: &[PathBuf], options: &ReadOptions) -> Result<(Table, String), DataError> {
    let mut whole = Table::new(Vec::new(), Vec::new());
    let mut digest = Digest::new();
    for (index, part) in parts.iter().enumerate() {
        let bytes = fs::read(part).map_err(|source| DataError::Io { path: part.clone(), source })?;
        add_to_digest(&mut digest, &relative(path, part), &bytes);
        let mut source = Source::new(part, options);
        let table = super::parse_part(&bytes, &mut source)?;
        let mut table = source.finish(table);
        table.rows.iter_mut().for_each(|row| row.file = u32::try_from(index).ok());
        // An object of JSON lines need not have all fields, and so a part of them.
        let is_json = matches!(super::named(part).1, Some(Kind::JsonLines | Kind::Json));
        if !whole.rows.is_empty() && !table.rows.is_empty() && whole.fields != table.fields && !is_json {
            let (first, other) = (name_of(&parts[0]), name_of(part));
            return Err(refused(path, &format!("holds parts with different fields: {first} and {other}")));
        }
        append(&mut whole, table);
    }
    whole.about.files = parts.to_vec();
    Ok((super::with_turns(whole, Source::new(path, options))?, digest.finish()))
}

/// Adds the rows of a part, whose fields may be others or in another order.
fn append(whole: &mut Table, part: Table) {
    let mut fields = Vec::with_capacity(part.fields.len());
    for name in part.fields {
        let known = whole.fields.iter().position(|field| *field == name);
        fields.push(FieldIdx(known.unwrap_or(whole.fields.len())));
        if known.is_none() {
            whole.fields.push(name);
        }
    }
    whole.rows.extend(part.rows.into_iter().map(|mut row| {
        row.cells.iter_mut().for_each(|(field, _)| *field = fields[field.0]);
        row.cells.sort_by_key(|(field, _)| *field);
        row
    }));
    whole.about.mixed.extend(part.about.mixed.into_iter().map(|field| fields[field.0]));
    let class_names = part.about.class_names.into_iter().map(|(field, names)| (fields[field.0], names));
    whole.about.class_names.extend(class_names);
    whole.about.unit = part.about.unit;
    whole.about.skipped.extend(part.about.skipped);
    whole.about.notices.extend(part.about.notices);
}
