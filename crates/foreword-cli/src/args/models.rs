//! `foreword models`: where to look for them.

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
    /// A directory below which to look as well
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
