//! The texts of `classify`, `generate` and `explain`: from the command line, from standard input, or from a file with
//! fields.

use std::io::BufRead as _;
use std::path::Path;

use foreword::data::{ENDINGS, is_data_name};
use foreword::fields::tell_unused;
use foreword::plan::{checks, data};
use foreword::prompt::texts::dataset;
use foreword::{Dataset, LoadedPrompt, Observer, OpenRequest, Result, UserError};

use crate::args::TextArgs;
use crate::command_line::{quoted, this_command_with};
use crate::printer::Printer;

/// The slot of the text field, whatever the field's name.
const TEXT: &str = "text";

/// The input texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Texts<'a> {
    pub(crate) given: &'a TextArgs,
    /// What the verb does with them, for messages.
    pub(crate) to: &'static str,
}

impl Texts<'_> {
    /// Opens the prompt and turns the texts into data.
    pub(crate) fn resolve(
        self,
        request: OpenRequest<'_>,
        printer: &Printer,
    ) -> Result<(LoadedPrompt, Dataset)> {
        let (limit, observer): (_, &dyn Observer) = (self.given.limit, printer);
        let Some(path) = &self.given.data else {
            refuse_files(&self.given.texts)?;
            let mut prompt = request.open(None, observer)?;
            let fields = self.given.field.pairs();
            let texts = if fields.is_empty() { self.texts()? } else { Vec::new() };
            let data = data::first(dataset(texts, &fields, &mut prompt, observer)?, limit, observer);
            checks::tell_empty("", &data, &prompt.task, observer)?;
            return Ok((prompt, data));
        };
        let data = data::read(path, &self.given.read.options(), observer)?;
        let prompt = OpenRequest { about: Some(&data), ..request }.open(None, observer)?;
        let (task, truth) = (&prompt.task, prompt.truth_field.as_deref());
        tell_unused(&data, &task.template, task.text_field.as_deref(), (truth, None), observer)?;
        let data = data::first(data, limit, observer);
        checks::tell_empty("", &data, task, observer)?;
        Ok((prompt, data))
    }

    /// The texts from the command line or from standard input.
    fn texts(self) -> Result<Vec<String>> {
        match self.given.texts.as_slice() {
            [] => Err(UserError::new(format!("there is no text to {}", self.to))
                .hint("give texts, --data FILE, or - to read texts from standard input, one a line")
                .into()),
            [dash] if dash == "-" => {
                let mut texts = Vec::new();
                for (line, text) in std::io::stdin().lock().lines().enumerate() {
                    let text = text.map_err(|error| {
                        UserError::new(format!("standard input, line {}: {error}", line + 1))
                            .hint("texts are read as UTF-8, one a line")
                    })?;
                    // A byte order mark is not part of the first text.
                    texts.push(if line == 0 { text.trim_start_matches('\u{feff}').to_owned() } else { text });
                }
                if texts.is_empty() {
                    let to = self.to;
                    return Err(UserError::new(format!(
                        "standard input has no lines, so there is no text to {to}"
                    ))
                    .into());
                }
                Ok(texts)
            }
            texts => Ok(texts.to_vec()),
        }
    }
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
