//! What examples are measured against: their true labels or targets.

use std::borrow::Cow;
use std::collections::HashMap;

/// The labels or targets of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroundTruth {
    /// Not known.
    Unknown,
    /// A label each, as an index of the verbalizer.
    Labels(Vec<usize>),
    /// The tokens of each target, the end token included.
    Targets(Vec<Vec<u32>>),
}

impl GroundTruth {
    /// For how many examples it is known.
    #[must_use]
    pub fn n(&self) -> usize {
        match self {
            Self::Unknown => 0,
            Self::Labels(labels) => labels.len(),
            Self::Targets(targets) => targets.len(),
        }
    }

    /// A class for each example: its label, or the first example with the same target.
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
