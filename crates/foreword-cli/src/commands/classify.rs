//! `foreword classify`: a label and its probability for each text, as soon as its micro-batch is computed.

use std::ops::ControlFlow;

use foreword::calibration::Calibration;
use foreword::display::{count, in_a_line, percent};
use foreword::events::Classified;
use foreword::metrics::scale::Scale;
use foreword::prompt::calibration;
use foreword::prompt::texts::ExampleText;
use foreword::{Dataset, LoadedPrompt, OpenRequest, Prediction, Purpose, Result, Verbalizer};

use crate::args::ClassifyArgs;
use crate::exit::Exit;
use crate::printer::{Answers, Printer};
use crate::texts::{Batch, Input, Texts};

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
    let (prompt, input) = Texts { given: &args.texts, to: "classify" }.resolve(request, printer)?;
    classify(args, &prompt, input, printer)?;
    Ok(Exit::Done)
}

fn classify(args: &ClassifyArgs, prompt: &LoadedPrompt, mut input: Input, printer: &Printer) -> Result<()> {
    let mut classifier = prompt.classifier()?;
    let request = args.calibration.request();
    let labels = &prompt.task.classification()?.verbalizer;
    let mut answers = ClassifyAnswers {
        prompt,
        labels,
        scale: Scale::of(labels),
        calibration: None,
        least: args.calibration.abstain_below,
        n: 0,
        n_abstained: 0,
        printer,
    };
    printer.begin_bar(input.n().unwrap_or_default() as u64, "scoring");
    if request.needs_scores() {
        let Some(data) = input.all(prompt)? else { return Ok(()) };
        let shown = ExampleText::of(prompt, &data, printer)?;
        let mut all = Vec::with_capacity(data.n());
        classifier.score(&data, &mut |row, scores| {
            printer.move_bar(row as u64 + 1, String::new);
            all.push(scores);
            ControlFlow::Continue(())
        })?;
        answers.calibration = calibration::resolve(request, prompt, &all, None, printer)?;
        let scored = all.into_iter().enumerate();
        scored.map(|(row, scores)| answers.answer((&shown, &data, row), scores)).collect::<Result<()>>()?;
    } else {
        answers.calibration = calibration::resolve(request, prompt, &[], None, printer)?;
        while let Batch::Texts(data) = input.next(prompt, true)?
            && !printer.is_closed()
        {
            let shown = ExampleText::of(prompt, &data, printer)?;
            let mut failed = None;
            classifier.score(&data, &mut |row, scores| {
                failed = answers.answer((&shown, &data, row), scores).err();
                if failed.is_some() || printer.is_closed() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            failed.map_or(Ok(()), Err)?;
        }
    }
    printer.end_bar();
    classifier.tell_cuts(printer);
    input.tell_empty(printer);
    answers.tell_abstained();
    Ok(())
}

/// Prints answers.
struct ClassifyAnswers<'a> {
    prompt: &'a LoadedPrompt,
    labels: &'a Verbalizer,
    /// The scale, if the labels look like one.
    scale: Option<Scale>,
    calibration: Option<Calibration>,
    /// The probability below which labels are withheld.
    least: Option<f64>,
    n: u64,
    n_abstained: u64,
    printer: &'a Printer,
}

impl ClassifyAnswers<'_> {
    fn answer(
        &mut self,
        (shown, data, row): (&ExampleText, &Dataset, usize),
        scores: Vec<f64>,
    ) -> Result<()> {
        let printer = self.printer;
        let prediction = self.prompt.predict(scores, self.calibration.as_ref(), self.least);
        self.n += 1;
        self.n_abstained += u64::from(prediction.label.is_none());
        printer.move_bar(self.n, String::new);
        let Prediction { label, probability, probabilities, log_likelihoods } = &prediction;
        let names = || self.labels.names().iter().map(String::as_str);
        match printer.answers() {
            Answers::Json => printer.json(&Classified {
                text: shown.text(data, row)?,
                fields: shown.fields(data, row)?,
                label: label.as_deref(),
                probabilities: names().zip(probabilities.iter().copied()).collect(),
                log_likelihoods: names().zip(log_likelihoods.iter().copied()).collect(),
                expected: self.scale.as_ref().map(|scale| scale.expected(probabilities)),
            })?,
            Answers::Text => {
                let width = names().map(|name| in_a_line(name).chars().count()).max().unwrap_or(0);
                let abstained = if self.least.is_some() { ABSTAINED.chars().count() } else { 0 };
                let width = width.max(abstained);
                let text = in_a_line(&shown.whole(data, row)?);
                let label = label.as_deref().map_or_else(|| ABSTAINED.to_owned(), in_a_line);
                printer.answer(&format!("{label:<width$}  {:>7}  {text}", percent(*probability)))?;
            }
        }
        Ok(())
    }

    fn tell_abstained(&self) {
        if let Some(least) = self.least {
            self.printer.say(&format!(
                "abstained from {} of {} texts: no label has a probability of {} or more",
                count(self.n_abstained),
                count(self.n),
                percent(least)
            ));
        }
    }
}
