//! How the program ends: exit codes and panics.

use std::process::ExitCode;

use foreword::data::READER_THREAD;
use foreword::{ErrorKind, device, tokenizer};

/// The result reported to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Success.
    Done,
    /// The input is wrong.
    UserError,
    /// Another failure: the disk, a diverged run, a bug.
    Failed,
    /// Interrupted with Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::UserError => 1,
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

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::User => Self::UserError,
            ErrorKind::Failed => Self::Failed,
            ErrorKind::Cancelled => Self::Interrupted,
        }
    }
}

/// Makes a panic end the program as a failure, after one of these has reported it: `fail` (with a hint) for a failed
/// device, `bug` otherwise. Panics over damaged files that are turned into errors are not affected.
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
