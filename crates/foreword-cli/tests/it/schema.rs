//! The contract of `--json` and `--log`, written a second time: a field more or less fails.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Line {
    Step { step: u64, loss: f64, learning_rate: f64, grad_norm: f64, examples_per_second: f64 },
    Eval { step: u64, split: String, loss: f64, accuracy: f64 },
    Done(Done),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Done {
    pub(crate) out: String,
    pub(crate) steps: u64,
    pub(crate) best_step: u64,
    pub(crate) dev: Option<Scores>,
    pub(crate) test: Option<Scores>,
    pub(crate) seconds: f64,
    pub(crate) peak_memory_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scores {
    pub(crate) n: u64,
    pub(crate) accuracy: f64,
    pub(crate) macro_f1: f64,
    pub(crate) loss: f64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    pub(crate) n: u64,
    pub(crate) accuracy: f64,
    pub(crate) macro_f1: f64,
    pub(crate) loss: f64,
    pub(crate) confusion: BTreeMap<String, BTreeMap<String, u64>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Classified {
    pub(crate) text: String,
    pub(crate) label: String,
    pub(crate) probabilities: BTreeMap<String, f64>,
    pub(crate) log_likelihoods: BTreeMap<String, f64>,
}
