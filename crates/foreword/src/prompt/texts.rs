//! Texts as data for a prompt, and the text to show for each in the output.

use std::collections::BTreeMap;

use crate::Dataset;
use crate::data::fields::{SlotFields, slot_fields};
use crate::error::Result;

use super::LoadedPrompt;
use crate::error::UserError;
use crate::notice::Observer;

/// The slot of the text field, whatever the field's name.
const TEXT: &str = "text";

/// Texts as data: plain texts if the template has one open field, otherwise JSON objects with its fields; or one text given
/// field by field.
pub fn dataset(
    texts: Vec<String>,
    fields: &[(String, String)],
    prompt: &mut LoadedPrompt,
    observer: &dyn Observer,
) -> Result<Dataset> {
    let template = prompt.task.template.clone();
    // The field for `{text}` may have either name.
    let (slots, text_field) = (template.slots().collect::<Vec<_>>(), prompt.task.text_field.take());
    let slot_of = |name: &str| {
        let slot = slots.iter().find(|slot| **slot == name).copied();
        slot.or_else(|| {
            slots.iter().find(|slot| **slot == TEXT && text_field.as_deref() == Some(name)).copied()
        })
    };
    let required: Vec<&str> = template.required().collect();
    if !fields.is_empty() {
        return one_by_fields(fields, (&slots, &required), slot_of);
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
        return Err(UserError::new(format!(
            "the template has several fields ({}), and the text {text:?} is no JSON object with them",
            slots.join(", ")
        ))
        .hint(format!("write '{{{}}}', or {}, or give --data FILE", fields.join(", "), flags.join(" ")))
        .into());
    }
    if !are_objects {
        if !texts.is_empty() && texts.iter().all(|text| object(text).is_some()) {
            observer.warn(&format!(
                "the texts are JSON objects without the field {:?}, and are used as plain texts; --data - reads their fields",
                text_field.as_deref().unwrap_or(required[0])
            ));
        }
        return Ok(Dataset::from_texts(texts)?);
    }
    let n = texts.len();
    let data = Dataset::from_stream(format!("[{}]", texts.join(",\n")).as_bytes(), "the given texts")?;
    if data.n() != n {
        return Err(UserError::new("a text is more than one JSON object").into());
    }
    if required.len() == 1 {
        let fields: Vec<String> = prompt.task.template.slots().map(|slot| format!("{slot:?}")).collect();
        observer.say(&format!("the texts are JSON objects; fields in use: {}", fields.join(", ")));
    }
    // The prompt's name of the text field, if the objects have it.
    prompt.task.text_field = text_field.filter(|name| data.field(name).is_some());
    Ok(data)
}

/// The one text that is given field by field.
fn one_by_fields<'t>(
    fields: &[(String, String)],
    (slots, required): (&[&'t str], &[&'t str]),
    slot_of: impl Fn(&str) -> Option<&'t str>,
) -> Result<Dataset> {
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in fields {
        let alone = (name == TEXT && required.len() == 1).then(|| required[0]);
        let Some(slot) = slot_of(name).or(alone) else {
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
