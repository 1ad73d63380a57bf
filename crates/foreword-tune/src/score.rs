//! How likely a task's labels or targets are below a prompt or several, and what that comes to.

use foreword_backbone::Model;
use foreword_backbone::kernels::Backend;

use crate::metrics::{Confusion, Evaluation};
use crate::pass::{Query, Scorer, TrainingExample, log_sum_exp};
use crate::queries::ContinuationSet;
use crate::settings::Objective;
use crate::shared_prefix::SharedPrefix;
use crate::task::{Examples, Task, TaskError};

/// Examples between two reports of progress.
const REPORT_EVERY: usize = 256;

impl Task {
    /// log f(label | soft prompt, text) of every example and label, or of every example's target, under the full softmax,
    /// in nats. An empty `root` is the bare model. `progress` is told how many examples are done.
    ///
    /// # Errors
    /// As [`Task::shared_prefix`].
    pub fn log_likelihoods<B: Backend>(
        &self,
        model: &Model<B>,
        root: &[f32],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        self.score(model, &[root], examples, budget, true, progress)
    }

    /// The means over an ensemble of `roots` of what [`Task::log_likelihoods`] gives for each: a committee whose members
    /// weigh the same (Lester et al. 2021, section 6, vote instead). `progress` is told how many examples are done, of all
    /// members together.
    ///
    /// # Errors
    /// As [`Task::shared_prefix`].
    pub fn mean_log_likelihoods<B: Backend>(
        &self,
        model: &Model<B>,
        roots: &[&[f32]],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        self.score(model, roots, examples, budget, true, progress)
    }

    /// Loss, and labels where there are any, of examples whose truths are known.
    ///
    /// # Errors
    /// As [`Task::shared_prefix`].
    pub fn evaluate<B: Backend>(
        &self,
        model: &Model<B>,
        root: &[f32],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Evaluation, TaskError> {
        self.evaluate_ensemble(model, &[root], examples, budget, progress)
    }

    /// The same for an ensemble, by [`Task::mean_log_likelihoods`].
    ///
    /// # Errors
    /// As [`Task::shared_prefix`].
    pub fn evaluate_ensemble<B: Backend>(
        &self,
        model: &Model<B>,
        roots: &[&[f32]],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Evaluation, TaskError> {
        Ok(self.judge(&self.scores(model, roots, examples, budget, progress)?, examples))
    }

    /// What [`Task::evaluate_ensemble`] goes by: log-likelihoods, under the objective `label` up to a constant for each example,
    /// which is cheaper and says as much of the labels' probabilities.
    ///
    /// # Errors
    /// As [`Task::shared_prefix`].
    pub fn scores<B: Backend>(
        &self,
        model: &Model<B>,
        roots: &[&[f32]],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        self.score(model, roots, examples, budget, self.objective() == Objective::Lm, progress)
    }

    /// What scores of examples whose truths are known come to.
    #[must_use]
    pub fn judge(&self, scores: &[Vec<f64>], examples: &Examples) -> Evaluation {
        // None where texts are generated.
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
            let TrainingExample { query, truth } = candidates.training_example(examples, example);
            total -= scores[truth];
            n += query.continuations[truth].len();
        }
        total / n.max(1) as f64
    }

    fn score<B: Backend>(
        &self,
        model: &Model<B>,
        roots: &[&[f32]],
        examples: &Examples,
        budget: usize,
        full: bool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        let mut members = Vec::with_capacity(roots.len());
        for (member, root) in roots.iter().enumerate() {
            let told = &mut |n| progress(member * examples.n() + n);
            members.push(self.score_one(model, root, examples, budget, full, told)?);
        }
        Ok(ensemble(&members.iter().map(Vec::as_slice).collect::<Vec<_>>()))
    }

    fn score_one<B: Backend>(
        &self,
        model: &Model<B>,
        root: &[f32],
        examples: &Examples,
        budget: usize,
        full: bool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        let shared_prefix = self.shared_prefix(model, examples, root.len() / self.row_width(model))?;
        self.score_below(&shared_prefix, root, examples, budget, full, progress)
    }

    /// Loss, and labels where there are any, below a shared_prefix of these examples that may keep their contexts.
    pub(crate) fn evaluate_below<B: Backend>(
        &self,
        shared_prefix: &SharedPrefix<'_, B>,
        root: &[f32],
        examples: &Examples,
        budget: usize,
    ) -> Result<Evaluation, TaskError> {
        let full = self.objective() == Objective::Lm;
        let scores = self.score_below(shared_prefix, root, examples, budget, full, &mut |_| {})?;
        Ok(self.judge(&scores, examples))
    }

    fn score_below<B: Backend>(
        &self,
        shared_prefix: &SharedPrefix<'_, B>,
        root: &[f32],
        examples: &Examples,
        budget: usize,
        full: bool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        let candidates = ContinuationSet::of(self, examples);
        let scorer = Scorer::new(shared_prefix, &[root], budget)?;
        let mut scores = Vec::with_capacity(examples.n());
        let indices: Vec<usize> = (0..examples.n()).collect();
        for part in indices.chunks(REPORT_EVERY) {
            let queries: Vec<Query<'_>> =
                part.iter().map(|&example| candidates.query(examples, example)).collect();
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

/// Mean cross-entropy of the choice among the labels, in nats; 0 for no examples.
#[must_use]
pub fn choice_loss(scores: &[Vec<f64>], truths: &[usize]) -> f64 {
    let total: f64 =
        scores.iter().zip(truths).map(|(scores, &truth)| log_sum_exp(scores) - scores[truth]).sum();
    total / truths.len().max(1) as f64
}

/// What several classifiers say together: the mean of their log-likelihoods, by example and label. None of none.
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
