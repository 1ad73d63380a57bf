//! Checks for suspicious data before training: nothing that stops a run, but all of it worth a look.

use crate::fields::slot_values;
use crate::labels::is_whole;
use crate::template::Template;
use crate::truth::GroundTruth;
use crate::{DataError, Dataset, Location};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// A label with a smaller share of the training examples is rare; with more than five labels, one with less than half of an
/// equal share.
pub const RARE_SHARE: f64 = 0.1;

/// A label with fewer training examples is rare, whatever its share.
pub const FEWEST_EXAMPLES: usize = 5;

/// Maximum number of examples shown per finding.
pub const MOST_SHOWN: usize = 3;

/// A finding, with its count and its first occurrences. Its message says what to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// Training examples that repeat both text and label or target.
    Duplicates {
        /// "label" or "target".
        truth: &'static str,
        /// The count.
        n: usize,
        /// The total.
        of: usize,
        /// Locations: an example, and the one that it repeats.
        shown: Vec<(Location, Location)>,
    },
    /// Training texts with more than one label.
    Contradictions {
        /// Number of texts.
        n: usize,
        /// Locations: two examples with the same text and different labels.
        shown: Vec<(Location, Location)>,
    },
    /// Texts of dev or test that are also in the training data.
    Overlap {
        /// "dev" or "test".
        part: &'static str,
        /// Number of examples of that split.
        n: usize,
        /// The total.
        of: usize,
        /// Locations: in that split, and in the training data.
        shown: Vec<(Location, Location)>,
    },
    /// Labels with few training examples.
    Rare {
        /// Each label with its number of examples.
        labels: Vec<(String, usize)>,
        /// Total number of examples.
        of: usize,
    },
    /// Labels in dev or test without training examples.
    NeverLearned {
        /// "dev" or "test".
        part: &'static str,
        /// The labels.
        labels: Vec<String>,
        /// Number of examples of that split with these labels.
        n: usize,
        /// The total.
        of: usize,
        /// Locations.
        shown: Vec<Location>,
    },
    /// Empty texts.
    Empty {
        /// "training", "dev", "test", or empty for texts without labels.
        part: &'static str,
        /// The count.
        n: usize,
        /// The total.
        of: usize,
        /// Locations.
        shown: Vec<Location>,
    },
    /// Labels that differ only in case or in the characters between their words.
    AlikeLabels {
        /// Each group of such labels, with their numbers of training examples.
        groups: Vec<Vec<(String, usize)>>,
    },
    /// Labels without meaning.
    BareLabels {
        /// Their texts.
        labels: Vec<String>,
        /// The label names, if they differ from the texts.
        names: Option<Vec<String>>,
    },
    /// Labels that programs write for missing values.
    MissingLabels {
        /// Each with its number of training examples.
        labels: Vec<(String, usize)>,
    },
    /// Truncated texts.
    Cut {
        /// "training", "dev" or "test".
        part: &'static str,
        /// The count.
        n: usize,
        /// The total.
        of: usize,
        /// Maximum number of tokens.
        max_length: usize,
    },
    /// Labels with texts of more than one token.
    SeveralTokens {
        /// Each label with its text and the number of its tokens.
        labels: Vec<(String, String, usize)>,
    },
    /// Labels that differ only after their first token.
    SharedFirstToken {
        /// Each group of such labels.
        groups: Vec<Vec<String>>,
    },
}

/// A split in the form for comparison: the values of the fields in the template, without surrounding whitespace.
#[derive(Debug)]
pub struct Part<'a> {
    name: &'static str,
    dataset: &'a Dataset,
    texts: Vec<Vec<&'a str>>,
    /// For each slot, whether it may be empty.
    optional: Vec<bool>,
    labels: Cow<'a, [usize]>,
}

impl<'a> Part<'a> {
    /// `name` is "training", "dev" or "test"; `truths` are its labels or targets.
    ///
    /// # Errors
    /// If a field of the template is missing.
    pub fn new(
        name: &'static str,
        dataset: &'a Dataset,
        template: &Template,
        text_field: Option<&str>,
        truths: &'a GroundTruth,
    ) -> Result<Self, DataError> {
        let texts = slot_values(template, dataset, text_field)?;
        let labels = truths.classes();
        let optional = (0..template.slots().count()).map(|slot| template.is_optional(slot)).collect();
        Ok(Self { name, dataset, texts, optional, labels })
    }

    /// Whether a required field is empty.
    fn is_empty(&self, row: usize) -> bool {
        self.texts[row].iter().zip(&self.optional).any(|(text, optional)| text.is_empty() && !optional)
    }

    fn n(&self) -> usize {
        self.texts.len().min(self.labels.len())
    }

    fn locations(&self, other: &Part<'_>, rows: &[(usize, usize)]) -> Vec<(Location, Location)> {
        let location =
            |&(row, before): &(usize, usize)| (self.dataset.location(row), other.dataset.location(before));
        rows.iter().take(MOST_SHOWN).map(location).collect()
    }
}

/// The labels of a task as the model sees them.
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    /// The names.
    pub names: &'a [String],
    /// The text of each.
    pub strings: &'a [String],
    /// The tokens of each text.
    pub tokens: Vec<&'a [u32]>,
}

/// All findings, in the best order to look into them. For generation, a text may have several targets, and no target is
/// rare.
pub fn lint(train: &Part<'_>, others: &[Part<'_>], labels: Option<&Labels<'_>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let names = labels.map(|labels| labels.names);
    findings.extend(std::iter::once(train).chain(others).filter_map(empty));
    findings.extend(names.and_then(|names| alike_labels(train, names)));
    findings.extend(names.and_then(|names| missing_labels(train, names)));
    findings.extend(names.and_then(|_| contradictions(train)));
    findings.extend(duplicates(train, if names.is_some() { "label" } else { "target" }));
    findings.extend(names.and_then(|names| rare(train, names)));
    for other in others {
        findings.extend(overlap(train, other));
        findings.extend(names.and_then(|names| never_learned(train, other, names)));
    }
    if let Some(Labels { names, strings, tokens }) = labels {
        findings.extend(bare_labels(names, strings));
        findings.extend(several_tokens(names, strings, tokens));
        findings.extend(shared_first_token(names, tokens));
    }
    findings
}

/// Texts truncated to `max_length`, if any.
pub fn cut(part: &'static str, n: usize, of: usize, max_length: usize) -> Option<Finding> {
    (n > 0).then_some(Finding::Cut { part, n, of, max_length })
}

/// Empty texts, if any.
pub fn empty(part: &Part<'_>) -> Option<Finding> {
    let rows: Vec<usize> = (0..part.texts.len()).filter(|&row| part.is_empty(row)).collect();
    let shown = rows.iter().take(MOST_SHOWN).map(|&row| part.dataset.location(row)).collect();
    let (n, of) = (rows.len(), part.texts.len());
    (n > 0).then_some(Finding::Empty { part: part.name, n, of, shown })
}

fn duplicates(train: &Part<'_>, truth: &'static str) -> Option<Finding> {
    let mut first = HashMap::new();
    let mut again = Vec::new();
    for row in (0..train.n()).filter(|&row| !train.is_empty(row)) {
        let before = *first.entry((&train.texts[row], train.labels[row])).or_insert(row);
        if before != row {
            again.push((row, before));
        }
    }
    let (n, shown) = (again.len(), train.locations(train, &again));
    (n > 0).then(|| Finding::Duplicates { truth, n, of: train.n(), shown })
}

fn contradictions(train: &Part<'_>) -> Option<Finding> {
    let mut first = HashMap::new();
    let mut told = HashSet::new();
    let mut rows = Vec::new();
    for row in (0..train.n()).filter(|&row| !train.is_empty(row)) {
        let text = &train.texts[row];
        let before = *first.entry(text).or_insert(row);
        if train.labels[before] != train.labels[row] && told.insert(text) {
            rows.push((before, row));
        }
    }
    let (n, shown) = (rows.len(), train.locations(train, &rows));
    (n > 0).then_some(Finding::Contradictions { n, shown })
}

/// Texts of another split that are also in the training data, if any.
pub fn overlap(train: &Part<'_>, other: &Part<'_>) -> Option<Finding> {
    let mut first = HashMap::new();
    for (row, text) in train.texts.iter().enumerate().filter(|(row, _)| !train.is_empty(*row)) {
        first.entry(text).or_insert(row);
    }
    let texts = other.texts.iter().enumerate();
    let rows: Vec<_> = texts.filter_map(|(row, text)| Some((row, *first.get(text)?))).collect();
    let (n, shown) = (rows.len(), other.locations(train, &rows));
    (n > 0).then(|| Finding::Overlap { part: other.name, n, of: other.n(), shown })
}

fn counts(part: &Part<'_>, n_labels: usize) -> Vec<usize> {
    let mut counts = vec![0; n_labels];
    for &label in part.labels.iter() {
        if let Some(count) = counts.get_mut(label) {
            *count += 1;
        }
    }
    counts
}

fn rare(train: &Part<'_>, names: &[String]) -> Option<Finding> {
    let of = train.n();
    let least = RARE_SHARE.min(0.5 / names.len().max(1) as f64) * of as f64;
    let counted = names.iter().zip(counts(train, names.len()));
    let labels: Vec<_> = counted
        .filter(|&(_, n)| n < FEWEST_EXAMPLES || (n as f64) < least)
        .map(|(name, n)| (name.clone(), n))
        .collect();
    (!labels.is_empty()).then_some(Finding::Rare { labels, of })
}

/// Labels that look the same to a person.
fn alike_labels(train: &Part<'_>, names: &[String]) -> Option<Finding> {
    let fold = |name: &String| {
        let words = name.to_lowercase().replace(['_', '-'], " ");
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let mut alike: BTreeMap<String, Vec<(String, usize)>> = BTreeMap::new();
    let counted = names.iter().zip(counts(train, names.len()));
    // The sign of a number is no mark between words.
    for (name, n) in counted.filter(|(name, _)| name.trim().parse::<f64>().is_err()) {
        alike.entry(fold(name)).or_default().push((name.clone(), n));
    }
    let groups: Vec<_> = alike.into_values().filter(|group| group.len() > 1).collect();
    (!groups.is_empty()).then_some(Finding::AlikeLabels { groups })
}

/// The values that Python, R and SQL write for missing data. "None" may well be a label, and "null" a hypothesis.
fn missing_labels(train: &Part<'_>, names: &[String]) -> Option<Finding> {
    const MISSING: [&str; 7] = ["nan", "<na>", "#n/a", "nat", "nil", "undefined", "null"];
    let counted = names.iter().zip(counts(train, names.len()));
    let labels: Vec<_> = counted
        .filter(|(name, _)| MISSING.contains(&name.to_lowercase().as_str()))
        .map(|(name, n)| (name.clone(), n))
        .collect();
    (!labels.is_empty()).then_some(Finding::MissingLabels { labels })
}

/// Label texts that are all numbers, or all a number after a word like "label".
fn bare_labels(names: &[String], strings: &[String]) -> Option<Finding> {
    const WORDS: [&str; 6] = ["label", "class", "category", "c", "l", "y"];
    let is_bare = |string: &String| {
        let label = string.trim().to_lowercase();
        let word = label.trim_end_matches(|c: char| c.is_ascii_digit());
        let after = &label[word.len()..];
        let word = word.trim_end_matches([' ', '_', '-']);
        is_whole(&label) || !after.is_empty() && WORDS.contains(&word)
    };
    strings.iter().all(is_bare).then(|| {
        let labels: Vec<String> = strings.iter().map(|string| string.trim().to_owned()).collect();
        let names = (labels != names).then(|| names.to_vec());
        Finding::BareLabels { labels, names }
    })
}

fn never_learned(train: &Part<'_>, other: &Part<'_>, names: &[String]) -> Option<Finding> {
    let learned = counts(train, names.len());
    let is_new = |label: usize| learned.get(label) == Some(&0);
    let rows: Vec<usize> = (0..other.n()).filter(|&row| is_new(other.labels[row])).collect();
    let met = counts(other, names.len());
    let new = names.iter().enumerate().filter(|&(label, _)| is_new(label) && met[label] > 0);
    let labels = new.map(|(_, name)| name.clone()).collect();
    let shown = rows.iter().take(MOST_SHOWN).map(|&row| other.dataset.location(row)).collect();
    let (part, n, of) = (other.name, rows.len(), other.n());
    (n > 0).then_some(Finding::NeverLearned { part, labels, n, of, shown })
}

fn several_tokens(names: &[String], strings: &[String], tokens: &[&[u32]]) -> Option<Finding> {
    let all = names.iter().zip(strings).zip(tokens).filter(|(_, tokens)| tokens.len() > 1);
    let labels: Vec<_> =
        all.map(|((name, string), tokens)| (name.clone(), string.clone(), tokens.len())).collect();
    (!labels.is_empty()).then_some(Finding::SeveralTokens { labels })
}

fn shared_first_token(names: &[String], tokens: &[&[u32]]) -> Option<Finding> {
    let mut by_first: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (name, tokens) in names.iter().zip(tokens) {
        if let Some(&first) = tokens.first() {
            by_first.entry(first).or_default().push(name.clone());
        }
    }
    let groups: Vec<_> = by_first.into_values().filter(|group| group.len() > 1).collect();
    (!groups.is_empty()).then_some(Finding::SharedFirstToken { groups })
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicates { truth, n, of, shown } => write!(
                f,
                "{n} of {of} training examples {} the text and {truth} of an earlier one ({}): they count more than \
                 others; keep one of each",
                if *n == 1 { "repeats" } else { "repeat" },
                pairs(shown, *n, "repeats")
            ),
            Self::Contradictions { n, shown } => write!(
                f,
                "{n} training {} more than one label ({}): correct the labels, or take these examples out",
                if *n == 1 { "text has" } else { "texts have" },
                pairs(shown, *n, "against")
            ),
            Self::Overlap { part, n, of, shown } => write!(
                f,
                "{n} of {of} {part} examples {} also in the training data ({}): the {part} scores will look better than \
                 they are; take these texts out of one of the two",
                if *n == 1 { "is" } else { "are" },
                pairs(shown, *n, "is")
            ),
            Self::Rare { labels, of } => write!(
                f,
                "few training examples of {}, of {of} in all: what has few examples is hardly learned; give more of \
                 them, and look at macro F1 beside the accuracy",
                few(labels, |(name, n)| format!("{name:?} ({n})"))
            ),
            Self::NeverLearned { part, labels, n, of, shown } => write!(
                f,
                "{n} of {of} {part} examples {} a label that no training example has, {} ({}): give training examples \
                 of it, or take these out",
                if *n == 1 { "has" } else { "have" },
                few(labels, |name| format!("{name:?}")),
                and_more(shown.iter().map(ToString::to_string), *n, "; ")
            ),
            Self::Empty { part, n, of, shown } => {
                let (are, they) = if *n == 1 { ("is", "it") } else { ("are", "they") };
                let part = if part.is_empty() { String::new() } else { format!("{part} ") };
                let what = match part.as_str() {
                    "" => format!("the answer to {} says nothing", if *n == 1 { "it" } else { "them" }),
                    "training " => {
                        format!("{they} teach{} labels without a text", if *n == 1 { "es" } else { "" })
                    }
                    _ => format!("{they} measure{} nothing", if *n == 1 { "s" } else { "" }),
                };
                write!(
                    f,
                    "{n} of {of} {part}texts {are} empty ({}): {what}; fill in the text, or leave the example out",
                    and_more(shown.iter().map(ToString::to_string), *n, "; ")
                )
            }
            Self::AlikeLabels { groups } => {
                let group = |group: &Vec<(String, usize)>| few(group, |(name, n)| format!("{name:?} ({n})"));
                write!(
                    f,
                    "labels that differ only in capitals or in the marks between words, {}: they are learned as different \
                     labels; write them alike, or --label-names {} makes them one",
                    few(groups, group),
                    groups.first().map_or_else(String::new, |group| merged(group))
                )
            }
            Self::BareLabels { labels, names } => {
                let stated = names.as_ref().unwrap_or(labels).iter().take(2);
                write!(
                    f,
                    "the labels are {}, which tells the model nothing of what they mean: words do better; give the model a \
                     word for each with --labels '{},…' (the answers keep the labels of the data), or rename the labels \
                     with --label-names",
                    few(labels, |label| format!("{label:?}")),
                    stated.map(|label| format!("{label}=WORD")).collect::<Vec<_>>().join(",")
                )
            }
            Self::MissingLabels { labels } => write!(
                f,
                "labels that look like a missing value, {}: they are learned as any other; give these examples a label, or \
                 take them out",
                few(labels, |(name, n)| format!("{name:?} ({n})"))
            ),
            Self::Cut { part, n, of, max_length } => write!(
                f,
                "{n} of {of} {part} texts ({:.1} %) were cut to fit into {max_length} tokens: raise --max-length if the \
                 model's context allows it, or shorten the texts to what matters",
                100.0 * *n as f64 / (*of).max(1) as f64
            ),
            Self::SeveralTokens { labels } => write!(
                f,
                "labels of several tokens, {}: they take longer to score than single tokens, and long ones have it \
                 harder against short ones; shorter strings can be given with --labels",
                few(labels, |(name, string, n)| format!("{name:?} as {string:?} ({n})"))
            ),
            Self::SharedFirstToken { groups } => write!(
                f,
                "labels that begin with the same token, {}: the model can tell them apart only by what follows; strings \
                 that differ from the start can be given with --labels",
                few(groups, |group| few(group, |name| format!("{name:?}")))
            ),
        }
    }
}

/// The value of `--label-names` that merges a group of labels into the most frequent one.
fn merged(group: &[(String, usize)]) -> String {
    let Some((into, _)) = group.iter().max_by_key(|(_, n)| n) else { return String::new() };
    let others = group.iter().filter(|(name, _)| name != into);
    format!("'{}'", others.map(|(name, _)| format!("{name}={into}")).collect::<Vec<_>>().join(","))
}

/// "reviews.csv, line 3 repeats line 2; … and 4 more".
fn pairs(shown: &[(Location, Location)], n: usize, verb: &str) -> String {
    let pair = |(location, other): &(Location, Location)| {
        let same_file = location.path.is_some() && location.path == other.path;
        let other = if same_file { other.within() } else { other.to_string() };
        format!("{location} {verb} {other}")
    };
    and_more(shown.iter().map(pair), n, "; ")
}

/// A list no longer than a person wants to read.
fn few<T>(all: &[T], show: impl Fn(&T) -> String) -> String {
    const MOST: usize = 8;
    and_more(all.iter().take(MOST).map(show), all.len(), ", ")
}

fn and_more(shown: impl Iterator<Item = String>, n: usize, between: &str) -> String {
    let shown: Vec<String> = shown.collect();
    let more = n.saturating_sub(shown.len());
    let more = if more > 0 { format!("{between}and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(between))
}

#[cfg(test)]
#[path = "lint/tests.rs"]
mod tests;
