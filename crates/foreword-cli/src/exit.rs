//! How the program ends: exit codes, and the one table from errors to codes and hints.

use std::fmt;
use std::process::ExitCode;

use foreword::chat::ChatError;
use foreword::checkpoint::CheckpointError;
use foreword::data::READER_THREAD;
use foreword::format::Origin;
use foreword::format::foreign::ForeignError;
use foreword::init::InitError;
use foreword::prefix::CompileError;
use foreword::record::RecordError;
use foreword::settings::SettingError;
use foreword::task_file::TaskFileError;
use foreword::template::TemplateError;
use foreword::verbalizer::VerbalizerError;
use foreword::{BackboneError, DataError, FormatError, TaskError, TokenizerError, TrainError, tokenizer};

use foreword_hub::HubError;

use crate::device;

/// What the program tells its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All was done.
    Done,
    /// What was given is wrong.
    Given,
    /// Something else failed: the disk, a run that diverged, a bug.
    Failed,
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The number of it.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Given => 1,
            Self::Failed => 2,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Something given on the command line or in a task file that can't be so, with what to try instead.
#[derive(Debug)]
pub(crate) struct Given {
    message: String,
    hint: Option<String>,
}

impl Given {
    /// An error without a hint: the message says all.
    pub(crate) fn wrong(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// The same with the next thing to try.
    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Given {}

/// A run whose loss or gradient stopped being a number.
#[derive(Debug, thiserror::Error)]
#[error("the loss or its gradient was not a finite number at step {step}")]
pub(crate) struct Diverged {
    /// The step.
    pub(crate) step: u64,
}

/// A run that was interrupted before it learned anything.
#[derive(Debug, thiserror::Error)]
#[error("interrupted before the first step; nothing was written")]
pub(crate) struct NothingLearned;

/// A reader's or writer's error as part of an answer that could not be given.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {what}")]
pub(crate) struct Unwritten {
    /// What was being written.
    pub(crate) what: String,
    /// What the system said.
    pub(crate) source: std::io::Error,
}

/// Why something can't be written, found before any work is done: `given` if another place would do, and our failure where
/// the disk is full.
pub(crate) fn unwritable(
    what: String,
    error: std::io::Error,
    given: impl FnOnce(&str) -> Given,
) -> anyhow::Error {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => Unwritten { what, source: error }.into(),
        _ => given(&error.to_string()).into(),
    }
}

/// The exit code of an error: the first cause that the table knows decides; what it does not know is our failure.
pub(crate) fn exit_of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(known).unwrap_or(Exit::Failed)
}

fn known(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(error) = cause.downcast_ref::<FormatError>() {
        return Some(match error {
            FormatError::Io { action: "open" | "read" | "list", .. } => Exit::Given,
            FormatError::Io { .. } | FormatError::EncodeJson { .. } | FormatError::EncodeTensors { .. } => {
                Exit::Failed
            }
            FormatError::NotFinite { origin: Origin::Memory, .. } => Exit::Failed,
            _ => Exit::Given,
        });
    }
    if let Some(error) = cause.downcast_ref::<HubError>() {
        return Some(if error.is_given() { Exit::Given } else { Exit::Failed });
    }
    if cause.is::<NothingLearned>() {
        return Some(Exit::Interrupted);
    }
    if let Some(BackboneError::Write(_)) = cause.downcast_ref::<BackboneError>() {
        return Some(Exit::Failed);
    }
    let scores = match (cause.downcast_ref::<TaskError>(), cause.downcast_ref::<TrainError>()) {
        (Some(error), _) | (_, Some(TrainError::Task(error))) => Some(error),
        _ => None,
    };
    if matches!(scores, Some(TaskError::NotFinite { .. })) {
        return Some(Exit::Failed);
    }
    let given = cause.is::<Given>()
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
    // These wrap others, of which some are not the user's: ask the wrapped one first.
    let wraps = cause.is::<InitError>()
        || cause.is::<CompileError>()
        || cause.is::<RecordError>()
        || cause.is::<TaskError>()
        || cause.is::<TrainError>()
        || cause.is::<Unwritten>()
        || cause.is::<Diverged>();
    if given {
        Some(Exit::Given)
    } else if wraps {
        Some(wrapped(cause))
    } else {
        None
    }
}

fn wrapped(cause: &(dyn std::error::Error + 'static)) -> Exit {
    if cause.is::<Unwritten>() || cause.is::<Diverged>() {
        return Exit::Failed;
    }
    let format = match (cause.downcast_ref::<InitError>(), cause.downcast_ref::<RecordError>()) {
        (Some(InitError::Directory(error) | InitError::Compile(CompileError::Format(error))), _)
        | (_, Some(RecordError::Format(error))) => Some(error),
        _ => match cause.downcast_ref::<TrainError>() {
            Some(TrainError::SoftPrompt(error)) => Some(error),
            _ => None,
        },
    };
    format.and_then(|error| known(error)).unwrap_or(Exit::Given)
}

/// The next thing to try, where there is one and the message does not say it already.
pub(crate) fn hint_of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(given) = cause.downcast_ref::<Given>() {
            return given.hint.clone();
        }
        if let Some(error) = cause.downcast_ref::<HubError>() {
            return error.hint();
        }
        if cause.is::<Diverged>() {
            return Some("try a lower --learning-rate, or leave it at auto with --max-grad-norm 1".to_owned());
        }
        let fixed = |text: &str| Some(text.to_owned());
        if let Some(DataError::NoSuchField { .. }) = cause.downcast_ref::<DataError>() {
            return fixed("name the fields with --text-field, and --label-field or --target-field, or those that --template asks for");
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
                Some(RecordError::Width { .. } | RecordError::OtherSpec { .. }) => {
                    fixed("give the model that the prompt was made for with --model, or train a prompt for this one")
                }
                _ => None,
            },
        }
    })
}

/// Makes a panic end the program as a failure, after one of the two has told what happened: `fail` (with what to try) where
/// a device failed, `bug` otherwise; anywhere but where panics over damaged files are turned into errors.
pub(crate) fn on_panic(fail: fn(&str, &str), bug: fn(&str)) {
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() == Some(READER_THREAD) || tokenizer::is_guarded() {
            return;
        }
        match device::failure(panic.payload()) {
            Some((what, hint)) => fail(&what, hint),
            None => bug(&panic.to_string()),
        }
        std::process::exit(i32::from(Exit::Failed.code()));
    }));
}

/// The error with its causes on one line. Some messages quote their cause; it is not said twice.
pub(crate) fn message_of(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if message.is_empty() {
            message = cause;
        } else if !message.ends_with(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::path::PathBuf;

    fn io_error() -> io::Error {
        io::Error::new(io::ErrorKind::StorageFull, "the disk is full")
    }

    #[test]
    fn what_was_given_is_one_and_what_failed_is_two() {
        let format = |action| FormatError::Io { action, path: PathBuf::from("p"), source: io_error() };
        let cases: [(anyhow::Error, Exit); 8] = [
            (Given::wrong("x").into(), Exit::Given),
            (format("open").into(), Exit::Given),
            (format("write").into(), Exit::Failed),
            (RecordError::Format(format("write")).into(), Exit::Failed),
            (RecordError::Format(format("read")).into(), Exit::Given),
            (TrainError::NoExamples.into(), Exit::Given),
            (Diverged { step: 2 }.into(), Exit::Failed),
            (Unwritten { what: "stdout".into(), source: io_error() }.into(), Exit::Failed),
        ];
        for (error, exit) in cases {
            assert_eq!(exit_of(&error), exit, "{error:#}");
        }
        assert_eq!(exit_of(&io_error().into()), Exit::Failed);
    }

    #[test]
    fn a_full_disk_is_nobodys_fault() {
        let error = unwritable("--log l".to_owned(), io_error(), |why| Given::wrong(why));
        assert_eq!(
            (exit_of(&error), message_of(&error).as_str()),
            (Exit::Failed, "cannot write --log l: the disk is full")
        );
        let read_only = io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "read-only");
        assert_eq!(exit_of(&unwritable("x".to_owned(), read_only, |why| Given::wrong(why))), Exit::Given);
    }

    #[test]
    fn a_cause_is_said_once() {
        let error = DataError::Io { path: PathBuf::from("a.csv"), source: io_error() };
        assert_eq!(message_of(&error.into()), "cannot read a.csv: the disk is full");
        let error = FormatError::Io { action: "write", path: PathBuf::from("p"), source: io_error() };
        assert_eq!(message_of(&error.into()), "cannot write p: the disk is full");
    }
}
