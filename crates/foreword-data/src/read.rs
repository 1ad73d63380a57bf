//! Readers of data files: from bytes to fields and rows, with the line of every error.

pub(crate) mod options;

mod arrow;
mod columns;
mod conversations;
mod folder;
mod json;
mod lines;
mod separated;

mod encoding;
mod foreign;
mod packed;
mod source;
mod values;

use super::fields::is_common_name;
use super::{About, DataError, Delimiter, FieldIdx, Location, ReadOptions, Row, Unit};
use packed::{Packing, most_of, unpack};
use source::Source;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) use folder::read as read_folder;

/// The format of a file after decompression.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    JsonLines,
    Json,
    Csv,
    Tsv,
    /// Text of a form that its content shows.
    Text,
    Parquet,
    Arrow,
}

/// The contents of a file: field names, rows, and what else is known.
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

impl Kind {
    /// What a file extension promises.
    fn of_ending(ending: &str) -> Option<Self> {
        match ending {
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "txt" => Some(Self::Text),
            "parquet" => Some(Self::Parquet),
            "arrow" | "feather" | "ipc" => Some(Self::Arrow),
            _ => None,
        }
    }

    /// What the first bytes say.
    fn of_content(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"PAR1") {
            Some(Self::Parquet)
        } else if arrow::is_arrow(bytes) {
            Some(Self::Arrow)
        } else {
            None
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::JsonLines => "one JSON object per line",
            Self::Json => "JSON",
            Self::Csv => "CSV",
            Self::Tsv => "TSV",
            Self::Text => "text",
            Self::Parquet => "Parquet",
            Self::Arrow => "Arrow",
        }
    }
}

/// What the name of a file says: its compression, and its format.
fn named(path: &Path) -> (Packing, Option<Kind>) {
    let packing = ending(path).map_or(Packing::Plain, |ending| Packing::of_ending(&ending));
    let within = match packing {
        Packing::Plain => ending(path),
        Packing::Gzip | Packing::Zstd => path.file_stem().and_then(|stem| ending(Path::new(stem))),
    };
    (packing, within.as_deref().and_then(Kind::of_ending))
}

/// Whether the name is that of a data file. `.txt` is not: it may be any text.
pub(super) fn is_data_name(path: &Path) -> bool {
    named(path).1.is_some_and(|kind| kind != Kind::Text)
}

fn ending(path: &Path) -> Option<String> {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase())
}

/// Reads the bytes of a file.
pub(super) fn parse(bytes: &[u8], path: &Path, options: &ReadOptions) -> Result<Table, DataError> {
    let mut source = Source::new(path, options);
    let table = parse_part(bytes, &mut source)?;
    with_turns(table, source)
}

/// Reads the bytes of a file that may have its conversations in other files too.
fn parse_part(bytes: &[u8], source: &mut Source<'_>) -> Result<Table, DataError> {
    let (promised, kind) = named(source.path);
    let packing = match Packing::of_content(bytes) {
        // What is no archive may still be text, whatever its name promises.
        Packing::Plain if !packed::is_text(bytes) => promised,
        found => found,
    };
    if packing != promised {
        let is = match packing {
            Packing::Plain => "not packed, unlike its name".to_owned(),
            packing => format!("packed with {}, unlike its name", packing.name()),
        };
        source.say(format!("{}: {is}", source.name()));
    }
    parse_packed(bytes, packing, kind, source)
}

/// Reads bytes without a name: their content determines the format.
pub(super) fn parse_by_content(bytes: &[u8], path: &Path, options: &ReadOptions) -> Result<Table, DataError> {
    let mut source = Source::new(path, options);
    let table = parse_packed(bytes, Packing::of_content(bytes), None, &mut source)?;
    with_turns(table, source)
}

/// Adds the messages of conversations, and what is to be said about the file.
fn with_turns(table: Table, mut source: Source<'_>) -> Result<Table, DataError> {
    source.unit = table.about.unit;
    let table = conversations::with_turns(table, &mut source)?;
    Ok(source.finish(table))
}

/// `kind`: what the name promises. Columns are known by their first bytes, whatever the name.
fn parse_packed(
    bytes: &[u8],
    packing: Packing,
    kind: Option<Kind>,
    source: &mut Source<'_>,
) -> Result<Table, DataError> {
    let most = most_of(bytes.len());
    let bytes = unpack(bytes, packing, source.path, most)?;
    foreign::check(&bytes, source.path)?;
    let found = Kind::of_content(&bytes);
    if let (Some(promised), Some(found)) = (kind, found)
        && promised != found
    {
        source.say(format!("{}: read as {}, unlike its name", source.name(), found.name()));
    }
    match found.or(kind) {
        Some(Kind::Parquet) => columns::parse(&bytes, source.path, most),
        Some(Kind::Arrow) => arrow::parse(&bytes, source.path, most),
        kind => parse_text(&bytes, kind, source),
    }
}

fn parse_text(bytes: &[u8], kind: Option<Kind>, source: &mut Source<'_>) -> Result<Table, DataError> {
    let decoded = encoding::decode(bytes, source).map_err(|error| match error {
        DataError::NotUtf8 { looks_like, .. } if kind.is_none() && looks_like == encoding::NO_TEXT => {
            DataError::UnknownFormat { path: source.path.to_owned() }
        }
        error => error,
    })?;
    let text: &str = &decoded.text;
    let table = match kind {
        Some(Kind::JsonLines) => json::parse_lines(text, source),
        Some(Kind::Json) => json::parse_whole(text, source),
        Some(Kind::Csv) => separated::parse(text, Delimiter::COMMA, source).map_err(|error| match error {
            DataError::Ragged { location, found, expected } if lines::is_prose(text) => {
                DataError::TextsNotCells { location, found, expected }
            }
            error => error,
        }),
        Some(Kind::Tsv) => separated::parse(text, Delimiter::TAB, source),
        Some(Kind::Text) => parse_plain(text, source),
        Some(Kind::Parquet | Kind::Arrow) | None => parse_unnamed(text, source),
    };
    without_lines(table?, &decoded.bad_lines, source)
}

/// A text whose name says nothing: JSON, the format of fastText, or cells.
fn parse_unnamed(text: &str, source: &mut Source<'_>) -> Result<Table, DataError> {
    match text.trim_start().as_bytes().first() {
        Some(b'{') if json::is_lines(text) => json::parse_lines(text, source),
        // Its only object may be columns, or an example.
        Some(b'{') => {
            let mark = source.mark();
            json::parse_whole(text, source).or_else(|error| {
                source.reset(mark);
                json::parse_lines(text, source).map_err(|_| error)
            })
        }
        Some(b'[') => json::parse_whole(text, source),
        _ if lines::is_fasttext(text) => lines::parse_fasttext(text, source),
        _ => match json::has_text_before_objects(text) {
            Some(line) => after_text(text, line, source),
            None => parse_cells_or_texts(text, source),
        },
    }
}

/// Objects after a text, which can be left out.
fn after_text(text: &str, line: u64, source: &mut Source<'_>) -> Result<Table, DataError> {
    if source.options.skip_bad {
        return json::parse_lines(text, source);
    }
    Err(DataError::BeforeObjects { location: source.location(line) })
}

/// A text whose name says nothing: cells, unless it is evidently one text per line.
fn parse_cells_or_texts(text: &str, source: &mut Source<'_>) -> Result<Table, DataError> {
    let is_open = source.options.delimiter.is_none() && source.options.no_header.is_none();
    if is_open && lines::is_prose(text) {
        return Ok(lines::parse_texts(text, source));
    }
    let mark = source.mark();
    let table = separated::parse(text, Delimiter::COMMA, source)?;
    match table.fields.as_slice() {
        // No name of a field.
        [only] if separated::is_text(only) && is_open => {
            source.reset(mark);
            Ok(lines::parse_texts(text, source))
        }
        [only] if !is_common_name(only) && is_open => {
            source.say(format!(
                "{}: the first line, {only:?}, is read as the name of the only field (--no-header: it is a text)",
                source.name()
            ));
            Ok(table)
        }
        _ => Ok(table),
    }
}

/// A `.txt` file: one text per line, unless something else is evident.
fn parse_plain(text: &str, source: &mut Source<'_>) -> Result<Table, DataError> {
    let first = text.trim_start().lines().next().unwrap_or_default();
    if serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(first).is_ok() {
        source.say(format!("{}: read as one JSON object per line", source.name()));
        return json::parse_lines(text, source);
    }
    if let Some(line) = json::has_text_before_objects(text) {
        return after_text(text, line, source);
    }
    if lines::is_fasttext(text) {
        return lines::parse_fasttext(text, source);
    }
    if source.options.delimiter.is_some() || source.options.no_header.is_some() {
        return separated::parse(text, Delimiter::TAB, source);
    }
    let mark = source.mark();
    for delimiter in Delimiter::COMMON {
        let Ok(table) = separated::parse_evident(text, delimiter, source) else {
            source.reset(mark);
            continue;
        };
        if let Some(table) = table {
            source.say(format!("{}: read as cells separated by {}", source.name(), delimiter.many()));
            return Ok(table);
        }
        source.reset(mark);
    }
    Ok(lines::parse_texts(text, source))
}

/// The table without the rows that have one of these lines.
fn without_lines(mut table: Table, bad: &[u64], source: &mut Source<'_>) -> Result<Table, DataError> {
    let encoding = source.options.encoding.map_or("UTF-8", |encoding| encoding.0.name());
    for &line in bad {
        // Rows are in the order of their lines; one lasts until the next begins.
        let row = table.rows.partition_point(|row| row.line <= line).checked_sub(1);
        let error = DataError::NotInEncoding { location: source.location(line), encoding };
        match row {
            Some(row) => drop(table.rows.remove(row)),
            // What is before all rows is the header.
            None if !table.rows.is_empty() => return Err(error),
            None => {}
        }
        source.skip(line, error)?;
    }
    Ok(table)
}

/// The class names that Hugging Face `datasets` stores next to columns: an object in which `info.features.FIELD` has the
/// `_type` "ClassLabel" and `names`. Other shapes are ignored.
fn class_names(written: &str, fields: &[String]) -> BTreeMap<FieldIdx, Vec<String>> {
    let written: Option<serde_json::Value> = serde_json::from_str(written).ok();
    let features = written
        .as_ref()
        .and_then(|written| written.pointer("/info/features").or_else(|| written.get("features")));
    let Some(features) = features else { return BTreeMap::new() };
    let of = |(idx, name): (usize, &String)| {
        let feature = features.get(name)?;
        if feature.get("_type")?.as_str()? != "ClassLabel" {
            return None;
        }
        let names = feature.get("names")?.as_array()?;
        let names: Option<Vec<String>> = names.iter().map(|name| name.as_str().map(str::to_owned)).collect();
        Some((FieldIdx(idx), names?))
    };
    fields.iter().enumerate().filter_map(of).collect()
}

fn location(path: &Path, line: u64) -> Location {
    let is_columns = named(path).1.is_some_and(|kind| matches!(kind, Kind::Parquet | Kind::Arrow));
    Location { path: Some(path.to_owned()), line, unit: if is_columns { Unit::Row } else { Unit::Line } }
}

fn n_newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod golden;

#[cfg(test)]
mod tests {
    use super::super::Dataset;
    use super::*;
    use proptest::prelude::*;

    fn message(bytes: &[u8], name: &str) -> String {
        Dataset::from_bytes(bytes, Path::new(name)).unwrap_err().to_string()
    }

    fn said(bytes: &[u8], name: &str) -> String {
        let data = Dataset::from_bytes(bytes, Path::new(name)).unwrap();
        data.notices().iter().map(|notice| notice.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_name_of_a_file_may_say_nothing_or_something_else() {
        for name in ["D.CSV", "data", "data.dat", "63", "d.gz"] {
            let data = Dataset::from_bytes(b"text,label\na,x\n", Path::new(name)).unwrap();
            assert_eq!(data.fields(), ["text", "label"], "{name}");
        }
        for name in ["data", "d.dat"] {
            let data =
                Dataset::from_bytes(b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n", Path::new(name)).unwrap();
            assert_eq!(data.n(), 2, "{name}");
        }
        let data = Dataset::from_bytes(b"{\"text\": [\"a\", \"b\"]}", Path::new("d")).unwrap();
        assert_eq!(data.n(), 2);
        assert_eq!(
            message(b"\x01\x02\xff\xfe\x03", "d.bin"),
            format!(
                "d.bin: this is neither text nor a kind of data that is known: data is {}",
                crate::ENDINGS
            )
        );
    }

    #[test]
    fn an_archive_is_known_by_its_first_bytes() {
        let packed = gzip(b"text,label\na,x\n");
        assert_eq!(said(&packed, "d.csv.gz"), "");
        for name in ["d.csv", "d", "d.csv.zst"] {
            assert_eq!(said(&packed, name), format!("{name}: packed with gzip, unlike its name"));
        }
        assert_eq!(said(b"text,label\na,x\n", "d.csv.gz"), "d.csv.gz: not packed, unlike its name");
        let twice = Dataset::from_stream(&packed, "standard input").unwrap();
        assert_eq!(twice.fields(), ["text", "label"]);
    }

    #[test]
    fn files_of_other_kinds_are_named() {
        for (bytes, what, how) in [
            (&b"PK\x03\x04rest"[..], "an Excel workbook or a zip archive", "save the sheet as CSV UTF-8"),
            (b"BZh91AY", "packed with bzip2", "bunzip2"),
            (b"\xfd7zXZ\0\0", "packed with xz", "unxz"),
            (b"SQLite format 3\0", "an SQLite database", "sqlite3 -header -csv"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                "a pointer of Git LFS",
                "git lfs pull",
            ),
            (b"<!DOCTYPE html>\n<html>", "a web page", "download the raw file"),
            (b"\x80\x04\x95", "a Python pickle", "to_parquet"),
        ] {
            for name in ["d.csv", "d.jsonl", "d"] {
                let error = message(bytes, name);
                assert!(
                    error.starts_with(&format!("{name}: this is {what}")) && error.contains(how),
                    "{error}"
                );
            }
        }
        let tar = [&[b'a'; 257][..], b"ustar"].concat();
        assert!(message(&gzip(&tar), "d.csv.gz").contains("a tar archive: unpack it with tar -xf"));
    }

    #[test]
    fn rows_that_can_not_be_read_are_left_out_if_that_is_wanted() {
        let options = ReadOptions { skip_bad: true, ..ReadOptions::default() };
        let check = |bytes: &[u8], name: &str, texts: &[&str], skipped: &[(u64, &str)]| {
            assert!(Dataset::from_bytes(bytes, Path::new(name)).is_err(), "{name}");
            let data = Dataset::from_bytes_with(bytes, Path::new(name), &options).unwrap();
            let text = data.require("text").unwrap();
            let read: Vec<&str> = (0..data.n()).map(|row| data.text(row, text).unwrap()).collect();
            assert_eq!(read, texts, "{name}");
            let lines: Vec<u64> = data.skipped().iter().map(|skipped| skipped.location.line).collect();
            assert_eq!(lines, skipped.iter().map(|(line, _)| *line).collect::<Vec<_>>(), "{name}");
            let notice = data.notices().last().unwrap();
            assert!(notice.is_warning);
            let (n, of) = (skipped.len(), skipped.len() + texts.len());
            assert!(
                notice.text.starts_with(&format!("{name}: {n} of {of} rows were left out: line ")),
                "{}",
                notice.text
            );
            for ((_, reason), skipped) in skipped.iter().zip(data.skipped()) {
                assert!(skipped.reason.starts_with(reason), "{}", skipped.reason);
                assert!(notice.text.contains(&skipped.reason), "{}", notice.text);
            }
        };
        let ragged = "1 cell, but there are 2 fields";
        check(b"text,label\na,x\nb\nc,y\n", "d.csv", &["a", "c"], &[(3, ragged)]);
        check(b"text;label\na;x\nb\nc;y\n", "d.csv", &["a", "c"], &[(3, ragged)]);
        check(b"text\tlabel\na\tx\nb\tx\ty\nc\ty\n", "d.tsv", &["a", "c"], &[(3, "3 cells")]);
        let quote = "a cell begins with a quotation mark";
        check(b"text,label\na,x\n\"b,y\nc,y\nd\n", "d.csv", &["a", "c"], &[(3, quote), (5, ragged)]);
        let json = b"{\"text\":\"a\"}\n{\"text\":}\n[1]\n{\"text\":\"b\",\"text\":\"c\"}\n{\"text\":\"d\"}\n";
        let reasons = [
            (2, "column 9: expected value"),
            (3, "column 1: invalid type"),
            (4, "the field \"text\" occurs twice"),
        ];
        check(json, "d.jsonl", &["a", "d"], &reasons);
        check(
            "text,label\né é,x\nb\u{e9},x\n"
                .replace("b\u{e9}", "b?")
                .as_bytes()
                .iter()
                .map(|&byte| if byte == b'?' { 0xe9 } else { byte })
                .collect::<Vec<_>>()
                .as_slice(),
            "d.csv",
            &["é é"],
            &[(3, "not text in the encoding UTF-8")],
        );
        check(
            b"__label__a x\n__label__a __label__b y\nz\n",
            "d.ft",
            &["x"],
            &[(2, "2 labels"), (3, "0 labels")],
        );
    }

    #[test]
    fn many_left_out_rows_are_counted() {
        let options = ReadOptions { skip_bad: true, ..ReadOptions::default() };
        let text = format!("text,label\na,x\n{}", "b\n".repeat(7));
        let data = Dataset::from_bytes_with(text.as_bytes(), Path::new("d.csv"), &options).unwrap();
        let notice = &data.notices().last().unwrap().text;
        assert!(notice.starts_with("d.csv: 7 of 8 rows were left out: line 3 (1 cell, but"), "{notice}");
        assert!(notice.ends_with(" and 2 more"), "{notice}");
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
        assert!(message(b"text,label\na\n").starts_with("standard input, line 2: 1 cell,"));
        assert!(message(&[0x1f, 0x8b, 8]).starts_with("standard input: cannot be unpacked"));
    }

    #[test]
    fn texts_under_the_name_of_cells_are_named() {
        let error = message(b"I loved it, all of it\nDull, long, and loud\n", "d.csv");
        assert!(
            error.starts_with("d.csv, line 2: 3 cells, but there are 2 fields; the lines look like texts"),
            "{error}"
        );
        assert!(
            message(b"text,label\nDull, long, and loud,x\n", "d.csv").ends_with("but there are 2 fields")
        );
    }

    #[test]
    fn the_only_field_of_data_without_an_ending_is_named() {
        assert_eq!(said(b"text\na\n", "d"), "");
        let notice = "d: the first line, \"great film\", is read as the name of the only field (--no-header: it is a text)";
        assert_eq!(said(b"great film\nbad film\n", "d"), notice);
        let options = ReadOptions { no_header: Some(true), ..ReadOptions::default() };
        let data = Dataset::from_bytes_with(b"great film\nbad film\n", Path::new("d"), &options).unwrap();
        assert_eq!((data.n(), data.notices().len()), (2, 0));
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
    fn damaged_utf8_and_what_is_no_text_are_named_by_line() {
        for name in ["d.jsonl", "d.json", "d.csv", "d.tsv"] {
            let damaged = message(
                "é\nü\n?\n"
                    .replace('?', "\u{0}")
                    .as_bytes()
                    .iter()
                    .map(|&byte| if byte == 0 { 0xe9 } else { byte })
                    .collect::<Vec<_>>()
                    .as_slice(),
                name,
            );
            assert!(
                damaged.starts_with(&format!("{name}, line 3: not UTF-8 text, but most of the file is")),
                "{damaged}"
            );
            let zero = message(b"text\n{}a\0\n", name);
            assert!(zero.starts_with(&format!("{name}, line 2: a zero byte")), "{zero}");
            let control = message(b"text\n\x02\xe9\n", name);
            assert!(control.contains("line 2: not UTF-8 text, nor text in another encoding"), "{control}");
        }
        assert!(message(b"\xff\xfe\0\0t\0\0\0\n", "d.csv").contains("damaged UTF-32"));
    }

    #[test]
    fn an_encoding_that_is_named_is_used_and_checked() {
        let read = |bytes: &[u8], encoding: &str| {
            let options = ReadOptions { encoding: Some(encoding.parse().unwrap()), ..ReadOptions::default() };
            let data = Dataset::from_bytes_with(bytes, Path::new("d.csv"), &options)
                .map_err(|error| error.to_string())?;
            Ok::<_, String>(data.text(0, data.require("text").unwrap()).unwrap().to_owned())
        };
        assert_eq!(read(b"text\ncaf\xe9\n", "latin-1").unwrap(), "café");
        assert_eq!(read(b"text\n\x80\n", "cp1252").unwrap(), "€");
        assert_eq!(read(b"text\n\xa4\n", "iso-8859-15").unwrap(), "€");
        assert_eq!(read("text\né\n".as_bytes(), "utf-8").unwrap(), "é");
        let utf16: Vec<u8> = "\u{feff}text\né\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(read(&utf16, "utf-16").unwrap(), "é");
        let wrong = read(b"text\na\ncaf\xe9\n", "utf-8").unwrap_err();
        assert_eq!(wrong, "d.csv, line 3: not text in the encoding UTF-8: name another one with --encoding");
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
