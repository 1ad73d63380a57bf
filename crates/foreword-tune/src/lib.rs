//! Soft prompt tuning: what is learned, from what, and how.
//!
//! A [`Task`] turns texts into tokens, a [`SharedPrefix`](shared_prefix::SharedPrefix) holds what all of them share, [`pass`] scores them and forms
//! the gradient of the learned rows, and [`train`](train::train) is the loop around it. Nothing here prints, reads
//! arguments or draws on any randomness but the seed.

pub mod score;
pub mod task;
pub mod train;

pub mod calibration;
pub mod candidates;
pub mod checkpoint;
pub mod context_tuning;
pub mod continuations;
pub mod demonstrations;
pub mod explain;
pub mod frozen_texts;
pub mod generate;
pub mod init;
pub mod inspect;
pub mod memory;
pub mod metrics;
pub mod optimizer;
pub mod pass;
pub mod prefix;
pub mod record;
pub mod reduce;
pub mod regularize;
pub mod shared_prefix;
pub mod similarity;
pub mod state;
pub mod step_time;

pub mod chat;
pub mod data;
pub mod encode;
pub mod joint;
pub mod lint;
pub mod settings;
pub mod task_file;
pub mod template;
pub mod verbalizer;

mod order;
mod queries;
mod spelling;

pub use state::{Candidate, TrainState};
pub use task::{Classification, Examples, Generation, Goal, GroundTruth, Task, TaskError};
pub use train::{
    Event, Outcome, Population, StepStats, StopReason, TrainConfig, TrainError, train, train_all,
};
