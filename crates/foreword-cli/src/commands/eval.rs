//! `foreword eval`: how good a prompt is on labelled examples.

use anyhow::Result;
use foreword::{Evaluation, Verbalizer};

use crate::args::EvalArgs;
use crate::exit::Exit;
use crate::printer::{Printer, Table};
use crate::report;
use crate::resolve::prompt::Asked;
use crate::resolve::{Fields, data};
use crate::wire::Report;
use crate::words::count;

/// Runs the verb.
pub(crate) fn run(args: &EvalArgs, printer: &mut Printer) -> Result<Exit> {
    let data = data::read(&args.data)?;
    let asked = Asked {
        source: &args.source,
        task: &args.task,
        text_field: args.fields.text_field.as_deref(),
        label_field: args.fields.label_field.as_deref(),
        loss: &args.loss,
        machine: &args.machine,
    };
    let mut ready = asked.resolve(Some(&data), printer)?;
    let data = data::first(data, args.limit, printer);
    let task = &mut ready.task;
    let fields =
        Fields::find(&data, &task.template, task.text_field.as_deref(), ready.label_field.as_deref())?;
    if fields.guessed {
        printer.say(&format!("fields    {}", fields.describe(&task.template)));
    }
    task.text_field.clone_from(&fields.text);

    let label = data.require(&fields.label)?;
    let examples = ready.examples(&data, Some(label), printer)?;
    printer.begin_bar(examples.n() as u64, "scoring");
    let mut progress = |n: usize| printer.move_bar(n as u64, String::new);
    let evaluation =
        ready.task.evaluate(&ready.model, &ready.root, &examples, ready.budget, &mut progress)?;
    printer.end_bar();

    printer.json(&Report::of(&evaluation, &ready.task.verbalizer))?;
    let name = if ready.root.is_empty() { "bare model" } else { "soft prompt" };
    let mut scores = report::scores_table("examples", evaluation.n());
    scores.row(report::scores_row(name, &evaluation));
    printer.answer(&scores.to_string())?;
    printer.answer(&format!("macro F1 {:.3}\n", evaluation.macro_f1()))?;
    printer.answer(&confusion(&evaluation, &ready.task.verbalizer).to_string())?;
    Ok(Exit::Done)
}

/// True labels down, given labels across.
fn confusion(evaluation: &Evaluation, labels: &Verbalizer) -> Table {
    let given = labels.names().iter().map(|name| format!("given {name}"));
    let mut table = Table::new(std::iter::once(String::new()).chain(given));
    for (name, row) in labels.names().iter().zip(&evaluation.confusion) {
        table.row(std::iter::once(format!("true {name}")).chain(row.iter().map(|&n| count(n))));
    }
    table
}
