//! The likelihood of a task's labels or targets below one or several prompts, and the resulting evaluation.

use std::ops::{ControlFlow, Range};

use foreword_backbone::kernels::Backend;
use foreword_backbone::{Backbone, BackboneError, Model, Save};
use foreword_format::SoftPrompt;

use super::batch::{Batch, Item, micro_batches};
use super::blocks::Blocks;
use super::example::Example;
use super::loss::{Reads, Sequences};
use super::prefix::{PrefixState, SharedPrefix};
use crate::engine::continuation_set::ContinuationSet;
use crate::likelihood::{best, choice_loss, ensemble};
use crate::metrics::{Confusion, Evaluation};
use crate::settings::Objective;
use crate::task::{Examples, Task, TaskError};

/// Placed prompts that can score any number of examples.
pub struct Scorer<'b, B: Backend> {
    backbone: &'b Backbone<B>,
    prefixes: Vec<PrefixState<B>>,
    budget: usize,
}

/// The members of an ensemble, or a single prompt, or the bare model; each can score any number of examples.
pub struct Scorers<'b, B: Backend> {
    members: Vec<Scorer<'b, B>>,
}

impl<'b, B: Backend> Scorers<'b, B> {
    fn new(
        backbone: &'b Backbone<B>,
        prompts: &[&SoftPrompt],
        prefix: impl Fn(Option<&SoftPrompt>) -> Result<PrefixState<B>, TaskError>,
        budget: usize,
    ) -> Result<Self, TaskError> {
        let bare = [None];
        let prompts: Vec<Option<&SoftPrompt>> = prompts.iter().copied().map(Some).collect();
        let prompts = if prompts.is_empty() { &bare[..] } else { &prompts[..] };
        let scorer =
            |&prompt: &Option<&SoftPrompt>| Ok(Scorer { backbone, prefixes: vec![prefix(prompt)?], budget });
        Ok(Self { members: prompts.iter().map(scorer).collect::<Result<_, TaskError>>()? })
    }
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

    fn items<'e>(&self, examples: &'e [Example<'e>]) -> Vec<Item<'e, B>> {
        examples.iter().map(|example| Item::of(&self.prefixes, example, example.continuations)).collect()
    }

    /// The examples that are computed at a time.
    fn micro_batches(&self, examples: &[Example<'_>]) -> Vec<Range<usize>> {
        micro_batches(self.items(examples).iter().map(Item::cost), self.budget)
    }

    /// Runs the model on the examples, one micro-batch after another.
    fn batches(
        &self,
        examples: &[Example<'_>],
        mut read: impl FnMut(&[Example<'_>], &Batch<'_, '_, B>),
    ) -> Result<(), BackboneError> {
        let items = self.items(examples);
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
        (budget, normalised): (usize, bool),
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        let prefix = |prompt: Option<&SoftPrompt>| {
            let n_virtual = prompt.map_or(0, SoftPrompt::n_virtual);
            Ok(self.shared_prefix(model, examples, n_virtual)?.prefix(prompt)?)
        };
        let scorers = Scorers::new(&model.backbone, prompts, prefix, budget)?;
        self.collect_scores(&scorers, examples, normalised, progress)
    }

    /// The result of [`Task::scores`] for a prompt `[P, W]` below a shared prefix of these examples; with the full softmax
    /// if `normalised`.
    pub(crate) fn score_below<B: Backend>(
        &self,
        shared_prefix: &SharedPrefix<'_, B>,
        prompt: &[f32],
        examples: &Examples,
        (budget, normalised): (usize, bool),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        let scorers = Scorers { members: vec![Scorer::new(shared_prefix, &[prompt], budget)?] };
        self.collect_scores(&scorers, examples, normalised, &mut |_| {})
    }

    fn collect_scores<B: Backend>(
        &self,
        scorers: &Scorers<'_, B>,
        examples: &Examples,
        normalised: bool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        let mut all = Vec::with_capacity(examples.n());
        self.score_each(scorers, examples, normalised, &mut |_, scores| {
            all.push(scores);
            progress(all.len() * scorers.members.len());
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    /// Prompts in this task's template, ready to score texts that come later; without prompts, the bare model.
    ///
    /// # Errors
    /// As [`Task::prefix`].
    pub fn scorers<'m, B: Backend>(
        &self,
        model: &'m Model<B>,
        prompts: &[&SoftPrompt],
        budget: usize,
    ) -> Result<Scorers<'m, B>, TaskError> {
        Scorers::new(&model.backbone, prompts, |prompt| self.prefix(model, prompt), budget)
    }

    /// The scores of each example, with its index, as soon as its micro-batch is computed: see [`Task::log_likelihoods`],
    /// or unless `normalised` [`Task::scores`]. Ends early if `on_scores` breaks.
    ///
    /// # Errors
    /// If the model's output is not finite.
    pub fn score_each<B: Backend>(
        &self,
        scorers: &Scorers<'_, B>,
        examples: &Examples,
        normalised: bool,
        on_scores: &mut dyn FnMut(usize, Vec<f64>) -> ControlFlow<()>,
    ) -> Result<(), TaskError> {
        let continuations = ContinuationSet::of(self, examples);
        let all: Vec<Example<'_>> =
            (0..examples.n()).map(|example| continuations.example(examples, example)).collect();
        for part in scorers.members[0].micro_batches(&all) {
            let members = scorers.members.iter().map(|member| member.score(&all[part.clone()], normalised));
            let members = members.collect::<Result<Vec<_>, _>>()?;
            let scores = ensemble(&members.iter().map(Vec::as_slice).collect::<Vec<_>>());
            for (example, scores) in part.zip(scores) {
                if scores.iter().any(|score| !score.is_finite()) {
                    return Err(TaskError::NotFinite { example: example + 1 });
                }
                if on_scores(example, scores).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
