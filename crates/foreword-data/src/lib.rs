//! Data sets: rows of named fields, read from a file or given in memory; the roles of fields, splits, the template that
//! turns an example into a text, and checks for suspicious data. Nothing here depends on a model.

pub mod fields;
pub mod labels;
pub mod lint;
mod read;
pub mod spelling;
pub mod split;
pub mod template;
pub mod together;
pub mod truth;

use foreword_format::digest::{Digest, sha256};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// The extensions of supported data files.
pub const ENDINGS: &str = ".jsonl, .json, .csv, .tsv or .parquet, with .gz or .zst after it if it is packed";

/// The name of the thread that reads Parquet. A panic on it is a damaged file, not a bug, and becomes
/// [`DataError::Damaged`]: a panic hook should ignore it.
pub const READER_THREAD: &str = "parquet reader";

/// Errors in data, with their location.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file extension is not supported.
    #[error("{path}: what kind of data this is shows in the file's ending, which must be {ENDINGS}", path = path.display())]
    UnknownEnding {
        /// The file.
        path: PathBuf,
    },
    /// The archive or Parquet file is truncated or invalid.
    #[error("{path}: cannot be unpacked as {packing} ({reason}): it is truncated, damaged or in another format; download it again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// "gzip", "Zstandard" or "Parquet".
        packing: &'static str,
        /// The decoder's message.
        reason: String,
    },
    /// The decompressed file exceeds the limit, in total or relative to the archive.
    #[error("{path}: more than {most} bytes when unpacked, the most that is read from a file of its size: unpack it, or split it into smaller files", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        most: u64,
    },
    /// The file is not UTF-8 text.
    #[error("{place}: not UTF-8 text{looks_like}: save the file as UTF-8")]
    NotUtf8 {
        /// The line of the first invalid byte.
        place: Place,
        /// ", it looks like UTF-16" if it does.
        looks_like: &'static str,
    },
    /// A zero byte, which does not occur in text.
    #[error("{place}: a zero byte, which no text has: the file is damaged, or UTF-16; save it as UTF-8")]
    Zero {
        /// The line.
        place: Place,
    },
    /// The JSON is malformed, or an example is not an object.
    #[error("{place}, column {column}: {reason}")]
    Json {
        /// The line.
        place: Place,
        /// The column, in bytes from 1.
        column: usize,
        /// The JSON parser's message.
        reason: String,
    },
    /// A `.json` file that is not a list of examples.
    #[error(
        "{place}: expected an array of objects, or an object whose only key \"data\" holds one \
         (a file with one object per line ends in .jsonl)"
    )]
    JsonShape {
        /// The line of the error.
        place: Place,
    },
    /// A header or an object names a field twice.
    #[error("{place}: the field {field:?} is there twice, rename one of them")]
    DuplicateField {
        /// The line.
        place: Place,
        /// The field.
        field: String,
    },
    /// A row has more or fewer cells than the header.
    #[error("{place}: {found} cells where there are {expected} fields")]
    Ragged {
        /// The line.
        place: Place,
        /// Number of cells in this row.
        found: usize,
        /// Number of cells in the header.
        expected: usize,
    },
    /// A cell begins with a quotation mark, but the next one does not end it.
    #[error(
        "{place}: a cell begins with a quotation mark and does not end at the next one, \
         close it or write quotation marks inside it twice"
    )]
    StrayQuote {
        /// The first line of the row.
        place: Place,
    },
    /// The header seems to use another separator.
    #[error(
        "{place}: only one field, {field:?}, and a {separator} in it: save the file with {expected} between cells"
    )]
    WrongSeparator {
        /// The header's line.
        place: Place,
        /// The only field.
        field: String,
        /// The separator it seems to use.
        separator: &'static str,
        /// The expected separator.
        expected: &'static str,
    },
    /// There are no examples.
    #[error("{origin} has no examples")]
    NoExamples {
        /// The file, or a description of the data.
        origin: String,
    },
    /// There is no field of this name.
    #[error("{origin} has no field {field:?}{hint}, its fields are: {known}")]
    NoSuchField {
        /// The file, or a description of the data.
        origin: String,
        /// The requested name.
        field: String,
        /// "did you mean", if there is a similar name.
        hint: String,
        /// The existing fields.
        known: String,
    },
    /// One example lacks a field that others have.
    #[error("{place}: no field {field:?}, the fields of this example are: {known}")]
    Absent {
        /// The line.
        place: Place,
        /// The field.
        field: String,
        /// The fields of this example.
        known: String,
    },
    /// A field in use is null.
    #[error("{place}: missing value in the field {field:?}, give it one or take the example out")]
    Missing {
        /// The line.
        place: Place,
        /// The field.
        field: String,
    },
    /// A field in use contains more than one value.
    #[error("{place}: the field {field:?} holds {found}, where a text, a number or true or false is wanted")]
    Nested {
        /// The line.
        place: Place,
        /// The field.
        field: String,
        /// "an array" or "an object".
        found: &'static str,
    },
    /// The role of a field is not set and can't be guessed from names.
    #[error("{origin}: which field is the {role}? name it with {flag}; the fields are: {known}")]
    NoGuess {
        /// The file, or a description of the data.
        origin: String,
        /// "text", "label" or "target".
        role: &'static str,
        /// The flag to set it.
        flag: &'static str,
        /// The existing fields.
        known: String,
    },
    /// Several fields are possible.
    #[error(
        "{origin}: the {role} could be any of the fields {candidates}: name it with {flag}; the fields are: {known}"
    )]
    AmbiguousGuess {
        /// The file, or a description of the data.
        origin: String,
        /// "text", "label" or "target".
        role: &'static str,
        /// The flag to set it, and for texts how to use several.
        flag: String,
        /// The possible fields.
        candidates: String,
        /// The existing fields.
        known: String,
    },
    /// A row index that is out of range.
    #[error("there is no example {row} among {n}, counted from 0")]
    NoSuchRow {
        /// The row, from 0.
        row: usize,
        /// Number of rows.
        n: usize,
    },
}

/// The location of an example: displayed as "reviews.csv, line 3", or as "example 3" for data without a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    /// The first line of the example, or its number, from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}, {}", path.display(), self.within()),
            None => f.write_str(&self.within()),
        }
    }
}

impl Place {
    /// The location without the file: "line 3", "row 3" for files without lines, "example 3" without a file.
    pub(crate) fn within(&self) -> String {
        let is_columns =
            |path: &PathBuf| path.extension().is_some_and(|end| end.eq_ignore_ascii_case("parquet"));
        let word = match &self.path {
            Some(path) if is_columns(path) => "row",
            Some(_) => "line",
            None => "example",
        };
        format!("{word} {}", self.line)
    }
}

/// A field of one data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldIdx(usize);

/// Examples: rows with named fields. A value is text; numbers and booleans become their text.
#[derive(Clone, Debug)]
pub struct Dataset {
    path: Option<PathBuf>,
    fields: Vec<String>,
    rows: Vec<Row>,
    /// What the file says about its fields besides their values.
    about: About,
    digest: String,
}

/// What a reader found out about fields besides their values.
#[derive(Clone, Debug, Default)]
struct About {
    /// The class names for a field's numbers, as written by Hugging Face `datasets`.
    class_names: BTreeMap<FieldIdx, Vec<String>>,
    /// Fields with whole numbers written both as 0 and as 0.0.
    mixed: BTreeSet<FieldIdx>,
}

/// One example: its location, and its cells in the order of their fields. A missing field has no cell.
#[derive(Clone, Debug)]
struct Row {
    line: u64,
    cells: Vec<(FieldIdx, Cell)>,
}

/// A value as read. Only `Text` can be used; the other variants matter only if the field is used.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Text(String),
    Null,
    Nested(&'static str),
}

/// Whether a name has the extension of a supported file.
#[must_use]
pub fn is_data_name(path: &Path) -> bool {
    read::Format::of(path).is_ok()
}

impl Dataset {
    /// Reads a file; its extension determines the format.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let format = read::Format::of(path)?;
        let bytes = std::fs::read(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        Self::parse(&bytes, format, path)
    }

    /// Reads the bytes of a file; the extension of `path`, which need not exist, determines the format.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, DataError> {
        Self::parse(bytes, read::Format::of(path)?, path)
    }

    /// Reads bytes without a file; their first character determines the format: a brace for one JSON object per line, a
    /// bracket for an array of them, anything else for CSV. `name` is used in messages.
    pub fn from_stream(bytes: &[u8], name: &str) -> Result<Self, DataError> {
        let path = PathBuf::from(name);
        Self::of_table(read::parse_by_content(bytes, &path)?, bytes, path)
    }

    /// Plain texts, one per example, in a field "text".
    pub fn from_texts(texts: Vec<String>) -> Result<Self, DataError> {
        Self::from_rows(vec!["text".to_owned()], texts.into_iter().map(|text| vec![text]).collect())
    }

    /// Rows with one value for every field. Its digest is that of the fields and rows written as JSON.
    pub fn from_rows(fields: Vec<String>, rows: Vec<Vec<String>>) -> Result<Self, DataError> {
        let place = |row: usize| Place { path: None, line: row as u64 + 1 };
        let mut seen = HashSet::new();
        if let Some(field) = fields.iter().find(|field| !seen.insert(*field)) {
            return Err(DataError::DuplicateField { place: place(0), field: field.clone() });
        }
        let mut digest = Digest::new();
        digest.update(serde_json::json!(fields).to_string().as_bytes());
        let mut checked = Vec::with_capacity(rows.len());
        for (row, values) in rows.into_iter().enumerate() {
            if values.len() != fields.len() {
                let (found, expected) = (values.len(), fields.len());
                return Err(DataError::Ragged { place: place(row), found, expected });
            }
            digest.update(serde_json::json!(values).to_string().as_bytes());
            checked.push(Row::of_texts(row as u64 + 1, values));
        }
        let about = About::default();
        Self { path: None, fields, rows: checked, about, digest: digest.finish() }.not_empty()
    }

    /// Number of examples.
    pub fn n(&self) -> usize {
        self.rows.len()
    }

    /// The names of the fields, in order of first occurrence.
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// The file, if the data comes from one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// `sha256:` and the hexadecimal SHA-256 of the whole file, also for a part of it. [`fields::examples_digest`] is the
    /// digest of the examples.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The location of a row; the end if the row does not exist.
    pub fn place(&self, row: usize) -> Place {
        let line = self.rows.get(row).or(self.rows.last()).map_or(1, |row| row.line);
        Place { path: self.path.clone(), line }
    }

    /// The field of this name, if there is one.
    pub fn field(&self, name: &str) -> Option<FieldIdx> {
        self.fields.iter().position(|field| field == name).map(FieldIdx)
    }

    /// The field of this name; the error lists the existing ones.
    pub fn require(&self, name: &str) -> Result<FieldIdx, DataError> {
        self.field(name).ok_or_else(|| DataError::NoSuchField {
            origin: self.origin(),
            field: name.to_owned(),
            hint: spelling::hint(name, self.fields.iter().map(String::as_str)),
            known: listed(&self.fields),
        })
    }

    /// The name of a field of this data set.
    pub fn field_name(&self, field: FieldIdx) -> &str {
        self.fields.get(field.0).map_or("", String::as_str)
    }

    /// The text in one field of one row.
    pub fn text(&self, row: usize, field: FieldIdx) -> Result<&str, DataError> {
        let n = self.n();
        let cells = &self.rows.get(row).ok_or(DataError::NoSuchRow { row, n })?.cells;
        let place = || self.place(row);
        let name = || self.field_name(field).to_owned();
        match cells.binary_search_by_key(&field, |(field, _)| *field).map(|at| &cells[at].1) {
            Ok(Cell::Text(text)) => Ok(text),
            Ok(Cell::Null) => Err(DataError::Missing { place: place(), field: name() }),
            Ok(Cell::Nested(found)) => Err(DataError::Nested { place: place(), field: name(), found }),
            Err(_) => {
                let known = listed(cells.iter().map(|(field, _)| self.field_name(*field)));
                Err(DataError::Absent { place: place(), field: name(), known })
            }
        }
    }

    /// These rows, in this order, with the digest of the whole. Indices out of range are skipped.
    pub fn take(&self, rows: &[usize]) -> Self {
        Self {
            path: self.path.clone(),
            fields: self.fields.clone(),
            rows: rows.iter().filter_map(|&row| self.rows.get(row).cloned()).collect(),
            about: self.about.clone(),
            digest: self.digest.clone(),
        }
    }

    /// The same rows with locations `n` lines further on: these are the rows after the first `n` of something larger.
    #[must_use]
    pub fn after(mut self, n: u64) -> Self {
        for row in &mut self.rows {
            row.line += n;
        }
        self
    }

    /// The file name, or a description of data without a file.
    pub(crate) fn origin(&self) -> String {
        origin(self.path.as_deref())
    }

    fn parse(bytes: &[u8], format: read::Format, path: &Path) -> Result<Self, DataError> {
        Self::of_table(read::parse(bytes, format, path)?, bytes, path.to_owned())
    }

    fn of_table(table: read::Table, bytes: &[u8], path: PathBuf) -> Result<Self, DataError> {
        let read::Table { fields, rows, about } = table;
        Self { path: Some(path), fields, rows, about, digest: sha256(bytes) }.not_empty()
    }

    fn not_empty(self) -> Result<Self, DataError> {
        if self.rows.is_empty() { Err(DataError::NoExamples { origin: self.origin() }) } else { Ok(self) }
    }
}

impl Row {
    fn of_texts(line: u64, values: Vec<String>) -> Self {
        let cells = values.into_iter().enumerate();
        Self { line, cells: cells.map(|(field, value)| (FieldIdx(field), Cell::Text(value))).collect() }
    }
}

/// A number as text: the same for the same number in any file. A whole number has no decimals; NaN is a missing value.
fn number(value: f64) -> Cell {
    /// Above this, not every whole number is representable.
    const MOST_WHOLE: f64 = 9_007_199_254_740_992.0;
    let size = value.abs();
    if !value.is_finite() {
        Cell::Null
    } else if value.fract() == 0.0 && size < MOST_WHOLE {
        Cell::Text((value as i64).to_string())
    } else if (1e-5..MOST_WHOLE).contains(&size) {
        Cell::Text(value.to_string())
    } else {
        Cell::Text(format!("{value:e}"))
    }
}

/// Names for a message: quoted, and no more than a person wants to read.
pub fn listed<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    const MOST_NAMES: usize = 24;
    let names: Vec<String> = names.into_iter().map(|name| format!("{:?}", name.as_ref())).collect();
    match names.len().checked_sub(MOST_NAMES) {
        None if names.is_empty() => "none".to_owned(),
        None | Some(0) => names.join(", "),
        Some(n_more) => format!("{} and {n_more} more", names[..MOST_NAMES].join(", ")),
    }
}

fn origin(path: Option<&Path>) -> String {
    path.map_or_else(|| "the given data".to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_in_memory_is_checked_as_a_file_is() {
        let rows = vec![vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]];
        let error = Dataset::from_rows(vec!["premise".into(), "label".into()], rows).unwrap_err();
        assert_eq!(error.to_string(), "example 2: 1 cells where there are 2 fields");
        let error = Dataset::from_rows(vec!["a".into(), "a".into()], vec![]).unwrap_err();
        assert!(error.to_string().contains("\"a\" is there twice"));
        assert_eq!(Dataset::from_texts(vec![]).unwrap_err().to_string(), "the given data has no examples");
    }

    #[test]
    fn a_part_keeps_lines_fields_and_digest() {
        let whole = Dataset::from_bytes(b"text,label\na,x\nb,y\nc,x\n", Path::new("d.csv")).unwrap();
        let part = whole.take(&[2, 0]);
        let text = part.require("text").unwrap();
        assert_eq!((part.n(), part.text(0, text).unwrap(), part.place(0).line), (2, "c", 4));
        assert_eq!(part.digest(), whole.digest());
    }

    #[test]
    fn digests_follow_the_content() {
        let one = Dataset::from_texts(vec!["a".into(), "b".into()]).unwrap();
        let other = Dataset::from_texts(vec!["a".into(), "c".into()]).unwrap();
        assert_ne!(one.digest(), other.digest());
        let file = Dataset::from_bytes(b"{\"a\":1}", Path::new("d.jsonl")).unwrap();
        assert_eq!(file.digest(), "sha256:015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862");
    }

    #[test]
    fn a_missing_field_is_an_error_that_helps() {
        let data = Dataset::from_bytes(b"text,label\na,x\n", Path::new("d.csv")).unwrap();
        let message = data.require("lable").unwrap_err().to_string();
        assert_eq!(
            message,
            "d.csv has no field \"lable\" (did you mean \"label\"?), its fields are: \"text\", \"label\""
        );
    }
}
