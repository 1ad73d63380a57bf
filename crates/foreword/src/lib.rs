//! Teach a frozen language model a task by learning a few input vectors, a *soft prompt*.
//!
//! The model never changes. The learned soft prompt is a small matrix that precedes every text: the model's own foreword to
//! the task.
//!
//! ```
//! use foreword::{LoadedPrompt, OutputDir, Run, RunPlan, TaskFile};
//!
//! # fn main() -> foreword::Result<()> {
//! # let dir = std::env::temp_dir().join(format!("foreword-front-page-{}", std::process::id()));
//! # std::fs::create_dir_all(&dir).unwrap();
//! # std::env::set_current_dir(&dir).unwrap();
//! # std::fs::write("reviews.csv", "text,label
//! # A joy from start to finish.,positive
//! # I want my two hours back.,negative
//! # Warm and funny.,positive
//! # Flat jokes and cheap sets.,negative
//! # The best western in years.,positive
//! # Dull and far too loud.,negative
//! # ".replace("# ", "")).unwrap();
//! let mut settings = TaskFile::default(); // the bundled model, and the defaults of the program
//! settings.data.train = Some("reviews.csv".into());
//! # settings.train.steps = Some(4);
//! let plan = RunPlan::new(&settings, OutputDir::new("sentiment")?)?;
//! let result = Run::new(plan).start(&mut |event| println!("{event:?}"))?;
//! println!("best step: {}", result.outcome.best_step);
//!
//! let prompt = LoadedPrompt::open("sentiment")?;
//! let prediction = &prompt.classify(&["The movie was fantastic."])?[0];
//! println!("{:?} ({:.3})", prediction.label, prediction.probability);
//! # Ok(())
//! # }
//! ```
//!
//! | type | purpose |
//! |---|---|
//! | [`Model`] | a frozen model, opened by name on a device |
//! | [`RunPlan`] and [`Run`] | a resolved and checked run, with its events and its result; [`Cancel`] stops it from any thread |
//! | [`LoadedPrompt`] | a prompt with its model and its task: classifies, scores, generates, evaluates |
//! | [`Notice`] and [`Error`] | remarks and warnings for an [`Observer`]; errors with a [hint](Error::hint) |
//!
//! | module | what is inside |
//! |---|---|
//! | [`plan`], [`run`], [`compare`](mod@compare), [`verdict`] | a run resolved; a run; prompts beside baselines; whether a prompt is worth it |
//! | [`prompt`], [`exchange`] | prompts opened, measured, corrected; compiled, imported, compared |
//! | [`source`], [`models`](mod@models), [`device`], [`system`] | where models are; which there are; what they compute on |
//! | [`error`], [`notice`], [`events`], [`display`], [`fields`] | what is said, and how numbers are written |
//!
//! [`Event`] and the other values of [`events`] serialise: they are the contract of the program's `--json`. Programs that
//! need more use the building blocks below: the [`Task`], [`train`](mod@train), [`pass`] and so on.

pub mod compare;
pub mod device;
pub mod display;
pub mod error;
pub mod events;
pub mod exchange;
pub mod fields;
mod model;
pub mod models;
pub mod notice;
pub mod plan;
pub mod prompt;
pub mod run;
pub mod source;
pub mod system;
pub mod verdict;

pub use error::{Error, ErrorKind, Result, UserError};
pub use events::Event;
/// The name of the bundled model.
pub use foreword_tiny::NAME as BUNDLED_MODEL;
pub use model::{Model, Resources};
pub use notice::{Level, Notice, Notices, Observer, Progress};
pub use plan::output::OutputDir;
pub use plan::{PlanSummary, RunPlan};
pub use prompt::{Classifier, LoadedPrompt, OpenRequest, Prediction, Purpose, TextGenerator};
pub use run::{Cancel, Run, RunResult, SplitScores};

pub use foreword_tune::{
    calibration, candidates, chat, checkpoint, context_tuning, continuations, data, demonstrations, encode,
    engine, explain, frozen_texts, generate, init, inspect, joint, likelihood, lint, memory, metrics,
    optimizer, pass, prefix, record, reduce, regularize, score, settings, similarity, state, task, task_file,
    template, train, verbalizer,
};

#[cfg(feature = "clap")]
pub use foreword_tune::flags;

pub use foreword_tune::data::{DataError, Dataset};
pub use foreword_tune::metrics::{Confusion, Evaluation};
pub use foreword_tune::task_file::TaskFile;
pub use foreword_tune::template::Template;
pub use foreword_tune::verbalizer::Verbalizer;
pub use foreword_tune::{
    Candidate, Classification, Examples, Generation, Goal, GroundTruth, Outcome, Population, StepStats,
    StopReason, Task, TaskError, TrainConfig, TrainError, TrainState, train_all,
};

pub use foreword_backbone as backbone;
pub use foreword_backbone::{
    Backbone, BackboneError, ChatFiles, Identity, ModelFiles, ModelInfo, Spec, Tokenizer,
};
pub use foreword_backbone::{TokenizerError, tokenizer};

pub use foreword_format as format;
pub use foreword_format::{AdapterConfig, FormatError, Overwrite, Passport, PromptDirectory, SoftPrompt};

pub use foreword_kernels as kernels;
pub use foreword_kernels::{Backend, Bytes, Cpu, Reference};
