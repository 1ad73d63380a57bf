//! Ctrl-C: during a run the first one asks it to stop between two steps; at any other time, and the second time, it ends
//! the program.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::Exit;
use crate::printer::Printer;

static HANDLED: AtomicBool = AtomicBool::new(false);
static RUNNING: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicBool = AtomicBool::new(false);

/// Ctrl-C from now on means "stop between two steps".
pub(crate) fn watch() -> Result<(), ctrlc::Error> {
    RUNNING.store(true, Ordering::SeqCst);
    // The system takes one handler, and a program may make several runs.
    if HANDLED.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    ctrlc::set_handler(|| {
        if !RUNNING.load(Ordering::SeqCst) || ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
        Printer::stopping();
    })
}

/// Whether it was pressed.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// What remains is short: Ctrl-C ends the program again.
pub(crate) fn unwatch() {
    RUNNING.store(false, Ordering::SeqCst);
}
