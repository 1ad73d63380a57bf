//! `foreword quickstart`: the bundled task on the bundled model, from nothing to an answer.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use foreword::score::{best, probabilities};
use foreword::{Dataset, Evaluation, SoftPrompt, Task, TaskFile, Template};

use crate::args::QuickstartArgs;
use crate::commands::train::ended;
use crate::exit::Exit;
use crate::learn::learn;
use crate::printer::Printer;
use crate::report;
use crate::resolve::run::{Place, Plan};
use crate::resolve::splits::Splits;
use crate::words::{percent, program, quoted_path};

/// Where the prompt is written if nobody says.
pub(crate) const OUT: &str = "sentiment-prompt";
/// The article's plain case, [p ; E(x)] without p: nothing around the text.
const TEXT_ALONE: &str = "{text}";
/// A text that is in none of the data.
pub(crate) const TEXT: &str = "The movie was fantastic.";

/// All settings of the run.
const TASK: &str = include_str!("../../../../examples/sentiment/task.toml");
const TRAIN: &str = include_str!("../../../../examples/sentiment/train.jsonl");
const DEV: &str = include_str!("../../../../examples/sentiment/dev.jsonl");
const TEST: &str = include_str!("../../../../examples/sentiment/test.jsonl");

/// Runs the verb.
pub(crate) fn run(args: &QuickstartArgs, printer: &mut Printer) -> Result<Exit> {
    let place = Place::check(&args.place, || PathBuf::from(OUT))?;
    let mut file: TaskFile = toml::from_str(TASK).context("the bundled task file")?;
    file.train.micro_batch_tokens = args.machine.micro_batch_tokens.or(file.train.micro_batch_tokens);
    let test = read(TEST, "test.jsonl")?;
    let splits = Splits {
        train: read(TRAIN, "train.jsonl")?,
        dev: Some(read(DEV, "dev.jsonl")?),
        test: Some(test.clone()),
    };
    printer.say("Teaching a small frozen language model to tell good film reviews from bad ones.");
    let plan = Plan::new(&file, splits, place, &args.machine, printer)?;
    let learned = learn(&plan, None, printer)?;

    let alone = bare(&plan, TEXT_ALONE, &test)?;
    printer.answer("")?;
    for line in report::comparison(&learned, &[("bare model, text alone", &alone)]) {
        printer.answer(&line)?;
    }
    printer.answer("(The template is the best of 18 that we wrote, by the training and dev sentences.)")?;
    printer.answer(&report::costs(&plan, &learned))?;
    let (label, probability) = classify(&plan, &[&learned.outcome.soft_prompt])?;
    printer.answer(&format!("\n{TEXT:?} is {label} ({}).", percent(probability)))?;

    let (program, flags) = (program(), report::flags_of(&plan));
    let out = quoted_path(&plan.place.out);
    printer.say(&format!("\nThe prompt is in {out}. The model has not changed. Try:"));
    printer.say(&format!("  {program} classify {flags} 'I want my two hours back.'"));
    printer.say(&format!("  {program} explain {flags}     for the mathematics of it"));
    printer.say(&format!("  {program} train --help     to teach it a task of your own"));
    ended(learned)
}

fn read(text: &str, name: &str) -> Result<Dataset> {
    Ok(Dataset::from_bytes(text.as_bytes(), Path::new(name))?)
}

/// The bare model with another template.
fn bare(plan: &Plan, template: &str, test: &Dataset) -> Result<Evaluation> {
    let task = Task { template: Template::parse(template)?, ..plan.task.clone() };
    let label = test.require(&plan.fields.truth)?;
    let examples = task.examples(&plan.model, 0, test, Some(label))?;
    Ok(task.evaluate(&plan.model, &[], &examples, plan.config.micro_batch_tokens, &mut |_| {})?)
}

/// The label of the text, and its probability.
fn classify<'p>(plan: &'p Plan, prompts: &[&SoftPrompt]) -> Result<(&'p str, f64)> {
    let task = Task { text_field: None, ..plan.task.clone() };
    let data = Dataset::from_texts(vec![TEXT.to_owned()])?;
    let examples = task.examples(&plan.model, plan.start.n_virtual(), &data, None)?;
    let scores =
        task.log_likelihoods(&plan.model, prompts, &examples, plan.config.micro_batch_tokens, &mut |_| {})?;
    let given = best(&scores[0]);
    Ok((&plan.task.classification()?.verbalizer.names()[given], probabilities(&scores[0])[given]))
}
