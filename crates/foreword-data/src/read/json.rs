//! JSON: one object per line, an array of objects, or the values of each field together.

mod columns;
mod scan;

use super::super::{About, Cell, DataError, FieldIdx, Row, Unit, listed};
use super::source::Source;
use super::{Table, n_newlines};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::{BTreeSet, HashMap};
use std::fmt;

/// The key of an array of examples in an object.
const DATA: &str = "data";

/// One object per line; skips blank lines. Lines may end with carriage returns alone, as on old Macintoshes. Objects of
/// several lines, as `jq` writes them, and an array are read too.
pub(super) fn parse_lines(text: &str, source: &mut Source<'_>) -> Result<Table, DataError> {
    let mark = source.mark();
    let lines = lines(text, source);
    let Err(error) = lines else { return lines };
    let first = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    let is_other = match first.as_bytes().first() {
        Some(b'[') => true,
        Some(b'{') => matches!(&error, DataError::Json { reason, .. } if reason.starts_with("EOF")),
        _ => false,
    };
    if !is_other {
        return Err(error);
    }
    source.reset(mark);
    if first.starts_with('[') {
        let table = parse_whole(text, source)?;
        source.say(format!("{}: read as one array, not as one object per line", source.name()));
        return Ok(table);
    }
    // Of two errors, that of the form which the ending promises.
    objects(text, source).map_err(|_| error)
}

fn lines(text: &str, source: &mut Source<'_>) -> Result<Table, DataError> {
    let mut table = Builder::default();
    let end = if text.contains('\n') { '\n' } else { '\r' };
    for (line, text) in (1..).zip(text.split(end)) {
        if text.trim().is_empty() {
            continue;
        }
        let added = serde_json::from_str(text)
            .map_err(|error| json_error(&error, text, source, (line, 1)))
            .and_then(|Object| table.add(text, line, source));
        if let Err(error) = added {
            source.skip(line, error)?;
        }
    }
    Ok(table.finish())
}

/// Whether a text that begins with a brace has an object on its first line, and more lines.
pub(super) fn is_lines(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.next().is_some_and(|first| first.ends_with('}')) && lines.next().is_some()
}

/// Objects one after another, whatever is between them.
fn objects(text: &str, source: &mut Source<'_>) -> Result<Table, DataError> {
    let mut cursor = Cursor { text, at: 0, line: 1, source };
    let mut table = Builder::default();
    while cursor.peek().is_some() {
        let (from, line) = (cursor.at, cursor.line);
        let Object = cursor.value()?;
        if let Err(error) = table.add(&text[from..cursor.at], line, cursor.source) {
            cursor.source.skip(line, error)?;
        }
    }
    Ok(table.finish())
}

/// A whole file: an array of examples, alone or in an object; an object with the values of each field; or one object per
/// line, whatever the file's ending says.
pub(super) fn parse_whole(text: &str, source: &mut Source<'_>) -> Result<Table, DataError> {
    let mut cursor = Cursor { text, at: 0, line: 1, source };
    match cursor.peek() {
        None => Ok(Builder::default().finish()),
        Some(b'[') => {
            let table = array(&mut cursor)?;
            if cursor.peek().is_some() { Err(cursor.shape_error()) } else { Ok(table) }
        }
        Some(b'{') => {
            let from = cursor.at;
            let entries = cursor.entries()?;
            if cursor.peek() == Some(b'{') {
                let table = parse_lines(text, source)?;
                source.say(format!("{}: read as one object per line", source.name()));
                return Ok(table);
            }
            if cursor.peek().is_some() {
                return Err(cursor.shape_error());
            }
            object(&text[from..], &entries, &mut cursor)
        }
        Some(_) => Err(cursor.shape_error()),
    }
}

/// The only object of a file.
fn object(text: &str, entries: &[Entry<'_>], cursor: &mut Cursor<'_, '_>) -> Result<Table, DataError> {
    let is_conversation = |entry: &Entry<'_>| super::conversations::NAMES.contains(&entry.key.as_str());
    let is_one = entries.iter().any(is_conversation);
    if let (Some(parts), false) = (splits(entries), is_one) {
        return split(&parts, cursor);
    }
    if let Some(entry) = wrapped(entries).filter(|_| !is_one) {
        (cursor.at, cursor.line) = (entry.at, entry.line);
        if entries.len() > 1 || entry.key != DATA {
            let name = cursor.source.name();
            cursor.source.say(format!("{name}: the examples are the array {:?}", entry.key));
        }
        return array(cursor);
    }
    let columns = if is_one { None } else { columns::parse(entries, cursor.source)? };
    if let Some(table) = columns {
        return Ok(table);
    }
    let is_flat = entries.iter().all(|entry| !entry.text.starts_with(['[', '{']));
    if entries.is_empty() || !is_flat && !is_one {
        return Err(cursor.shape_error());
    }
    let mut table = Builder::default();
    table.add(text, entries[0].line, cursor.source)?;
    Ok(table.finish())
}

/// The entries that are data sets of their own, such as "train" and "test": they have names of splits, or are all arrays of
/// objects.
fn splits<'e, 't>(entries: &'e [Entry<'t>]) -> Option<Vec<&'e Entry<'t>>> {
    let first_in = |entry: &Entry<'_>| entry.text.get(1..).and_then(|rest| rest.trim_start().chars().next());
    let parts: Vec<&Entry<'_>> = entries.iter().filter(|entry| entry.text.starts_with(['[', '{'])).collect();
    let holds_rows = |entry: &&Entry<'_>| {
        entry.text.starts_with('{') || first_in(entry).is_some_and(|first| matches!(first, '{' | '[' | ']'))
    };
    let holds_objects = |entry: &&Entry<'_>| entry.text.starts_with('[') && first_in(entry) == Some('{');
    let are_named = parts.iter().all(|entry| is_split_name(&entry.key)) && parts.iter().all(holds_rows);
    (parts.len() > 1 && (are_named || parts.iter().all(holds_objects))).then_some(parts)
}

/// Whether a name is that of a split, alone or with something before or after it: "oos_train".
fn is_split_name(name: &str) -> bool {
    const SPLITS: [&str; 12] = [
        "train",
        "training",
        "test",
        "testing",
        "dev",
        "development",
        "val",
        "valid",
        "validation",
        "eval",
        "evaluation",
        "holdout",
    ];
    name.to_lowercase().split(['_', '-', '.', ' ']).any(|part| SPLITS.contains(&part))
}

/// The only split that is not empty.
fn split(parts: &[&Entry<'_>], cursor: &mut Cursor<'_, '_>) -> Result<Table, DataError> {
    let is_empty = |entry: &Entry<'_>| entry.text.len() > 1 && entry.text[1..].trim_start().len() == 1;
    let full: Vec<&&Entry<'_>> = parts.iter().filter(|entry| !is_empty(entry)).collect();
    let name = cursor.source.name();
    match full.as_slice() {
        [only] if only.text.starts_with('[') => {
            cursor
                .source
                .say(format!("{name}: the examples are the array {:?}, the others are empty", only.key));
            (cursor.at, cursor.line) = (only.at, only.line);
            array(cursor)
        }
        _ => {
            let first = full.first().copied().or(parts.first()).map(|entry| entry.key.clone());
            Err(DataError::Splits {
                path: cursor.source.path.to_owned(),
                names: listed(parts.iter().map(|entry| &entry.key)),
                first: first.unwrap_or_default(),
            })
        }
    }
}

/// Whether the first line is a text and all others, of those that are looked at, are objects.
pub(super) fn has_text_before_objects(text: &str) -> Option<u64> {
    /// Number of lines that are looked at.
    const LOOKED_AT: usize = 20;
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let (number, first) = lines.next()?;
    let is_object = |line: &str| serde_json::from_str::<Object>(line).is_ok();
    let mut others = lines.take(LOOKED_AT).peekable();
    let is_text = !first.trim_start().starts_with(['{', '[', '"']) && others.peek().is_some();
    (is_text && others.all(|(_, line)| is_object(line))).then_some(number)
}

/// The array that holds the examples: that of the only key "data", or the only one that holds objects.
fn wrapped<'e, 't>(entries: &'e [Entry<'t>]) -> Option<&'e Entry<'t>> {
    if let [only] = entries
        && only.key == DATA
        && only.text.starts_with('[')
    {
        return Some(only);
    }
    let holds_objects = |entry: &&Entry<'_>| {
        entry.text.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with('{'))
    };
    let mut arrays = entries.iter().filter(|entry| entry.text.starts_with('['));
    let first = arrays.next().filter(holds_objects)?;
    arrays.next().is_none().then_some(first)
}

/// An array of examples: objects, lists of values, or texts alone.
fn array(cursor: &mut Cursor<'_, '_>) -> Result<Table, DataError> {
    let mut table = Builder::default();
    cursor.expect(b'[')?;
    if cursor.eat(b']') {
        return Ok(table.finish());
    }
    let form = cursor.peek();
    loop {
        cursor.peek();
        let (from, line) = (cursor.at, cursor.line);
        let added = match form {
            Some(b'[') => {
                let List = cursor.value()?;
                table.add_list(&cursor.text[from..cursor.at], line, cursor.source)
            }
            Some(b'"') => {
                let text: String = cursor.value()?;
                table.add_cells(vec![("text".to_owned(), Cell::Text(text))], line, cursor.source)
            }
            _ => {
                let Object = cursor.value()?;
                table.add(&cursor.text[from..cursor.at], line, cursor.source)
            }
        };
        if let Err(error) = added {
            cursor.source.skip(line, error)?;
        }
        if !cursor.eat(b',') {
            break;
        }
    }
    cursor.expect(b']')?;
    let name = cursor.source.name();
    match form {
        Some(b'[') => {
            cursor.source.say(format!("{name}: an array of arrays; the fields have their numbers as names"));
        }
        Some(b'"') => cursor.source.say(format!("{name}: an array of texts, read as the field \"text\"")),
        _ => {}
    }
    Ok(table.finish())
}

/// A position in a JSON text, between two tokens. serde_json reads the values themselves.
struct Cursor<'a, 's> {
    text: &'a str,
    at: usize,
    line: u64,
    source: &'a mut Source<'s>,
}

/// A key and its value as written, at this position.
struct Entry<'t> {
    key: String,
    text: &'t str,
    at: usize,
    line: u64,
}

impl<'a> Cursor<'a, '_> {
    /// The first byte of the next token.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text[self.at..];
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.advance(blank);
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        if is_there {
            self.advance(1);
        }
        is_there
    }

    fn expect(&mut self, byte: u8) -> Result<(), DataError> {
        if self.eat(byte) { Ok(()) } else { Err(self.shape_error()) }
    }

    fn value<T: DeserializeOwned>(&mut self) -> Result<T, DataError> {
        let mut values = serde_json::Deserializer::from_str(&self.text[self.at..]).into_iter::<T>();
        match values.next() {
            Some(Ok(value)) => {
                self.advance(values.byte_offset());
                Ok(value)
            }
            Some(Err(error)) => {
                let line_start = self.text[..self.at].rfind('\n').map_or(0, |newline| newline + 1);
                let column = 1 + self.at - line_start;
                Err(json_error(&error, &self.text[self.at..], self.source, (self.line, column)))
            }
            None => Err(self.shape_error()),
        }
    }

    /// The keys and values of an object.
    fn entries(&mut self) -> Result<Vec<Entry<'a>>, DataError> {
        let mut entries = Vec::new();
        self.expect(b'{')?;
        if self.eat(b'}') {
            return Ok(entries);
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.shape_error());
            }
            let key = self.value()?;
            self.expect(b':')?;
            self.peek();
            let (at, line) = (self.at, self.line);
            let Valid = self.value()?;
            entries.push(Entry { key, text: &self.text[at..self.at], at, line });
            if !self.eat(b',') {
                break;
            }
        }
        self.expect(b'}')?;
        Ok(entries)
    }

    fn shape_error(&self) -> DataError {
        DataError::JsonShape { location: self.source.location(self.line) }
    }

    fn advance(&mut self, n_bytes: usize) {
        self.line += n_newlines(&self.text.as_bytes()[self.at..self.at + n_bytes]);
        self.at += n_bytes;
    }
}

/// A parser's error at its position in the file; `text`, the input of the parser, begins at this line and column.
fn json_error(
    error: &serde_json::Error,
    text: &str,
    source: &Source<'_>,
    (line, column): (u64, usize),
) -> DataError {
    let whole = error.to_string();
    let mut reason = whole.split(" at line ").next().unwrap_or(&whole).to_owned();
    let lines_on = error.line().saturating_sub(1);
    let wrong = text.split('\n').nth(lines_on).unwrap_or("");
    let not_json = ["NaN", "-Infinity", "Infinity", "None", "True", "False", "nan"];
    // The parser stops at the first wrong letter, in the word or at its beginning.
    let from = |n: usize| wrong.get(error.column().checked_sub(1 + n)?..);
    let is_at = |word: &&&str| (0..word.len()).any(|n| from(n).is_some_and(|rest| rest.starts_with(**word)));
    if let Some(word) = not_json.iter().find(is_at) {
        reason = format!("{word} is not JSON; a missing value is null, and truth values are true and false");
    }
    let column = if lines_on == 0 { column + error.column().saturating_sub(1) } else { error.column() };
    DataError::Json { location: source.location(line + lines_on as u64), column, reason }
}

/// Collects rows from objects with different keys.
#[derive(Default)]
struct Builder {
    fields: Vec<String>,
    idx_of: HashMap<String, FieldIdx>,
    rows: Vec<Row>,
    /// Fields with a whole number without decimals, and fields with one with decimals.
    plain: BTreeSet<FieldIdx>,
    with_decimals: BTreeSet<FieldIdx>,
    unit: Unit,
}

impl Builder {
    /// Adds an object as written, which must be valid.
    fn add(&mut self, text: &str, line: u64, source: &Source<'_>) -> Result<(), DataError> {
        let cells = scan::entries(text).into_iter().map(|(key, value)| (key, cell(value))).collect();
        self.add_cells(cells, line, source)
    }

    /// Adds an array as written, which must be valid; the fields have their numbers as names.
    fn add_list(&mut self, text: &str, line: u64, source: &Source<'_>) -> Result<(), DataError> {
        let cells: Vec<_> = (1..)
            .zip(scan::elements(text))
            .map(|(i, value): (usize, _)| (i.to_string(), cell(value)))
            .collect();
        let (found, expected) = (cells.len(), self.fields.len());
        if !self.rows.is_empty() && found != expected {
            return Err(DataError::Ragged { location: source.location(line), found, expected });
        }
        self.add_cells(cells, line, source)
    }

    fn add_cells(
        &mut self,
        values: Vec<(String, Cell)>,
        line: u64,
        source: &Source<'_>,
    ) -> Result<(), DataError> {
        let mut cells = Vec::with_capacity(values.len());
        for (name, cell) in values {
            let next = FieldIdx(self.fields.len());
            let idx = *self.idx_of.entry(name).or_insert_with_key(|name| {
                self.fields.push(name.clone());
                next
            });
            if let Cell::Number(number) = &cell {
                let is_whole = |text: &str| super::super::labels::is_whole(text);
                match (is_whole(number.literal()), is_whole(cell.text().unwrap_or_default())) {
                    (true, _) => self.plain.insert(idx),
                    (false, true) => self.with_decimals.insert(idx),
                    (false, false) => false,
                };
            }
            cells.push((idx, cell));
        }
        cells.sort_by_key(|(idx, _)| *idx);
        if let Some(twice) = cells.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let field = self.fields.get(twice[0].0.0).cloned().unwrap_or_default();
            return Err(DataError::DuplicateField { location: source.location(line), field });
        }
        self.rows.push(Row::new(line, cells));
        Ok(())
    }

    fn finish(self) -> Table {
        let mixed = self.plain.intersection(&self.with_decimals).copied().collect();
        let about = About { mixed, unit: self.unit, ..About::default() };
        Table { fields: self.fields, rows: self.rows, about }
    }
}

/// A value as written, which must be valid.
pub(super) fn cell(text: &str) -> Cell {
    match text.as_bytes().first() {
        Some(b'"') => Cell::Text(serde_json::from_str(text).unwrap_or_default()),
        Some(b't') => Cell::Bool(true),
        Some(b'f') => Cell::Bool(false),
        Some(b'[') => Cell::nested("an array", Some(&scan::on_one_line(text))),
        Some(b'{') => Cell::nested("an object", Some(&scan::on_one_line(text))),
        Some(b'n') | None => Cell::Null,
        Some(_) => Cell::number(text),
    }
}

/// A valid value.
struct Valid;

/// An example: a valid object.
struct Object;

/// An example: a valid array.
struct List;

impl<'de> Deserialize<'de> for Valid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValidVisitor)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the fields of one example")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                while map.next_entry::<String, Valid>()?.is_some() {}
                Ok(Object)
            }
        }
        deserializer.deserialize_any(ObjectVisitor)
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array with the values of one example")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
                while seq.next_element::<Valid>()?.is_some() {}
                Ok(List)
            }
        }
        deserializer.deserialize_any(ListVisitor)
    }
}

/// Accepts any value.
struct ValidVisitor;

impl<'de> Visitor<'de> for ValidVisitor {
    type Value = Valid;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, _: &str) -> Result<Valid, E> {
        Ok(Valid)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Valid, E> {
        Ok(Valid)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Valid, E> {
        Ok(Valid)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Valid, E> {
        Ok(Valid)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Valid, E> {
        Ok(Valid)
    }

    fn visit_unit<E>(self) -> Result<Valid, E> {
        Ok(Valid)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Valid, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Valid)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Valid, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Valid)
    }
}

#[cfg(test)]
mod tests;
