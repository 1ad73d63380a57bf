//! A prompt directory resolved: the rows, the model that they were made for, and the task that they do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use foreword::calibration::Calibration;
use foreword::chat::Chat;
use foreword::data::FieldIdx;
use foreword::format::{HubName, TaskRecord};
use foreword::generate::GenerateConfig;
use foreword::joint::Joiner;
use foreword::record::{self, Warning};
use foreword::settings::{Joining, Method, Objective, TaskKind};
use foreword::train::{
    DEFAULT_MAX_LENGTH, DEFAULT_METHOD, DEFAULT_MICRO_BATCH_TOKENS, DEFAULT_OBJECTIVE, DEFAULT_PLACEMENT,
};
use foreword::verbalizer::label_names;
use foreword::{
    Classification, Dataset, Examples, Generation, Goal, Model, Passport, PromptDirectory, SoftPrompt, Task,
    Template, Verbalizer,
};

use super::Fields;
use super::named::is_enough;
use super::naming::Naming;
use super::wording::{LabelWording, Wording, tell_continued, together};
use crate::args::{LabelArgs, MachineArgs, SourceArgs, TaskArgs};
use crate::device::{self, Machine};
use crate::exit::Given;
use crate::members::other_members;
use crate::printer::Printer;
use crate::words::{count, learned};

/// The name of no prompt: the bare model.
pub(crate) const NONE: &str = "none";

/// A soft prompt ready for use.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) model: Model<Machine>,
    pub(crate) task: Task,
    /// The prompt, and the others of its ensemble, where all are asked; none: the bare model.
    pub(crate) prompts: Vec<SoftPrompt>,
    /// The field with the text, where the prompt or a flag says it.
    pub(crate) text_field: Option<String>,
    /// The field with the label or target, where the prompt or a flag says it.
    pub(crate) truth_field: Option<String>,
    /// What stood in the training data for labels under other names, to those names.
    pub(crate) label_names: BTreeMap<String, String>,
    /// The correction of its probabilities that is stored with the prompt.
    pub(crate) calibration: Option<Calibration>,
    /// Most tokens computed at a time.
    pub(crate) budget: usize,
}

/// A prompt on a model that is somewhere else.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) task: Task,
    pub(crate) prompt: Option<SoftPrompt>,
    pub(crate) truth_field: Option<String>,
    pub(crate) calibration: Option<Calibration>,
}

impl Ready {
    /// P, of the longest member.
    pub(crate) fn n_virtual(&self) -> usize {
        self.prompts.iter().map(SoftPrompt::n_virtual).max().unwrap_or(0)
    }

    /// All members of an ensemble, or the one prompt.
    pub(crate) fn prompts(&self) -> Vec<&SoftPrompt> {
        self.prompts.iter().collect()
    }

    /// How often an example is scored.
    pub(crate) fn n_members(&self) -> usize {
        self.prompts.len().max(1)
    }

    /// What is asked, in a word.
    pub(crate) fn name(&self) -> String {
        match self.prompts.len() {
            0 => "bare model".to_owned(),
            1 => learned(self.task.method).to_owned(),
            n => format!("ensemble of {n}"),
        }
    }

    /// The data in tokens; says how many texts had to be cut.
    pub(crate) fn examples(
        &self,
        data: &Dataset,
        truth: Option<FieldIdx>,
        printer: &Printer,
    ) -> Result<Examples> {
        let examples = self.task.examples(&self.model, self.n_virtual(), data, truth)?;
        tell_cuts(&examples, printer);
        Ok(examples)
    }

    /// The data in tokens with room for new ones, and the most of those; says how many texts had to be cut.
    pub(crate) fn openings(
        &self,
        data: &Dataset,
        config: &GenerateConfig,
        printer: &Printer,
    ) -> Result<(Examples, usize)> {
        let (examples, most) = self.task.openings(&self.model, self.n_virtual(), data, config)?;
        tell_cuts(&examples, printer);
        Ok((examples, most))
    }
}

fn tell_cuts(examples: &Examples, printer: &Printer) {
    if examples.n_cut > 0 {
        let (n_cut, n) = (count(examples.n_cut as u64), count(examples.n() as u64));
        printer.warn(&format!("{n_cut} of {n} texts were cut to fit"));
    }
}

/// What is asked of a prompt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) verb: Verb,
    pub(crate) source: &'a SourceArgs,
    /// Ask the ensemble whose best member the prompt is.
    pub(crate) ensemble: bool,
    pub(crate) task: &'a TaskArgs,
    pub(crate) labels: Option<&'a LabelArgs>,
    pub(crate) fields: AskedFields<'a>,
    pub(crate) objective: Option<Objective>,
    /// The data that is asked about, whose fields say what template is meant where none is known.
    pub(crate) about: Option<&'a Dataset>,
    /// The names that a flag gives to the labels in the data.
    pub(crate) label_names: Option<&'a BTreeMap<String, String>>,
    pub(crate) machine: &'a MachineArgs,
}

/// What a prompt is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Choose among labels.
    Classify,
    /// Write texts.
    Generate,
    /// Be measured at what it was trained for.
    Eval,
}

/// The fields that flags name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AskedFields<'a> {
    pub(crate) text: Option<&'a str>,
    pub(crate) label: Option<&'a str>,
    pub(crate) target: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// Opens the prompt with its model. Labels that neither the prompt nor a flag names are those of `data`.
    pub(crate) fn resolve(self, data: Option<&Dataset>, printer: &Printer) -> Result<Ready> {
        let path = &self.source.prompt;
        let directory = (path != Path::new(NONE)).then(|| read(path)).transpose()?;
        let model = super::model(&model_name(self.source, directory.as_ref())?, self.machine, printer)?;
        let passport = directory.as_ref().and_then(|directory| directory.passport.as_ref());
        let label_names = passport.map_or_else(BTreeMap::new, |passport| passport.task.label_names.clone());
        let Resolved { task, prompt, truth_field, mut calibration } =
            self.resolve_on(&model, directory, data, printer)?;
        let mut prompts: Vec<SoftPrompt> = prompt.into_iter().collect();
        if self.ensemble {
            let members = self::others(path, task.method, &model)?;
            if members.is_empty() {
                return Err(Given::wrong(format!("the prompt {} is no ensemble's", path.display()))
                    .hint("`foreword train --candidates 8 --ensemble 3` makes one")
                    .into());
            }
            prompts.extend(members.into_iter().map(|(_, directory)| directory.rows));
            if task.verbalizer().is_none() {
                return Err(Given::wrong(
                    "an ensemble is the mean of what its members say of the labels, and this prompt writes texts",
                )
                .hint("leave --ensemble out")
                .into());
            }
            if calibration.take().is_some() {
                printer
                    .say("the calibration in foreword.json was fitted to the prompt alone, and is left out");
            }
        }
        let budget = self.machine.micro_batch_tokens.unwrap_or(DEFAULT_MICRO_BATCH_TOKENS);
        if let Some(device) = device::told(model.backbone.backend()) {
            printer.say(&format!("device    {device}"));
        }
        printer.detail(|| anyhow::Ok(vec![super::computing(&model, budget)]))?;
        let text_field = task.text_field.clone();
        Ok(Ready { model, task, prompts, text_field, truth_field, label_names, calibration, budget })
    }

    /// The same for a directory that was read, or for none, on a model that was opened.
    pub(crate) fn resolve_on(
        self,
        model: &Model<Machine>,
        directory: Option<PromptDirectory>,
        data: Option<&Dataset>,
        printer: &Printer,
    ) -> Result<Resolved> {
        if let Some(directory) = &directory {
            for warning in record::check_fit(directory, model)? {
                printer.warn(&describe(&warning));
            }
        }
        let recorded = directory.as_ref().and_then(|directory| Some(&directory.passport.as_ref()?.task));
        let kind = self.kind(recorded, printer)?;
        let text_field = self.fields.text.or(recorded.and_then(|task| task.text_field.as_deref()));
        let truth = match kind {
            TaskKind::Classification => self.fields.label,
            TaskKind::Generation => self.fields.target,
        };
        let together = together(self.about.or(data), text_field, (kind, truth));
        let wording = Wording::find(self.task.into(), recorded, kind, together.as_deref())?;
        if wording.guessed {
            printer.say(&format!(
                "template  {:?} (guessed from the fields; --template says otherwise)",
                wording.template.source()
            ));
        }
        let placement = self.task.placement.or(recorded.map(|task| task.placement));
        let placement = placement.unwrap_or(DEFAULT_PLACEMENT);
        let chat = wording.chat(model, placement, printer)?;
        let joining = recorded.map_or(Joining::Whole, |task| task.joining);
        let (truth_field, goal) = match kind {
            TaskKind::Classification => {
                let field = self.fields.label.or(recorded.and_then(|task| task.label_field.as_deref()));
                let labels =
                    self.labels(recorded, (&wording.template, chat.as_ref()), field, data, printer)?;
                let joiner = Joiner { tokenizer: &model.tokenizer, chat: chat.as_ref(), joining };
                let verbalizer = Verbalizer::after(&labels, &wording.template, &joiner)?;
                let recorded = recorded.filter(|task| task.kind == kind).map(|task| task.objective);
                let objective = self.objective.or(recorded).unwrap_or(DEFAULT_OBJECTIVE);
                (field, Goal::Classification(Classification { verbalizer, objective }))
            }
            TaskKind::Generation => {
                let field = self.fields.target.or(recorded.and_then(|task| task.target_field.as_deref()));
                (field, Goal::Generation(Generation::of(model, chat.as_ref())?))
            }
        };
        let max_length = self.task.max_length.or(recorded.map(|task| task.max_length));
        let task = Task {
            template: wording.template,
            chat,
            joining,
            text_field: text_field.map(str::to_owned),
            goal,
            method: directory.as_ref().map_or(DEFAULT_METHOD, PromptDirectory::method),
            placement,
            max_length: max_length.unwrap_or(DEFAULT_MAX_LENGTH),
        };
        tell_continued(&task, printer);
        if task.is_joined_otherwise(model)? {
            printer.warn(
                "the prompt was trained by an earlier version, which tokenised labels and targets apart from the text: here \
                 that gives other tokens or other scores than it would now; it is used as it was trained, and trained again it \
                 may do better",
            );
        }
        let truth_field = truth_field.map(str::to_owned);
        let passport = directory.as_ref().and_then(|directory| directory.passport.as_ref());
        let calibration = passport.and_then(|passport| stored(passport, &task));
        let prompt = directory.map(|directory| directory.rows);
        Ok(Resolved { task, prompt, truth_field, calibration })
    }

    /// Whether labels are chosen or texts written.
    fn kind(self, recorded: Option<&TaskRecord>, printer: &Printer) -> Result<TaskKind> {
        let trained = recorded.map(|task| task.kind);
        let prompt = self.source.prompt.display();
        match self.verb {
            Verb::Generate => {
                if trained == Some(TaskKind::Classification) {
                    printer.warn(&format!(
                        "the prompt {prompt} was trained to choose labels, which `foreword classify` does; what it writes \
                         beyond a label was never trained"
                    ));
                }
                Ok(TaskKind::Generation)
            }
            _ if self.stated_labels().is_some() => Ok(TaskKind::Classification),
            Verb::Classify if trained == Some(TaskKind::Generation) => Err(Given::wrong(format!(
                "the prompt {prompt} was trained to write texts, and has no labels"
            ))
            .hint("`foreword generate` has it write; --labels names labels to choose from all the same")
            .into()),
            Verb::Classify => Ok(TaskKind::Classification),
            Verb::Eval if self.fields.target.is_some() => Ok(TaskKind::Generation),
            Verb::Eval if self.fields.label.is_some() => Ok(TaskKind::Classification),
            Verb::Eval => Ok(trained.unwrap_or(TaskKind::Classification)),
        }
    }

    fn labels(
        self,
        recorded: Option<&TaskRecord>,
        (template, chat): (&Template, Option<&Chat>),
        label_field: Option<&str>,
        data: Option<&Dataset>,
        printer: &Printer,
    ) -> Result<BTreeMap<String, String>> {
        let exact = self.labels.is_some_and(|labels| labels.exact_labels);
        let wording = LabelWording { template, chat, exact };
        if let Some(labels) = self.stated_labels() {
            return Ok(wording.stated(labels, printer));
        }
        if let Some(recorded) = recorded.filter(|task| !task.labels.is_empty()) {
            return Ok(wording.recorded(recorded, printer));
        }
        let Some(data) = data else {
            return Err(Given::wrong("nothing says which labels there are")
                .hint("name them with their texts, as in --labels 'negative= negative,positive= positive'")
                .into());
        };
        let truth = (TaskKind::Classification, label_field);
        let fields = Fields::find(data, template, self.fields.text, truth)?;
        let naming = Naming { stated: self.label_names, ..Naming::default() };
        naming.check(data, &fields.truth)?;
        let data = naming.named(data.clone(), &fields.truth)?.dataset;
        Ok(wording.usual(label_names(&data, data.require(&fields.truth)?)?))
    }

    /// The strings of labels that a flag states.
    fn stated_labels(self) -> Option<&'a BTreeMap<String, String>> {
        Some(&self.labels?.labels.as_ref()?.0)
    }
}

/// The members beside the prompt in `path` of the ensemble that it leads, checked as it was itself; none where it leads none.
pub(crate) fn others(
    path: &Path,
    method: Method,
    model: &Model<Machine>,
) -> Result<Vec<(PathBuf, PromptDirectory)>> {
    let other = |dir: PathBuf| {
        let directory = read(&dir)?;
        record::check_fit(&directory, model)?;
        if directory.method() != method {
            let (one, other) = (path.display(), dir.display());
            return Err(Given::wrong(format!(
                "{one} and {other} are no ensemble: one is a soft prompt, the other a KV prefix"
            ))
            .hint("take the second away, or train again")
            .into());
        }
        Ok((dir, directory))
    };
    other_members(path).into_iter().map(other).collect()
}

/// The prompt directory that is there.
pub(crate) fn read(path: &Path) -> Result<PromptDirectory> {
    if !path.exists() {
        return Err(Given::wrong(format!("there is no prompt directory {}", path.display()))
            .hint("`foreword train` makes one; --prompt none is the bare model")
            .into());
    }
    Ok(PromptDirectory::read(path)?)
}

/// The name of the model that a prompt was made for, as it was recorded.
pub(crate) fn recorded_name(directory: &PromptDirectory) -> Option<String> {
    if let Some(passport) = &directory.passport {
        return Some(passport.base_model.name.clone());
    }
    let adapter = directory.adapter.as_ref()?;
    let name = adapter.base_model.clone()?;
    let at = |revision: &String| HubName::parse(&name)?.at(revision);
    Some(adapter.revision.as_ref().and_then(at).map_or_else(|| name.clone(), |hub| hub.to_string()))
}

/// The model that is given, or the prompt's own where its name is enough, or the bundled one where there is no prompt.
pub(crate) fn model_name(source: &SourceArgs, directory: Option<&PromptDirectory>) -> Result<String> {
    let Some(directory) = directory else {
        return Ok(source.model.clone().unwrap_or_else(|| foreword_tiny::NAME.to_owned()));
    };
    match (&source.model, recorded_name(directory)) {
        (Some(model), _) => Ok(model.clone()),
        (None, Some(recorded)) if is_enough(&recorded) => Ok(recorded),
        (None, recorded) => {
            let of =
                recorded.map_or_else(|| "a model that it does not name".into(), |name| format!("{name:?}"));
            let prompt = source.prompt.display();
            Err(Given::wrong(format!(
                "the prompt {prompt} was made for {of}, and nothing says where that is"
            ))
            .hint("give the directory of that model with --model")
            .into())
        }
    }
}

/// Whether a task writes its texts and labels as a recorded one: only then do its probabilities mean the same.
pub(crate) fn is_asked_as(task: &Task, recorded: &TaskRecord) -> bool {
    let Some(labels) = task.verbalizer() else { return false };
    let strings = labels.names().iter().zip(labels.strings());
    task.template.source() == recorded.template
        && task.chat.as_ref().map(Chat::record) == recorded.chat
        && task.placement == recorded.placement
        && task.joining == recorded.joining
        && strings.eq(recorded.labels.iter())
}

/// The correction of probabilities that a prompt was stored with, where it is used as it was trained.
fn stored(passport: &Passport, task: &Task) -> Option<Calibration> {
    let labels = task.verbalizer().filter(|_| is_asked_as(task, &passport.task))?;
    Calibration::of_record(passport.calibration.as_ref()?, labels)
}

/// A warning in words.
pub(crate) fn describe(warning: &Warning) -> String {
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
