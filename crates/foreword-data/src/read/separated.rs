//! CSV and TSV: the output of the csv crate, checked against the text, with the line of every error. The crate alone
//! accepts an unclosed quote and text after a closing quote, so that one stray quotation mark can silently swallow rows.

use super::super::fields::is_common_name;
use super::super::{Cell, DataError, Delimiter, Row};
use super::source::Source;
use super::{Table, n_newlines};
use std::collections::HashSet;

/// Number of words that make a cell a text and not the name of a field.
const WORDS_OF_TEXT: usize = 4;
/// Maximum number of rows that are compared with the first one.
const MOST_COMPARED: usize = 1000;

/// A row as read, with its first line.
struct Record {
    line: u64,
    cells: Vec<String>,
}

/// How the cells of a file are written.
#[derive(Clone, Copy)]
struct Dialect {
    delimiter: Delimiter,
    /// Whether a cell that begins with a quotation mark is quoted.
    quoting: bool,
}

/// A text with the line of its beginning.
#[derive(Clone, Copy)]
struct Part<'a> {
    text: &'a str,
    line: u64,
}

/// A file whose cells its ending says to be separated by `usual`. The delimiter is the one that the user names; that of a
/// first line as `sep=;`, which Excel reads; or the one that gives rows of the same number of cells.
pub(super) fn parse(text: &str, usual: Delimiter, source: &mut Source<'_>) -> Result<Table, DataError> {
    let (stated, part) = sep_line(text);
    if let Some(delimiter) = source.options.delimiter {
        return parse_by(part, delimiter, source);
    }
    if let Some(delimiter) = stated {
        source.say(format!(
            "{}: cells are separated by {}, as its first line says",
            source.name(),
            delimiter.many()
        ));
        return parse_by(part, delimiter, source);
    }
    detect(part, usual, source)
}

/// A text file as cells, if it evidently has them: all rows have the same number of cells, and the first row has common
/// names of fields or is an example like the others.
pub(super) fn parse_evident(
    text: &str,
    delimiter: Delimiter,
    source: &mut Source<'_>,
) -> Result<Option<Table>, DataError> {
    let n_skipped = source.n_skipped();
    let table = parse_by(Part { text, line: 1 }, delimiter, source)?;
    let is_named = |field: &String| is_common_name(field);
    let has_numbers = table.fields.first().is_some_and(|first| first == "1");
    let is_evident = table.fields.len() > 1 && !table.rows.is_empty() && source.n_skipped() == n_skipped;
    Ok(Some(table).filter(|table| is_evident && (has_numbers || table.fields.iter().any(is_named))))
}

/// The delimiter in a first line as `sep=;`, and the text after it.
fn sep_line(text: &str) -> (Option<Delimiter>, Part<'_>) {
    let whole = Part { text, line: 1 };
    let end = text.find(['\n', '\r']).unwrap_or(text.len());
    let first = text[..end].trim_end_matches([' ', ',', ';']).trim_matches('"');
    let is_sep = first.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("sep="));
    // A comma or semicolon at the end may be the delimiter itself.
    let mark = text[..end].trim_start_matches('"').get(4..).and_then(|rest| rest.chars().next());
    let delimiter = mark.and_then(|mark| mark.to_string().parse::<Delimiter>().ok());
    match delimiter.filter(|_| is_sep && first.len() <= 5) {
        Some(delimiter) => {
            let rest = &text[end..];
            let rest = rest.strip_prefix("\r\n").or_else(|| rest.get(1..)).unwrap_or("");
            (Some(delimiter), Part { text: rest, line: 2 })
        }
        None => (None, whole),
    }
}

/// Reads with the usual delimiter, or with another one if only that gives several cells in every row.
fn detect(part: Part<'_>, usual: Delimiter, source: &mut Source<'_>) -> Result<Table, DataError> {
    let mark = source.mark();
    let own = parse_by(part, usual, source);
    let n_own = source.n_skipped() - mark.1;
    let has_other =
        |field: &str| Delimiter::COMMON.iter().any(|other| *other != usual && field.contains(other.mark()));
    let fits = match &own {
        Ok(table) => match table.fields.as_slice() {
            [only] => !has_other(only),
            _ => n_own == 0,
        },
        Err(_) => false,
    };
    if fits {
        return own;
    }
    let is_own = own.is_ok_and(|table| table.fields.len() > 1);
    let best = best_other(part, usual, source).filter(|(n_skipped, _)| !is_own || *n_skipped < n_own);
    source.reset(mark);
    if let Some((_, delimiter)) = best {
        source.say(format!(
            "{}: cells are separated by {}, not {}",
            source.name(),
            delimiter.many(),
            usual.many()
        ));
        return parse_by(part, delimiter, source);
    }
    if let Some(delimiter) = likely(part, usual, source) {
        // What is wrong in a few rows is said of these, and not of the delimiter.
        return parse_by(part, delimiter, source);
    }
    let own = parse_by(part, usual, source)?;
    if let [field] = own.fields.as_slice() {
        check_only_field(field, usual, part.line, source)?;
    }
    Ok(own)
}

/// The only other delimiter that gives several cells in every row, or fewest other rows, and the number of those.
fn best_other(part: Part<'_>, usual: Delimiter, source: &mut Source<'_>) -> Option<(usize, Delimiter)> {
    let mark = source.mark();
    let mut fits: Vec<(usize, Delimiter)> = Vec::new();
    for delimiter in Delimiter::COMMON.into_iter().filter(|delimiter| *delimiter != usual) {
        source.reset(mark);
        if parse_by(part, delimiter, source)
            .is_ok_and(|table| table.fields.len() > 1 && !table.rows.is_empty())
        {
            fits.push((source.n_skipped() - mark.1, delimiter));
        }
    }
    let best = *fits.iter().min_by_key(|(n_skipped, _)| *n_skipped)?;
    (fits.iter().filter(|(n_skipped, _)| *n_skipped == best.0).count() == 1).then_some(best)
}

/// The only delimiter that gives the first line several cells, where the usual one gives it one, and as many cells to nearly
/// all other rows.
fn likely(part: Part<'_>, usual: Delimiter, source: &Source<'_>) -> Option<Delimiter> {
    let counts = |delimiter: Delimiter| -> Option<Vec<usize>> {
        let mut found = Vec::new();
        let dialect = Dialect { delimiter, quoting: true };
        let stray = read_records(part, dialect, &mut found, source).ok()?;
        (stray.is_none() && found.len() > 1).then(|| found.iter().map(|record| record.cells.len()).collect())
    };
    let is_likely = |delimiter: &Delimiter| {
        counts(*delimiter).is_some_and(|counts| {
            let n_alike = counts.iter().filter(|&&n| n == counts[0]).count();
            counts[0] > 1 && counts.len() - n_alike <= (counts.len() / 10).max(1) && n_alike > 1
        })
    };
    let is_one_cell = counts(usual).is_none_or(|counts| counts[0] == 1);
    let mut all = Delimiter::COMMON.into_iter().filter(|other| *other != usual).filter(is_likely);
    all.next().filter(|_| is_one_cell && all.next().is_none())
}

/// Refuses a header of one field that seems to be several.
fn check_only_field(field: &str, usual: Delimiter, line: u64, source: &Source<'_>) -> Result<(), DataError> {
    let other = Delimiter::COMMON.into_iter().find(|other| *other != usual && field.contains(other.mark()));
    let Some(other) = other else { return Ok(()) };
    Err(DataError::WrongSeparator {
        location: source.location(line),
        field: field.into(),
        separator: other.one().into(),
        expected: usual.many().into(),
    })
}

/// Tab-separated files have two dialects. Programs quote cells with quotation marks, tabs or newlines, as in CSV; in files
/// made by hand, and in many published data sets, a quotation mark is an ordinary character. A file is read as the first
/// kind if all of it is valid and no cell looks like the end of one row and the beginning of the next. Otherwise a line is
/// a row, and only quotation marks around a whole cell are removed.
fn parse_by(part: Part<'_>, delimiter: Delimiter, source: &mut Source<'_>) -> Result<Table, DataError> {
    let quoted = Dialect { delimiter, quoting: true };
    if delimiter != Delimiter::TAB {
        return parse_in(part, quoted, source);
    }
    let mark = source.mark();
    let first = parse_in(part, quoted, source);
    let n_first = source.n_skipped() - mark.1;
    if n_first == 0 && first.as_ref().is_ok_and(|table| !table.rows.iter().any(spans_rows)) {
        return first;
    }
    source.reset(mark);
    let literal = parse_in(part, Dialect { quoting: false, ..quoted }, source);
    match (first, literal) {
        (Err(error @ DataError::Ragged { .. }), Err(_)) => Err(error),
        (Ok(_), literal) if literal.is_err() || n_first > 0 && source.n_skipped() - mark.1 > n_first => {
            source.reset(mark);
            parse_in(part, quoted, source)
        }
        (_, literal) => literal,
    }
}

/// The field names, in a header or by number, then rows.
fn parse_in(part: Part<'_>, dialect: Dialect, source: &mut Source<'_>) -> Result<Table, DataError> {
    let mut records = records(part, dialect, source)?;
    if records.is_empty() {
        return Ok(Table::new(Vec::new(), Vec::new()));
    }
    let is_bare = source.options.no_header.unwrap_or_else(|| lacks_header(&records, source));
    let fields = if is_bare {
        (1..=records[0].cells.len()).map(|number| number.to_string()).collect()
    } else {
        let header = records.remove(0);
        header_fields(&header, source)?
    };
    let mut rows = Vec::with_capacity(records.len());
    for Record { line, cells } in records {
        if cells.len() == fields.len() {
            rows.push(Row::of_texts(line, cells));
        } else {
            let (found, expected) = (cells.len(), fields.len());
            source.skip(line, DataError::Ragged { location: source.location(line), found, expected })?;
        }
    }
    Ok(Table::new(fields, rows))
}

/// All rows. Skips blank lines.
fn records(part: Part<'_>, dialect: Dialect, source: &mut Source<'_>) -> Result<Vec<Record>, DataError> {
    let mut records = Vec::new();
    let mut left = part;
    while let Some(stray) = read_records(left, dialect, &mut records, source)? {
        // Its line is left out, not everything up to the next quotation mark.
        let end = stray.text.find('\n').or_else(|| stray.text.find('\r'));
        left = Part { text: end.map_or("", |end| &stray.text[end + 1..]), line: stray.line + 1 };
        source.skip(stray.line, DataError::StrayQuote { location: source.location(stray.line) })?;
    }
    Ok(records)
}

/// Reads rows up to one with a stray quotation mark, which is returned.
fn read_records<'a>(
    part: Part<'a>,
    dialect: Dialect,
    records: &mut Vec<Record>,
    source: &Source<'_>,
) -> Result<Option<Part<'a>>, DataError> {
    let Part { text, line: first_line } = part;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(dialect.delimiter.0)
        .quoting(dialect.quoting)
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut record = csv::StringRecord::new();
    let io = |error: csv::Error| DataError::Io { path: source.path.to_owned(), source: error.into() };
    while reader.read_record(&mut record).map_err(io)? {
        // A record's position is before the blank lines in front of it.
        let (line, from) = record.position().map_or((1, 0), |at| (at.line(), at.byte() as usize));
        let raw = &text[from..reader.position().byte() as usize];
        let written = raw.trim_start_matches(['\r', '\n']);
        let blank = raw.len() - written.len();
        let line = first_line - 1 + line + n_newlines(&raw.as_bytes()[..blank]);
        if dialect.quoting && !is_strict(written, &record, dialect.delimiter.mark()) {
            return Ok(Some(Part { text: &text[from + blank..], line }));
        }
        let cells = record.iter().map(|cell| if dialect.quoting { cell.to_owned() } else { unquoted(cell) });
        records.push(Record { line, cells: cells.collect() });
    }
    Ok(None)
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

/// The names in a header; a column without a name has its number.
fn header_fields(header: &Record, source: &mut Source<'_>) -> Result<Vec<String>, DataError> {
    let names = header.cells.iter().map(|name| name.trim());
    let unnamed: Vec<String> = (1..)
        .zip(names.clone())
        .filter(|(_, name)| name.is_empty())
        .map(|(number, _): (usize, _)| number.to_string())
        .collect();
    let fields: Vec<String> = (1_usize..)
        .zip(names)
        .map(|(number, name)| if name.is_empty() { number.to_string() } else { name.to_owned() })
        .collect();
    let mut seen = HashSet::new();
    if let Some(field) = fields.iter().find(|field| !seen.insert(*field)) {
        return Err(DataError::DuplicateField {
            location: source.location(header.line),
            field: field.clone(),
        });
    }
    if !unnamed.is_empty() {
        let (columns, have, names) = if unnamed.len() == 1 {
            ("column", "has", "its number is its name")
        } else {
            ("columns", "have", "their numbers are their names")
        };
        source.say(format!(
            "{}: the {columns} {} {have} no name; {names}",
            source.name(),
            unnamed.join(", ")
        ));
    }
    Ok(fields)
}

/// Whether a cell has several words, unlike the name of a field.
pub(super) fn is_text(cell: &str) -> bool {
    cell.split_whitespace().take(WORDS_OF_TEXT).count() == WORDS_OF_TEXT
}

/// Whether it is evident that the first row is an example: it has a text and no common name of a field; and a number where
/// all rows have one, or a word that many rows repeat in its place, such as a label.
fn lacks_header(records: &[Record], source: &mut Source<'_>) -> bool {
    let [first, rest @ ..] = records else { return false };
    let rest = &rest[..rest.len().min(MOST_COMPARED)];
    if first.cells.iter().any(|cell| is_common_name(cell.trim()))
        || !first.cells.iter().any(|cell| is_text(cell))
    {
        return false;
    }
    let is_number = |cell: &str| cell.parse::<f64>().is_ok_and(f64::is_finite);
    let is_like_rest = |(column, cell): (usize, &String)| {
        let cell = cell.trim();
        let others = rest.iter().filter_map(|record| Some(record.cells.get(column)?.trim()));
        let others: Vec<&str> = others.filter(|other| !other.is_empty()).collect();
        if is_number(cell) {
            return !others.is_empty() && others.iter().all(|other| is_number(other));
        }
        let n_repeated = others.iter().filter(|other| **other == cell).count();
        let n_distinct = others.iter().collect::<HashSet<_>>().len();
        !cell.is_empty() && !is_text(cell) && n_repeated >= 2 && 2 * n_distinct <= others.len()
    };
    let found = first.cells.iter().enumerate().find(|(column, cell)| is_like_rest((*column, cell)));
    if let Some((column, cell)) = found {
        source.say(format!(
            "{}: the first line is read as an example, not as the names of the fields, for its cell {} is {:?}; the fields \
             have their numbers as names (--no-header=false: the line has the names)",
            source.name(),
            column + 1,
            cell.trim()
        ));
    }
    found.is_some()
}

#[cfg(test)]
mod tests {
    use crate::{Dataset, ReadOptions};
    use proptest::prelude::*;
    use std::path::Path;

    fn rows(text: &str, name: &str) -> Vec<(u64, Vec<String>)> {
        let data = Dataset::from_bytes(text.as_bytes(), Path::new(name)).unwrap();
        let fields: Vec<_> = data.fields().iter().map(|name| data.field(name).unwrap()).collect();
        let cells = |row| fields.iter().map(|&field| data.text(row, field).unwrap().to_owned()).collect();
        (0..data.n()).map(|row| (data.location(row).line, cells(row))).collect()
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
        assert_eq!(ragged, "d.tsv, line 8: 1 cell, but there are 2 fields");
    }

    #[test]
    fn a_row_that_is_wrong_is_not_laid_to_the_delimiter() {
        let rows = "1.3.2025;good, very good\n2.3.2025;bad\n";
        let message =
            |text: &str| Dataset::from_bytes(text.as_bytes(), Path::new("d.csv")).unwrap_err().to_string();
        for (bad, said) in
            [("3.1.2025\n", "1 cell, but there are 2 fields"), ("a;b;c\n", "3 cells, but there are 2 fields")]
        {
            let text = format!("Datum;Text\n{rows}{bad}{rows}");
            assert_eq!(message(&text), format!("d.csv, line 4: {said}"));
        }
        assert!(message("Nr;Nr;Text\n1;2;a\n3;4;b\n").contains("occurs twice"));
    }

    #[test]
    fn ragged_rows_and_headers_are_errors() {
        assert_eq!(message("a,b\n1,2\n3\n", "d.csv"), "d.csv, line 3: 1 cell, but there are 2 fields");
        assert_eq!(message("a,b\n1,2,3\n", "d.csv"), "d.csv, line 2: 3 cells, but there are 2 fields");
        assert!(message("a, a\n1,2\n", "d.csv").contains("line 1: the field \"a\" occurs twice"));
        assert_eq!(message("text;label\na;b\nc\n", "d.csv"), "d.csv, line 3: 1 cell, but there are 2 fields");
        assert_eq!(
            message("text;label\na\nb\nc\n", "d.csv"),
            "d.csv, line 1: only one field, \"text;label\", and a semicolon in it: name the \
                    character between cells with --delimiter, or save the file with commas between them"
        );
    }

    fn read_with(text: &str, name: &str, options: &ReadOptions) -> (Vec<String>, usize) {
        let data = Dataset::from_bytes_with(text.as_bytes(), Path::new(name), options).unwrap();
        (data.fields().to_vec(), data.n())
    }

    #[test]
    fn the_usual_delimiter_stays_if_it_fits() {
        let none = ReadOptions::default();
        for (text, fields) in [
            ("text,label\na;b,x\nc;d,y\n", vec!["text", "label"]),
            ("text\na;b\nc;d\n", vec!["text"]),
            ("text;label\n\"a,b\";x\n", vec!["text", "label"]),
            ("sep,label\na,b\n", vec!["sep", "label"]),
            ("sep=long,label\na,b\n", vec!["sep=long", "label"]),
        ] {
            assert_eq!(read_with(text, "d.csv", &none).0, fields, "{text:?}");
        }
        // Two others that fit: none is evident.
        assert!(message("a;b|c\n1;2|3\n", "d.csv").contains("--delimiter"));
    }

    #[test]
    fn the_user_has_the_last_word_on_delimiter_and_header() {
        let semicolon = ReadOptions { delimiter: ";".parse().ok(), ..ReadOptions::default() };
        assert_eq!(
            read_with("sep=,\na;b,c\n1;2,3\n", "d.csv", &semicolon),
            (vec!["a".to_owned(), "b,c".to_owned()], 1)
        );
        let bare = |no_header| ReadOptions { no_header, ..ReadOptions::default() };
        let example = "spam,win a prize right now\nham,see you at nine then\nspam,a free entry for you\nham,come home soon please\nspam,call this number now\n";
        let names = |no_header| read_with(example, "d.csv", &bare(no_header));
        assert_eq!(names(None), (vec!["1".to_owned(), "2".to_owned()], 5));
        assert_eq!(names(Some(true)), names(None));
        assert_eq!(names(Some(false)), (vec!["spam".to_owned(), "win a prize right now".to_owned()], 4));
    }

    #[test]
    fn a_header_is_not_taken_for_an_example() {
        for header in [
            "label,what the customer wrote to us",
            "0,1",
            "country,2019",
            "class of the text,the text of the message",
        ] {
            let text = format!(
                "{header}\n1,a first longer text here\n1,a second longer text here\n2,and a third one here\n"
            );
            let fields: Vec<&str> = header.split(',').collect();
            assert_eq!(
                read_with(&text, "d.csv", &ReadOptions::default()),
                (fields.iter().map(|&field| field.to_owned()).collect(), 3),
                "{header}"
            );
        }
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
