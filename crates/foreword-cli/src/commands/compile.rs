//! `foreword compile`: converts a soft prompt to the keys and values that its model computes from it.

use std::path::{Path, PathBuf};

use foreword::display::{bytes, count};
use foreword::exchange::{CompiledPrompt, compile_prompt};
use foreword::{OutputDir, Result};

use crate::args::CompileArgs;
use crate::exit::Exit;
use crate::printer::Printer;

/// Runs the verb.
pub(crate) fn run(args: &CompileArgs, printer: &Printer) -> Result<Exit> {
    args.machine.start_threads()?;
    let output = || {
        let out = args.out.clone().unwrap_or_else(|| default_out(&args.prompt));
        OutputDir::check(out, args.force, false)
    };
    let (model, resources) = (args.model.as_deref(), args.machine.resources());
    let CompiledPrompt { line, bytes_before } =
        compile_prompt(&args.prompt, model, output, &resources, printer)?;
    printer.json(&line)?;
    printer.answer(&format!(
        "{}: a KV prefix of {} virtual tokens × {} numbers, {} instead of {}",
        line.out,
        line.virtual_tokens,
        count(line.width),
        bytes(line.bytes),
        bytes(bytes_before)
    ))?;
    printer.say(
        "It gives what the soft prompt gives, to the bit where both are asked with the same --dtype and --device, and its \
         virtual tokens are never computed again.",
    );
    Ok(Exit::Done)
}

/// The directory next to the soft prompt.
fn default_out(prompt: &Path) -> PathBuf {
    let name = prompt.file_name().unwrap_or_default().to_string_lossy();
    prompt.with_file_name(format!("{name}-prefix"))
}
