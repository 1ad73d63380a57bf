//! `foreword eval`: how good a prompt is on examples whose label or target is known.

use std::ops::ControlFlow;

use anyhow::Result;
use foreword::data::FieldIdx;
use foreword::generate::Event;
use foreword::metrics::reliability::{Answered, Reliability};
use foreword::metrics::text::TextScores;
use foreword::metrics::wilson;
use foreword::score::probabilities;
use foreword::settings::Objective;
use foreword::{Confusion, Dataset, Examples, Verbalizer};

use crate::args::EvalArgs;
use crate::commands::generate::new_tokens;
use crate::exit::{Exit, Given};
use crate::printer::{Printer, Table};
use crate::report;
use crate::resolve::naming::Naming;
use crate::resolve::prompt::{Asked, AskedFields, Ready, Verb};
use crate::resolve::splits::strata;
use crate::resolve::{Fields, calibration, data, doubts, tell_unused};
use crate::wire::{Report, TextReport};
use crate::words::{count, interval, percent};

/// Runs the verb.
pub(crate) fn run(args: &EvalArgs, printer: &mut Printer) -> Result<Exit> {
    let data = data::read(&args.data)?;
    let asked = Asked {
        verb: Verb::Eval,
        source: &args.source,
        ensemble: args.ensemble.ensemble,
        task: &args.task,
        labels: Some(&args.labels),
        fields: AskedFields {
            text: args.fields.text_field.as_deref(),
            label: args.fields.label_field.as_deref(),
            target: args.fields.target_field.as_deref(),
        },
        objective: args.loss.objective,
        about: None,
        label_names: args.label_names.label_names.as_ref().map(|names| &names.0),
        machine: &args.machine,
    };
    let mut ready = asked.resolve(Some(&data), printer)?;
    check_calibration(args, &ready)?;
    let stated = asked.label_names;
    let task = &mut ready.task;
    let truth = (task.goal.kind(), ready.truth_field.as_deref());
    let fields = Fields::find(&data, &task.template, task.text_field.as_deref(), truth)?;
    if fields.guessed {
        printer.say(&format!("fields    {}", fields.describe(&task.template)));
    }
    task.text_field.clone_from(&fields.text);
    let (data, named_by) = match task.verbalizer() {
        Some(labels) => {
            let (recorded, labels) = (Some(&ready.label_names), Some(labels.names()));
            let named = Naming { stated, recorded, labels }.apply(data, &fields.truth, printer)?;
            (named.dataset, named.field)
        }
        None => (data, None),
    };
    let beside = (Some(fields.truth.as_str()), named_by.as_deref());
    tell_unused(&data, &task.template, task.text_field.as_deref(), beside, printer)?;
    let labels = strata(&data, task, &fields)?;
    let data = data::drawn(
        data,
        (&labels, fields.kind),
        args.limit,
        (args.seed.unwrap_or_default(), "examples"),
        printer,
    );
    doubts::tell_empty("", &data, task, printer)?;

    let truth = data.require(&fields.truth)?;
    let examples = ready.examples(&data, Some(truth), printer)?;
    printer.begin_bar((ready.n_members() * examples.n()) as u64, "scoring");
    let mut progress = |n: usize| printer.move_bar(n as u64, String::new);
    let scores = ready.task.scores(&ready.model, &ready.prompts(), &examples, ready.budget, &mut progress)?;
    printer.end_bar();
    match ready.task.verbalizer() {
        Some(labels) => labelled(args, &ready, (&scores, &examples), labels, printer)?,
        None => {
            let evaluation = ready.task.judge(&scores, &examples);
            let scores = text_scores(args, &ready, &data, truth, printer)?;
            printer.json(&TextReport::of(&evaluation, &scores))?;
            let table = report::scores_table("examples", &[(&ready.name(), &evaluation)]);
            printer.answer(&table.to_string())?;
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

/// Flags about probabilities need labels, and a place for what is stored; said before any work is done.
fn check_calibration(args: &EvalArgs, ready: &Ready) -> Result<()> {
    let asked = args.calibration.calibrate.is_some() || args.calibration.abstain_below.is_some();
    if asked && ready.task.verbalizer().is_none() {
        return Err(Given::wrong(
            "a text that is generated has no label whose probability could be corrected",
        )
        .hint("leave out --calibrate and --abstain-below")
        .into());
    }
    if args.save_calibration { calibration::check_save(ready, &args.source.prompt) } else { Ok(()) }
}

/// What the scores of labels come to.
fn labelled(
    args: &EvalArgs,
    ready: &Ready,
    (scores, examples): (&[Vec<f64>], &Examples),
    labels: &Verbalizer,
    printer: &mut Printer,
) -> Result<()> {
    let measured = Some(args.data.as_path());
    let calibration = calibration::resolve(&args.calibration, ready, scores, measured, printer)?;
    let calibrated: Vec<Vec<f64>> = match &calibration {
        Some(calibration) => scores.iter().map(|scores| calibration.apply(scores)).collect(),
        None => scores.to_vec(),
    };
    let mut evaluation = ready.task.judge(&calibrated, examples);
    if ready.task.objective() == Objective::Lm {
        // The loss is that of the labels' texts, which no correction changes.
        evaluation.loss = ready.task.judge(scores, examples).loss;
    }
    let Some(given) = &evaluation.labels else { return Ok(()) };
    let probabilities: Vec<Vec<f64>> = calibrated.iter().map(|scores| probabilities(scores)).collect();
    let reliability = Reliability::of(&probabilities, examples.labels());
    let answered = args
        .calibration
        .abstain_below
        .map(|least| (least, Answered::of(&probabilities, examples.labels(), least)));
    if args.save_calibration {
        calibration::save(calibration.as_ref(), &ready.task, &args.source.prompt, printer)?;
    }

    printer.json(&Report::of(&evaluation, given, labels, reliability, calibration.as_ref(), answered))?;
    let table = report::scores_table("examples", &[(&ready.name(), &evaluation)]);
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

fn answered_in_words(least: f64, answered: Answered) -> String {
    let (n, of) = (count(answered.n_answered), count(answered.n));
    let coverage = percent(answered.coverage());
    let right = match answered.accuracy() {
        Some(accuracy) => {
            let interval = interval(wilson(answered.n_right, answered.n_answered));
            format!("{} of them rightly (95 % interval {interval})", percent(accuracy))
        }
        None => "so nothing can be said of them".to_owned(),
    };
    format!("answered {n} of {of} ({coverage}), where a label has {} or more; {right}", percent(least))
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
    let prompt = ready.prompts.first();
    let texts = ready.task.generate(&ready.model, prompt, of, &config, ready.budget, &mut on_event)?;
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
