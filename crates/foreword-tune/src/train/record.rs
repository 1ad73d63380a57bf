//! The record of a run: what the passport stores, and whether a recorded prompt fits a model.

use std::collections::BTreeMap;

use foreword_backbone::kernels::Backend;
use foreword_backbone::{Identity, Match, Model};
use foreword_format::{
    AdapterConfig, BaseModel, DataRecord, EmbeddingFingerprint, FORMAT_VERSION, FormatError, HubName,
    Passport, PromptDirectory, SoftPrompt, TaskKind, TaskRecord, TrainingRecord,
};
use serde_json::Value;

use crate::chat::Chat;
use crate::engine::prefix::row_width;
use crate::regularize::Regularizers;
use crate::settings::{ClassWeights, Init, KeepBy, Method, Placement};
use crate::task::{Goal, Task};
use crate::train::{Length, Outcome, TrainConfig};

/// The setting of a KV prefix that was compiled, not trained: the digest of its soft prompt.
pub const COMPILED_FROM: &str = "compiled_from";
/// The setting of rows from another tool: their original format.
pub const IMPORTED_FROM: &str = "imported_from";

/// Why a recorded soft prompt can't be used with a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The widths differ.
    #[error(
        "the prompt has rows of width {found}, but those of {model} have width {expected}: it was made for another model{made_for}"
    )]
    Width {
        /// The model's name.
        model: String,
        /// The model's width.
        expected: usize,
        /// The soft prompt's.
        found: usize,
        /// The recorded model, as a phrase, if there is one.
        made_for: String,
    },
    /// The architecture or size differs.
    #[error("the soft prompt was made for {recorded}, which {model} is not: {differences}")]
    OtherSpec {
        /// The model's name.
        model: String,
        /// The recorded one.
        recorded: String,
        /// The differences.
        differences: String,
    },
    /// The weights differ.
    #[error(
        "the soft prompt was made for {recorded}, and {model} has the same shape but other weights; a soft prompt means \
         nothing to another model, so give the one it was made for, or tune a new one"
    )]
    OtherWeights {
        /// The model's name.
        model: String,
        /// The recorded one.
        recorded: String,
    },
    /// An error in the directory.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Something that is allowed but worth reporting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The number format of the model differs from that in training.
    OtherFormat {
        /// The current format.
        here: String,
        /// The recorded format.
        recorded: String,
    },
    /// The tokenizer file differs.
    OtherTokenizer,
    /// The directory has no passport, so the model of the prompt is unknown.
    NoPassport,
}

/// Checks that a directory's soft prompt was made for this model.
///
/// # Errors
/// If its rows have another width, or it was trained for another architecture or other weights.
pub fn check_fit<B: Backend>(
    directory: &PromptDirectory,
    model: &Model<B>,
) -> Result<Vec<Warning>, RecordError> {
    let identity = model.backbone.identity();
    let recorded = directory.passport.as_ref().map(|passport| &passport.base_model);
    let (expected, found) = (row_width(model.backbone.spec(), directory.method()), directory.rows.width());
    if expected != found {
        let name = recorded.map(|base| base.name.clone());
        let name = name.or_else(|| directory.adapter.as_ref().and_then(|adapter| adapter.base_model.clone()));
        let made_for = name.map_or_else(String::new, |name| format!(" ({name})"));
        return Err(RecordError::Width { model: identity.name.clone(), expected, found, made_for });
    }
    if let (None, Some(adapter)) = (recorded, &directory.adapter) {
        check_adapter(adapter, model)?;
    }
    let (Some(base), Some(passport)) = (recorded, &directory.passport) else {
        return Ok(vec![Warning::NoPassport]);
    };
    let mut warnings = Vec::new();
    let (model_name, recorded_name) = (identity.name.clone(), base.name.clone());
    match identity.compare(&identity_of(base)) {
        Match::Same => {}
        Match::OtherFormat => warnings.push(Warning::OtherFormat {
            here: identity.dtype.clone(),
            recorded: base.embeddings.dtype.clone(),
        }),
        Match::OtherSpec(differences) => {
            return Err(RecordError::OtherSpec { model: model_name, recorded: recorded_name, differences });
        }
        Match::OtherWeights => {
            return Err(RecordError::OtherWeights { model: model_name, recorded: recorded_name });
        }
    }
    if passport.tokenizer_digest != model.tokenizer.digest() {
        warnings.push(Warning::OtherTokenizer);
    }
    Ok(warnings)
}

/// Checks against the model in PEFT's own file, if there is no passport.
fn check_adapter<B: Backend>(adapter: &AdapterConfig, model: &Model<B>) -> Result<(), RecordError> {
    let spec = model.backbone.spec();
    let heads = match adapter.method() {
        Method::Prompt => spec.attention.query_heads,
        Method::Prefix => spec.attention.kv_heads,
    };
    let stated =
        [("num_layers", adapter.n_layers, spec.layers), ("num_attention_heads", adapter.n_heads, heads)];
    let differs = stated.into_iter().filter_map(|(name, stated, here)| match stated {
        Some(stated) if stated != here => Some(format!("{name} {here} instead of {stated}")),
        _ => None,
    });
    let differences: Vec<String> = differs.collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(RecordError::OtherSpec {
        model: model.backbone.name().to_owned(),
        recorded: adapter.base_model.clone().unwrap_or_else(|| "a model that it does not name".to_owned()),
        differences: differences.join(", "),
    })
}

/// What to record of a run besides its outcome.
#[derive(Clone, Debug)]
pub struct RunRecord<'a> {
    /// The task.
    pub task: &'a Task,
    /// The field with the labels or targets.
    pub truth_field: &'a str,
    /// Map from label values in the data to label names, where they differ.
    pub label_names: BTreeMap<String, String>,
    /// The training configuration.
    pub config: &'a TrainConfig,
    /// The init.
    pub init: &'a Init,
    /// The scale of the learned rows, to which relative rates refer.
    pub scale: f64,
    /// The settings of each of several candidates, as text; empty for one.
    pub candidates: Vec<String>,
    /// Per split, the digest of the data and the number of examples.
    pub data: BTreeMap<String, DataRecord>,
    /// Per split or baseline (`test`, `test.bare`, `test.majority`), its metrics.
    pub metrics: BTreeMap<String, BTreeMap<String, f64>>,
}

/// The directory of a finished run, ready to be written.
///
/// # Errors
/// If PEFT's configuration can't describe the soft prompt.
pub fn directory<B: Backend>(
    model: &Model<B>,
    run: &RunRecord<'_>,
    outcome: &Outcome,
) -> Result<PromptDirectory, RecordError> {
    let rows = outcome.soft_prompt.clone();
    let adapter = adapter(model, (run.task.method, run.task.placement), rows.n_virtual())?;
    let passport = Passport {
        format_version: FORMAT_VERSION,
        foreword_version: env!("CARGO_PKG_VERSION").to_owned(),
        tensors_digest: String::new(),
        base_model: base_model(model.backbone.identity()),
        tokenizer_digest: model.tokenizer.digest().to_owned(),
        task: TaskRecord {
            label_names: run.label_names.clone(),
            ..task_record(run.task, Some(run.truth_field))
        },
        training: TrainingRecord {
            method: run.task.method,
            n_virtual: rows.n_virtual(),
            width: rows.width(),
            init: init_name(run.init),
            seed: run.config.seed,
            settings: settings(run),
            steps: outcome.steps,
            best_step: outcome.best_step,
            data: run.data.clone(),
        },
        metrics: run.metrics.clone(),
        calibration: None,
    };
    Ok(PromptDirectory { rows, adapter, passport: Some(passport) })
}

/// The directory of rows from another tool, with its name in `format`, for a task with this model.
///
/// # Errors
/// If PEFT's configuration can't describe them.
pub fn imported<B: Backend>(
    model: &Model<B>,
    task: &Task,
    rows: SoftPrompt,
    format: &str,
) -> Result<PromptDirectory, RecordError> {
    let adapter = adapter(model, (task.method, task.placement), rows.n_virtual())?;
    let passport = Passport {
        format_version: FORMAT_VERSION,
        foreword_version: env!("CARGO_PKG_VERSION").to_owned(),
        tensors_digest: String::new(),
        base_model: base_model(model.backbone.identity()),
        tokenizer_digest: model.tokenizer.digest().to_owned(),
        task: task_record(task, None),
        training: TrainingRecord {
            method: task.method,
            n_virtual: rows.n_virtual(),
            width: rows.width(),
            init: "unknown".to_owned(),
            seed: 0,
            settings: BTreeMap::from([(IMPORTED_FROM.to_owned(), format.into())]),
            steps: 0,
            best_step: 0,
            data: BTreeMap::new(),
        },
        metrics: BTreeMap::new(),
        calibration: None,
    };
    Ok(PromptDirectory { rows, adapter, passport: Some(passport) })
}

/// PEFT's configuration for `n_virtual` rows or positions. `None` for placements other than the front: PEFT knows no other
/// placement, and would compute something else.
///
/// # Errors
/// If there are none.
pub fn adapter<B: Backend>(
    model: &Model<B>,
    (method, placement): (Method, Placement),
    n_virtual: usize,
) -> Result<Option<AdapterConfig>, FormatError> {
    if placement != Placement::Front {
        return Ok(None);
    }
    let spec = model.backbone.spec();
    let mut adapter = match method {
        Method::Prompt => AdapterConfig::causal_lm(n_virtual, spec.hidden)?,
        Method::Prefix => {
            let attention = &spec.attention;
            AdapterConfig::causal_lm_prefix(n_virtual, spec.layers, attention.kv_heads, attention.kv_width())?
        }
    };
    let name = model.backbone.name();
    (adapter.base_model, adapter.revision) = match HubName::parse(name) {
        Some(hub) => (Some(hub.repository().to_owned()), hub.revision().map(str::to_owned)),
        None => (Some(name.to_owned()), None),
    };
    if method == Method::Prompt {
        adapter.n_heads = Some(spec.attention.query_heads);
        adapter.n_layers = Some(spec.layers);
    }
    Ok(Some(adapter))
}

/// All settings that determine a run's outcome, by name: a checkpoint is compared with these.
pub fn determinants<B: Backend>(
    model: &Model<B>,
    run: &RunRecord<'_>,
    n_virtual: usize,
) -> BTreeMap<String, Value> {
    let task = run.task;
    let mut all = settings(run);
    let products = model.backbone.backend().product_dtype(model.backbone.embeddings().table().dtype());
    let named: [(&str, Value); 14] = [
        ("dtype", products.name().into()),
        ("method", task.method.to_string().into()),
        ("seed", run.config.seed.into()),
        ("kind", task.goal.kind().to_string().into()),
        ("model", model.backbone.identity().digest.clone().into()),
        ("tokenizer", model.tokenizer.digest().into()),
        ("template", task.template.source().into()),
        ("text_field", task.text_field.clone().into()),
        ("joining", task.joining.to_string().into()),
        ("placement", task.placement.to_string().into()),
        ("objective", task.objective().to_string().into()),
        ("max_length", task.max_length.into()),
        ("init", init_name(run.init).into()),
        ("virtual_tokens", n_virtual.into()),
    ];
    all.extend(named.into_iter().map(|(name, value)| (name.to_owned(), value)));
    all.extend(labels(task).map(|(name, string)| (format!("label {name}"), string.clone().into())));
    if let Some(chat) = &task.chat {
        all.insert("chat template".to_owned(), chat.digest().into());
        all.insert("system".to_owned(), chat.system().into());
    }
    if let Goal::Generation(to) = &task.goal {
        all.insert("target_field".to_owned(), run.truth_field.into());
        all.insert("end_token".to_owned(), to.end.into());
    }
    // The test set does not affect training.
    let deciding = run.data.iter().filter(|(split, _)| *split != "test");
    let digest = |data: &DataRecord| format!("{} examples, {}", data.examples, data.digest);
    all.extend(deciding.map(|(split, data)| (format!("{split} data"), digest(data).into())));
    all
}

fn task_record(task: &Task, truth_field: Option<&str>) -> TaskRecord {
    let truth_field = |kind| truth_field.filter(|_| task.goal.kind() == kind).map(str::to_owned);
    TaskRecord {
        kind: task.goal.kind(),
        template: task.template.source().to_owned(),
        chat: task.chat.as_ref().map(Chat::record),
        labels: labels(task).map(|(name, string)| (name.clone(), string.clone())).collect(),
        label_names: BTreeMap::new(),
        joining: task.joining,
        placement: task.placement,
        objective: task.objective(),
        max_length: task.max_length,
        text_field: task.text_field.clone(),
        label_field: truth_field(TaskKind::Classification),
        target_field: truth_field(TaskKind::Generation),
    }
}

/// Each label with its text; empty for generation.
fn labels(task: &Task) -> impl Iterator<Item = (&String, &String)> {
    task.verbalizer().into_iter().flat_map(|labels| labels.names().iter().zip(labels.strings()))
}

/// The name of an init, without a local path.
fn init_name(init: &Init) -> String {
    match init {
        Init::From(dir) => format!("from:{}", dir.file_name().unwrap_or_default().to_string_lossy()),
        Init::Text(_) | Init::Labels | Init::Vocab | Init::Random | Init::Demonstrations => init.to_string(),
    }
}

fn settings(run: &RunRecord<'_>) -> BTreeMap<String, Value> {
    let config = run.config;
    let TrainConfig { length, batch_size, schedule, warmup, max_grad_norm, weight_decay, shuffle, .. } =
        config;
    let peak = config.peak_rate(run.task.method, run.scale);
    let named: [(&str, Value); 11] = [
        ("batch_size", (*batch_size).into()),
        ("learning_rate", peak.into()),
        ("schedule", schedule.to_string().into()),
        ("warmup", warmup.to_string().into()),
        ("max_grad_norm", (*max_grad_norm).into()),
        ("weight_decay", (*weight_decay).into()),
        ("shuffle", (*shuffle).into()),
        ("eval_every", config.eval_every.into()),
        ("patience", config.patience.into()),
        ("keep", config.keep.to_string().into()),
        ("optimizer", "adamw".into()),
    ];
    let Regularizers { token_dropout, noise, ema_decay, trust_region } = config.regularizers;
    let regularizers = [
        ("token_dropout", token_dropout),
        ("noise", noise),
        ("ema_decay", ema_decay),
        ("trust_region", trust_region),
    ];
    let regularizers = regularizers.into_iter().filter(|(_, value)| *value != 0.0);
    let mut named: BTreeMap<String, Value> =
        named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    named.extend(regularizers.map(|(name, value)| (name.to_owned(), value.into())));
    let (name, value) = match *length {
        Length::Steps(steps) => ("steps", steps.into()),
        Length::Plateau { most } => ("max_steps", most.into()),
        Length::Time { seconds, .. } => ("minutes", (seconds / 60.0).into()),
    };
    named.insert(name.to_owned(), value);
    if config.keep_by != KeepBy::Loss {
        named.insert("keep_by".to_owned(), config.keep_by.to_string().into());
    }
    if config.class_weights != ClassWeights::None {
        named.insert("class_weights".to_owned(), config.class_weights.to_string().into());
    }
    if !run.candidates.is_empty() {
        named.insert("candidates".to_owned(), run.candidates.clone().into());
        named.insert("survivors".to_owned(), config.survivors.into());
    }
    named
}

fn base_model(identity: &Identity) -> BaseModel {
    BaseModel {
        name: identity.name.clone(),
        spec: identity.spec.clone(),
        ignored_config_keys: identity.ignored_config_keys.clone(),
        embeddings: EmbeddingFingerprint {
            dtype: identity.dtype.clone(),
            digest: identity.digest.clone(),
            sketch: identity.sketch.clone(),
        },
    }
}

/// Whether two prompts were trained for the same model, in any number format; the error states the difference.
///
/// # Errors
/// If the second was trained for another one.
pub fn same_model(one: &BaseModel, other: &BaseModel) -> Result<(), String> {
    let (one, other) = (identity_of(one), identity_of(other));
    match one.compare(&other) {
        Match::Same | Match::OtherFormat => Ok(()),
        Match::OtherSpec(differences) => {
            Err(format!("it was made for another model, {}: {differences}", other.name))
        }
        Match::OtherWeights => {
            Err(format!("it was made for {}, which has the same shape but other weights", other.name))
        }
    }
}

fn identity_of(base: &BaseModel) -> Identity {
    Identity {
        name: base.name.clone(),
        spec: base.spec.clone(),
        ignored_config_keys: base.ignored_config_keys.clone(),
        dtype: base.embeddings.dtype.clone(),
        digest: base.embeddings.digest.clone(),
        sketch: base.embeddings.sketch.clone(),
    }
}
