//! `foreword eval`: how good a prompt is on examples whose label or target is known.

use std::ops::ControlFlow;

use anyhow::Result;
use foreword::data::FieldIdx;
use foreword::generate::Event;
use foreword::metrics::text::TextScores;
use foreword::{Confusion, Dataset, Verbalizer};

use crate::args::EvalArgs;
use crate::commands::generate::new_tokens;
use crate::exit::Exit;
use crate::printer::{Printer, Table};
use crate::report;
use crate::resolve::prompt::{Asked, AskedFields, Ready, Verb};
use crate::resolve::{Fields, data};
use crate::wire::{Report, TextReport};
use crate::words::{count, percent};

/// Runs the verb.
pub(crate) fn run(args: &EvalArgs, printer: &mut Printer) -> Result<Exit> {
    let data = data::read(&args.data)?;
    let asked = Asked {
        verb: Verb::Eval,
        source: &args.source,
        task: &args.task,
        labels: args.labels.labels.as_ref(),
        fields: AskedFields {
            text: args.fields.text_field.as_deref(),
            label: args.fields.label_field.as_deref(),
            target: args.fields.target_field.as_deref(),
        },
        objective: args.loss.objective,
        machine: &args.machine,
    };
    let mut ready = asked.resolve(Some(&data), printer)?;
    let data = data::first(data, args.limit, printer);
    let task = &mut ready.task;
    let truth = (task.goal.kind(), ready.truth_field.as_deref());
    let fields = Fields::find(&data, &task.template, task.text_field.as_deref(), truth)?;
    if fields.guessed {
        printer.say(&format!("fields    {}", fields.describe(&task.template)));
    }
    task.text_field.clone_from(&fields.text);

    let truth = data.require(&fields.truth)?;
    let examples = ready.examples(&data, Some(truth), printer)?;
    printer.begin_bar(examples.n() as u64, "scoring");
    let mut progress = |n: usize| printer.move_bar(n as u64, String::new);
    let evaluation =
        ready.task.evaluate(&ready.model, &ready.root, &examples, ready.budget, &mut progress)?;
    printer.end_bar();
    let name = if ready.root.is_empty() { "bare model" } else { "soft prompt" };
    match (&evaluation.labels, ready.task.verbalizer()) {
        (Some(given), Some(labels)) => {
            printer.json(&Report::of(&evaluation, given, labels))?;
            printer.answer(&report::scores_table("examples", &[(name, &evaluation)]).to_string())?;
            printer.answer(&format!("macro F1 {:.3}\n", given.macro_f1()))?;
            printer.answer(&confusion(given, labels).to_string())?;
        }
        _ => {
            let scores = text_scores(args, &ready, &data, truth, printer)?;
            printer.json(&TextReport::of(&evaluation, &scores))?;
            printer.answer(&report::scores_table("examples", &[(name, &evaluation)]).to_string())?;
            printer.answer(&format!(
                "exact match {}, ROUGE-L {:.3}, BLEU {:.2}",
                percent(scores.exact_match),
                scores.rouge_l,
                scores.bleu
            ))?;
        }
    }
    Ok(Exit::Done)
}

/// Writes a text for every example and compares it with the target.
fn text_scores(
    args: &EvalArgs,
    ready: &Ready,
    data: &Dataset,
    target: FieldIdx,
    printer: &mut Printer,
) -> Result<TextScores> {
    let config = new_tokens(&args.new_tokens);
    let (examples, most) = ready.openings(data, &config, printer)?;
    printer.begin_bar(examples.n() as u64, "writing");
    let mut n_done = 0;
    let mut on_event = |event: Event<'_>| {
        if let Event::Done { .. } = event {
            n_done += 1;
            printer.move_bar(n_done, String::new);
        }
        ControlFlow::Continue(())
    };
    let of = (&examples, most);
    let texts = ready.task.generate(&ready.model, &ready.root, of, &config, ready.budget, &mut on_event)?;
    printer.end_bar();
    let pairs: Vec<(&str, &str)> = texts
        .iter()
        .enumerate()
        .map(|(row, generated)| anyhow::Ok((generated.text.as_str(), data.text(row, target)?)))
        .collect::<Result<_>>()?;
    Ok(TextScores::of(&pairs))
}

/// True labels down, given labels across.
fn confusion(labels_given: &Confusion, labels: &Verbalizer) -> Table {
    let given = labels.names().iter().map(|name| format!("given {name}"));
    let mut table = Table::new(std::iter::once(String::new()).chain(given));
    for (name, row) in labels.names().iter().zip(&labels_given.counts) {
        table.row(std::iter::once(format!("true {name}")).chain(row.iter().map(|&n| count(n))));
    }
    table
}
