//! From what was written to what there is: the model, the data, and which field is what.

pub(crate) mod begin;
pub(crate) mod calibration;
pub(crate) mod data;
pub(crate) mod doubts;
pub(crate) mod memory;
pub(crate) mod named;
pub(crate) mod naming;
pub(crate) mod place;
pub(crate) mod prompt;
pub(crate) mod run;
pub(crate) mod splits;
pub(crate) mod texts;
pub(crate) mod wording;

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use foreword::data::fields::{self, slot_fields, unused, without_words};
use foreword::settings::TaskKind;
use foreword::{Backend as _, Dataset, Model, ModelFiles, Template};

use crate::args::MachineArgs;
use crate::device::{self, Machine};
use crate::printer::Printer;
use crate::words::count;

/// The slot that stands for the text field, whatever that is called.
const TEXT_SLOT: &str = "text";

/// Opens the model that a name stands for.
pub(crate) fn model(name: &str, machine: &MachineArgs, printer: &Printer) -> Result<Model<Machine>> {
    open(&named::files(name, printer)?, name, machine, printer)
}

/// Opens a model whose files are at hand, and tells what is worth knowing of them.
pub(crate) fn open(
    files: &ModelFiles,
    name: &str,
    machine: &MachineArgs,
    printer: &Printer,
) -> Result<Model<Machine>> {
    let n_threads = machine.threads.unwrap_or(0);
    // The tokenizer's threads, once for all runs of the program; the model has a pool of its own.
    static STARTED: AtomicBool = AtomicBool::new(false);
    if machine.threads.is_some() && !STARTED.swap(true, Ordering::Relaxed) {
        rayon::ThreadPoolBuilder::new()
            .num_threads(n_threads)
            .build_global()
            .context("cannot start threads")?;
    }
    let backend = device::open(machine.device, n_threads, machine.dtype)?;
    let model = Model::load(files, backend).with_context(|| format!("the model {name}"))?;
    for notice in &model.notices {
        printer.warn(&notice.to_string());
    }
    Ok(model)
}

/// What a model runs on, for those who want to know.
pub(crate) fn computing(model: &Model<Machine>, micro_batch_tokens: usize) -> (&'static str, String) {
    let machine = device::in_words(model.backbone.backend());
    let budget = count(micro_batch_tokens as u64);
    let dtype = model.backbone.backend().product_dtype(model.backbone.embeddings().table().dtype()).name();
    ("computing", format!("{machine}, products in {dtype}, up to {budget} tokens at a time"))
}

/// Which fields of a data set are the text and the label or target.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    /// The field that `{text}` stands for; nothing where the template has no such slot.
    pub(crate) text: Option<String>,
    /// What the other field holds: a label or a target.
    pub(crate) kind: TaskKind,
    /// The field with the label or target.
    pub(crate) truth: String,
    /// Whether one of them was guessed.
    pub(crate) guessed: bool,
    /// Whether the template's fields were.
    pub(crate) template_guessed: bool,
}

impl Fields {
    /// Finds them in the data, with those that are stated.
    pub(crate) fn find(
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
        let guessed = truth.guessed || text.as_ref().is_some_and(|field| field.guessed);
        Ok(Self {
            text: text.map(|field| field.name),
            kind,
            truth: truth.name,
            guessed,
            template_guessed: false,
        })
    }

    /// In a sentence.
    pub(crate) fn describe(&self, template: &Template) -> String {
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
        let guessed = match (self.template_guessed, self.guessed) {
            (true, _) => format!(" (guessed; --template and {flag} say otherwise)"),
            (false, true) => format!(" (guessed; --text-field and {flag} say otherwise)"),
            (false, false) => String::new(),
        };
        format!("{texts}, {truth} {:?}{guessed}", self.truth)
    }
}

/// Says which fields hold something to read and are not used. `beside`: fields that are used for something else.
pub(crate) fn tell_unused(
    dataset: &Dataset,
    template: &Template,
    text_field: Option<&str>,
    beside: (Option<&str>, Option<&str>),
    printer: &Printer,
) -> Result<()> {
    let slots = slot_fields(template, dataset, text_field)?;
    let mut used: Vec<&str> = slots.fields.iter().map(|&field| dataset.field_name(field)).collect();
    used.extend([beside.0, beside.1].into_iter().flatten());
    let unused = unused(dataset, &used);
    if let Some(first) = unused.first() {
        let names: Vec<String> = unused.iter().map(|name| format!("{name:?}")).collect();
        let (fields, are) = if unused.len() == 1 { ("field", "is") } else { ("fields", "are") };
        printer.say(&format!(
            "the {fields} {} {are} not used (--template takes several, as in '{{{first}}}\\n{}')",
            names.join(", "),
            template.source().replace('\n', "\\n")
        ));
    }
    for name in without_words(dataset, &slots) {
        printer.say(&format!("the field {name:?} has no words, only numbers or true and false"));
    }
    Ok(())
}
