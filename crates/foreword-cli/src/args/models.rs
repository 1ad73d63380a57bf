//! `foreword models`: where to search.

use std::path::PathBuf;

use clap::Args;

use super::OutputArgs;

pub(super) const EXAMPLES: &str = "Examples:
  foreword models
  foreword models ~/checkpoints
  foreword models --json";

/// `foreword models`
#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    /// A directory to search as well, with its subdirectories
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
