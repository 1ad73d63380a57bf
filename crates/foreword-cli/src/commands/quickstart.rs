//! `foreword quickstart`: trains the bundled model on the bundled task and classifies a text.

use std::path::{Path, PathBuf};

use foreword::display::percent;
use foreword::plan::splits::Splits;
use foreword::{Dataset, Evaluation, LoadedPrompt, Result, RunPlan, Task, TaskFile, Template};

use crate::args::QuickstartArgs;
use crate::command_line::{program, quoted_path};
use crate::exit::Exit;
use crate::printer::Printer;
use crate::report;
use crate::run::run_plan;

/// The default output directory.
pub(crate) const OUT: &str = "sentiment-prompt";
/// The plain case, [p ; E(x)] without p: nothing around the text.
const TEXT_ALONE: &str = "{text}";
/// A text that occurs in none of the data.
pub(crate) const TEXT: &str = "The movie was fantastic.";

/// All settings of the run.
const TASK: &str = include_str!("../../../../examples/sentiment/task.toml");
const TRAIN: &str = include_str!("../../../../examples/sentiment/train.jsonl");
const DEV: &str = include_str!("../../../../examples/sentiment/dev.jsonl");
const TEST: &str = include_str!("../../../../examples/sentiment/test.jsonl");

/// Runs the verb.
pub(crate) fn run(args: &QuickstartArgs, printer: &Printer) -> Result<Exit> {
    args.machine.start_threads()?;
    let output = args.output_dir.check(|| PathBuf::from(OUT))?;
    let file = TaskFile::parse(TASK, Path::new("task.toml"))?;
    let test = read(TEST, "test.jsonl")?;
    let splits = Splits {
        train: read(TRAIN, "train.jsonl")?,
        dev: Some(read(DEV, "dev.jsonl")?),
        test: Some(test.clone()),
    };
    printer.say("Teaching a small frozen language model to tell good film reviews from bad ones.");
    let plan = RunPlan::over(&file, splits, output, &args.machine.resources(), printer)?;
    let ended = run_plan(plan, &mut None, printer)?;
    ended.offer_resume(printer);
    let (plan, result) = (&ended.plan, &ended.result);

    let alone = bare(plan, TEXT_ALONE, &test)?;
    printer.answer("")?;
    for line in report::comparison(plan, result, &[("bare model, text alone", &alone)]) {
        printer.answer(&line)?;
    }
    printer.answer("(The template is the best of 18 that we wrote, by the training and dev sentences.)")?;
    if ended.unwritten.is_some() {
        return ended.exit();
    }
    printer.answer(&report::costs(plan, result))?;
    let prediction = LoadedPrompt::of(plan, &result.outcome).classify(&[TEXT])?.remove(0);
    let label = prediction.label.unwrap_or_default();
    printer.answer(&format!("\n{TEXT:?} is {label} ({}).", percent(prediction.probability)))?;

    let (program, flags) = (program(), report::flags_of(plan));
    let out = quoted_path(&plan.output.out);
    printer.say(&format!("\nThe prompt is in {out}. The model has not changed. Try:"));
    printer.say(&format!("  {program} classify {flags} 'I want my two hours back.'"));
    printer.say(&format!("  {program} explain {flags}     for the mathematics of it"));
    printer.say(&format!("  {program} train --help     to teach it a task of your own"));
    ended.exit()
}

fn read(text: &str, name: &str) -> Result<Dataset> {
    Ok(Dataset::from_bytes(text.as_bytes(), Path::new(name))?)
}

/// The bare model with another template.
fn bare(plan: &RunPlan, template: &str, test: &Dataset) -> Result<Evaluation> {
    let task = Task { template: Template::parse(template)?, ..plan.task.clone() };
    LoadedPrompt { task, ..LoadedPrompt::bare(plan) }.evaluate(test, &plan.fields.truth)
}
