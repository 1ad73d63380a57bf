//! Texts on the command line, where a newline is written `\n`.

use std::str::FromStr;

use clap::Args;

use foreword::Template;
use foreword::template::TemplateError;

/// A backslash before something that it does not stand before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EscapeError {
    /// An unknown escape.
    #[error(r"\{0} means nothing, write \n for a newline, \t for a tab or \\ for a backslash")]
    Unknown(char),
    /// Nothing after it.
    #[error(r"a backslash at the end, write \\ for a backslash")]
    AtEnd,
}

/// What stands after a backslash as a character; those in `literal` are themselves.
pub(super) fn escaped(next: Option<char>, literal: &str) -> Result<char, EscapeError> {
    match next {
        Some('n') => Ok('\n'),
        Some('t') => Ok('\t'),
        Some(c) if c == '\\' || literal.contains(c) => Ok(c),
        Some(other) => Err(EscapeError::Unknown(other)),
        None => Err(EscapeError::AtEnd),
    }
}

/// A text as it is to be written, those in `literal` with a backslash: what [`escaped`] makes a text of again.
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

/// `--field NAME=VALUE`: a value by the name of its field.
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
    /// One text, given field by field: the value of a field of the template, taken as it stands. Given again, it adds another
    /// field
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Data")]
    pub(crate) field: Vec<FieldText>,
}

impl TextFieldsArgs {
    /// Names and values.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        self.field.iter().map(|field| (field.name.clone(), field.value.clone())).collect()
    }
}

/// A text whose escapes are resolved.
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

/// What can be wrong with `--template`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateTextError {
    /// Its backslashes.
    #[error(transparent)]
    Escape(#[from] EscapeError),
    /// Its slots.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// A template whose escapes are resolved and whose slots are well-formed, or `chat`.
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
