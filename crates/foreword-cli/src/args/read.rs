//! How data files are read, where they do not say so themselves.

use clap::Args;
use foreword::TaskFile;
use foreword::data::{Delimiter, ReadOptions, TextEncoding};

use crate::command_line::quoted;

/// How data is read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct ReadArgs {
    /// The encoding of text files, such as utf-8, utf-16le, latin-1 or windows-1251 [default: UTF-8, or another one that is
    /// evident]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) encoding: Option<TextEncoding>,
    /// The character between the cells of .csv and .tsv files, such as ';', '|' or tab [default: that of the file's ending,
    /// or another one that is evident]
    #[arg(long, value_name = "CHARACTER", hide_short_help = true)]
    pub(crate) delimiter: Option<Delimiter>,
    /// The first line of .csv and .tsv files is an example, and the fields are named by number: 1, 2, …; with =false, it
    /// has the names [default: what is evident]
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    pub(crate) no_header: Option<bool>,
    /// Leave out rows that can't be read, and report how many, where, and why
    #[arg(long, hide_short_help = true)]
    pub(crate) skip_bad: bool,
}

impl ReadArgs {
    /// The settings of a reader.
    pub(crate) fn options(&self) -> ReadOptions {
        let &Self { encoding, delimiter, no_header, skip_bad } = self;
        ReadOptions { encoding, delimiter, no_header, skip_bad }
    }

    /// Puts what was given into the settings.
    pub(crate) fn state(&self, file: &mut TaskFile) {
        (file.data.encoding, file.data.delimiter) = (self.encoding, self.delimiter);
        (file.data.no_header, file.data.skip_bad) = (self.no_header, self.skip_bad.then_some(true));
    }

    /// The given flags, quoted for the command line, each after a space.
    pub(crate) fn written(&self) -> String {
        let encoding = self.encoding.map(|encoding| format!(" --encoding {encoding}"));
        let delimiter = self.delimiter.map(|mark| format!(" --delimiter {}", quoted(&mark.to_string())));
        let no_header = self.no_header.map(|is_bare| format!(" --no-header={is_bare}"));
        let skip_bad = self.skip_bad.then(|| " --skip-bad".to_owned());
        [encoding, delimiter, no_header, skip_bad].into_iter().flatten().collect()
    }
}
