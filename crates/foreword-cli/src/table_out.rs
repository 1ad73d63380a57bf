//! `--out FILE` of `classify` and `generate`: a table with the fields of the texts and the answers beside them.

use std::path::Path;
use std::time::{Duration, Instant};

use foreword::data::Cell;
use foreword::display::count;
use foreword::prompt::predictions::{PredictionWriter, own_fields};
use foreword::{Cancel, Dataset, Error, Result};

use crate::interrupt;
use crate::printer::Printer;

/// Time after which rows are handed to the system.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// The table, which has its fields from the first texts.
#[derive(Debug)]
pub(crate) struct TableOut<'a> {
    out: &'a Path,
    file: Option<PredictionWriter>,
    n: u64,
    flushed: Instant,
    printer: &'a Printer,
}

impl<'a> TableOut<'a> {
    /// Checks, before any work, that the table can be written. `data`: the file that is read. `None` without `out`.
    pub(crate) fn check(
        out: Option<&'a Path>,
        force: bool,
        data: Option<&Path>,
        printer: &'a Printer,
    ) -> Result<Option<Self>> {
        let Some(out) = out else { return Ok(None) };
        PredictionWriter::check(out, force, data)?;
        Ok(Some(Self { out, file: None, n: 0, flushed: Instant::now(), printer }))
    }

    /// Makes Ctrl-C cancel the texts from now on, so that what was computed is kept.
    pub(crate) fn watch(cancel: Cancel) -> Result<()> {
        let watched = interrupt::watch(cancel, "stopping; what was computed is kept");
        watched.map_err(|error| Error::other(error).context("cannot listen for Ctrl-C"))
    }

    /// Creates the file with the fields of the first texts and these columns.
    pub(crate) fn open(&mut self, data: &Dataset, columns: impl FnOnce() -> Vec<String>) -> Result<()> {
        if self.file.is_none() {
            self.file = Some(PredictionWriter::create(self.out, own_fields(data), &columns(), self.printer)?);
        }
        Ok(())
    }

    /// Writes a row: the values of the fields, and of the columns.
    pub(crate) fn write(&mut self, values: Vec<Cell>, columns: Vec<Cell>) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write(values, columns)?;
        self.n += 1;
        if self.flushed.elapsed() >= FLUSH_AFTER {
            file.flush()?;
            self.flushed = Instant::now();
        }
        Ok(())
    }

    /// Completes the file, and says how many texts are in it, `with` what. `n`: number of all texts, if it is known.
    pub(crate) fn finish(self, n: Option<usize>, is_complete: bool, with: &str) -> Result<()> {
        let (Some(file), printer) = (self.file, self.printer) else { return Ok(()) };
        let path = file.finish(is_complete, printer)?;
        let path = path.display();
        if is_complete {
            let what =
                if self.n == 1 { "1 text is".to_owned() } else { format!("{} texts are", count(self.n)) };
            printer.say(&format!("{what} in {path}, with {with}"));
        } else {
            let of = n.map_or_else(String::new, |n| format!(" of {}", count(n as u64)));
            printer.warn(&format!("it ended early: {} texts{of} are in {path}, with {with}", count(self.n)));
        }
        Ok(())
    }
}
