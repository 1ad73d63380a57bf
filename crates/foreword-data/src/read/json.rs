//! JSON: one object per line, or an array of objects.

use super::super::{About, Cell, DataError, FieldIdx, Row, number};
use super::{Table, n_newlines, place};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::Path;

/// One object per line; skips blank lines. Lines may end with carriage returns alone, as on old Macintoshes.
pub(super) fn parse_lines(text: &str, path: &Path) -> Result<Table, DataError> {
    let mut table = Builder::default();
    let end = if text.contains('\n') { '\n' } else { '\r' };
    for (line, text) in (1..).zip(text.split(end)) {
        if text.trim().is_empty() {
            continue;
        }
        let object: Object =
            serde_json::from_str(text).map_err(|error| json_error(&error, text, path, (line, 1)))?;
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
        // A file with one object per line also begins with a brace; the error states the expected format.
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

/// A position in a JSON text, between two tokens. serde_json reads the values themselves.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
    line: u64,
    path: &'a Path,
}

impl Cursor<'_> {
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
                Err(json_error(&error, &self.text[self.at..], self.path, (self.line, column)))
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

/// A parser's error at its position in the file; `text`, the input of the parser, begins at this line and column.
fn json_error(error: &serde_json::Error, text: &str, path: &Path, (line, column): (u64, usize)) -> DataError {
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
    DataError::Json { place: place(path, line + lines_on as u64), column, reason }
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
}

impl Builder {
    fn add(&mut self, object: Object, line: u64, path: &Path) -> Result<(), DataError> {
        let mut cells = Vec::with_capacity(object.0.len());
        for (name, Value { cell, form }) in object.0 {
            let next = FieldIdx(self.fields.len());
            let idx = *self.idx_of.entry(name).or_insert_with_key(|name| {
                self.fields.push(name.clone());
                next
            });
            match form {
                Form::Whole => self.plain.insert(idx),
                Form::WholeWithDecimals => self.with_decimals.insert(idx),
                Form::Other => false,
            };
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
        let mixed = self.plain.intersection(&self.with_decimals).copied().collect();
        Table { fields: self.fields, rows: self.rows, about: About { mixed, ..About::default() } }
    }
}

/// One example as in the file, including duplicate keys.
struct Object(Vec<(String, Value)>);

/// A value, and how it is written if it is a number.
struct Value {
    cell: Cell,
    form: Form,
}

#[derive(Clone, Copy)]
enum Form {
    /// As 1.
    Whole,
    /// As 1.0.
    WholeWithDecimals,
    /// A fractional number, or no number.
    Other,
}

impl Value {
    fn other(cell: Cell) -> Self {
        Self { cell, form: Form::Other }
    }

    fn whole(text: String) -> Self {
        Self { cell: Cell::Text(text), form: Form::Whole }
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

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::other(Cell::Text(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::other(Cell::Text(value)))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::other(Cell::Text(value.to_string())))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::whole(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::whole(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        let form = if value.fract() == 0.0 { Form::WholeWithDecimals } else { Form::Other };
        Ok(Value { cell: number(value), form })
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::other(Cell::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::other(Cell::Nested("an array")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::other(Cell::Nested("an object")))
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
        let text =
            r#"{"a":1,"b":-2,"c":0.5,"d":true,"e":18446744073709551615,"f":1.0,"g":-0.0,"h":2e3,"i":1e-9}"#;
        let data = data(text, "d.jsonl");
        let texts: Vec<_> =
            data.fields().iter().map(|f| data.text(0, data.field(f).unwrap()).unwrap()).collect();
        assert_eq!(texts, ["1", "-2", "0.5", "true", "18446744073709551615", "1", "0", "2000", "1e-9"]);
    }

    #[test]
    fn lines_may_end_with_carriage_returns_alone() {
        let data = data("{\"text\":\"a\"}\r\r{\"text\":\"b\"}\r", "d.jsonl");
        assert_eq!((data.n(), data.place(1).line), (2, 3));
    }

    #[test]
    fn what_python_writes_and_json_has_not_is_named() {
        for (text, word, at) in [
            ("{\"x\":1}\n{\"x\": NaN}\n", "NaN", "line 2, column 7"),
            ("{\"x\": None}", "None", "line 1, column 7"),
            ("{\"x\":True}", "True", "line 1, column 6"),
            ("{\"x\":-Infinity}", "-Infinity", "line 1, column 7"),
        ] {
            let error = message(text, "d.jsonl");
            assert!(error.starts_with(&format!("d.jsonl, {at}: {word} is not JSON")), "{error}");
            let error = message(&format!("[\n{}]", text.trim().replace('\n', ",\n")), "d.json");
            assert!(error.contains(&format!(": {word} is not JSON")), "{error}");
        }
        assert!(message("{\"x\":oops}", "d.jsonl").ends_with("column 6: expected value"));
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
