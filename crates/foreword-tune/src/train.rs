//! The loop that learns a soft prompt. It tells what happens as events; it never prints and never touches the disk.

use std::ops::ControlFlow;
use std::time::Instant;

use foreword_backbone::kernels::{Backend, Element};
use foreword_backbone::{Model, Taped};
use foreword_format::{FormatError, SoftPrompt};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::metrics::Evaluation;
use crate::optimizer::{AdamW, clip, rate};
use crate::pass::{Budget, Lesson, loss_and_gradient};
use crate::settings::{Keep, LearningRate, Objective, Placement, Schedule, Warmup};
use crate::task::{Candidates, Examples, Task, TaskError};

/// Where a soft prompt stands if nothing else is said: where PEFT can use it too.
pub const DEFAULT_PLACEMENT: Placement = Placement::Front;
/// What the loss of a label is if nothing else is said: the choice among the labels, which is what is asked for.
pub const DEFAULT_OBJECTIVE: Objective = Objective::Label;
/// Rows of a soft prompt where nothing else is said: 20 to 50 is where more rows stop helping (Lester et al. 2021).
pub const DEFAULT_VIRTUAL_TOKENS: usize = 20;
/// Tokens of template, text and label or target where nothing else is said.
pub const DEFAULT_MAX_LENGTH: usize = 512;
/// Tokens computed at a time where nothing else is said: enough rows to keep the products busy, few enough for the
/// activations of one micro-batch to stay small.
pub const DEFAULT_MICRO_BATCH_TOKENS: usize = 2048;
/// `auto` is this share of the embedding table's RMS: Adam's steps are about the learning rate per coordinate, so one
/// share fits models of any scale.
pub const LEARNING_RATE_SHARE: f64 = 0.03;
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
    /// Most tokens computed at a time.
    pub micro_batch_tokens: usize,
    /// Compute activations a second time in the backward pass instead of keeping them: a third slower, in less memory.
    pub recompute: bool,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 400,
            batch_size: 32,
            learning_rate: LearningRate::Auto,
            schedule: Schedule::Cosine,
            warmup: Warmup::Share(0.05),
            max_grad_norm: 1.0,
            weight_decay: 0.0,
            shuffle: true,
            eval_every: None,
            patience: 5,
            keep: Keep::Best,
            seed: 0,
            micro_batch_tokens: DEFAULT_MICRO_BATCH_TOKENS,
            recompute: false,
        }
    }
}

impl TrainConfig {
    /// The learning rate in numbers, for an embedding table of this RMS.
    #[must_use]
    pub fn peak_rate(&self, embedding_rms: f64) -> f64 {
        match self.learning_rate {
            LearningRate::Auto => LEARNING_RATE_SHARE * embedding_rms,
            LearningRate::Value(value) => value,
        }
    }

    /// How much of a step is in memory at a time.
    #[must_use]
    pub fn budget(&self) -> Budget {
        let tape = if self.recompute { Taped::Inputs } else { Taped::All };
        Budget { tokens: self.micro_batch_tokens, tape }
    }

    /// Whether dev is to be evaluated now: at the beginning, since the init is what the run must beat, every so many
    /// steps, and at the end.
    fn evaluates(&self, progress: &Progress) -> bool {
        let step = progress.step;
        let every = self.eval_every.unwrap_or_else(|| self.steps.div_ceil(EVALUATIONS));
        let due = step == 0 || step == self.steps || (every > 0 && step.is_multiple_of(every));
        due && progress.evaluated != Some(step)
    }
}

/// What happens during a run. Each event brings the progress, for whoever keeps checkpoints.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An update was made.
    Step {
        /// Its numbers.
        made: Made,
        /// The run so far.
        progress: &'a Progress,
    },
    /// Dev was evaluated; step 0 is the init.
    Eval {
        /// Updates made so far.
        step: u64,
        /// Scores.
        evaluation: &'a Evaluation,
        /// No earlier evaluation was better.
        best: bool,
        /// The run so far.
        progress: &'a Progress,
    },
}

/// An update in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Made {
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
pub enum Ended {
    /// All steps were made.
    Finished,
    /// Dev did not get better any more.
    EarlyStopped,
    /// The receiver of the events asked for it.
    Stopped,
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
    pub ended: Ended,
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
    Truths {
        /// Number of examples.
        examples: usize,
        /// Number of labels or targets.
        truths: usize,
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

/// Learns: goes on from `start` (the init, or a [`Progress`] of the same run), takes batches of `train`, keeps what is best
/// on `dev`. Better is a lower loss: on a small dev set it says more than the accuracy, which moves in steps of one
/// example. Without dev examples the last rows are kept. The init itself is evaluated too and may win.
///
/// # Errors
/// If there is nothing to learn from, or the model can't take the examples.
pub fn train<B: Backend>(
    model: &Model<B>,
    task: &Task,
    (train, dev): (&Examples, Option<&Examples>),
    start: impl Into<Progress>,
    config: &TrainConfig,
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Outcome, TrainError> {
    check(task, train, dev, config)?;
    let mut progress = start.into();
    let stem = task.stem(model, train, progress.n_virtual())?;
    let candidates = Candidates::of(task, train);
    let peak = config.peak_rate(model.backbone.embedding_rms());
    // A batch holds no example twice.
    let batch_size = config.batch_size.min(train.n());
    let mut order = Order::at(progress.step, batch_size, train.n(), config);
    let dev = dev.map(|examples| Dev { model, task, examples, budget: config.micro_batch_tokens });
    let mut ended = Ended::Finished;

    let mut flow = ControlFlow::Continue(());
    loop {
        if let (Some(dev), true) = (&dev, flow.is_continue() && config.evaluates(&progress)) {
            flow = match dev.evaluate(&mut progress, on_event) {
                // The rows are finite, but what the model makes of them is not.
                Err(TrainError::Task(TaskError::NotFinite { .. })) if progress.step > 0 => {
                    ended = Ended::Diverged { step: progress.step };
                    break;
                }
                flow => flow?,
            };
        }
        if progress.step == config.steps {
            break;
        }
        if flow.is_break() {
            ended = Ended::Stopped;
            break;
        }
        if config.patience > 0 && progress.since_best >= config.patience {
            ended = Ended::EarlyStopped;
            break;
        }
        let (started, step) = (Instant::now(), progress.step + 1);
        let learning_rate = peak * rate(step, config.steps, config.warmup, config.schedule);

        let batch = order.next_batch(batch_size);
        let lessons: Vec<Lesson<'_>> = batch.iter().map(|&i| candidates.lesson(train, i)).collect();
        let roots = [&progress.values[..]];
        let pass = loss_and_gradient(&stem, &roots, &lessons, task.objective(), config.budget())?;
        let loss = pass[0].loss;
        let mut gradient: Vec<f32> = pass[0].gradient.iter().map(|d| d.as_f32()).collect();

        let grad_norm = clip(&mut gradient, config.max_grad_norm);
        let mut values = progress.values.clone();
        progress.optimizer.update(&mut values, &gradient, learning_rate, config.weight_decay);
        if !(loss.is_finite() && grad_norm.is_finite() && values.iter().all(|v| v.is_finite())) {
            ended = Ended::Diverged { step };
            break;
        }
        (progress.values, progress.step) = (values, step);
        let seconds = started.elapsed().as_secs_f64() + train.seconds * batch.len() as f64 / train.n() as f64;
        let examples_per_second = batch.len() as f64 / seconds;
        let made = Made { step, loss, learning_rate, grad_norm, examples_per_second };
        flow = on_event(Event::Step { made, progress: &progress });
    }
    Ok(progress.outcome(config.keep, ended)?)
}

/// What a run has come to: all that is needed to go on with it, or to end it.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    pub(crate) hidden: usize,
    pub(crate) step: u64,
    pub(crate) values: Vec<f32>,
    pub(crate) optimizer: AdamW,
    pub(crate) best: Option<Best>,
    pub(crate) since_best: u64,
    /// Updates made at the last evaluation.
    pub(crate) evaluated: Option<u64>,
}

/// The best rows so far.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Best {
    pub(crate) values: Vec<f32>,
    pub(crate) step: u64,
    pub(crate) loss: f64,
}

impl From<SoftPrompt> for Progress {
    /// The beginning: nothing is learned yet.
    fn from(init: SoftPrompt) -> Self {
        let hidden = init.hidden();
        let values = init.into_values();
        Self {
            hidden,
            step: 0,
            optimizer: AdamW::new(values.len()),
            values,
            best: None,
            since_best: 0,
            evaluated: None,
        }
    }
}

impl Progress {
    /// Updates made so far.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// P.
    #[must_use]
    pub fn n_virtual(&self) -> usize {
        self.values.len() / self.hidden
    }

    /// The rows as they now are, `[P, H]`.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    fn outcome(self, keep: Keep, ended: Ended) -> Result<Outcome, FormatError> {
        let (n_virtual, steps) = (self.n_virtual(), self.step);
        let (values, best_step) = match self.best {
            Some(best) if keep == Keep::Best => (best.values, best.step),
            _ => (self.values, self.step),
        };
        Ok(Outcome { soft_prompt: SoftPrompt::new(values, n_virtual, self.hidden)?, steps, best_step, ended })
    }
}

/// The examples by which the best rows are chosen.
struct Dev<'a, B: Backend> {
    model: &'a Model<B>,
    task: &'a Task,
    examples: &'a Examples,
    budget: usize,
}

impl<B: Backend> Dev<'_, B> {
    /// Evaluates the rows as they now are and remembers them if they are the best so far.
    fn evaluate(
        &self,
        progress: &mut Progress,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TrainError> {
        let evaluation =
            self.task.evaluate(self.model, &progress.values, self.examples, self.budget, &mut |_| {})?;
        let (step, loss) = (progress.step, evaluation.loss);
        progress.evaluated = Some(step);
        let best = progress.best.as_ref().is_none_or(|best| loss < best.loss);
        if best {
            progress.best = Some(Best { values: progress.values.clone(), step, loss });
            progress.since_best = 0;
        } else {
            progress.since_best += 1;
        }
        Ok(on_event(Event::Eval { step, evaluation: &evaluation, best, progress }))
    }
}

fn check(
    task: &Task,
    train: &Examples,
    dev: Option<&Examples>,
    config: &TrainConfig,
) -> Result<(), TrainError> {
    let setting = |setting, expected| Err(TrainError::Setting { setting, expected });
    for examples in std::iter::once(train).chain(dev) {
        let truths = Candidates::of(task, examples).n();
        if truths != examples.n() {
            return Err(TrainError::Truths { examples: examples.n(), truths });
        }
    }
    if train.n() == 0 {
        return Err(TrainError::NoExamples);
    }
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

/// The order of the examples: each epoch's by the seed and the epoch alone.
struct Order {
    indices: Vec<usize>,
    next: usize,
    epoch: u64,
    seed: Option<u64>,
}

impl Order {
    /// The order of `n` examples after `step` batches.
    fn at(step: u64, batch_size: usize, n: usize, config: &TrainConfig) -> Self {
        let seed = config.shuffle.then_some(config.seed);
        let taken = u128::from(step) * batch_size as u128;
        let (epoch, next) = ((taken / n as u128) as u64, (taken % n as u128) as usize);
        let mut order = Self { indices: (0..n).collect(), next, epoch, seed };
        order.shuffle();
        order
    }

    /// The next examples; where the epoch ends, the next one's follow.
    fn next_batch(&mut self, size: usize) -> Vec<usize> {
        let mut batch = Vec::with_capacity(size.min(self.indices.len()));
        while batch.len() < size {
            if self.next == self.indices.len() {
                self.epoch += 1;
                self.next = 0;
                self.shuffle();
            }
            batch.push(self.indices[self.next]);
            self.next += 1;
        }
        batch
    }

    /// Fisher and Yates's shuffle of the examples in their own order.
    fn shuffle(&mut self) {
        let Some(seed) = self.seed else { return };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(self.epoch);
        self.indices.sort_unstable();
        for i in (1..self.indices.len()).rev() {
            // The remainder favours small numbers by less than n / 2⁶⁴.
            self.indices.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
        }
    }
}
