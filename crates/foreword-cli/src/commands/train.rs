//! `foreword train`: trains a soft prompt and prints the result.

mod few_shot;

use std::path::{Path, PathBuf};

use foreword::plan::data::is_standard_input;
use foreword::plan::output::real;
use foreword::plan::{default_out, settings};
use foreword::settings::TaskKind;
use foreword::{OutputDir, Result, RunPlan, RunResult, TaskFile, UserError};

use crate::args::TrainArgs;
use crate::command_line::{program, quoted, quoted_path};
use crate::exit::Exit;
use crate::printer::Printer;
use crate::report;
use crate::run::{Log, run_plan};

/// Runs the verb.
pub(crate) fn run(args: &TrainArgs, printer: &Printer) -> Result<Exit> {
    args.machine.start_threads()?;
    let input = args.input.as_deref();
    let file = settings(input, args.flags())?;
    let output = args.output_dir.check(|| default_out(input, &file))?;
    if file.data.shots.is_some() {
        let log = log(args, &file, &output)?;
        return few_shot::run(args, &file, &output, log, printer);
    }
    let plan = RunPlan::with(&file, output, &args.machine.resources(), printer)?;
    let mut log = log(args, &file, &plan.output)?;
    let ended = run_plan(plan, &mut log, printer)?;
    ended.offer_resume(printer);
    let (plan, result) = (&ended.plan, &ended.result);
    if let Some(table) = report::candidates(plan, result) {
        printer.answer(&table.to_string())?;
    }
    for line in report::comparison(plan, result, &[]) {
        printer.answer(&line)?;
    }
    if let Some(table) = report::labels(plan, result) {
        printer.answer(&table)?;
    }
    if ended.unwritten.is_none() {
        printer.answer(&report::costs(plan, result))?;
        next_steps(&file, plan, result, printer);
    }
    ended.exit()
}

/// Suggests how to use the prompt.
fn next_steps(file: &TaskFile, plan: &RunPlan, result: &RunResult, printer: &Printer) {
    let (program, mut flags) = (program(), report::flags_of(plan));
    let out = plan.output.out.display();
    if result.members > 1 {
        printer.say(&format!(
            "The best prompt is in {out}, the others of its ensemble are below it; --ensemble asks all. Try:"
        ));
        flags.push_str(" --ensemble");
    } else {
        printer.say(&format!("The prompt is in {out}. Try:"));
    }
    let verb = match plan.fields.kind {
        TaskKind::Classification => "classify",
        TaskKind::Generation => "generate",
    };
    let text = match plan.task.template.required().collect::<Vec<_>>()[..] {
        [_] => "A text of your own.".to_owned(),
        ref several => {
            let fields: Vec<String> = several.iter().map(|slot| format!("\"{slot}\": \"…\"")).collect();
            format!("{{{}}}", fields.join(", "))
        }
    };
    printer.say(&format!("  {program} {verb} {flags} {}", quoted(&text)));
    let test = file.data.test.as_ref().or(file.data.dev.as_ref());
    if let Some(data) = test.filter(|path| !is_standard_input(path)) {
        printer.say(&format!("  {program} eval {flags} --data {}", quoted_path(data)));
    }
}

/// The file of `--log`.
fn log(args: &TrainArgs, file: &TaskFile, output: &OutputDir) -> Result<Option<Log>> {
    let Some(log) = &args.log else { return Ok(None) };
    let inputs = [&args.input, &file.data.train, &file.data.dev, &file.data.test];
    refuse_overwriting(log, inputs.into_iter().flatten(), &output.out)?;
    Log::create(log, args.output_dir.resume).map(Some)
}

/// Refuses a log file that would overwrite an input or an output of the run.
fn refuse_overwriting<'a>(log: &Path, inputs: impl Iterator<Item = &'a PathBuf>, out: &Path) -> Result<()> {
    let log_dir = real(log.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")));
    let is_input = inputs.into_iter().any(|input| log.exists() && real(input) == real(log));
    if is_input || log_dir == real(out) {
        let what = if is_input { "is read by this run" } else { "lies in --out, which is the prompt's" };
        return Err(UserError::new(format!("--log {} {what}", log.display()))
            .hint("give another file")
            .into());
    }
    Ok(())
}
