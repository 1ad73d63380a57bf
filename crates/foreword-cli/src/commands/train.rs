//! `foreword train`: learns a soft prompt and says what it came to.

use anyhow::Result;
use foreword::Ended;

use crate::args::TrainArgs;
use crate::exit::{Diverged, Exit};
use crate::interrupt;
use crate::learn::{Learned, Log, learn};
use crate::printer::Printer;
use crate::report;
use crate::resolve::data::is_standard_input;
use crate::resolve::run::{Place, Plan, Splits, default_out, settings};
use crate::words::{program, quoted_path};

/// Runs the verb.
pub(crate) fn run(args: &TrainArgs, printer: &mut Printer) -> Result<Exit> {
    let file = settings(args)?;
    let place = Place::check(&args.place, || default_out(args, &file))?;
    let splits = Splits::read(&file)?;
    let test = file.data.test.clone().or_else(|| file.data.dev.clone());
    let test = test.filter(|path| !is_standard_input(path));
    let plan = Plan::new(&file, splits, place, &args.machine, printer)?;
    let log = args.log.as_deref().map(|log| Log::create(log, args.place.resume)).transpose()?;
    let learned = learn(&plan, log, printer)?;
    for line in report::comparison(&learned, &[]) {
        printer.answer(&line)?;
    }
    printer.answer(&report::costs(&plan, &learned))?;
    let (program, flags) = (program(), report::flags_of(&plan));
    printer.say(&format!("The prompt is in {}. Try:", plan.place.out.display()));
    if plan.task.template.slots().count() == 1 {
        printer.say(&format!("  {program} classify {flags} 'A text of your own.'"));
    }
    if let Some(data) = test {
        printer.say(&format!("  {program} eval {flags} --data {}", quoted_path(&data)));
    }
    ended(&learned)
}

/// A run that did not come to its end has its best prompt written, but does not count as done.
pub(crate) fn ended(learned: &Learned) -> Result<Exit> {
    if interrupt::asked() {
        return Ok(Exit::Interrupted);
    }
    match learned.outcome.ended {
        Ended::Finished | Ended::EarlyStopped => Ok(Exit::Done),
        Ended::Diverged { step } => Err(Diverged { step }.into()),
        _ => Ok(Exit::Interrupted),
    }
}
