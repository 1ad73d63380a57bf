//! What is asked of a model, all but the soft prompt: how a text becomes tokens, and which labels there are.

use std::time::Instant;

use foreword_backbone::kernels::{Backend, Token};
use foreword_backbone::{BackboneError, Model};

use crate::data::{DataError, Dataset, FieldIdx};
use crate::encode::{EncodeError, Encoder, n_cut};
use crate::metrics::Evaluation;
use crate::pass::{Query, Scorer, log_sum_exp};
use crate::settings::{Objective, Placement};
use crate::stem::Stem;
use crate::template::Template;
use crate::verbalizer::{Verbalizer, VerbalizerError};

/// Examples between two reports of progress.
const REPORT_EVERY: usize = 256;

/// Why a task can't be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A context.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A label.
    #[error(transparent)]
    Verbalizer(#[from] VerbalizerError),
    /// The model.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// `after-bos` with a tokenizer that puts nothing in front.
    #[error(
        "placement after-bos needs a tokenizer that puts a BOS token in front of a text, which this one does not; use \
         front or suffix"
    )]
    NoBos,
    /// A score that is no number.
    #[error("the model's score of example {example} is not a finite number: its weights may be damaged")]
    NotFinite {
        /// Which one, from 1.
        example: usize,
    },
    /// The soft prompt leaves no room for a text.
    #[error("{n_virtual} virtual tokens do not fit into the model's context of {context}; use fewer")]
    NoRoom {
        /// P.
        n_virtual: usize,
        /// Positions of the model.
        context: usize,
    },
}

/// A classification task.
#[derive(Clone, Debug)]
pub struct Task {
    /// The text around the fields.
    pub template: Template,
    /// The field that `{text}` means; guessed where it is not stated.
    pub text_field: Option<String>,
    /// The labels and their strings.
    pub verbalizer: Verbalizer,
    /// What the loss is.
    pub objective: Objective,
    /// Where the soft prompt stands.
    pub placement: Placement,
    /// The most tokens of template, text and label, without virtual tokens.
    pub max_length: usize,
}

/// A data set in tokens.
#[derive(Clone, Debug)]
pub struct Examples {
    /// Every context, `[T]` tokens of its own.
    pub contexts: Vec<Vec<Token>>,
    /// Label of each, as an index of the verbalizer; empty where there are none.
    pub labels: Vec<usize>,
    /// How many were cut to fit.
    pub n_cut: usize,
    /// Seconds that tokenising took.
    pub seconds: f64,
}

impl Examples {
    /// Number of examples.
    #[must_use]
    pub fn n(&self) -> usize {
        self.contexts.len()
    }
}

impl Task {
    /// `max_length`, or what the model's context leaves beside `n_virtual` rows.
    ///
    /// # Errors
    /// If that is nothing.
    pub fn room<B: Backend>(&self, model: &Model<B>, n_virtual: usize) -> Result<usize, TaskError> {
        let context = model.backbone.spec().context;
        match context.checked_sub(n_virtual) {
            Some(left @ 1..) => Ok(self.max_length.min(left)),
            _ => Err(TaskError::NoRoom { n_virtual, context }),
        }
    }

    /// A data set in tokens, with labels where `label_field` is given.
    ///
    /// # Errors
    /// If a field is missing, a label is unknown, or a context does not fit beside its label.
    pub fn examples<B: Backend>(
        &self,
        model: &Model<B>,
        n_virtual: usize,
        dataset: &Dataset,
        label_field: Option<FieldIdx>,
    ) -> Result<Examples, TaskError> {
        let start = Instant::now();
        let max_length = self.room(model, n_virtual)?;
        let encoder = Encoder {
            tokenizer: &model.tokenizer,
            template: &self.template,
            text_field: self.text_field.as_deref(),
            max_length,
        };
        let labels = match label_field {
            Some(field) => self.verbalizer.label_indices(dataset, field)?,
            None => Vec::new(),
        };
        let encoded = encoder.encode(dataset, |_| self.verbalizer.n_tokens_max())?;
        let n_cut = n_cut(&encoded);
        let contexts = encoded.into_iter().map(|text| text.tokens).collect();
        Ok(Examples { contexts, labels, n_cut, seconds: start.elapsed().as_secs_f64() })
    }

    /// What stands above these examples; without virtual tokens, the bare model, nothing has to be placed.
    ///
    /// # Errors
    /// If the placement needs a BOS that the tokenizer does not give.
    pub fn stem<'m, B: Backend>(
        &self,
        model: &'m Model<B>,
        examples: &Examples,
        n_virtual: usize,
    ) -> Result<Stem<'m, B>, TaskError> {
        let n_leading = model.tokenizer.leading().len();
        if self.placement == Placement::AfterBos && n_leading == 0 {
            return Err(TaskError::NoBos);
        }
        let contexts = examples.contexts.iter().map(Vec::as_slice);
        let placement = if n_virtual == 0 { Placement::Front } else { self.placement };
        Ok(Stem::new(&model.backbone, placement, n_leading, contexts)?)
    }

    /// log f(label | soft prompt, text) of every example and label, under the full softmax, in nats. An empty `root` is
    /// the bare model. `progress` is told how many examples are done.
    ///
    /// # Errors
    /// As [`Task::stem`].
    pub fn log_likelihoods<B: Backend>(
        &self,
        model: &Model<B>,
        root: &[f32],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        self.score(model, root, examples, budget, true, progress)
    }

    /// Loss and labels of examples that have labels.
    ///
    /// # Errors
    /// As [`Task::stem`].
    pub fn evaluate<B: Backend>(
        &self,
        model: &Model<B>,
        root: &[f32],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Evaluation, TaskError> {
        let full = self.objective == Objective::Lm;
        let scores = self.score(model, root, examples, budget, full, progress)?;
        let pairs = examples.labels.iter().zip(&scores).map(|(&truth, scores)| (truth, best(scores)));
        Ok(Evaluation::new(self.verbalizer.n(), pairs, self.mean_loss(&scores, &examples.labels)))
    }

    fn mean_loss(&self, scores: &[Vec<f64>], labels: &[usize]) -> f64 {
        let (mut total, mut n) = (0.0, 0);
        for (scores, &truth) in scores.iter().zip(labels) {
            match self.objective {
                Objective::Label => {
                    total += log_sum_exp(scores) - scores[truth];
                    n += 1;
                }
                Objective::Lm => {
                    total -= scores[truth];
                    n += self.verbalizer.tokens(truth).len();
                }
            }
        }
        total / n.max(1) as f64
    }

    fn score<B: Backend>(
        &self,
        model: &Model<B>,
        root: &[f32],
        examples: &Examples,
        budget: usize,
        full: bool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        let labels = self.continuations();
        let stem = self.stem(model, examples, root.len() / model.backbone.spec().hidden)?;
        let scorer = Scorer::new(&stem, &[root], budget)?;
        let mut scores = Vec::with_capacity(examples.n());
        for part in examples.contexts.chunks(REPORT_EVERY) {
            let query = |context| Query { root: 0, context, continuations: &labels };
            let queries: Vec<Query<'_>> = part.iter().map(|context| query(context.as_slice())).collect();
            scores.extend(if full {
                scorer.log_likelihoods(&queries)
            } else {
                scorer.candidate_scores(&queries)
            }?);
            progress(scores.len());
        }
        match scores.iter().position(|scores| scores.iter().any(|score| !score.is_finite())) {
            Some(example) => Err(TaskError::NotFinite { example: example + 1 }),
            None => Ok(scores),
        }
    }

    /// The tokens of each label.
    pub(crate) fn continuations(&self) -> Vec<&[Token]> {
        (0..self.verbalizer.n()).map(|i| self.verbalizer.tokens(i)).collect()
    }
}

/// Index of the largest score; the first of equals.
#[must_use]
pub fn best(scores: &[f64]) -> usize {
    let better = |best: usize, i: usize| if scores[i] > scores[best] { i } else { best };
    (1..scores.len()).fold(0, better)
}

/// Softmax of log-likelihoods: the labels' probabilities given that it is one of them.
#[must_use]
pub fn probabilities(log_likelihoods: &[f64]) -> Vec<f64> {
    let log_sum = log_sum_exp(log_likelihoods);
    log_likelihoods.iter().map(|l| (l - log_sum).exp()).collect()
}
