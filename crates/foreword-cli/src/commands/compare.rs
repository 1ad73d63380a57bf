//! `foreword compare`: tuned prompts and untrained baselines, on the same examples.

mod render;

use foreword::compare::{CompareRequest, ComparisonSetup, compare};
use foreword::events::compared;
use foreword::plan::merged;
use foreword::{Observer, Result};

use crate::args::CompareArgs;
use crate::exit::Exit;
use crate::printer::Printer;

/// Runs the verb.
pub(crate) fn run(args: &CompareArgs, printer: &Printer) -> Result<Exit> {
    args.machine.start_threads()?;
    let stated = merged(args.input.as_deref(), args.flags())?;
    let (resources, observer): (_, &dyn Observer) = (args.machine.resources(), printer);
    let request = CompareRequest {
        stated: &stated,
        prompts: &args.prompts,
        limit: args.limit,
        instruction: args.instruction.as_ref().map(|instruction| instruction.0.as_str()),
        shots: args.shots,
        calibrate: args.calibrate.and_then(|calibrate| calibrate.0),
        resources: &resources,
    };
    let setup = ComparisonSetup::resolve(&request, observer)?;
    setup.tell(observer);
    let comparison = compare(&setup, observer)?;
    let verdict = comparison.verdict(&setup.truths);
    printer.json(&compared(&setup, &comparison, args.flips, &verdict)?)?;
    for part in render::parts(&setup, &comparison, args.flips)? {
        printer.answer(&part)?;
    }
    printer.answer(&format!("\n{verdict}"))?;
    if comparison.reference.is_none() {
        for line in render::how_to_train(args, &setup) {
            printer.say(&line);
        }
    }
    Ok(Exit::Done)
}
