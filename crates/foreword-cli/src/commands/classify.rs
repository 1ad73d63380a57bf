//! `foreword classify`: a label and its probability for each text.

use foreword::display::{count, in_a_line, percent};
use foreword::events::Classified;
use foreword::prompt::calibration;
use foreword::prompt::texts::ExampleText;
use foreword::{Dataset, OpenRequest, Prediction, Purpose, Result, Verbalizer};

use crate::args::ClassifyArgs;
use crate::exit::Exit;
use crate::printer::{Answers, Printer};
use crate::texts::Texts;

/// The text printed instead of a withheld label.
const ABSTAINED: &str = "abstained";

/// Runs the verb.
pub(crate) fn run(args: &ClassifyArgs, printer: &Printer) -> Result<Exit> {
    args.machine.start_threads()?;
    let mut stated = args.source.stated();
    args.task.state(&mut stated);
    args.labels.state(&mut stated);
    stated.data.text_field.clone_from(&args.texts.text_field);
    let resources = args.machine.resources();
    let request = OpenRequest {
        purpose: Purpose::Classify,
        ensemble: args.ensemble.ensemble,
        ..OpenRequest::new(&args.source.prompt, &stated, &resources)
    };
    let (prompt, data) = Texts { given: &args.texts, to: "classify" }.resolve(request, printer)?;
    let shown = ExampleText::of(&prompt, &data, printer)?;
    let examples = prompt.examples(&data, None, printer)?;
    printer.begin_bar((prompt.n_members() * examples.n()) as u64, "scoring");
    let scores = prompt.log_likelihoods(&examples, &mut |n| printer.move_bar(n as u64, String::new))?;
    printer.end_bar();
    let read = args.texts.read.options();
    let calibration = calibration::resolve(args.calibration.request(&read), &prompt, &scores, None, printer)?;
    let labels = &prompt.task.classification()?.verbalizer;
    let least = args.calibration.abstain_below;
    let (n, mut n_abstained) = (scores.len(), 0);
    for (row, scores) in scores.into_iter().enumerate() {
        let prediction = prompt.predict(scores, calibration.as_ref(), least);
        n_abstained += u64::from(prediction.label.is_none());
        answer((&shown, &data, row), &prediction, labels, least.is_some(), printer)?;
    }
    if let Some(least) = least {
        printer.say(&format!(
            "abstained from {} of {} texts: no label has a probability of {} or more",
            count(n_abstained),
            count(n as u64),
            percent(least)
        ));
    }
    Ok(Exit::Done)
}

/// `abstains`: whether labels may be withheld.
fn answer(
    (shown, data, row): (&ExampleText, &Dataset, usize),
    prediction: &Prediction,
    labels: &Verbalizer,
    abstains: bool,
    printer: &Printer,
) -> Result<()> {
    let Prediction { label, probability, probabilities, log_likelihoods } = prediction;
    let names = || labels.names().iter().map(String::as_str);
    match printer.answers() {
        Answers::Json => printer.json(&Classified {
            text: shown.text(data, row)?,
            fields: shown.fields(data, row)?,
            label: label.as_deref(),
            probabilities: names().zip(probabilities.iter().copied()).collect(),
            log_likelihoods: names().zip(log_likelihoods.iter().copied()).collect(),
        })?,
        Answers::Text => {
            let width = names().map(|name| in_a_line(name).chars().count()).max().unwrap_or(0);
            let width = width.max(if abstains { ABSTAINED.chars().count() } else { 0 });
            let text = in_a_line(&shown.whole(data, row)?);
            let label = label.as_deref().map_or_else(|| ABSTAINED.to_owned(), in_a_line);
            printer.answer(&format!("{label:<width$}  {:>7}  {text}", percent(*probability)))?;
        }
    }
    Ok(())
}
