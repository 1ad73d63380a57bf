//! Ctrl-C: during a run the first one cancels the run between two steps; the second one, or one at any other time, ends the
//! program.

use std::sync::{Mutex, OnceLock, PoisonError};

use foreword::Cancel;

use crate::exit::Exit;
use crate::printer::Printer;

/// The run that Ctrl-C cancels, if any, and what is said then.
static CURRENT: Mutex<Option<(Cancel, &str)>> = Mutex::new(None);
static HANDLED: OnceLock<()> = OnceLock::new();

fn set(cancel: Option<(Cancel, &'static str)>) {
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = cancel;
}

/// Makes Ctrl-C cancel this run from now on. `stopping`: what is said then.
pub(crate) fn watch(cancel: Cancel, stopping: &'static str) -> Result<(), ctrlc::Error> {
    set(Some((cancel, stopping)));
    // The system accepts one handler, and a program may execute several runs.
    if HANDLED.set(()).is_err() {
        return Ok(());
    }
    ctrlc::set_handler(|| {
        let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match current {
            Some((cancel, stopping)) if !cancel.is_cancelled() => {
                cancel.cancel();
                Printer::stopping(stopping);
            }
            _ => std::process::exit(i32::from(Exit::Interrupted.code())),
        }
    })
}

/// Makes Ctrl-C end the program again; the remaining work is short.
pub(crate) fn unwatch() {
    set(None);
}
