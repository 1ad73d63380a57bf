//! What can be wrong with data.

use crate::{ENDINGS, Location};
use std::path::PathBuf;

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
    /// Neither text nor a known kind of file.
    #[error("{path}: this is neither text nor a kind of data that is known: data is {ENDINGS}", path = path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A file of a known kind that is not read.
    #[error("{path}: this is {what}: {how}", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// The shortest way to data that can be read.
        how: &'static str,
    },
    /// A directory that is no data set.
    #[error("{path}: {reason}", path = path.display())]
    Folder {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The archive or Parquet file is truncated or invalid.
    #[error("{path}: cannot be unpacked as {packing} ({reason}): it is truncated, damaged or in another format; download it again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// "gzip", "Zstandard", "Parquet" or "Arrow".
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
    /// The file is not UTF-8 text, and no other encoding is evident.
    #[error(
        "{location}: not UTF-8 text{looks_like}: save the file as UTF-8, or name its encoding with --encoding"
    )]
    NotUtf8 {
        /// The line of the first invalid byte.
        location: Location,
        /// ", but most of the file is" if it is damaged, or what else it looks like.
        looks_like: &'static str,
    },
    /// The file is not text in the encoding that was named.
    #[error("{location}: not text in the encoding {encoding}: name another one with --encoding")]
    NotInEncoding {
        /// The line of the first character that can't be read.
        location: Location,
        /// The encoding.
        encoding: &'static str,
    },
    /// A zero byte, which does not occur in text.
    #[error(
        "{location}: a zero byte, which no text has: the file is damaged, or UTF-16; save it as UTF-8, or try \
         --encoding utf-16le"
    )]
    Zero {
        /// The line.
        location: Location,
    },
    /// The JSON is malformed, or an example is not an object.
    #[error("{location}, column {column}: {reason}")]
    Json {
        /// The line.
        location: Location,
        /// The column, in bytes from 1.
        column: usize,
        /// The JSON parser's message.
        reason: String,
    },
    /// A `.json` file that holds no examples in a known form.
    #[error(
        "{location}: expected an array of objects, an object whose key \"data\" holds one, an object with an array for each \
         field, or one object per line (.jsonl)"
    )]
    JsonShape {
        /// The line of the error.
        location: Location,
    },
    /// A `.json` file that holds several data sets.
    #[error(
        "{path}: an object with several data sets, {names}: give a file with one of them, as jq '.[{first:?}]' {path} > \
         {first}.json writes it", path = path.display()
    )]
    Splits {
        /// The file.
        path: PathBuf,
        /// The names of the data sets.
        names: String,
        /// The first of them.
        first: String,
    },
    /// A text before objects.
    #[error("{location}: a text, and the lines after it are JSON objects: take it out")]
    BeforeObjects {
        /// Its line.
        location: Location,
    },
    /// Fields with different numbers of values.
    #[error("{location}: the field {field:?} has {found} values where {first:?} has {expected}")]
    UnevenColumns {
        /// The beginning of the values.
        location: Location,
        /// The field.
        field: Box<str>,
        /// Its number of values.
        found: usize,
        /// The field before it.
        first: Box<str>,
        /// The number of values of that.
        expected: usize,
    },
    /// A conversation that is no list of messages of known roles.
    #[error("{location}: the conversation in the field {field:?} can't be read: {reason}")]
    Conversation {
        /// The line.
        location: Location,
        /// The field.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// A line of fastText with no label or with several ones.
    #[error(
        "{location}: {n} labels, where a text has one: write the text once for each label, or keep one of them"
    )]
    Labels {
        /// The line.
        location: Location,
        /// Their number.
        n: usize,
    },
    /// A header or an object names a field twice.
    #[error("{location}: the field {field:?} occurs twice; rename one of them")]
    DuplicateField {
        /// The line.
        location: Location,
        /// The field.
        field: String,
    },
    /// A row has more or fewer cells than the header.
    #[error("{location}: {}, but there {} {}", plural(*found, "cell"), if *expected == 1 { "is" } else { "are" }, plural(*expected, "field"))]
    Ragged {
        /// The line.
        location: Location,
        /// Number of cells in this row.
        found: usize,
        /// Number of cells in the header.
        expected: usize,
    },
    /// The lines of a CSV file are evidently texts.
    #[error(
        "{location}: {}, but there {} {}; the lines look like texts, not like cells: give the file the ending .txt to read one \
         text per line", plural(*found, "cell"), if *expected == 1 { "is" } else { "are" }, plural(*expected, "field")
    )]
    TextsNotCells {
        /// The line.
        location: Location,
        /// Number of cells in this row.
        found: usize,
        /// Number of cells in the first row.
        expected: usize,
    },
    /// A cell begins with a quotation mark, but the next one does not end it.
    #[error(
        "{location}: a cell begins with a quotation mark and does not end at the next one, \
         close it or write quotation marks inside it twice"
    )]
    StrayQuote {
        /// The first line of the row.
        location: Location,
    },
    /// The header seems to use another separator.
    #[error(
        "{location}: only one field, {field:?}, and {separator} in it: name the character between cells with --delimiter, \
         or save the file with {expected} between them"
    )]
    WrongSeparator {
        /// The header's line.
        location: Location,
        /// The only field.
        field: Box<str>,
        /// The separator it seems to use.
        separator: Box<str>,
        /// The expected separators.
        expected: Box<str>,
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
    #[error("{location}: no field {field:?}, the fields of this example are: {known}")]
    Absent {
        /// The line.
        location: Location,
        /// The field.
        field: String,
        /// The fields of this example.
        known: String,
    },
    /// A field in use is null.
    #[error("{location}: missing value in the field {field:?}, give it one or take the example out")]
    Missing {
        /// The line.
        location: Location,
        /// The field.
        field: String,
    },
    /// A field in use contains more than one value.
    #[error(
        "{location}: the field {field:?} holds {found}, where a text, a number or true or false is wanted"
    )]
    Nested {
        /// The line.
        location: Location,
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

/// A number with its word.
fn plural(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}
