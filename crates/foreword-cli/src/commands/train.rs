//! `foreword train`: learns a soft prompt and says what it came to.

mod few_shot;

use std::path::{Path, PathBuf};

use anyhow::Result;
use foreword::settings::TaskKind;
use foreword::{StopReason, TaskFile};

use crate::args::TrainArgs;
use crate::exit::{Diverged, Exit, Given};
use crate::interrupt;
use crate::learn::{Learned, Log, learn};
use crate::printer::Printer;
use crate::report;
use crate::resolve::data::is_standard_input;
use crate::resolve::run::{Place, Plan, default_out, settings};
use crate::resolve::splits::Splits;
use crate::words::{program, quoted, quoted_path};

/// Runs the verb.
pub(crate) fn run(args: &TrainArgs, printer: &mut Printer) -> Result<Exit> {
    let file = settings(args)?;
    let place = Place::check(&args.place, || default_out(args, &file))?;
    if file.data.shots.is_some() {
        let log = log(args, &file, &place)?;
        return few_shot::run(args, &file, &place, log, printer);
    }
    let splits = Splits::read(&file)?;
    let test = file.data.test.clone().or_else(|| file.data.dev.clone());
    let test = test.filter(|path| !is_standard_input(path));
    let plan = Plan::new(&file, splits, place, &args.machine, printer)?;
    let log = log(args, &file, &plan.place)?;
    let learned = learn(&plan, log, printer)?;
    if let Some(table) = report::candidates(&plan, &learned) {
        printer.answer(&table.to_string())?;
    }
    for line in report::comparison(&learned, &[]) {
        printer.answer(&line)?;
    }
    printer.answer(&report::costs(&plan, &learned))?;
    let (program, mut flags) = (program(), report::flags_of(&plan));
    let out = plan.place.out.display();
    if learned.members > 1 {
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
    if let Some(data) = test {
        printer.say(&format!("  {program} eval {flags} --data {}", quoted_path(&data)));
    }
    ended(learned)
}

/// The file that `--log` names.
fn log(args: &TrainArgs, file: &TaskFile, place: &Place) -> Result<Option<Log>> {
    let Some(log) = &args.log else { return Ok(None) };
    let inputs = [&args.input, &file.data.train, &file.data.dev, &file.data.test];
    refuse_overwriting(log, inputs.into_iter().flatten(), &place.out)?;
    Log::create(log, args.place.resume).map(Some)
}

/// A log must not take the place of what the run reads or of what it writes.
fn refuse_overwriting<'a>(log: &Path, inputs: impl Iterator<Item = &'a PathBuf>, out: &Path) -> Result<()> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let log_dir = real(log.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")));
    let is_input = inputs.into_iter().any(|input| log.exists() && real(input) == real(log));
    if is_input || log_dir == real(out) {
        let what = if is_input { "is read by this run" } else { "lies in --out, which is the prompt's" };
        return Err(Given::wrong(format!("--log {} {what}", log.display())).hint("give another file").into());
    }
    Ok(())
}

/// A run that did not come to its end has its best prompt written, but does not count as done.
pub(crate) fn ended(learned: Learned) -> Result<Exit> {
    if let Some(error) = learned.unwritten {
        return Err(error.into());
    }
    if interrupt::asked() {
        return Ok(Exit::Interrupted);
    }
    match learned.outcome.ended {
        StopReason::Finished | StopReason::EarlyStopped => Ok(Exit::Done),
        StopReason::Diverged { step } => Err(Diverged { step }.into()),
        _ => Ok(Exit::Interrupted),
    }
}
