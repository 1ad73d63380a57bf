//! What a text is put into: a template in words, or the user's message in the model's own chat template.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use foreword::chat::Chat;
use foreword::data::together::fields_together;
use foreword::format::{ChatRecord, TaskRecord};
use foreword::settings::{Placement, TaskKind};
use foreword::task_file::TaskTable;
use foreword::{Dataset, Model, TaskError, Template, Verbalizer};

use crate::args::TaskArgs;
use crate::device::Machine;
use crate::exit::Given;

/// What is stated, recorded or usual, before the model is known.
#[derive(Clone, Debug)]
pub(crate) struct Wording {
    /// The template, or that of the user's message.
    pub(crate) template: Template,
    /// Whether its fields were guessed, several that are read together.
    pub(crate) guessed: bool,
    chat: Asked,
}

/// What chat that is in.
#[derive(Clone, Debug)]
enum Asked {
    /// None.
    None,
    /// The model's own as it is, with this system message.
    Stated(Option<String>),
    /// The one that a prompt was trained with.
    Recorded(ChatRecord),
}

/// What flags or a task file say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stated<'a> {
    pub(crate) template: Option<&'a str>,
    pub(crate) message: Option<&'a str>,
    pub(crate) system: Option<&'a str>,
}

impl<'a> From<&'a TaskTable> for Stated<'a> {
    fn from(table: &'a TaskTable) -> Self {
        let TaskTable { template, message, system, .. } = table;
        Self { template: template.as_deref(), message: message.as_deref(), system: system.as_deref() }
    }
}

impl<'a> From<&'a TaskArgs> for Stated<'a> {
    fn from(args: &'a TaskArgs) -> Self {
        let text = |text: &'a Option<crate::args::TemplateText>| text.as_ref().map(|text| text.0.as_str());
        let system = args.system.as_ref().map(|system| system.0.as_str());
        Self { template: text(&args.template), message: text(&args.message), system }
    }
}

impl Wording {
    /// What is stated wins over what a prompt records, and that over the usual. `together`: the slots of several fields that
    /// the data has for one text, as [`together`] finds them.
    pub(crate) fn find(
        stated: Stated<'_>,
        recorded: Option<&TaskRecord>,
        kind: TaskKind,
        together: Option<&str>,
    ) -> Result<Self> {
        let chat = recorded.and_then(|task| task.chat.as_ref());
        let in_chat = match stated.template {
            Some(template) => template == Template::CHAT,
            None => chat.is_some(),
        };
        if !in_chat {
            if let Some(what) = stated.message.and(Some("message")).or(stated.system.and(Some("system"))) {
                return Err(Given::wrong(format!(
                    "{what} belongs to a chat, and the task has a template in words"
                ))
                .hint("--template chat takes the model's chat template")
                .into());
            }
            let known = stated.template.or(recorded.map(|task| task.template.as_str()));
            let usual = match kind {
                TaskKind::Classification => Template::DEFAULT,
                TaskKind::Generation => Template::DEFAULT_GENERATION,
            };
            let usual =
                usual.replace(Template::DEFAULT_MESSAGE, together.unwrap_or(Template::DEFAULT_MESSAGE));
            let template = Template::parse(known.unwrap_or(&usual)).context("the task's template")?;
            return Ok(Self { template, guessed: known.is_none() && together.is_some(), chat: Asked::None });
        }
        // A recorded template that is none of a chat's is no message.
        let message = recorded.filter(|_| chat.is_some()).map(|task| task.template.as_str());
        let known = stated.message.or(message);
        let usual = together.unwrap_or(Template::DEFAULT_MESSAGE);
        let template = Template::parse(known.unwrap_or(usual)).context("the task's message")?;
        let guessed = known.is_none() && together.is_some();
        let system = stated.system.or(chat.and_then(|chat| chat.system.as_deref()));
        let chat = match chat {
            Some(chat) if stated.template.is_none() && stated.system.is_none() => {
                Asked::Recorded(chat.clone())
            }
            _ => Asked::Stated(system.map(str::to_owned)),
        };
        Ok(Self { template, guessed, chat })
    }

    /// The chat, on a model.
    pub(crate) fn chat(&self, model: &Model<Machine>, placement: Placement) -> Result<Option<Chat>> {
        match &self.chat {
            Asked::None if placement == Placement::System => Err(TaskError::NoChat.into()),
            Asked::None => Ok(None),
            Asked::Stated(system) => Ok(Some(Chat::new(model, system.as_deref(), placement)?)),
            Asked::Recorded(record) => Ok(Some(Chat::of_record(model, record, placement)?)),
        }
    }
}

/// The slots of the data's fields that are read together, unless a field is named for the text.
pub(crate) fn together(
    data: Option<&Dataset>,
    text_field: Option<&str>,
    (kind, truth): (TaskKind, Option<&str>),
) -> Option<String> {
    fields_together(data.filter(|_| text_field.is_none())?, kind, truth)
}

/// A task's template as it is told.
pub(crate) fn in_words(template: &Template, chat: Option<&Chat>) -> String {
    let message = format!("{:?}", template.source());
    match chat {
        None => message,
        Some(chat) => {
            format!("the model's chat template, with {message} as the user's message: {:?}", chat.shown())
        }
    }
}

/// The strings of labels that have none of their own, after a template or in a chat.
pub(crate) fn default_strings(names: BTreeSet<String>, chat: Option<&Chat>) -> BTreeMap<String, String> {
    Verbalizer::spaced_strings(names, chat.is_none_or(Chat::is_spaced))
}
