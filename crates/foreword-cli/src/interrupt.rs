//! Ctrl-C: during a run the first one cancels it between two steps; at any other time, and the second time, it ends the
//! program.

use std::sync::{Mutex, OnceLock, PoisonError};

use foreword::Cancel;

use crate::exit::Exit;
use crate::printer::Printer;

/// What Ctrl-C cancels, if anything.
static CURRENT: Mutex<Option<Cancel>> = Mutex::new(None);
static HANDLED: OnceLock<()> = OnceLock::new();

fn set(cancel: Option<Cancel>) {
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = cancel;
}

/// Ctrl-C from now on cancels this.
pub(crate) fn watch(cancel: Cancel) -> Result<(), ctrlc::Error> {
    set(Some(cancel));
    // The system takes one handler, and a program may make several runs.
    if HANDLED.set(()).is_err() {
        return Ok(());
    }
    ctrlc::set_handler(|| {
        let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match current {
            Some(cancel) if !cancel.is_cancelled() => {
                cancel.cancel();
                Printer::stopping();
            }
            _ => std::process::exit(i32::from(Exit::Interrupted.code())),
        }
    })
}

/// What remains is short: Ctrl-C ends the program again.
pub(crate) fn unwatch() {
    set(None);
}
