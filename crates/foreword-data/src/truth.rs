//! The ground truth of examples: their labels or targets.

use std::borrow::Cow;
use std::collections::HashMap;

/// The labels or targets of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroundTruth {
    /// Unknown.
    Unknown,
    /// A label per example, as an index of the verbalizer.
    Labels(Vec<usize>),
    /// The tokens of each target, including the end token.
    Targets(Vec<Vec<u32>>),
}

impl GroundTruth {
    /// Number of examples with a known label or target.
    #[must_use]
    pub fn n(&self) -> usize {
        match self {
            Self::Unknown => 0,
            Self::Labels(labels) => labels.len(),
            Self::Targets(targets) => targets.len(),
        }
    }

    /// A class per example: its label, or the first example with the same target.
    #[must_use]
    pub fn classes(&self) -> Cow<'_, [usize]> {
        match self {
            Self::Unknown => Cow::Borrowed(&[]),
            Self::Labels(labels) => Cow::Borrowed(labels),
            Self::Targets(targets) => {
                let mut first = HashMap::new();
                let all = targets.iter().enumerate();
                Cow::Owned(all.map(|(row, target)| *first.entry(target).or_insert(row)).collect())
            }
        }
    }
}
