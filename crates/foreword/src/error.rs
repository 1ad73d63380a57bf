//! The error type of the library: its kind, its causes on one line, and a hint.

use std::fmt;

use crate::chat::ChatError;
use crate::checkpoint::CheckpointError;
use crate::data;
use crate::encode::EncodeError;
use crate::format::Origin;
use crate::format::foreign::ForeignError;
use crate::init::InitError;
use crate::prefix::CompileError;
use crate::record::RecordError;
use crate::run::Unwritten;
use crate::settings::SettingError;
use crate::task_file::TaskFileError;
use crate::template::TemplateError;
use crate::verbalizer::VerbalizerError;
use crate::{BackboneError, DataError, FormatError, TaskError, TokenizerError, TrainError};
use foreword_hub::HubError;

/// The source of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The user's input: a file, a setting, data.
    User,
    /// Anything else: the disk, a diverged run, a bug.
    Failed,
    /// The caller cancelled.
    Cancelled,
}

/// Any error of the library. [`fmt::Display`] prints it with its causes on one line; [`fmt::Debug`], which a `main` that
/// returns an error uses, with the hint below.
pub struct Error(anyhow::Error);

/// A result of the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of another library.
    pub fn other(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(error.into())
    }

    /// The kind of the error; the first cause of a known kind decides.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.chain().find_map(known).unwrap_or(ErrorKind::Failed)
    }

    /// A hint: what to try next, unless the message already says it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        self.0.chain().find_map(hint)
    }

    /// Adds context in front of the message.
    #[must_use]
    pub fn context(self, what: impl fmt::Display + Send + Sync + 'static) -> Self {
        Self(self.0.context(what))
    }

    /// Takes out the error of this type, if it is one.
    ///
    /// # Errors
    /// This error itself, if it is of another type.
    pub fn downcast<E: std::error::Error + Send + Sync + 'static>(self) -> Result<E> {
        self.0.downcast().map_err(Self)
    }

    /// The first cause of this type.
    #[must_use]
    pub fn find<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.chain().find_map(|cause| cause.downcast_ref())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some messages quote their cause, which is not repeated.
        let mut message = String::new();
        for cause in self.0.chain() {
            let cause = cause.to_string();
            if message.is_empty() {
                message = cause;
            } else if !message.ends_with(&cause) {
                message = format!("{message}: {cause}");
            }
        }
        f.write_str(&message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        self.hint().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}

impl std::error::Error for Error {}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        Self(error)
    }
}

macro_rules! from {
    ($($error:ty),+) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self(error.into())
            }
        })+
    };
}

from!(
    BackboneError,
    ChatError,
    CheckpointError,
    CompileError,
    DataError,
    Diverged,
    EncodeError,
    ForeignError,
    FormatError,
    HubError,
    InitError,
    NothingLearned,
    RecordError,
    SettingError,
    TaskError,
    TaskFileError,
    TemplateError,
    TokenizerError,
    TrainError,
    Unwritten,
    UserError,
    VerbalizerError,
    WriteError,
    data::write::WriteError
);

/// Invalid user input, with a hint.
#[derive(Debug)]
pub struct UserError {
    message: String,
    hint: Option<String>,
}

impl UserError {
    /// An error without a hint, for a message that says everything.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for UserError {}

/// A run with a loss or gradient that is not finite.
#[derive(Debug, thiserror::Error)]
#[error("the loss or its gradient was not a finite number at step {step}")]
pub struct Diverged {
    /// The step.
    pub step: u64,
}

/// A run cancelled before its first step.
#[derive(Debug, thiserror::Error)]
#[error("interrupted before the first step; nothing was written")]
pub struct NothingLearned;

/// A file or stream that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {what}")]
pub struct WriteError {
    /// What was being written.
    pub what: String,
    /// The system's error.
    pub source: std::io::Error,
}

/// Checks before any work why something can't be written: a [`UserError`] if another path would work, a [`WriteError`] if
/// the disk is full.
pub fn unwritable(
    what: String,
    error: std::io::Error,
    user: impl FnOnce(&str) -> UserError,
) -> anyhow::Error {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => WriteError { what, source: error }.into(),
        _ => user(&error.to_string()).into(),
    }
}

fn known(cause: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
    if let Some(error) = cause.downcast_ref::<Error>() {
        return Some(error.kind());
    }
    if let Some(error) = cause.downcast_ref::<FormatError>() {
        return Some(match error {
            FormatError::Io { action: "open" | "read" | "list", .. } => ErrorKind::User,
            FormatError::Io { .. } | FormatError::EncodeJson { .. } | FormatError::EncodeTensors { .. } => {
                ErrorKind::Failed
            }
            FormatError::NotFinite { origin: Origin::Memory, .. } => ErrorKind::Failed,
            _ => ErrorKind::User,
        });
    }
    if let Some(error) = cause.downcast_ref::<HubError>() {
        return Some(if error.is_given() { ErrorKind::User } else { ErrorKind::Failed });
    }
    if let Some(error) = cause.downcast_ref::<data::write::WriteError>() {
        use data::write::WriteError::{DuplicateField, UnknownEnding};
        let is_user = matches!(error, UnknownEnding { .. } | DuplicateField { .. });
        return Some(if is_user { ErrorKind::User } else { ErrorKind::Failed });
    }
    if cause.is::<NothingLearned>() {
        return Some(ErrorKind::Cancelled);
    }
    if let Some(BackboneError::Write(_)) = cause.downcast_ref::<BackboneError>() {
        return Some(ErrorKind::Failed);
    }
    let scores = match (cause.downcast_ref::<TaskError>(), cause.downcast_ref::<TrainError>()) {
        (Some(error), _) | (_, Some(TrainError::Task(error))) => Some(error),
        _ => None,
    };
    if matches!(scores, Some(TaskError::NotFinite { .. }))
        || cause.is::<WriteError>()
        || cause.is::<Diverged>()
    {
        return Some(ErrorKind::Failed);
    }
    let is_user = cause.is::<UserError>()
        || cause.is::<ChatError>()
        || cause.is::<CheckpointError>()
        || cause.is::<BackboneError>()
        || cause.is::<DataError>()
        || cause.is::<ForeignError>()
        || cause.is::<SettingError>()
        || cause.is::<TaskFileError>()
        || cause.is::<TemplateError>()
        || cause.is::<TokenizerError>()
        || cause.is::<VerbalizerError>();
    if is_user {
        return Some(ErrorKind::User);
    }
    // These wrap other errors, some of which are not the user's: the wrapped one decides.
    let wraps = cause.is::<InitError>()
        || cause.is::<CompileError>()
        || cause.is::<RecordError>()
        || cause.is::<TaskError>()
        || cause.is::<TrainError>();
    wraps.then(|| wrapped(cause))
}

fn wrapped(cause: &(dyn std::error::Error + 'static)) -> ErrorKind {
    let format = match (cause.downcast_ref::<InitError>(), cause.downcast_ref::<RecordError>()) {
        (Some(InitError::Directory(error) | InitError::Compile(CompileError::Format(error))), _)
        | (_, Some(RecordError::Format(error))) => Some(error),
        _ => match cause.downcast_ref::<TrainError>() {
            Some(TrainError::SoftPrompt(error)) => Some(error),
            _ => None,
        },
    };
    format.and_then(|error| known(error)).unwrap_or(ErrorKind::User)
}

fn hint(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<Error>() {
        return error.hint();
    }
    if let Some(error) = cause.downcast_ref::<UserError>() {
        return error.hint.clone();
    }
    if let Some(error) = cause.downcast_ref::<HubError>() {
        return error.hint();
    }
    let fixed = |text: &str| Some(text.to_owned());
    if cause.is::<Diverged>() {
        return fixed("try a lower --learning-rate, or leave it at auto with --max-grad-norm 1");
    }
    match cause.downcast_ref::<BackboneError>() {
        Some(BackboneError::UnknownKeys { keys, .. }) => {
            let flags: Vec<String> = keys.iter().map(|key| format!("--ignore-config {key}")).collect();
            let (what, changes) = if keys.len() == 1 { ("it", "changes") } else { ("they", "change") };
            return Some(format!(
                "look in the model's card or code for what it is; if {what} {changes} nothing of what the model computes, go on \
                 with `{}`, which the prompt remembers",
                flags.join(" ")
            ));
        }
        Some(BackboneError::Quantised { key, .. }) => {
            return Some(format!(
                "if the weights are plain all the same, as in models that were merged after training, `--ignore-config {key}` \
                 goes on"
            ));
        }
        _ => {}
    }
    if let Some(DataError::NoSuchField { .. }) = cause.downcast_ref::<DataError>() {
        return fixed(
            "name the fields with --text-field, and --label-field or --target-field, or those that --template asks for",
        );
    }
    if let Some(DataError::NoGuess { origin, .. } | DataError::AmbiguousGuess { origin, .. }) =
        cause.downcast_ref::<DataError>()
        && [".csv", ".tsv"].iter().any(|ending| origin.to_lowercase().ends_with(ending))
    {
        return fixed("if the first line is an example and not the names of the fields, add --no-header");
    }
    if let Some(DataError::Ragged { .. } | DataError::StrayQuote { .. }) = cause.downcast_ref::<DataError>() {
        return fixed(
            "correct the row, name the character between cells with --delimiter, or leave such rows out with --skip-bad",
        );
    }
    if let Some(
        DataError::Json { .. }
        | DataError::BeforeObjects { .. }
        | DataError::Conversation { .. }
        | DataError::Labels { .. },
    ) = cause.downcast_ref::<DataError>()
    {
        return fixed("correct it, or leave such rows out with --skip-bad");
    }
    if let Some(DataError::Missing { .. } | DataError::Absent { .. }) = cause.downcast_ref::<DataError>() {
        return fixed("leave such examples out with --skip-bad");
    }
    let labels = match cause.downcast_ref::<TaskError>() {
        Some(TaskError::Verbalizer(error)) => Some(error),
        _ => cause.downcast_ref::<VerbalizerError>(),
    };
    match labels {
        Some(VerbalizerError::TooFew { .. }) => fixed(
            "give examples of every label, or name the labels with --labels 'negative= negative,positive= positive'",
        ),
        Some(VerbalizerError::UnknownLabel { .. }) => fixed(
            "the labels are those of the training data unless --labels names them; add examples of this one, name it, \
             or correct it",
        ),
        _ => match cause.downcast_ref::<RecordError>() {
            Some(RecordError::Width { .. } | RecordError::OtherSpec { .. }) => fixed(
                "give the model that the prompt was made for with --model, or train a prompt for this one",
            ),
            _ => None,
        },
    }
}
