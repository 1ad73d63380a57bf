//! A prompt directory resolved: the rows, the model that they were made for, and the task that they do.

use std::path::Path;

use anyhow::Result;
use foreword::data::FieldIdx;
use foreword::record::{self, Warning};
use foreword::train::{DEFAULT_MAX_LENGTH, DEFAULT_MICRO_BATCH_TOKENS, DEFAULT_OBJECTIVE, DEFAULT_PLACEMENT};
use foreword::verbalizer::label_names;
use foreword::{Cpu, Dataset, Examples, Model, PromptDirectory, Task, Template, Verbalizer};

use crate::args::{LossArgs, MachineArgs, SourceArgs, TaskArgs};
use crate::exit::Given;
use crate::printer::Printer;
use crate::words::count;

/// The name of no prompt: the bare model.
const NONE: &str = "none";

/// A soft prompt ready for use.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) model: Model<Cpu>,
    pub(crate) task: Task,
    /// The learned rows, `[P, H]`; empty for the bare model.
    pub(crate) root: Vec<f32>,
    /// The field with the label, where the prompt or a flag says it.
    pub(crate) label_field: Option<String>,
    /// Most tokens computed at a time.
    pub(crate) budget: usize,
}

impl Ready {
    /// P.
    pub(crate) fn n_virtual(&self) -> usize {
        self.root.len() / self.model.backbone.spec().hidden
    }

    /// The data in tokens; says how many texts had to be cut.
    pub(crate) fn examples(
        &self,
        data: &Dataset,
        label: Option<FieldIdx>,
        printer: &Printer,
    ) -> Result<Examples> {
        let examples = self.task.examples(&self.model, self.n_virtual(), data, label)?;
        if examples.n_cut > 0 {
            let (n_cut, n) = (count(examples.n_cut as u64), count(examples.n() as u64));
            printer.warn(&format!("{n_cut} of {n} texts were cut to fit"));
        }
        Ok(examples)
    }
}

/// What is asked of a prompt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) source: &'a SourceArgs,
    pub(crate) task: &'a TaskArgs,
    pub(crate) text_field: Option<&'a str>,
    pub(crate) label_field: Option<&'a str>,
    pub(crate) loss: &'a LossArgs,
    pub(crate) machine: &'a MachineArgs,
}

impl Asked<'_> {
    /// Opens the prompt with its model. Labels that neither the prompt nor a flag names are those of `data`.
    pub(crate) fn resolve(self, data: Option<&Dataset>, printer: &Printer) -> Result<Ready> {
        let directory = self.directory()?;
        let model = super::model(&self.model_name(directory.as_ref())?, self.machine)?;
        if let Some(directory) = &directory {
            for warning in record::check_fit(directory, &model)? {
                printer.warn(&describe(&warning));
            }
        }
        let recorded = directory.as_ref().and_then(|directory| Some(&directory.passport.as_ref()?.task));
        let label_field = self.label_field.or(recorded.and_then(|task| task.label_field.as_deref()));
        let template = self.task.template.as_ref().map(|template| template.0.as_str());
        let (template, labels) = match recorded {
            Some(task) => {
                let labels = self.task.labels.as_ref().map_or(&task.labels, |labels| &labels.0);
                (template.unwrap_or(&task.template), labels.clone())
            }
            None => {
                let template = template.unwrap_or(Template::DEFAULT);
                (template, self.labels(template, label_field, data)?)
            }
        };
        let task = Task {
            template: Template::parse(template)?,
            text_field: self
                .text_field
                .or(recorded.and_then(|task| task.text_field.as_deref()))
                .map(str::to_owned),
            verbalizer: Verbalizer::new(&labels, &model.tokenizer)?,
            objective: self
                .loss
                .objective
                .or(recorded.map(|task| task.objective))
                .unwrap_or(DEFAULT_OBJECTIVE),
            placement: self
                .task
                .placement
                .or(recorded.map(|task| task.placement))
                .unwrap_or(DEFAULT_PLACEMENT),
            max_length: self
                .task
                .max_length
                .or(recorded.map(|task| task.max_length))
                .unwrap_or(DEFAULT_MAX_LENGTH),
        };
        let label_field = label_field.map(str::to_owned);
        let root = directory.map_or_else(Vec::new, |directory| directory.rows.into_values());
        let budget = self.machine.micro_batch_tokens.unwrap_or(DEFAULT_MICRO_BATCH_TOKENS);
        printer.detail(|| anyhow::Ok(vec![super::computing(&model, budget)]))?;
        Ok(Ready { model, task, root, label_field, budget })
    }

    fn directory(self) -> Result<Option<PromptDirectory>> {
        let path = &self.source.prompt;
        if path == Path::new(NONE) {
            return Ok(None);
        }
        if !path.exists() {
            return Err(Given::wrong(format!("there is no prompt directory {}", path.display()))
                .hint("`foreword train` makes one; --prompt none is the bare model")
                .into());
        }
        Ok(Some(PromptDirectory::read(path)?))
    }

    /// The model that is given, or the bundled one where the prompt is for it or there is no prompt.
    fn model_name(self, directory: Option<&PromptDirectory>) -> Result<String> {
        let bundled = foreword_tiny::NAME;
        let Some(directory) = directory else {
            return Ok(self.source.model.clone().unwrap_or_else(|| bundled.to_owned()));
        };
        let passport = directory.passport.as_ref().map(|passport| passport.base_model.name.as_str());
        let adapter = directory.adapter.as_ref().and_then(|adapter| adapter.base_model.as_deref());
        match (&self.source.model, passport.or(adapter)) {
            (Some(model), _) => Ok(model.clone()),
            (None, Some(recorded)) if recorded == bundled => Ok(bundled.to_owned()),
            (None, recorded) => {
                let of = recorded
                    .map_or_else(|| "a model that it does not name".into(), |name| format!("{name:?}"));
                let prompt = self.source.prompt.display();
                Err(Given::wrong(format!(
                    "the prompt {prompt} was made for {of}, and nothing says where that is"
                ))
                .hint("give the directory of that model with --model")
                .into())
            }
        }
    }

    fn labels(
        self,
        template: &str,
        label_field: Option<&str>,
        data: Option<&Dataset>,
    ) -> Result<std::collections::BTreeMap<String, String>> {
        if let Some(labels) = &self.task.labels {
            return Ok(labels.0.clone());
        }
        let Some(data) = data else {
            return Err(Given::wrong("nothing says which labels there are")
                .hint("name them with their texts, as in --labels 'negative= negative,positive= positive'")
                .into());
        };
        let fields = super::Fields::find(data, &Template::parse(template)?, self.text_field, label_field)?;
        Ok(Verbalizer::default_strings(label_names(data, data.require(&fields.label)?)?))
    }
}

/// A warning in words.
pub(crate) fn describe(warning: &Warning) -> String {
    match warning {
        Warning::OtherFormat { here, recorded } => format!(
            "the model is stored as {here}, but the prompt was trained with it as {recorded}; expect small differences"
        ),
        Warning::OtherTokenizer => {
            "tokenizer.json is not the one that the prompt was trained with; texts may become other tokens"
                .to_owned()
        }
        Warning::NoPassport => {
            "the prompt has no foreword.json, so nothing says which model and which template it was \
                                made for; --template, --labels and --model must be those of its training"
                .to_owned()
        }
        _ => "the prompt and the model may not belong together".to_owned(),
    }
}
