//! The texts of `classify` and `generate`: of the command line, of standard input, or of a file with fields.

use std::io::BufRead as _;

use anyhow::Result;
use foreword::Dataset;
use foreword::data::FieldIdx;
use foreword::data::fields::slot_fields;

use super::data;
use super::prompt::{Asked, Ready};
use crate::args::TextArgs;
use crate::exit::Given;
use crate::printer::Printer;

/// What was given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Texts<'a> {
    pub(crate) given: &'a TextArgs,
    /// What is to be done with them, for messages.
    pub(crate) to: &'static str,
}

impl Texts<'_> {
    /// The prompt, and the texts as data.
    pub(crate) fn resolve(self, asked: Asked<'_>, printer: &Printer) -> Result<(Ready, Dataset)> {
        let limit = self.given.limit;
        let Some(path) = &self.given.data else {
            let mut ready = asked.resolve(None, printer)?;
            refuse_several_fields(&ready)?;
            // Texts have no fields; the template's only slot takes them.
            ready.task.text_field = None;
            let data = Dataset::from_texts(self.texts()?)?;
            return Ok((ready, data::first(data, limit, printer)));
        };
        let data = data::read(path)?;
        Ok((asked.resolve(None, printer)?, data::first(data, limit, printer)))
    }

    /// The texts of the command line, or of standard input.
    fn texts(self) -> Result<Vec<String>> {
        match self.given.texts.as_slice() {
            [] => Err(Given::wrong(format!("there is no text to {}", self.to))
                .hint("give texts, --data FILE, or - to read texts from standard input, one a line")
                .into()),
            [dash] if dash == "-" => {
                let mut texts = Vec::new();
                for (line, text) in std::io::stdin().lock().lines().enumerate() {
                    let text = text.map_err(|error| {
                        Given::wrong(format!("standard input, line {}: {error}", line + 1))
                            .hint("texts are read as UTF-8, one a line")
                    })?;
                    // A byte order mark is no part of the first text.
                    texts.push(if line == 0 { text.trim_start_matches('\u{feff}').to_owned() } else { text });
                }
                if texts.is_empty() {
                    let to = self.to;
                    return Err(Given::wrong(format!(
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

/// A template with several slots can't be filled with one text.
fn refuse_several_fields(ready: &Ready) -> Result<()> {
    let slots: Vec<&str> = ready.task.template.slots().collect();
    if slots.len() > 1 {
        let message =
            format!("the template has several fields ({}), and a text is only one", slots.join(", "));
        return Err(Given::wrong(message).hint("give them with --data FILE").into());
    }
    Ok(())
}

/// The field that stands for the example in the answer: that of `{text}`, or of the template's first slot.
pub(crate) fn shown_field(ready: &Ready, data: &Dataset, printer: &Printer) -> Result<FieldIdx> {
    let task = &ready.task;
    let slots = slot_fields(&task.template, data, task.text_field.as_deref())?;
    if let Some(name) = &slots.guessed {
        printer.say(&format!("fields    text {name:?} (guessed; --text-field says otherwise)"));
    }
    let text = task.template.slots().position(|slot| slot == "text").unwrap_or(0);
    Ok(slots.fields[text])
}
