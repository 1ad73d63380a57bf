//! Soft prompt tuning: what is learned, from what, and how.
//!
//! A [`Task`] turns texts into tokens, a [`Stem`](stem::Stem) holds what all of them share, [`pass`] scores them and forms
//! the gradient of the learned rows, and [`train`](train::train) is the loop around it. Nothing here prints, reads
//! arguments or draws on any randomness but the seed.

pub mod score;
pub mod task;
pub mod train;

pub mod calibration;
pub mod candidates;
pub mod checkpoint;
pub mod context_tuning;
pub mod contexts;
pub mod continuations;
pub mod demonstrations;
pub mod explain;
pub mod generate;
pub mod init;
pub mod inspect;
pub mod memory;
pub mod metrics;
pub mod optimizer;
pub mod pace;
pub mod pass;
pub mod prefix;
pub mod progress;
pub mod record;
pub mod regularize;
pub mod similarity;
pub mod stem;

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

pub use progress::{Candidate, Progress};
pub use task::{Classification, Examples, Generation, Goal, Task, TaskError, Truths};
pub use train::{Ended, Event, Made, Outcome, Population, TrainConfig, TrainError, train, train_all};
