//! CSV and TSV: the output of the csv crate, checked against the text, with the line of every error. The crate alone
//! accepts an unclosed quote and text after a closing quote, so that one stray quotation mark can silently swallow rows.

use super::super::{Cell, DataError, Row};
use super::{Table, n_newlines, place};
use std::collections::HashSet;
use std::path::Path;

/// The separator of cells.
struct Separator {
    mark: char,
    name: &'static str,
    /// Other possible separators if a header looks like a single field.
    mistaken_for: &'static [(char, &'static str)],
}

const COMMA: Separator =
    Separator { mark: ',', name: "commas", mistaken_for: &[(';', "semicolon"), ('\t', "tab")] };

const TAB: Separator =
    Separator { mark: '\t', name: "tabs", mistaken_for: &[(',', "comma"), (';', "semicolon")] };

/// `.csv`: a cell that begins with a quotation mark is quoted.
pub(super) fn parse_csv(text: &str, path: &Path) -> Result<Table, DataError> {
    parse(text, &COMMA, true, path)
}

/// `.tsv`, which has two dialects. Programs quote cells with quotation marks, tabs or newlines, as in CSV; in files made by
/// hand, and in many published data sets, a quotation mark is an ordinary character. A file is read as the first kind if
/// all of it is valid and no cell looks like the end of one row and the beginning of the next. Otherwise a line is a row,
/// and only quotation marks around a whole cell are removed.
pub(super) fn parse_tsv(text: &str, path: &Path) -> Result<Table, DataError> {
    let literal = || parse(text, &TAB, false, path);
    match parse(text, &TAB, true, path) {
        Ok(table) if !table.rows.iter().any(spans_rows) => Ok(table),
        Err(error @ DataError::Ragged { .. }) => literal().map_err(|_| error),
        _ => literal(),
    }
}

/// A header with the field names, then rows. Skips blank lines.
fn parse(text: &str, separator: &Separator, quoting: bool, path: &Path) -> Result<Table, DataError> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator.mark as u8)
        .quoting(quoting)
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let (mut fields, mut rows) = (Vec::new(), Vec::new());
    let mut record = csv::StringRecord::new();
    let io = |error: csv::Error| DataError::Io { path: path.to_owned(), source: error.into() };
    while reader.read_record(&mut record).map_err(io)? {
        // A record's position is before the blank lines in front of it.
        let (line, from) = record.position().map_or((1, 0), |at| (at.line(), at.byte() as usize));
        let raw = &text[from..reader.position().byte() as usize];
        let written = raw.trim_start_matches(['\r', '\n']);
        let line = line + n_newlines(&raw.as_bytes()[..raw.len() - written.len()]);
        if quoting && !is_strict(written, &record, separator.mark) {
            return Err(DataError::StrayQuote { place: place(path, line) });
        }
        let cells = record.iter().map(|cell| if quoting { cell.to_owned() } else { unquoted(cell) });
        if fields.is_empty() {
            fields = cells.map(|name| name.trim().to_owned()).collect();
            check_header(&fields, separator, line, path)?;
        } else if record.len() == fields.len() {
            rows.push(Row::of_texts(line, cells.collect()));
        } else {
            let (found, expected) = (record.len(), fields.len());
            return Err(DataError::Ragged { place: place(path, line), found, expected });
        }
    }
    Ok(Table::new(fields, rows))
}

/// Whether each cell is either plain or completely quoted, with inner quotation marks doubled.
fn is_strict(written: &str, cells: &csv::StringRecord, separator: char) -> bool {
    let mut rest = written;
    let mut all = cells.iter().map(|cell| {
        let quoted = format!("\"{}\"", cell.replace('"', "\"\""));
        let after = rest.strip_prefix(&quoted).or_else(|| rest.strip_prefix(cell))?;
        rest = after.strip_prefix(separator).unwrap_or(after);
        Some(())
    });
    !written.contains('"') || all.all(|cell| cell.is_some()) && rest.trim_matches(['\r', '\n']).is_empty()
}

/// Whether a cell contains both a tab and a line end.
fn spans_rows(row: &Row) -> bool {
    let spans = |text: &str| text.contains('\t') && text.contains(['\n', '\r']);
    row.cells.iter().any(|(_, cell)| matches!(cell, Cell::Text(text) if spans(text)))
}

/// A cell without its quotation marks, if it is properly quoted.
fn unquoted(cell: &str) -> String {
    let inner = cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"'));
    match inner.filter(|inner| !inner.replace("\"\"", "").contains('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => cell.to_owned(),
    }
}

fn check_header(fields: &[String], separator: &Separator, line: u64, path: &Path) -> Result<(), DataError> {
    let place = || place(path, line);
    let mut seen = HashSet::new();
    if let Some(field) = fields.iter().find(|field| !seen.insert(*field)) {
        return Err(DataError::DuplicateField { place: place(), field: field.clone() });
    }
    let [field] = fields else { return Ok(()) };
    match separator.mistaken_for.iter().find(|(mark, _)| field.contains(*mark)) {
        None => Ok(()),
        Some((_, name)) => Err(DataError::WrongSeparator {
            place: place(),
            field: field.clone(),
            separator: name,
            expected: separator.name,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Dataset;
    use super::*;
    use proptest::prelude::*;

    fn rows(text: &str, name: &str) -> Vec<(u64, Vec<String>)> {
        let data = Dataset::from_bytes(text.as_bytes(), Path::new(name)).unwrap();
        let fields: Vec<_> = data.fields().iter().map(|name| data.field(name).unwrap()).collect();
        let cells = |row| fields.iter().map(|&field| data.text(row, field).unwrap().to_owned()).collect();
        (0..data.n()).map(|row| (data.place(row).line, cells(row))).collect()
    }

    fn message(text: &str, name: &str) -> String {
        Dataset::from_bytes(text.as_bytes(), Path::new(name)).unwrap_err().to_string()
    }

    fn row(line: u64, cells: &[&str]) -> (u64, Vec<String>) {
        (line, cells.iter().map(|cell| (*cell).to_owned()).collect())
    }

    #[test]
    fn quotes_newlines_and_blank_lines_keep_the_line_numbers_right() {
        let text = "text, label\n\n\"a, \"\"b\"\"\nc\",x\n\nd 5\" e,\n\"\",y";
        let expected = [row(3, &["a, \"b\"\nc", "x"]), row(6, &["d 5\" e", ""]), row(7, &["", "y"])];
        assert_eq!(rows(text, "d.csv"), expected);
        let crlf = rows(&text.replace('\n', "\r\n"), "d.csv");
        assert_eq!(crlf.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 6, 7]);
        assert_eq!(crlf[0].1[0], "a, \"b\"\r\nc");
        let mac = rows(&text.replace('\n', "\r"), "d.csv");
        assert_eq!(mac[0].1[0], "a, \"b\"\rc");
    }

    #[test]
    fn stray_quotes_are_errors_in_csv() {
        let wanted = "a cell begins with a quotation mark and does not end at the next one";
        for (text, line) in [
            ("label,text\nx,ok\ny,\"open\nz,ok\n", 3),
            ("text,label\n\n\"a\nb\" c,x\n", 3),
            ("text,label\n\"a\"\"b,x\n", 2),
            ("text\r\na\r\n\"", 3),
            ("text\n\"\"\"\n", 2),
            ("\"a\"b\n", 1),
        ] {
            let error = message(text, "d.csv");
            assert!(error.starts_with(&format!("d.csv, line {line}: {wanted}")), "{text:?}: {error}");
        }
    }

    #[test]
    fn stray_quotes_are_text_in_tsv() {
        let cells =
            |text| rows(text, "d.tsv").into_iter().map(|(_, cells)| cells[0].clone()).collect::<Vec<_>>();
        let text = "sentence\tlabel\n\"what\" she said\t0\n\"a \"\"b\"\"\"\t1\n\"no\", \"yes\"\t1\n";
        assert_eq!(cells(text), ["\"what\" she said", "a \"b\"", "\"no\", \"yes\""]);
        assert_eq!(cells("sentence\tlabel\n\" open\t0\nlast \"\t1\n"), ["\" open", "last \""]);
        assert_eq!(cells("sentence\n5\"\n\"open\n"), ["5\"", "\"open"]);
    }

    #[test]
    fn tsv_that_programs_write_is_read_back() {
        // pandas: to_csv(sep="\t", index=False)
        let text = "text\tlabel\n\"say \"\"a\"\"\"\tx\n\"tab\there\"\ty\n\"two\n\nlines\"\tx\nplain\t\n";
        let expected = [
            row(2, &["say \"a\"", "x"]),
            row(3, &["tab\there", "y"]),
            row(4, &["two\n\nlines", "x"]),
            row(7, &["plain", ""]),
        ];
        assert_eq!(rows(text, "d.tsv"), expected);
        let ragged = message(&format!("{text}alone\n"), "d.tsv");
        assert_eq!(ragged, "d.tsv, line 8: 1 cells where there are 2 fields");
    }

    #[test]
    fn ragged_rows_and_headers_are_errors() {
        assert_eq!(message("a,b\n1,2\n3\n", "d.csv"), "d.csv, line 3: 1 cells where there are 2 fields");
        assert_eq!(message("a,b\n1,2,3\n", "d.csv"), "d.csv, line 2: 3 cells where there are 2 fields");
        assert!(message("a, a\n1,2\n", "d.csv").contains("line 1: the field \"a\" is there twice"));
        let semicolons = message("text;label\na;b\n", "d.csv");
        assert!(
            semicolons.contains("a semicolon in it: save the file with commas between cells"),
            "{semicolons}"
        );
        assert!(message("text,label\na,b\n", "d.tsv").contains("with tabs"));
    }

    proptest! {
        #[test]
        fn what_is_written_quoted_is_read_back(cells in proptest::collection::vec("[a\",;\r\né ]{0,6}", 1..20)) {
            for (name, separator) in [("d.csv", ","), ("d.tsv", "\t")] {
                let mut text = format!("a{separator}b\n");
                for cell in &cells {
                    let quoted = format!("\"{}\"", cell.replace('"', "\"\""));
                    text.push_str(&format!("{quoted}{separator}{quoted}\n"));
                }
                let read: Vec<_> = rows(&text, name).into_iter().map(|(_, cells)| cells).collect();
                let expected: Vec<_> = cells.iter().map(|cell| vec![cell.clone(), cell.clone()]).collect();
                prop_assert_eq!(read, expected);
            }
        }
    }
}
