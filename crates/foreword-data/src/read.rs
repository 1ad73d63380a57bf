//! Readers of data files: from bytes to fields and rows, with the line of every error.

mod columns;
mod json;
mod separated;

mod packed;

use super::{About, DataError, Place, Row};
use packed::{Packing, most_of, unpack};
use std::path::Path;

/// The format of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    packing: Packing,
    kind: Kind,
}

/// The format after decompression.
#[derive(Clone, Copy, Debug)]
enum Kind {
    JsonLines,
    Json,
    Csv,
    Tsv,
    Parquet,
}

/// The contents of a file: field names, rows, and metadata of the fields.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) fields: Vec<String>,
    pub(super) rows: Vec<Row>,
    pub(super) about: About,
}

impl Table {
    fn new(fields: Vec<String>, rows: Vec<Row>) -> Self {
        Self { fields, rows, about: About::default() }
    }
}

impl Format {
    /// Determines the format from the file extension, before that of an archive if there is one.
    pub(super) fn of(path: &Path) -> Result<Self, DataError> {
        let packing = ending(path).map_or(Packing::Plain, |ending| Packing::of_ending(&ending));
        let within = match packing {
            Packing::Plain => ending(path),
            Packing::Gzip | Packing::Zstd => path.file_stem().and_then(|stem| ending(Path::new(stem))),
        };
        let kind = match within.as_deref() {
            Some("jsonl") => Kind::JsonLines,
            Some("json") => Kind::Json,
            Some("csv") => Kind::Csv,
            Some("tsv") => Kind::Tsv,
            Some("parquet") => Kind::Parquet,
            _ => return Err(DataError::UnknownEnding { path: path.to_owned() }),
        };
        Ok(Self { packing, kind })
    }
}

fn ending(path: &Path) -> Option<String> {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase())
}

/// Reads bytes without an extension; the first character determines the format. A brace begins one object per line, a
/// bracket an array of them, and anything else is CSV.
pub(super) fn parse_by_content(bytes: &[u8], path: &Path) -> Result<Table, DataError> {
    let most = most_of(bytes.len());
    let bytes = unpack(bytes, Packing::of_content(bytes), path, most)?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let kind = match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => Kind::JsonLines,
        Some(b'[') => Kind::Json,
        _ => Kind::Csv,
    };
    parse_unpacked(&bytes, kind, path, most)
}

/// Reads the bytes of a file.
pub(super) fn parse(bytes: &[u8], format: Format, path: &Path) -> Result<Table, DataError> {
    let most = most_of(bytes.len());
    parse_unpacked(&unpack(bytes, format.packing, path, most)?, format.kind, path, most)
}

/// Skips a byte order mark. `most`: maximum number of bytes of columns after decoding.
fn parse_unpacked(bytes: &[u8], kind: Kind, path: &Path, most: u64) -> Result<Table, DataError> {
    if matches!(kind, Kind::Parquet) {
        return columns::parse(bytes, path, most);
    }
    let text = utf8(bytes, path)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match kind {
        Kind::JsonLines => json::parse_lines(text, path),
        Kind::Json => json::parse_array(text, path),
        Kind::Csv => separated::parse_csv(text, path),
        Kind::Tsv | Kind::Parquet => separated::parse_tsv(text, path),
    }
}

fn utf8<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a str, DataError> {
    if let Some(at) = bytes.iter().position(|&byte| byte == 0)
        && std::str::from_utf8(bytes).is_ok()
    {
        return Err(DataError::Zero { place: place(path, 1 + n_newlines(&bytes[..at])) });
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let is_utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
        let looks_like = if is_utf16 { ", it looks like UTF-16" } else { "" };
        DataError::NotUtf8 { place: place(path, 1 + n_newlines(&bytes[..error.valid_up_to()])), looks_like }
    })
}

fn place(path: &Path, line: u64) -> Place {
    Place { path: Some(path.to_owned()), line }
}

fn n_newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::super::Dataset;
    use super::*;
    use proptest::prelude::*;

    fn message(bytes: &[u8], name: &str) -> String {
        Dataset::from_bytes(bytes, Path::new(name)).unwrap_err().to_string()
    }

    #[test]
    fn the_ending_says_how_a_file_is_read() {
        assert!(Dataset::from_bytes(b"text\na\n", Path::new("D.CSV")).is_ok());
        let wanted = "what kind of data this is shows in the file's ending, which must be .jsonl, .json, .csv, .tsv or .parquet, \
                      with .gz or .zst after it if it is packed";
        assert_eq!(message(b"", "data.xlsx"), format!("data.xlsx: {wanted}"));
        for name in ["jsonl", "data.gz", "csv.gz", "data.gz.csv.gz.zst"] {
            assert!(message(b"", name).contains(wanted), "{name}");
        }
    }

    #[test]
    fn data_without_an_ending_is_known_by_its_first_character() {
        for text in [
            "{\"text\": \"a\"}\n",
            " \n{\"text\": \"a\"}",
            "\u{feff}[{\"text\": \"a\"}]",
            "text,label\na,x\n",
        ] {
            let data = Dataset::from_stream(text.as_bytes(), "standard input").unwrap();
            assert_eq!(data.text(0, data.require("text").unwrap()).unwrap(), "a", "{text}");
        }
        let message = |bytes: &[u8]| Dataset::from_stream(bytes, "standard input").unwrap_err().to_string();
        assert_eq!(message(b""), "standard input has no examples");
        assert!(message(b"text,label\na\n").starts_with("standard input, line 2: 1 cells"));
        assert!(message(&[0x1f, 0x8b, 8]).starts_with("standard input: cannot be unpacked"));
    }

    #[test]
    fn empty_files_have_no_examples() {
        for name in ["d.jsonl", "d.csv", "d.tsv"] {
            assert_eq!(message(b"", name), format!("{name} has no examples"));
            assert_eq!(message(b"\xef\xbb\xbf\r\n\n", name), format!("{name} has no examples"));
        }
        assert_eq!(message(b"text,label\n", "d.csv"), "d.csv has no examples");
        for empty in [b"".as_slice(), b" \n", b"[]", b"{\"data\": [ ] }"] {
            assert_eq!(message(empty, "d.json"), "d.json has no examples");
        }
    }

    #[test]
    fn what_is_not_utf8_is_named_by_line() {
        for name in ["d.jsonl", "d.json", "d.csv", "d.tsv"] {
            assert_eq!(
                message(b"a\nb\n\xe9\n", name),
                format!("{name}, line 3: not UTF-8 text: save the file as UTF-8")
            );
        }
        assert!(message(b"\xff\xfet\0e\0", "d.csv").contains("looks like UTF-16"));
        let utf16: Vec<u8> = "text\na\n".bytes().flat_map(|byte| [byte, 0]).collect();
        for name in ["d.jsonl", "d.csv"] {
            let zero = message(&utf16, name);
            assert!(zero.starts_with(&format!("{name}, line 1: a zero byte")), "{zero}");
            assert!(message(b"text\n{}a\0\n", name).starts_with(&format!("{name}, line 2: a zero byte")));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for name in ["d.jsonl", "d.json", "d.csv", "d.tsv"] {
                let _ = Dataset::from_bytes(&bytes, Path::new(name));
            }
        }

        #[test]
        fn no_text_near_the_formats_makes_a_reader_panic(text in "([\\[\\]{}:,\"\t\r\n;\\\\ ]|data|text|é|\u{feff}|1|null){0,40}") {
            for name in ["d.jsonl", "d.json", "d.csv", "d.tsv"] {
                let _ = Dataset::from_bytes(text.as_bytes(), Path::new(name));
            }
        }
    }
}
