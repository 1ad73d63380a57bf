//! `foreword generate`: generates a text for each text, token by token.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use foreword::display::in_a_line;
use foreword::events::Written;
use foreword::generate::{Event, GenerateConfig, Generated, Sampling};
use foreword::prompt::texts::ExampleText;
use foreword::{Dataset, Error, OpenRequest, Purpose, Result};

use crate::args::{GenerateArgs, NewTokensArgs, SamplingArgs};
use crate::exit::Exit;
use crate::printer::{Answers, Printer};
use crate::texts::Texts;

/// Runs the verb.
pub(crate) fn run(args: &GenerateArgs, printer: &Printer) -> Result<Exit> {
    args.machine.start_threads()?;
    let mut stated = args.source.stated();
    args.task.state(&mut stated);
    stated.data.text_field.clone_from(&args.texts.text_field);
    let resources = args.machine.resources();
    let request = OpenRequest {
        purpose: Purpose::Generate,
        ..OpenRequest::new(&args.source.prompt, &stated, &resources)
    };
    let (prompt, data) = Texts { given: &args.texts, to: "write after" }.resolve(request, printer)?;
    let shown = ExampleText::of(&prompt, &data, printer)?;
    let one = data.n() == 1;
    let stream = one && printer.streams();
    let config =
        GenerateConfig { sampling: sampling(&args.sampling), stream, ..new_tokens(&args.new_tokens) };
    let (examples, most) = prompt.openings(&data, &config, printer)?;
    if !one {
        printer.begin_bar(examples.n() as u64, "writing");
    }
    let mut writer =
        Writer { data: &data, shown: &shown, one, next: 0, early: BTreeMap::new(), n_done: 0, error: None };
    prompt.generate_from((&examples, most), &config, &mut |event| writer.event(event, printer))?;
    printer.end_bar();
    match writer.error {
        Some(error) => Err(error),
        None => Ok(Exit::Done),
    }
}

/// The length limit and the stop strings; greedy decoding.
pub(crate) fn new_tokens(args: &NewTokensArgs) -> GenerateConfig {
    let stop = args.stop.iter().map(|stop| stop.0.clone()).collect();
    GenerateConfig { max_new_tokens: args.max_new_tokens, stop, ..GenerateConfig::default() }
}

fn sampling(args: &SamplingArgs) -> Sampling {
    let default = Sampling::default();
    Sampling {
        temperature: args.temperature.unwrap_or(default.temperature),
        top_k: args.top_k.unwrap_or(default.top_k),
        top_p: args.top_p.unwrap_or(default.top_p),
        repetition_penalty: args.repetition_penalty.unwrap_or(default.repetition_penalty),
        seed: args.seed.unwrap_or(default.seed),
    }
}

/// Prints texts in order, whichever finishes first.
struct Writer<'a> {
    data: &'a Dataset,
    /// How to show an example.
    shown: &'a ExampleText,
    /// Whether there is only one text.
    one: bool,
    /// The next text to print.
    next: usize,
    /// Texts that finished before their turn.
    early: BTreeMap<usize, Generated>,
    n_done: u64,
    error: Option<Error>,
}

impl Writer<'_> {
    fn event(&mut self, event: Event<'_>, printer: &Printer) -> ControlFlow<()> {
        let told = match event {
            Event::More { text, .. } => printer.piece(text).map_err(Error::from),
            Event::Done { example, generated } => self.done(example, generated, printer),
        };
        match told {
            // The reader has seen enough.
            Ok(()) if printer.is_closed() => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.error = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn done(&mut self, example: usize, generated: &Generated, printer: &Printer) -> Result<()> {
        self.n_done += 1;
        printer.move_bar(self.n_done, String::new);
        self.early.insert(example, generated.clone());
        while let Some(generated) = self.early.remove(&self.next) {
            self.tell(self.next, &generated, printer)?;
            self.next += 1;
        }
        Ok(())
    }

    fn tell(&self, row: usize, generated: &Generated, printer: &Printer) -> Result<()> {
        let Generated { tokens, text, finish_reason } = generated;
        match printer.answers() {
            Answers::Json => printer.json(&Written {
                text: self.shown.text(self.data, row)?,
                fields: self.shown.fields(self.data, row)?,
                output: text,
                tokens: tokens.len(),
                finish_reason: finish_reason.as_str(),
            })?,
            // The text itself was printed as it grew.
            Answers::Text if self.one && printer.streams() => printer.piece("\n")?,
            Answers::Text if self.one => printer.answer(text)?,
            Answers::Text => printer.answer(&in_a_line(text))?,
        }
        Ok(())
    }
}
