//! What a reader is told about a file.

use encoding_rs::Encoding;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How a file is read where it does not say so itself, or says something else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The encoding of texts; by default UTF-8, or what is evident.
    pub encoding: Option<TextEncoding>,
    /// The character between the cells of a CSV or TSV file; by default that of the file's ending, or what is evident.
    pub delimiter: Option<Delimiter>,
    /// Whether the first line of a CSV or TSV file is an example, and its fields are named by number; by default it is if
    /// that is evident.
    pub no_header: Option<bool>,
    /// Whether rows that can't be read are left out.
    pub skip_bad: bool,
}

/// An unusable setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// An unknown encoding.
    #[error(
        "{0:?} is no encoding of the Encoding Standard: use one such as utf-8, utf-16le, windows-1252, latin-1, \
         windows-1251, shift_jis or gbk"
    )]
    Encoding(String),
    /// A delimiter that is not one character.
    #[error("{0:?} is no delimiter: use one ASCII character, or comma, semicolon, tab, pipe or space")]
    Delimiter(String),
}

/// An encoding of texts, by a label of the Encoding Standard or by Python's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct TextEncoding(pub(crate) &'static Encoding);

impl FromStr for TextEncoding {
    type Err = OptionError;

    fn from_str(name: &str) -> Result<Self, OptionError> {
        let lower = name.trim().to_lowercase();
        // Python's names that are no labels of the standard.
        let label = match lower.replace('_', "-").as_str() {
            "latin-1" | "iso8859-1" | "l1" => "latin1".to_owned(),
            "utf8" | "utf-8-sig" => "utf-8".to_owned(),
            "utf16" => "utf-16".to_owned(),
            "utf-16-le" => "utf-16le".to_owned(),
            "utf-16-be" => "utf-16be".to_owned(),
            "mac-roman" => "macintosh".to_owned(),
            "cp932" => "shift_jis".to_owned(),
            "cp936" => "gbk".to_owned(),
            "cp949" => "euc-kr".to_owned(),
            "cp950" => "big5".to_owned(),
            _ => lower,
        };
        let found = Encoding::for_label(label.as_bytes())
            .or_else(|| Encoding::for_label(label.replace('_', "-").as_bytes()));
        found.map(Self).ok_or_else(|| OptionError::Encoding(name.to_owned()))
    }
}

impl TryFrom<String> for TextEncoding {
    type Error = OptionError;

    fn try_from(name: String) -> Result<Self, OptionError> {
        name.parse()
    }
}

impl From<TextEncoding> for String {
    fn from(encoding: TextEncoding) -> Self {
        encoding.to_string()
    }
}

impl fmt::Display for TextEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// The character between cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Delimiter(pub(crate) u8);

impl Delimiter {
    pub(crate) const COMMA: Self = Self(b',');
    pub(crate) const SEMICOLON: Self = Self(b';');
    pub(crate) const TAB: Self = Self(b'\t');
    pub(crate) const PIPE: Self = Self(b'|');

    /// Those that are tried if a file does not say which one it has.
    pub(crate) const COMMON: [Self; 4] = [Self::COMMA, Self::SEMICOLON, Self::TAB, Self::PIPE];

    /// As a character.
    pub(crate) fn mark(self) -> char {
        char::from(self.0)
    }

    /// For a message: "a comma".
    pub(crate) fn one(self) -> String {
        match self {
            Self::COMMA => "a comma".to_owned(),
            Self::SEMICOLON => "a semicolon".to_owned(),
            Self::TAB => "a tab".to_owned(),
            other => format!("{:?}", other.mark()),
        }
    }

    /// For a message: "commas".
    pub(crate) fn many(self) -> String {
        match self {
            Self::COMMA => "commas".to_owned(),
            Self::SEMICOLON => "semicolons".to_owned(),
            Self::TAB => "tabs".to_owned(),
            other => format!("{:?}", other.mark()),
        }
    }
}

impl FromStr for Delimiter {
    type Err = OptionError;

    fn from_str(written: &str) -> Result<Self, OptionError> {
        let byte = match written.to_lowercase().as_str() {
            "comma" => b',',
            "semicolon" => b';',
            "tab" | "\\t" => b'\t',
            "pipe" => b'|',
            "space" => b' ',
            _ => match written.as_bytes() {
                [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r' | 0) => *byte,
                _ => return Err(OptionError::Delimiter(written.to_owned())),
            },
        };
        Ok(Self(byte))
    }
}

impl TryFrom<String> for Delimiter {
    type Error = OptionError;

    fn try_from(written: String) -> Result<Self, OptionError> {
        written.parse()
    }
}

impl From<Delimiter> for String {
    fn from(delimiter: Delimiter) -> Self {
        delimiter.to_string()
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TAB => f.write_str("tab"),
            other => write!(f, "{}", other.mark()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_have_the_names_of_the_standard_and_of_python() {
        for (name, encoding) in [
            ("UTF-8", "UTF-8"),
            ("utf_8", "UTF-8"),
            ("utf-8-sig", "UTF-8"),
            ("latin-1", "windows-1252"),
            ("latin1", "windows-1252"),
            ("iso8859-1", "windows-1252"),
            ("ISO-8859-15", "ISO-8859-15"),
            ("cp1252", "windows-1252"),
            ("cp1251", "windows-1251"),
            ("utf-16", "UTF-16LE"),
            ("utf_16_be", "UTF-16BE"),
            ("Shift_JIS", "Shift_JIS"),
            ("cp932", "Shift_JIS"),
            ("gb18030", "gb18030"),
            ("koi8-r", "KOI8-R"),
            ("mac_roman", "macintosh"),
        ] {
            assert_eq!(name.parse::<TextEncoding>().unwrap().to_string(), encoding, "{name}");
        }
        let error = "utf-99".parse::<TextEncoding>().unwrap_err().to_string();
        assert!(error.starts_with("\"utf-99\" is no encoding"), "{error}");
    }

    #[test]
    fn a_delimiter_is_one_character_or_its_name() {
        for (written, byte) in [
            (",", b','),
            (";", b';'),
            ("\t", b'\t'),
            ("\\t", b'\t'),
            ("tab", b'\t'),
            ("Pipe", b'|'),
            (" ", b' '),
        ] {
            assert_eq!(written.parse::<Delimiter>().unwrap(), Delimiter(byte));
        }
        for wrong in ["", "::", "é", "\"", "\n"] {
            assert!(wrong.parse::<Delimiter>().is_err(), "{wrong:?}");
        }
        assert_eq!("tab".parse::<Delimiter>().unwrap().to_string().parse(), Ok(Delimiter::TAB));
    }
}
