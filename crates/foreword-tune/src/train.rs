//! The loop that learns soft prompts, one or several at once. It tells what happens as events; it never prints and never
//! touches the disk.

pub mod candidates;
pub mod checkpoint;
pub mod context_tuning;
pub mod init;
mod learner;
pub mod memory;
pub mod optimizer;
pub(crate) mod order;
pub mod record;
pub mod regularize;
pub mod state;

use std::ops::ControlFlow;

use foreword_backbone::kernels::Backend;
use foreword_backbone::{Model, Save};
use foreword_format::{FormatError, SoftPrompt};

use crate::context_tuning::Demonstration;
use crate::continuation_set::ContinuationSet;
use crate::engine::batch::Budget;
use crate::engine::frozen_texts::{CacheBudget, SharedBudget};
use crate::engine::prefix::SharedPrefix;
use crate::engine::reduce::{Alone, Reduce};
use crate::metrics::Evaluation;
use crate::order::Order;
use crate::regularize::Regularizers;
use crate::settings::{Keep, LearningRate, Method, Objective, Placement, Schedule, Warmup};
use crate::state::TrainState;
use crate::task::{Examples, Task, TaskError};
use crate::task_file::TrainTable;

use learner::{Dev, Learner};

/// Where a soft prompt stands if nothing else is said: where PEFT can use it too.
pub const DEFAULT_PLACEMENT: Placement = Placement::Front;
/// What is learned if nothing else is said.
pub const DEFAULT_METHOD: Method = Method::Prompt;
/// What the loss of a label is if nothing else is said: the choice among the labels, which is what is asked for.
pub const DEFAULT_OBJECTIVE: Objective = Objective::Label;
/// Rows of a soft prompt where nothing else is said: 20 to 50 is where more rows stop helping (Lester et al. 2021).
pub const DEFAULT_VIRTUAL_TOKENS: usize = 20;
/// Tokens of template, text and label or target where nothing else is said.
pub const DEFAULT_MAX_LENGTH: usize = 512;
/// Tokens computed at a time where nothing else is said: enough rows to keep the products busy, few enough for the
/// activations of one micro-batch to stay small.
pub const DEFAULT_MICRO_BATCH_TOKENS: usize = 2048;
/// Examples per update where nothing else is said and there are enough.
pub const DEFAULT_BATCH_SIZE: usize = 32;
/// Evaluations of a run where their distance is not given.
const EVALUATIONS: u64 = 10;

/// How a run learns. The defaults are the ones that the command line shows.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// Updates.
    pub steps: u64,
    /// Examples per update.
    pub batch_size: usize,
    /// Peak of the learning rate.
    pub learning_rate: LearningRate,
    /// How it goes after the warm-up.
    pub schedule: Schedule,
    /// How long it rises.
    pub warmup: Warmup,
    /// Longest gradient norm; 0: any.
    pub max_grad_norm: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Another order of the examples in each epoch.
    pub shuffle: bool,
    /// Steps between evaluations on dev; 0: only at the end. `None`: about ten evaluations a run.
    pub eval_every: Option<u64>,
    /// Evaluations in a row without a better one after which the run stops; 0: never.
    pub patience: u64,
    /// Which rows are the outcome.
    pub keep: Keep,
    /// Seed of the order of examples.
    pub seed: u64,
    /// What keeps a soft prompt from fitting the training examples alone.
    pub regularizers: Regularizers,
    /// Training examples that a KV prefix began as: each does not see itself in it.
    pub demonstrations: Vec<Demonstration>,
    /// Room for what the model makes of texts that stand before the learned rows.
    pub cache_budget: CacheBudget,
    /// How many of several candidates learn to the end; the others leave by halves.
    pub survivors: usize,
    /// Most tokens computed at a time.
    pub micro_batch_tokens: usize,
    /// Compute activations a second time in the backward pass instead of keeping them: a third slower, in less memory.
    pub recompute: bool,
}

impl Default for TrainConfig {
    /// The defaults of the settings.
    fn default() -> Self {
        Self::from(&TrainTable::default())
    }
}

impl From<&TrainTable> for TrainConfig {
    /// The settings, or their defaults. Where no batch size is set it depends on the examples: see [`default_batch_size`].
    fn from(table: &TrainTable) -> Self {
        Self {
            steps: table.steps(),
            batch_size: table.batch_size.unwrap_or(DEFAULT_BATCH_SIZE),
            learning_rate: table.learning_rate(),
            schedule: table.schedule(),
            warmup: table.warmup(),
            max_grad_norm: table.max_grad_norm(),
            weight_decay: table.weight_decay(),
            shuffle: table.shuffle(),
            eval_every: table.eval_every,
            patience: table.patience(),
            keep: table.keep(),
            seed: table.seed(),
            regularizers: Regularizers {
                token_dropout: table.token_dropout(),
                noise: table.noise(),
                ema_decay: table.ema_decay(),
                trust_region: table.trust_region(),
            },
            demonstrations: Vec::new(),
            cache_budget: CacheBudget::default(),
            survivors: table.ensemble(),
            micro_batch_tokens: table.micro_batch_tokens(),
            recompute: false,
        }
    }
}

impl TrainConfig {
    /// The learning rate in numbers, for rows of this [`scale`].
    #[must_use]
    pub fn peak_rate(&self, method: Method, scale: f64) -> f64 {
        peak(self.learning_rate, method, scale)
    }

    /// How much of a step is in memory at a time.
    #[must_use]
    pub fn budget(&self) -> Budget {
        let save = if self.recompute { Save::Checkpoint } else { Save::All };
        Budget { tokens: self.micro_batch_tokens, save }
    }

    /// Whether dev is to be evaluated now: at the beginning, since the init is what the run must beat, every so many
    /// steps, and at the end.
    fn evaluates(&self, step: u64) -> bool {
        let every = self.eval_every.unwrap_or_else(|| self.steps.div_ceil(EVALUATIONS));
        step == 0 || step == self.steps || (every > 0 && step.is_multiple_of(every))
    }
}

/// Examples per update for so many to learn from, where nothing else is said: a quarter of them, at least 8, at most
/// [`DEFAULT_BATCH_SIZE`]. Of 32 examples, 8 at a time were seen to reach the loss of 32 at a time, at a quarter of the work.
///
/// ```
/// # use foreword_tune::train::default_batch_size;
/// assert_eq!([3, 24, 100, 1000].map(default_batch_size), [3, 8, 25, 32]);
/// ```
#[must_use]
pub fn default_batch_size(n_train: usize) -> usize {
    (n_train / 4).clamp(8, DEFAULT_BATCH_SIZE).min(n_train).max(1)
}

/// What happens during a run. Each event brings the state, for whoever keeps checkpoints.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An update was made.
    Step {
        /// The candidate's number, from 0.
        candidate: usize,
        /// Its numbers.
        made: StepStats,
        /// The run so far.
        state: &'a TrainState,
    },
    /// Dev was evaluated; step 0 is the init.
    Eval {
        /// The candidate's number, from 0.
        candidate: usize,
        /// Updates made so far.
        step: u64,
        /// Scores.
        evaluation: &'a Evaluation,
        /// No earlier evaluation was better.
        best: bool,
        /// The run so far.
        state: &'a TrainState,
    },
    /// A candidate left: it was not among the better half, was no longer getting better, or diverged.
    Left {
        /// The candidate's number, from 0.
        candidate: usize,
        /// Updates it made.
        step: u64,
        /// Why.
        ended: StopReason,
    },
}

/// An update in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// From 1.
    pub step: u64,
    /// Loss of the batch before the update.
    pub loss: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Examples per second of the whole step, tokenising included.
    pub examples_per_second: f64,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// All steps were made.
    Finished,
    /// Dev did not get better any more.
    EarlyStopped,
    /// Other candidates were better.
    Dropped,
    /// The receiver of the events asked for it.
    Cancelled,
    /// The loss or the gradient of this step was not a finite number.
    Diverged {
        /// The step.
        step: u64,
    },
}

/// What a run gives.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The rows to keep, `[P, H]`: always finite.
    pub soft_prompt: SoftPrompt,
    /// Updates made.
    pub steps: u64,
    /// Updates after which the kept rows stood.
    pub best_step: u64,
    /// Why it ended.
    pub ended: StopReason,
    /// The lowest loss on dev, where there was one.
    pub dev_loss: Option<f64>,
}

/// What a run of several candidates gives.
#[derive(Clone, Debug)]
pub struct Population {
    /// Of each candidate, in their order.
    pub outcomes: Vec<Outcome>,
    /// The candidates that did not leave, best first; never empty.
    pub survivors: Vec<usize>,
}

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Nothing to learn from.
    #[error("there are no training examples")]
    NoExamples,
    /// Examples without a label or target can't be learned from.
    #[error("{examples} examples have {truths} labels or targets: each needs one")]
    GroundTruth {
        /// Number of examples.
        examples: usize,
        /// Number of labels or targets.
        truths: usize,
    },
    /// Several candidates and nothing to choose among them by.
    #[error("{candidates} candidates can't be told apart without dev examples")]
    NoDev {
        /// How many there are.
        candidates: usize,
    },
    /// No file for the contexts that are kept.
    #[error("cannot keep contexts on disk: {source}")]
    Contexts {
        /// What the system said.
        source: std::io::Error,
    },
    /// Another machine of a run over several.
    #[error("cannot exchange the sums of a step with the other machines: {source}")]
    Exchange {
        /// What went wrong.
        source: std::io::Error,
    },
    /// A setting that makes no run.
    #[error("{setting} must be {expected}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// The task or the model.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The rows.
    #[error(transparent)]
    SoftPrompt(#[from] FormatError),
}

impl From<foreword_backbone::BackboneError> for TrainError {
    fn from(error: foreword_backbone::BackboneError) -> Self {
        Self::Task(error.into())
    }
}

/// The scale of learned rows, on which a learning rate that is a share is counted: the RMS of the embedding table, or of
/// the keys and values that a KV prefix begins with.
#[must_use]
pub fn scale<B: Backend>(model: &Model<B>, method: Method, start: &[f32]) -> f64 {
    match method {
        Method::Prompt => model.backbone.embedding_rms(),
        Method::Prefix => {
            let squares: f64 = start.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            (squares / start.len().max(1) as f64).sqrt()
        }
    }
}

/// The share of the [`scale`] that `auto` is. Adam's steps are about the learning rate per coordinate, so one share fits models
/// of any scale. A KV prefix has many more numbers, and overfits at the rate of a soft prompt.
#[must_use]
pub const fn learning_rate_share(method: Method) -> f64 {
    match method {
        Method::Prompt => 0.06,
        Method::Prefix => 0.01,
    }
}

/// A learning rate in numbers, for rows of this scale.
fn peak(rate: LearningRate, method: Method, scale: f64) -> f64 {
    match rate {
        LearningRate::Auto => learning_rate_share(method) * scale,
        LearningRate::Share(share) => share * scale,
        LearningRate::Value(value) => value,
    }
}

/// Learns: goes on from `start` (the init, or a [`TrainState`] of the same run), takes batches of `train`, keeps what is best
/// on `dev`. Better is a lower loss: on a small dev set it says more than the accuracy, which moves in steps of one
/// example. Without dev examples the last rows are kept. The init itself is evaluated too and may win.
///
/// # Errors
/// If there is nothing to learn from, or the model can't take the examples.
pub fn train<B: Backend>(
    model: &Model<B>,
    task: &Task,
    data: (&Examples, Option<&Examples>),
    start: impl Into<TrainState>,
    config: &TrainConfig,
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Outcome, TrainError> {
    let mut population = train_all(model, task, data, start, config, on_event)?;
    Ok(population.outcomes.swap_remove(population.survivors[0]))
}

/// Learns all candidates of `start` at once, as roots of one forest, each as if it were alone. By successive halving
/// (Jamieson & Talwalkar 2016) the worse half on dev leaves, the first time early and each time after twice as many steps,
/// until `config.survivors` are left.
///
/// # Errors
/// As [`train`], and if there are several candidates without dev examples.
pub fn train_all<B: Backend>(
    model: &Model<B>,
    task: &Task,
    (train, dev): (&Examples, Option<&Examples>),
    start: impl Into<TrainState>,
    config: &TrainConfig,
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Population, TrainError> {
    train_across(&Alone, (model, task), (train, dev), start, config, on_event)
}

/// The same on several machines, each of which calls this with the same arguments but for `reduce`, its own part in the sums of
/// every step. Evaluations are made by each for itself. All give the outcome that one machine gives, to the bit.
///
/// # Errors
/// As [`train_all`], and if sums can't be exchanged.
pub fn train_across<B: Backend>(
    reduce: &dyn Reduce<B>,
    (model, task): (&Model<B>, &Task),
    (train, dev): (&Examples, Option<&Examples>),
    start: impl Into<TrainState>,
    config: &TrainConfig,
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Population, TrainError> {
    let mut state = start.into();
    check(task, train, dev, config, state.runs.len())?;
    for run in &mut state.runs {
        let start = &run.values;
        run.scale.get_or_insert_with(|| scale(model, task.method, start));
        if config.regularizers.trust_region > 0.0 {
            run.init.get_or_insert_with(|| start.clone());
        }
    }
    let room = SharedBudget::from(&config.cache_budget);
    let shared_prefix = |examples: &Examples| -> Result<SharedPrefix<'_, B>, TrainError> {
        let shared_prefix = task.shared_prefix(model, examples, state.n_virtual())?;
        shared_prefix.cache_frozen_texts(&room).map_err(|source| TrainError::Contexts { source })
    };
    let (dev_prefix, shared_prefix) = (dev.map(&shared_prefix).transpose()?, shared_prefix(train)?);
    // A batch holds no example twice.
    let batch_size = config.batch_size.min(train.n());
    let seeds: Vec<u64> = state.runs.iter().map(|run| run.seed.unwrap_or(config.seed)).collect();
    let orders = seeds
        .iter()
        .map(|&seed| Order::at(state.step, batch_size, train.n(), config.shuffle.then_some(seed)));
    let orders = orders.collect();
    let candidates = ContinuationSet::of(task, train);
    let learner =
        Learner { reduce, shared_prefix: &shared_prefix, task, train, candidates, config, batch_size, seeds };
    let budget = config.micro_batch_tokens;
    let dev =
        dev.zip(dev_prefix).map(|(examples, shared_prefix)| Dev { shared_prefix, task, examples, budget });
    let ended = learner.run(&mut state, orders, dev.as_ref(), on_event)?;
    state.into_population(config.keep, ended)
}

fn check(
    task: &Task,
    train: &Examples,
    dev: Option<&Examples>,
    config: &TrainConfig,
    n_candidates: usize,
) -> Result<(), TrainError> {
    let setting = |setting, expected| Err(TrainError::Setting { setting, expected });
    for examples in std::iter::once(train).chain(dev) {
        let truths = ContinuationSet::of(task, examples).n();
        if truths != examples.n() {
            return Err(TrainError::GroundTruth { examples: examples.n(), truths });
        }
    }
    if train.n() == 0 {
        return Err(TrainError::NoExamples);
    }
    if dev.is_none() && n_candidates > 1 {
        return Err(TrainError::NoDev { candidates: n_candidates });
    }
    if config.survivors == 0 {
        return setting("survivors", "at least 1");
    }
    config.regularizers.check()?;
    if config.steps == 0 {
        return setting("steps", "at least 1");
    }
    if config.batch_size == 0 {
        return setting("batch_size", "at least 1");
    }
    if !(config.max_grad_norm >= 0.0 && config.max_grad_norm.is_finite()) {
        return setting("max_grad_norm", "0 (off) or a positive number");
    }
    if !(config.weight_decay >= 0.0 && config.weight_decay.is_finite()) {
        return setting("weight_decay", "0 or a positive number");
    }
    Ok(())
}
