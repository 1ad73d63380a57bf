//! The output of `compare`.

use serde_json::{Value, json};

use super::per_label;
use crate::compare::{Comparison, ComparisonSetup, Kind, Row};
use crate::error::Result;

/// The results of a comparison, with up to `n_flips` examples in each direction.
///
/// # Errors
/// If an example has no text.
pub fn compared(
    setup: &ComparisonSetup,
    comparison: &Comparison,
    n_flips: usize,
    verdict: &str,
) -> Result<Value> {
    let mut rows = Vec::with_capacity(comparison.rows.len());
    for (at, row) in comparison.rows.iter().enumerate() {
        // Null for the reference itself.
        let against = comparison.against(at, &setup.truths).map(|paired| {
            json!({
                "difference": paired.difference(),
                "interval": paired.interval(),
                "only_reference": paired.only_first,
                "only_this": paired.only_second,
                "p": paired.p_value(),
            })
        });
        rows.push(json!({
            "kind": row.kind.as_str(),
            "method": row.method,
            "name": row.name,
            "accuracy": row.labels.accuracy(),
            "interval": row.labels.interval(),
            "macro_f1": row.labels.macro_f1(),
            "loss": row.loss,
            "learned": row.n_learned,
            "bytes": row.bytes,
            "tokens_before": row.n_before,
            "cut": row.n_cut,
            // A prompt does not record how long it was trained.
            "training_seconds": (!row.kind.is_tuned()).then_some(0.0),
            "milliseconds_per_text": row.milliseconds_per_text,
            "per_label": per_label(&row.labels, setup.labels()?),
            "against": against,
        }));
    }
    let reference = comparison.reference.map(|at| &comparison.rows[at]);
    let bare = comparison.rows.iter().find(|row| row.kind == Kind::Bare);
    let flips = match (reference, bare) {
        (Some(tuned), Some(bare)) => Some(flips(setup, comparison, (bare, tuned), n_flips)?),
        _ => None,
    };
    let costs = &comparison.costs;
    Ok(json!({
        "n": setup.truths.len(),
        "model": setup.model_name,
        "template": setup.task.template.source(),
        "instruction": setup.instruction,
        "calibrate": setup.calibrate,
        "reference": reference.map(|row| &row.name),
        "rows": rows,
        "flips": flips,
        "fine_tuning": { "learned": costs.n_frozen, "bytes": costs.fine_tuning_bytes() },
        "verdict": verdict,
    }))
}

/// Examples that exactly one of the first prompt and the bare model gets right.
fn flips(
    setup: &ComparisonSetup,
    comparison: &Comparison,
    (bare, tuned): (&Row, &Row),
    n: usize,
) -> Result<Value> {
    let names = setup.labels()?.names();
    let flip = |&example: &usize| -> Result<Value> {
        Ok(json!({
            "text": setup.text(example)?,
            "label": names[setup.truths[example]],
            "without": names[bare.given[example]],
            "with": names[tuned.given[example]],
        }))
    };
    let some = |examples: &[usize]| examples.iter().take(n).map(flip).collect::<Result<Vec<_>>>();
    Ok(json!({
        "n_corrected": comparison.corrected.len(),
        "n_spoiled": comparison.spoiled.len(),
        "corrected": some(&comparison.corrected)?,
        "spoiled": some(&comparison.spoiled)?,
    }))
}
