//! Checks for suspicious data, before training.

use crate::data::Location;
use crate::data::fields::slot_fields;
use crate::data::label_values::{LabelValues, candidates};
use crate::display::count;
use crate::error::Result;
use crate::fields::Fields;
use crate::lint::{Finding, Labels, MOST_SHOWN, Part, cut, empty, lint, overlap};
use crate::task::GroundTruth;
use crate::{Dataset, Examples, Task, Template};

use crate::error::UserError;
use crate::notice::Observer;

/// A split: its name, its data and its tokens, if it exists.
pub type Read<'a> = (&'static str, Option<&'a Dataset>, Option<&'a Examples>);

/// Refuses a guessed label field whose values are evidently no labels, and names the fields that look like labels.
///
/// # Errors
/// If they are not, or a field of the template is missing.
pub fn refuse_texts(train: &Dataset, template: &Template, fields: &Fields) -> Result<()> {
    /// Maximum number of fields to name.
    const MOST_NAMED: usize = 5;
    let field = &fields.truth;
    let values = LabelValues::of(train, train.require(field)?);
    let Some(doubt) = values.doubt() else { return Ok(()) };
    let slots = slot_fields(template, train, fields.text.as_deref())?;
    let mut used: Vec<&str> = slots.fields.iter().map(|&field| train.field_name(field)).collect();
    used.push(field);
    let others = candidates(train, &used);
    let named = others.iter().take(MOST_NAMED);
    let named: Vec<String> =
        named.map(|(name, n)| format!("{name:?} ({} values)", count(*n as u64))).collect();
    let others = match others.first() {
        Some((first, _)) => format!(
            "the fields that look like labels: {}; choose one, as with --label-field {first}; ",
            named.join(", ")
        ),
        None => String::new(),
    };
    Err(UserError::new(format!(
        "the field {field:?} has {} different values in {} examples, {doubt}: they are hardly labels",
        count(values.n_different as u64),
        count(values.n as u64)
    ))
    .hint(format!(
        "{others}--target-field {field} teaches to write them; --label-field {field} takes them as labels all the same"
    ))
    .into())
}

/// Warns of test texts with these labels that also occur in the training data.
pub fn tell_overlap(
    train: &Dataset,
    (test, labels): (&Dataset, &[usize]),
    task: &Task,
    observer: &dyn Observer,
) -> Result<()> {
    let text_field = task.text_field.as_deref();
    let truths = [GroundTruth::Unknown, GroundTruth::Labels(labels.to_vec())];
    let train = Part::new("training", train, &task.template, text_field, &truths[0])?;
    let test = Part::new("test", test, &task.template, text_field, &truths[1])?;
    if let Some(finding) = overlap(&train, &test) {
        observer.warn(&finding.to_string());
    }
    Ok(())
}

/// Warns of empty texts that are only evaluated or classified. `part`: "test", or empty.
pub fn tell_empty(part: &'static str, dataset: &Dataset, task: &Task, observer: &dyn Observer) -> Result<()> {
    let mut texts = EmptyTexts::new(part);
    texts.add(dataset, task)?;
    texts.tell(observer);
    Ok(())
}

/// Counts the empty texts of data that comes in batches.
#[derive(Debug)]
pub struct EmptyTexts {
    part: &'static str,
    n_texts: usize,
    n_empty: usize,
    shown: Vec<Location>,
}

impl EmptyTexts {
    /// None yet. `part`: "test", or empty for texts without labels.
    #[must_use]
    pub fn new(part: &'static str) -> Self {
        Self { part, n_texts: 0, n_empty: 0, shown: Vec::new() }
    }

    /// Counts those of a batch.
    ///
    /// # Errors
    /// If a field of the template is missing.
    pub fn add(&mut self, dataset: &Dataset, task: &Task) -> Result<()> {
        let text_field = task.text_field.as_deref();
        let part = Part::new(self.part, dataset, &task.template, text_field, &GroundTruth::Unknown)?;
        self.n_texts += dataset.n();
        if let Some(Finding::Empty { n, shown, .. }) = empty(&part) {
            self.n_empty += n;
            self.shown.extend(shown);
            self.shown.truncate(MOST_SHOWN);
        }
        Ok(())
    }

    /// Warns of them, if there are any.
    pub fn tell(&self, observer: &dyn Observer) {
        let &Self { part, n_texts: of, n_empty: n, ref shown } = self;
        if n > 0 {
            observer.warn(&Finding::Empty { part, n, of, shown: shown.clone() }.to_string());
        }
    }
}

/// Warns of suspicious data; with `strict` it is an error. `room`: maximum tokens of template, text and label.
pub fn tell(
    read: [Read<'_>; 3],
    task: &Task,
    room: usize,
    strict: bool,
    observer: &dyn Observer,
) -> Result<()> {
    let mut parts = Vec::with_capacity(read.len());
    let mut cuts = Vec::new();
    for (name, dataset, examples) in read {
        let (Some(dataset), Some(examples)) = (dataset, examples) else { continue };
        let text_field = task.text_field.as_deref();
        parts.push(Part::new(name, dataset, &task.template, text_field, &examples.truths)?);
        cuts.extend(cut(name, examples.n_cut, examples.n(), room));
    }
    let mut findings = match parts.split_first() {
        Some((train, others)) => {
            let labels = task.verbalizer().map(|labels| Labels {
                names: labels.names(),
                strings: labels.strings(),
                tokens: (0..labels.n()).map(|label| labels.tokens(label)).collect(),
            });
            lint(train, others, labels.as_ref())
        }
        None => Vec::new(),
    };
    findings.extend(cuts);
    for finding in &findings {
        observer.warn(&finding.to_string());
    }
    if strict && !findings.is_empty() {
        let (n, them) = match findings.len() {
            1 => ("a warning".to_owned(), "it"),
            n => (format!("{n} warnings"), "them"),
        };
        return Err(UserError::new(format!("{n} about the data, and --strict takes none"))
            .hint(format!("see to {them}, or leave --strict out"))
            .into());
    }
    Ok(())
}
