//! `foreword import` and `foreword export`: exchange of prompts with other tools.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{LabelArgs, MachineArgs, OutputArgs, TaskArgs};

pub(super) const IMPORT_EXAMPLES: &str = "Examples:
  foreword import prompt.npy --out sentiment
  foreword import decoder.pt --model ./Llama-2-7b --template '{text}\\nSentiment:' \\
      --labels 'neg= negative,pos= positive' --out sentiment
  foreword import from-peft --task 1 --out second-task      (MULTITASK_PROMPT_TUNING)";

pub(super) const EXPORT_EXAMPLES: &str = "Examples:
  foreword export sentiment --to npy sentiment.npy
  foreword export sentiment --to peft for-peft";

/// `foreword import`
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The prompt to import: a PEFT directory, an .npy file, or a torch file (.pt, .bin)
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Index of the task in a MULTITASK_PROMPT_TUNING prompt, from 0
    #[arg(long = "task", value_name = "N")]
    pub(crate) task_number: Option<usize>,
    /// The model of the prompt, to check it and to write a passport (metadata): the bundled foreword-tiny, or a directory
    /// [default: none; what is written is as from PEFT]
    #[arg(long, value_name = "NAME|DIR")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) labels: LabelArgs,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// The directory to write the prompt to [default: the name of what is read, with -prompt]
    #[arg(long = "out", id = "import_out", value_name = "DIR", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,
    /// Replace an existing prompt in --out
    #[arg(long, help_heading = "Output")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `foreword export`
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The prompt directory
    #[arg(value_name = "DIR")]
    pub(crate) prompt: PathBuf,
    /// Format: npy, an array [P, W] of single-precision numbers; or peft, a directory without the passport
    #[arg(long, value_name = "FORMAT")]
    pub(crate) to: ExportFormat,
    /// The file or directory to write
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Replace PATH if it exists
    #[arg(long, help_heading = "Output")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// The formats of an exported prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// A NumPy array.
    Npy,
    /// A PEFT directory.
    Peft,
}
