//! Errors of prompt directories, each with its location and a remedy.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::{Method, Placement};

/// The origin of rows, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Given by the caller.
    Memory,
    /// Read from this file.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("the given prompt rows"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// An error in a prompt directory, or in writing one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The operating system failed.
    #[error("cannot {action} {path}")]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },

    /// The path of a prompt directory does not exist, or is not a directory.
    #[error("{path} is not a directory; give the directory that holds adapter_model.safetensors")]
    NotADirectory {
        /// The path given.
        path: PathBuf,
    },
    /// One of the files is a directory, a pipe or a device.
    #[error("{path} is not a regular file; move it away")]
    NotAFile {
        /// The path of the file.
        path: PathBuf,
    },
    /// The directory has no tensors.
    #[error("{path} does not exist; a prompt directory holds its learned rows there")]
    NoTensors {
        /// The expected path of the tensors.
        path: PathBuf,
    },
    /// The tensors have no description.
    #[error(
        "{dir} has neither adapter_config.json nor foreword.json, so nothing says what its tensors are; \
         copy the one that was written with them"
    )]
    NoDescription {
        /// The prompt directory.
        dir: PathBuf,
    },
    /// The tensors are a pickle, which can execute code when loaded.
    #[error(
        "{path} is a pickle, which could run code: `foreword import` makes a prompt directory of it and runs nothing"
    )]
    Pickle {
        /// The pickle.
        path: PathBuf,
    },
    /// A file exceeds the size limit.
    #[error(
        "{path} has {bytes} bytes, more than the {limit} that such a file can have; is it the right file?"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A JSON file is not valid, lacks a field, or has one of the wrong type.
    #[error("{path} cannot be understood; write it again or take it from a fresh copy of the prompt")]
    Json {
        /// The file.
        path: PathBuf,
        /// The error, with line and column.
        source: serde_json::Error,
    },
    /// A JSON file could not be produced.
    #[error("{file} cannot be written as JSON")]
    EncodeJson {
        /// The name of the file.
        file: &'static str,
        /// The error from serde.
        source: serde_json::Error,
    },
    /// The tensors could not be serialised.
    #[error("the prompt rows cannot be written as safetensors")]
    EncodeTensors {
        /// The error from safetensors.
        source: safetensors::SafeTensorError,
    },

    /// An unsupported kind of adapter.
    #[error(
        "{path} is a {found} adapter; only PROMPT_TUNING, P_TUNING and PREFIX_TUNING are read as they are, \
         whose learned rows stand before the embedded text"
    )]
    PeftType {
        /// The adapter_config.json.
        path: PathBuf,
        /// Its `peft_type`, or a word for its absence.
        found: String,
    },
    /// A prompt for an unsupported kind of model.
    #[error(
        "{path} has task_type {found}; only CAUSAL_LM, SEQ_2_SEQ_LM and null are supported, \
         because other tasks also train a head that is not part of the prompt"
    )]
    TaskType {
        /// The adapter_config.json.
        path: PathBuf,
        /// Its `task_type`.
        found: String,
    },
    /// A required PEFT field is missing.
    #[error("{path} has no {field}; PEFT writes it for every prompt, so save the prompt again")]
    MissingField {
        /// The adapter_config.json.
        path: PathBuf,
        /// The field.
        field: &'static str,
    },
    /// PEFT's number of copies of the prompt is neither one nor two.
    #[error("{path} has num_transformer_submodules {found}; 1 or 2 was expected")]
    Submodules {
        /// The adapter_config.json.
        path: PathBuf,
        /// The number found.
        found: usize,
    },

    /// The safetensors file ends inside its header.
    #[error(
        "{origin} has {bytes} bytes, too few for a safetensors header of {header}; the file is truncated"
    )]
    Truncated {
        /// The origin of the bytes.
        origin: Origin,
        /// Their number.
        bytes: u64,
        /// The size of the header, including the eight bytes of its length.
        header: u64,
    },
    /// The safetensors header claims to be larger than that of any prompt.
    #[error(
        "{origin} claims a safetensors header of {claimed} bytes, more than the {limit} of any prompt; \
         is it a safetensors file?"
    )]
    HeaderTooLarge {
        /// The origin of the bytes.
        origin: Origin,
        /// The claimed length.
        claimed: u64,
        /// The limit.
        limit: u64,
    },
    /// The safetensors header is not valid.
    #[error("{origin} has an invalid safetensors header; the file is damaged or of another kind")]
    Header {
        /// The origin of the bytes.
        origin: Origin,
        /// The error.
        source: serde_json::Error,
    },
    /// The size of the tensors differs from the header.
    #[error(
        "{origin} has {found} bytes of tensors where its header announces {announced}; the file is damaged"
    )]
    DataLength {
        /// The origin of the bytes.
        origin: Origin,
        /// The size in the header.
        announced: u64,
        /// The actual size after the header.
        found: u64,
    },
    /// The safetensors file has no soft prompt.
    #[error("{origin} has no tensor prompt_embeddings but {found:?}; it is not a soft prompt")]
    NoPromptTensor {
        /// The origin of the bytes.
        origin: Origin,
        /// The names of its first few tensors.
        found: Vec<String>,
    },
    /// There are other tensors besides the soft prompt.
    #[error(
        "{origin} has a tensor {name} besides prompt_embeddings: a part of the model was trained too, \
         and the prompt alone would not give the same answers"
    )]
    ExtraTensor {
        /// The origin of the bytes.
        origin: Origin,
        /// The other tensor.
        name: String,
    },
    /// The soft prompt has an unsupported type.
    #[error(
        "{origin} has prompt_embeddings as {found}; F32, F16 and BF16 are read, so convert it to one of them"
    )]
    Dtype {
        /// The origin of the bytes.
        origin: Origin,
        /// The type.
        found: String,
    },
    /// The soft prompt is not a matrix.
    #[error(
        "{origin} has prompt_embeddings of shape {shape:?}; a matrix [virtual tokens, numbers of each] was expected"
    )]
    Rank {
        /// The origin of the bytes.
        origin: Origin,
        /// The shape.
        shape: Vec<usize>,
    },

    /// A soft prompt without rows or without columns.
    #[error("{origin} has {n_virtual} virtual tokens of {width} numbers; neither may be zero")]
    Empty {
        /// The origin of the numbers.
        origin: Origin,
        /// The number of virtual tokens.
        n_virtual: usize,
        /// The numbers per virtual token.
        width: usize,
    },
    /// The number of values does not match the shape.
    #[error("{origin}: {values} values cannot be {n_virtual} virtual tokens of {width} numbers")]
    ValueCount {
        /// The origin of the values.
        origin: Origin,
        /// Their number.
        values: usize,
        /// The number of virtual tokens.
        n_virtual: usize,
        /// The numbers per virtual token.
        width: usize,
    },
    /// A learned value is NaN or infinite.
    #[error(
        "{origin}: row {row}, column {column} of the prompt is {value}; a run that diverged cannot be used"
    )]
    NotFinite {
        /// The origin of the values.
        origin: Origin,
        /// The row, from 0.
        row: usize,
        /// The column, from 0.
        column: usize,
        /// The value.
        value: f32,
    },
    /// Two files of a directory disagree on its shape.
    #[error(
        "{one} says {quantity} {one_value}, but {other} says {other_value}; the files do not belong together"
    )]
    Disagree {
        /// The quantity in question.
        quantity: &'static str,
        /// One file.
        one: PathBuf,
        /// Its value.
        one_value: usize,
        /// The other file.
        other: PathBuf,
        /// Its value.
        other_value: usize,
    },

    /// The passport has an unsupported version.
    #[error(
        "{path} has format version {found}; this version of foreword reads {supported}, so use a newer one"
    )]
    FormatVersion {
        /// The passport.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The supported version.
        supported: u64,
    },
    /// The tensors do not match the passport.
    #[error(
        "{path} was changed after its foreword.json was written (now {found}, then {recorded}); \
         restore the file, train again, or delete foreword.json to use the rows as PEFT would"
    )]
    TensorsChanged {
        /// The tensors.
        path: PathBuf,
        /// The digest in the passport.
        recorded: String,
        /// The digest of the file.
        found: String,
    },
    /// A digest in the passport is malformed.
    #[error("{path} has {field} {found:?}; sha256: and 64 hexadecimal digits were expected")]
    DigestSpelling {
        /// The passport.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
    },
    /// A number in the passport is NaN or infinite.
    #[error("{path}: {field} is {value}; JSON has no such number, so leave it out")]
    NotANumber {
        /// The passport.
        path: PathBuf,
        /// The location in the passport.
        field: String,
        /// The value.
        value: f64,
    },
    /// A size in the passport is zero.
    #[error("{path}: {field} is 0; at least 1 was expected")]
    Zero {
        /// The passport.
        path: PathBuf,
        /// The location in the passport.
        field: &'static str,
    },
    /// A classification without labels.
    #[error(
        "{path} is for classification but has no labels; task.labels names each label and the text for it"
    )]
    NoLabels {
        /// The passport.
        path: PathBuf,
    },
    /// A temperature that can't be divided by.
    #[error("{path}: calibration.temperature is {temperature}; a number above 0 was expected")]
    Temperature {
        /// The passport.
        path: PathBuf,
        /// The value.
        temperature: f64,
    },
    /// A calibration with other labels.
    #[error("{path}: calibration.offsets must have one number for each label of task.labels, and no other")]
    CalibrationLabels {
        /// The passport.
        path: PathBuf,
    },
    /// The best step is after the last one.
    #[error("{path}: training.best_step is {best_step}, after the last of {steps} steps")]
    BestStep {
        /// The passport.
        path: PathBuf,
        /// The step of the prompt that was kept.
        best_step: u64,
        /// The number of steps.
        steps: u64,
    },
    /// PEFT's file exists for a prompt that PEFT would place wrongly.
    #[error(
        "{dir}: the prompt's placement is {placement}, but adapter_config.json makes PEFT place it at the front; \
         a prompt with this placement has no adapter_config.json"
    )]
    AdapterMisplaced {
        /// The prompt directory.
        dir: PathBuf,
        /// The placement in the passport.
        placement: Placement,
    },

    /// The files disagree on what was learned.
    #[error("{dir}: adapter_config.json is of a {one}, but foreword.json of a {other}")]
    OtherMethod {
        /// The prompt directory.
        dir: PathBuf,
        /// The method in PEFT's file.
        one: Method,
        /// The method in the passport.
        other: Method,
    },

    /// Something already exists at the path of the prompt.
    #[error("{dir} already has {entry} in it; pass --force to replace the prompt there, or another --out")]
    Exists {
        /// The prompt directory.
        dir: PathBuf,
        /// The first entry found in it.
        entry: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_small_enough_to_be_returned_everywhere() {
        assert!(size_of::<FormatError>() <= 128, "{}", size_of::<FormatError>());
    }
}
