//! `foreword classify`: a label and its probability for each text.

use std::io::BufRead as _;

use anyhow::Result;
use foreword::data::FieldIdx;
use foreword::data::fields::slot_fields;
use foreword::task::{best, probabilities};
use foreword::{Dataset, Verbalizer};

use crate::args::{ClassifyArgs, LossArgs};
use crate::exit::{Exit, Given};
use crate::printer::{Answers, Printer};
use crate::resolve::data;
use crate::resolve::prompt::{Asked, Ready};
use crate::wire::Classified;
use crate::words::{in_a_line, percent};

/// Runs the verb.
pub(crate) fn run(args: &ClassifyArgs, printer: &mut Printer) -> Result<Exit> {
    let asked = Asked {
        source: &args.source,
        task: &args.task,
        text_field: args.text_field.as_deref(),
        label_field: None,
        loss: &LossArgs { objective: None },
        machine: &args.machine,
    };
    let (mut ready, data) = match &args.data {
        Some(path) => {
            let data = data::read(path)?;
            (asked.resolve(None, printer)?, data)
        }
        None => {
            let ready = asked.resolve(None, printer)?;
            refuse_several_fields(&ready)?;
            (ready, Dataset::from_texts(texts(args)?)?)
        }
    };
    let data = data::first(data, args.limit, printer);
    if args.data.is_none() {
        // Texts have no fields; the template's only slot takes them.
        ready.task.text_field = None;
    }
    let shown = shown_field(&ready, &data, printer)?;
    let examples = ready.examples(&data, None, printer)?;
    printer.begin_bar(examples.n() as u64, "scoring");
    let mut progress = |n: usize| printer.move_bar(n as u64, String::new);
    let scores =
        ready.task.log_likelihoods(&ready.model, &ready.root, &examples, ready.budget, &mut progress)?;
    printer.end_bar();
    for (row, scores) in scores.iter().enumerate() {
        answer(data.text(row, shown)?, scores, &ready.task.verbalizer, printer)?;
    }
    Ok(Exit::Done)
}

/// The texts of the command line, or of standard input.
fn texts(args: &ClassifyArgs) -> Result<Vec<String>> {
    match args.texts.as_slice() {
        [] => Err(Given::wrong("there is no text to classify")
            .hint("give texts, --data FILE, or - to read texts from standard input, one a line")
            .into()),
        [dash] if dash == "-" => {
            let mut texts = Vec::new();
            for (line, text) in std::io::stdin().lock().lines().enumerate() {
                let text = text.map_err(|error| {
                    Given::wrong(format!("standard input, line {}: {error}", line + 1))
                        .hint("texts are read as UTF-8, one a line")
                })?;
                // A byte order mark is no part of the first text.
                texts.push(if line == 0 { text.trim_start_matches('\u{feff}').to_owned() } else { text });
            }
            if texts.is_empty() {
                return Err(
                    Given::wrong("standard input has no lines, so there is no text to classify").into()
                );
            }
            Ok(texts)
        }
        texts => Ok(texts.to_vec()),
    }
}

/// A template with several slots can't be filled with one text.
fn refuse_several_fields(ready: &Ready) -> Result<()> {
    let slots: Vec<&str> = ready.task.template.slots().collect();
    if slots.len() > 1 {
        let message =
            format!("the template has several fields ({}), and a text is only one", slots.join(", "));
        return Err(Given::wrong(message).hint("give them with --data FILE").into());
    }
    Ok(())
}

/// The field that stands for the example in the answer: that of `{text}`, or of the template's first slot.
fn shown_field(ready: &Ready, data: &Dataset, printer: &Printer) -> Result<FieldIdx> {
    let task = &ready.task;
    let slots = slot_fields(&task.template, data, task.text_field.as_deref())?;
    if let Some(name) = &slots.guessed {
        printer.say(&format!("fields    text {name:?} (guessed; --text-field says otherwise)"));
    }
    let text = task.template.slots().position(|slot| slot == "text").unwrap_or(0);
    Ok(slots.fields[text])
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
