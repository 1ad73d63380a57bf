//! Progress and results as serialisable values: the contract of `--json` and `--log`. Each is one object with exactly these
//! fields.

mod compare;
mod inspect;
mod models;
mod similar;

use std::collections::BTreeMap;

use crate::calibration::Calibration;
use crate::explain::{Prediction, Walkthrough};
use crate::format::CalibrationRecord;
use crate::likelihood::best;
use crate::metrics::reliability::{Answered, Reliability};
use crate::metrics::scale::ScaleErrors;
use crate::metrics::text::TextScores;
use crate::prompt::evaluate::{LabelEvaluation, TestSet};
use crate::prompt::texts::ExampleText;
use crate::settings::Init;
use crate::verbalizer::Verbalizer;
use crate::{Confusion, Evaluation, LoadedPrompt, Observer, Result, SoftPrompt};
use serde::Serialize;
use serde_json::{Value, json};

use crate::metrics::sample_deviation;

pub use compare::compared;
pub use inspect::inspected;
pub use models::ModelLine;
pub use similar::{Incomparable, SimilarLine, Similars};

/// An event of a run. All but [`Event::Trained`] and [`Event::Writing`] are lines of `--json` and `--log`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Event {
    /// An update.
    Step {
        /// The number of the candidate, from 1, if there are several.
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
        /// Examples per second in this step.
        examples_per_second: f64,
    },
    /// An evaluation on dev; step 0 is the init.
    Eval {
        /// The number of the candidate, from 1, if there are several.
        #[serde(skip_serializing_if = "Option::is_none")]
        candidate: Option<usize>,
        /// Updates so far.
        step: u64,
        /// `dev`.
        split: &'static str,
        /// Mean loss.
        loss: f64,
        /// Accuracy, for classification.
        #[serde(skip_serializing_if = "Option::is_none")]
        accuracy: Option<f64>,
        /// Whether it is the best evaluation so far.
        #[serde(skip)]
        best: bool,
    },
    /// From now on the learning rate decays.
    Decay {
        /// Number of updates so far.
        step: u64,
        /// The last update.
        until: u64,
        /// `plateau`: dev no longer improves; `limit`: the most steps, or the time, are nearly reached.
        reason: &'static str,
    },
    /// A candidate left the run.
    Left {
        /// Its number, from 1.
        candidate: usize,
        /// Its number of updates.
        step: u64,
        /// `dropped`, `early-stopped` or `diverged`.
        reason: &'static str,
    },
    /// Training has ended; the evaluations of the result follow.
    Trained {
        /// Why it ended, and which prompt was kept.
        ending: String,
    },
    /// The prompt is about to be written; the run can no longer be cancelled.
    Writing,
    /// The result of few-shot runs.
    #[serde(rename = "few-shot")]
    FewShot(FewShot),
    /// The run has ended.
    Done {
        /// The prompt directory.
        out: String,
        /// The number of the best candidate, from 1, if there are several.
        #[serde(skip_serializing_if = "Option::is_none")]
        candidate: Option<usize>,
        /// Number of updates.
        steps: u64,
        /// The step of the kept rows.
        best_step: u64,
        /// Scores on dev.
        dev: Option<Scores>,
        /// Scores on the test examples.
        test: Option<Scores>,
        /// Seconds of the whole run.
        seconds: f64,
        /// Peak resident memory, if the system reports it.
        peak_memory_bytes: Option<u64>,
    },
}

/// The result of runs with several seeds: each accuracy by seed, with mean and sample standard deviation.
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
    /// Computes it from the accuracies of the majority class, the bare model and the tuned prompt, by seed.
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

/// The scores of a prompt on a split; accuracy and macro F1 only for classification.
#[derive(Clone, Debug, Serialize)]
pub struct Scores {
    /// Number of examples.
    pub n: u64,
    /// Share of correct labels.
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

/// The output of `eval` for classification.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    #[serde(flatten)]
    scores: Scores,
    /// The confusion matrix: number of examples by true label, then predicted label.
    confusion: BTreeMap<&'a str, BTreeMap<&'a str, u64>>,
    per_label: BTreeMap<&'a str, LabelScores>,
    ece: f64,
    brier: f64,
    /// For labels that look like a scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_absolute_error: Option<ScaleLine>,
    calibration: Option<CalibrationLine<'a>>,
    #[serde(flatten)]
    answered: Option<AnsweredLine>,
    /// The surest mistakes.
    mistakes: &'a [Mistake],
}

/// The mean absolute error of labels on a scale.
#[derive(Debug, Serialize)]
struct ScaleLine {
    /// Of the expected value.
    expected: f64,
    /// Of the predicted label.
    predicted: f64,
}

/// An example with a wrong prediction.
#[derive(Debug, Serialize)]
pub struct Mistake {
    /// The text; all fields, if the template has several.
    pub text: String,
    /// Its first line in the file, or its row, from 1.
    pub line: u64,
    /// The true label.
    pub truth: String,
    /// The predicted label.
    pub label: String,
    /// Its probability.
    pub probability: f64,
}

impl Mistake {
    /// Maximum number of mistakes in a report.
    const MOST: usize = 5;

    /// The mistakes with the most probable predictions.
    ///
    /// # Errors
    /// If a field of the template is missing.
    pub fn surest(
        prompt: &LoadedPrompt,
        test: &TestSet,
        probabilities: &[Vec<f64>],
        observer: &dyn Observer,
    ) -> Result<Vec<Self>> {
        let Some(labels) = prompt.task.verbalizer() else { return Ok(Vec::new()) };
        let (truths, shown) = (test.examples.labels(), ExampleText::of(prompt, &test.data, observer)?);
        let given = probabilities.iter().map(|probabilities| best(probabilities)).enumerate();
        let mut wrong: Vec<(f64, usize, usize)> = given
            .filter(|&(row, given)| given != truths[row])
            .map(|(row, given)| (probabilities[row][given], row, given))
            .collect();
        wrong.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mistake = |(probability, row, given): (f64, usize, usize)| {
            Ok(Self {
                text: shown.whole(&test.data, row)?,
                line: test.data.location(row).line,
                truth: labels.names()[truths[row]].clone(),
                label: labels.names()[given].clone(),
                probability,
            })
        };
        wrong.into_iter().take(Self::MOST).map(mistake).collect()
    }
}

/// The scores of one label; null if no example has it or none was given it.
#[derive(Debug, Serialize)]
pub struct LabelScores {
    n: u64,
    precision: Option<f64>,
    recall: Option<f64>,
    f1: Option<f64>,
}

/// The scores of each label.
pub fn per_label<'a>(given: &Confusion, labels: &'a Verbalizer) -> BTreeMap<&'a str, LabelScores> {
    let scores = |label| {
        let counts = given.label(label);
        let (precision, recall, f1) = (counts.precision(), counts.recall(), counts.f1());
        LabelScores { n: counts.n, precision, recall, f1 }
    };
    labels.names().iter().enumerate().map(|(label, name)| (name.as_str(), scores(label))).collect()
}

/// The calibration of the probabilities.
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

    /// The calibration in a passport.
    pub fn of_record(record: &'a CalibrationRecord) -> Self {
        Self {
            method: record.method.as_str(),
            temperature: record.temperature,
            offsets: record.offsets.iter().map(|(name, &offset)| (name.as_str(), offset)).collect(),
        }
    }
}

/// The result of abstaining below a probability.
#[derive(Debug, Serialize)]
struct AnsweredLine {
    abstain_below: f64,
    coverage: f64,
    accuracy_answered: Option<f64>,
}

impl<'a> Report<'a> {
    /// The report of an evaluation with these labels.
    pub fn of(
        evaluated: &LabelEvaluation,
        given: &Confusion,
        labels: &'a Verbalizer,
        (calibration, answered): (Option<&Calibration>, Option<(f64, Answered)>),
        mistakes: &'a [Mistake],
    ) -> Self {
        let LabelEvaluation { evaluation, reliability, scale, .. } = evaluated;
        let Reliability { ece, brier } = *reliability;
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
            mean_absolute_error: scale
                .as_ref()
                .map(|&(_, ScaleErrors { expected, predicted })| ScaleLine { expected, predicted }),
            mistakes,
            calibration: calibration.map(|calibration| CalibrationLine::of(calibration, labels)),
            answered,
        }
    }
}

/// The output of `eval` for generation.
#[derive(Debug, Serialize)]
pub struct TextReport {
    n: u64,
    loss: f64,
    exact_match: f64,
    rouge_l: f64,
    bleu: f64,
}

impl TextReport {
    /// The report of an evaluation and of the generated texts.
    pub fn of(evaluation: &Evaluation, scores: &TextScores) -> Self {
        let TextScores { exact_match, rouge_l, bleu } = *scores;
        Self { n: evaluation.n, loss: evaluation.loss, exact_match, rouge_l, bleu }
    }
}

/// The output of `generate` for one text.
#[derive(Debug, Serialize)]
pub struct Written<'a> {
    /// The text, or the first field.
    pub text: &'a str,
    /// All fields, if the template has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<BTreeMap<&'a str, &'a str>>,
    /// The generated text.
    pub output: &'a str,
    /// Number of tokens in the output.
    pub tokens: usize,
    /// `stop` or `length`.
    pub finish_reason: &'static str,
}

/// The output of `compile`.
#[derive(Debug, Serialize)]
pub struct Compiled {
    /// The directory or file written.
    pub out: String,
    /// Number of virtual tokens.
    pub virtual_tokens: usize,
    /// Numbers per virtual token: keys and values of all layers.
    pub width: usize,
    /// Size on disk.
    pub bytes: u64,
}

/// The output of `import`.
#[derive(Debug, Serialize)]
pub struct Imported {
    /// The directory or file written.
    pub out: String,
    /// The imported format.
    pub format: String,
    /// Number of virtual tokens.
    pub virtual_tokens: usize,
    /// Numbers per virtual token.
    pub width: usize,
    /// Whether it has a passport.
    pub passport: bool,
}

/// The output of `export`.
#[derive(Debug, Serialize)]
pub struct Exported {
    /// The file or directory written.
    pub path: String,
    /// The format.
    pub to: &'static str,
    /// Number of virtual tokens.
    pub virtual_tokens: usize,
    /// Numbers per virtual token.
    pub width: usize,
}

/// The output of `quantise`.
#[derive(Debug, Serialize)]
pub struct Quantised {
    /// The directory or file written.
    pub out: String,
    /// The format.
    pub to: &'static str,
    /// Size on disk.
    pub bytes: u64,
    /// Size of the source weights.
    pub from_bytes: u64,
    /// Number of stored numbers by format.
    pub numbers: BTreeMap<&'static str, u64>,
    /// Number of tensors that needed a format other than the requested one.
    pub other_format: usize,
}

/// The output of `classify` for one text.
#[derive(Debug, Serialize)]
pub struct Classified<'a> {
    /// The text, or the first field.
    pub text: &'a str,
    /// All fields, if the template has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<BTreeMap<&'a str, &'a str>>,
    /// The label; null if no label is likely enough.
    pub label: Option<&'a str>,
    /// The probability of each label.
    pub probabilities: BTreeMap<&'a str, f64>,
    /// The log-likelihood of each label, in nats.
    pub log_likelihoods: BTreeMap<&'a str, f64>,
    /// The expected value, if the labels look like a scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<f64>,
}

/// The output of `explain`: a walk-through of a text with its true label.
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

/// Values by label name.
fn by_label<'a>(labels: &'a Verbalizer, values: &[f64]) -> BTreeMap<&'a str, f64> {
    labels.names().iter().map(String::as_str).zip(values.iter().copied()).collect()
}
