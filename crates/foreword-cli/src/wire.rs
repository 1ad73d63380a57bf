//! What `--json` and `--log` write: the contract with scripts. Every line is one object with these fields and no others.

mod inspect;

use std::collections::BTreeMap;

use foreword::explain::{Prediction, Walkthrough};
use foreword::settings::Init;
use foreword::verbalizer::Verbalizer;
use foreword::{Evaluation, SoftPrompt, Task};
use serde::Serialize;

pub(crate) use inspect::Inspected;

/// A line of a run.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Line<'a> {
    /// An update.
    Step { step: u64, loss: f64, learning_rate: f64, grad_norm: f64, examples_per_second: f64 },
    /// An evaluation on dev; step 0 is the init.
    Eval { step: u64, split: &'a str, loss: f64, accuracy: f64 },
    /// The end.
    Done {
        out: String,
        steps: u64,
        best_step: u64,
        dev: Option<Scores>,
        test: Option<Scores>,
        seconds: f64,
        peak_memory_bytes: Option<u64>,
    },
}

/// How good a prompt is on a split.
#[derive(Debug, Serialize)]
pub(crate) struct Scores {
    pub(crate) n: u64,
    pub(crate) accuracy: f64,
    pub(crate) macro_f1: f64,
    pub(crate) loss: f64,
}

impl Scores {
    /// The scores of an evaluation.
    pub(crate) fn of(evaluation: &Evaluation) -> Self {
        let (accuracy, macro_f1) = (evaluation.accuracy(), evaluation.macro_f1());
        Self { n: evaluation.n(), accuracy, macro_f1, loss: evaluation.loss }
    }
}

/// The answer of `eval`.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    #[serde(flatten)]
    scores: Scores,
    /// From the true label to the given one to the number of examples.
    confusion: BTreeMap<&'a str, BTreeMap<&'a str, u64>>,
}

impl<'a> Report<'a> {
    /// The report of an evaluation over these labels.
    pub(crate) fn of(evaluation: &Evaluation, labels: &'a Verbalizer) -> Self {
        let names = || labels.names().iter().map(String::as_str);
        let rows = names().zip(&evaluation.confusion);
        let confusion =
            rows.map(|(truth, row)| (truth, names().zip(row.iter().copied()).collect())).collect();
        Self { scores: Scores::of(evaluation), confusion }
    }
}

/// The answer of `classify` for one text.
#[derive(Debug, Serialize)]
pub(crate) struct Classified<'a> {
    pub(crate) text: &'a str,
    pub(crate) label: &'a str,
    pub(crate) probabilities: BTreeMap<&'a str, f64>,
    pub(crate) log_likelihoods: BTreeMap<&'a str, f64>,
}

/// The answer of `explain`.
#[derive(Debug, Serialize)]
pub(crate) struct Explained<'a> {
    text: &'a str,
    label: &'a str,
    tokens: Vec<&'a str>,
    token_ids: Vec<u32>,
    virtual_tokens: usize,
    hidden: usize,
    without: Said<'a>,
    with: Said<'a>,
    loss: f64,
    gradient_norms: &'a [f64],
    update: Update,
    init: String,
    run: Vec<RunRow>,
    costs: Costs,
}

/// What the model says next.
#[derive(Debug, Serialize)]
struct Said<'a> {
    next_tokens: Vec<(&'a str, f64)>,
    probabilities: BTreeMap<&'a str, f64>,
    log_likelihoods: BTreeMap<&'a str, f64>,
}

#[derive(Debug, Serialize)]
struct Update {
    rate: f64,
    change: f64,
    before: f64,
    after: f64,
}

#[derive(Debug, Serialize)]
struct RunRow {
    step: u64,
    loss: f64,
    probability: f64,
    distance: f64,
}

#[derive(Debug, Serialize)]
struct Costs {
    learned: u64,
    frozen: u64,
    prompt_bytes: u64,
    model_bytes: u64,
    prompt_optimizer_bytes: u64,
    model_optimizer_bytes: u64,
    prompts_per_model: u64,
}

impl<'a> Explained<'a> {
    /// The answer for a walk-through.
    pub(crate) fn of(
        text: &'a str,
        task: &'a Task,
        truth: usize,
        soft: &SoftPrompt,
        init: &Init,
        walkthrough: &'a Walkthrough,
    ) -> Self {
        let names = || task.verbalizer.names().iter().map(String::as_str);
        let said = |prediction: &'a Prediction| Said {
            next_tokens: prediction.next.iter().map(|(token, p)| (token.as_str(), *p)).collect(),
            probabilities: names().zip(prediction.probabilities.iter().copied()).collect(),
            log_likelihoods: names().zip(prediction.log_likelihoods.iter().copied()).collect(),
        };
        let (update, costs) = (&walkthrough.update, &walkthrough.costs);
        let row = |row: &foreword::explain::RunRow| RunRow {
            step: row.step,
            loss: row.loss,
            probability: row.probability,
            distance: row.distance,
        };
        Self {
            text,
            label: &task.verbalizer.names()[truth],
            tokens: walkthrough.tokens.iter().map(|(_, text)| text.as_str()).collect(),
            token_ids: walkthrough.tokens.iter().map(|(id, _)| *id).collect(),
            virtual_tokens: soft.n_virtual(),
            hidden: soft.hidden(),
            without: said(&walkthrough.without),
            with: said(&walkthrough.with),
            loss: walkthrough.loss,
            gradient_norms: &walkthrough.gradient_norms,
            update: Update {
                rate: update.rate,
                change: update.change,
                before: update.before,
                after: update.after,
            },
            init: init.to_string(),
            run: walkthrough.run.iter().map(row).collect(),
            costs: Costs {
                learned: costs.n_learned,
                frozen: costs.n_frozen,
                prompt_bytes: costs.prompt_bytes,
                model_bytes: costs.model_bytes,
                prompt_optimizer_bytes: costs.prompt_optimizer_bytes,
                model_optimizer_bytes: costs.model_optimizer_bytes,
                prompts_per_model: costs.prompts_per_model(),
            },
        }
    }
}
