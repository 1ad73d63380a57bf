//! The prompt directory: reads, validates and writes soft prompts, in PEFT's format and with a passport (metadata).
//!
//! ```text
//! adapter_config.json          PEFT's configuration; only if PEFT would compute the same
//! adapter_model.safetensors    `prompt_embeddings` [P, H] F32
//! foreword.json                the passport (metadata): model, tokenizer and template of the prompt
//! ```
//!
//! [`PromptDirectory::read`] and [`PromptDirectory::write`] are the whole interface. Readers trust nothing: names, sizes,
//! shapes and finiteness are checked before memory is allocated, and only [`foreign`] reads pickles, without executing
//! them. Files are written completely or not at all, and the same input gives the same bytes.
//!
//! ```
//! use foreword_format::{AdapterConfig, Overwrite, PromptDirectory, SoftPrompt};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let scratch = tempfile::tempdir()?;
//! # let dir = scratch.path().join("sentiment");
//! let rows = SoftPrompt::new(vec![0.5; 2 * 4], 2, 4)?; // [P, H]
//! let adapter = AdapterConfig::causal_lm(2, 4)?;
//! let prompt = PromptDirectory { rows, adapter: Some(adapter), passport: None };
//! prompt.write(&dir, Overwrite::Refuse)?;
//! assert_eq!(PromptDirectory::read(&dir)?, prompt);
//! # Ok(())
//! # }
//! ```

mod adapter;
mod choices;
pub mod digest;
mod directory;
mod error;
pub mod foreign;
mod hub_name;
mod passport;
mod soft_prompt;
mod tensors;
mod whole;

pub use adapter::{AdapterConfig, PeftTask, PeftType, WRITTEN_PEFT_VERSION};
pub use choices::{
    CalibrationMethod, ClassWeights, Joining, Keep, KeepBy, Method, Objective, Placement, Schedule, TaskKind,
    UnknownName,
};
pub use directory::{
    ADAPTER_FILE, CHECKPOINT_DIR, LOCK_FILE, Overwrite, PASSPORT_FILE, PICKLE_FILE, PromptDirectory,
    TENSORS_FILE, check_vacant,
};
pub use error::{FormatError, Origin};
pub use hub_name::HubName;
pub use passport::{
    BaseModel, CalibrationRecord, ChatRecord, DataRecord, EmbeddingFingerprint, FORMAT_VERSION, Passport,
    TaskRecord, TrainingRecord,
};
pub use soft_prompt::SoftPrompt;
pub use whole::{write_whole, write_whole_by};
