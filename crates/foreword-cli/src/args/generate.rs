//! `foreword generate`: how texts are written.

use clap::Args;

use super::{
    MachineArgs, OutputArgs, SourceArgs, TaskArgs, TextArgs, at_least_one, from_zero_to_one, not_negative,
    positive,
};
use crate::args::texts::Plain;

pub(super) const EXAMPLES: &str = "Examples:
  foreword generate --prompt restaurants 'name[Alimentum], area[city centre], familyFriendly[no]'
  foreword generate --prompt restaurants --data test.jsonl --json
  foreword generate --prompt none --template '{text}' --temperature 0.8 --top-p 0.9 'The movie was'     (the bare model)
  cat questions.txt | foreword generate --prompt answers --stop '\\n' -";

/// `foreword generate`
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) texts: TextArgs,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) new_tokens: NewTokensArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Where a text ends.
#[derive(Debug, Args)]
#[command(next_help_heading = "Generation")]
pub(crate) struct NewTokensArgs {
    /// The most tokens of a text that is written
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one())]
    pub(crate) max_new_tokens: Option<usize>,
    /// End a text before this string; may be given several times. \n is a newline, \t a tab, \\ a backslash
    #[arg(long, value_name = "STRING")]
    pub(crate) stop: Vec<Plain>,
}

/// How a token is chosen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Generation")]
pub(crate) struct SamplingArgs {
    /// How freely tokens are drawn: 0 takes the likeliest, 1 draws as the model would, more evens out
    #[arg(long, value_name = "T", value_parser = not_negative)]
    pub(crate) temperature: Option<f64>,
    /// Draw from so many of the likeliest tokens only; 0: from all
    #[arg(long, value_name = "N")]
    pub(crate) top_k: Option<usize>,
    /// Draw only from the likeliest tokens whose probabilities together reach this share; 1: from all
    #[arg(long, value_name = "SHARE", value_parser = from_zero_to_one)]
    pub(crate) top_p: Option<f64>,
    /// Make tokens that were there already less likely: above 1; 1 leaves them as they are
    #[arg(long, value_name = "FACTOR", value_parser = positive)]
    pub(crate) repetition_penalty: Option<f64>,
    /// What all that is drawn by chance is drawn from: the same seed gives the same texts
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}
