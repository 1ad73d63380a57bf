//! What all rows of a comparison share: the model, the examples, and the task without tuning.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::calibration::Calibration;
use crate::data::FieldIdx;
use crate::data::fields::slot_fields;
use crate::display::count;
use crate::error::{Result, UserError};
use crate::fields::{Fields, complete, tell_unused};
use crate::format::TaskRecord;
use crate::notice::Observer;
use crate::plan::candidates::default_init;
use crate::plan::splits::strata;
use crate::plan::{checks, data};
use crate::prompt::format::{LabelFormat, PromptFormat, TaskParts, in_words, together};
use crate::prompt::naming::Naming;
use crate::prompt::open::{self, NONE, OpenRequest, Resolved};
use crate::run::size;
use crate::settings::{CalibrationMethod, Init, Objective, Placement, TaskKind};
use crate::settings::{DEFAULT_METHOD, DEFAULT_MICRO_BATCH_TOKENS, DEFAULT_PLACEMENT};
use crate::verbalizer::label_names;
use crate::{
    Dataset, Model, Passport, PromptDirectory, Resources, SoftPrompt, Task, TaskFile, Template, Verbalizer,
};

/// A request to compare prompts.
#[derive(Clone, Debug)]
pub struct CompareRequest<'a> {
    /// The data, the task and the model, as far as they are set.
    pub stated: &'a TaskFile,
    /// The prompt directories.
    pub prompts: &'a [PathBuf],
    /// Maximum number of test examples.
    pub limit: Option<usize>,
    /// The instruction; `None`: the initial text of a prompt, or a sentence that names the labels.
    pub instruction: Option<&'a str>,
    /// In-context examples per label; 0: no such row.
    pub shots: usize,
    /// The calibration of the untrained rows.
    pub calibrate: Option<CalibrationMethod>,
    /// The resources that the model may use.
    pub resources: &'a Resources,
}

/// A tuned prompt to compare, alone and, if it leads an ensemble, with the ensemble.
#[derive(Debug)]
pub struct Prompt {
    /// Its directory.
    pub path: PathBuf,
    /// Its task.
    pub task: Task,
    /// The calibration stored with it.
    pub calibration: Option<Calibration>,
    /// The prompt itself and the other members of its ensemble; never empty.
    pub members: Vec<Member>,
}

/// The contents of one prompt directory.
#[derive(Debug)]
pub struct Member {
    /// `[P, W]`.
    pub rows: SoftPrompt,
    /// Size on disk.
    pub bytes: u64,
    /// The record of its training.
    pub passport: Option<Passport>,
}

impl Member {
    fn of(path: &Path, directory: PromptDirectory) -> Result<Self> {
        let bytes = size(path).with_context(|| format!("cannot read {} again", path.display()))?;
        Ok(Self { rows: directory.rows, bytes, passport: directory.passport })
    }
}

/// The shared setup of all rows.
#[derive(Debug)]
pub struct ComparisonSetup {
    /// The name of the model.
    pub model_name: String,
    /// The model.
    pub model: Model,
    /// The task without anything learned.
    pub task: Task,
    /// The fields of the data.
    pub fields: Fields,
    /// The data for in-context examples and the majority class.
    pub train: Option<Dataset>,
    /// The data to evaluate on.
    pub test: Dataset,
    /// The true label of each test example.
    pub truths: Vec<usize>,
    /// The prompts.
    pub prompts: Vec<Prompt>,
    /// The placement of learned rows, if set; otherwise each prompt's own.
    placement: Option<Placement>,
    /// The instruction of the instruction baseline.
    pub instruction: String,
    /// The seed for sampling in-context examples and limits.
    pub seed: u64,
    /// Maximum number of in-context examples per label.
    pub shots: usize,
    /// The calibration of the untrained rows.
    pub calibrate: Option<CalibrationMethod>,
    /// Maximum number of tokens computed at a time.
    pub budget: usize,
}

impl ComparisonSetup {
    /// Opens everything to compare.
    ///
    /// # Errors
    /// If there are no test examples, or something can't be opened or does not match the rest.
    pub fn resolve(request: &CompareRequest<'_>, observer: &dyn Observer) -> Result<Self> {
        let file = request.stated;
        refuse_generation(file)?;
        let Some(test) = &file.data.test else {
            return Err(UserError::new("there is nothing to compare on")
                .hint("give examples that no prompt was trained on or chosen by, with --test FILE")
                .into());
        };
        let options = file.data.read_options();
        let paths: Vec<&Path> =
            [Some(test.as_path()), file.data.train.as_deref()].into_iter().flatten().collect();
        let mut read = data::read_all(&paths, &options, observer)?.into_iter();
        let test = read.next().ok_or_else(|| UserError::new("there is nothing to compare on"))?;
        let train = read.next();
        let directories = directories(request.prompts)?;
        let model_name = model_name(file, &directories)?;
        let known = request.resources.clone();
        let resources = directories
            .iter()
            .fold(known, |resources, (_, directory)| resources.with_ignored_keys_of(Some(directory)));
        let model = Model::open_with(&model_name, &resources, observer)?;
        let (task, fields) = task(file, &directories, (train.as_ref(), &test), &model, observer)?;
        let recorded = first_task(&directories).map(|task| &task.label_names);
        let labels = Some(task.classification()?.verbalizer.names());
        let naming = Naming { stated: file.data.label_names.as_ref(), recorded, labels };
        let test = complete(test, &task.template, &fields, file, observer)?;
        let train =
            train.map(|train| complete(train, &task.template, &fields, file, observer)).transpose()?;
        let named = naming.apply(test, &fields.truth, observer)?;
        let beside = (Some(fields.truth.as_str()), named.field.as_deref());
        let (template, text_field) = (&task.template, task.text_field.as_deref());
        tell_unused(&named.dataset, template, text_field, beside, observer)?;
        let train = match train {
            Some(train) => Some(naming.named(train, &fields.truth)?.dataset),
            None => None,
        };
        let labels = strata(&named.dataset, &task, &fields)?;
        let seed = file.train.seed.unwrap_or_default();
        let drawn = (seed, "test examples");
        let test = data::drawn(named.dataset, (&labels, fields.kind), request.limit, drawn, observer);
        checks::tell_empty("test", &test, &task, observer)?;
        let truths = strata(&test, &task, &fields)?;
        if let Some(train) = &train {
            checks::tell_overlap(train, (&test, &truths), &task, observer)?;
        }
        let instruction = instruction(request, &directories, (&task, &fields));
        let opener = Opener { request, model: &model, task: &task, fields: &fields };
        let prompts = directories
            .into_iter()
            .map(|(path, directory)| opener.prompt(path, directory, &test, observer))
            .collect::<Result<_>>()?;
        let micro_batch_tokens = request.resources.micro_batch_tokens;
        Ok(Self {
            model_name,
            model,
            task,
            fields,
            train,
            test,
            truths,
            prompts,
            placement: file.prompt.placement,
            instruction,
            seed,
            shots: request.shots,
            calibrate: request.calibrate,
            budget: micro_batch_tokens.unwrap_or(DEFAULT_MICRO_BATCH_TOKENS),
        })
    }

    /// The labels, the same for all rows.
    pub fn labels(&self) -> Result<&Verbalizer> {
        Ok(&self.task.classification()?.verbalizer)
    }

    /// The field with the true label.
    pub fn label_field(&self) -> Result<FieldIdx> {
        Ok(self.test.require(&self.fields.truth)?)
    }

    /// The text to show for a test example.
    pub fn text(&self, example: usize) -> Result<&str> {
        let slots = slot_fields(&self.task.template, &self.test, self.task.text_field.as_deref())?;
        let text = self.task.template.slots().position(|slot| slot == "text").unwrap_or(0);
        Ok(slots.values(&self.test, example)?.get(text).copied().unwrap_or(""))
    }

    /// Reports what is compared, and on which examples.
    pub fn tell(&self, observer: &dyn Observer) {
        let n = |data: &Dataset| count(data.n() as u64);
        let train = self.train.as_ref().map_or("none".to_owned(), n);
        let lines = [
            ("model", self.model_name.clone()),
            ("data", format!("{} test, {train} for in-context examples", n(&self.test))),
            ("fields", self.fields.describe(&self.task.template)),
            ("template", in_words(&self.task.template, self.task.chat.as_ref())),
        ];
        for (topic, text) in lines {
            observer.tell(topic, text);
        }
        for prompt in &self.prompts {
            let own = self.own(prompt);
            if !own.is_empty() {
                let (path, own) = (prompt.path.display(), own.join(" and "));
                observer.warn(&format!("the prompt {path} was trained with {own}, and is measured so"));
            }
        }
        if self.train.is_none() {
            observer.say(
                "no training data (--train): the majority class is that of the test examples, and the row of examples in context \
                 is left out",
            );
        }
    }

    /// How a prompt differs from the untrained rows or from the flags.
    fn own(&self, prompt: &Prompt) -> Vec<String> {
        let mut own = Vec::new();
        let (template, shared) = (prompt.task.template.source(), self.task.template.source());
        if template != shared {
            own.push(format!("the template {template:?}"));
        }
        let strings = |task: &Task| task.verbalizer().map(|labels| labels.strings().to_vec());
        if let Some(strings) = strings(&prompt.task).filter(|own| Some(own) != strings(&self.task).as_ref()) {
            own.push(format!(
                "the label texts {}",
                strings.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ")
            ));
        }
        let placement = prompt.task.placement;
        if self.placement.is_some_and(|stated| stated != placement) {
            own.push(format!("the placement {placement}"));
        }
        own
    }
}

fn refuse_generation(file: &TaskFile) -> Result<()> {
    if file.task.kind == Some(TaskKind::Generation) || file.data.target_field.is_some() {
        return Err(UserError::new("compare counts right labels, and this task is to write texts")
            .hint("`foreword eval` evaluates generation prompts")
            .into());
    }
    Ok(())
}

type Read = (PathBuf, PromptDirectory);

fn directories(paths: &[PathBuf]) -> Result<Vec<Read>> {
    let read = |path: &PathBuf| {
        if path == Path::new(NONE) {
            return Err(UserError::new(
                "--prompt none is the bare model, which has a row in every comparison",
            )
            .hint("leave it out")
            .into());
        }
        Ok((path.clone(), open::read(path)?))
    };
    paths.iter().map(read).collect()
}

/// The model set by name, or the first prompt's.
fn model_name(file: &TaskFile, directories: &[Read]) -> Result<String> {
    let (path, directory) = match directories.first() {
        Some((path, directory)) => (path.as_path(), Some(directory)),
        None => (Path::new(NONE), None),
    };
    open::model_name(path, file.model.as_deref(), directory)
}

/// The task without tuning: as set, or as the first prompt was trained.
fn task(
    file: &TaskFile,
    directories: &[Read],
    (train, test): (Option<&Dataset>, &Dataset),
    model: &Model,
    observer: &dyn Observer,
) -> Result<(Task, Fields)> {
    let recorded = first_task(directories);
    let kind = TaskKind::Classification;
    let text = file.data.text_field.as_deref().or(recorded.and_then(|task| task.text_field.as_deref()));
    let together = together(Some(test), text, (kind, file.data.label_field.as_deref()));
    let format = PromptFormat::find(&file.task, recorded, kind, together.as_deref())?;
    let placement = file.prompt.placement.or(recorded.map(|task| task.placement));
    let chat = format.chat(model, placement.unwrap_or(DEFAULT_PLACEMENT), observer)?;
    let label = file.data.label_field.as_deref().or(recorded.and_then(|task| task.label_field.as_deref()));
    let mut fields = Fields::find(test, &format.template, text, (kind, label))?;
    fields.template_guessed = format.guessed;
    let known = recorded.filter(|task| !task.labels.is_empty());
    let strings = LabelFormat::of(&format, chat.as_ref(), &file.task);
    let labels: BTreeMap<String, String> = match (&file.task.labels, known) {
        (Some(labels), _) => strings.stated(labels, observer),
        (None, Some(task)) => strings.recorded(task, observer),
        (None, None) => {
            let naming = Naming { stated: file.data.label_names.as_ref(), ..Naming::default() };
            // What is left out is reported where the data is used.
            let named_by = complete(train.unwrap_or(test).clone(), &format.template, &fields, file, &())?;
            let named_by = naming.named(named_by, &fields.truth)?.dataset;
            strings.usual(label_names(&named_by, named_by.require(&fields.truth)?)?)
        }
    };
    let mut stated = file.task.clone();
    stated.objective = Some(Objective::Label);
    stated.max_length = stated.max_length.or(recorded.map(|task| task.max_length));
    let parts = TaskParts {
        format,
        chat,
        labels: Some(labels),
        text_field: fields.text.clone(),
        method: DEFAULT_METHOD,
        placement: DEFAULT_PLACEMENT,
        stated: &stated,
        recorded: None,
    };
    // Each prompt determines how its labels are compared.
    let task = parts.build(model, if directories.is_empty() { observer } else { &() })?;
    Ok((task, fields))
}

/// The recorded task of the first prompt, if there is one.
fn first_task(directories: &[Read]) -> Option<&TaskRecord> {
    let (_, directory) = directories.first()?;
    Some(&directory.passport.as_ref()?.task)
}

/// The text of the instruction baseline: as set, or the initial text of a prompt.
fn instruction(
    request: &CompareRequest<'_>,
    directories: &[Read],
    (task, fields): (&Task, &Fields),
) -> String {
    if let Some(stated) = request.instruction {
        return stated.to_owned();
    }
    let passports = directories.iter().filter_map(|(_, directory)| directory.passport.as_ref());
    let recorded = passports.filter_map(|passport| passport.training.init.parse().ok());
    let stated = request.stated.prompt.init.iter().cloned();
    let inits = stated.chain(recorded).chain([default_init(task, fields)]);
    let text = |init| match init {
        Init::Text(text) => Some(text),
        _ => None,
    };
    inits.filter_map(text).next().unwrap_or_default()
}

/// The settings to open prompts with.
struct Opener<'a> {
    request: &'a CompareRequest<'a>,
    model: &'a Model,
    task: &'a Task,
    fields: &'a Fields,
}

impl Opener<'_> {
    /// A prompt as it was trained; a prompt without a passport uses the task as set.
    fn prompt(
        &self,
        path: PathBuf,
        directory: PromptDirectory,
        test: &Dataset,
        observer: &dyn Observer,
    ) -> Result<Prompt> {
        let recorded = directory.passport.as_ref().map(|passport| &passport.task);
        if recorded.is_some_and(|task| task.kind == TaskKind::Generation) {
            return Err(UserError::new(format!(
                "the prompt {} was trained to write texts, and compare counts right labels",
                path.display()
            ))
            .hint("`foreword eval` measures it")
            .into());
        }
        let verbalizer = &self.task.classification()?.verbalizer;
        let stated = self.stated(recorded.is_some(), verbalizer);
        let request = OpenRequest::new(&path, &stated, self.request.resources);
        let Resolved { task, calibration, .. } =
            request.resolve_on(self.model, Some(directory.clone()), Some(test), observer)?;
        let own = task.classification()?.verbalizer.names();
        if own != verbalizer.names() {
            return Err(UserError::new(format!(
                "the prompt {} has the labels {}, and the comparison {}",
                path.display(),
                own.join(", "),
                verbalizer.names().join(", ")
            ))
            .hint("compare prompts that were trained for the labels of the test data")
            .into());
        }
        let mut members = vec![Member::of(&path, directory)?];
        for (dir, directory) in open::others(&path, task.method, self.model)? {
            members.push(Member::of(&dir, directory)?);
        }
        Ok(Prompt { path, task, calibration, members })
    }

    /// The settings to open a prompt with: only the fields if it records its task.
    fn stated(&self, is_recorded: bool, verbalizer: &Verbalizer) -> TaskFile {
        let mut stated = TaskFile { model: self.request.stated.model.clone(), ..TaskFile::default() };
        stated.data.text_field.clone_from(&self.fields.text);
        stated.data.label_field = Some(self.fields.truth.clone());
        stated.task.objective = Some(Objective::Label);
        if is_recorded {
            return stated;
        }
        let template = Some(self.task.template.source().to_owned());
        match &self.task.chat {
            Some(chat) => {
                stated.task.template = Some(Template::CHAT.to_owned());
                stated.task.message = template;
                stated.task.system = chat.system().map(str::to_owned);
            }
            None => stated.task.template = template,
        }
        let strings = verbalizer.names().iter().cloned().zip(verbalizer.strings().iter().cloned());
        stated.task.labels = Some(strings.collect());
        stated.task.exact_labels = Some(true);
        stated.task.max_length = Some(self.task.max_length);
        stated.prompt.placement = self.request.stated.prompt.placement;
        stated
    }
}
