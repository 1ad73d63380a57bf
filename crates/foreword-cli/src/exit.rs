//! How the program ends: exit codes, and what a panic says.

use std::process::ExitCode;

use foreword::data::READER_THREAD;
use foreword::{ErrorKind, device, tokenizer};

/// What the program tells its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All was done.
    Done,
    /// The input is wrong.
    UserError,
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
