//! The likelihood of a task's labels or targets below one or several prompts, and the resulting evaluation.

use foreword_backbone::kernels::Backend;
use foreword_backbone::{Backbone, BackboneError, Model, Save};
use foreword_format::SoftPrompt;

use super::batch::{Batch, Example, Item, micro_batches};
use super::blocks::Blocks;
use super::loss::{Reads, Sequences, log_sum_exp};
use super::prefix::{PrefixState, SharedPrefix};
use crate::continuation_set::ContinuationSet;
use crate::metrics::{Confusion, Evaluation};
use crate::settings::Objective;
use crate::task::{Examples, Task, TaskError};

/// Number of examples between two progress reports.
const REPORT_EVERY: usize = 256;

/// Placed prompts that can score any number of examples.
pub struct Scorer<'b, B: Backend> {
    backbone: &'b Backbone<B>,
    prefixes: Vec<PrefixState<B>>,
    budget: usize,
}

impl<'b, B: Backend> Scorer<'b, B> {
    /// Prefills prompts, each `[P, W]` row by row; an empty one is the bare model. At most `budget` tokens are computed at
    /// a time; a single longer example is allowed.
    ///
    /// # Errors
    /// If a prompt and the tokens after it are longer than the model's context.
    pub fn new(
        shared_prefix: &SharedPrefix<'b, B>,
        prompts: &[&[f32]],
        budget: usize,
    ) -> Result<Self, BackboneError> {
        let prefixes = shared_prefix.prefill(prompts, Save::None)?.prefixes;
        Ok(Self { backbone: shared_prefix.backbone(), prefixes, budget })
    }

    /// log f(continuation | prompt, context) of each example and candidate: the sum over the continuation's tokens with the
    /// softmax over the whole vocabulary, in nats.
    ///
    /// # Errors
    /// If a path is longer than the model's context.
    pub fn log_likelihoods(&self, examples: &[Example<'_>]) -> Result<Vec<Vec<f64>>, BackboneError> {
        self.score(examples, true)
    }

    /// Unless `normalised`, only up to a constant per example, which is cheaper: without the log-sum-exp over the
    /// vocabulary at the end of the context, which all candidates share.
    fn score(&self, examples: &[Example<'_>], normalised: bool) -> Result<Vec<Vec<f64>>, BackboneError> {
        let sequences: Vec<_> = examples.iter().map(|example| Sequences::of(example, normalised)).collect();
        let mut all = Vec::with_capacity(examples.len());
        self.batches(examples, |examples, batch| {
            let sequences = &sequences[all.len()..][..examples.len()];
            let reads: Vec<Reads> = sequences.iter().map(Sequences::reads).collect();
            let numbers = batch.read(&reads);
            all.extend(sequences.iter().zip(&numbers).map(|(sequences, numbers)| sequences.scores(numbers)));
        })?;
        Ok(all)
    }

    /// Logits over the whole vocabulary for the token after each example's context, `[V]` each.
    ///
    /// # Errors
    /// If a path is longer than the model's context.
    pub fn next_token_logits(&self, examples: &[Example<'_>]) -> Result<Vec<Vec<B::Element>>, BackboneError> {
        let examples: Vec<Example<'_>> = examples
            .iter()
            .map(|example| Example { continuations: &[], extended: &[], ..*example })
            .collect();
        let mut all = Vec::with_capacity(examples.len());
        self.batches(&examples, |_, batch| {
            let logits = self.backbone.logits(&batch.output.hidden);
            all.extend(logits.chunks_exact(self.backbone.spec().vocab).map(<[B::Element]>::to_vec));
        })?;
        Ok(all)
    }

    /// Runs the model on the examples, one micro-batch after another.
    fn batches(
        &self,
        examples: &[Example<'_>],
        mut read: impl FnMut(&[Example<'_>], &Batch<'_, '_, B>),
    ) -> Result<(), BackboneError> {
        let items: Vec<Item<'_, B>> =
            examples.iter().map(|example| Item::of(&self.prefixes, example, example.continuations)).collect();
        for part in micro_batches(items.iter().map(Item::cost), self.budget) {
            let batch = Batch::new(self.backbone, &items[part.clone()], Blocks::new(), Save::None)?;
            read(&examples[part], &batch);
        }
        Ok(())
    }
}

impl Task {
    /// log f(label | prompt, text) of every example and label, or of every example's target, with the full softmax, in
    /// nats. Without prompts, uses the bare model; with several, the mean over the ensemble, whose members have equal
    /// weights (Lester et al. 2021, section 6, vote instead). `progress` receives the number of finished examples over all
    /// members.
    ///
    /// # Errors
    /// As [`Task::shared_prefix`], and if the model's output is not finite.
    pub fn log_likelihoods<B: Backend>(
        &self,
        model: &Model<B>,
        prompts: &[&SoftPrompt],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        self.score(model, prompts, examples, (budget, true), progress)
    }

    /// The scores for [`Task::judge`]: log-likelihoods; under the objective `label` only up to a constant per example,
    /// which is cheaper and gives the same label probabilities.
    ///
    /// # Errors
    /// As [`Task::log_likelihoods`].
    pub fn scores<B: Backend>(
        &self,
        model: &Model<B>,
        prompts: &[&SoftPrompt],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        self.score(model, prompts, examples, (budget, self.objective() == Objective::Lm), progress)
    }

    /// Evaluates examples with known labels or targets: the loss, and the labels if there are any.
    ///
    /// # Errors
    /// As [`Task::log_likelihoods`].
    pub fn evaluate<B: Backend>(
        &self,
        model: &Model<B>,
        prompts: &[&SoftPrompt],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Evaluation, TaskError> {
        Ok(self.judge(&self.scores(model, prompts, examples, budget, progress)?, examples))
    }

    /// As [`Task::evaluate`], given the scores of the examples.
    #[must_use]
    pub fn judge(&self, scores: &[Vec<f64>], examples: &Examples) -> Evaluation {
        // `None` for generation.
        let pairs = examples.labels().iter().zip(scores).map(|(&truth, scores)| (truth, best(scores)));
        let pairs: Vec<(usize, usize)> = pairs.collect();
        let right = pairs.iter().map(|(truth, given)| truth == given).collect();
        let labels = self.verbalizer().map(|verbalizer| Confusion::new(verbalizer.n(), pairs));
        Evaluation { n: examples.truths.n() as u64, loss: self.mean_loss(scores, examples), labels, right }
    }

    fn mean_loss(&self, scores: &[Vec<f64>], examples: &Examples) -> f64 {
        if self.objective() == Objective::Label {
            return choice_loss(scores, examples.labels());
        }
        let candidates = ContinuationSet::of(self, examples);
        let (mut total, mut n) = (0.0, 0);
        for (example, scores) in scores.iter().enumerate().take(candidates.n()) {
            let Example { continuations, truth, .. } = candidates.example(examples, example);
            total -= scores[truth];
            n += continuations[truth].len();
        }
        total / n.max(1) as f64
    }

    fn score<B: Backend>(
        &self,
        model: &Model<B>,
        prompts: &[&SoftPrompt],
        examples: &Examples,
        how: (usize, bool),
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        if prompts.is_empty() {
            return self.score_below(&self.shared_prefix(model, examples, 0)?, &[], examples, how, progress);
        }
        let mut members = Vec::with_capacity(prompts.len());
        for (member, prompt) in prompts.iter().enumerate() {
            let shared_prefix = self.shared_prefix(model, examples, prompt.n_virtual())?;
            let progress = &mut |n| progress(member * examples.n() + n);
            members.push(self.score_below(&shared_prefix, prompt.values(), examples, how, progress)?);
        }
        Ok(ensemble(&members.iter().map(Vec::as_slice).collect::<Vec<_>>()))
    }

    /// The result of [`Task::scores`] for a prompt `[P, W]` below a shared prefix of these examples; with the full softmax
    /// if `normalised`.
    pub(crate) fn score_below<B: Backend>(
        &self,
        shared_prefix: &SharedPrefix<'_, B>,
        prompt: &[f32],
        examples: &Examples,
        (budget, normalised): (usize, bool),
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        let candidates = ContinuationSet::of(self, examples);
        let scorer = Scorer::new(shared_prefix, &[prompt], budget)?;
        let mut scores: Vec<Vec<f64>> = Vec::with_capacity(examples.n());
        while scores.len() < examples.n() {
            let part = scores.len()..examples.n().min(scores.len() + REPORT_EVERY);
            let part: Vec<Example<'_>> = part.map(|example| candidates.example(examples, example)).collect();
            scores.extend(scorer.score(&part, normalised)?);
            progress(scores.len());
        }
        match scores.iter().position(|scores| scores.iter().any(|score| !score.is_finite())) {
            Some(example) => Err(TaskError::NotFinite { example: example + 1 }),
            None => Ok(scores),
        }
    }
}

/// Index of the largest score; the first one on a tie.
#[must_use]
pub fn best(scores: &[f64]) -> usize {
    let better = |best: usize, i: usize| if scores[i] > scores[best] { i } else { best };
    (1..scores.len()).fold(0, better)
}

/// Softmax of log-likelihoods: the label probabilities, given that one of the labels is true.
#[must_use]
pub fn probabilities(log_likelihoods: &[f64]) -> Vec<f64> {
    let log_sum = log_sum_exp(log_likelihoods);
    log_likelihoods.iter().map(|l| (l - log_sum).exp()).collect()
}

/// Mean cross-entropy over the labels, in nats; 0 without examples.
#[must_use]
pub fn choice_loss(scores: &[Vec<f64>], truths: &[usize]) -> f64 {
    let total: f64 =
        scores.iter().zip(truths).map(|(scores, &truth)| log_sum_exp(scores) - scores[truth]).sum();
    total / truths.len().max(1) as f64
}

/// The prediction of an ensemble: the mean of the members' log-likelihoods, by example and label. Empty without members.
#[must_use]
pub fn ensemble(members: &[&[Vec<f64>]]) -> Vec<Vec<f64>> {
    let Some((first, others)) = members.split_first() else { return Vec::new() };
    let n = members.len() as f64;
    let sum = |example: usize, label: usize| {
        others.iter().fold(first[example][label], |sum, scores| sum + scores[example][label])
    };
    let of = |example: usize| (0..first[example].len()).map(|label| sum(example, label) / n).collect();
    (0..first.len()).map(of).collect()
}
