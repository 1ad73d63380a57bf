//! Checkpoints: the state of a run as a file, to resume it with the same result to the bit.

use std::borrow::Cow;
use std::collections::BTreeMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::optimizer::AdamW;
use crate::state::{Best, CandidateState, DevScore, TrainState};
use crate::train::{Cause, Decay, StopReason};

/// The only key of the file's metadata; several would not keep their order.
const KEY: &str = "foreword";
/// The version of the file format, and of the sums that a resumed run must continue bit for bit.
const VERSION: u64 = 6;

/// Why a run can't resume from a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file is damaged.
    #[error("the checkpoint is damaged or has another version ({detail}); start again without it")]
    Damaged {
        /// The reader's message.
        detail: String,
    },
    /// The run had other settings.
    #[error(
        "the checkpoint belongs to a run with other settings: {differences}; give those again, or start again without it"
    )]
    OtherSettings {
        /// Each as `steps 400 instead of 800`: the checkpoint's value, then the given one.
        differences: String,
    },
    /// The tensors can't be encoded.
    #[error("the checkpoint can't be encoded: {detail}")]
    Encode {
        /// The writer's message.
        detail: String,
    },
}

/// The metadata next to the tensors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u64,
    width: usize,
    step: u64,
    halvings: u64,
    seconds: f64,
    decay: Option<(u64, u64, Cause)>,
    candidates: Vec<CandidateHeader>,
    settings: BTreeMap<String, Value>,
}

/// The metadata of one candidate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CandidateHeader {
    learning_rate: Option<String>,
    seed: Option<u64>,
    scale: Option<f64>,
    best: Option<(u64, [f64; 2])>,
    since_best: u64,
    history: Vec<[f64; 2]>,
    evaluated: Option<(u64, [f64; 2])>,
    n_updates: u64,
    left: Option<(Left, u64)>,
}

/// Why a candidate stopped.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Left {
    EarlyStopped,
    Dropped,
    /// It diverged in this step.
    Diverged(u64),
}

/// Encodes a checkpoint. `settings` determine the run completely: resuming requires the same ones.
///
/// # Errors
/// If the tensors can't be encoded, which should never happen.
pub fn encode(state: &TrainState, settings: &BTreeMap<String, Value>) -> Result<Vec<u8>, CheckpointError> {
    let error = |detail: String| CheckpointError::Encode { detail };
    let header = Header {
        version: VERSION,
        width: state.width,
        step: state.step,
        halvings: state.halvings,
        seconds: state.seconds,
        decay: state.decay.map(|decay| (decay.from, decay.until, decay.cause)),
        candidates: state.runs.iter().map(header_of).collect(),
        settings: settings.clone(),
    };
    let header = serde_json::to_string(&header).map_err(|e| error(e.to_string()))?;
    let mut bytes: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (i, run) in state.runs.iter().enumerate() {
        let mut tensors =
            vec![("values", &run.values), ("first", &run.optimizer.first), ("second", &run.optimizer.second)];
        tensors.extend(run.best.as_ref().map(|best| ("best", &best.values)));
        tensors.extend(run.average.as_ref().map(|average| ("average", average)));
        tensors.extend(run.init.as_ref().map(|init| ("init", init)));
        for (name, values) in tensors {
            let of = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            bytes.insert(tensor_name(i, name), of);
        }
    }
    let mut views = BTreeMap::new();
    for (name, bytes) in &bytes {
        let view =
            TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(|e| error(e.to_string()))?;
        views.insert(name.as_str(), view);
    }
    let metadata = std::collections::HashMap::from([(KEY.to_owned(), header)]);
    safetensors::serialize(views, Some(metadata)).map_err(|e| error(e.to_string()))
}

fn tensor_name(candidate: usize, name: &str) -> String {
    format!("{candidate}.{name}")
}

fn header_of(run: &CandidateState) -> CandidateHeader {
    let left = run.left.and_then(|(ended, step)| {
        let left = match ended {
            StopReason::EarlyStopped => Left::EarlyStopped,
            StopReason::Dropped => Left::Dropped,
            StopReason::Diverged { step } => Left::Diverged(step),
            StopReason::Finished | StopReason::Cancelled => return None,
        };
        Some((left, step))
    });
    CandidateHeader {
        learning_rate: run.learning_rate.map(|rate| rate.to_string()),
        seed: run.seed,
        scale: run.scale,
        best: run.best.as_ref().map(|best| (best.step, [best.score.key, best.score.loss])),
        since_best: run.since_best,
        history: run.history.iter().map(|score| [score.key, score.loss]).collect(),
        evaluated: run.evaluated.map(|(step, score)| (step, [score.key, score.loss])),
        n_updates: run.optimizer.n_updates,
        left,
    }
}

/// Decodes a checkpoint.
///
/// # Errors
/// If it is damaged, or is from a run with other settings.
pub fn decode(bytes: &[u8], settings: &BTreeMap<String, Value>) -> Result<TrainState, CheckpointError> {
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
    if header.width == 0 || header.candidates.is_empty() {
        return Err(damaged("shapes"));
    }
    let candidates = header.candidates.iter().enumerate();
    let runs = candidates
        .map(|(i, candidate)| running(&parsed, i, candidate, header.width))
        .collect::<Result<_, _>>()?;
    let decay = header.decay.map(|(from, until, cause)| Decay { from, until, cause });
    if decay.is_some_and(|decay| decay.from > header.step || decay.until <= decay.from) {
        return Err(damaged("decay"));
    }
    let Header { width, step, halvings, seconds, .. } = header;
    Ok(TrainState { width, step, halvings, seconds, decay, runs })
}

fn damaged(detail: &str) -> CheckpointError {
    CheckpointError::Damaged { detail: detail.to_owned() }
}

/// Candidate `i`, from its header and its tensors.
fn running(
    parsed: &SafeTensors<'_>,
    i: usize,
    header: &CandidateHeader,
    width: usize,
) -> Result<CandidateState, CheckpointError> {
    let values = |name: &str| -> Result<Vec<f32>, CheckpointError> {
        let view = parsed.tensor(&tensor_name(i, name)).map_err(|e| damaged(&e.to_string()))?;
        let (chunks, rest) = view.data().as_chunks::<4>();
        let values: Vec<f32> = chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let whole = view.dtype() == Dtype::F32 && rest.is_empty() && values.iter().all(|v| v.is_finite());
        if whole { Ok(values) } else { Err(damaged(name)) }
    };
    let if_there =
        |name: &str| parsed.tensor(&tensor_name(i, name)).is_ok().then(|| values(name)).transpose();
    let best = match header.best {
        Some((step, [key, loss])) => {
            Some(Best { values: values("best")?, step, score: DevScore { key, loss } })
        }
        None => None,
    };
    let learning_rate = header.learning_rate.as_ref().map(|rate| rate.parse()).transpose();
    let run = CandidateState {
        learning_rate: learning_rate.map_err(|_| damaged("learning rate"))?,
        seed: header.seed,
        scale: header.scale,
        values: values("values")?,
        optimizer: AdamW { first: values("first")?, second: values("second")?, n_updates: header.n_updates },
        average: if_there("average")?,
        init: if_there("init")?,
        best,
        since_best: header.since_best,
        history: header.history.iter().map(|&[key, loss]| DevScore { key, loss }).collect(),
        evaluated: header.evaluated.map(|(step, [key, loss])| (step, DevScore { key, loss })),
        left: header.left.map(|(left, step)| {
            let ended = match left {
                Left::EarlyStopped => StopReason::EarlyStopped,
                Left::Dropped => StopReason::Dropped,
                Left::Diverged(step) => StopReason::Diverged { step },
            };
            (ended, step)
        }),
    };
    let n = run.values.len();
    let best = run.best.as_ref().map(|best| &best.values);
    let others = [
        best,
        Some(&run.optimizer.first),
        Some(&run.optimizer.second),
        run.average.as_ref(),
        run.init.as_ref(),
    ];
    let alike = others.into_iter().flatten().all(|other| other.len() == n);
    let scaled = run.scale.is_none_or(|scale| scale.is_finite() && scale >= 0.0);
    if n > 0 && n.is_multiple_of(width) && alike && scaled { Ok(run) } else { Err(damaged("shapes")) }
}

/// The settings that differ, as `steps 400 instead of 800`: recorded, then given.
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
