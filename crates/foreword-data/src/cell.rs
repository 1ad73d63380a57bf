//! A value as its file has it: its text for the model, and what is needed to write it back.

use std::fmt;

/// A value of one field of one example. Texts, numbers and booleans can be read by a model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Cell {
    /// A text.
    Text(String),
    /// A number.
    Number(Number),
    /// True or false.
    Bool(bool),
    /// No value.
    Null,
    /// A list, an object or bytes.
    Nested(Nested),
}

/// A number: as the file writes it, and in its one spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    spelling: Box<str>,
    /// As a JSON number; `None` if that is the spelling.
    literal: Option<Box<str>>,
}

/// A value that is no single text, number or boolean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nested {
    pub(crate) found: &'static str,
    pub(crate) json: Option<Box<str>>,
}

impl Cell {
    /// The text for a model: a number in its one spelling, "true" or "false" for a boolean; `None` for other values.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(number) => Some(&number.spelling),
            Self::Bool(value) => Some(if *value { "true" } else { "false" }),
            Self::Null | Self::Nested(_) => None,
        }
    }

    /// A JSON number, which must be valid.
    pub(crate) fn number(literal: &str) -> Self {
        let is_whole = literal.parse::<i64>().is_ok() || literal.parse::<u64>().is_ok();
        if is_whole && literal != "-0" {
            return Self::Number(Number { spelling: literal.into(), literal: None });
        }
        match literal.parse::<f64>() {
            Ok(value) if value.is_finite() => Self::number_of(value, literal),
            _ => Self::Null,
        }
    }

    fn number_of(value: f64, literal: &str) -> Self {
        let spelling = spelling(value).into_boxed_str();
        let literal = Some(literal.into()).filter(|literal| *literal != spelling);
        Self::Number(Number { spelling, literal })
    }

    /// A list, an object or bytes; `json` is its value as JSON on one line, if it is known.
    pub(crate) fn nested(found: &'static str, json: Option<&str>) -> Self {
        Self::Nested(Nested { found, json: json.map(Into::into) })
    }

    /// Its value as JSON on one line; null if that is not known.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
            Self::Number(number) => number.literal().to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Nested(nested) => nested.json().unwrap_or("null").to_owned(),
            Self::Null => "null".to_owned(),
        }
    }

    /// The size of its contents in memory, in bytes.
    pub(crate) fn n_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Number(number) => {
                number.spelling.len() + number.literal.as_ref().map_or(0, |text| text.len())
            }
            Self::Nested(nested) => nested.json.as_ref().map_or(0, |text| text.len()),
            Self::Bool(_) | Self::Null => 0,
        }
    }
}

/// A number; NaN and infinities are missing values.
impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        serde_json::Number::from_f64(value)
            .map_or(Self::Null, |number| Self::number_of(value, &number.to_string()))
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Number(Number { spelling: value.to_string().into(), literal: None })
    }
}

impl From<u64> for Cell {
    fn from(value: u64) -> Self {
        Self::Number(Number { spelling: value.to_string().into(), literal: None })
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Number {
    /// As the file writes it: a valid JSON number.
    #[must_use]
    pub fn literal(&self) -> &str {
        self.literal.as_deref().unwrap_or(&self.spelling)
    }
}

impl Nested {
    /// Its value as JSON on one line, if it is known.
    #[must_use]
    pub fn json(&self) -> Option<&str> {
        self.json.as_deref()
    }
}

/// For a cell of a table of texts: nothing for a missing value, and JSON for a nested one.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => f.write_str(number.literal()),
            Self::Bool(value) => value.fmt(f),
            Self::Null => Ok(()),
            Self::Nested(nested) => f.write_str(nested.json().unwrap_or_default()),
        }
    }
}

/// A number as text: the same for the same number in any file. A whole number has no decimals.
fn spelling(value: f64) -> String {
    /// Above this, not every whole number is representable.
    const MOST_WHOLE: f64 = 9_007_199_254_740_992.0;
    let size = value.abs();
    if value.fract() == 0.0 && size < MOST_WHOLE {
        (value as i64).to_string()
    } else if (1e-5..MOST_WHOLE).contains(&size) {
        value.to_string()
    } else {
        format!("{value:e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_spelling_and_keeps_its_literal() {
        for (literal, spelling) in [
            ("1", "1"),
            ("-2", "-2"),
            ("18446744073709551615", "18446744073709551615"),
            ("1.0", "1"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("2e3", "2000"),
            ("0.50", "0.5"),
            ("1E-9", "1e-9"),
            ("123456789012345678901234567890", "1.2345678901234568e29"),
        ] {
            let cell = Cell::number(literal);
            assert_eq!((cell.text().unwrap(), cell.to_string().as_str()), (spelling, literal));
        }
    }

    #[test]
    fn values_of_a_program_become_cells() {
        let written = |cell: Cell| (cell.text().map(str::to_owned), cell.to_string());
        assert_eq!(written(0.25.into()), (Some("0.25".to_owned()), "0.25".to_owned()));
        assert_eq!(written(1.0.into()), (Some("1".to_owned()), "1.0".to_owned()));
        assert_eq!(written(1e-9.into()), (Some("1e-9".to_owned()), "1e-9".to_owned()));
        assert_eq!(written(f64::NAN.into()), (None, String::new()));
        assert_eq!(written(true.into()), (Some("true".to_owned()), "true".to_owned()));
        assert_eq!(written(None::<&str>.into()), (None, String::new()));
        assert_eq!(written((-7_i64).into()).1, "-7");
        assert_eq!(written(Cell::nested("an array", Some("[1]"))), (None, "[1]".to_owned()));
    }
}
