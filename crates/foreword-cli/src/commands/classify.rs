//! `foreword classify`: a label and its probability for each text, as soon as its micro-batch is computed.

use std::ops::ControlFlow;

use foreword::calibration::Calibration;
use foreword::display::{count, in_a_line, percent};
use foreword::events::Classified;
use foreword::metrics::scale::Scale;
use foreword::prompt::calibration;
use foreword::prompt::predictions::{label_columns, label_values, own_values};
use foreword::prompt::texts::ExampleText;
use foreword::{Dataset, LoadedPrompt, OpenRequest, Prediction, Purpose, Result, Verbalizer};

use crate::args::ClassifyArgs;
use crate::exit::Exit;
use crate::interrupt;
use crate::printer::{Answers, Printer};
use crate::report;
use crate::table_out::TableOut;
use crate::texts::{Batch, Input, Texts};

/// The text printed instead of a withheld label.
pub(crate) const ABSTAINED: &str = "abstained";

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
    let table = TableOut::check(args.out.as_deref(), args.force, args.texts.data.as_deref(), printer)?;
    let (prompt, mut input) = Texts { given: &args.texts, to: "classify" }.resolve(request, printer)?;
    let labels = &prompt.task.classification()?.verbalizer;
    let shown = labels.names().iter().map(|name| in_a_line(name).chars().count());
    let abstained = args.calibration.abstain_below.map(|_| ABSTAINED.chars().count());
    let mut answers = ClassifyAnswers {
        prompt: &prompt,
        labels,
        scale: Scale::of(labels),
        calibration: None,
        least: args.calibration.abstain_below,
        counts: vec![0; labels.n()],
        n: 0,
        width: shown.chain(abstained).max().unwrap_or(0),
        table,
        printer,
    };
    let cancel = input.cancel();
    if args.out.is_some() {
        TableOut::watch(cancel.clone())?;
    }
    let n = input.n();
    let classified = classify(args, &mut input, &mut answers);
    interrupt::unwatch();
    answers.finish(n, classified.is_ok() && !cancel.is_cancelled() && !printer.is_closed())?;
    classified?;
    input.tell_empty(printer);
    Ok(if cancel.is_cancelled() { Exit::Interrupted } else { Exit::Done })
}

fn classify(args: &ClassifyArgs, input: &mut Input, answers: &mut ClassifyAnswers<'_>) -> Result<()> {
    let (prompt, printer, cancel) = (answers.prompt, answers.printer, input.cancel());
    let mut classifier = prompt.classifier()?;
    let read = args.texts.read.options();
    let request = args.calibration.request(&read);
    printer.begin_bar(input.n().unwrap_or_default() as u64, "scoring");
    if request.needs_scores() {
        let Some(data) = input.all(prompt)? else { return Ok(()) };
        let shown = answers.show(&data)?;
        let mut all = Vec::with_capacity(data.n());
        classifier.score(&data, &mut |row, scores| {
            printer.move_bar(row as u64 + 1, String::new);
            all.push(scores);
            if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        answers.calibration = calibration::resolve(request, prompt, &all, None, printer)?;
        let mut scored = all.into_iter().enumerate();
        scored.try_for_each(|(row, scores)| answers.answer((&shown, &data, row), scores))?;
    } else {
        answers.calibration = calibration::resolve(request, prompt, &[], None, printer)?;
        while let Batch::Texts(data) = input.next(prompt, true)?
            && !printer.is_closed()
        {
            let shown = answers.show(&data)?;
            let mut failed = None;
            classifier.score(&data, &mut |row, scores| {
                failed = answers.answer((&shown, &data, row), scores).err();
                if failed.is_some() || printer.is_closed() || cancel.is_cancelled() {
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
    Ok(())
}

/// Prints answers, or writes them to a file.
struct ClassifyAnswers<'a> {
    prompt: &'a LoadedPrompt,
    labels: &'a Verbalizer,
    /// The scale, if the labels look like one.
    scale: Option<Scale>,
    calibration: Option<Calibration>,
    /// The probability below which labels are withheld.
    least: Option<f64>,
    /// Number of texts with each label.
    counts: Vec<u64>,
    /// Number of texts.
    n: u64,
    /// Width of the column of labels.
    width: usize,
    /// The table of --out.
    table: Option<TableOut<'a>>,
    printer: &'a Printer,
}

impl ClassifyAnswers<'_> {
    /// How the texts of a batch are shown; creates the table with the fields of the first one.
    fn show(&mut self, data: &Dataset) -> Result<ExampleText> {
        if let Some(table) = &mut self.table {
            table.open(data, || label_columns("label", self.labels))?;
        }
        ExampleText::of(self.prompt, data, self.printer)
    }

    fn answer(
        &mut self,
        (shown, data, row): (&ExampleText, &Dataset, usize),
        scores: Vec<f64>,
    ) -> Result<()> {
        let prediction = self.prompt.predict(scores, self.calibration.as_ref(), self.least);
        self.n += 1;
        if let Some(label) = prediction.label.as_ref().and_then(|label| self.labels.index(label)) {
            self.counts[label] += 1;
        }
        self.printer.move_bar(self.n, String::new);
        if let Some(table) = &mut self.table {
            table.write(own_values(data, row), label_values(&prediction, self.scale.as_ref()))?;
        }
        self.print((shown, data, row), &prediction)
    }

    fn print(
        &self,
        (shown, data, row): (&ExampleText, &Dataset, usize),
        prediction: &Prediction,
    ) -> Result<()> {
        let printer = self.printer;
        let Prediction { label, probability, probabilities, log_likelihoods } = prediction;
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
            Answers::Text if self.table.is_some() => {}
            Answers::Text => {
                let width = self.width;
                let text = in_a_line(&shown.whole(data, row)?);
                let label = label.as_deref().map_or_else(|| ABSTAINED.to_owned(), in_a_line);
                printer.answer(&format!("{label:<width$}  {:>7}  {text}", percent(*probability)))?;
            }
        }
        Ok(())
    }

    /// Completes the table, and prints how often each label was given. `n`: number of all texts, if it is known.
    fn finish(&mut self, n: Option<usize>, is_complete: bool) -> Result<()> {
        let n_abstained = self.n - self.counts.iter().sum::<u64>();
        if let Some(table) = self.table.take() {
            self.printer.end_bar();
            if self.n > 0 {
                self.printer.answer(&report::given(self.labels, &self.counts, n_abstained))?;
            }
            table.finish(n, is_complete, "labels")?;
        }
        if let Some(least) = self.least {
            self.printer.say(&format!(
                "abstained from {} of {} texts: no label has a probability of {} or more",
                count(n_abstained),
                count(self.n),
                percent(least)
            ));
        }
        Ok(())
    }
}
