//! The file that a reader reads: where it is, what was said about it, and what is to be said about it.

use super::super::{DataError, Location, ReadNotice, ReadOptions, Skipped, Unit};
use super::Table;
use std::path::Path;

/// Maximum number of left out rows that are named.
const MOST_NAMED: usize = 5;

/// A file that is being read.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) options: &'a ReadOptions,
    pub(super) unit: Unit,
    notices: Vec<ReadNotice>,
    skipped: Vec<Skipped>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, options: &'a ReadOptions) -> Self {
        Self { path, options, unit: Unit::Line, notices: Vec::new(), skipped: Vec::new() }
    }

    /// The location of a line.
    pub(super) fn location(&self, line: u64) -> Location {
        Location { path: Some(self.path.to_owned()), line, unit: self.unit }
    }

    /// Tells the user how the file is read.
    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.notices.push(ReadNotice { text: text.into(), is_warning: false });
    }

    /// Tells the user how the file is read, which may be wrong.
    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.notices.push(ReadNotice { text: text.into(), is_warning: true });
    }

    /// The name of the file for messages.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Leaves out the row of an error, if the user wants that.
    pub(super) fn skip(&mut self, line: u64, error: DataError) -> Result<(), DataError> {
        if !self.options.skip_bad {
            return Err(error);
        }
        let location = self.location(line);
        let reason = location.reason(&error);
        self.skipped.push(Skipped { location, reason });
        Ok(())
    }

    /// Forgets what was said since then; a reader that begins again says it again.
    pub(super) fn mark(&self) -> (usize, usize) {
        (self.notices.len(), self.skipped.len())
    }

    pub(super) fn reset(&mut self, mark: (usize, usize)) {
        self.notices.truncate(mark.0);
        self.skipped.truncate(mark.1);
    }

    /// Number of rows left out so far.
    pub(super) fn n_skipped(&self) -> usize {
        self.skipped.len()
    }

    /// The table with what is to be said about it.
    pub(super) fn finish(mut self, mut table: Table) -> Table {
        if let Some(text) = self.summary(table.rows.len()) {
            self.warn(text);
        }
        table.about.unit = if table.about.unit == Unit::Line { self.unit } else { table.about.unit };
        table.about.notices.extend(self.notices);
        table.about.skipped.extend(self.skipped);
        table
    }

    /// The rows that were left out, in a sentence.
    fn summary(&mut self, n_read: usize) -> Option<String> {
        self.skipped.sort_by_key(|skipped| skipped.location.line);
        let n = self.skipped.len();
        let named = self.skipped.iter().take(MOST_NAMED);
        let named: Vec<String> =
            named.map(|skipped| format!("{} ({})", skipped.location.within(), skipped.reason)).collect();
        let more = n.checked_sub(MOST_NAMED).filter(|more| *more > 0);
        let more = more.map_or_else(String::new, |more| format!(" and {more} more"));
        (n > 0).then(|| {
            format!("{}: {n} of {} rows were left out: {}{more}", self.name(), n_read + n, named.join(", "))
        })
    }
}
