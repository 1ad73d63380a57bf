//! The state of a run: everything needed to resume or to end it.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use foreword_format::SoftPrompt;

use crate::metrics::Evaluation;
use crate::optimizer::AdamW;
use crate::settings::{Keep, KeepBy, LearningRate};
use crate::train::{Decay, Event, Outcome, Population, StopReason, TrainConfig, TrainError};

/// A candidate: one of several starting points of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The initial rows, `[P, W]`; P may differ between candidates.
    pub start: SoftPrompt,
    /// Its learning rate.
    pub learning_rate: LearningRate,
    /// Seed of the order of its examples.
    pub seed: u64,
}

/// The state of a run with one or several candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainState {
    /// W.
    pub(crate) width: usize,
    /// Number of updates.
    pub(crate) step: u64,
    /// Number of halvings.
    pub(crate) halvings: u64,
    /// Seconds so far.
    pub(crate) seconds: f64,
    /// Where the learning rate decays, if that is decided.
    pub(crate) decay: Option<Decay>,
    /// By candidate; never empty.
    pub(crate) runs: Vec<CandidateState>,
}

/// The state of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CandidateState {
    /// `None`: from the configuration.
    pub(crate) learning_rate: Option<LearningRate>,
    /// `None`: from the configuration.
    pub(crate) seed: Option<u64>,
    /// The scale of its rows, known from the first step on.
    pub(crate) scale: Option<f64>,
    /// The rows, `[P, W]`.
    pub(crate) values: Vec<f32>,
    pub(crate) optimizer: AdamW,
    /// The moving average of the rows, if enabled.
    pub(crate) average: Option<Vec<f32>>,
    /// The initial rows, for the trust region.
    pub(crate) init: Option<Vec<f32>>,
    pub(crate) best: Option<Best>,
    pub(crate) since_best: u64,
    /// The scores of all evaluations after the first step.
    pub(crate) history: Vec<DevScore>,
    /// Number of updates at the last evaluation, and its score.
    pub(crate) evaluated: Option<(u64, DevScore)>,
    /// Why and after how many updates it stopped.
    pub(crate) left: Option<(StopReason, u64)>,
}

/// The best rows so far.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Best {
    pub(crate) values: Vec<f32>,
    pub(crate) step: u64,
    pub(crate) score: DevScore,
}

/// The score of an evaluation on dev.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DevScore {
    /// What is compared first; lower is better.
    pub(crate) key: f64,
    pub(crate) loss: f64,
}

impl DevScore {
    /// The worst.
    const NONE: Self = Self { key: f64::INFINITY, loss: f64::INFINITY };

    /// The score of an evaluation, compared by this.
    pub(crate) fn of(evaluation: &Evaluation, by: KeepBy) -> Self {
        let loss = evaluation.loss;
        let key = match (by, &evaluation.labels) {
            (KeepBy::Accuracy, Some(labels)) => -labels.accuracy(),
            (KeepBy::MacroF1, Some(labels)) => -labels.macro_f1(),
            _ => loss,
        };
        Self { key, loss }
    }

    fn total_cmp(&self, other: &Self) -> Ordering {
        self.key.total_cmp(&other.key).then(self.loss.total_cmp(&other.loss))
    }

    fn is_better(&self, other: &Self) -> bool {
        self.key < other.key || self.key == other.key && self.loss < other.loss
    }
}

impl CandidateState {
    fn new(values: Vec<f32>, learning_rate: Option<LearningRate>, seed: Option<u64>) -> Self {
        Self {
            learning_rate,
            seed,
            scale: None,
            optimizer: AdamW::new(values.len()),
            average: None,
            init: None,
            values,
            best: None,
            since_best: 0,
            history: Vec::new(),
            evaluated: None,
            left: None,
        }
    }

    /// The scale of its rows.
    pub(crate) fn scale(&self) -> f64 {
        self.scale.unwrap_or(1.0)
    }

    /// Whether it no longer improves: none of the last `patience` evaluations was better than all of the `window` before it. A
    /// lucky evaluation long ago does not count.
    pub(crate) fn is_stalled(&self, window: usize, patience: usize) -> bool {
        let recent = self.history.len().saturating_sub(patience)..self.history.len();
        let is_better = |at: usize| {
            let before = &self.history[at.saturating_sub(window)..at];
            before.iter().all(|before| self.history[at].is_better(before))
        };
        recent.len() == patience && !recent.into_iter().any(is_better)
    }

    /// Goes on from the best rows so far: what followed them has learned the training examples only.
    pub(crate) fn return_to_best(&mut self) {
        if let Some(best) = &self.best {
            self.values.clone_from(&best.values);
            self.average = self.average.take().map(|_| best.values.clone());
        }
    }

    /// The rows to evaluate.
    pub(crate) fn shown(&self) -> &[f32] {
        self.average.as_deref().unwrap_or(&self.values)
    }

    /// Records an evaluation, and the rows if they are the best so far.
    pub(crate) fn evaluated_to(&mut self, step: u64, score: DevScore) -> bool {
        self.evaluated = Some((step, score));
        if step > 0 {
            self.history.push(score);
        }
        let best = self.best.as_ref().is_none_or(|best| score.is_better(&best.score));
        if best {
            self.best = Some(Best { values: self.shown().to_vec(), step, score });
            self.since_best = 0;
        } else {
            self.since_best += 1;
        }
        best
    }

    /// The ranking key: the score of the kept rows; on a tie, when both kept the init, the other score.
    fn rank_key(&self, keep: Keep) -> [DevScore; 2] {
        let best = self.best.as_ref().map_or(DevScore::NONE, |best| best.score);
        let last = self.evaluated.map_or(DevScore::NONE, |(_, score)| score);
        match keep {
            Keep::Best => [best, last],
            Keep::Last => [last, best],
        }
    }

    /// Whether it may still be the outcome.
    fn counts(&self) -> bool {
        !matches!(self.left, Some((StopReason::Dropped | StopReason::Diverged { .. }, _)))
    }
}

impl From<SoftPrompt> for TrainState {
    /// The initial state.
    fn from(init: SoftPrompt) -> Self {
        let width = init.width();
        Self::begin(width, vec![CandidateState::new(init.into_values(), None, None)])
    }
}

impl From<Vec<Candidate>> for TrainState {
    /// The initial state of several candidates.
    ///
    /// # Panics
    /// If there is none, or their rows have different widths.
    fn from(candidates: Vec<Candidate>) -> Self {
        let width = candidates.first().map_or(0, |candidate| candidate.start.width());
        assert!(width > 0 && candidates.iter().all(|c| c.start.width() == width), "candidates of one width");
        let running = |candidate: Candidate| {
            CandidateState::new(
                candidate.start.into_values(),
                Some(candidate.learning_rate),
                Some(candidate.seed),
            )
        };
        Self::begin(width, candidates.into_iter().map(running).collect())
    }
}

impl TrainState {
    /// The state before the first step.
    fn begin(width: usize, runs: Vec<CandidateState>) -> Self {
        Self { width, step: 0, halvings: 0, seconds: 0.0, decay: None, runs }
    }

    /// Number of updates.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// P of the longest candidate.
    #[must_use]
    pub fn n_virtual(&self) -> usize {
        self.runs.iter().map(|run| run.values.len() / self.width).max().unwrap_or(0)
    }

    /// A candidate's current rows, `[P, W]`.
    ///
    /// # Panics
    /// If there is no such candidate.
    #[must_use]
    pub fn values(&self, candidate: usize) -> &[f32] {
        &self.runs[candidate].values
    }

    /// Number of candidates.
    #[must_use]
    pub fn n_candidates(&self) -> usize {
        self.runs.len()
    }

    /// Where the learning rate decays, if that is decided.
    #[must_use]
    pub fn decay(&self) -> Option<Decay> {
        self.decay
    }

    /// The active candidates.
    #[must_use]
    pub fn active(&self) -> Vec<usize> {
        (0..self.runs.len()).filter(|&candidate| self.runs[candidate].left.is_none()).collect()
    }

    /// Stops a candidate.
    pub(crate) fn leave(
        &mut self,
        candidate: usize,
        ended: StopReason,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let step = self.step;
        self.runs[candidate].left = Some((ended, step));
        on_event(Event::Left { candidate, step, ended })
    }

    /// The candidates to stop now, after an evaluation of all: none, or the worse half.
    pub(crate) fn halve(&mut self, config: &TrainConfig) -> Vec<usize> {
        let n = self.runs.len().div_ceil(config.survivors).next_power_of_two().ilog2();
        let steps = config.length.most_steps().unwrap_or(0);
        let mut leaving = Vec::new();
        while self.halvings < u64::from(n) && self.step >= steps >> (u64::from(n) - self.halvings) {
            // An evaluation of the inits says nothing about training.
            if self.step == 0 {
                break;
            }
            self.halvings += 1;
            let ranked: Vec<usize> =
                self.ranked(config.keep).into_iter().filter(|c| !leaving.contains(c)).collect();
            let stay = ranked.len().div_ceil(2).max(config.survivors).min(ranked.len());
            leaving.extend_from_slice(&ranked[stay..]);
        }
        leaving
    }

    /// The candidates that may be the outcome, best first; on a tie, the first one.
    fn ranked(&self, keep: Keep) -> Vec<usize> {
        self.sorted((0..self.runs.len()).filter(|&c| self.runs[c].counts()), keep)
    }

    fn sorted(&self, candidates: impl Iterator<Item = usize>, keep: Keep) -> Vec<usize> {
        let mut sorted: Vec<usize> = candidates.collect();
        sorted.sort_by(|&a, &b| {
            let [a, b] = [a, b].map(|candidate| self.runs[candidate].rank_key(keep));
            a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1]))
        });
        sorted
    }

    /// The result; `ended` applies to the candidates that are still active.
    pub(crate) fn into_population(self, keep: Keep, ended: StopReason) -> Result<Population, TrainError> {
        let mut survivors = self.ranked(keep);
        if survivors.is_empty() {
            // All diverged: each still has its best rows.
            survivors = self.sorted(0..self.runs.len(), keep);
            survivors.truncate(1);
        }
        let (width, step) = (self.width, self.step);
        let outcome = |run: CandidateState| {
            let (ended, steps) = run.left.unwrap_or((ended, step));
            let dev_loss = match keep {
                Keep::Best => run.best.as_ref().map(|best| best.score.loss),
                Keep::Last => run.evaluated.map(|(_, score)| score.loss),
            };
            let last = run.average.unwrap_or(run.values);
            let (values, best_step) = match run.best {
                Some(best) if keep == Keep::Best => (best.values, best.step),
                _ => (last, steps),
            };
            let n_virtual = values.len() / width;
            let soft_prompt = SoftPrompt::new(values, n_virtual, width)?;
            Ok(Outcome { soft_prompt, steps, best_step, ended, dev_loss })
        };
        let outcomes = self.runs.into_iter().map(outcome).collect::<Result<_, TrainError>>()?;
        Ok(Population { outcomes, survivors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Length;

    /// Candidates with these losses of the init and of a later evaluation.
    fn progress(losses: &[[f64; 2]]) -> TrainState {
        let mut runs = Vec::new();
        for [init, later] in losses {
            let mut run = CandidateState::new(vec![0.0; 2], None, None);
            run.evaluated_to(0, DevScore { key: *init, loss: *init });
            run.evaluated_to(4, DevScore { key: *later, loss: *later });
            runs.push(run);
        }
        TrainState { width: 2, step: 4, halvings: 0, seconds: 0.0, decay: None, runs }
    }

    #[test]
    fn what_has_not_yet_beaten_its_init_is_ranked_by_how_it_does_now() {
        let mut same_init = progress(&[[0.642, 0.65], [0.642, 0.679], [0.642, 0.644], [0.642, 0.849]]);
        assert_eq!(same_init.ranked(Keep::Best), [2, 0, 1, 3]);
        let config = TrainConfig { length: Length::Steps(16), ..TrainConfig::default() };
        assert_eq!(same_init.halve(&config), [1, 3]);
        // One that has improved on its init precedes all others.
        assert_eq!(progress(&[[0.6, 0.7], [0.7, 0.5], [0.6, 0.65]]).ranked(Keep::Best), [1, 2, 0]);
    }

    #[test]
    fn a_tie_is_decided_by_the_loss() {
        let mut run = CandidateState::new(vec![0.0; 2], None, None);
        let scores = [(-0.5, 0.7), (-0.5, 0.6), (-0.5, 0.65), (-0.4, 0.1), (-0.6, 0.9)];
        let better = scores.map(|(key, loss)| run.evaluated_to(1, DevScore { key, loss }));
        assert_eq!(better, [true, true, false, false, true]);
        assert_eq!(run.best.unwrap().score, DevScore { key: -0.6, loss: 0.9 });
    }

    #[test]
    fn it_is_stalled_when_no_recent_evaluation_is_better_than_those_just_before() {
        let run = |losses: &[f64]| {
            let mut run = CandidateState::new(vec![0.0; 2], None, None);
            run.evaluated_to(0, DevScore { key: 0.1, loss: 0.1 });
            losses.iter().for_each(|&loss| {
                run.evaluated_to(1, DevScore { key: loss, loss });
            });
            run
        };
        assert!(!run(&[0.5, 0.6]).is_stalled(2, 2), "the first one is progress");
        assert!(run(&[0.5, 0.6, 0.7]).is_stalled(2, 2));
        assert!(!run(&[0.5, 0.8, 0.7, 0.6]).is_stalled(2, 2), "it improves again after a lucky first one");
        assert!(run(&[0.9, 0.8, 0.7, 0.7, 0.7]).is_stalled(2, 2));
        assert!(!run(&[0.9, 0.8, 0.7, 0.7]).is_stalled(2, 2));
    }

    #[test]
    fn where_the_last_rows_are_kept_their_loss_counts() {
        let made = || progress(&[[0.5, 0.6], [0.9, 0.55]]);
        assert_eq!((made().ranked(Keep::Best), made().ranked(Keep::Last)), (vec![0, 1], vec![1, 0]));
        for (keep, dev_loss) in [(Keep::Best, 0.5), (Keep::Last, 0.6)] {
            let population = made().into_population(keep, StopReason::Finished).unwrap();
            assert_eq!(population.outcomes[0].dev_loss, Some(dev_loss));
        }
    }
}
