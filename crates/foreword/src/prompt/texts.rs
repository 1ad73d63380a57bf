//! Texts as data for a prompt, and the text to show for each in the output.

use std::collections::BTreeMap;

use crate::Dataset;
use crate::data::fields::{SlotFields, slot_fields};
use crate::error::{Error, Result, UserError};

use super::LoadedPrompt;
use crate::notice::Observer;

/// The slot of the text field, whatever the field's name.
const TEXT: &str = "text";

/// Texts as data, or one text given field by field.
///
/// # Errors
/// If the fields of the template are not there.
pub fn dataset(
    texts: Vec<String>,
    fields: &[(String, String)],
    prompt: &mut LoadedPrompt,
    observer: &dyn Observer,
) -> Result<Dataset> {
    if fields.is_empty() {
        TextFormat::of(prompt, &texts, observer)?.dataset(texts, 0)
    } else {
        of_fields(prompt, fields)
    }
}

/// How texts that are not in a file become data: as plain texts, or as JSON objects with the fields of the template.
#[derive(Debug)]
pub struct TextFormat {
    slots: Vec<String>,
    required: Vec<String>,
    /// The prompt's name for the slot `{text}`: an object may have either.
    text_field: Option<String>,
    are_objects: bool,
}

impl TextFormat {
    /// Decides by the first texts of several: they are objects if each of them is a JSON object with the fields of the
    /// template. The prompt then uses the name of the text field that they have.
    ///
    /// # Errors
    /// If the template has several fields, and they are no such objects.
    pub fn of(prompt: &mut LoadedPrompt, texts: &[String], observer: &dyn Observer) -> Result<Self> {
        let template = &prompt.task.template;
        let mut format = Self {
            slots: template.slots().map(str::to_owned).collect(),
            required: template.required().map(str::to_owned).collect(),
            text_field: prompt.task.text_field.take(),
            are_objects: false,
        };
        format.are_objects = texts.iter().all(|text| format.has_fields(text));
        if let (true, Some(first)) = (format.are_objects, texts.first()) {
            let used = format.slots.iter().map(|slot| format!("{slot:?}")).collect::<Vec<_>>().join(", ");
            if format.required.len() == 1 {
                observer.say(&format!("the texts are JSON objects; fields in use: {used}"));
            }
            let has = |name: &String| object(first).is_some_and(|object| object.contains_key(name));
            prompt.task.text_field = format.text_field.clone().filter(has);
        } else if let Some(text) = texts.iter().find(|text| !format.has_fields(text)) {
            if format.required.len() > 1 {
                return Err(format.no_object(text));
            }
            if let Some(text) = texts.iter().find(|text| is_broken_object(text)) {
                let text: String = text.chars().take(60).collect();
                observer.warn(&format!(
                    "{text:?} looks like JSON, but is not valid, and is used as a plain text"
                ));
            }
            if texts.iter().all(|text| object(text).is_some()) {
                observer.warn(&format!(
                    "the texts are JSON objects without the field {:?}, and are used as plain texts; --data - reads their \
                     fields",
                    format.text_field.as_ref().unwrap_or(&format.required[0])
                ));
            }
        }
        Ok(format)
    }

    /// Texts as data. `before`: number of texts before them.
    ///
    /// # Errors
    /// If the first texts were objects, and one of these is not.
    pub fn dataset(&self, texts: Vec<String>, before: u64) -> Result<Dataset> {
        if !self.are_objects {
            return Ok(Dataset::from_texts(texts)?.after(before));
        }
        texts.iter().try_for_each(|text| self.check(text))?;
        let n = texts.len();
        let data = Dataset::from_stream(format!("[{}]", texts.join(",\n")).as_bytes(), "the given texts")?;
        if data.n() != n {
            return Err(UserError::new("a text is more than one JSON object").into());
        }
        Ok(data.after(before))
    }

    /// Whether a text is no more than an empty line between objects.
    #[must_use]
    pub fn is_blank(&self, text: &str) -> bool {
        self.are_objects && text.trim().is_empty()
    }

    /// Checks that a text has the format of the first ones.
    ///
    /// # Errors
    /// If they were objects with the fields of the template, and this is not.
    pub fn check(&self, text: &str) -> Result<()> {
        if !self.are_objects || self.has_fields(text) { Ok(()) } else { Err(self.no_object(text)) }
    }

    fn has_fields(&self, text: &str) -> bool {
        let (slots, text_field) = (&self.slots, self.text_field.as_deref());
        object(text).is_some_and(|object| {
            self.required
                .iter()
                .all(|slot| object.keys().any(|key| slot_of(key, slots, text_field) == Some(slot)))
        })
    }

    fn no_object(&self, text: &str) -> Error {
        let text: String = text.chars().take(60).collect();
        let fields: Vec<String> = self.required.iter().map(|slot| format!("\"{slot}\": \"…\"")).collect();
        let object = format!("write '{{{}}}'", fields.join(", "));
        if self.required.len() == 1 {
            return UserError::new(format!(
                "the first text is a JSON object with the template's field, and the text {text:?} is not"
            ))
            .hint(format!("{object} for every text, or for none"))
            .into();
        }
        let flags: Vec<String> = self.required.iter().map(|slot| format!("--field {slot}=…")).collect();
        UserError::new(format!(
            "the template has several fields ({}), and the text {text:?} is no JSON object with them",
            self.slots.join(", ")
        ))
        .hint(format!("{object}, or {}, or give --data FILE", flags.join(" ")))
        .into()
    }
}

/// The slot that a field is for: the slot of its name, or `{text}`, which may have the name `text_field`.
fn slot_of<'s>(name: &str, slots: &'s [String], text_field: Option<&str>) -> Option<&'s str> {
    let named = slots.iter().find(|slot| *slot == name);
    let slot = named.or_else(|| slots.iter().find(|slot| *slot == TEXT && text_field == Some(name)));
    slot.map(String::as_str)
}

/// One text as data, given field by field: names and values.
///
/// # Errors
/// If a field is missing, unknown or given twice.
fn of_fields(prompt: &mut LoadedPrompt, fields: &[(String, String)]) -> Result<Dataset> {
    let text_field = prompt.task.text_field.take();
    let template = &prompt.task.template;
    let slots: Vec<String> = template.slots().map(str::to_owned).collect();
    let required: Vec<&str> = template.required().collect();
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in fields {
        let alone = (name == TEXT && required.len() == 1).then(|| required[0]);
        let Some(slot) = slot_of(name, &slots, text_field.as_deref()).or(alone) else {
            return Err(UserError::new(format!("--field {name}: the template has no such field"))
                .hint(format!("its fields are {}", slots.join(", ")))
                .into());
        };
        if values.insert(slot, value.clone()).is_some() {
            return Err(UserError::new(format!("--field {name} is given twice")).into());
        }
    }
    if let Some(missing) = required.iter().find(|slot| !values.contains_key(**slot)) {
        return Err(UserError::new(format!("the template's field {missing:?} is missing"))
            .hint(format!("add --field {missing}=…"))
            .into());
    }
    let (names, values) = values.into_iter().map(|(name, value)| (name.to_owned(), value)).unzip();
    Ok(Dataset::from_rows(names, vec![values])?)
}

/// Parses a text that is a JSON object.
fn object(text: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    text.trim_start().starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Whether a text begins like a JSON object with a key, and is none.
fn is_broken_object(text: &str) -> bool {
    let inside = text.trim_start().strip_prefix('{').map(str::trim_start);
    inside.is_some_and(|inside| inside.starts_with('"')) && object(text).is_none()
}

/// How an example is shown in the output.
#[derive(Debug)]
pub struct ExampleText {
    slots: SlotFields,
    names: Vec<String>,
    /// The index of the slot `{text}`, or of the first slot.
    text: usize,
}

impl ExampleText {
    /// Finds the template's fields in the data.
    pub fn of(prompt: &LoadedPrompt, data: &Dataset, observer: &dyn Observer) -> Result<Self> {
        let task = &prompt.task;
        let slots = slot_fields(&task.template, data, task.text_field.as_deref())?;
        if let Some(name) = &slots.guessed {
            observer.say(&format!("fields    text {name:?} (guessed; override with --text-field)"));
        }
        let names: Vec<String> = task.template.slots().map(str::to_owned).collect();
        let text = names.iter().position(|slot| slot == TEXT).unwrap_or(0);
        Ok(Self { slots, names, text })
    }

    /// The field that represents the example: `{text}`, or the template's first slot.
    pub fn text<'d>(&self, data: &'d Dataset, row: usize) -> Result<&'d str> {
        Ok(self.slots.values(data, row)?.get(self.text).copied().unwrap_or(""))
    }

    /// All fields by slot, if there are several.
    pub fn fields<'d>(&'d self, data: &'d Dataset, row: usize) -> Result<Option<BTreeMap<&'d str, &'d str>>> {
        if self.names.len() == 1 {
            return Ok(None);
        }
        let values = self.slots.values(data, row)?;
        Ok(Some(self.names.iter().map(String::as_str).zip(values).collect()))
    }

    /// All non-empty fields on one line.
    pub fn whole(&self, data: &Dataset, row: usize) -> Result<String> {
        let values = self.slots.values(data, row)?;
        if values.len() == 1 {
            return Ok(values[0].to_owned());
        }
        Ok(values.into_iter().filter(|value| !value.trim().is_empty()).collect::<Vec<_>>().join(" | "))
    }
}
