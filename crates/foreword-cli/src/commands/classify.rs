//! `foreword classify`: a label and its probability for each text.

use anyhow::Result;
use foreword::metrics::reliability::sure;
use foreword::score::{best, probabilities};
use foreword::{Dataset, Verbalizer};

use crate::args::ClassifyArgs;
use crate::exit::Exit;
use crate::printer::{Answers, Printer};
use crate::resolve::calibration;
use crate::resolve::prompt::{Asked, AskedFields, Verb};
use crate::resolve::texts::{Shown, Texts};
use crate::wire::Classified;
use crate::words::{count, in_a_line, percent};

/// What stands in the place of a label that is not given.
const ABSTAINED: &str = "abstained";

/// Runs the verb.
pub(crate) fn run(args: &ClassifyArgs, printer: &mut Printer) -> Result<Exit> {
    let asked = Asked {
        verb: Verb::Classify,
        source: &args.source,
        ensemble: args.ensemble.ensemble,
        task: &args.task,
        labels: Some(&args.labels),
        fields: AskedFields { text: args.texts.text_field.as_deref(), ..AskedFields::default() },
        objective: None,
        about: None,
        label_names: None,
        machine: &args.machine,
    };
    let texts = Texts { given: &args.texts, to: "classify" };
    let (ready, data) = texts.resolve(asked, printer)?;
    let shown = Shown::of(&ready, &data, printer)?;
    let examples = ready.examples(&data, None, printer)?;
    printer.begin_bar((ready.n_members() * examples.n()) as u64, "scoring");
    let mut progress = |n: usize| printer.move_bar(n as u64, String::new);
    let scores =
        ready.task.log_likelihoods(&ready.model, &ready.prompts(), &examples, ready.budget, &mut progress)?;
    printer.end_bar();
    let calibration = calibration::resolve(&args.calibration, &ready, &scores, None, printer)?;
    let labels = &ready.task.classification()?.verbalizer;
    let least = args.calibration.abstain_below;
    let mut n_abstained = 0;
    for (row, scores) in scores.iter().enumerate() {
        let probabilities = match &calibration {
            Some(calibration) => probabilities(&calibration.apply(scores)),
            None => probabilities(scores),
        };
        let scored = Scored {
            scores,
            probabilities: &probabilities,
            given: sure(&probabilities, least),
            abstains: least.is_some(),
        };
        n_abstained += u64::from(scored.given.is_none());
        answer((&shown, &data, row), &scored, labels, printer)?;
    }
    if let Some(least) = least {
        let (abstained, n) = (count(n_abstained), count(scores.len() as u64));
        printer.say(&format!(
            "abstained from {abstained} of {n} texts, of which no label has {} or more",
            percent(least)
        ));
    }
    Ok(Exit::Done)
}

/// What the model says of a text.
struct Scored<'a> {
    scores: &'a [f64],
    probabilities: &'a [f64],
    /// The label, unless none is sure enough.
    given: Option<usize>,
    /// Whether that can be.
    abstains: bool,
}

fn answer(
    (shown, data, row): (&Shown, &Dataset, usize),
    scored: &Scored<'_>,
    labels: &Verbalizer,
    printer: &mut Printer,
) -> Result<()> {
    let &Scored { scores, probabilities, given, .. } = scored;
    let names = || labels.names().iter().map(String::as_str);
    let label = given.map(|given| labels.names()[given].as_str());
    match printer.answers() {
        Answers::Json => printer.json(&Classified {
            text: shown.text(data, row)?,
            fields: shown.fields(data, row)?,
            label,
            probabilities: names().zip(probabilities.iter().copied()).collect(),
            log_likelihoods: names().zip(scores.iter().copied()).collect(),
        })?,
        Answers::Text => {
            let width = names().map(|name| in_a_line(name).chars().count()).max().unwrap_or(0);
            let width = width.max(if scored.abstains { ABSTAINED.chars().count() } else { 0 });
            let (probability, text) =
                (percent(probabilities[best(probabilities)]), in_a_line(&shown.whole(data, row)?));
            let label = label.map_or_else(|| ABSTAINED.to_owned(), in_a_line);
            printer.answer(&format!("{label:<width$}  {probability:>7}  {text}"))?;
        }
    }
    Ok(())
}
