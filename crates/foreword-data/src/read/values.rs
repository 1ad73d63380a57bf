//! Values of Parquet and Arrow that other formats have as texts: dates, times and decimal numbers; and nested values as JSON.

use super::super::Cell;
use chrono::DateTime;

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// Maximum depth of lists and structures.
pub(super) const MOST_DEPTH: usize = 32;

/// A number of days since 1970: 2024-05-17.
pub(super) fn date(days: i64) -> Cell {
    let at = days.checked_mul(SECONDS_PER_DAY).and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    at.map_or_else(beyond, |at| Cell::Text(at.format("%Y-%m-%d").to_string()))
}

/// A time of the day: 09:30:00.250000.
pub(super) fn time(n: i64, per_second: i64) -> Cell {
    let (seconds, nanos) = split(n, per_second);
    if !(0..SECONDS_PER_DAY).contains(&seconds) {
        return beyond();
    }
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Cell::Text(format!("{hour:02}:{minute:02}:{second:02}{}", fraction(nanos)))
}

/// A time since 1970: 2024-05-17 09:30:00, and +00:00 after it if it `is_utc` and not of any place.
pub(super) fn timestamp(n: i64, per_second: i64, is_utc: bool) -> Cell {
    let (seconds, nanos) = split(n, per_second);
    let zone = if is_utc { "+00:00" } else { "" };
    DateTime::from_timestamp(seconds, 0).map_or_else(beyond, |at| {
        Cell::Text(format!("{}{}{zone}", at.format("%Y-%m-%d %H:%M:%S"), fraction(nanos)))
    })
}

/// A decimal number as written.
pub(super) fn decimal(written: &str) -> Cell {
    let written = written.trim_end_matches('.');
    match serde_json::from_str::<serde_json::Number>(written) {
        Ok(_) => Cell::number(written),
        Err(_) => Cell::Text(written.to_owned()),
    }
}

/// A number of single precision or less in its shortest form, so that 0.1 stays 0.1.
pub(super) fn shortest(written: &str) -> Cell {
    written.parse::<f64>().map_or(Cell::Null, Cell::from)
}

/// Bytes, which may be a text without a mark that they are one.
pub(super) fn bytes(bytes: &[u8]) -> Cell {
    std::str::from_utf8(bytes).map_or_else(|_| Cell::nested("bytes that are no text", None), Cell::from)
}

fn beyond() -> Cell {
    Cell::nested("a date or time that no calendar has", None)
}

/// Seconds, rounded down, and nanoseconds.
fn split(n: i64, per_second: i64) -> (i64, i64) {
    (n.div_euclid(per_second), n.rem_euclid(per_second) * (NANOS / per_second))
}

/// Microseconds, or nanoseconds if there are some; nothing if there are none.
fn fraction(nanos: i64) -> String {
    match nanos {
        0 => String::new(),
        _ if nanos % 1000 == 0 => format!(".{:06}", nanos / 1000),
        _ => format!(".{nanos:09}"),
    }
}

/// A nested value is larger than it may be: a few bytes of a file can represent a list of millions.
pub(super) struct TooLong;

/// A nested value as JSON on one line.
pub(super) struct Json {
    text: String,
    most: u64,
    /// Whether a value in it has no JSON, and is null.
    is_lossy: bool,
}

impl Json {
    /// `most`: maximum number of bytes.
    pub(super) fn new(most: u64) -> Self {
        Self { text: String::new(), most, is_lossy: false }
    }

    pub(super) fn push(&mut self, text: &str) -> Result<(), TooLong> {
        self.text.push_str(text);
        if self.text.len() as u64 > self.most { Err(TooLong) } else { Ok(()) }
    }

    /// A value that is not nested.
    pub(super) fn value(&mut self, cell: &Cell) -> Result<(), TooLong> {
        self.is_lossy |= matches!(cell, Cell::Nested(_));
        self.push(&cell.to_json())
    }

    /// Elements between brackets.
    pub(super) fn list<T>(
        &mut self,
        elements: impl IntoIterator<Item = T>,
        write: impl Fn(&mut Self, T) -> Result<(), TooLong>,
    ) -> Result<(), TooLong> {
        self.push("[")?;
        for (i, element) in elements.into_iter().enumerate() {
            self.push(if i > 0 { ", " } else { "" })?;
            write(self, element)?;
        }
        self.push("]")
    }

    /// Names and values between braces.
    pub(super) fn object<N: AsRef<str>, T>(
        &mut self,
        entries: impl IntoIterator<Item = (N, T)>,
        write: impl Fn(&mut Self, T) -> Result<(), TooLong>,
    ) -> Result<(), TooLong> {
        self.push("{")?;
        for (i, (name, value)) in entries.into_iter().enumerate() {
            self.push(if i > 0 { ", " } else { "" })?;
            self.push(&serde_json::Value::from(name.as_ref()).to_string())?;
            self.push(": ")?;
            write(self, value)?;
        }
        self.push("}")
    }

    /// The value, and whether a part of it is missing.
    pub(super) fn finish(self, found: &'static str) -> (Cell, bool) {
        (Cell::nested(found, Some(&self.text)), self.is_lossy)
    }
}

/// The message about fields with nested values of which parts are null.
pub(super) fn lossy<'n>(file: &str, fields: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let fields: Vec<String> = fields.into_iter().map(|field| format!("{field:?}")).collect();
    (!fields.is_empty()).then(|| {
        format!(
            "{file}: bytes and other values that are not read are null in the nested field {}",
            fields.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_python_writes_them() {
        let written = |cell: Cell| cell.text().map(str::to_owned);
        for (cell, expected) in [
            (date(19_860), "2024-05-17"),
            (date(-1), "1969-12-31"),
            (time(34_200, 1), "09:30:00"),
            (time(34_200_250, 1000), "09:30:00.250000"),
            (time(1, NANOS), "00:00:00.000000001"),
            (timestamp(-1, 1000, false), "1969-12-31 23:59:59.999000"),
            (timestamp(1_715_938_200, 1, true), "2024-05-17 09:30:00+00:00"),
            (timestamp(1_715_938_200_000_000_001, NANOS, false), "2024-05-17 09:30:00.000000001"),
            (decimal("12."), "12"),
            (decimal("-0.50"), "-0.5"),
        ] {
            assert_eq!(written(cell).as_deref(), Some(expected));
        }
        for beyond in [date(i64::MAX), time(-1, 1), time(86_400, 1), timestamp(i64::MAX, 1, false)] {
            assert_eq!(written(beyond), None);
        }
        assert_eq!(decimal("1.50").to_string(), "1.50", "the literal is kept");
    }

    #[test]
    fn json_ends_where_it_becomes_too_long() {
        let mut json = Json::new(20);
        let written = json.list(0..1_000_000, |json, i| json.value(&Cell::from(i64::from(i))));
        assert!(written.is_err() && json.text.len() < 40);
    }
}
