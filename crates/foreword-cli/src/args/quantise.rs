//! `foreword quantise`: the model, the format and the output file.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use foreword::backbone::Quantisation;

use super::{IgnoreConfigArgs, OutputArgs};

pub(super) const EXAMPLES: &str = "Examples:
  foreword quantise ./Qwen2.5-7B qwen-q4.gguf --to q4_k
  foreword quantise foreword-tiny tiny-q8.gguf
  foreword train reviews.jsonl --model qwen-q4.gguf";

/// `foreword quantise`
#[derive(Debug, Args)]
pub(crate) struct QuantiseArgs {
    /// The model, as in `foreword train --model`
    #[arg(value_name = "MODEL")]
    pub(crate) source: String,
    /// The file to write, with the extension .gguf
    #[arg(value_name = "OUT")]
    pub(crate) file: PathBuf,
    /// Format of the matrices; q4_k stores the vocabulary in q6_k, q4_0 stores it in q8_0
    #[arg(long, value_name = "FORMAT", default_value = Quantisation::Q8_0.as_str(), value_parser = formats())]
    pub(crate) to: Quantisation,
    #[command(flatten)]
    pub(crate) ignore_config: IgnoreConfigArgs,
    /// Replace OUT if it exists
    #[arg(long, help_heading = "Output")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Parses a format name.
fn formats() -> impl clap::builder::TypedValueParser<Value = Quantisation> {
    let named = |name: String| Quantisation::ALL.into_iter().find(|format| format.as_str() == name);
    PossibleValuesParser::new(Quantisation::ALL.map(Quantisation::as_str))
        .try_map(move |name| named(name).ok_or("no format of that name"))
}
