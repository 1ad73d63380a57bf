//! `foreword eval`: evaluates a prompt on examples with known labels or targets.

use std::path::Path;

use foreword::data::Cell;
use foreword::display::{count, in_a_line, interval, percent, shortened};
use foreword::events::{Mistake, Report, TextReport};
use foreword::metrics::reliability::Answered;
use foreword::metrics::scale::{Scale, ScaleErrors};
use foreword::metrics::wilson;
use foreword::plan::data;
use foreword::prompt::calibration;
use foreword::prompt::evaluate::{LabelEvaluation, TestSet};
use foreword::prompt::predictions::{PredictionWriter, label_columns, label_values, own_fields, own_values};
use foreword::{LoadedPrompt, OpenRequest, Result, UserError, Verbalizer};

use crate::args::EvalArgs;
use crate::commands::generate::new_tokens;
use crate::exit::Exit;
use crate::printer::Printer;
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
    if let Some(path) = &args.predictions {
        PredictionWriter::check(path, args.force, Some(&args.data))?;
    }
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
    let evaluated = prompt.evaluate_labels(scores, &test.examples, calibration.as_ref());
    let LabelEvaluation { evaluation, probabilities, reliability, scale } = &evaluated;
    let Some(given) = &evaluation.labels else { return Ok(()) };
    let least = args.calibration.abstain_below;
    let answered = least.map(|least| (least, Answered::of(probabilities, test.examples.labels(), least)));
    if args.save_calibration {
        calibration::save(calibration.as_ref(), &prompt.task, &args.source.prompt, printer)?;
    }

    if let Some(path) = &args.predictions {
        let columns: Vec<String> =
            ["truth".to_owned()].into_iter().chain(label_columns("answer", labels)).collect();
        let values = |row: usize| {
            let truth = labels.names()[test.examples.labels()[row]].as_str().into();
            let prediction = prompt.prediction(scores[row].clone(), probabilities[row].clone(), None);
            let scale = scale.as_ref().map(|(scale, _)| scale);
            Ok([truth].into_iter().chain(label_values(&prediction, scale)).collect())
        };
        write_predictions(path, test, &columns, values, printer)?;
    }
    let mistakes = Mistake::surest(prompt, test, probabilities, printer)?;
    let parts = (calibration.as_ref(), answered);
    printer.json(&Report::of(&evaluated, given, labels, parts, &mistakes))?;
    let table = report::scores_table("examples", &[(&prompt.name(), evaluation)]);
    printer.answer(&table.to_string())?;
    printer.answer(&format!(
        "expected calibration error {:.3}, Brier score {:.3}",
        reliability.ece, reliability.brier
    ))?;
    if let Some((scale, errors)) = scale {
        printer.answer(&scale_in_words(scale, *errors))?;
    }
    printer.answer("")?;
    if let Some((least, answered)) = answered {
        printer.answer(&format!("{}\n", answered_in_words(least, answered)))?;
    }
    printer.answer(&format!("{}\n", report::labels_table(labels, None, &[("", given)])))?;
    printer.answer(&report::confusion(given, labels))?;
    print_mistakes(&mistakes, printer)
}

/// Generates a text for every example, and prints the scores against the targets.
fn generated(
    args: &EvalArgs,
    prompt: &LoadedPrompt,
    (scores, test): (&[Vec<f64>], &TestSet),
    printer: &Printer,
) -> Result<()> {
    let evaluation = prompt.task.judge(scores, &test.examples);
    let (scores, texts) = prompt.evaluate_texts(test, &new_tokens(&args.new_tokens), printer)?;
    if let Some(path) = &args.predictions {
        let columns = ["truth", "answer"].map(str::to_owned);
        let values =
            |row: usize| Ok(vec![test.data.text(row, test.truth)?.into(), texts[row].text.as_str().into()]);
        write_predictions(path, test, &columns, values, printer)?;
    }
    printer.json(&TextReport::of(&evaluation, &scores))?;
    let table = report::scores_table("examples", &[(&prompt.name(), &evaluation)]);
    printer.answer(&table.to_string())?;
    printer.answer(&format!(
        "exact match {:.1}, ROUGE-L {:.1}, BLEU {:.1} (each from 0 to 100)",
        100.0 * scores.exact_match,
        100.0 * scores.rouge_l,
        scores.bleu
    ))?;
    Ok(())
}

/// Prints the surest mistakes, if there are any.
fn print_mistakes(mistakes: &[Mistake], printer: &Printer) -> Result<()> {
    if !mistakes.is_empty() {
        printer.answer("\nthe surest mistakes:")?;
    }
    for Mistake { label, truth, probability, text, .. } in mistakes {
        let [label, truth] = [label, truth].map(|label| in_a_line(label));
        printer.answer(&format!(
            "  {}  predicted {label}, is {truth}: {}",
            percent(*probability),
            shortened(text)
        ))?;
    }
    Ok(())
}

/// Writes a table of the examples with these columns; `values`: those of a row.
fn write_predictions(
    path: &Path,
    test: &TestSet,
    columns: &[String],
    values: impl Fn(usize) -> Result<Vec<Cell>>,
    printer: &Printer,
) -> Result<()> {
    let mut file = PredictionWriter::create(path, own_fields(&test.data), columns, printer)?;
    for row in 0..test.data.n() {
        file.write(own_values(&test.data, row), values(row)?)?;
    }
    file.finish(true, printer)?;
    printer.say(&format!("the predictions are in {}", path.display()));
    Ok(())
}

fn scale_in_words(scale: &Scale, errors: ScaleErrors) -> String {
    let (first, last) = scale.ends();
    format!(
        "on a scale from {first} to {last}: mean absolute error {:.3} of the expected value, {:.3} of the predicted label",
        errors.expected, errors.predicted
    )
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
