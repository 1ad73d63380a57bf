//! Progress and results as values that serialise: the contract of `--json` and `--log`. Each is one object with these fields
//! and no others.

mod compare;
mod inspect;
mod models;
mod similar;

use std::collections::BTreeMap;

use crate::calibration::Calibration;
use crate::explain::{Prediction, Walkthrough};
use crate::format::CalibrationRecord;
use crate::metrics::reliability::{Answered, Reliability};
use crate::metrics::text::TextScores;
use crate::settings::Init;
use crate::verbalizer::Verbalizer;
use crate::{Confusion, Evaluation, SoftPrompt};
use serde::Serialize;
use serde_json::{Value, json};

use crate::metrics::sample_deviation;

pub use compare::compared;
pub use inspect::inspected;
pub use models::ModelLine;
pub use similar::{Incomparable, SimilarLine, Similars};

/// What happens during a run. All but [`Event::Trained`] and [`Event::Writing`] are lines of `--json` and `--log`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// An update.
    Step {
        /// The number of the candidate, from 1, where there are several.
        #[serde(skip_serializing_if = "Option::is_none")]
        candidate: Option<usize>,
        /// Updates so far.
        step: u64,
        /// Loss of the batch before the update.
        loss: f64,
        /// Learning rate of the update.
        learning_rate: f64,
        /// Norm of the gradient before clipping.
        grad_norm: f64,
        /// Examples per second of the step.
        examples_per_second: f64,
    },
    /// An evaluation on dev; step 0 is the init.
    Eval {
        /// The number of the candidate, from 1, where there are several.
        #[serde(skip_serializing_if = "Option::is_none")]
        candidate: Option<usize>,
        /// Updates so far.
        step: u64,
        /// `dev`.
        split: &'static str,
        /// Mean loss.
        loss: f64,
        /// Accuracy, where there are labels.
        #[serde(skip_serializing_if = "Option::is_none")]
        accuracy: Option<f64>,
        /// Whether no earlier evaluation was better.
        #[serde(skip)]
        best: bool,
    },
    /// A candidate left the run.
    Left {
        /// Its number, from 1.
        candidate: usize,
        /// Updates that it made.
        step: u64,
        /// `dropped`, `early-stopped` or `diverged`.
        reason: &'static str,
    },
    /// The training has ended; the evaluations of the result follow.
    Trained {
        /// Why it ended and which prompt was kept.
        ending: String,
    },
    /// The prompt is about to be written; a run is no longer cancelled from here on.
    Writing,
    /// The result of runs on few examples.
    #[serde(rename = "few-shot")]
    FewShot(FewShot),
    /// The end.
    Done {
        /// The prompt directory.
        out: String,
        /// The number of the best candidate, from 1, where there are several.
        #[serde(skip_serializing_if = "Option::is_none")]
        candidate: Option<usize>,
        /// Updates made.
        steps: u64,
        /// Updates after which the kept rows stood.
        best_step: u64,
        /// On dev.
        dev: Option<Scores>,
        /// On the test examples.
        test: Option<Scores>,
        /// Of the whole run.
        seconds: f64,
        /// Peak resident memory, where the system says it.
        peak_memory_bytes: Option<u64>,
    },
}

/// What runs with several seeds come to: each accuracy by seed, and their mean and sample standard deviation.
#[derive(Clone, Debug, Serialize)]
pub struct FewShot {
    shots: usize,
    split: &'static str,
    seeds: Vec<u64>,
    accuracy: Vec<f64>,
    mean: f64,
    deviation: Option<f64>,
    majority: f64,
    bare: f64,
}

impl FewShot {
    /// From the accuracies of the majority class, the bare model and the tuned prompt, by seed.
    pub fn of(
        shots: usize,
        split: &'static str,
        seeds: Vec<u64>,
        [majority, bare, tuned]: [&[f64]; 3],
    ) -> Self {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        Self {
            shots,
            split,
            seeds,
            accuracy: tuned.to_vec(),
            mean: mean(tuned),
            deviation: sample_deviation(tuned),
            majority: mean(majority),
            bare: mean(bare),
        }
    }
}

/// How good a prompt is on a split; accuracy and macro F1 only where there are labels.
#[derive(Clone, Debug, Serialize)]
pub struct Scores {
    /// Number of examples.
    pub n: u64,
    /// Share of right labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Mean F1 over the labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macro_f1: Option<f64>,
    /// Mean loss, in nats.
    pub loss: f64,
}

impl Scores {
    /// The scores of an evaluation.
    pub fn of(evaluation: &Evaluation) -> Self {
        let macro_f1 = evaluation.labels.as_ref().map(Confusion::macro_f1);
        Self { n: evaluation.n, accuracy: evaluation.accuracy(), macro_f1, loss: evaluation.loss }
    }
}

/// The answer of `eval` where labels are given.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    #[serde(flatten)]
    scores: Scores,
    /// From the true label to the given one to the number of examples.
    confusion: BTreeMap<&'a str, BTreeMap<&'a str, u64>>,
    per_label: BTreeMap<&'a str, LabelScores>,
    ece: f64,
    brier: f64,
    calibration: Option<CalibrationLine<'a>>,
    #[serde(flatten)]
    answered: Option<AnsweredLine>,
}

/// One label's scores; null where nothing has it or was given it.
#[derive(Debug, Serialize)]
pub struct LabelScores {
    n: u64,
    precision: Option<f64>,
    recall: Option<f64>,
    f1: Option<f64>,
}

/// Each label's scores.
pub fn per_label<'a>(given: &Confusion, labels: &'a Verbalizer) -> BTreeMap<&'a str, LabelScores> {
    let scores = |label| {
        let counts = given.label(label);
        let (precision, recall, f1) = (counts.precision(), counts.recall(), counts.f1());
        LabelScores { n: counts.n, precision, recall, f1 }
    };
    labels.names().iter().enumerate().map(|(label, name)| (name.as_str(), scores(label))).collect()
}

/// How probabilities were corrected.
#[derive(Debug, Serialize)]
pub struct CalibrationLine<'a> {
    method: &'static str,
    temperature: f64,
    offsets: BTreeMap<&'a str, f64>,
}

impl<'a> CalibrationLine<'a> {
    fn of(calibration: &Calibration, labels: &'a Verbalizer) -> Self {
        let names = labels.names().iter().map(String::as_str);
        Self {
            method: calibration.method.as_str(),
            temperature: calibration.temperature,
            offsets: names.zip(calibration.offsets.iter().copied()).collect(),
        }
    }

    /// The one of a passport.
    pub fn of_record(record: &'a CalibrationRecord) -> Self {
        Self {
            method: record.method.as_str(),
            temperature: record.temperature,
            offsets: record.offsets.iter().map(|(name, &offset)| (name.as_str(), offset)).collect(),
        }
    }
}

/// What came of answering only where a label was likely enough.
#[derive(Debug, Serialize)]
struct AnsweredLine {
    abstain_below: f64,
    coverage: f64,
    accuracy_answered: Option<f64>,
}

impl<'a> Report<'a> {
    /// The report of an evaluation over these labels.
    pub fn of(
        evaluation: &Evaluation,
        given: &Confusion,
        labels: &'a Verbalizer,
        Reliability { ece, brier }: Reliability,
        calibration: Option<&Calibration>,
        answered: Option<(f64, Answered)>,
    ) -> Self {
        let names = || labels.names().iter().map(String::as_str);
        let rows = names().zip(&given.counts);
        let confusion =
            rows.map(|(truth, row)| (truth, names().zip(row.iter().copied()).collect())).collect();
        let answered = answered.map(|(abstain_below, answered)| AnsweredLine {
            abstain_below,
            coverage: answered.coverage(),
            accuracy_answered: answered.accuracy(),
        });
        Self {
            scores: Scores::of(evaluation),
            confusion,
            per_label: per_label(given, labels),
            ece,
            brier,
            calibration: calibration.map(|calibration| CalibrationLine::of(calibration, labels)),
            answered,
        }
    }
}

/// The answer of `eval` where texts are generated.
#[derive(Debug, Serialize)]
pub struct TextReport {
    n: u64,
    loss: f64,
    exact_match: f64,
    rouge_l: f64,
    bleu: f64,
}

impl TextReport {
    /// The report of an evaluation, and of what was written.
    pub fn of(evaluation: &Evaluation, scores: &TextScores) -> Self {
        let TextScores { exact_match, rouge_l, bleu } = *scores;
        Self { n: evaluation.n, loss: evaluation.loss, exact_match, rouge_l, bleu }
    }
}

/// The answer of `generate` for one text.
#[derive(Debug, Serialize)]
pub struct Written<'a> {
    /// The text, or that of the first field.
    pub text: &'a str,
    /// All fields of a template that has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<BTreeMap<&'a str, &'a str>>,
    /// What was written.
    pub output: &'a str,
    /// How many tokens the output has.
    pub tokens: usize,
    /// `stop` or `length`.
    pub finish_reason: &'static str,
}

/// The answer of `compile`.
#[derive(Debug, Serialize)]
pub struct Compiled {
    /// The directory or file that was written.
    pub out: String,
    /// Its virtual tokens.
    pub virtual_tokens: usize,
    /// Numbers of each: keys and values of all layers.
    pub width: usize,
    /// Its size on disk.
    pub bytes: u64,
}

/// The answer of `import`.
#[derive(Debug, Serialize)]
pub struct Imported {
    /// The directory or file that was written.
    pub out: String,
    /// The format that was read.
    pub format: String,
    /// Its virtual tokens.
    pub virtual_tokens: usize,
    /// Numbers of each virtual token.
    pub width: usize,
    /// Whether it has one.
    pub passport: bool,
}

/// The answer of `export`.
#[derive(Debug, Serialize)]
pub struct Exported {
    /// What was written.
    pub path: String,
    /// The format.
    pub to: &'static str,
    /// Its virtual tokens.
    pub virtual_tokens: usize,
    /// Numbers of each virtual token.
    pub width: usize,
}

/// The answer of `quantise`.
#[derive(Debug, Serialize)]
pub struct Quantised {
    /// The directory or file that was written.
    pub out: String,
    /// The format.
    pub to: &'static str,
    /// Its size on disk.
    pub bytes: u64,
    /// Of the weights that were read.
    pub from_bytes: u64,
    /// How many numbers are in each format.
    pub numbers: BTreeMap<&'static str, u64>,
    /// Tensors that could not be in the format that was asked for.
    pub other_format: usize,
}

/// The answer of `classify` for one text.
#[derive(Debug, Serialize)]
pub struct Classified<'a> {
    /// The text, or that of the first field.
    pub text: &'a str,
    /// All fields of a template that has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<BTreeMap<&'a str, &'a str>>,
    /// Nothing where none is sure enough.
    pub label: Option<&'a str>,
    /// The probability of each label.
    pub probabilities: BTreeMap<&'a str, f64>,
    /// The log-likelihood of each label, in nats.
    pub log_likelihoods: BTreeMap<&'a str, f64>,
}

/// The answer of `explain`: a walk-through of a text with its true label.
#[must_use]
pub fn explained(
    text: &str,
    labels: &Verbalizer,
    truth: usize,
    soft: &SoftPrompt,
    init: &Init,
    walk: &Walkthrough,
) -> Value {
    let said = |prediction: &Prediction| {
        json!({
            "next_tokens": prediction.next,
            "probabilities": by_label(labels, &prediction.probabilities),
            "log_likelihoods": by_label(labels, &prediction.log_likelihoods),
        })
    };
    let (update, costs) = (&walk.update, &walk.costs);
    let run = walk.run.iter().map(|row| {
        json!({
            "step": row.step, "loss": row.loss, "probability": row.probability, "distance": row.distance,
        })
    });
    json!({
        "text": text,
        "label": labels.names()[truth],
        "tokens": walk.tokens.iter().map(|(_, text)| text).collect::<Vec<_>>(),
        "token_ids": walk.tokens.iter().map(|(id, _)| id).collect::<Vec<_>>(),
        "virtual_tokens": soft.n_virtual(),
        "hidden": soft.width(),
        "without": said(&walk.without),
        "with": said(&walk.with),
        "loss": walk.loss,
        "gradient_norms": walk.gradient_norms,
        "update": {
            "rate": update.rate, "change": update.change, "before": update.before, "after": update.after,
        },
        "init": init.to_string(),
        "run": run.collect::<Vec<_>>(),
        "costs": {
            "learned": costs.n_learned,
            "frozen": costs.n_frozen,
            "prompt_bytes": costs.prompt_bytes,
            "model_bytes": costs.model_bytes,
            "prompt_optimizer_bytes": costs.prompt_optimizer_bytes,
            "model_optimizer_bytes": costs.model_optimizer_bytes,
            "prompts_per_model": costs.prompts_per_model(),
        },
    })
}

/// Numbers by the names of their labels.
fn by_label<'a>(labels: &'a Verbalizer, values: &[f64]) -> BTreeMap<&'a str, f64> {
    labels.names().iter().map(String::as_str).zip(values.iter().copied()).collect()
}
