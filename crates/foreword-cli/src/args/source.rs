//! Which model, and which prompt on it.

use std::path::PathBuf;

use clap::Args;
use foreword::TaskFile;

/// Which model.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// The frozen model: the bundled foreword-tiny; a directory with config.json, tokenizer.json and safetensors; a .gguf file; or
    /// org/name of the Hugging Face hub, with @revision where one is meant, which is downloaded once
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
}

/// Which prompt, on which model.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// The prompt directory, from foreword or from PEFT; `none` is the bare model
    #[arg(long, value_name = "DIR|none")]
    pub(crate) prompt: PathBuf,
    /// The model that the prompt was made for, as foreword train takes it [default: the prompt's own where that is the bundled
    /// one or of the Hugging Face hub]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
}

impl SourceArgs {
    /// Settings that name the model alone.
    pub(crate) fn stated(&self) -> TaskFile {
        TaskFile { model: self.model.clone(), ..TaskFile::default() }
    }
}

/// Whether an ensemble is asked.
#[derive(Debug, Args)]
pub(crate) struct EnsembleArgs {
    /// Ask all members of the ensemble that the prompt is the best of (foreword train --ensemble): the mean of their
    /// log-likelihoods
    #[arg(long)]
    pub(crate) ensemble: bool,
}
