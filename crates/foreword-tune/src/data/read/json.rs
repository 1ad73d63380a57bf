//! JSON: one object per line, or an array of objects.

use super::super::{Cell, DataError, FieldIdx, Row};
use super::{Table, n_newlines, place};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

/// One object per line; blank lines are passed over.
pub(super) fn parse_lines(text: &str, path: &Path) -> Result<Table, DataError> {
    let mut table = Builder::default();
    for (line, text) in (1..).zip(text.split('\n')) {
        if text.trim().is_empty() {
            continue;
        }
        let object: Object = serde_json::from_str(text).map_err(|error| json_error(&error, path, line, 1))?;
        table.add(object, line, path)?;
    }
    Ok(table.finish())
}

/// An array of objects, alone or as the value of an object's only key "data".
pub(super) fn parse_array(text: &str, path: &Path) -> Result<Table, DataError> {
    let mut cursor = Cursor { text, at: 0, line: 1, path };
    let mut table = Builder::default();
    if cursor.peek().is_none() {
        return Ok(table.finish());
    }
    let is_wrapped = cursor.eat(b'{');
    if is_wrapped {
        // A file of one object per line also begins with a brace: whatever this is, say what is wanted.
        let key: Option<String> = if cursor.peek() == Some(b'"') { cursor.value().ok() } else { None };
        if key.as_deref() != Some("data") || !cursor.eat(b':') {
            return Err(cursor.shape_error());
        }
    }
    cursor.expect(b'[')?;
    if !cursor.eat(b']') {
        loop {
            cursor.peek();
            let line = cursor.line;
            table.add(cursor.value()?, line, path)?;
            if !cursor.eat(b',') {
                break;
            }
        }
        cursor.expect(b']')?;
    }
    if is_wrapped {
        cursor.expect(b'}')?;
    }
    if cursor.peek().is_some() { Err(cursor.shape_error()) } else { Ok(table.finish()) }
}

/// A place in a JSON text, between two of its tokens. The values themselves are serde_json's.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
    line: u64,
    path: &'a Path,
}

impl Cursor<'_> {
    /// The byte that the next token begins with.
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
                Err(json_error(&error, self.path, self.line, 1 + self.at - line_start))
            }
            None => Err(self.shape_error()),
        }
    }

    fn shape_error(&self) -> DataError {
        DataError::JsonShape { place: place(self.path, self.line) }
    }

    fn advance(&mut self, n_bytes: usize) {
        self.line += n_newlines(&self.text.as_bytes()[self.at..self.at + n_bytes]);
        self.at += n_bytes;
    }
}

/// A reader's error at its place in the file; the text that was read began at this line and column.
fn json_error(error: &serde_json::Error, path: &Path, line: u64, column: usize) -> DataError {
    let whole = error.to_string();
    let reason = whole.split(" at line ").next().unwrap_or(&whole).to_owned();
    let lines_on = error.line().saturating_sub(1);
    let column = if lines_on == 0 { column + error.column().saturating_sub(1) } else { error.column() };
    DataError::Json { place: place(path, line + lines_on as u64), column, reason }
}

/// Collects rows whose objects may have different keys.
#[derive(Default)]
struct Builder {
    fields: Vec<String>,
    idx_of: HashMap<String, FieldIdx>,
    rows: Vec<Row>,
}

impl Builder {
    fn add(&mut self, object: Object, line: u64, path: &Path) -> Result<(), DataError> {
        let mut cells = Vec::with_capacity(object.0.len());
        for (name, cell) in object.0 {
            let next = FieldIdx(self.fields.len());
            let idx = *self.idx_of.entry(name).or_insert_with_key(|name| {
                self.fields.push(name.clone());
                next
            });
            cells.push((idx, cell));
        }
        cells.sort_by_key(|(idx, _)| *idx);
        if let Some(twice) = cells.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let field = self.fields.get(twice[0].0.0).cloned().unwrap_or_default();
            return Err(DataError::DuplicateField { place: place(path, line), field });
        }
        self.rows.push(Row { line, cells });
        Ok(())
    }

    fn finish(self) -> Table {
        (self.fields, self.rows)
    }
}

/// One example as it stands in the file, keys that are there twice included.
struct Object(Vec<(String, Cell)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the fields of one example")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut cells = Vec::new();
                while let Some(cell) = map.next_entry()? {
                    cells.push(cell);
                }
                Ok(Object(cells))
            }
        }
        deserializer.deserialize_any(ObjectVisitor)
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, value: &str) -> Result<Cell, E> {
        Ok(Cell::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Cell, E> {
        Ok(Cell::Text(value))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Cell, E> {
        Ok(Cell::Text(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
        Ok(Cell::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        Ok(Cell::Text(serde_json::Value::from(value).to_string()))
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cell, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Cell::Nested("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Nested("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Dataset;
    use super::*;

    fn data(text: &str, name: &str) -> Dataset {
        Dataset::from_bytes(text.as_bytes(), Path::new(name)).unwrap()
    }

    fn message(text: &str, name: &str) -> String {
        Dataset::from_bytes(text.as_bytes(), Path::new(name)).unwrap_err().to_string()
    }

    #[test]
    fn lines_keep_their_numbers_over_blanks_and_crlf() {
        let data = data("\u{feff}{\"text\":\"a\"}\r\n\r\n{\"text\":\"b\\n\"}\n", "d.jsonl");
        let text = data.require("text").unwrap();
        assert_eq!((data.n(), data.place(1).line, data.text(1, text).unwrap()), (2, 3, "b\n"));
    }

    #[test]
    fn numbers_and_booleans_become_their_text() {
        let data = data(r#"{"a":1,"b":-2,"c":0.5,"d":true,"e":18446744073709551615,"f":1.0}"#, "d.jsonl");
        let texts: Vec<_> =
            data.fields().iter().map(|f| data.text(0, data.field(f).unwrap()).unwrap()).collect();
        assert_eq!(texts, ["1", "-2", "0.5", "true", "18446744073709551615", "1.0"]);
    }

    #[test]
    fn only_a_field_that_is_used_must_have_a_value() {
        let data = data("{\"text\":\"a\",\"x\":[1,{}]}\n{\"text\":null,\"x\":{}}\n{\"y\":1}\n", "d.jsonl");
        let field = |name| data.require(name).unwrap();
        assert_eq!(data.text(0, field("text")).unwrap(), "a");
        let error = |row, name| data.text(row, field(name)).unwrap_err().to_string();
        let missing =
            "d.jsonl, line 2: missing value in the field \"text\", give it one or take the example out";
        assert_eq!(error(1, "text"), missing);
        assert!(error(0, "x").starts_with("d.jsonl, line 1: the field \"x\" holds an array"));
        assert!(error(1, "x").contains("holds an object"));
        assert_eq!(
            error(2, "text"),
            "d.jsonl, line 3: no field \"text\", the fields of this example are: \"y\""
        );
        assert!(data.text(3, field("y")).is_err());
    }

    #[test]
    fn broken_lines_are_named_by_line_and_column() {
        let text = "{\"text\":\"a\"}\n{\"text\":}\n";
        assert_eq!(message(text, "d.jsonl"), "d.jsonl, line 2, column 9: expected value");
        assert!(message("[1]", "d.jsonl").contains("expected an object with the fields of one example"));
        assert!(
            message("{\"a\":1,\"b\":2,\"a\":3}", "d.jsonl")
                .contains("line 1: the field \"a\" is there twice")
        );
        assert!(message("{\"text\":\"\\ud800\"}", "d.jsonl").starts_with("d.jsonl, line 1, column"));
        assert!(
            message(&format!("{{\"a\":{}}}", "[".repeat(1 << 16)), "d.jsonl").starts_with("d.jsonl, line 1")
        );
    }

    #[test]
    fn an_array_may_stand_alone_or_under_data() {
        let array = "[\n {\"text\": \"a\",\n  \"n\": 1},\n\n {\"text\": \"b\"}\n]\n";
        for text in [array.to_owned(), format!("{{\"data\" : {array}}}")] {
            let data = data(&text, "d.json");
            assert_eq!((data.n(), data.place(0).line, data.place(1).line), (2, 2, 5));
        }
        for wrong in ["{\"rows\":[]}", "{\"data\":[],\"x\":1}", "{\"data\":{}}", "\"a\"", "[] []", "{", "[{}"]
        {
            let error = message(wrong, "d.json");
            assert!(
                error.contains("expected an array of objects") && error.contains(".jsonl"),
                "{wrong}: {error}"
            );
        }
        assert!(
            message("[{\"a\":1},\n  {\"a\":oops}]", "d.json")
                .starts_with("d.json, line 2, column 8: expected")
        );
        assert!(message("[1]", "d.json").contains("invalid type"));
        assert!(message("[{\"a\":1},]", "d.json").starts_with("d.json, line 1"));
    }
}
