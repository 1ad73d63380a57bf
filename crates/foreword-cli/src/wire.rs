//! What `--json` and `--log` write: the contract with scripts. Every line is one object with these fields and no others.

use std::collections::BTreeMap;

use foreword::Evaluation;
use foreword::verbalizer::Verbalizer;
use serde::Serialize;

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
