//! Opens a prompt: its directory, its model, and its task as trained or as overridden by settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::LoadedPrompt;
use super::format::{LabelFormat, PromptFormat, TaskParts, together};
use super::naming::Naming;
use crate::calibration::Calibration;
use crate::chat::Chat;
use crate::error::{Result, UserError};
use crate::fields::{Fields, complete};
use crate::format::{HubName, TaskRecord};
use crate::notice::Observer;
use crate::record::{self, Warning};
use crate::run::members::other_members;
use crate::settings::{DEFAULT_METHOD, DEFAULT_MICRO_BATCH_TOKENS, DEFAULT_PLACEMENT};
use crate::settings::{Method, TaskKind};
use crate::source::is_enough;
use crate::verbalizer::label_names;
use crate::{Dataset, Model, Passport, PromptDirectory, Resources, SoftPrompt, Task, TaskFile, device};

/// The name for no prompt: the bare model.
pub const NONE: &str = "none";

/// A request to open a prompt, with the settings that override its own.
#[derive(Clone, Copy, Debug)]
pub struct OpenRequest<'a> {
    /// The purpose.
    pub purpose: Purpose,
    /// Its directory, or [`NONE`].
    pub prompt: &'a Path,
    /// Use all members of the ensemble that the prompt leads.
    pub ensemble: bool,
    /// The model, the fields, the template, the labels and so on, as far as they are set.
    pub stated: &'a TaskFile,
    /// The input data; its fields suggest a template if none is known.
    pub about: Option<&'a Dataset>,
    /// The resources that the model may use.
    pub resources: &'a Resources,
}

/// The purpose of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Classify.
    Classify,
    /// Generate.
    Generate,
    /// Evaluate on the task it was trained for.
    Evaluate,
}

/// An opened prompt without its model, which is kept elsewhere.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) task: Task,
    pub(crate) prompt: Option<SoftPrompt>,
    pub(crate) truth_field: Option<String>,
    pub(crate) calibration: Option<Calibration>,
}

impl<'a> OpenRequest<'a> {
    /// A request to use a prompt for its trained task.
    #[must_use]
    pub fn new(prompt: &'a Path, stated: &'a TaskFile, resources: &'a Resources) -> Self {
        Self { purpose: Purpose::Evaluate, prompt, ensemble: false, stated, about: None, resources }
    }

    /// Opens the prompt with its model. Labels named by neither the prompt nor a setting come from `data`.
    ///
    /// # Errors
    /// If there is no such prompt, or its model can't be found or differs.
    pub fn open(self, data: Option<&Dataset>, observer: &dyn Observer) -> Result<LoadedPrompt> {
        let path = self.prompt;
        let directory = (path != Path::new(NONE)).then(|| read(path)).transpose()?;
        let name = model_name(path, self.stated.model.as_deref(), directory.as_ref())?;
        let resources = self.resources.with_ignored_keys_of(directory.as_ref());
        let open = if directory.is_some() { Model::open_with } else { Model::open_alone };
        let model = open(&name, &resources, observer)?;
        let passport = directory.as_ref().and_then(|directory| directory.passport.as_ref());
        let trained_on =
            passport.and_then(|passport| passport.training.data.get("train")?.file_digest.clone());
        let label_names = passport.map_or_else(BTreeMap::new, |passport| passport.task.label_names.clone());
        let Resolved { task, prompt, truth_field, mut calibration } =
            self.resolve_on(&model, directory, data, observer)?;
        let mut prompts: Vec<SoftPrompt> = prompt.into_iter().collect();
        if self.ensemble {
            prompts.extend(self.other_prompts(&task, &model)?);
            if calibration.take().is_some() {
                observer
                    .say("the calibration in foreword.json was fitted to the prompt alone, and is left out");
            }
        }
        let budget = self.resources.micro_batch_tokens.unwrap_or(DEFAULT_MICRO_BATCH_TOKENS);
        if let Some(device) = device::name(model.backbone.backend()) {
            observer.tell("device", device);
        }
        observer.detail(|| Result::Ok(vec![model.computing(budget)]))?;
        let text_field = task.text_field.clone();
        Ok(LoadedPrompt {
            model,
            task,
            prompts,
            text_field,
            truth_field,
            label_names,
            calibration,
            trained_on,
            budget,
        })
    }

    /// The other members of the ensemble.
    fn other_prompts(self, task: &Task, model: &Model) -> Result<impl Iterator<Item = SoftPrompt>> {
        let members = others(self.prompt, task.method, model)?;
        if members.is_empty() {
            return Err(UserError::new(format!(
                "the prompt {} does not lead an ensemble",
                self.prompt.display()
            ))
            .hint("`foreword train --candidates 8 --ensemble 3` makes one")
            .into());
        }
        if task.verbalizer().is_none() {
            return Err(UserError::new(
                "an ensemble is the mean of what its members say of the labels, and this prompt writes texts",
            )
            .hint("leave --ensemble out")
            .into());
        }
        Ok(members.into_iter().map(|(_, directory)| directory.rows))
    }

    /// As [`OpenRequest::open`], for a directory already read (or none) and a model already opened.
    pub(crate) fn resolve_on(
        self,
        model: &Model,
        directory: Option<PromptDirectory>,
        data: Option<&Dataset>,
        observer: &dyn Observer,
    ) -> Result<Resolved> {
        if let Some(directory) = &directory {
            for warning in record::check_fit(directory, model)? {
                observer.warn(&describe(&warning));
            }
        }
        let TaskFile { data: fields, task: stated, prompt, .. } = self.stated;
        let recorded = directory.as_ref().and_then(|directory| Some(&directory.passport.as_ref()?.task));
        let kind = self.kind(recorded, observer)?;
        let text_field =
            fields.text_field.as_deref().or(recorded.and_then(|task| task.text_field.as_deref()));
        let (truth, recorded_truth) = match kind {
            TaskKind::Classification => {
                (&fields.label_field, recorded.and_then(|task| task.label_field.as_deref()))
            }
            TaskKind::Generation => {
                (&fields.target_field, recorded.and_then(|task| task.target_field.as_deref()))
            }
        };
        let together = together(self.about.or(data), text_field, (kind, truth.as_deref()));
        let truth_field = truth.as_deref().or(recorded_truth).map(str::to_owned);
        let format = PromptFormat::find(stated, recorded, kind, together.as_deref())?;
        if format.guessed {
            observer.tell(
                "template",
                format!(
                    "{:?} (guessed from the fields; --template says otherwise)",
                    format.template.source()
                ),
            );
        }
        let placement = prompt.placement.or(recorded.map(|task| task.placement));
        let placement = placement.unwrap_or(DEFAULT_PLACEMENT);
        let chat = format.chat(model, placement, observer)?;
        let labels = match kind {
            TaskKind::Classification => {
                let strings = LabelFormat::of(&format, chat.as_ref(), stated);
                Some(self.labels(recorded, strings, truth_field.as_deref(), data, observer)?)
            }
            TaskKind::Generation => None,
        };
        let text_field = text_field.map(str::to_owned);
        let method = directory.as_ref().map_or(DEFAULT_METHOD, PromptDirectory::method);
        let parts = TaskParts { format, chat, labels, text_field, method, placement, stated, recorded };
        let task = parts.build(model, observer)?;
        if task.is_joined_otherwise(model)? {
            observer.warn(
                "the prompt was trained by an earlier version, which tokenised labels and targets apart from the text: here \
                 that gives other tokens or other scores than it would now; it is used as it was trained, and trained again it \
                 may do better",
            );
        }
        let passport = directory.as_ref().and_then(|directory| directory.passport.as_ref());
        let calibration = passport.and_then(|passport| stored(passport, &task));
        let prompt = directory.map(|directory| directory.rows);
        Ok(Resolved { task, prompt, truth_field, calibration })
    }

    /// The kind of the task: classification or generation.
    fn kind(self, recorded: Option<&TaskRecord>, observer: &dyn Observer) -> Result<TaskKind> {
        let trained = recorded.map(|task| task.kind);
        let prompt = self.prompt.display();
        match self.purpose {
            Purpose::Generate => {
                if trained == Some(TaskKind::Classification) {
                    observer.warn(&format!(
                        "the prompt {prompt} was trained to choose labels, which `foreword classify` does; what it writes \
                         beyond a label was never trained"
                    ));
                }
                Ok(TaskKind::Generation)
            }
            _ if self.stated.task.labels.is_some() => Ok(TaskKind::Classification),
            Purpose::Classify if trained == Some(TaskKind::Generation) => Err(UserError::new(format!(
                "the prompt {prompt} was trained to write texts, and has no labels"
            ))
            .hint("`foreword generate` has it write; --labels names labels to choose from all the same")
            .into()),
            Purpose::Classify => Ok(TaskKind::Classification),
            Purpose::Evaluate if self.stated.data.target_field.is_some() => Ok(TaskKind::Generation),
            Purpose::Evaluate if self.stated.data.label_field.is_some() => Ok(TaskKind::Classification),
            Purpose::Evaluate => Ok(trained.unwrap_or(TaskKind::Classification)),
        }
    }

    fn labels(
        self,
        recorded: Option<&TaskRecord>,
        strings: LabelFormat<'_>,
        label_field: Option<&str>,
        data: Option<&Dataset>,
        observer: &dyn Observer,
    ) -> Result<BTreeMap<String, String>> {
        if let Some(labels) = &self.stated.task.labels {
            return Ok(strings.stated(labels, observer));
        }
        if let Some(recorded) = recorded.filter(|task| !task.labels.is_empty()) {
            return Ok(strings.recorded(recorded, observer));
        }
        let Some(data) = data else {
            return Err(UserError::new("nothing says which labels there are")
                .hint("name them with their texts, as in --labels 'negative= negative,positive= positive'")
                .into());
        };
        let truth = (TaskKind::Classification, label_field);
        let text_field = self.stated.data.text_field.as_deref();
        let fields = Fields::find(data, strings.template, text_field, truth)?;
        let naming = Naming { stated: self.stated.data.label_names.as_ref(), ..Naming::default() };
        naming.check(data, &fields.truth)?;
        // What is left out is reported where the data is used.
        let data = complete(data.clone(), strings.template, &fields, self.stated, &())?;
        let data = naming.named(data, &fields.truth)?.dataset;
        Ok(strings.usual(label_names(&data, data.require(&fields.truth)?)?))
    }
}

/// The recorded task of a prompt directory, for its model.
///
/// # Errors
/// If the prompt does not fit the model.
pub fn recorded_task(path: &Path, directory: &PromptDirectory, model: &Model) -> Result<Task> {
    let (stated, resources) = (TaskFile::default(), Resources::default());
    let request = OpenRequest::new(path, &stated, &resources);
    Ok(request.resolve_on(model, Some(directory.clone()), None, &())?.task)
}

/// The other members of the ensemble that the prompt in `path` leads, checked like the prompt itself; empty if it leads
/// none.
pub fn others(path: &Path, method: Method, model: &Model) -> Result<Vec<(PathBuf, PromptDirectory)>> {
    let other = |dir: PathBuf| {
        let directory = read(&dir)?;
        record::check_fit(&directory, model)?;
        if directory.method() != method {
            let (one, other) = (path.display(), dir.display());
            return Err(UserError::new(format!(
                "{one} and {other} are no ensemble: one is a soft prompt, the other a KV prefix"
            ))
            .hint("remove the second one, or train again")
            .into());
        }
        Ok((dir, directory))
    };
    other_members(path).into_iter().map(other).collect()
}

/// Reads an existing prompt directory.
pub fn read(path: &Path) -> Result<PromptDirectory> {
    if !path.exists() {
        return Err(UserError::new(format!("there is no prompt directory {}", path.display()))
            .hint("`foreword train` makes one; --prompt none is the bare model")
            .into());
    }
    Ok(PromptDirectory::read(path)?)
}

/// The recorded name of a prompt's model.
pub fn recorded_name(directory: &PromptDirectory) -> Option<String> {
    if let Some(passport) = &directory.passport {
        return Some(passport.base_model.name.clone());
    }
    let adapter = directory.adapter.as_ref()?;
    let name = adapter.base_model.clone()?;
    let at = |revision: &String| HubName::parse(&name)?.at(revision);
    Some(adapter.revision.as_ref().and_then(at).map_or_else(|| name.clone(), |hub| hub.to_string()))
}

/// The given model, or the prompt's own if its name is enough to find it, or the bundled model without a prompt.
///
/// # Errors
/// If the location of the prompt's model is unknown.
pub fn model_name(
    prompt: &Path,
    stated: Option<&str>,
    directory: Option<&PromptDirectory>,
) -> Result<String> {
    let Some(directory) = directory else {
        return Ok(stated.unwrap_or(foreword_tiny::NAME).to_owned());
    };
    match (stated, recorded_name(directory)) {
        (Some(model), _) => Ok(model.to_owned()),
        (None, Some(recorded)) if is_enough(&recorded) => Ok(recorded),
        (None, recorded) => {
            let of =
                recorded.map_or_else(|| "a model that it does not name".into(), |name| format!("{name:?}"));
            let prompt = prompt.display();
            Err(UserError::new(format!("the prompt {prompt} was made for {of}, whose location is unknown"))
                .hint("give the directory of that model with --model")
                .into())
        }
    }
}

/// Whether a task formats its texts and labels like the recorded one; only then are its probabilities comparable.
pub fn matches_record(task: &Task, recorded: &TaskRecord) -> bool {
    let Some(labels) = task.verbalizer() else { return false };
    let strings: BTreeMap<_, _> = labels.names().iter().zip(labels.strings()).collect();
    task.template.source() == recorded.template
        && task.chat.as_ref().map(Chat::record) == recorded.chat
        && task.placement == recorded.placement
        && task.joining == recorded.joining
        && strings.into_iter().eq(recorded.labels.iter())
}

/// The calibration stored with a prompt, if the prompt is used as trained.
fn stored(passport: &Passport, task: &Task) -> Option<Calibration> {
    let labels = task.verbalizer().filter(|_| matches_record(task, &passport.task))?;
    Calibration::of_record(passport.calibration.as_ref()?, labels)
}

/// Describes a warning.
pub fn describe(warning: &Warning) -> String {
    match warning {
        Warning::OtherFormat { here, recorded } => format!(
            "the embeddings are stored as {here}, but the prompt was trained with them as {recorded}: the same model in another \
             format, or another quantisation of it; expect small differences"
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
