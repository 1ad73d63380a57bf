//! How far the probabilities of labels are to be trusted: their correction, and where no label is given.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use foreword::prompt::calibration::{Calibrate, CalibrationRequest};
use foreword::settings::CalibrationMethod;

use super::from_zero_to_one;

/// The name of no correction.
const NONE: &str = "none";

/// How labels' probabilities are made.
#[derive(Debug, Args)]
#[command(next_help_heading = "Probabilities")]
pub(crate) struct CalibrationArgs {
    /// Correct the probabilities: by a temperature fitted on labelled examples, by what the labels have for texts without
    /// content, or by their means over a batch of texts [default: what is stored with the prompt, or none]
    #[arg(long, value_name = "HOW", value_parser = calibrate())]
    pub(crate) calibrate: Option<Calibrate>,
    /// What the correction is fitted on: labelled examples for temperature, texts for batch [default for batch: the texts
    /// that are given]
    #[arg(long, value_name = "FILE", requires = "calibrate")]
    pub(crate) calibrate_on: Option<PathBuf>,
    /// Give no label where the largest probability is below this
    #[arg(long, value_name = "P", value_parser = from_zero_to_one)]
    pub(crate) abstain_below: Option<f64>,
}

impl CalibrationArgs {
    /// What is asked for.
    pub(crate) fn request(&self) -> CalibrationRequest<'_> {
        CalibrationRequest { calibrate: self.calibrate, on: self.calibrate_on.as_deref() }
    }
}

fn calibrate() -> impl TypedValueParser<Value = Calibrate> {
    among(CalibrationMethod::ALL)
}

/// Those of the methods that change answers, and none.
pub(super) fn calibrate_answers() -> impl TypedValueParser<Value = Calibrate> {
    among(&[CalibrationMethod::ContentFree, CalibrationMethod::Batch])
}

fn among(methods: &'static [CalibrationMethod]) -> impl TypedValueParser<Value = Calibrate> {
    let names = methods.iter().map(|method| method.as_str());
    PossibleValuesParser::new(std::iter::once(NONE).chain(names)).try_map(|name| {
        if name == NONE { Ok(Calibrate(None)) } else { name.parse().map(|method| Calibrate(Some(method))) }
    })
}
