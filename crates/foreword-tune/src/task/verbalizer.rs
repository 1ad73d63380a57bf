//! Verbalizers: the text of each label, and its tokens.

use crate::continuations::Continuations;
use crate::data::labels::{canonical, is_truth};
use crate::data::{DataError, Dataset, FieldIdx, Location, listed};
use crate::encode::EncodeError;
use crate::joint::Joiner;
use crate::settings::Joining;
use crate::template::{SAMPLE, Template};
use foreword_backbone::tokenizer::{Tokenizer, TokenizerError};
use foreword_data::spelling;
use std::collections::{BTreeMap, BTreeSet};

/// Errors in labels.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerbalizerError {
    /// Fewer than two labels.
    #[error("{}, a classification needs at least two labels", match names.as_slice() {
        [] => "no labels".to_owned(),
        names => format!("one class only, {}", listed(names)),
    })]
    TooFew {
        /// The labels.
        names: Vec<String>,
    },
    /// A label's text has no tokens.
    #[error(
        "the string {string:?} of the label {name:?} gives no tokens, choose another string with --labels"
    )]
    NoTokens {
        /// The label.
        name: String,
        /// Its text.
        string: String,
    },
    /// Two labels with the same tokens.
    #[error(
        "the labels {first:?} and {second:?} are the same tokens, choose other strings for them with --labels"
    )]
    SameTokens {
        /// A label.
        first: String,
        /// A later label.
        second: String,
    },
    /// A label in the data that the task does not have.
    #[error("{location}, field {field:?}: unknown label {value:?}{hint}, the labels are: {known}")]
    UnknownLabel {
        /// The line.
        location: Location,
        /// The label field.
        field: Box<str>,
        /// The value in the data.
        value: Box<str>,
        /// "did you mean", if there is a similar name.
        hint: Box<str>,
        /// The labels of the task.
        known: String,
    },
    /// An empty label.
    #[error("{location}: the label field {field:?} is empty, give it a label or take the example out")]
    EmptyLabel {
        /// The line.
        location: Location,
        /// The label field.
        field: String,
    },
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A label's text could not be tokenised.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A text with a label could not be tokenised or put into its chat.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// The values of names that are all numbers.
pub(crate) fn numbers(names: &[String]) -> Option<Vec<f64>> {
    let number = |name: &String| name.trim().parse::<f64>().ok().filter(|value| value.is_finite());
    names.iter().map(number).collect()
}

/// The labels of a classification, ordered by name, or by value if all names are numbers; each with its text after the template and the tokens of this text
/// there.
///
/// One label's tokens may be the beginning of another's (" yes" and " yes indeed"): see [`Continuations`] for how such
/// labels are compared. Only equal token sequences are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verbalizer {
    names: Vec<String>,
    strings: Vec<String>,
    /// The index of each name.
    index: BTreeMap<String, usize>,
    usual: Continuations,
}

impl Verbalizer {
    /// Labels whose texts directly follow any text. `labels`: map from name to text.
    ///
    /// # Errors
    /// If there are fewer than two, one has no tokens, or two have the same.
    pub fn new(labels: &BTreeMap<String, String>, tokenizer: &Tokenizer) -> Result<Self, VerbalizerError> {
        let joiner = Joiner { tokenizer, chat: None, joining: Joining::Whole };
        Self::joined(labels, &joiner, SAMPLE)
    }

    /// Labels after texts in this template, which may be the user message of a chat.
    ///
    /// # Errors
    /// As [`Verbalizer::new`].
    pub fn after(
        labels: &BTreeMap<String, String>,
        template: &Template,
        joiner: &Joiner<'_>,
    ) -> Result<Self, VerbalizerError> {
        Self::joined(labels, joiner, &template.sample())
    }

    fn joined(
        labels: &BTreeMap<String, String>,
        joiner: &Joiner<'_>,
        text: &str,
    ) -> Result<Self, VerbalizerError> {
        let mut names: Vec<String> = labels.keys().cloned().collect();
        if let Some(values) = numbers(&names) {
            let value: BTreeMap<&String, f64> = labels.keys().zip(values).collect();
            names.sort_by(|a, b| value[a].total_cmp(&value[b]));
        }
        if names.len() < 2 {
            return Err(VerbalizerError::TooFew { names });
        }
        let strings: Vec<String> = names.iter().map(|name| labels[name].clone()).collect();
        let tokens = joiner.labels(text, &joiner.context(text)?, &strings)?.answers;
        let mut name_of: BTreeMap<&[u32], &String> = BTreeMap::new();
        for ((name, string), ids) in names.iter().zip(&strings).zip(&tokens) {
            if ids.is_empty() {
                return Err(VerbalizerError::NoTokens { name: name.clone(), string: string.clone() });
            }
            if let Some(&first) = name_of.get(&ids[..]) {
                return Err(VerbalizerError::SameTokens { first: first.clone(), second: name.clone() });
            }
            name_of.insert(ids, name);
        }
        let usual = match joiner.joining {
            Joining::Whole => Continuations::ended(tokens),
            Joining::Apart => Continuations::open(tokens),
        };
        let index = names.iter().cloned().zip(0..).collect();
        Ok(Self { names, strings, index, usual })
    }

    /// The default texts of labels without one: a space and the label's name.
    pub fn default_strings<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> BTreeMap<String, String> {
        Self::spaced_strings(names, true)
    }

    /// As [`Verbalizer::default_strings`], but optionally without the space: for a new line, or a reply in a chat.
    pub fn spaced_strings<S: AsRef<str>>(
        names: impl IntoIterator<Item = S>,
        is_spaced: bool,
    ) -> BTreeMap<String, String> {
        let space = if is_spaced { " " } else { "" };
        names
            .into_iter()
            .map(|name| (name.as_ref().to_owned(), format!("{space}{}", name.as_ref())))
            .collect()
    }

    /// Number of labels, at least two.
    pub fn n(&self) -> usize {
        self.names.len()
    }

    /// The label names in their order; a label's index is its position here.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The label texts, by label index.
    pub fn strings(&self) -> &[String] {
        &self.strings
    }

    /// The index of the label with this name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// The tokens of a label's text; empty if the index is too large.
    pub fn tokens(&self, label_idx: usize) -> &[u32] {
        self.usual.candidates().get(label_idx).map_or(&[], Vec::as_slice)
    }

    /// The label tokens after most texts; after some texts they may differ.
    #[must_use]
    pub fn usual(&self) -> &Continuations {
        &self.usual
    }

    /// The first label that another one continues, with that one, by their usual tokens.
    #[must_use]
    pub fn first_continued(&self) -> Option<(&str, &str)> {
        let candidates = self.usual.candidates();
        let &short = self.usual.extended().first()?;
        let longer = candidates
            .iter()
            .enumerate()
            .position(|(label, tokens)| label != short && tokens.starts_with(&candidates[short]))?;
        Some((&self.names[short], &self.names[longer]))
    }

    /// Number of tokens of the longest label: the space that a context must leave.
    pub fn n_tokens_max(&self) -> usize {
        self.usual.candidates().iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The label index of every row. A label without rows is fine; a row with an unknown label is an error. Whitespace
    /// around a label and the decimals of a whole number are ignored.
    pub fn label_indices(&self, dataset: &Dataset, field: FieldIdx) -> Result<Vec<usize>, VerbalizerError> {
        // Labels set or recorded as "0.0".
        let by_number = |label: &str| self.names.iter().position(|name| canonical(name) == label);
        let by_truth = |label: &str| {
            let is_truth = is_truth(label);
            self.names.iter().position(|name| is_truth && name.eq_ignore_ascii_case(label))
        };
        let index = |row| {
            let value = dataset.text(row, field)?;
            let label = canonical(value);
            let index = self.index(value).or_else(|| self.index(value.trim())).or_else(|| self.index(label));
            if label.is_empty() && index.is_none() {
                return Err(empty_label(dataset, row, field));
            }
            index.or_else(|| by_number(label)).or_else(|| by_truth(label)).ok_or_else(|| {
                VerbalizerError::UnknownLabel {
                    location: dataset.location(row),
                    field: dataset.field_name(field).into(),
                    value: value.chars().take(60).collect(),
                    hint: spelling::hint(value, self.names.iter().map(String::as_str)).into(),
                    known: listed(&self.names),
                }
            })
        };
        (0..dataset.n()).map(index).collect()
    }
}

/// The labels in the data, without surrounding whitespace and without the decimals of whole numbers.
pub fn label_names(dataset: &Dataset, field: FieldIdx) -> Result<BTreeSet<String>, VerbalizerError> {
    let mut names = BTreeSet::new();
    for row in 0..dataset.n() {
        let name = canonical(dataset.text(row, field)?);
        if name.is_empty() {
            return Err(empty_label(dataset, row, field));
        }
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

fn empty_label(dataset: &Dataset, row: usize, field: FieldIdx) -> VerbalizerError {
    let field = dataset.field_name(field).to_owned();
    VerbalizerError::EmptyLabel { location: dataset.location(row), field }
}
