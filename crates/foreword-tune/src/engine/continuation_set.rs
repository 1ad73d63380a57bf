//! A task's examples as input of the engine: each context with the token sequences to score.

use std::collections::BTreeMap;

use foreword_backbone::kernels::Token;

use super::example::{Example, MaskedSpan};
use crate::continuations::Continuations;
use crate::task::{Examples, Goal, GroundTruth, Task};

/// The continuations to score for every example, and the true one.
pub(crate) enum ContinuationSet<'a> {
    /// The labels: their usual tokens, the exceptions by example, and the true label of each example.
    Labels { usual: Sequences<'a>, unusual: BTreeMap<usize, Sequences<'a>>, truths: &'a [usize] },
    /// Each example's target.
    Targets(Vec<[&'a [Token]; 1]>),
}

/// [`Continuations`] in the form that examples need.
pub(crate) struct Sequences<'a> {
    tokens: Vec<&'a [Token]>,
    extended: &'a [usize],
}

impl<'a> From<&'a Continuations> for Sequences<'a> {
    fn from(continuations: &'a Continuations) -> Self {
        let tokens = continuations.tokens().iter().map(Vec::as_slice).collect();
        Self { tokens, extended: continuations.extended() }
    }
}

impl<'a> ContinuationSet<'a> {
    /// The continuations of a task's examples.
    pub(crate) fn of(task: &'a Task, examples: &'a Examples) -> Self {
        match (&task.goal, &examples.truths) {
            (Goal::Classification(to), _) => Self::Labels {
                usual: to.verbalizer.usual().into(),
                unusual: examples.unusual.iter().map(|(&example, own)| (example, own.into())).collect(),
                truths: examples.labels(),
            },
            (Goal::Generation(_), GroundTruth::Targets(targets)) => {
                Self::Targets(targets.iter().map(|target| [target.as_slice()]).collect())
            }
            (Goal::Generation(_), GroundTruth::Labels(_) | GroundTruth::Unknown) => Self::Targets(Vec::new()),
        }
    }

    /// Number of training examples.
    pub(crate) fn n(&self) -> usize {
        match self {
            Self::Labels { truths, .. } => truths.len(),
            Self::Targets(targets) => targets.len(),
        }
    }

    /// The token sequences of an example, and the candidates that some of them extend.
    fn sequences(&self, example: usize) -> (&[&'a [Token]], &'a [usize]) {
        match self {
            Self::Labels { usual, unusual, .. } => {
                let Sequences { tokens, extended } = unusual.get(&example).unwrap_or(usual);
                (tokens, extended)
            }
            Self::Targets(targets) => (&targets[example], &[]),
        }
    }

    /// Example `example` below the only prompt.
    pub(crate) fn example<'q>(&'q self, examples: &'q Examples, example: usize) -> Example<'q> {
        let context = &examples.contexts[example];
        let (continuations, extended) = self.sequences(example);
        let truth = match self {
            Self::Labels { truths, .. } => truths.get(example).copied().unwrap_or(0),
            Self::Targets(_) => 0,
        };
        Example { prompt: 0, masked: MaskedSpan::NONE, context, continuations, extended, truth }
    }
}
