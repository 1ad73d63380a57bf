//! `foreword generate`: a text after each text, token by token.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use anyhow::Result;
use foreword::Dataset;
use foreword::generate::{Event, GenerateConfig, Generated, Sampling};

use crate::args::{GenerateArgs, NewTokensArgs, SamplingArgs};
use crate::exit::Exit;
use crate::printer::{Answers, Printer};
use crate::resolve::prompt::{Asked, AskedFields, Verb};
use crate::resolve::texts::{Shown, Texts};
use crate::wire::Written;
use crate::words::in_a_line;

/// Runs the verb.
pub(crate) fn run(args: &GenerateArgs, printer: &mut Printer) -> Result<Exit> {
    let asked = Asked {
        verb: Verb::Generate,
        source: &args.source,
        ensemble: false,
        task: &args.task,
        labels: None,
        fields: AskedFields { text: args.texts.text_field.as_deref(), ..AskedFields::default() },
        objective: None,
        about: None,
        label_names: None,
        machine: &args.machine,
    };
    let texts = Texts { given: &args.texts, to: "write after" };
    let (ready, data) = texts.resolve(asked, printer)?;
    let shown = Shown::of(&ready, &data, printer)?;
    let one = data.n() == 1;
    let stream = one && printer.streams();
    let config =
        GenerateConfig { sampling: sampling(&args.sampling), stream, ..new_tokens(&args.new_tokens) };
    let (examples, most) = ready.openings(&data, &config, printer)?;
    if !one {
        printer.begin_bar(examples.n() as u64, "writing");
    }
    let mut teller =
        Teller { data: &data, shown: &shown, one, next: 0, early: BTreeMap::new(), n_done: 0, error: None };
    let of = (&examples, most);
    ready.task.generate(&ready.model, ready.prompts.first(), of, &config, ready.budget, &mut |event| {
        teller.event(event, printer)
    })?;
    printer.end_bar();
    match teller.error {
        Some(error) => Err(error),
        None => Ok(Exit::Done),
    }
}

/// How long texts may be and what ends them; the likeliest token is taken.
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

/// Tells of texts in their order, whichever is whole first.
struct Teller<'a> {
    data: &'a Dataset,
    /// What stands for an example.
    shown: &'a Shown,
    /// There is one text only.
    one: bool,
    /// The text to be told next.
    next: usize,
    /// Texts that were whole before their turn.
    early: BTreeMap<usize, Generated>,
    n_done: u64,
    error: Option<anyhow::Error>,
}

impl Teller<'_> {
    fn event(&mut self, event: Event<'_>, printer: &mut Printer) -> ControlFlow<()> {
        let told = match event {
            Event::More { text, .. } => printer.piece(text).map_err(Into::into),
            Event::Done { example, generated } => self.done(example, generated, printer),
        };
        match told {
            // Whoever read has seen enough.
            Ok(()) if printer.is_closed() => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.error = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn done(&mut self, example: usize, generated: &Generated, printer: &mut Printer) -> Result<()> {
        self.n_done += 1;
        printer.move_bar(self.n_done, String::new);
        self.early.insert(example, generated.clone());
        while let Some(generated) = self.early.remove(&self.next) {
            self.tell(self.next, &generated, printer)?;
            self.next += 1;
        }
        Ok(())
    }

    fn tell(&self, row: usize, generated: &Generated, printer: &mut Printer) -> Result<()> {
        let Generated { tokens, text, finish_reason } = generated;
        match printer.answers() {
            Answers::Json => printer.json(&Written {
                text: self.shown.text(self.data, row)?,
                fields: self.shown.fields(self.data, row)?,
                output: text,
                tokens: tokens.len(),
                finish_reason: finish_reason.as_str(),
            })?,
            // The text itself was told as it grew.
            Answers::Text if self.one && printer.streams() => printer.piece("\n")?,
            Answers::Text if self.one => printer.answer(text)?,
            Answers::Text => printer.answer(&in_a_line(text))?,
        }
        Ok(())
    }
}
