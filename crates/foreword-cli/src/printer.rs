//! The one owner of stdout and stderr: results go to stdout, messages to stderr, progress bars and colours only to a
//! terminal.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod transfer;

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use foreword::display::in_a_line;
use foreword::error::WriteError;
use foreword::{Level, Notice, Observer, Progress};

use crate::args::OutputArgs;
use transfer::Transfer;

/// The format of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// How much is printed besides the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conversation {
    /// Warnings and errors.
    Quiet,
    /// Lines.
    Lines,
    /// Lines and progress bars.
    Bars,
}

/// The kind of a message, shown as its first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Error,
    Warning,
    Hint,
}

impl Kind {
    /// The word, coloured if colours are on.
    fn word(self, colours: bool) -> String {
        let (word, style) = match self {
            Self::Error => ("error:", AnsiColor::Red.on_default().bold()),
            Self::Warning => ("warning:", AnsiColor::Yellow.on_default().bold()),
            Self::Hint => ("hint:", AnsiColor::Cyan.on_default()),
        };
        let style = if colours { style } else { Style::new() };
        format!("{style}{word}{style:#}")
    }
}

/// Whether stderr gets colours: a terminal with colour support, unless NO_COLOR disables them. clap follows it too.
fn colours() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

/// Writes to both streams.
#[derive(Debug)]
pub(crate) struct Printer {
    answers: Answers,
    conversation: Conversation,
    /// Whether to print details.
    verbose: bool,
    colours: bool,
    bar: RefCell<Option<ProgressBar>>,
    transfer: RefCell<Option<Transfer>>,
    /// Whether the reader of stdout is gone.
    closed: Cell<bool>,
}

impl Printer {
    /// A printer for this process's streams.
    pub(crate) fn new(args: &OutputArgs) -> Self {
        let answers = if args.json { Answers::Json } else { Answers::Text };
        // A bar that can't be drawn, as on a dumb terminal, must not suppress messages.
        let conversation = match (args.quiet, ProgressDrawTarget::stderr().is_hidden()) {
            (true, _) => Conversation::Quiet,
            (false, false) => Conversation::Bars,
            (false, true) => Conversation::Lines,
        };
        Self {
            answers,
            conversation,
            verbose: args.verbose,
            colours: colours(),
            bar: RefCell::new(None),
            transfer: RefCell::new(None),
            closed: Cell::new(false),
        }
    }

    /// The format of results.
    pub(crate) fn answers(&self) -> Answers {
        self.answers
    }

    /// Prints a part of the result for people; nothing with `--json`.
    pub(crate) fn answer(&self, text: &str) -> Result<(), WriteError> {
        if self.answers == Answers::Json { Ok(()) } else { self.write_answer(text) }
    }

    /// Whether a result may be printed as it grows: stdout is a terminal.
    pub(crate) fn streams(&self) -> bool {
        self.answers == Answers::Text && io::stdout().is_terminal()
    }

    /// Whether the reader of the results is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Prints a piece of a growing result, without a line end. Control characters are escaped.
    pub(crate) fn piece(&self, text: &str) -> Result<(), WriteError> {
        let write = |c: char| {
            if c.is_control() && !matches!(c, '\n' | '\t') {
                c.escape_default().collect()
            } else {
                c.to_string()
            }
        };
        self.write(&text.chars().map(write).collect::<String>())
    }

    /// Prints a part of the result for programs; nothing without `--json`.
    pub(crate) fn json(&self, line: &impl Serialize) -> Result<(), WriteError> {
        if self.answers == Answers::Text {
            return Ok(());
        }
        let line = to_json(line).map_err(|source| WriteError { what: "the answer".to_owned(), source })?;
        self.write_answer(&line)
    }

    /// Prints a message.
    pub(crate) fn say(&self, text: &str) {
        if self.conversation != Conversation::Quiet {
            self.write_line(text);
        }
    }

    /// Prints a message unless there is a progress bar.
    pub(crate) fn say_without_bar(&self, text: &str) {
        if self.conversation == Conversation::Lines {
            self.write_line(text);
        }
    }

    /// Prints a warning.
    pub(crate) fn warn(&self, text: &str) {
        self.write_line(&format!("{} {text}", Kind::Warning.word(self.colours)));
    }

    /// Prints why the program fails, and a hint.
    pub(crate) fn error(&self, message: &str, hint: Option<&str>) {
        self.end_bar();
        self.write_line(&format!("{} {message}", Kind::Error.word(self.colours)));
        if let Some(hint) = hint {
            self.write_line(&format!("{} {hint}", Kind::Hint.word(self.colours)));
        }
    }

    /// Reports a device failure, from any thread.
    pub(crate) fn failure(what: &str, hint: &str) {
        let colours = colours();
        let (error, try_this) = (Kind::Error.word(colours), Kind::Hint.word(colours));
        drop(writeln!(anstream::stderr().lock(), "{error} {what}\n{try_this} {hint}"));
    }

    /// Reports a bug, from any thread.
    pub(crate) fn bug(what: &str) {
        let word = Kind::Error.word(colours());
        let line =
            format!("{word} this is a bug in foreword; please report it with the command that you gave");
        drop(writeln!(anstream::stderr().lock(), "{line}\n{what}"));
    }

    /// Acknowledges Ctrl-C, from the signal thread.
    pub(crate) fn stopping(what: &str) {
        drop(writeln!(io::stderr().lock(), "{what}; Ctrl-C again stops immediately"));
    }

    /// Begins a progress bar of `n` parts; nothing without a terminal.
    pub(crate) fn begin_bar(&self, n: u64, what: &'static str) {
        self.end_bar();
        if self.conversation != Conversation::Bars {
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(n), ProgressDrawTarget::stderr_with_hz(10));
        let template = "{prefix} {bar:24} {pos}/{len}  {msg}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(250));
        *self.bar.borrow_mut() = Some(bar);
    }

    /// Moves the bar.
    pub(crate) fn move_bar(&self, position: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &*self.bar.borrow() {
            bar.set_position(position);
            bar.set_message(message());
        }
    }

    /// Changes the number of parts of the bar.
    pub(crate) fn set_bar_length(&self, n: u64) {
        if let Some(bar) = &*self.bar.borrow() {
            bar.set_length(n);
        }
    }

    /// Removes the bar.
    pub(crate) fn end_bar(&self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }

    fn write_answer(&self, text: &str) -> Result<(), WriteError> {
        self.write(&format!("{text}\n"))
    }

    /// A closed pipe is not an error: the reader has seen enough.
    fn write(&self, text: &str) -> Result<(), WriteError> {
        if self.closed.get() {
            return Ok(());
        }
        let write = || {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text.as_bytes())?;
            stdout.flush()
        };
        let written = match &*self.bar.borrow() {
            Some(bar) => bar.suspend(write),
            None => write(),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.closed.set(true),
            Err(source) => return Err(WriteError { what: "the answer".to_owned(), source }),
            Ok(()) => {}
        }
        Ok(())
    }

    fn write_line(&self, text: &str) {
        let write = || {
            // If stderr is closed, there is nowhere left to report it. Some terminals need their colours translated.
            if self.colours {
                drop(writeln!(AutoStream::always(io::stderr().lock()), "{text}"));
            } else {
                drop(writeln!(io::stderr().lock(), "{text}"));
            }
        };
        match &*self.bar.borrow() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Observer for Printer {
    fn notice(&self, notice: Notice) {
        match notice.level {
            Level::Warning => self.warn(&notice.text),
            Level::Info => self.say(&notice.to_string()),
            Level::Detail => self.write_line(&notice.to_string()),
        }
    }

    fn progress(&self, progress: Progress<'_>) {
        match progress {
            Progress::Begin { what, total } => self.begin_bar(total, what),
            Progress::Advance { done, message } => self.move_bar(done, || message.to_owned()),
            Progress::End => self.end_bar(),
            Progress::Fetch { total, here } => {
                *self.transfer.borrow_mut() = Some(self.begin_transfer(total, here));
            }
            Progress::Fetched { here } => {
                let line = self.transfer.borrow_mut().as_mut().and_then(|transfer| transfer.arrived(here));
                if let Some(line) = line {
                    self.say(&line);
                }
            }
            Progress::FetchEnd => *self.transfer.borrow_mut() = None,
        }
    }

    fn wants_details(&self) -> bool {
        self.verbose
    }
}

/// One line of JSON.
pub(crate) fn to_json(line: &impl Serialize) -> io::Result<String> {
    serde_json::to_string(line).map_err(io::Error::other)
}

/// Cells in aligned columns: the first column left, the others right.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new<S: AsRef<str>>(headings: impl IntoIterator<Item = S>) -> Self {
        let mut table = Self { rows: Vec::new() };
        table.row(headings);
        table
    }

    /// Adds a row; each cell is put on one line.
    pub(crate) fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(|cell| in_a_line(cell.as_ref())).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n_columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let width = |column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..n_columns).map(width).collect();
        for (i, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                if column == 0 {
                    line.push_str(&format!("{cell:<width$}"));
                } else {
                    line.push_str(&format!("  {cell:>width$}"));
                }
            }
            let end = if i + 1 < self.rows.len() { "\n" } else { "" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words_have_colours_only_where_there_are_colours() {
        let words = |colours| [Kind::Error, Kind::Warning, Kind::Hint].map(|kind| kind.word(colours));
        assert_eq!(words(false), ["error:", "warning:", "hint:"]);
        assert_eq!(
            words(true),
            [
                "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m",
                "\u{1b}[1m\u{1b}[33mwarning:\u{1b}[0m",
                "\u{1b}[36mhint:\u{1b}[0m"
            ]
        );
    }

    #[test]
    fn columns_are_aligned_by_characters() {
        let mut table = Table::new(["", "accuracy", "loss"]);
        table.row(["bare model", "50.0 %", "0.7"]);
        table.row(["été", "100.0 %", ""]);
        insta::assert_snapshot!(table, @r"
                    accuracy  loss
        bare model    50.0 %   0.7
        été          100.0 %
        ");
    }
}
