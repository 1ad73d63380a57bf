//! The answer of `compare`.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::settings::CalibrationMethod;
use serde::Serialize;

use super::{LabelScores, per_label};
use crate::compare::{Comparison, ComparisonSetup, Kind, Row};

/// A comparison in numbers.
#[derive(Debug, Serialize)]
pub struct Compared<'a> {
    n: u64,
    model: &'a str,
    template: &'a str,
    instruction: &'a str,
    /// How the rows without tuning are corrected.
    calibrate: Option<&'static str>,
    /// The name of the row that the others are tested against.
    reference: Option<&'a str>,
    rows: Vec<RowLine<'a>>,
    flips: Option<Flips<'a>>,
    fine_tuning: FineTuning,
    verdict: &'a str,
}

#[derive(Debug, Serialize)]
struct RowLine<'a> {
    kind: &'static str,
    /// `prompt` or `prefix`; nothing where nothing was learned, or not the same for all.
    method: Option<String>,
    name: &'a str,
    accuracy: f64,
    interval: (f64, f64),
    macro_f1: f64,
    loss: Option<f64>,
    learned: u64,
    bytes: u64,
    tokens_before: usize,
    cut: usize,
    /// 0 where nothing is trained; a prompt does not record it.
    training_seconds: Option<f64>,
    milliseconds_per_text: Option<f64>,
    per_label: BTreeMap<&'a str, LabelScores>,
    /// The reference against this row; nothing for the reference itself.
    against: Option<Against>,
}

#[derive(Debug, Serialize)]
struct Against {
    difference: f64,
    interval: (f64, f64),
    only_reference: u64,
    only_this: u64,
    p: f64,
}

/// Examples on which the first prompt and the bare model differ in being right.
#[derive(Debug, Serialize)]
struct Flips<'a> {
    n_corrected: usize,
    n_spoiled: usize,
    corrected: Vec<Flip<'a>>,
    spoiled: Vec<Flip<'a>>,
}

#[derive(Debug, Serialize)]
struct Flip<'a> {
    text: &'a str,
    label: &'a str,
    without: &'a str,
    with: &'a str,
}

/// Computed, not run.
#[derive(Debug, Serialize)]
struct FineTuning {
    learned: u64,
    bytes: u64,
}

impl<'a> Compared<'a> {
    /// The answer, with so many examples in each direction.
    pub fn of(
        setup: &'a ComparisonSetup,
        comparison: &'a Comparison,
        n_flips: usize,
        verdict: &'a str,
    ) -> Result<Self> {
        let rows = comparison.rows.iter().enumerate().map(|(at, row)| {
            let against = comparison.against(at, &setup.truths).map(|paired| Against {
                difference: paired.difference(),
                interval: paired.interval(),
                only_reference: paired.only_first,
                only_this: paired.only_second,
                p: paired.p_value(),
            });
            line(setup, row, against)
        });
        let rows = rows.collect::<Result<_>>()?;
        let reference = comparison.reference.map(|at| &comparison.rows[at]);
        let bare = comparison.rows.iter().find(|row| row.kind == Kind::Bare);
        let flips = match (reference, bare) {
            (Some(tuned), Some(bare)) => Some(flips(setup, comparison, (bare, tuned), n_flips)?),
            _ => None,
        };
        let costs = &comparison.costs;
        Ok(Self {
            n: setup.truths.len() as u64,
            model: &setup.model_name,
            template: setup.task.template.source(),
            instruction: &setup.instruction,
            calibrate: setup.calibrate.map(CalibrationMethod::as_str),
            reference: reference.map(|row| row.name.as_str()),
            rows,
            flips,
            fine_tuning: FineTuning { learned: costs.n_frozen, bytes: costs.fine_tuning_bytes() },
            verdict,
        })
    }
}

fn line<'a>(setup: &'a ComparisonSetup, row: &'a Row, against: Option<Against>) -> Result<RowLine<'a>> {
    Ok(RowLine {
        kind: row.kind.as_str(),
        method: row.method.map(|method| method.to_string()),
        name: &row.name,
        accuracy: row.labels.accuracy(),
        interval: row.labels.interval(),
        macro_f1: row.labels.macro_f1(),
        loss: row.loss,
        learned: row.n_learned,
        bytes: row.bytes,
        tokens_before: row.n_before,
        cut: row.n_cut,
        training_seconds: (!row.kind.is_tuned()).then_some(0.0),
        milliseconds_per_text: row.milliseconds_per_text,
        per_label: per_label(&row.labels, setup.labels()?),
        against,
    })
}

fn flips<'a>(
    setup: &'a ComparisonSetup,
    comparison: &Comparison,
    (bare, tuned): (&Row, &Row),
    n: usize,
) -> Result<Flips<'a>> {
    let names = setup.labels()?.names();
    let flip = |&example: &usize| {
        Ok(Flip {
            text: setup.text(example)?,
            label: &names[setup.truths[example]],
            without: &names[bare.given[example]],
            with: &names[tuned.given[example]],
        })
    };
    let some = |examples: &[usize]| examples.iter().take(n).map(flip).collect::<Result<Vec<_>>>();
    Ok(Flips {
        n_corrected: comparison.corrected.len(),
        n_spoiled: comparison.spoiled.len(),
        corrected: some(&comparison.corrected)?,
        spoiled: some(&comparison.spoiled)?,
    })
}
