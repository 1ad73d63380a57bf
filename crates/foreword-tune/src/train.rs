//! The training loop for one or several soft prompts. It reports progress as events; it never prints and never touches the
//! disk.

pub mod candidates;
pub mod checkpoint;
pub mod context_tuning;
pub mod init;
mod learner;
pub mod length;
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
use crate::engine::batch::Budget;
use crate::engine::continuation_set::ContinuationSet;
use crate::engine::frozen_texts::{CacheBudget, SharedBudget};
use crate::engine::prefix::SharedPrefix;
use crate::engine::reduce::{Alone, Reduce};
use crate::metrics::Evaluation;
use crate::order::Order;
use crate::regularize::Regularizers;
use crate::settings::{
    ClassWeights, DEFAULT_BATCH_SIZE, Keep, KeepBy, LearningRate, Method, Schedule, Warmup,
};
use crate::state::TrainState;
use crate::task::{Examples, Task, TaskError};
use crate::task_file::TrainTable;

use learner::{Dev, Learner};
pub use length::{Cause, Decay, Length};

/// The training configuration. Its defaults are those of the command line.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// How long it trains.
    pub length: Length,
    /// Examples per update.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: LearningRate,
    /// Learning-rate schedule after the warm-up.
    pub schedule: Schedule,
    /// Length of the warm-up.
    pub warmup: Warmup,
    /// Maximum gradient norm; 0: no clipping.
    pub max_grad_norm: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Shuffle the examples in each epoch.
    pub shuffle: bool,
    /// Steps between evaluations on dev; 0: only at the end. `None`: as its [`Length`] has them.
    pub eval_every: Option<u64>,
    /// Stop after this many evaluations in a row without improvement, or let the learning rate decay; 0: never.
    pub patience: u64,
    /// The rows to keep.
    pub keep: Keep,
    /// What makes an evaluation better.
    pub keep_by: KeepBy,
    /// Weights of the labels in the training loss.
    pub class_weights: ClassWeights,
    /// Random seed for the order of examples.
    pub seed: u64,
    /// Regularisation against overfitting.
    pub regularizers: Regularizers,
    /// Training examples in the init of a KV prefix: each is masked for itself.
    pub demonstrations: Vec<Demonstration>,
    /// Cache budget for texts before the learned rows.
    pub cache_budget: CacheBudget,
    /// Number of candidates trained to the end; successive halving stops the others.
    pub survivors: usize,
    /// Maximum number of tokens computed at a time.
    pub micro_batch_tokens: usize,
    /// Activation checkpointing: recompute activations in the backward pass instead of saving them. A third slower, with
    /// less memory.
    pub recompute: bool,
}

impl Default for TrainConfig {
    /// The defaults of the settings.
    fn default() -> Self {
        Self::from(&TrainTable::default())
    }
}

impl From<&TrainTable> for TrainConfig {
    /// The settings, or their defaults. The default batch size depends on the number of examples: see
    /// [`default_batch_size`].
    fn from(table: &TrainTable) -> Self {
        Self {
            length: table.length(),
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
            keep_by: table.keep_by.unwrap_or(match table.class_weights() {
                ClassWeights::None => KeepBy::Loss,
                ClassWeights::Balanced => KeepBy::MacroF1,
            }),
            class_weights: table.class_weights(),
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
    /// The learning rate as a number, for rows of this [`scale`].
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
}

/// Default batch size for this many training examples: a quarter of them, at least 8, at most [`DEFAULT_BATCH_SIZE`]. With
/// 32 examples, batches of 8 reached the loss of batches of 32, at a quarter of the work.
///
/// ```
/// # use foreword_tune::train::default_batch_size;
/// assert_eq!([3, 24, 100, 1000].map(default_batch_size), [3, 8, 25, 32]);
/// ```
#[must_use]
pub fn default_batch_size(n_train: usize) -> usize {
    (n_train / 4).clamp(8, DEFAULT_BATCH_SIZE).min(n_train).max(1)
}

/// An event of a run. Each event includes the training state, for checkpoints.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An update.
    Step {
        /// The candidate's number, from 0.
        candidate: usize,
        /// Its statistics.
        made: StepStats,
        /// The state of the run.
        state: &'a TrainState,
    },
    /// An evaluation on dev; step 0 is the init.
    Eval {
        /// The candidate's number, from 0.
        candidate: usize,
        /// Number of updates so far.
        step: u64,
        /// The scores.
        evaluation: &'a Evaluation,
        /// Whether it is the best evaluation so far.
        best: bool,
        /// The run so far.
        state: &'a TrainState,
    },
    /// Dev no longer improves, or the end is near: the learning rate decays from now on.
    Decay {
        /// From where to where.
        decay: Decay,
    },
    /// A candidate left: it was not among the better half, was no longer getting better, or diverged.
    Left {
        /// The candidate's number, from 0.
        candidate: usize,
        /// Its number of updates.
        step: u64,
        /// The reason.
        ended: StopReason,
    },
}

/// The statistics of an update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// The step, from 1.
    pub step: u64,
    /// Loss of the batch before the update.
    pub loss: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Examples per second of the whole step, including tokenisation.
    pub examples_per_second: f64,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// All steps are done.
    Finished,
    /// Dev no longer improved.
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

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The rows to keep, `[P, W]`; always finite.
    pub soft_prompt: SoftPrompt,
    /// Number of updates.
    pub steps: u64,
    /// The step of the kept rows.
    pub best_step: u64,
    /// Why it ended.
    pub ended: StopReason,
    /// The lowest loss on dev, if there is a dev set.
    pub dev_loss: Option<f64>,
}

/// The result of a run with several candidates.
#[derive(Clone, Debug)]
pub struct Population {
    /// The outcome of each candidate, in order.
    pub outcomes: Vec<Outcome>,
    /// The candidates trained to the end, best first; never empty.
    pub survivors: Vec<usize>,
}

/// Why training failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// There are no training examples.
    #[error("there are no training examples")]
    NoExamples,
    /// Some training examples have no label or target.
    #[error("{examples} examples have {truths} labels or targets: each needs one")]
    GroundTruth {
        /// Number of examples.
        examples: usize,
        /// Number of labels or targets.
        truths: usize,
    },
    /// Several candidates without a dev set to select on.
    #[error("{candidates} candidates can't be compared without dev examples")]
    NoDev {
        /// Number of candidates.
        candidates: usize,
    },
    /// The file of cached contexts could not be created.
    #[error("cannot keep contexts on disk: {source}")]
    Contexts {
        /// The system's error.
        source: std::io::Error,
    },
    /// Another machine of a distributed run failed.
    #[error("cannot exchange the sums of a step with the other machines: {source}")]
    Exchange {
        /// The cause.
        source: std::io::Error,
    },
    /// An invalid setting.
    #[error("{setting} must be {expected}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// The valid values.
        expected: &'static str,
    },
    /// An error of the task or the model.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// An error in the rows.
    #[error(transparent)]
    SoftPrompt(#[from] FormatError),
}

impl From<foreword_backbone::BackboneError> for TrainError {
    fn from(error: foreword_backbone::BackboneError) -> Self {
        Self::Task(error.into())
    }
}

/// The scale of learned rows, to which relative learning rates refer: the RMS of the embedding table, or of the initial
/// keys and values of a KV prefix.
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

/// The share of the [`scale`] that `auto` stands for. Adam's steps are about the learning rate per coordinate, so one share
/// fits models of any scale. A KV prefix has many more numbers, and overfits at the rate of a soft prompt.
#[must_use]
pub const fn learning_rate_share(method: Method) -> f64 {
    match method {
        Method::Prompt => 0.06,
        Method::Prefix => 0.01,
    }
}

/// The learning rate as a number, for rows of this scale.
fn peak(rate: LearningRate, method: Method, scale: f64) -> f64 {
    match rate {
        LearningRate::Auto => learning_rate_share(method) * scale,
        LearningRate::Share(share) => share * scale,
        LearningRate::Value(value) => value,
    }
}

/// Trains a soft prompt: continues from `start` (the init, or a [`TrainState`] of the same run), draws batches from
/// `train`, and keeps the best rows on `dev`. By default better means a lower loss: on a small dev set it says more than the
/// accuracy, which moves in steps of one example. Without dev examples the last rows are kept. The init itself is evaluated too and
/// may win.
///
/// # Errors
/// If there are no training examples, or the model does not support them.
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

/// Trains all candidates of `start` at once, as roots of one forest, each as if it were alone. Successive halving (Jamieson
/// & Talwalkar 2016) drops the worse half on dev, the first time early and then each time after twice as many steps, until
/// `config.survivors` are left.
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

/// As [`train_all`], on several machines. Each calls this with the same arguments except `reduce`, its own part in the sums
/// of every step, and runs every evaluation itself. All produce the result of a single machine, to the bit.
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
    // A batch contains no example twice.
    let batch_size = config.batch_size.min(train.n());
    let seeds: Vec<u64> = state.runs.iter().map(|run| run.seed.unwrap_or(config.seed)).collect();
    let orders = seeds
        .iter()
        .map(|&seed| Order::at(state.step, batch_size, train.n(), config.shuffle.then_some(seed)));
    let orders = orders.collect();
    let candidates = ContinuationSet::of(task, train);
    let weights = match (config.class_weights, task.verbalizer()) {
        (ClassWeights::Balanced, Some(labels)) => balanced(labels.n(), train.labels()),
        _ => Vec::new(),
    };
    let shared_prefix = &shared_prefix;
    let learner =
        Learner { reduce, shared_prefix, task, train, candidates, weights, config, batch_size, seeds };
    let (budget, keep_by) = (config.micro_batch_tokens, config.keep_by);
    let dev = dev.zip(dev_prefix).map(|(examples, shared_prefix)| Dev {
        shared_prefix,
        task,
        examples,
        keep_by,
        budget,
    });
    let ended = learner.run(&mut state, orders, dev.as_ref(), on_event)?;
    state.into_population(config.keep, ended)
}

/// The weight of each label by which all labels with examples have the same weight in total, with a mean of 1 over the
/// examples.
fn balanced(n_labels: usize, labels: &[usize]) -> Vec<f64> {
    let mut counts = vec![0_usize; n_labels];
    labels.iter().for_each(|&label| counts[label] += 1);
    let n_present = counts.iter().filter(|&&count| count > 0).count();
    let weight = |&count: &usize| labels.len() as f64 / (n_present * count.max(1)) as f64;
    counts.iter().map(weight).collect()
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
    if task.verbalizer().is_none() && config.class_weights != ClassWeights::None {
        return setting("class_weights", "none: a generation has no labels");
    }
    if task.verbalizer().is_none() && config.keep_by != KeepBy::Loss {
        return setting("keep_by", "loss: a generation has no labels");
    }
    if config.survivors == 0 {
        return setting("survivors", "at least 1");
    }
    config.regularizers.check()?;
    match config.length {
        Length::Steps(0) | Length::Plateau { most: 0 } => return setting("steps", "at least 1"),
        Length::Plateau { .. } if dev.is_none() => {
            return setting("length", "a number of steps, without dev examples");
        }
        Length::Plateau { .. } | Length::Time { .. } if n_candidates > 1 => {
            return setting("length", "a number of steps, for several candidates");
        }
        Length::Time { seconds, .. } if seconds.is_nan() || seconds <= 0.0 => {
            return setting("seconds", "greater than 0");
        }
        _ => {}
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
