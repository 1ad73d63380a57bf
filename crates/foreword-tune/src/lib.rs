//! Soft prompt tuning: tasks, training, evaluation and generation.
//!
//! | module | contents |
//! |---|---|
//! | [`settings`] | the choices, the task file, the flags |
//! | [`task`] | a [`Task`]: how texts, labels and targets become tokens |
//! | [`engine`] | the computation: prompts as prefixes, batches below them, losses, gradients, generation |
//! | [`train`](mod@train) | the training loop: init, candidates, optimizer, state, checkpoints, memory, the record of a run |
//! | [`eval`] | predictions, metrics and calibration |
//! | [`insight`] | explains and inspects prompts; baselines without tuning |
//!
//! This library does not print, read arguments, or use any randomness but the seed.

pub mod engine;
pub mod eval;
pub mod insight;
pub mod settings;
pub mod task;
pub mod train;

pub use engine::{frozen_texts, generate, pass, prefix, reduce, score};
pub use eval::{calibration, likelihood, metrics};
pub use foreword_data::{self as data, lint, template};
pub use insight::{demonstrations, explain, inspect, similarity};
#[cfg(feature = "clap")]
pub use settings::flags;
pub use settings::task_file;
pub use task::{chat, continuations, encode, joint, verbalizer};
pub(crate) use train::order;
pub use train::{candidates, checkpoint, context_tuning, init, memory, optimizer, record, regularize, state};

pub use state::{Candidate, TrainState};
pub use task::{Classification, Examples, Generation, Goal, GroundTruth, Task, TaskError};
pub use train::{
    Event, Length, Outcome, Population, StepStats, StopReason, TrainConfig, TrainError, train, train_all,
};
