//! What a text is put into: a template in words, or the user's message in the model's own chat template.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use foreword::chat::Chat;
use foreword::data::together::fields_together;
use foreword::format::{ChatRecord, TaskRecord};
use foreword::joint::{Fitted, default_strings, fitted, repeated_bos};
use foreword::settings::{Placement, TaskKind};
use foreword::task_file::TaskTable;
use foreword::{Dataset, Model, Task, TaskError, Template};

use crate::args::TaskArgs;
use crate::device::Machine;
use crate::exit::Given;
use crate::printer::Printer;

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

    /// The chat, on a model. Tells where texts would begin with BOS twice.
    pub(crate) fn chat(
        &self,
        model: &Model<Machine>,
        placement: Placement,
        printer: &Printer,
    ) -> Result<Option<Chat>> {
        let chat = match &self.chat {
            Asked::None if placement == Placement::System => return Err(TaskError::NoChat.into()),
            Asked::None => None,
            Asked::Stated(system) => Some(Chat::new(model, system.as_deref(), placement)?),
            Asked::Recorded(record) => Some(Chat::of_record(model, record, placement)?),
        };
        let twice = match &chat {
            None => repeated_bos(&self.template, &model.tokenizer)?,
            Some(chat) => chat.doubled(&model.tokenizer)?,
        };
        if let Some(token) = twice.and_then(|token| model.tokenizer.token(token)) {
            let (by, cure) = match chat {
                None => (
                    "the tokenizer puts it before every text, and so does the template",
                    format!("take {token:?} out of the template; a prompt that was trained with it needs it"),
                ),
                Some(_) => (
                    "the model's chat template writes it twice",
                    "take one out of chat_template.jinja or tokenizer_config.json".to_owned(),
                ),
            };
            printer.warn(&format!(
                "every text begins with {token:?} twice, which models have not learned: {by}; {cure}"
            ));
        }
        Ok(chat)
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

/// What stands for the labels behind a template or in a chat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LabelWording<'a> {
    pub(crate) template: &'a Template,
    pub(crate) chat: Option<&'a Chat>,
    /// Whether stated strings are used exactly as written.
    pub(crate) exact: bool,
}

impl LabelWording<'_> {
    /// The strings that are stated, as they are meant here; says what was changed.
    pub(crate) fn stated(
        self,
        labels: &BTreeMap<String, String>,
        printer: &Printer,
    ) -> BTreeMap<String, String> {
        if self.exact {
            return labels.clone();
        }
        let Fitted { labels, spaced, trimmed } = fitted(labels, self.template, self.chat);
        let exactly = "--exact-labels uses the texts exactly as written";
        if !spaced.is_empty() {
            printer.say(&format!(
                "labels    a space was put before {}, as between words; {exactly}",
                listed(&spaced)
            ));
        }
        if !trimmed.is_empty() {
            printer.say(&format!(
                "labels    the space before {} was left out, since the template ends in one; {exactly}",
                listed(&trimmed)
            ));
        }
        labels
    }

    /// The strings of labels that a prompt records, as they are; behind another template than the recorded one as they are meant there.
    pub(crate) fn recorded(self, task: &TaskRecord, printer: &Printer) -> BTreeMap<String, String> {
        if self.template.source() == task.template && self.chat.map(Chat::record) == task.chat {
            return task.labels.clone();
        }
        let mut labels = task.labels.clone();
        if self.template.source().ends_with(char::is_whitespace) && self.chat.is_none() {
            labels.values_mut().for_each(|string| *string = string.trim_start_matches(' ').to_owned());
        }
        self.stated(&labels, printer)
    }

    /// The strings of labels that have none of their own.
    pub(crate) fn usual(self, names: BTreeSet<String>) -> BTreeMap<String, String> {
        default_strings(names, self.template, self.chat)
    }
}

/// The first few of these labels.
fn listed(names: &[String]) -> String {
    match names {
        [one] => format!("the text of {one:?}"),
        [one, other] => format!("the texts of {one:?} and {other:?}"),
        [one, others @ ..] => format!("the texts of {one:?} and {} others", others.len()),
        [] => String::new(),
    }
}

/// Says how labels are compared of which one begins another.
pub(crate) fn tell_continued(task: &Task, printer: &Printer) {
    let continued = task.verbalizer().and_then(|verbalizer| verbalizer.first_continued());
    if let Some((short, longer)) = continued {
        printer.say(&format!(
            "labels    {longer:?} begins with the tokens of {short:?}: a label's score is the probability that it stands there \
             and does not go on to another label"
        ));
    }
}
