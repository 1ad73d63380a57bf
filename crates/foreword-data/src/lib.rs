//! Data sets: rows of named fields, read from a file or given in memory; the roles of fields, splits, the template that
//! turns an example into a text, and checks for suspicious data. Nothing here depends on a model.

mod cell;
mod error;
pub mod fields;
pub mod label_values;
pub mod labels;
pub mod lint;
mod read;
pub mod spelling;
pub mod split;
pub mod template;
pub mod together;
pub mod truth;
pub mod write;

pub use cell::{Cell, Nested, Number};
pub use error::DataError;
pub use read::options::{Delimiter, OptionError, ReadOptions, TextEncoding};

use foreword_format::digest::{Digest, sha256};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// The extensions of supported data files.
pub const ENDINGS: &str =
    ".jsonl, .json, .csv, .tsv, .txt, .parquet or .arrow, with .gz or .zst after it if it is packed";

/// The name of the thread that reads Parquet and Arrow. A panic on it is a damaged file, not a bug, and becomes
/// [`DataError::Damaged`]: a panic hook should ignore it.
pub const READER_THREAD: &str = "parquet reader";

/// The location of an example: displayed as "reviews.csv, line 3", or as "example 3" for data without a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    /// The first line of the example, or its number, from 1.
    pub line: u64,
    /// What is counted.
    pub unit: Unit,
}

/// What the number in a location counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Lines of a file.
    #[default]
    Line,
    /// Rows of a file without lines.
    Row,
    /// Nothing: the file is the example.
    File,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) if self.unit == Unit::File => path.display().fmt(f),
            Some(path) => write!(f, "{}, {}", path.display(), self.within()),
            None => f.write_str(&self.within()),
        }
    }
}

impl Location {
    /// The message of an error without this location before it.
    pub(crate) fn reason(&self, error: &DataError) -> String {
        let whole = error.to_string();
        let reason = whole.strip_prefix(&self.to_string()).unwrap_or(&whole);
        reason.trim_start_matches([':', ',', ' ']).to_owned()
    }

    /// The location without the file: "line 3", "row 3" for files without lines, "example 3" without a file. An example
    /// that is a whole file is named by it.
    pub(crate) fn within(&self) -> String {
        let word = match (&self.path, self.unit) {
            (Some(path), Unit::File) => return path.display().to_string(),
            (Some(_), Unit::Row) => "row",
            (Some(_), Unit::Line) => "line",
            (None, _) => "example",
        };
        format!("{word} {}", self.line)
    }
}

/// A field of one data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldIdx(usize);

/// Examples: rows with named fields. A value is text; numbers and booleans have one too.
#[derive(Clone, Debug)]
pub struct Dataset {
    path: Option<PathBuf>,
    fields: Vec<String>,
    rows: Vec<Row>,
    /// What the file says about its fields besides their values.
    about: About,
    digest: String,
}

/// What a reader found out besides the values.
#[derive(Clone, Debug, Default)]
struct About {
    /// The class names for a field's numbers, as written by Hugging Face `datasets`.
    class_names: BTreeMap<FieldIdx, Vec<String>>,
    /// Fields with whole numbers written both as 0 and as 0.0.
    mixed: BTreeSet<FieldIdx>,
    /// Fields that the file does not have: they are made of another one.
    derived: BTreeSet<FieldIdx>,
    /// The fields that they are made of.
    sources: BTreeSet<FieldIdx>,
    /// What the lines of rows count.
    unit: Unit,
    /// The files of a directory.
    files: Vec<PathBuf>,
    /// What a user should know about how the file was read.
    notices: Vec<ReadNotice>,
    /// The rows that were left out.
    skipped: Vec<Skipped>,
}

/// A message about how a file was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadNotice {
    /// The message.
    pub text: String,
    /// Whether the result may not be what the user wants.
    pub is_warning: bool,
}

/// A row that could not be read, and was left out ([`ReadOptions::skip_bad`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Skipped {
    /// Its location.
    pub location: Location,
    /// What is wrong with it.
    pub reason: String,
}

/// One example: its location, and its cells in the order of their fields. A missing field has no cell.
#[derive(Clone, Debug)]
struct Row {
    line: u64,
    /// For a directory, the index of its file.
    file: Option<u32>,
    cells: Vec<(FieldIdx, Cell)>,
}

/// Whether a name has the extension of a data file. Files with other names can be data too: their content says so.
#[must_use]
pub fn is_data_name(path: &Path) -> bool {
    read::is_data_name(path)
}

impl Dataset {
    /// Reads a file or a directory. Its extension and its content determine the format.
    ///
    /// # Errors
    /// If it can't be read, or is no data.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        Self::read_with(path, &ReadOptions::default())
    }

    /// As [`Dataset::read`], with settings for what the file does not say itself.
    ///
    /// # Errors
    /// If it can't be read, or is no data.
    pub fn read_with(path: &Path, options: &ReadOptions) -> Result<Self, DataError> {
        if path.is_dir() {
            let (table, digest) = read::read_folder(path, options)?;
            return Self::of_table(table, digest, path.to_owned());
        }
        let bytes = std::fs::read(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        Self::from_bytes_with(&bytes, path, options)
    }

    /// Reads the bytes of a file. The extension of `path`, which need not exist, and the content determine the format.
    ///
    /// # Errors
    /// If they are no data.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, DataError> {
        Self::from_bytes_with(bytes, path, &ReadOptions::default())
    }

    /// As [`Dataset::from_bytes`], with settings for what the file does not say itself.
    ///
    /// # Errors
    /// If they are no data.
    pub fn from_bytes_with(bytes: &[u8], path: &Path, options: &ReadOptions) -> Result<Self, DataError> {
        Self::of_table(read::parse(bytes, path, options)?, sha256(bytes), path.to_owned())
    }

    /// Reads bytes without a file: their content determines the format. `name` is used in messages.
    ///
    /// # Errors
    /// If they are no data.
    pub fn from_stream(bytes: &[u8], name: &str) -> Result<Self, DataError> {
        Self::from_stream_with(bytes, name, &ReadOptions::default())
    }

    /// As [`Dataset::from_stream`], with settings for what the bytes do not say themselves.
    ///
    /// # Errors
    /// If they are no data.
    pub fn from_stream_with(bytes: &[u8], name: &str, options: &ReadOptions) -> Result<Self, DataError> {
        let path = PathBuf::from(name);
        Self::of_table(read::parse_by_content(bytes, &path, options)?, sha256(bytes), path)
    }

    /// Plain texts, one per example, in a field "text".
    pub fn from_texts(texts: Vec<String>) -> Result<Self, DataError> {
        Self::from_rows(vec!["text".to_owned()], texts.into_iter().map(|text| vec![text]).collect())
    }

    /// Rows with one value for every field. Its digest is that of the fields and rows written as JSON.
    pub fn from_rows(fields: Vec<String>, rows: Vec<Vec<String>>) -> Result<Self, DataError> {
        let location = |row: usize| Location { path: None, line: row as u64 + 1, unit: Unit::Row };
        let mut seen = HashSet::new();
        if let Some(field) = fields.iter().find(|field| !seen.insert(*field)) {
            return Err(DataError::DuplicateField { location: location(0), field: field.clone() });
        }
        let mut digest = Digest::new();
        digest.update(serde_json::json!(fields).to_string().as_bytes());
        let mut checked = Vec::with_capacity(rows.len());
        for (row, values) in rows.into_iter().enumerate() {
            if values.len() != fields.len() {
                let (found, expected) = (values.len(), fields.len());
                return Err(DataError::Ragged { location: location(row), found, expected });
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

    /// What a user should know about how the file was read.
    pub fn notices(&self) -> &[ReadNotice] {
        &self.about.notices
    }

    /// The rows that were left out because they could not be read.
    pub fn skipped(&self) -> &[Skipped] {
        &self.about.skipped
    }

    /// The location of a row; the end if the row does not exist.
    pub fn location(&self, row: usize) -> Location {
        let row = self.rows.get(row).or(self.rows.last());
        let file = row.and_then(|row| self.about.files.get(row.file? as usize));
        let path = file.or(self.path.as_ref()).cloned();
        Location { path, line: row.map_or(1, |row| row.line), unit: self.about.unit }
    }

    /// The fields that the file has itself, in its order: without those made of another one, such as the messages of a
    /// conversation.
    pub fn own_fields(&self) -> Vec<FieldIdx> {
        (0..self.fields.len()).map(FieldIdx).filter(|field| !self.about.derived.contains(field)).collect()
    }

    /// The value in one field of one row; null if the row, the field or its value does not exist.
    pub fn cell(&self, row: usize, field: FieldIdx) -> &Cell {
        let cells = self.rows.get(row).map_or(&[][..], |row| &row.cells);
        cells.binary_search_by_key(&field, |(field, _)| *field).map_or(&Cell::Null, |at| &cells[at].1)
    }

    /// The values of a row in its [`Dataset::own_fields`].
    pub fn cells(&self, row: usize) -> Vec<&Cell> {
        self.own_fields().into_iter().map(|field| self.cell(row, field)).collect()
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
        let location = || self.location(row);
        let name = || self.field_name(field).to_owned();
        match cells.binary_search_by_key(&field, |(field, _)| *field).map(|at| &cells[at].1) {
            Ok(Cell::Nested(nested)) => {
                Err(DataError::Nested { location: location(), field: name(), found: nested.found })
            }
            Ok(cell) => cell.text().ok_or_else(|| DataError::Missing { location: location(), field: name() }),
            Err(_) => {
                let known = listed(cells.iter().map(|(field, _)| self.field_name(*field)));
                Err(DataError::Absent { location: location(), field: name(), known })
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

    fn of_table(table: read::Table, digest: String, path: PathBuf) -> Result<Self, DataError> {
        let read::Table { fields, rows, about } = table;
        Self { path: Some(path), fields, rows, about, digest }.not_empty()
    }

    fn not_empty(self) -> Result<Self, DataError> {
        if self.rows.is_empty() { Err(DataError::NoExamples { origin: self.origin() }) } else { Ok(self) }
    }
}

impl Row {
    fn new(line: u64, cells: Vec<(FieldIdx, Cell)>) -> Self {
        Self { line, file: None, cells }
    }

    fn of_texts(line: u64, values: Vec<String>) -> Self {
        let cells = values.into_iter().enumerate();
        Self::new(line, cells.map(|(field, value)| (FieldIdx(field), Cell::Text(value))).collect())
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
        assert_eq!(error.to_string(), "example 2: 1 cell, but there are 2 fields");
        let error = Dataset::from_rows(vec!["a".into(), "a".into()], vec![]).unwrap_err();
        assert!(error.to_string().contains("\"a\" occurs twice"));
        assert_eq!(Dataset::from_texts(vec![]).unwrap_err().to_string(), "the given data has no examples");
    }

    #[test]
    fn a_part_keeps_lines_fields_and_digest() {
        let whole = Dataset::from_bytes(b"text,label\na,x\nb,y\nc,x\n", Path::new("d.csv")).unwrap();
        let part = whole.take(&[2, 0]);
        let text = part.require("text").unwrap();
        assert_eq!((part.n(), part.text(0, text).unwrap(), part.location(0).line), (2, "c", 4));
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
