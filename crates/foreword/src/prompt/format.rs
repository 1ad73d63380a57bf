//! The format around a text: a template, or the user message in the model's own chat template; and the resulting task.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;

use crate::chat::Chat;
use crate::data::together::fields_together;
use crate::error::{Result, UserError};
use crate::format::{ChatRecord, TaskRecord};
use crate::joint::{Fitted, Joiner, default_strings, fitted, repeated_bos};
use crate::notice::Observer;
use crate::plan::positive;
use crate::settings::{DEFAULT_MAX_LENGTH, DEFAULT_OBJECTIVE};
use crate::settings::{Joining, Method, Placement, TaskKind};
use crate::task_file::TaskTable;
use crate::{Classification, Dataset, Generation, Goal, Model, Task, TaskError, Template, Verbalizer};

/// A template and its chat as set, recorded or by default, before the model is known.
#[derive(Clone, Debug)]
pub struct PromptFormat {
    /// The template, or the template of the user message.
    pub template: Template,
    /// Whether several fields were guessed to belong together.
    pub guessed: bool,
    chat: ChatChoice,
}

/// The chat around the template.
#[derive(Clone, Debug)]
enum ChatChoice {
    /// None.
    None,
    /// The model's own chat template, with this system message.
    Stated(Option<String>),
    /// The chat that a prompt was trained with.
    Recorded(ChatRecord),
}

impl PromptFormat {
    /// Settings override the prompt's record, which overrides the default. `together`: the slots of several fields of one
    /// text, as found by [`together`].
    pub fn find(
        stated: &TaskTable,
        recorded: Option<&TaskRecord>,
        kind: TaskKind,
        together: Option<&str>,
    ) -> Result<Self> {
        let chat = recorded.and_then(|task| task.chat.as_ref());
        let (template, message) = (stated.template.as_deref(), stated.message.as_deref());
        let system = stated.system.as_deref();
        let in_chat = match template {
            Some(template) => template == Template::CHAT,
            None => chat.is_some(),
        };
        if !in_chat {
            if let Some(what) = message.and(Some("message")).or(system.and(Some("system"))) {
                return Err(UserError::new(format!(
                    "{what} belongs to a chat, and the task has a template in words"
                ))
                .hint("--template chat takes the model's chat template")
                .into());
            }
            let known = template.or(recorded.map(|task| task.template.as_str()));
            let usual = match kind {
                TaskKind::Classification => Template::DEFAULT,
                TaskKind::Generation => Template::DEFAULT_GENERATION,
            };
            let usual =
                usual.replace(Template::DEFAULT_MESSAGE, together.unwrap_or(Template::DEFAULT_MESSAGE));
            let template = Template::parse(known.unwrap_or(&usual)).context("the task's template")?;
            return Ok(Self {
                template,
                guessed: known.is_none() && together.is_some(),
                chat: ChatChoice::None,
            });
        }
        // A recorded template from outside a chat is not a user message.
        let of_prompt = recorded.filter(|_| chat.is_some()).map(|task| task.template.as_str());
        let known = message.or(of_prompt);
        let usual = together.unwrap_or(Template::DEFAULT_MESSAGE);
        let parsed = Template::parse(known.unwrap_or(usual)).context("the task's message")?;
        let guessed = known.is_none() && together.is_some();
        let is_recorded = stated.template.is_none() && system.is_none();
        let system = system.or(chat.and_then(|chat| chat.system.as_deref()));
        let chat = match chat {
            Some(chat) if is_recorded => ChatChoice::Recorded(chat.clone()),
            _ => ChatChoice::Stated(system.map(str::to_owned)),
        };
        Ok(Self { template: parsed, guessed, chat })
    }

    /// The chat for a model. Warns if texts would begin with BOS twice.
    pub fn chat(&self, model: &Model, placement: Placement, observer: &dyn Observer) -> Result<Option<Chat>> {
        let chat = match &self.chat {
            ChatChoice::None if placement == Placement::System => return Err(TaskError::NoChat.into()),
            ChatChoice::None => None,
            ChatChoice::Stated(system) => Some(Chat::new(model, system.as_deref(), placement)?),
            ChatChoice::Recorded(record) => Some(Chat::of_record(model, record, placement)?),
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
            observer.warn(&format!(
                "every text begins with {token:?} twice, which models have not learned: {by}; {cure}"
            ));
        }
        Ok(chat)
    }
}

/// The slots of fields that belong together, unless a text field is named.
pub fn together(
    data: Option<&Dataset>,
    text_field: Option<&str>,
    (kind, truth): (TaskKind, Option<&str>),
) -> Option<String> {
    fields_together(data.filter(|_| text_field.is_none())?, kind, truth)
}

/// Formats a task's template for a message.
pub fn in_words(template: &Template, chat: Option<&Chat>) -> String {
    let message = format!("{:?}", template.source());
    match chat {
        None => message,
        Some(chat) => {
            format!("the model's chat template, with {message} as the user's message: {:?}", chat.shown())
        }
    }
}

/// How label texts follow a template or a chat.
#[derive(Clone, Copy, Debug)]
pub struct LabelFormat<'a> {
    /// The template before the label texts.
    pub template: &'a Template,
    /// The chat around it.
    pub chat: Option<&'a Chat>,
    /// Whether given label texts are used exactly as written.
    pub exact: bool,
}

impl<'a> LabelFormat<'a> {
    /// The label format for this template, from the settings.
    pub fn of(format: &'a PromptFormat, chat: Option<&'a Chat>, stated: &TaskTable) -> Self {
        Self { template: &format.template, chat, exact: stated.exact_labels == Some(true) }
    }

    /// The given label texts, with spaces adjusted; reports the changes.
    pub fn stated(
        self,
        labels: &BTreeMap<String, String>,
        observer: &dyn Observer,
    ) -> BTreeMap<String, String> {
        if self.exact {
            return labels.clone();
        }
        let Fitted { labels, spaced, trimmed } = fitted(labels, self.template, self.chat);
        let exactly = "--exact-labels uses the texts exactly as written";
        if !spaced.is_empty() {
            observer.say(&format!(
                "labels    a space was put before {}, as between words; {exactly}",
                listed(&spaced)
            ));
        }
        if !trimmed.is_empty() {
            observer.say(&format!(
                "labels    the space before {} was left out, since the template ends in one; {exactly}",
                listed(&trimmed)
            ));
        }
        labels
    }

    /// The label texts recorded by a prompt; adjusted if the template differs from the recorded one.
    pub fn recorded(self, task: &TaskRecord, observer: &dyn Observer) -> BTreeMap<String, String> {
        if self.template.source() == task.template && self.chat.map(Chat::record) == task.chat {
            return task.labels.clone();
        }
        let mut labels = task.labels.clone();
        if self.template.source().ends_with(char::is_whitespace) && self.chat.is_none() {
            labels.values_mut().for_each(|string| *string = string.trim_start_matches(' ').to_owned());
        }
        self.stated(&labels, observer)
    }

    /// The default texts of labels without one.
    pub fn usual(self, names: BTreeSet<String>) -> BTreeMap<String, String> {
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

/// Reports how labels are compared if one label text is the beginning of another.
pub fn tell_continued(task: &Task, observer: &dyn Observer) {
    let continued = task.verbalizer().and_then(|verbalizer| verbalizer.first_continued());
    if let Some((short, longer)) = continued {
        observer.say(&format!(
            "labels    {longer:?} begins with the tokens of {short:?}: a label's score is the probability that it stands there \
             and does not go on to another label"
        ));
    }
}

/// The parts of a task: the only way to build a [`Task`], from settings, a record or both.
pub struct TaskParts<'a> {
    /// The template.
    pub format: PromptFormat,
    /// The chat around it.
    pub chat: Option<Chat>,
    /// The text of each label; `None` for generation.
    pub labels: Option<BTreeMap<String, String>>,
    /// The field for `{text}`.
    pub text_field: Option<String>,
    /// What is learned: a soft prompt or a KV prefix.
    pub method: Method,
    /// Its placement.
    pub placement: Placement,
    /// The settings, which take precedence.
    pub stated: &'a TaskTable,
    /// The prompt's record.
    pub recorded: Option<&'a TaskRecord>,
}

impl TaskParts<'_> {
    /// Builds the task for a model.
    ///
    /// # Errors
    /// If two labels have the same tokens, or there is no end token for generation.
    pub fn build(self, model: &Model, observer: &dyn Observer) -> Result<Task> {
        let Self { format, chat, labels, text_field, method, placement, stated, recorded } = self;
        let joining = recorded.map_or(Joining::Whole, |task| task.joining);
        let goal = match labels {
            Some(labels) => {
                let joiner = Joiner { tokenizer: &model.tokenizer, chat: chat.as_ref(), joining };
                let verbalizer = Verbalizer::after(&labels, &format.template, &joiner)?;
                let recorded = recorded.filter(|task| task.kind == TaskKind::Classification);
                let objective = stated.objective.or(recorded.map(|task| task.objective));
                let objective = objective.unwrap_or(DEFAULT_OBJECTIVE);
                Goal::Classification(Classification { verbalizer, objective })
            }
            None => Goal::Generation(Generation::of(model, chat.as_ref())?),
        };
        let max_length = stated.max_length.or(recorded.map(|task| task.max_length));
        let max_length = positive(max_length.unwrap_or(DEFAULT_MAX_LENGTH), "max_length")?;
        let template = format.template;
        let task = Task { template, chat, joining, text_field, goal, method, placement, max_length };
        tell_continued(&task, observer);
        Ok(task)
    }
}
