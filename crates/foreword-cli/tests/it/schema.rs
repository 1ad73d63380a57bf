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

/// A line of a run that learns to write.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum WriterLine {
    Step { step: u64, loss: f64, learning_rate: f64, grad_norm: f64, examples_per_second: f64 },
    Eval { step: u64, split: String, loss: f64 },
    Done(Done<TextScores>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Done<S = Scores> {
    pub(crate) out: String,
    pub(crate) steps: u64,
    pub(crate) best_step: u64,
    pub(crate) dev: Option<S>,
    pub(crate) test: Option<S>,
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
pub(crate) struct TextScores {
    pub(crate) n: u64,
    pub(crate) loss: f64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextReport {
    pub(crate) n: u64,
    pub(crate) loss: f64,
    pub(crate) exact_match: f64,
    pub(crate) rouge_l: f64,
    pub(crate) bleu: f64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    pub(crate) text: String,
    /// Of a template with several.
    pub(crate) fields: Option<BTreeMap<String, String>>,
    pub(crate) output: String,
    pub(crate) tokens: u64,
    pub(crate) finish_reason: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    pub(crate) n: u64,
    pub(crate) accuracy: f64,
    pub(crate) macro_f1: f64,
    pub(crate) loss: f64,
    pub(crate) confusion: BTreeMap<String, BTreeMap<String, u64>>,
    pub(crate) per_label: BTreeMap<String, LabelScores>,
    pub(crate) ece: f64,
    pub(crate) brier: f64,
    /// Only of labels on a scale.
    pub(crate) mean_absolute_error: Option<ScaleErrors>,
    pub(crate) mistakes: Vec<Mistake>,
    pub(crate) calibration: Option<Calibration>,
    /// The next three only with --abstain-below.
    pub(crate) abstain_below: Option<f64>,
    pub(crate) coverage: Option<f64>,
    pub(crate) accuracy_answered: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScaleErrors {
    pub(crate) expected: f64,
    pub(crate) predicted: f64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mistake {
    pub(crate) text: String,
    pub(crate) line: u64,
    pub(crate) truth: String,
    pub(crate) label: String,
    pub(crate) probability: f64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LabelScores {
    pub(crate) n: u64,
    pub(crate) precision: Option<f64>,
    pub(crate) recall: Option<f64>,
    pub(crate) f1: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Calibration {
    pub(crate) method: String,
    pub(crate) temperature: f64,
    pub(crate) offsets: BTreeMap<String, f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Imported {
    pub(crate) out: String,
    pub(crate) format: String,
    pub(crate) virtual_tokens: usize,
    pub(crate) width: usize,
    pub(crate) passport: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exported {
    pub(crate) path: String,
    pub(crate) to: String,
    pub(crate) virtual_tokens: usize,
    pub(crate) width: usize,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Classified {
    pub(crate) text: String,
    /// Of a template with several.
    pub(crate) fields: Option<BTreeMap<String, String>>,
    /// Null where none is sure enough.
    pub(crate) label: Option<String>,
    pub(crate) probabilities: BTreeMap<String, f64>,
    pub(crate) log_likelihoods: BTreeMap<String, f64>,
    /// Only of labels on a scale.
    pub(crate) expected: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inspected {
    pub(crate) prompt: String,
    pub(crate) virtual_tokens: usize,
    pub(crate) hidden: usize,
    pub(crate) method: String,
    pub(crate) peft: Option<Peft>,
    pub(crate) passport: Option<Passport>,
    pub(crate) rows: Option<Rows>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Peft {
    pub(crate) peft_type: String,
    pub(crate) task_type: Option<String>,
    pub(crate) base_model: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Passport {
    pub(crate) foreword_version: String,
    pub(crate) model: String,
    pub(crate) kind: String,
    pub(crate) template: String,
    pub(crate) chat: Option<Chat>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) label_names: BTreeMap<String, String>,
    pub(crate) joining: String,
    pub(crate) placement: String,
    pub(crate) objective: String,
    pub(crate) max_length: usize,
    pub(crate) text_field: Option<String>,
    pub(crate) label_field: Option<String>,
    pub(crate) target_field: Option<String>,
    pub(crate) init: String,
    pub(crate) seed: u64,
    pub(crate) settings: BTreeMap<String, serde_json::Value>,
    pub(crate) steps: u64,
    pub(crate) best_step: u64,
    pub(crate) data: BTreeMap<String, u64>,
    pub(crate) metrics: BTreeMap<String, BTreeMap<String, f64>>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) calibration: Option<Calibration>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Chat {
    pub(crate) template_digest: String,
    pub(crate) system: Option<String>,
    pub(crate) before: String,
    pub(crate) after: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verdict {
    pub(crate) split: String,
    pub(crate) accuracy: f64,
    pub(crate) interval: (f64, f64),
    pub(crate) baseline: String,
    pub(crate) baseline_accuracy: f64,
    pub(crate) beats_baseline: bool,
    pub(crate) p_value: Option<f64>,
    pub(crate) may_be_chance: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rows {
    pub(crate) model: String,
    pub(crate) table_norm: f64,
    pub(crate) mean_cosine: Option<f64>,
    pub(crate) warning: String,
    pub(crate) tokens: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) norm: f64,
    pub(crate) relative_norm: f64,
    pub(crate) drift: Option<Drift>,
    pub(crate) label_cosines: BTreeMap<String, f64>,
    pub(crate) nearest: Vec<Near>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drift {
    pub(crate) distance: f64,
    pub(crate) cosine: f64,
    pub(crate) nearest_is_init: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Near {
    pub(crate) token: String,
    pub(crate) token_id: u32,
    pub(crate) cosine: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Explained {
    pub(crate) text: String,
    pub(crate) label: String,
    pub(crate) tokens: Vec<String>,
    pub(crate) token_ids: Vec<u32>,
    pub(crate) virtual_tokens: usize,
    pub(crate) hidden: usize,
    pub(crate) without: Said,
    pub(crate) with: Said,
    pub(crate) loss: f64,
    pub(crate) gradient_norms: Vec<f64>,
    pub(crate) update: Update,
    pub(crate) init: String,
    pub(crate) run: Vec<RunRow>,
    pub(crate) costs: Costs,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Said {
    pub(crate) next_tokens: Vec<(String, f64)>,
    pub(crate) probabilities: BTreeMap<String, f64>,
    pub(crate) log_likelihoods: BTreeMap<String, f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Update {
    pub(crate) rate: f64,
    pub(crate) change: f64,
    pub(crate) before: f64,
    pub(crate) after: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunRow {
    pub(crate) step: u64,
    pub(crate) loss: f64,
    pub(crate) probability: f64,
    pub(crate) distance: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Costs {
    pub(crate) learned: u64,
    pub(crate) frozen: u64,
    pub(crate) prompt_bytes: u64,
    pub(crate) model_bytes: u64,
    pub(crate) prompt_optimizer_bytes: u64,
    pub(crate) model_optimizer_bytes: u64,
    pub(crate) prompts_per_model: u64,
}
