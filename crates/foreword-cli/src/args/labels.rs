//! `--labels 'negative= negative,positive= positive'`: the labels with their texts.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::Args;

use super::texts::{EscapeError, escaped, written};

/// What can be wrong with `--labels`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LabelsError {
    /// An invalid escape.
    #[error(transparent)]
    Escape(#[from] EscapeError),
    /// A part without `=`.
    #[error("{part:?} has no '=', write LABEL=TEXT,LABEL=TEXT and \\, for a comma inside a text")]
    NoText { part: String },
    /// A part with two `=`.
    #[error("{part:?} has more than one '=', write \\= for one inside a label or a text")]
    TwoTexts { part: String },
    /// A part without a label before its `=`.
    #[error("no label before the '=' of {part:?}")]
    NoName { part: String },
    /// No name after its `=`.
    #[error("no name after the '=' of {label:?}")]
    Unnamed { label: String },
    /// An ellipsis, as the help has it.
    #[error(
        "{part:?}: the dots stand for what is to be filled in; write every label, and what it is called in full"
    )]
    Elided { part: String },
    /// A duplicate label.
    #[error("the label {name:?} is there twice")]
    Twice { name: String },
}

/// Map from label to text. Whitespace around a label is ignored; a text is kept as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labels(pub(crate) BTreeMap<String, String>);

impl FromStr for Labels {
    type Err = LabelsError;

    fn from_str(written: &str) -> Result<Self, LabelsError> {
        let mut labels = BTreeMap::new();
        for part in Part::split(written)? {
            let whole = part.written.clone();
            if is_ellipsis(&whole) {
                return Err(LabelsError::Elided { part: whole });
            }
            let (name, text) = part.label()?;
            if is_ellipsis(&text) {
                return Err(LabelsError::Elided { part: whole });
            }
            if labels.insert(name.clone(), text).is_some() {
                return Err(LabelsError::Twice { name });
            }
        }
        Ok(Self(labels))
    }
}

impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part =
            |(name, text): (&String, &String)| format!("{}={}", written(name, ",="), written(text, ",="));
        f.write_str(&self.0.iter().map(part).collect::<Vec<_>>().join(","))
    }
}

/// `--label-names 0=negative,1=positive`: map from label values in the data to label names. Whitespace around both is
/// ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabelNames(pub(crate) BTreeMap<String, String>);

impl FromStr for LabelNames {
    type Err = LabelsError;

    fn from_str(written: &str) -> Result<Self, LabelsError> {
        let Labels(labels) = written.parse()?;
        let names: BTreeMap<String, String> =
            labels.into_iter().map(|(label, name)| (label, name.trim().to_owned())).collect();
        match names.iter().find(|(_, name)| name.is_empty()) {
            Some((label, _)) => Err(LabelsError::Unnamed { label: label.clone() }),
            None => Ok(Self(names)),
        }
    }
}

/// The names of the labels in the data.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct LabelNamesArgs {
    /// Names of the labels in the data, as 0=negative,1=positive; a name tells the model more than a number [default: those
    /// that the data itself has for numbers: of a ClassLabel in Parquet, or in a field like label_text]
    #[arg(long, value_name = "LABEL=NAME,…", allow_hyphen_values = true)]
    pub(crate) label_names: Option<LabelNames>,
}

impl LabelNamesArgs {
    /// Map from label values in the data to names.
    pub(crate) fn names(&self) -> Option<BTreeMap<String, String>> {
        self.label_names.as_ref().map(|names| names.0.clone())
    }
}

fn is_ellipsis(text: &str) -> bool {
    matches!(text.trim(), "…" | "...")
}

/// The text between two commas.
#[derive(Default)]
struct Part {
    written: String,
    /// Its texts, split at the equals signs.
    sides: Vec<String>,
}

impl Part {
    fn split(written: &str) -> Result<Vec<Self>, LabelsError> {
        let new = || Self { written: String::new(), sides: vec![String::new()] };
        let mut parts = vec![];
        let mut part = new();
        let mut characters = written.chars();
        while let Some(character) = characters.next() {
            let literal = match character {
                ',' => {
                    parts.push(std::mem::replace(&mut part, new()));
                    continue;
                }
                '=' => {
                    part.written.push('=');
                    part.sides.push(String::new());
                    continue;
                }
                '\\' => escaped(characters.next(), ",=")?,
                other => other,
            };
            part.written.push(literal);
            if let Some(side) = part.sides.last_mut() {
                side.push(literal);
            }
        }
        parts.push(part);
        Ok(parts)
    }

    fn label(self) -> Result<(String, String), LabelsError> {
        let part = self.written;
        match self.sides.as_slice() {
            [name, _] if name.trim().is_empty() => Err(LabelsError::NoName { part }),
            [name, text] => Ok((name.trim().to_owned(), text.clone())),
            [] | [_] => Err(LabelsError::NoText { part }),
            _ => Err(LabelsError::TwoTexts { part }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        text.parse::<Labels>().map(|labels| labels.0.into_iter().collect()).map_err(|error| error.to_string())
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Result<Vec<(String, String)>, String> {
        Ok(pairs.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec())
    }

    #[test]
    fn texts_are_kept_as_they_stand() {
        assert_eq!(
            read("negative= negative, positive= positive"),
            pairs([("negative", " negative"), ("positive", " positive")])
        );
        assert_eq!(read(r"a=x\,y,b=1\=2\\\n"), pairs([("a", "x,y"), ("b", "1=2\\\n")]));
        assert_eq!(read("a=,b= b"), pairs([("a", ""), ("b", " b")]));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for labels in
            ["negative= negative,positive= positive", r"a=x\,y,b=1\=2\\\n", r"a\,=\t,b\==", r"c=\\n"]
        {
            let labels: Labels = labels.parse().unwrap();
            assert_eq!(labels.to_string().parse(), Ok(labels));
        }
    }

    #[test]
    fn names_of_labels_are_taken_without_the_space_around_them() {
        let names: LabelNames = "0= negative, 1=not so good ".parse().unwrap();
        assert_eq!(
            names.0,
            [("0", "negative"), ("1", "not so good")].map(|(a, b)| (a.into(), b.into())).into()
        );
        let error = "0=, 1=x".parse::<LabelNames>().unwrap_err().to_string();
        assert_eq!(error, "no name after the '=' of \"0\"");
        assert!("0".parse::<LabelNames>().unwrap_err().to_string().contains("has no '='"));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(read("a").unwrap_err().starts_with("\"a\" has no '='"));
        assert!(read("a=b=c").unwrap_err().contains("more than one '='"));
        assert!(read("=b").unwrap_err().contains("no label before"));
        assert!(read("a=1,a=2").unwrap_err().contains("twice"));
        assert!(read(r"a=\x").unwrap_err().contains("means nothing"));
        for elided in ["1=…", "0=negative,1= … ", "0=negative,…", "a=..."] {
            assert!(read(elided).unwrap_err().contains("to be filled in"), "{elided}");
        }
        assert!(read("a= wait …,b= go").is_ok());
    }
}
