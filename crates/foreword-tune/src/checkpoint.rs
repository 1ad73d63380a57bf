//! A run's progress as a file: written now and then, read to go on where it stopped, to the bit.

use std::borrow::Cow;
use std::collections::BTreeMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::optimizer::AdamW;
use crate::train::{Best, Progress};

/// The one key of the file's metadata; several would not keep their order.
const KEY: &str = "foreword";
/// Version of the file that is written and read.
const VERSION: u64 = 1;

/// Why a checkpoint can't be gone on from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Not a whole checkpoint.
    #[error("the checkpoint is damaged or of another version ({detail}); start again without it")]
    Damaged {
        /// What the reader found.
        detail: String,
    },
    /// The run that it belongs to was set otherwise.
    #[error(
        "the checkpoint belongs to a run with other settings: {differences}; give those again, or start again without it"
    )]
    OtherSettings {
        /// Each as `steps 400 instead of 800`: the checkpoint's value, then the one given.
        differences: String,
    },
    /// The tensors can't be put together.
    #[error("the checkpoint can't be encoded: {detail}")]
    Encode {
        /// What the writer said.
        detail: String,
    },
}

/// What stands beside the tensors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u64,
    hidden: usize,
    step: u64,
    best: Option<(u64, f64)>,
    since_best: u64,
    evaluated: Option<u64>,
    n_updates: u64,
    settings: BTreeMap<String, Value>,
}

/// The bytes of a checkpoint. `settings` are all that a run is determined by: the same must be given to go on.
///
/// # Errors
/// If the tensors can't be put together, which no progress causes.
pub fn encode(progress: &Progress, settings: &BTreeMap<String, Value>) -> Result<Vec<u8>, CheckpointError> {
    let error = |detail: String| CheckpointError::Encode { detail };
    let header = Header {
        version: VERSION,
        hidden: progress.hidden,
        step: progress.step,
        best: progress.best.as_ref().map(|best| (best.step, best.loss)),
        since_best: progress.since_best,
        evaluated: progress.evaluated,
        n_updates: progress.optimizer.n_updates,
        settings: settings.clone(),
    };
    let header = serde_json::to_string(&header).map_err(|e| error(e.to_string()))?;
    let mut tensors = BTreeMap::from([
        ("values", &progress.values),
        ("first", &progress.optimizer.first),
        ("second", &progress.optimizer.second),
    ]);
    tensors.extend(progress.best.as_ref().map(|best| ("best", &best.values)));
    let bytes: BTreeMap<&str, Vec<u8>> = tensors
        .iter()
        .map(|(name, values)| (*name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let mut views = BTreeMap::new();
    for (name, bytes) in &bytes {
        let view =
            TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(|e| error(e.to_string()))?;
        views.insert(*name, view);
    }
    let metadata = std::collections::HashMap::from([(KEY.to_owned(), header)]);
    safetensors::serialize(views, Some(metadata)).map_err(|e| error(e.to_string()))
}

/// The progress that a checkpoint holds.
///
/// # Errors
/// If it is damaged, or belongs to a run with other settings.
pub fn decode(bytes: &[u8], settings: &BTreeMap<String, Value>) -> Result<Progress, CheckpointError> {
    let damaged = |detail: &str| CheckpointError::Damaged { detail: detail.to_owned() };
    let parsed = SafeTensors::deserialize(bytes).map_err(|e| damaged(&e.to_string()))?;
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(&e.to_string()))?;
    let header = metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
    let header = header.ok_or_else(|| damaged("no header"))?;
    let header: Header = serde_json::from_str(header).map_err(|e| damaged(&e.to_string()))?;
    if header.version != VERSION {
        return Err(damaged("version"));
    }
    let differences = differences(&header.settings, settings);
    if !differences.is_empty() {
        return Err(CheckpointError::OtherSettings { differences: differences.join(", ") });
    }
    let values = |name: &str| -> Result<Vec<f32>, CheckpointError> {
        let view = parsed.tensor(name).map_err(|e| damaged(&e.to_string()))?;
        let (chunks, rest) = view.data().as_chunks::<4>();
        let values: Vec<f32> = chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let whole = view.dtype() == Dtype::F32 && rest.is_empty() && values.iter().all(|v| v.is_finite());
        if whole { Ok(values) } else { Err(damaged(name)) }
    };
    let best = match header.best {
        Some((step, loss)) => Some(Best { values: values("best")?, step, loss }),
        None => None,
    };
    let optimizer = AdamW { first: values("first")?, second: values("second")?, n_updates: header.n_updates };
    let progress = Progress {
        hidden: header.hidden,
        step: header.step,
        values: values("values")?,
        optimizer,
        best,
        since_best: header.since_best,
        evaluated: header.evaluated,
    };
    let n = progress.values.len();
    let others = [&progress.optimizer.first, &progress.optimizer.second].into_iter();
    let others = others.chain(progress.best.as_ref().map(|best| &best.values));
    if n == 0
        || header.hidden == 0
        || !n.is_multiple_of(header.hidden)
        || others.into_iter().any(|o| o.len() != n)
    {
        return Err(damaged("shapes"));
    }
    Ok(progress)
}

/// Settings that differ, as `steps 400 instead of 800`: recorded, then given.
fn differences(recorded: &BTreeMap<String, Value>, given: &BTreeMap<String, Value>) -> Vec<String> {
    let shown = |value: Option<&Value>| -> Cow<'static, str> {
        value.map_or(Cow::Borrowed("nothing"), |value| Cow::Owned(value.to_string()))
    };
    let keys: std::collections::BTreeSet<&String> = recorded.keys().chain(given.keys()).collect();
    let differing = keys.into_iter().filter(|key| recorded.get(*key) != given.get(*key));
    differing
        .map(|key| format!("{key} {} instead of {}", shown(recorded.get(key)), shown(given.get(key))))
        .collect()
}
