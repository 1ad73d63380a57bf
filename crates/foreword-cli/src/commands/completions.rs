//! `foreword completions`: a completion script for a shell.

use foreword::Result;

use crate::args::{self, CompletionsArgs};
use crate::exit::Exit;
use crate::printer::Printer;

/// Runs the verb.
pub(crate) fn run(args: &CompletionsArgs, printer: &Printer) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::build_command(), args::NAME, &mut script);
    printer.answer(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Done)
}
