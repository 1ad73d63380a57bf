//! The output of `inspect`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::CalibrationLine;
use crate::display::WAYWARD;
use crate::format::PeftTask;
use crate::inspect::{InspectedRow, Inspection};
use crate::verdict::{Measure, Verdict};
use crate::{Passport, PromptDirectory, Verbalizer};

/// The contents of a prompt directory, and its rows compared with the embeddings of the model of this name.
#[must_use]
pub fn inspected(
    prompt: &str,
    directory: &PromptDirectory,
    rows: Option<(&str, &Inspection)>,
    labels: Option<&Verbalizer>,
) -> Value {
    json!({
        "prompt": prompt,
        "virtual_tokens": directory.rows.n_virtual(),
        "hidden": directory.rows.width(),
        "method": directory.method(),
        // Null if PEFT can't load the directory.
        "peft": directory.adapter.as_ref().map(|adapter| json!({
            "peft_type": adapter.peft_type().as_str(),
            "task_type": adapter.task.map(PeftTask::as_str),
            "base_model": adapter.base_model,
        })),
        "passport": directory.passport.as_ref().map(passport),
        // Null if the model is not available.
        "rows": rows.map(|(model, inspection)| json!({
            "model": model,
            "table_norm": inspection.table_norm,
            "mean_cosine": inspection.mean_cosine,
            "warning": WAYWARD,
            "tokens": inspection.rows.iter().map(|found| row(found, labels)).collect::<Vec<_>>(),
        })),
    })
}

fn passport(passport: &Passport) -> Value {
    let Passport { foreword_version, base_model, task, training, metrics, calibration, .. } = passport;
    let data: BTreeMap<_, _> = training.data.iter().map(|(split, data)| (split, data.examples)).collect();
    json!({
        "foreword_version": foreword_version,
        "model": base_model.name,
        "kind": task.kind,
        "template": task.template,
        "chat": task.chat,
        "labels": task.labels,
        "label_names": task.label_names,
        "joining": task.joining,
        "placement": task.placement,
        "objective": task.objective,
        "max_length": task.max_length,
        "text_field": task.text_field,
        "label_field": task.label_field,
        "target_field": task.target_field,
        "init": training.init,
        "seed": training.seed,
        "settings": training.settings,
        "steps": training.steps,
        "best_step": training.best_step,
        "data": data,
        "metrics": metrics,
        "verdict": Verdict::of(metrics).map(verdict),
        "calibration": calibration.as_ref().map(CalibrationLine::of_record),
    })
}

/// The verdict: accuracy for classification, loss for generation.
fn verdict(verdict: Verdict) -> Value {
    let beats_baseline = verdict.beats_baseline();
    match verdict.by {
        Measure::Accuracy { tuned, interval, baseline, p_value } => json!({
            "split": verdict.split,
            "accuracy": tuned,
            "interval": interval,
            "baseline": verdict.baseline,
            "baseline_accuracy": baseline,
            "beats_baseline": beats_baseline,
            "p_value": p_value,
            "may_be_chance": verdict.may_be_chance(),
        }),
        Measure::Loss { tuned, baseline } => json!({
            "split": verdict.split,
            "loss": tuned,
            "baseline": verdict.baseline,
            "baseline_loss": baseline,
            "beats_baseline": beats_baseline,
        }),
    }
}

fn row(found: &InspectedRow, labels: Option<&Verbalizer>) -> Value {
    let names = labels.map_or(&[][..], Verbalizer::names);
    let label_cosines: BTreeMap<_, _> = names.iter().zip(&found.labels).collect();
    let nearest = found
        .nearest
        .iter()
        .map(|near| json!({ "token": near.text, "token_id": near.token, "cosine": near.cosine }));
    json!({
        "norm": found.norm,
        "relative_norm": found.relative_norm,
        "drift": found.drift.map(|drift| json!({
            "distance": drift.distance,
            "cosine": drift.cosine,
            "nearest_is_init": drift.nearest_is_init,
        })),
        "label_cosines": label_cosines,
        "nearest": nearest.collect::<Vec<_>>(),
    })
}
