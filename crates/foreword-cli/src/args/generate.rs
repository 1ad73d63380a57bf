//! `foreword generate`: decoding options.

use std::path::PathBuf;

use clap::Args;

use super::{
    MachineArgs, OutputArgs, SourceArgs, TaskArgs, TextArgs, at_least_one, from_zero_to_one, not_negative,
    positive,
};
use crate::args::texts::Plain;

pub(super) const EXAMPLES: &str = "Examples:
  foreword generate --prompt restaurants 'name[Alimentum], area[city centre], familyFriendly[no]'
  foreword generate --prompt restaurants --data test.jsonl --json
  foreword generate --prompt restaurants --data places.csv --out described.csv
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
    /// Write a table to this .csv, .tsv, .jsonl or .parquet file instead of the texts: the fields of the data, then output
    /// and finish_reason (stop, or length where the text was cut)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,
    /// Replace an existing file in --out
    #[arg(long, requires = "out", help_heading = "Output")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// When generation stops.
#[derive(Debug, Args)]
#[command(next_help_heading = "Generation")]
pub(crate) struct NewTokensArgs {
    /// Maximum number of tokens to generate per text
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one())]
    pub(crate) max_new_tokens: Option<usize>,
    /// Stop before this string; can be repeated. \n is a newline, \t a tab, \\ a backslash
    #[arg(long, value_name = "STRING")]
    pub(crate) stop: Vec<Plain>,
}

/// How tokens are sampled.
#[derive(Debug, Args)]
#[command(next_help_heading = "Generation")]
pub(crate) struct SamplingArgs {
    /// Sampling temperature: 0 decodes greedily, 1 samples from the model's distribution, higher values flatten it
    #[arg(long, value_name = "T", value_parser = not_negative)]
    pub(crate) temperature: Option<f64>,
    /// Sample only from the N most likely tokens; 0: from all
    #[arg(long, value_name = "N")]
    pub(crate) top_k: Option<usize>,
    /// Sample only from the most likely tokens whose cumulative probability reaches this share; 1: from all
    #[arg(long, value_name = "SHARE", value_parser = from_zero_to_one)]
    pub(crate) top_p: Option<f64>,
    /// Penalty for tokens that already occurred: above 1 makes them less likely; 1: no penalty
    #[arg(long, value_name = "FACTOR", value_parser = positive)]
    pub(crate) repetition_penalty: Option<f64>,
    /// Random seed; the same seed gives the same texts
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}
