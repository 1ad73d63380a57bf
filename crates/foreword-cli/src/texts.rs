//! The texts of `classify`, `generate` and `explain`: from the command line, from standard input, or from a file with
//! fields.

use std::io::{self, BufRead as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use foreword::data::{ENDINGS, is_data_name};
use foreword::fields::{complete_texts, tell_unused};
use foreword::plan::checks::EmptyTexts;
use foreword::plan::data;
use foreword::prompt::texts::{TextFormat, dataset};
use foreword::{Cancel, Dataset, Error, LoadedPrompt, Observer, OpenRequest, Result, UserError};

use crate::args::TextArgs;
use crate::command_line::{quoted, this_command_with};
use crate::printer::Printer;

/// The slot of the text field, whatever the field's name.
const TEXT: &str = "text";

/// Maximum number of lines read ahead, and taken at a time.
const MOST_LINES: usize = 256;
/// Time between two looks at whether the texts were ended.
const PATIENCE: Duration = Duration::from_millis(50);

/// The input texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Texts<'a> {
    pub(crate) given: &'a TextArgs,
    /// What the verb does with them, for messages.
    pub(crate) to: &'static str,
}

impl Texts<'_> {
    /// Opens the prompt and the texts.
    pub(crate) fn resolve(
        self,
        request: OpenRequest<'_>,
        printer: &Printer,
    ) -> Result<(LoadedPrompt, Input)> {
        let (limit, observer): (_, &dyn Observer) = (self.given.limit, printer);
        let Some(path) = &self.given.data else {
            refuse_files(&self.given.texts)?;
            let mut prompt = request.open(None, observer)?;
            if self.given.texts == ["-"] {
                if !self.given.read.written().is_empty() {
                    return Err(UserError::new(format!(
                        "{} is for --data; the lines of - are UTF-8 texts",
                        self.given.read.written().trim()
                    ))
                    .hint("read a file from standard input with --data -, or leave the flag out")
                    .into());
                }
                let source = Source::Lines(Lines::open(&mut prompt, (self.to, limit), observer)?);
                return Ok((prompt, Input::new(source)));
            }
            let fields = self.given.field.pairs();
            if self.given.texts.is_empty() && fields.is_empty() {
                return Err(UserError::new(format!("there is no text to {}", self.to))
                    .hint("give texts, --data FILE, or - to read texts from standard input, one a line")
                    .into());
            }
            let data = dataset(self.given.texts.clone(), &fields, &mut prompt, observer)?;
            return Ok((prompt, Input::new(Source::Whole(Some(data::first(data, limit, observer))))));
        };
        let data = data::read(path, &self.given.read.options(), observer)?;
        let prompt = OpenRequest { about: Some(&data), ..request }.open(None, observer)?;
        let (task, truth) = (&prompt.task, prompt.truth_field.as_deref());
        tell_unused(&data, &task.template, task.text_field.as_deref(), (truth, None), observer)?;
        let data = if self.given.read.skip_bad {
            complete_texts(data, &task.template, task.text_field.as_deref(), observer)?
        } else {
            data
        };
        Ok((prompt, Input::new(Source::Whole(Some(data::first(data, limit, observer))))))
    }
}

/// The texts as data, in batches, as they come.
#[derive(Debug)]
pub(crate) struct Input {
    source: Source,
    empty: EmptyTexts,
    cancel: Cancel,
}

#[derive(Debug)]
enum Source {
    /// All texts at once; `None` after they were taken.
    Whole(Option<Dataset>),
    Lines(Lines),
}

/// The next texts.
#[derive(Debug)]
pub(crate) enum Batch {
    Texts(Box<Dataset>),
    /// There are none yet.
    Later,
    /// There are no more.
    End,
}

impl Input {
    fn new(source: Source) -> Self {
        let cancel = match &source {
            Source::Lines(lines) => lines.cancel.clone(),
            Source::Whole(_) => Cancel::default(),
        };
        Self { source, empty: EmptyTexts::new(""), cancel }
    }

    /// A handle that ends the texts.
    pub(crate) fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Number of texts, if it is known.
    pub(crate) fn n(&self) -> Option<usize> {
        match &self.source {
            Source::Whole(data) => Some(data.as_ref().map_or(0, Dataset::n)),
            Source::Lines(_) => None,
        }
    }

    /// The next texts; if `waits`, not before there are some.
    pub(crate) fn next(&mut self, prompt: &LoadedPrompt, waits: bool) -> Result<Batch> {
        if self.cancel.is_cancelled() {
            return Ok(Batch::End);
        }
        let batch = match &mut self.source {
            Source::Whole(data) => data.take().map_or(Batch::End, |data| Batch::Texts(Box::new(data))),
            Source::Lines(lines) => lines.next(waits)?,
        };
        if let Batch::Texts(data) = &batch {
            self.empty.add(data, &prompt.task)?;
        }
        Ok(batch)
    }

    /// All texts that are left.
    pub(crate) fn all(&mut self, prompt: &LoadedPrompt) -> Result<Option<Dataset>> {
        let data = match &mut self.source {
            Source::Whole(data) => data.take(),
            Source::Lines(lines) => lines.all()?,
        };
        if let Some(data) = &data {
            self.empty.add(data, &prompt.task)?;
        }
        Ok(data)
    }

    /// Warns of texts that were empty.
    pub(crate) fn tell_empty(&self, printer: &Printer) {
        self.empty.tell(printer);
    }
}

/// The lines of standard input.
#[derive(Debug)]
struct Lines {
    lines: Receiver<io::Result<String>>,
    format: TextFormat,
    /// The first line, which decides the format.
    first: Option<String>,
    /// Why a line can't be used; reported after the lines before it are answered.
    failed: Option<Error>,
    /// Number of lines so far.
    n: usize,
    /// Maximum number of lines.
    limit: usize,
    /// Ends them.
    cancel: Cancel,
}

impl Lines {
    /// Waits for the first line. `to`: what is done with texts, for messages.
    fn open(
        prompt: &mut LoadedPrompt,
        (to, limit): (&str, Option<usize>),
        observer: &dyn Observer,
    ) -> Result<Self> {
        let (sender, lines) = std::sync::mpsc::sync_channel(MOST_LINES);
        // A thread of its own can wait for a line while the model computes.
        std::thread::spawn(move || {
            let mut lines = io::stdin().lock().lines();
            while let Some(line) = lines.next()
                && sender.send(line).is_ok()
            {}
        });
        let first = lines.recv().map_err(|_| {
            UserError::new(format!("standard input has no lines, so there is no text to {to}"))
        })?;
        // A byte order mark is not part of the first text.
        let first = [line(first, 1)?.trim_start_matches('\u{feff}').to_owned()];
        let format = TextFormat::of(prompt, &first, observer)?;
        let (first, limit) = (first.into_iter().next(), limit.unwrap_or(usize::MAX));
        Ok(Self { lines, format, first, failed: None, n: 0, limit, cancel: Cancel::default() })
    }

    fn next(&mut self, waits: bool) -> Result<Batch> {
        let mut texts: Vec<String> = self.first.take().into_iter().collect();
        let most = (self.limit - self.n).min(MOST_LINES);
        while texts.len() < most && self.failed.is_none() {
            let next = if texts.is_empty() && waits { self.wait() } else { self.lines.try_recv() };
            match next {
                Ok(next) => match self.checked(next, texts.len()) {
                    Ok(text) if self.format.is_blank(&text) => self.n += 1,
                    Ok(text) => texts.push(text),
                    Err(error) => self.failed = Some(error),
                },
                Err(TryRecvError::Empty) if texts.is_empty() => return Ok(Batch::Later),
                Err(_) => break,
            }
        }
        match self.failed.take_if(|_| texts.is_empty()) {
            Some(error) => Err(error),
            None => self.batch(texts),
        }
    }

    /// The next line, when it comes; none after the texts were ended.
    fn wait(&self) -> Result<io::Result<String>, TryRecvError> {
        while !self.cancel.is_cancelled() {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Err(TryRecvError::Disconnected)
    }

    /// The text of a line, if it has the format of the first one. `before`: lines of the batch before it.
    fn checked(&self, next: io::Result<String>, before: usize) -> Result<String> {
        let number = self.n + before + 1;
        let text = line(next, number)?;
        if self.format.is_blank(&text) {
            return Ok(text);
        }
        self.format.check(&text).map_err(|error| error.context(format!("standard input, line {number}")))?;
        Ok(text)
    }

    fn batch(&mut self, texts: Vec<String>) -> Result<Batch> {
        if texts.is_empty() {
            return Ok(Batch::End);
        }
        let before = self.n as u64;
        self.n += texts.len();
        Ok(Batch::Texts(Box::new(self.format.dataset(texts, before)?)))
    }

    fn all(&mut self) -> Result<Option<Dataset>> {
        let mut texts: Vec<String> = self.first.take().into_iter().collect();
        while self.n + texts.len() < self.limit
            && let Ok(next) = self.wait()
        {
            let text = self.checked(next, texts.len())?;
            if self.format.is_blank(&text) {
                self.n += 1;
            } else {
                texts.push(text);
            }
        }
        match self.batch(texts)? {
            Batch::Texts(data) => Ok(Some(*data)),
            Batch::Later | Batch::End => Ok(None),
        }
    }
}

/// A line of standard input with this number.
fn line(line: io::Result<String>, number: usize) -> Result<String> {
    Ok(line.map_err(|error| {
        UserError::new(format!("standard input, line {number}: {error}"))
            .hint("texts are read as UTF-8, one a line")
    })?)
}

/// Refuses a text that is the name of an existing file.
pub(crate) fn refuse_files(texts: &[String]) -> Result<()> {
    /// Longer texts are not file names on any system.
    const LONGEST_NAME: usize = 4096;
    let kinds = |text: &str| {
        let lower = text.to_lowercase();
        let is_data = is_data_name(Path::new(text));
        (is_data, is_data || lower.trim_end_matches(".gz").trim_end_matches(".zst").ends_with(".txt"))
    };
    for text in texts.iter().filter(|text| text.len() <= LONGEST_NAME && !text.contains('\n')) {
        let (is_data, is_named) = kinds(text);
        let as_text =
            format!("to take the name itself as a text: --field {}", quoted(&format!("{TEXT}={text}")));
        if !text.is_empty() && Path::new(text).is_dir() {
            return Err(UserError::new(format!("{text:?} is a directory, and a text is expected"))
                .hint(format!(
                    "to read it: {}; {as_text}",
                    this_command_with(text, &format!("--data {}", quoted(text)))
                ))
                .into());
        }
        if Path::new(text).is_file() {
            let how = if is_data {
                format!("to read it: {}", this_command_with(text, &format!("--data {}", quoted(text))))
            } else {
                format!(
                    "to read it, a text a line: {}",
                    this_command_with(text, &format!("- < {}", quoted(text)))
                )
            };
            return Err(UserError::new(format!("{text:?} is a file, and a text is wanted"))
                .hint(format!("{how}; {as_text}"))
                .into());
        }
        if is_named && !text.contains(char::is_whitespace) {
            return Err(UserError::new(format!(
                "{text:?} looks like a file, and there is none of that name"
            ))
            .hint(format!("give the file that is there, with --data ({ENDINGS}); {as_text}"))
            .into());
        }
    }
    Ok(())
}
