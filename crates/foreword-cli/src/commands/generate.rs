//! `foreword generate`: generates a text for each text, token by token.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use foreword::data::Cell;
use foreword::display::in_a_line;
use foreword::events::Written;
use foreword::generate::{Event, GenerateConfig, Generated, Sampling};
use foreword::prompt::predictions::own_values;
use foreword::prompt::texts::ExampleText;
use foreword::{Cancel, Dataset, Error, LoadedPrompt, OpenRequest, Purpose, Result, TextGenerator};

use crate::args::{GenerateArgs, NewTokensArgs, SamplingArgs};
use crate::exit::Exit;
use crate::interrupt;
use crate::printer::{Answers, Printer};
use crate::table_out::TableOut;
use crate::texts::{Batch, Input, Texts};

/// The columns of the table.
const COLUMNS: [&str; 2] = ["output", "finish_reason"];

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
    let table = TableOut::check(args.out.as_deref(), args.force, args.texts.data.as_deref(), printer)?;
    let (prompt, mut input) = Texts { given: &args.texts, to: "write after" }.resolve(request, printer)?;
    let one = input.n() == Some(1) && table.is_none();
    let stream = one && printer.streams();
    let config =
        GenerateConfig { sampling: sampling(&args.sampling), stream, ..new_tokens(&args.new_tokens) };
    let mut generator = prompt.generator(&config)?;
    if !one {
        printer.begin_bar(input.n().unwrap_or_default() as u64, "writing");
    }
    let (n, cancel) = (input.n(), input.cancel());
    if table.is_some() {
        TableOut::watch(cancel.clone())?;
    }
    let mut writer = Writer {
        texts: VecDeque::new(),
        one,
        n: 0,
        early: BTreeMap::new(),
        table,
        cancel,
        printer,
        error: None,
    };
    let generated = generate(&prompt, &mut input, &mut generator, &mut writer);
    interrupt::unwatch();
    printer.end_bar();
    let is_cancelled = writer.cancel.is_cancelled();
    writer.finish(n, generated.is_ok() && !is_cancelled && !printer.is_closed())?;
    generated?;
    generator.tell_cuts(printer);
    input.tell_empty(printer);
    Ok(if is_cancelled { Exit::Interrupted } else { Exit::Done })
}

/// Generates until the texts end. After an error, those before it are still completed.
fn generate(
    prompt: &LoadedPrompt,
    input: &mut Input,
    generator: &mut TextGenerator<'_>,
    writer: &mut Writer<'_>,
) -> Result<()> {
    let mut ended = None;
    while !(ended.is_some() && generator.is_idle()) {
        // Texts that came meanwhile join those in progress.
        while ended.is_none() && generator.n_waiting() == 0 {
            let next = input.next(prompt, generator.is_idle());
            let admitted = match next {
                Ok(Batch::Texts(data)) => generator.admit(&data).and_then(|()| writer.admit(&data, prompt)),
                Ok(Batch::Later) => break,
                Ok(Batch::End) => {
                    ended = Some(Ok(()));
                    break;
                }
                Err(error) => Err(error),
            };
            ended = admitted.err().map(Err);
        }
        let stops = generator.step(&mut |event| writer.event(event))?.is_break();
        if stops || writer.cancel.is_cancelled() {
            break;
        }
    }
    writer.error.take().map_or(ended.unwrap_or(Ok(())), Err)
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
    /// The texts that are not printed yet, in order.
    texts: VecDeque<Shown>,
    /// Whether there is only one text.
    one: bool,
    /// Number of printed texts.
    n: usize,
    /// Texts that finished before their turn, by index.
    early: BTreeMap<usize, Generated>,
    /// The table of --out.
    table: Option<TableOut<'a>>,
    /// Ends the texts.
    cancel: Cancel,
    printer: &'a Printer,
    error: Option<Error>,
}

/// How a text is shown in the output.
struct Shown {
    text: String,
    fields: Option<BTreeMap<String, String>>,
    /// The values of its own fields, for a table.
    own: Vec<Cell>,
}

impl Writer<'_> {
    fn admit(&mut self, data: &Dataset, prompt: &LoadedPrompt) -> Result<()> {
        let shown = ExampleText::of(prompt, data, self.printer)?;
        if let Some(table) = &mut self.table {
            table.open(data, || COLUMNS.map(str::to_owned).into())?;
        }
        for row in 0..data.n() {
            let owned = |fields: BTreeMap<&str, &str>| {
                fields.into_iter().map(|(slot, value)| (slot.to_owned(), value.to_owned())).collect()
            };
            let (text, fields) = (shown.text(data, row)?.to_owned(), shown.fields(data, row)?.map(owned));
            let own = if self.table.is_some() { own_values(data, row) } else { Vec::new() };
            self.texts.push_back(Shown { text, fields, own });
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>) -> ControlFlow<()> {
        let printed = match event {
            Event::More { text, .. } => self.printer.piece(text).map_err(Error::from),
            Event::Done { example, generated } => self.done(example, generated),
        };
        match printed {
            // The reader has seen enough.
            Ok(()) if self.printer.is_closed() => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.error = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn done(&mut self, example: usize, generated: &Generated) -> Result<()> {
        self.early.insert(example, generated.clone());
        self.printer.move_bar((self.n + self.early.len()) as u64, String::new);
        while let Some(generated) = self.early.remove(&self.n)
            && let Some(shown) = self.texts.pop_front()
        {
            self.n += 1;
            self.print(&shown, &generated)?;
            self.write(shown, &generated)?;
        }
        Ok(())
    }

    fn write(&mut self, shown: Shown, generated: &Generated) -> Result<()> {
        let Some(table) = &mut self.table else { return Ok(()) };
        let columns = vec![generated.text.as_str().into(), generated.finish_reason.as_str().into()];
        table.write(shown.own, columns)
    }

    /// Completes the table, with the texts that finished before others that never did. `n`: number of all texts.
    fn finish(&mut self, n: Option<usize>, is_complete: bool) -> Result<()> {
        let first = self.n;
        for (at, shown) in std::mem::take(&mut self.texts).into_iter().enumerate() {
            if let Some(generated) = self.early.remove(&(first + at)) {
                self.write(shown, &generated)?;
            }
        }
        match self.table.take() {
            Some(table) => table.finish(n, is_complete, "what was generated"),
            None => Ok(()),
        }
    }

    fn print(&self, shown: &Shown, generated: &Generated) -> Result<()> {
        let (printer, Generated { tokens, text, finish_reason }) = (self.printer, generated);
        match printer.answers() {
            Answers::Json => printer.json(&Written {
                text: &shown.text,
                fields: shown.fields.as_ref().map(|fields| {
                    fields.iter().map(|(slot, value)| (slot.as_str(), value.as_str())).collect()
                }),
                output: text,
                tokens: tokens.len(),
                finish_reason: finish_reason.as_str(),
            })?,
            Answers::Text if self.table.is_some() => {}
            // The text itself was printed as it grew.
            Answers::Text if self.one && printer.streams() => printer.piece("\n")?,
            Answers::Text if self.one => printer.answer(text)?,
            Answers::Text => printer.answer(&in_a_line(text))?,
        }
        Ok(())
    }
}
