//! `foreword eval`: evaluates a prompt on examples with known labels or targets.

use foreword::display::{count, interval, percent};
use foreword::events::{Report, TextReport};
use foreword::metrics::reliability::Answered;
use foreword::metrics::wilson;
use foreword::plan::data;
use foreword::prompt::calibration;
use foreword::prompt::evaluate::{LabelEvaluation, TestSet};
use foreword::{Confusion, LoadedPrompt, OpenRequest, Result, UserError, Verbalizer};

use crate::args::EvalArgs;
use crate::commands::generate::new_tokens;
use crate::exit::Exit;
use crate::printer::{Printer, Table};
use crate::report;

/// Runs the verb.
pub(crate) fn run(args: &EvalArgs, printer: &Printer) -> Result<Exit> {
    args.machine.start_threads()?;
    let data = data::read(&args.data, &args.read.options(), printer)?;
    let mut stated = args.source.stated();
    args.read.state(&mut stated);
    args.fields.state(&mut stated);
    args.task.state(&mut stated);
    args.labels.state(&mut stated);
    stated.data.label_names = args.label_names.names();
    (stated.task.objective, stated.train.seed) = (args.loss.objective, args.seed);
    let resources = args.machine.resources();
    let request = OpenRequest::new(&args.source.prompt, &stated, &resources);
    let request = OpenRequest { ensemble: args.ensemble.ensemble, ..request };
    let mut prompt = request.open(Some(&data), printer)?;
    check_calibration(args, &prompt)?;
    let test = prompt.test_set(data, &stated, args.limit, printer)?;
    printer.begin_bar((prompt.n_members() * test.examples.n()) as u64, "scoring");
    let scores = prompt.scores(&test.examples, &mut |n| printer.move_bar(n as u64, String::new))?;
    printer.end_bar();
    match prompt.task.verbalizer() {
        Some(labels) => labelled(args, &prompt, (&scores, &test), labels, printer)?,
        None => generated(args, &prompt, (&scores, &test), printer)?,
    }
    Ok(Exit::Done)
}

/// Checks, before any work, that calibration flags have labels, and that a calibration can be stored.
fn check_calibration(args: &EvalArgs, prompt: &LoadedPrompt) -> Result<()> {
    let asked = args.calibration.calibrate.is_some() || args.calibration.abstain_below.is_some();
    if asked && prompt.task.verbalizer().is_none() {
        return Err(UserError::new(
            "a text that is generated has no label whose probability could be corrected",
        )
        .hint("leave out --calibrate and --abstain-below")
        .into());
    }
    if args.save_calibration { calibration::check_save(prompt, &args.source.prompt) } else { Ok(()) }
}

/// Prints the scores of a classification.
fn labelled(
    args: &EvalArgs,
    prompt: &LoadedPrompt,
    (scores, test): (&[Vec<f64>], &TestSet),
    labels: &Verbalizer,
    printer: &Printer,
) -> Result<()> {
    let measured = Some(args.data.as_path());
    let read = args.read.options();
    let calibration =
        calibration::resolve(args.calibration.request(&read), prompt, scores, measured, printer)?;
    let LabelEvaluation { evaluation, probabilities, reliability } =
        prompt.evaluate_labels(scores, &test.examples, calibration.as_ref());
    let Some(given) = &evaluation.labels else { return Ok(()) };
    let least = args.calibration.abstain_below;
    let answered = least.map(|least| (least, Answered::of(&probabilities, test.examples.labels(), least)));
    if args.save_calibration {
        calibration::save(calibration.as_ref(), &prompt.task, &args.source.prompt, printer)?;
    }

    printer.json(&Report::of(&evaluation, given, labels, reliability, calibration.as_ref(), answered))?;
    let table = report::scores_table("examples", &[(&prompt.name(), &evaluation)]);
    printer.answer(&table.to_string())?;
    printer.answer(&format!(
        "macro F1 {:.3}, expected calibration error {:.3}, Brier score {:.3}\n",
        given.macro_f1(),
        reliability.ece,
        reliability.brier
    ))?;
    if let Some((least, answered)) = answered {
        printer.answer(&format!("{}\n", answered_in_words(least, answered)))?;
    }
    printer.answer(&format!("{}\n", report::labels_table(labels, &[("", given)])))?;
    printer.answer(&confusion(given, labels).to_string())?;
    Ok(())
}

/// Generates a text for every example, and prints the scores against the targets.
fn generated(
    args: &EvalArgs,
    prompt: &LoadedPrompt,
    (scores, test): (&[Vec<f64>], &TestSet),
    printer: &Printer,
) -> Result<()> {
    let evaluation = prompt.task.judge(scores, &test.examples);
    let scores = prompt.evaluate_texts(test, &new_tokens(&args.new_tokens), printer)?;
    printer.json(&TextReport::of(&evaluation, &scores))?;
    let table = report::scores_table("examples", &[(&prompt.name(), &evaluation)]);
    printer.answer(&table.to_string())?;
    printer.answer(&format!(
        "exact match {}, ROUGE-L {:.3}, BLEU {:.2}",
        percent(scores.exact_match),
        scores.rouge_l,
        scores.bleu
    ))?;
    Ok(())
}

fn answered_in_words(least: f64, answered: Answered) -> String {
    let (n, of) = (count(answered.n_answered), count(answered.n));
    let coverage = percent(answered.coverage());
    let right = match answered.accuracy() {
        Some(accuracy) => {
            let interval = interval(wilson(answered.n_right, answered.n_answered));
            format!("{} of them correct (95 % interval {interval})", percent(accuracy))
        }
        None => "so nothing can be said of them".to_owned(),
    };
    format!("answered {n} of {of} ({coverage}), where a label has {} or more; {right}", percent(least))
}

/// The confusion matrix: true labels in rows, predicted labels in columns.
fn confusion(labels_given: &Confusion, labels: &Verbalizer) -> Table {
    let given = labels.names().iter().map(|name| format!("given {name}"));
    let mut table = Table::new(std::iter::once(String::new()).chain(given));
    for (name, row) in labels.names().iter().zip(&labels_given.counts) {
        table.row(std::iter::once(format!("true {name}")).chain(row.iter().map(|&n| count(n))));
    }
    table
}
