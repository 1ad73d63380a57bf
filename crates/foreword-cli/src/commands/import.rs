//! `foreword import`: converts a prompt from another tool to a prompt directory.

use std::path::{Path, PathBuf};

use foreword::display::{count, learned};
use foreword::exchange::{ImportedPrompt, import_prompt};
use foreword::{OutputDir, Result, TaskFile};

use crate::args::ImportArgs;
use crate::exit::Exit;
use crate::printer::Printer;

/// Runs the verb.
pub(crate) fn run(args: &ImportArgs, printer: &Printer) -> Result<Exit> {
    args.machine.start_threads()?;
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.path));
    let output = OutputDir::check(out, args.force, false)?;
    let mut stated = TaskFile { model: args.model.clone(), ..TaskFile::default() };
    args.task.state(&mut stated);
    args.labels.state(&mut stated);
    let resources = args.machine.resources();
    let imported = import_prompt(&args.path, args.task_number, &stated, &output, &resources, printer)?;
    let ImportedPrompt { line, method, is_as_from_peft } = imported;
    printer.json(&line)?;
    printer.answer(&format!(
        "{}: a {} of {} virtual tokens × {} numbers, from {}",
        line.out,
        learned(method),
        line.virtual_tokens,
        count(line.width),
        line.format
    ))?;
    if is_as_from_peft {
        let flags = "--model DIR --template TEXT --labels LABELS";
        printer.say(&format!(
            "It is as from PEFT: `foreword eval --prompt {} {flags} --data FILE` measures it.",
            line.out
        ));
    }
    Ok(Exit::Done)
}

/// The default directory: the name of the input with -prompt, in the current directory.
fn default_out(path: &Path) -> PathBuf {
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    PathBuf::from(format!("{}-prompt", stem.unwrap_or_default().to_string_lossy()))
}
