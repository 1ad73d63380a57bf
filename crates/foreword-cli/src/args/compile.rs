//! `foreword compile`: the soft prompt, and the directory for its KV prefix.

use std::path::PathBuf;

use clap::Args;

use super::{MachineArgs, OutputArgs};

pub(super) const EXAMPLES: &str = "Examples:
  foreword compile sentiment-prompt --out sentiment-prefix
  foreword compile reviews-prompt --model ./Qwen2.5-0.5B --out reviews-prefix
  foreword classify --prompt sentiment-prefix 'The movie was fantastic.'     (the same answer, to the bit)";

/// `foreword compile`
#[derive(Debug, Args)]
pub(crate) struct CompileArgs {
    /// The directory of the soft prompt, from foreword or from PEFT
    #[arg(value_name = "DIR")]
    pub(crate) prompt: PathBuf,
    /// The model of the prompt, as in `foreword train --model` [default: the model recorded in the prompt,
    /// if bundled or on the Hugging Face hub]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// The directory to write the KV prefix to [default: the soft prompt's with -prefix]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,
    /// Replace an existing prompt in --out
    #[arg(long, help_heading = "Output")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
