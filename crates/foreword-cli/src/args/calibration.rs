//! Calibration of label probabilities, and abstention.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use foreword::data::ReadOptions;
use foreword::prompt::calibration::{Calibrate, CalibrationRequest};
use foreword::settings::CalibrationMethod;

use super::from_zero_to_one;

/// The value of `--calibrate` for no calibration.
const NONE: &str = "none";

/// How label probabilities are computed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Probabilities")]
pub(crate) struct CalibrationArgs {
    /// Calibrate the probabilities: by a temperature fitted on labelled examples (temperature), by the label probabilities
    /// of inputs without content (content-free), or by the labels' means over a batch of texts (batch) [default: what is
    /// stored with the prompt, or none]
    #[arg(long, value_name = "HOW", value_parser = calibrate())]
    pub(crate) calibrate: Option<Calibrate>,
    /// Data to fit the calibration on: labelled examples for temperature, texts for batch [default for batch: the texts
    /// that are given]
    #[arg(long, value_name = "FILE", requires = "calibrate")]
    pub(crate) calibrate_on: Option<PathBuf>,
    /// Give no label if the largest probability is below this
    #[arg(long, value_name = "P", value_parser = from_zero_to_one)]
    pub(crate) abstain_below: Option<f64>,
}

impl CalibrationArgs {
    /// The calibration requested by the flags. `read`: how its file is read.
    pub(crate) fn request<'a>(&'a self, read: &'a ReadOptions) -> CalibrationRequest<'a> {
        CalibrationRequest { calibrate: self.calibrate, on: self.calibrate_on.as_deref(), read: Some(read) }
    }
}

fn calibrate() -> impl TypedValueParser<Value = Calibrate> {
    among(CalibrationMethod::ALL)
}

/// The methods that can change answers, and none.
pub(super) fn calibrate_answers() -> impl TypedValueParser<Value = Calibrate> {
    among(&[CalibrationMethod::ContentFree, CalibrationMethod::Batch])
}

fn among(methods: &'static [CalibrationMethod]) -> impl TypedValueParser<Value = Calibrate> {
    let names = methods.iter().map(|method| method.as_str());
    PossibleValuesParser::new(std::iter::once(NONE).chain(names)).try_map(|name| {
        if name == NONE { Ok(Calibrate(None)) } else { name.parse().map(|method| Calibrate(Some(method))) }
    })
}
