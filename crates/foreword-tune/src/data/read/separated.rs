//! CSV and TSV, read strictly. The csv crate takes a quote that never closes and text after a closing quote as they come,
//! and one stray mark then swallows rows without a word; here both are errors with their line.

use super::super::{DataError, Row};
use super::{Table, place};
use std::collections::HashSet;
use std::path::Path;

/// What stands between two cells, and what a quotation mark means.
pub(super) struct Separator {
    byte: u8,
    name: &'static str,
    /// Whether a cell that begins with a quotation mark must be a quoted one (CSV). Many TSV files have bare quotation
    /// marks in their texts: there it is a quoted one, as spreadsheets write them, only where the marks enclose all of
    /// it and what they enclose is not the end of one row and the beginning of the next.
    is_strict: bool,
    /// What a header that looks like one field may have been separated by instead.
    mistaken_for: &'static [(char, &'static str)],
}

/// `.csv`
pub(super) const COMMA: Separator = Separator {
    byte: b',',
    name: "commas",
    is_strict: true,
    mistaken_for: &[(';', "semicolon"), ('\t', "tab")],
};

/// `.tsv`
pub(super) const TAB: Separator = Separator {
    byte: b'\t',
    name: "tabs",
    is_strict: false,
    mistaken_for: &[(',', "comma"), (';', "semicolon")],
};

/// A header with the names of the fields, then rows. Blank lines are passed over.
pub(super) fn parse(text: &str, separator: Separator, path: &Path) -> Result<Table, DataError> {
    let mut reader = Reader { text, at: 0, line: 1, separator, path };
    let Some((line, header)) = reader.row()? else { return Ok((Vec::new(), Vec::new())) };
    let fields: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    check_header(&fields, &reader.separator, line, path)?;
    let mut rows = Vec::new();
    while let Some((line, cells)) = reader.row()? {
        if cells.len() != fields.len() {
            let (found, expected) = (cells.len(), fields.len());
            return Err(DataError::Ragged { place: place(path, line), found, expected });
        }
        rows.push(Row::of_texts(line, cells));
    }
    Ok((fields, rows))
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

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: u64,
    separator: Separator,
    path: &'a Path,
}

/// A quoted cell: its value and the byte after its closing mark.
struct Quoted {
    value: String,
    end: usize,
}

impl Reader<'_> {
    /// The next row that is not blank, with the line it begins on.
    fn row(&mut self) -> Result<Option<(u64, Vec<String>)>, DataError> {
        while self.end_of_line() {}
        if self.at >= self.text.len() {
            return Ok(None);
        }
        let line = self.line;
        let mut cells = Vec::new();
        loop {
            cells.push(self.cell()?);
            if self.byte(self.at) != Some(self.separator.byte) {
                self.end_of_line();
                return Ok(Some((line, cells)));
            }
            self.at += 1;
        }
    }

    /// One cell; afterwards the reader stands at a separator, at the end of a line or at the end.
    fn cell(&mut self) -> Result<String, DataError> {
        if self.byte(self.at) == Some(b'"') {
            match self.quoted() {
                Ok(Quoted { value, end }) if self.separator.is_strict || !self.spans_rows(&value) => {
                    self.line += n_line_ends(&self.text[self.at..end]);
                    self.at = end;
                    return Ok(value);
                }
                Err(error) if self.separator.is_strict => return Err(error),
                _ => {}
            }
        }
        let rest = &self.text[self.at..];
        let length = rest.bytes().position(|byte| self.ends_cell(byte)).unwrap_or(rest.len());
        self.at += length;
        Ok(rest[..length].to_owned())
    }

    /// Whether a value has both a separator and the end of a line in it.
    fn spans_rows(&self, value: &str) -> bool {
        value.contains(char::from(self.separator.byte)) && value.contains(['\n', '\r'])
    }

    /// The quoted cell that begins here, two marks inside it standing for one.
    fn quoted(&self) -> Result<Quoted, DataError> {
        let mut value = String::new();
        let mut from = self.at + 1;
        loop {
            let Some(length) = self.text[from..].find('"') else {
                return Err(DataError::UnclosedQuote { place: place(self.path, self.line) });
            };
            let end = from + length + 1;
            value.push_str(&self.text[from..end - 1]);
            match self.byte(end) {
                Some(b'"') => value.push('"'),
                Some(byte) if !self.ends_cell(byte) => {
                    let line = self.line + n_line_ends(&self.text[self.at..end]);
                    return Err(DataError::TextAfterQuote { place: place(self.path, line) });
                }
                _ => return Ok(Quoted { value, end }),
            }
            from = end + 1;
        }
    }

    /// Passes over "\n", "\r\n" or a "\r" alone.
    fn end_of_line(&mut self) -> bool {
        let length = match (self.byte(self.at), self.byte(self.at + 1)) {
            (Some(b'\r'), Some(b'\n')) => 2,
            (Some(b'\r' | b'\n'), _) => 1,
            _ => return false,
        };
        self.at += length;
        self.line += 1;
        true
    }

    fn ends_cell(&self, byte: u8) -> bool {
        byte == self.separator.byte || byte == b'\n' || byte == b'\r'
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }
}

fn n_line_ends(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let is_end = |at: usize| match bytes[at] {
        b'\n' => true,
        b'\r' => bytes.get(at + 1) != Some(&b'\n'),
        _ => false,
    };
    (0..bytes.len()).filter(|&at| is_end(at)).count() as u64
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
        assert_eq!(mac.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 6, 7]);
    }

    #[test]
    fn stray_quotes_are_errors_in_csv() {
        let unclosed = message("label,text\nx,ok\ny,\"open\nz,ok\n", "d.csv");
        assert!(unclosed.starts_with("d.csv, line 3: a cell begins with a quotation mark and never ends"));
        let after = message("text,label\n\"a\nb\" c,x\n", "d.csv");
        assert!(after.starts_with("d.csv, line 3: text after the closing quotation mark"), "{after}");
    }

    #[test]
    fn stray_quotes_are_text_in_tsv() {
        let text = "sentence\tlabel\n\"what\" she said\t0\n\"a\tb\"\t1\n\" open\t0\nlast \"\t1\n";
        let cells: Vec<_> = rows(text, "d.tsv").into_iter().map(|(_, cells)| cells[0].clone()).collect();
        assert_eq!(cells, ["\"what\" she said", "a\tb", "\" open", "last \""]);
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
