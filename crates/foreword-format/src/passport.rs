//! `foreword.json`, the passport (metadata) of a prompt: its model, tokenizer and template, its training and its scores. It
//! has no times, durations or paths: the same run writes the same bytes.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::choices::{CalibrationMethod, Joining, Method, Objective, Placement, TaskKind};
use crate::digest::is_sha256;
use crate::error::FormatError;

/// The supported version of the passport.
pub const FORMAT_VERSION: u64 = 1;
/// The file name, for messages without a path.
const FILE: &str = "foreword.json";

/// A prompt's passport. [`crate::PromptDirectory`] checks it on reading and on writing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passport {
    /// [`FORMAT_VERSION`].
    pub format_version: u64,
    /// The version of Foreword that trained the prompt.
    pub foreword_version: String,
    /// The digest of `adapter_model.safetensors`. It is computed when the directory is written; the value here is ignored.
    pub tensors_digest: String,
    /// The model of the prompt.
    pub base_model: BaseModel,
    /// The digest of the tokenizer.
    pub tokenizer_digest: String,
    /// Its task.
    pub task: TaskRecord,
    /// Its training.
    pub training: TrainingRecord,
    /// By split ("dev", "test") and by baseline ("dev.bare", "test.bare", "test.majority"): each metric's value.
    pub metrics: BTreeMap<String, BTreeMap<String, f64>>,
    /// The calibration of the label probabilities, if one was fitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationRecord>,
}

/// Maps a label's log-likelihood ℓ to (ℓ + offset) / temperature; the probabilities are the softmax of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationRecord {
    /// How it was fitted.
    pub method: CalibrationMethod,
    /// Above 0.
    pub temperature: f64,
    /// One per label of the task.
    pub offsets: BTreeMap<String, f64>,
}

/// The identity of a frozen model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseModel {
    /// The name it was opened by.
    pub name: String,
    /// Its canonical Spec. Objects in it are ordered by key.
    pub spec: Value,
    /// Keys of its configuration that were ignored on request, and are when the prompt is opened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_config_keys: Vec<String>,
    /// Its embedding table.
    pub embeddings: EmbeddingFingerprint,
}

/// Identifies an embedding table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingFingerprint {
    /// The stored type of the table.
    pub dtype: String,
    /// The digest of the table rounded to bf16: the same for a model and its bf16 copy.
    pub digest: String,
    /// A few numbers computed from the table that stay close if it is stored in another type.
    pub sketch: Vec<f32>,
}

/// The task of a prompt: how fields become text, and what follows the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRecord {
    /// Classification or generation.
    pub kind: TaskKind,
    /// The template, with `{field}` slots; in a chat, the template of the user message.
    pub template: String,
    /// The chat around it, if there is one: the model's own chat template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatRecord>,
    /// Map from label to its text. Empty for generation.
    pub labels: BTreeMap<String, String>,
    /// Map from label values in the data to label names, where they differ: "0" to "negative".
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub label_names: BTreeMap<String, String>,
    /// How labels or targets are joined to the text. It is absent in passports of earlier versions, which mean `apart`.
    #[serde(default = "apart")]
    pub joining: Joining,
    /// The placement of the virtual tokens.
    pub placement: Placement,
    /// The loss.
    pub objective: Objective,
    /// Maximum number of tokens of template, text and label, without virtual tokens.
    pub max_length: usize,
    /// The text field, if there was one.
    pub text_field: Option<String>,
    /// The label field, for classification.
    pub label_field: Option<String>,
    /// The target field, for generation.
    pub target_field: Option<String>,
}

/// A model's chat template, and the text that it wrote around every message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRecord {
    /// The digest of the template's text.
    pub template_digest: String,
    /// The system message, if there was one.
    pub system: Option<String>,
    /// The text before a message.
    pub before: String,
    /// The text after it, up to the reply.
    pub after: String,
}

/// The training of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRecord {
    /// What was learned. Earlier passports have "prompt-tuning" for "prompt".
    #[serde(deserialize_with = "method")]
    pub method: Method,
    /// The number of virtual tokens, P.
    pub n_virtual: usize,
    /// The numbers per row, W: the hidden size H, or for a KV prefix L·2·K·D.
    #[serde(alias = "hidden")]
    pub width: usize,
    /// The init of the rows.
    pub init: String,
    /// The random seed.
    pub seed: u64,
    /// All other settings, by name. Objects in them are ordered by key.
    pub settings: BTreeMap<String, Value>,
    /// The number of steps.
    pub steps: u64,
    /// The step of the kept rows.
    pub best_step: u64,
    /// By split, the data used.
    pub data: BTreeMap<String, DataRecord>,
}

/// The record of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecord {
    /// The digest of its examples in use: texts and labels or targets. In passports without `file_digest` it is the digest
    /// of the file.
    pub digest: String,
    /// The digest of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_digest: Option<String>,
    /// The number of examples.
    pub examples: u64,
}

impl Passport {
    /// Parses a `foreword.json`; `path` is its location, for messages.
    ///
    /// # Errors
    /// If they are not JSON, have another version, lack a field or have an unknown one, or are inconsistent.
    pub fn from_json(bytes: &[u8], path: &Path) -> Result<Self, FormatError> {
        // The version first: a later one may have other fields, and "unknown field" would not say why.
        #[derive(Deserialize)]
        struct Version {
            format_version: u64,
        }
        let json = |source| FormatError::Json { path: path.to_owned(), source };
        let Version { format_version } = serde_json::from_slice(bytes).map_err(json)?;
        check_version(format_version, path)?;
        let passport: Self = serde_json::from_slice(bytes).map_err(json)?;
        passport.check(path)?;
        check_digest("tensors_digest", &passport.tensors_digest, path)?;
        Ok(passport)
    }

    /// The bytes of a `foreword.json` for tensors with this digest. Equal passports give equal bytes.
    ///
    /// # Errors
    /// If the passport is inconsistent or contains a number that is not finite.
    pub fn to_json(&self, tensors_digest: &str) -> Result<Vec<u8>, FormatError> {
        self.check(Path::new(FILE))?;
        check_digest("tensors_digest", tensors_digest, Path::new(FILE))?;
        let mut sealed = self.clone();
        sealed.tensors_digest = tensors_digest.to_owned();
        sealed.base_model.spec.sort_all_objects();
        sealed.training.settings.values_mut().for_each(Value::sort_all_objects);
        let mut bytes = serde_json::to_vec_pretty(&sealed)
            .map_err(|source| FormatError::EncodeJson { file: FILE, source })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Checks that the passport is consistent, except for the digest of the tensors.
    fn check(&self, path: &Path) -> Result<(), FormatError> {
        check_version(self.format_version, path)?;
        check_digest("base_model.embeddings.digest", &self.base_model.embeddings.digest, path)?;
        check_digest("tokenizer_digest", &self.tokenizer_digest, path)?;
        if let Some(chat) = &self.task.chat {
            check_digest("task.chat.template_digest", &chat.template_digest, path)?;
        }
        for record in self.training.data.values() {
            check_digest("training.data", &record.digest, path)?;
            if let Some(file) = &record.file_digest {
                check_digest("training.data.file_digest", file, path)?;
            }
        }
        self.check_numbers(path)?;
        let sizes = [
            ("task.max_length", self.task.max_length),
            ("training.n_virtual", self.training.n_virtual),
            ("training.width", self.training.width),
        ];
        if let Some(&(field, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(FormatError::Zero { path: path.to_owned(), field });
        }
        if self.task.kind == TaskKind::Classification && self.task.labels.is_empty() {
            return Err(FormatError::NoLabels { path: path.to_owned() });
        }
        self.check_calibration(path)?;
        let (best_step, steps) = (self.training.best_step, self.training.steps);
        if best_step > steps {
            return Err(FormatError::BestStep { path: path.to_owned(), best_step, steps });
        }
        Ok(())
    }

    /// Checks that all numbers are finite: serde_json would write others as null, which can't be read back.
    fn check_numbers(&self, path: &Path) -> Result<(), FormatError> {
        let metrics = self.metrics.iter().flat_map(|(split, metrics)| {
            metrics.iter().map(move |(name, &value)| (["metrics", split, name].join("."), value))
        });
        let sketch = self.base_model.embeddings.sketch.iter();
        let mut sketch = sketch.map(|&value| ("base_model.embeddings.sketch".to_owned(), f64::from(value)));
        let calibration = self.calibration.iter().flat_map(|calibration| {
            let offsets = calibration.offsets.iter();
            let offsets = offsets.map(|(label, &value)| (format!("calibration.offsets.{label}"), value));
            offsets.chain([("calibration.temperature".to_owned(), calibration.temperature)])
        });
        match metrics.chain(&mut sketch).chain(calibration).find(|(_, value)| !value.is_finite()) {
            Some((field, value)) => Err(FormatError::NotANumber { path: path.to_owned(), field, value }),
            None => Ok(()),
        }
    }

    /// Checks that a calibration has these labels.
    fn check_calibration(&self, path: &Path) -> Result<(), FormatError> {
        let Some(calibration) = &self.calibration else { return Ok(()) };
        if calibration.temperature <= 0.0 {
            let temperature = calibration.temperature;
            return Err(FormatError::Temperature { path: path.to_owned(), temperature });
        }
        if !calibration.offsets.keys().eq(self.task.labels.keys()) {
            return Err(FormatError::CalibrationLabels { path: path.to_owned() });
        }
        Ok(())
    }
}

/// The joining of labels and targets in earlier versions.
fn apart() -> Joining {
    Joining::Apart
}

/// A method by its current or earlier name.
fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.strip_suffix("-tuning").unwrap_or(&name).parse().map_err(serde::de::Error::custom)
}

/// Checks that the version is supported.
fn check_version(found: u64, path: &Path) -> Result<(), FormatError> {
    if found == FORMAT_VERSION {
        Ok(())
    } else {
        Err(FormatError::FormatVersion { path: path.to_owned(), found, supported: FORMAT_VERSION })
    }
}

/// Checks that `found` is a digest.
fn check_digest(field: &'static str, found: &str, path: &Path) -> Result<(), FormatError> {
    if is_sha256(found) {
        Ok(())
    } else {
        Err(FormatError::DigestSpelling { path: path.to_owned(), field, found: found.to_owned() })
    }
}
