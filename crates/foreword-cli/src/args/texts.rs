//! Texts on the command line, with `\n` for a newline.

use std::str::FromStr;

use clap::Args;

use foreword::Template;
use foreword::template::TemplateError;

/// An invalid escape sequence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EscapeError {
    /// An unknown escape.
    #[error(r"\{0} means nothing, write \n for a newline, \t for a tab or \\ for a backslash")]
    Unknown(char),
    /// A backslash at the end.
    #[error(r"a backslash at the end, write \\ for a backslash")]
    AtEnd,
}

/// The character that an escape sequence stands for; the characters in `literal` stand for themselves.
pub(super) fn escaped(next: Option<char>, literal: &str) -> Result<char, EscapeError> {
    match next {
        Some('n') => Ok('\n'),
        Some('t') => Ok('\t'),
        Some(c) if c == '\\' || literal.contains(c) => Ok(c),
        Some(other) => Err(EscapeError::Unknown(other)),
        None => Err(EscapeError::AtEnd),
    }
}

/// Escapes a text, including the characters in `literal`; the inverse of [`escaped`].
pub(super) fn written(text: &str, literal: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => written.push_str(r"\n"),
            '\t' => written.push_str(r"\t"),
            c if c == '\\' || literal.contains(c) => written.extend(['\\', c]),
            c => written.push(c),
        }
    }
    written
}

/// `--field NAME=VALUE`: a field and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldText {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for FieldText {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        match written.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok(Self { name: name.trim().to_owned(), value: value.to_owned() })
            }
            _ => {
                Err("write the field's name, an equals sign and its text, as in premise='It rains.'"
                    .to_owned())
            }
        }
    }
}

/// A text given field by field.
#[derive(Debug, Args)]
pub(crate) struct TextFieldsArgs {
    /// One text, given field by field: a field of the template and its value, taken literally; repeat the flag for more
    /// fields
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Data")]
    pub(crate) field: Vec<FieldText>,
}

impl TextFieldsArgs {
    /// The names and values.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        self.field.iter().map(|field| (field.name.clone(), field.value.clone())).collect()
    }
}

/// A text with its escapes resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plain(pub(crate) String);

impl FromStr for Plain {
    type Err = EscapeError;

    fn from_str(written: &str) -> Result<Self, EscapeError> {
        let mut text = String::with_capacity(written.len());
        let mut characters = written.chars();
        while let Some(character) = characters.next() {
            text.push(if character == '\\' { escaped(characters.next(), "")? } else { character });
        }
        Ok(Self(text))
    }
}

/// Errors in `--template`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateTextError {
    /// An invalid escape.
    #[error(transparent)]
    Escape(#[from] EscapeError),
    /// An invalid slot.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// A template with its escapes resolved and valid slots, or `chat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TemplateText(pub(crate) String);

impl FromStr for TemplateText {
    type Err = TemplateTextError;

    fn from_str(written: &str) -> Result<Self, TemplateTextError> {
        let Plain(text) = written.parse()?;
        if text != Template::CHAT {
            Template::parse(&text)?;
        }
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_characters() {
        let read = |text: &str| text.parse::<TemplateText>().map(|text| text.0).map_err(|e| e.to_string());
        assert_eq!(read(r"{text}\nLabel:\t\\n"), Ok("{text}\nLabel:\t\\n".to_owned()));
        assert!(read(r"{text}\d").unwrap_err().starts_with(r"\d means nothing"));
        assert!(read("{text}\\").unwrap_err().starts_with("a backslash at the end"));
        assert_eq!(read("chat"), Ok("chat".to_owned()));
        assert!(read("text").unwrap_err().contains("has no slot"));
    }
}
