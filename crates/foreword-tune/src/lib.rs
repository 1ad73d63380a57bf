//! Soft prompt tuning: what is learned, from what, and how.
//!
//! A [`Task`] turns texts into tokens, the [`engine`] scores them below prompts, forms the gradient of the learned rows and writes
//! texts, and [`train`](train::train) is the loop around it. Nothing here prints, reads arguments or draws on any randomness but the
//! seed.

pub mod engine;
pub mod task;
pub mod train;

pub mod calibration;
pub mod candidates;
pub mod checkpoint;
pub mod context_tuning;
pub mod continuations;
pub mod demonstrations;
pub mod explain;
pub mod init;
pub mod inspect;
pub mod memory;
pub mod metrics;
pub mod optimizer;
pub mod record;
pub mod regularize;
pub mod similarity;
pub mod state;

pub mod chat;
pub mod encode;
#[cfg(feature = "clap")]
pub mod flags;
pub mod joint;
pub mod settings;
pub mod task_file;
pub mod verbalizer;

mod order;
mod queries;

pub use engine::{frozen_texts, generate, pass, prefix, reduce, score};
pub use foreword_data::{self as data, lint, template};
pub use state::{Candidate, TrainState};
pub use task::{Classification, Examples, Generation, Goal, GroundTruth, Task, TaskError};
pub use train::{
    Event, Outcome, Population, StepStats, StopReason, TrainConfig, TrainError, train, train_all,
};
