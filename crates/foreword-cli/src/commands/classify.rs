//! `foreword classify`: a label and its probability for each text.

use anyhow::Result;
use foreword::Verbalizer;
use foreword::task::{best, probabilities};

use crate::args::ClassifyArgs;
use crate::exit::Exit;
use crate::printer::{Answers, Printer};
use crate::resolve::prompt::{Asked, AskedFields, Verb};
use crate::resolve::texts::{self, Texts};
use crate::wire::Classified;
use crate::words::{in_a_line, percent};

/// Runs the verb.
pub(crate) fn run(args: &ClassifyArgs, printer: &mut Printer) -> Result<Exit> {
    let asked = Asked {
        verb: Verb::Classify,
        source: &args.source,
        task: &args.task,
        labels: args.labels.labels.as_ref(),
        fields: AskedFields { text: args.texts.text_field.as_deref(), ..AskedFields::default() },
        objective: None,
        machine: &args.machine,
    };
    let texts = Texts { given: &args.texts, to: "classify" };
    let (ready, data) = texts.resolve(asked, printer)?;
    let shown = texts::shown_field(&ready, &data, printer)?;
    let examples = ready.examples(&data, None, printer)?;
    printer.begin_bar(examples.n() as u64, "scoring");
    let mut progress = |n: usize| printer.move_bar(n as u64, String::new);
    let scores =
        ready.task.log_likelihoods(&ready.model, &ready.root, &examples, ready.budget, &mut progress)?;
    printer.end_bar();
    let labels = &ready.task.classification()?.verbalizer;
    for (row, scores) in scores.iter().enumerate() {
        answer(data.text(row, shown)?, scores, labels, printer)?;
    }
    Ok(Exit::Done)
}

fn answer(text: &str, scores: &[f64], labels: &Verbalizer, printer: &mut Printer) -> Result<()> {
    let (given, probabilities) = (best(scores), probabilities(scores));
    let names = || labels.names().iter().map(String::as_str);
    let label = &labels.names()[given];
    match printer.answers() {
        Answers::Json => printer.json(&Classified {
            text,
            label,
            probabilities: names().zip(probabilities.iter().copied()).collect(),
            log_likelihoods: names().zip(scores.iter().copied()).collect(),
        })?,
        Answers::Text => {
            let width = names().map(|name| name.chars().count()).max().unwrap_or(0);
            let (probability, text) = (percent(probabilities[given]), in_a_line(text));
            printer.answer(&format!("{label:<width$}  {probability:>7}  {text}"))?;
        }
    }
    Ok(())
}
