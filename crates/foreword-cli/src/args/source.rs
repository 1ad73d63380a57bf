//! The model, and the prompt for it.

use std::path::PathBuf;

use clap::Args;
use foreword::TaskFile;

/// The model.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// The frozen model: the bundled foreword-tiny; a directory with config.json, tokenizer.json and safetensors; a .gguf
    /// file; or org/name[@revision] on the Hugging Face hub, downloaded once
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
}

/// The prompt and its model.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// The prompt directory, from foreword or from PEFT; `none` is the bare model
    #[arg(long, value_name = "DIR|none")]
    pub(crate) prompt: PathBuf,
    /// The model of the prompt, as in `foreword train --model` [default: the model recorded in the prompt,
    /// if bundled or on the Hugging Face hub]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
}

impl SourceArgs {
    /// Settings with only the model.
    pub(crate) fn stated(&self) -> TaskFile {
        TaskFile { model: self.model.clone(), ..TaskFile::default() }
    }
}

/// What to ignore of the model's configuration.
#[derive(Debug, Args)]
pub(crate) struct IgnoreConfigArgs {
    /// Ignore this key of the model's config.json, which Foreword does not understand: only if it changes nothing of what the
    /// model computes. The prompt remembers it. May be given several times
    #[arg(long = "ignore-config", value_name = "KEY", help_heading = "Model", hide_short_help = true)]
    pub(crate) keys: Vec<String>,
}

/// Whether to use the ensemble.
#[derive(Debug, Args)]
pub(crate) struct EnsembleArgs {
    /// Use all members of the ensemble that the prompt leads (foreword train --ensemble): the mean of their log-likelihoods
    #[arg(long)]
    pub(crate) ensemble: bool,
}
