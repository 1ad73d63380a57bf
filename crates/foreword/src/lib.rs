//! Teach a frozen language model a task by learning a few input vectors, a *soft prompt*.
//!
//! The model is never changed. What is learned is a small matrix that stands before every text; with the texts it was
//! learned from, it is the model's own foreword to the task. Here a bundled model of 3.9 million parameters learns from
//! six sentences, and then reads one that it has not seen:
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use foreword::settings::{Init, Joining, Method, Objective, Placement};
//! use foreword::{
//!     Bytes, ChatFiles, Classification, Cpu, Dataset, Goal, Model, ModelFiles, Task, Template, TrainConfig, Verbalizer,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A frozen model: this one is compiled in; `ModelFiles::directory` reads one from disk.
//! let model = Model::load(
//!     &ModelFiles {
//!         name: foreword_tiny::NAME.to_owned(),
//!         config: foreword_tiny::CONFIG.to_vec(),
//!         generation_config: None,
//!         tokenizer: foreword_tiny::TOKENIZER.to_vec(),
//!         chat: ChatFiles::default(),
//!         weights: vec![("model.safetensors".to_owned(), Bytes::from_static(foreword_tiny::WEIGHTS))],
//!         notices: Vec::new(),
//!     },
//!     Cpu::new(0)?,
//! )?;
//!
//! // Examples, and how they become text.
//! let rows = [
//!     ("A joy from start to finish.", "positive"),
//!     ("I want my two hours back.", "negative"),
//!     ("Warm, funny and beautifully acted.", "positive"),
//!     ("Flat jokes and cheap sets.", "negative"),
//!     ("The best western in years.", "positive"),
//!     ("Dull, long and far too loud.", "negative"),
//! ];
//! let rows = rows.map(|(text, label)| vec![text.to_owned(), label.to_owned()]).to_vec();
//! let data = Dataset::from_rows(vec!["text".to_owned(), "label".to_owned()], rows)?;
//! let labels = Verbalizer::default_strings(["negative", "positive"]);
//! let verbalizer = Verbalizer::new(&labels, &model.tokenizer)?;
//! let task = Task {
//!     template: Template::parse("{text}\nSentiment:")?,
//!     chat: None,
//!     text_field: None,
//!     goal: Goal::Classification(Classification { verbalizer, objective: Objective::Label }),
//!     joining: Joining::Whole,
//!     method: Method::Prompt,
//!     placement: Placement::Front,
//!     max_length: 512,
//! };
//!
//! // The soft prompt begins as words that the model knows, and learns.
//! let init = Init::Text("Classify the review as negative or positive.".to_owned());
//! let start = foreword::init::start(&model, &task, &init, 8, 0)?; // [P = 8, H]
//! let train = task.examples(&model, start.n_virtual(), &data, Some(data.require("label")?))?;
//! let config = TrainConfig { steps: 12, batch_size: 6, ..TrainConfig::default() };
//! let mut losses = Vec::new();
//! let outcome = foreword::train(&model, &task, (&train, None), start, &config, &mut |event| {
//!     if let foreword::Event::Step { made, .. } = event {
//!         losses.push(made.loss);
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! assert!(losses.last() < losses.first());
//!
//! // What it says of a new text.
//! let text = Dataset::from_texts(vec!["The movie was fantastic.".to_owned()])?;
//! let text = task.examples(&model, outcome.soft_prompt.n_virtual(), &text, None)?;
//! let prompts = [&outcome.soft_prompt];
//! let scores = task.log_likelihoods(&model, &prompts, &text, config.micro_batch_tokens, &mut |_| {})?;
//! println!("{}", task.classification()?.verbalizer.names()[foreword::score::best(&scores[0])]);
//! # Ok(())
//! # }
//! ```
//!
//! [`record::directory`] describes a run's outcome for PEFT and for Foreword, [`PromptDirectory`] writes and reads it,
//! and [`record::check_fit`] and [`record::task`] bring it back to the model it was made for.

pub use foreword_tune::{
    calibration, candidates, chat, checkpoint, context_tuning, continuations, data, demonstrations, encode,
    engine, explain, frozen_texts, generate, init, inspect, joint, lint, memory, metrics, optimizer, pass,
    prefix, record, reduce, regularize, score, settings, similarity, state, step_time, task, task_file,
    template, train, verbalizer,
};

pub use foreword_tune::data::{DataError, Dataset};
pub use foreword_tune::metrics::{Confusion, Evaluation};
pub use foreword_tune::task_file::TaskFile;
pub use foreword_tune::template::Template;
pub use foreword_tune::verbalizer::Verbalizer;
pub use foreword_tune::{
    Candidate, Classification, Event, Examples, Generation, Goal, GroundTruth, Outcome, Population,
    StepStats, StopReason, Task, TaskError, TrainConfig, TrainError, TrainState, train_all,
};

pub use foreword_backbone as backbone;
pub use foreword_backbone::{
    Backbone, BackboneError, ChatFiles, Identity, Model, ModelFiles, Spec, Survey, Tokenizer,
};
pub use foreword_backbone::{TokenizerError, tokenizer};

pub use foreword_format as format;
pub use foreword_format::{AdapterConfig, FormatError, Overwrite, Passport, PromptDirectory, SoftPrompt};

pub use foreword_kernels as kernels;
pub use foreword_kernels::{Backend, Bytes, Cpu, Reference};
