//! Readers of data files: bytes to fields and rows, with the line of everything that is wrong.

mod json;
mod separated;

use super::{DataError, Place, Row};
use std::path::Path;

/// How a file is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Format {
    JsonLines,
    Json,
    Csv,
    Tsv,
}

/// What a file holds: names of fields, and rows.
pub(super) type Table = (Vec<String>, Vec<Row>);

impl Format {
    pub(super) fn of(path: &Path) -> Result<Self, DataError> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("jsonl") => Ok(Self::JsonLines),
            Some("json") => Ok(Self::Json),
            Some("csv") => Ok(Self::Csv),
            Some("tsv") => Ok(Self::Tsv),
            _ => Err(DataError::UnknownEnding { path: path.to_owned() }),
        }
    }
}

/// Reads the bytes of a file. A byte order mark is passed over.
pub(super) fn parse(bytes: &[u8], format: Format, path: &Path) -> Result<Table, DataError> {
    let text = utf8(bytes, path)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::JsonLines => json::parse_lines(text, path),
        Format::Json => json::parse_array(text, path),
        Format::Csv => separated::parse_csv(text, path),
        Format::Tsv => separated::parse_tsv(text, path),
    }
}

fn utf8<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a str, DataError> {
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
        let wanted =
            "what kind of data this is shows in the file's ending, which must be .jsonl, .json, .csv or .tsv";
        assert_eq!(message(b"", "data.xlsx"), format!("data.xlsx: {wanted}"));
        assert!(message(b"", "jsonl").contains(wanted));
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
