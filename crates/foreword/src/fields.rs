//! Finds the text field and the label or target field of a data set.

use std::collections::HashSet;

use crate::data::fields::{self, Incomplete, incomplete, slot_fields, unused, without_words};
use crate::error::{Result, UserError};
use crate::notice::Observer;
use crate::settings::TaskKind;
use crate::{Dataset, TaskFile, Template};

/// The slot of the text field, whatever the field's name.
const TEXT_SLOT: &str = "text";

/// The text field and the label or target field of a data set.
#[derive(Clone, Debug)]
pub struct Fields {
    /// The field for `{text}`; `None` if the template has no such slot.
    pub text: Option<String>,
    /// The kind of the other field: label or target.
    pub kind: TaskKind,
    /// The field with the label or target.
    pub truth: String,
    /// Whether the text field was guessed.
    pub text_guessed: bool,
    /// Whether the other field was guessed.
    pub truth_guessed: bool,
    /// Whether the fields of the template were guessed.
    pub template_guessed: bool,
}

impl Fields {
    /// Finds the fields in the data, using those that are set.
    pub fn find(
        dataset: &Dataset,
        template: &Template,
        text: Option<&str>,
        (kind, truth): (TaskKind, Option<&str>),
    ) -> Result<Self> {
        let mut taken: Vec<&str> = template.slots().filter(|slot| *slot != TEXT_SLOT).collect();
        let has_text = template.slots().any(|slot| slot == TEXT_SLOT);
        let text = if has_text {
            let beside: Vec<&str> = taken.iter().copied().chain(truth).collect();
            Some(fields::text_field(dataset, text, &beside)?)
        } else {
            None
        };
        taken.extend(text.as_ref().map(|field| field.name.as_str()));
        let truth = match kind {
            TaskKind::Classification => fields::label_field(dataset, truth, &taken)?,
            TaskKind::Generation => fields::target_field(dataset, truth, &taken)?,
        };
        let text_guessed = text.as_ref().is_some_and(|field| field.guessed);
        Ok(Self {
            text: text.map(|field| field.name),
            kind,
            truth: truth.name,
            text_guessed,
            truth_guessed: truth.guessed,
            template_guessed: false,
        })
    }

    /// Whether one of them was guessed.
    #[must_use]
    pub fn guessed(&self) -> bool {
        self.text_guessed || self.truth_guessed
    }

    /// Describes the fields in a sentence.
    pub fn describe(&self, template: &Template) -> String {
        let texts = match &self.text {
            Some(name) => format!("text {name:?}"),
            None => {
                let names: Vec<String> = template.slots().map(|slot| format!("{slot:?}")).collect();
                format!("text {}", names.join(" and "))
            }
        };
        let (truth, flag) = match self.kind {
            TaskKind::Classification => ("label", "--label-field"),
            TaskKind::Generation => ("target", "--target-field"),
        };
        let of_texts = match (self.template_guessed, self.text_guessed) {
            (true, _) => Some("--template"),
            (false, true) => Some("--text-field"),
            (false, false) => None,
        };
        let guessed = |flags: &str| format!(" (guessed; override with {flags})");
        match (of_texts, self.truth_guessed) {
            (Some(of_texts), true) => {
                format!("{texts}, {truth} {:?}{}", self.truth, guessed(&format!("{of_texts} and {flag}")))
            }
            (Some(of_texts), false) => format!("{texts}{}, {truth} {:?}", guessed(of_texts), self.truth),
            (None, true) => format!("{texts}, {truth} {:?}{}", self.truth, guessed(flag)),
            (None, false) => format!("{texts}, {truth} {:?}", self.truth),
        }
    }
}

/// Leaves out the examples that lack a value in the template's fields or in the one with the label or target, if the
/// settings say so, and reports them.
pub fn complete(
    dataset: Dataset,
    template: &Template,
    fields: &Fields,
    settings: &TaskFile,
    observer: &dyn Observer,
) -> Result<Dataset> {
    if settings.data.skip_bad != Some(true) {
        return Ok(dataset);
    }
    let slots = slot_fields(template, &dataset, fields.text.as_deref())?;
    let found = incomplete(&dataset, &slots, Some(dataset.require(&fields.truth)?));
    without(dataset, &found, observer)
}

/// Leaves out the texts that lack a value in the template's fields, or are empty, and reports them.
///
/// # Errors
/// If a field is missing altogether, or no text is left.
pub fn complete_texts(
    dataset: Dataset,
    template: &Template,
    text_field: Option<&str>,
    observer: &dyn Observer,
) -> Result<Dataset> {
    let slots = slot_fields(template, &dataset, text_field)?;
    let found = incomplete(&dataset, &slots, None);
    without(dataset, &found, observer)
}

/// The data without these examples, which are reported.
fn without(dataset: Dataset, found: &[Incomplete], observer: &dyn Observer) -> Result<Dataset> {
    /// Maximum number of examples that are named.
    const MOST_NAMED: usize = 5;
    if found.is_empty() {
        return Ok(dataset);
    }
    let mut named: Vec<String> = found.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    if let Some(more @ 1..) = found.len().checked_sub(MOST_NAMED) {
        named.push(format!("and {more} more"));
    }
    let path = dataset.path().map(|path| format!("{}: ", path.display())).unwrap_or_default();
    let (n, named) = (dataset.n(), named.join(", "));
    if found.len() == n {
        return Err(UserError::new(format!("{path}all {n} examples lack a value: {named}"))
            .hint("name the fields with --text-field, and --label-field or --target-field")
            .into());
    }
    observer.warn(&format!("{path}{} of {n} examples lack a value and were left out: {named}", found.len()));
    let lacking: HashSet<usize> = found.iter().map(|example| example.row).collect();
    Ok(dataset.take(&(0..n).filter(|row| !lacking.contains(row)).collect::<Vec<_>>()))
}

/// Reports fields with text that are not used. `beside`: fields with another use.
pub fn tell_unused(
    dataset: &Dataset,
    template: &Template,
    text_field: Option<&str>,
    beside: (Option<&str>, Option<&str>),
    observer: &dyn Observer,
) -> Result<()> {
    let slots = slot_fields(template, dataset, text_field)?;
    let mut used: Vec<&str> = slots.fields.iter().map(|&field| dataset.field_name(field)).collect();
    used.extend([beside.0, beside.1].into_iter().flatten());
    let unused = unused(dataset, &used);
    if let Some(first) = unused.first() {
        let names: Vec<String> = unused.iter().map(|name| format!("{name:?}")).collect();
        let (fields, are) = if unused.len() == 1 { ("field", "is") } else { ("fields", "are") };
        observer.say(&format!(
            "the {fields} {} {are} not used (--template takes several, as in '{{{first}}}\\n{}')",
            names.join(", "),
            template.source().replace('\n', "\\n")
        ));
    }
    for name in without_words(dataset, &slots) {
        observer.say(&format!("the field {name:?} has no words, only numbers or true and false"));
    }
    Ok(())
}
