//! The answer of `inspect`.

use std::collections::BTreeMap;

use crate::format::{BaseModel, ChatRecord, PeftTask, TaskRecord, TrainingRecord};
use crate::inspect::{InspectedRow, Inspection};
use crate::{AdapterConfig, Passport, PromptDirectory, Verbalizer};
use serde::Serialize;
use serde_json::Value;

use super::CalibrationLine;
use crate::display::WAYWARD;
use crate::verdict::{Measure, Verdict};

/// What is in a prompt directory, and where its rows lie.
#[derive(Debug, Serialize)]
pub struct Inspected<'a> {
    prompt: String,
    virtual_tokens: usize,
    hidden: usize,
    method: &'static str,
    peft: Option<Peft<'a>>,
    passport: Option<PassportLine<'a>>,
    /// Nothing where the model is not at hand.
    rows: Option<Rows<'a>>,
}

/// What PEFT reads there; nothing where it can't load the directory.
#[derive(Debug, Serialize)]
struct Peft<'a> {
    peft_type: &'static str,
    task_type: Option<&'static str>,
    base_model: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct ChatLine<'a> {
    template_digest: &'a str,
    system: Option<&'a str>,
    before: &'a str,
    after: &'a str,
}

#[derive(Debug, Serialize)]
struct PassportLine<'a> {
    foreword_version: &'a str,
    model: &'a str,
    kind: &'static str,
    template: &'a str,
    chat: Option<ChatLine<'a>>,
    labels: &'a BTreeMap<String, String>,
    label_names: &'a BTreeMap<String, String>,
    joining: &'static str,
    placement: &'static str,
    objective: &'static str,
    max_length: usize,
    text_field: Option<&'a str>,
    label_field: Option<&'a str>,
    target_field: Option<&'a str>,
    init: &'a str,
    seed: u64,
    settings: &'a BTreeMap<String, Value>,
    steps: u64,
    best_step: u64,
    /// From the split to its number of examples.
    data: BTreeMap<&'a str, u64>,
    metrics: &'a BTreeMap<String, BTreeMap<String, f64>>,
    verdict: Option<VerdictLine>,
    calibration: Option<CalibrationLine<'a>>,
}

/// Of a classification by its accuracy, of a generation by its loss.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum VerdictLine {
    Accuracy {
        split: &'static str,
        accuracy: f64,
        interval: (f64, f64),
        baseline: &'static str,
        baseline_accuracy: f64,
        beats_baseline: bool,
        p_value: Option<f64>,
        may_be_chance: bool,
    },
    Loss {
        split: &'static str,
        loss: f64,
        baseline: &'static str,
        baseline_loss: f64,
        beats_baseline: bool,
    },
}

impl VerdictLine {
    fn of(verdict: Verdict) -> Self {
        let (split, baseline, beats_baseline) = (verdict.split, verdict.baseline, verdict.beats_baseline());
        match verdict.by {
            Measure::Accuracy { tuned: accuracy, interval, baseline: baseline_accuracy, p_value } => {
                let may_be_chance = verdict.may_be_chance();
                Self::Accuracy {
                    split,
                    accuracy,
                    interval,
                    baseline,
                    baseline_accuracy,
                    beats_baseline,
                    p_value,
                    may_be_chance,
                }
            }
            Measure::Loss { tuned: loss, baseline: baseline_loss } => {
                Self::Loss { split, loss, baseline, baseline_loss, beats_baseline }
            }
        }
    }
}

#[derive(Debug, Serialize)]
struct Rows<'a> {
    model: &'a str,
    table_norm: f64,
    mean_cosine: Option<f64>,
    /// What the nearest tokens are not.
    warning: &'static str,
    tokens: Vec<Row<'a>>,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    norm: f64,
    relative_norm: f64,
    drift: Option<Drift>,
    label_cosines: BTreeMap<&'a str, f64>,
    nearest: Vec<Near<'a>>,
}

#[derive(Debug, Serialize)]
struct Drift {
    distance: f64,
    cosine: f64,
    nearest_is_init: bool,
}

#[derive(Debug, Serialize)]
struct Near<'a> {
    token: &'a str,
    token_id: u32,
    cosine: f64,
}

impl<'a> Inspected<'a> {
    /// The answer for a directory, and its rows beside a model of this name.
    pub fn of(
        prompt: String,
        directory: &'a PromptDirectory,
        rows: Option<(&'a str, &'a Inspection)>,
        labels: Option<&'a Verbalizer>,
    ) -> Self {
        Self {
            prompt,
            virtual_tokens: directory.rows.n_virtual(),
            hidden: directory.rows.width(),
            method: directory.method().as_str(),
            peft: directory.adapter.as_ref().map(peft),
            passport: directory.passport.as_ref().map(passport),
            rows: rows.map(|(model, inspection)| Rows {
                model,
                table_norm: inspection.table_norm,
                mean_cosine: inspection.mean_cosine,
                warning: WAYWARD,
                tokens: inspection.rows.iter().map(|found| row(found, labels)).collect(),
            }),
        }
    }
}

fn peft(adapter: &AdapterConfig) -> Peft<'_> {
    Peft {
        peft_type: adapter.peft_type().as_str(),
        task_type: adapter.task.map(PeftTask::as_str),
        base_model: adapter.base_model.as_deref(),
    }
}

fn passport(passport: &Passport) -> PassportLine<'_> {
    let Passport { foreword_version, base_model: BaseModel { name, .. }, task, training, .. } = passport;
    let Passport { metrics, calibration, .. } = passport;
    let TaskRecord { kind, template, chat, labels, placement, objective, max_length, .. } = task;
    let TrainingRecord { init, seed, settings, steps, best_step, data, .. } = training;
    let verdict = Verdict::of(metrics).map(VerdictLine::of);
    PassportLine {
        foreword_version,
        model: name,
        kind: kind.as_str(),
        template,
        chat: chat.as_ref().map(|ChatRecord { template_digest, system, before, after }| ChatLine {
            template_digest,
            system: system.as_deref(),
            before,
            after,
        }),
        labels,
        label_names: &task.label_names,
        joining: task.joining.as_str(),
        placement: placement.as_str(),
        objective: objective.as_str(),
        max_length: *max_length,
        text_field: task.text_field.as_deref(),
        label_field: task.label_field.as_deref(),
        target_field: task.target_field.as_deref(),
        init,
        seed: *seed,
        settings,
        steps: *steps,
        best_step: *best_step,
        data: data.iter().map(|(split, record)| (split.as_str(), record.examples)).collect(),
        metrics,
        verdict,
        calibration: calibration.as_ref().map(CalibrationLine::of_record),
    }
}

fn row<'a>(found: &'a InspectedRow, labels: Option<&'a Verbalizer>) -> Row<'a> {
    let names = labels.map_or(&[][..], Verbalizer::names).iter().map(String::as_str);
    Row {
        norm: found.norm,
        relative_norm: found.relative_norm,
        drift: found.drift.map(|drift| Drift {
            distance: drift.distance,
            cosine: drift.cosine,
            nearest_is_init: drift.nearest_is_init,
        }),
        label_cosines: names.zip(found.labels.iter().copied()).collect(),
        nearest: found
            .nearest
            .iter()
            .map(|near| Near { token: &near.text, token_id: near.token, cosine: near.cosine })
            .collect(),
    }
}
