//! The texts of `classify`, `generate` and `explain`: of the command line, of standard input, or of a file with fields.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::path::Path;

use anyhow::Result;
use foreword::Dataset;
use foreword::data::fields::{SlotFields, slot_fields};
use foreword::data::{ENDINGS, is_data_name};

use super::prompt::{Asked, Ready};
use super::{data, doubts, tell_unused};
use crate::args::{FieldText, TextArgs};
use crate::exit::Given;
use crate::printer::Printer;
use crate::words::{quoted, this_command_with};

/// The slot that the text field fills, whatever that is called.
const TEXT: &str = "text";

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
            refuse_files(&self.given.texts)?;
            let mut ready = asked.resolve(None, printer)?;
            let field = &self.given.field.field;
            let texts = if field.is_empty() { self.texts()? } else { Vec::new() };
            let data = data::first(dataset(texts, field, &mut ready, printer)?, limit, printer);
            doubts::tell_empty("", &data, &ready.task, printer)?;
            return Ok((ready, data));
        };
        let data = data::read(path)?;
        let ready = Asked { about: Some(&data), ..asked }.resolve(None, printer)?;
        let (task, truth) = (&ready.task, ready.truth_field.as_deref());
        tell_unused(&data, &task.template, task.text_field.as_deref(), (truth, None), printer)?;
        let data = data::first(data, limit, printer);
        doubts::tell_empty("", &data, task, printer)?;
        Ok((ready, data))
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

/// A text that is the name of a file is hardly meant as a text.
pub(crate) fn refuse_files(texts: &[String]) -> Result<()> {
    /// Names are not longer anywhere.
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
            return Err(Given::wrong(format!("{text:?} is a file, and a text is wanted"))
                .hint(format!("{how}; {as_text}"))
                .into());
        }
        if is_named && !text.contains(char::is_whitespace) {
            return Err(Given::wrong(format!("{text:?} looks like a file, and there is none of that name"))
                .hint(format!("give the file that is there, with --data ({ENDINGS}); {as_text}"))
                .into());
        }
    }
    Ok(())
}

/// Texts as data: as they stand where the template has one field to fill, or else JSON objects with its fields; or the one
/// text that is given field by field.
pub(crate) fn dataset(
    texts: Vec<String>,
    field: &[FieldText],
    ready: &mut Ready,
    printer: &Printer,
) -> Result<Dataset> {
    let template = ready.task.template.clone();
    // What `{text}` stands for may be named by either.
    let (slots, text_field) = (template.slots().collect::<Vec<_>>(), ready.task.text_field.take());
    let slot_of = |name: &str| {
        let slot = slots.iter().find(|slot| **slot == name).copied();
        slot.or_else(|| {
            slots.iter().find(|slot| **slot == TEXT && text_field.as_deref() == Some(name)).copied()
        })
    };
    let required: Vec<&str> = template.required().collect();
    if !field.is_empty() {
        let mut values: BTreeMap<&str, String> = BTreeMap::new();
        for FieldText { name, value } in field {
            let alone = (name == TEXT && required.len() == 1).then(|| required[0]);
            let Some(slot) = slot_of(name).or(alone) else {
                return Err(Given::wrong(format!("--field {name}: the template has no such field"))
                    .hint(format!("its fields are {}", slots.join(", ")))
                    .into());
            };
            if values.insert(slot, value.clone()).is_some() {
                return Err(Given::wrong(format!("--field {name} is given twice")).into());
            }
        }
        if let Some(missing) = required.iter().find(|slot| !values.contains_key(**slot)) {
            return Err(Given::wrong(format!("the template's field {missing:?} is missing"))
                .hint(format!("add --field {missing}=…"))
                .into());
        }
        let (names, values) = values.into_iter().map(|(name, value)| (name.to_owned(), value)).unzip();
        return Ok(Dataset::from_rows(names, vec![values])?);
    }
    let has_fields = |text: &String| {
        object(text).is_some_and(|object| {
            required.iter().all(|slot| object.keys().any(|key| slot_of(key) == Some(slot)))
        })
    };
    let are_objects = texts.iter().all(has_fields);
    if required.len() > 1 && !are_objects {
        let text = texts.iter().find(|text| !has_fields(text)).map_or("", String::as_str);
        let text: String = text.chars().take(60).collect();
        let fields: Vec<String> = required.iter().map(|slot| format!("\"{slot}\": \"…\"")).collect();
        let flags: Vec<String> = required.iter().map(|slot| format!("--field {slot}=…")).collect();
        return Err(Given::wrong(format!(
            "the template has several fields ({}), and the text {text:?} is no JSON object with them",
            slots.join(", ")
        ))
        .hint(format!("write '{{{}}}', or {}, or give --data FILE", fields.join(", "), flags.join(" ")))
        .into());
    }
    if !are_objects {
        if !texts.is_empty() && texts.iter().all(|text| object(text).is_some()) {
            printer.warn(&format!(
                "the texts are JSON objects without the field {:?}, and are taken as they stand; --data - reads their fields",
                text_field.as_deref().unwrap_or(required[0])
            ));
        }
        return Ok(Dataset::from_texts(texts)?);
    }
    let n = texts.len();
    let data = Dataset::from_stream(format!("[{}]", texts.join(",\n")).as_bytes(), "the given texts")?;
    if data.n() != n {
        return Err(Given::wrong("a text is more than one JSON object").into());
    }
    if required.len() == 1 {
        let fields: Vec<String> = ready.task.template.slots().map(|slot| format!("{slot:?}")).collect();
        printer.say(&format!("the texts are JSON objects, of which is read: {}", fields.join(", ")));
    }
    // The name that the prompt knows the text by, where the objects have it.
    ready.task.text_field = text_field.filter(|name| data.field(name).is_some());
    Ok(data)
}

/// A text that is a JSON object.
fn object(text: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    text.trim_start().starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
}

/// What stands for an example in an answer.
#[derive(Debug)]
pub(crate) struct Shown {
    slots: SlotFields,
    names: Vec<String>,
    /// The slot `{text}`, or the first.
    text: usize,
}

impl Shown {
    /// The fields of the template, in the data.
    pub(crate) fn of(ready: &Ready, data: &Dataset, printer: &Printer) -> Result<Self> {
        let task = &ready.task;
        let slots = slot_fields(&task.template, data, task.text_field.as_deref())?;
        if let Some(name) = &slots.guessed {
            printer.say(&format!("fields    text {name:?} (guessed; --text-field says otherwise)"));
        }
        let names: Vec<String> = task.template.slots().map(str::to_owned).collect();
        let text = names.iter().position(|slot| slot == TEXT).unwrap_or(0);
        Ok(Self { slots, names, text })
    }

    /// The field that stands for the example: that of `{text}`, or of the template's first slot.
    pub(crate) fn text<'d>(&self, data: &'d Dataset, row: usize) -> Result<&'d str> {
        Ok(self.slots.values(data, row)?.get(self.text).copied().unwrap_or(""))
    }

    /// All fields by their slots, where there are several.
    pub(crate) fn fields<'d>(
        &'d self,
        data: &'d Dataset,
        row: usize,
    ) -> Result<Option<BTreeMap<&'d str, &'d str>>> {
        if self.names.len() == 1 {
            return Ok(None);
        }
        let values = self.slots.values(data, row)?;
        Ok(Some(self.names.iter().map(String::as_str).zip(values).collect()))
    }

    /// All fields in a line; those with nothing in them are left out.
    pub(crate) fn whole(&self, data: &Dataset, row: usize) -> Result<String> {
        let values = self.slots.values(data, row)?;
        if values.len() == 1 {
            return Ok(values[0].to_owned());
        }
        Ok(values.into_iter().filter(|value| !value.trim().is_empty()).collect::<Vec<_>>().join(" | "))
    }
}
