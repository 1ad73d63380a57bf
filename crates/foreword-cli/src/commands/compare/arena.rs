//! What all rows of a comparison share: the model, the examples, and the task as it is asked without tuning.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use foreword::calibration::Calibration;
use foreword::data::FieldIdx;
use foreword::data::fields::slot_fields;
use foreword::format::TaskRecord;
use foreword::joint::Joiner;
use foreword::settings::{CalibrationMethod, Init, Joining, Objective, Placement, TaskKind};
use foreword::task_file::TrainTable;
use foreword::train::{DEFAULT_MAX_LENGTH, DEFAULT_METHOD, DEFAULT_MICRO_BATCH_TOKENS, DEFAULT_PLACEMENT};
use foreword::verbalizer::label_names;
use foreword::{
    Classification, Dataset, Goal, Model, Passport, PromptDirectory, SoftPrompt, Task, TaskFile, Template,
    Verbalizer,
};

use crate::args::{
    Calibrate, CompareArgs, LabelArgs, Labels, MachineArgs, Plain, SourceArgs, TaskArgs, TemplateText,
};
use crate::device::Machine;
use crate::exit::Given;
use crate::learn::size;
use crate::printer::Printer;
use crate::resolve::begin::default_init;
use crate::resolve::naming::Naming;
use crate::resolve::prompt::{Asked, AskedFields, NONE, Resolved, Verb};
use crate::resolve::run::merged;
use crate::resolve::splits::strata;
use crate::resolve::wording::{LabelWording, Wording, in_words, tell_continued, together};
use crate::resolve::{self, Fields, data, doubts, prompt, tell_unused};
use crate::words::count;

/// A tuned prompt that is compared, alone and, where it leads an ensemble, with that.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub(crate) path: PathBuf,
    pub(crate) task: Task,
    /// The correction of its probabilities that is stored with it.
    pub(crate) calibration: Option<Calibration>,
    /// The prompt itself, and the others of its ensemble; never empty.
    pub(crate) members: Vec<Member>,
}

/// What lies in one directory.
#[derive(Debug)]
pub(crate) struct Member {
    /// `[P, W]`.
    pub(crate) rows: SoftPrompt,
    /// On disk.
    pub(crate) bytes: u64,
    pub(crate) passport: Option<Passport>,
}

impl Member {
    fn of(path: &Path, directory: PromptDirectory) -> Result<Self> {
        let bytes = size(path).with_context(|| format!("cannot read {} again", path.display()))?;
        Ok(Self { rows: directory.rows, bytes, passport: directory.passport })
    }
}

/// Where the rows meet.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) model_name: String,
    pub(crate) model: Model<Machine>,
    /// The task without anything learned.
    pub(crate) task: Task,
    pub(crate) fields: Fields,
    pub(crate) train: Option<Dataset>,
    pub(crate) test: Dataset,
    /// The true label of each test example.
    pub(crate) truths: Vec<usize>,
    pub(crate) prompts: Vec<Prompt>,
    /// Where learned rows stand, if that is stated; a prompt's own place counts.
    placement: Option<Placement>,
    /// Of the row with an instruction.
    pub(crate) instruction: String,
    pub(crate) seed: u64,
    /// How the rows without tuning are corrected.
    pub(crate) calibrate: Option<CalibrationMethod>,
    /// Most tokens computed at a time.
    pub(crate) budget: usize,
    /// What a step of training may take of memory.
    pub(crate) room: TrainTable,
}

impl Arena {
    /// Opens everything that is compared.
    pub(crate) fn resolve(args: &CompareArgs, printer: &Printer) -> Result<Self> {
        let file = merged(args.input.as_ref(), args.flags())?;
        refuse_generation(&file)?;
        let Some(test) = &file.data.test else {
            return Err(Given::wrong("there is nothing to compare on")
                .hint("give examples that no prompt was trained on or chosen by, with --test FILE")
                .into());
        };
        let test = data::read(test)?;
        let train = file.data.train.as_deref().map(data::read).transpose()?;
        let mut directories = Vec::with_capacity(args.prompts.len());
        for path in &args.prompts {
            if path == Path::new(NONE) {
                return Err(Given::wrong(
                    "--prompt none is the bare model, which has a row in every comparison",
                )
                .hint("leave it out")
                .into());
            }
            directories.push((path.clone(), prompt::read(path)?));
        }
        let model_name = model_name(&file, &directories)?;
        let model = resolve::model(&model_name, &args.machine, printer)?;
        let (task, fields) = task(&file, &directories, (train.as_ref(), &test), &model, printer)?;
        if directories.is_empty() {
            tell_continued(&task, printer);
        }
        let recorded = first_task(&directories).map(|task| &task.label_names);
        let labels = Some(task.classification()?.verbalizer.names());
        let naming = Naming { stated: file.data.label_names.as_ref(), recorded, labels };
        let named = naming.apply(test, &fields.truth, printer)?;
        let beside = (Some(fields.truth.as_str()), named.field.as_deref());
        let (template, text_field) = (&task.template, task.text_field.as_deref());
        tell_unused(&named.dataset, template, text_field, beside, printer)?;
        let train = match train {
            Some(train) => Some(naming.named(train, &fields.truth)?.dataset),
            None => None,
        };
        let labels = strata(&named.dataset, &task, &fields)?;
        let seed = file.train.seed.unwrap_or_default();
        let drawn = (seed, "test examples");
        let test = data::drawn(named.dataset, (&labels, fields.kind), args.limit, drawn, printer);
        doubts::tell_empty("test", &test, &task, printer)?;
        let truths = strata(&test, &task, &fields)?;
        if let Some(train) = &train {
            doubts::tell_overlap(train, (&test, &truths), &task, printer)?;
        }
        let instruction = instruction(args, &file, &directories, (&task, &fields));
        let opener = Opener { file: &file, model: &model, task: &task, fields: &fields, args };
        let prompts = directories
            .into_iter()
            .map(|(path, directory)| opener.prompt(path, directory, &test, printer))
            .collect::<Result<_>>()?;
        let budget = args.machine.micro_batch_tokens.unwrap_or(DEFAULT_MICRO_BATCH_TOKENS);
        let room = TrainTable {
            memory: file.train.memory,
            micro_batch_tokens: args.machine.micro_batch_tokens.or(file.train.micro_batch_tokens),
            ..TrainTable::default()
        };
        let calibrate = args.calibrate.and_then(|Calibrate(method)| method);
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
            calibrate,
            budget,
            room,
        })
    }

    /// The labels, the same for all rows.
    pub(crate) fn labels(&self) -> Result<&Verbalizer> {
        Ok(&self.task.classification()?.verbalizer)
    }

    /// The field with the true label.
    pub(crate) fn label_field(&self) -> Result<FieldIdx> {
        Ok(self.test.require(&self.fields.truth)?)
    }

    /// The text that stands for a test example.
    pub(crate) fn text(&self, example: usize) -> Result<&str> {
        let slots = slot_fields(&self.task.template, &self.test, self.task.text_field.as_deref())?;
        let text = self.task.template.slots().position(|slot| slot == "text").unwrap_or(0);
        Ok(slots.values(&self.test, example)?.get(text).copied().unwrap_or(""))
    }

    /// What is compared, and on what.
    pub(crate) fn tell(&self, printer: &Printer) {
        let n = |data: &Dataset| count(data.n() as u64);
        let train = self.train.as_ref().map_or("none".to_owned(), n);
        let lines = [
            ("model", self.model_name.clone()),
            ("data", format!("{} test, {train} to draw demonstrations from", n(&self.test))),
            ("fields", self.fields.describe(&self.task.template)),
            ("template", in_words(&self.task.template, self.task.chat.as_ref())),
        ];
        for (what, is) in lines {
            printer.say(&format!("{what:<9} {is}"));
        }
        for prompt in &self.prompts {
            let own = self.own(prompt);
            if !own.is_empty() {
                let (path, own) = (prompt.path.display(), own.join(" and "));
                printer.warn(&format!("the prompt {path} was trained with {own}, and is measured so"));
            }
        }
        if self.train.is_none() {
            printer.say("no training data: the rows of the majority class and of demonstrations are left out (--train)");
        }
    }

    /// What a prompt has otherwise than the rows without tuning, or than a flag says.
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
        return Err(Given::wrong("compare counts right labels, and this task is to write texts")
            .hint("`foreword eval` measures prompts that write")
            .into());
    }
    Ok(())
}

type Read = (PathBuf, PromptDirectory);

/// The model that is named, or the first prompt's.
fn model_name(file: &TaskFile, directories: &[Read]) -> Result<String> {
    let Some((path, directory)) = directories.first() else {
        return Ok(file.model.clone().unwrap_or_else(|| foreword_tiny::NAME.to_owned()));
    };
    let source = SourceArgs { prompt: path.clone(), model: file.model.clone() };
    prompt::model_name(&source, Some(directory))
}

/// No flags: the prompt's own task.
fn own() -> TaskArgs {
    TaskArgs { template: None, message: None, system: None, placement: None, max_length: None }
}

fn asked<'a>(
    source: &'a SourceArgs,
    task: &'a TaskArgs,
    labels: Option<&'a LabelArgs>,
    fields: AskedFields<'a>,
    machine: &'a MachineArgs,
) -> Asked<'a> {
    let objective = Some(Objective::Label);
    Asked {
        verb: Verb::Eval,
        source,
        ensemble: false,
        task,
        labels,
        fields,
        objective,
        about: None,
        label_names: None,
        machine,
    }
}

/// The task as it is asked without tuning: as it is stated, or as the first prompt was trained.
fn task(
    file: &TaskFile,
    directories: &[Read],
    (train, test): (Option<&Dataset>, &Dataset),
    model: &Model<Machine>,
    printer: &Printer,
) -> Result<(Task, Fields)> {
    let recorded = first_task(directories);
    let kind = TaskKind::Classification;
    let text = file.data.text_field.as_deref().or(recorded.and_then(|task| task.text_field.as_deref()));
    let together = together(Some(test), text, (kind, file.data.label_field.as_deref()));
    let wording = Wording::find((&file.task).into(), recorded, kind, together.as_deref())?;
    let template_guessed = wording.guessed;
    let stated = file.prompt.placement.or(recorded.map(|task| task.placement));
    let chat = wording.chat(model, stated.unwrap_or(DEFAULT_PLACEMENT), printer)?;
    let template = wording.template;
    let label = file.data.label_field.as_deref().or(recorded.and_then(|task| task.label_field.as_deref()));
    let mut fields = Fields::find(test, &template, text, (kind, label))?;
    fields.template_guessed = template_guessed;
    let known = recorded.filter(|task| !task.labels.is_empty());
    let exact = file.task.exact_labels == Some(true);
    let strings = LabelWording { template: &template, chat: chat.as_ref(), exact };
    let labels: BTreeMap<String, String> = match (&file.task.labels, known) {
        (Some(labels), _) => strings.stated(labels, printer),
        (None, Some(task)) => strings.recorded(task, printer),
        (None, None) => {
            let naming = Naming { stated: file.data.label_names.as_ref(), ..Naming::default() };
            let named_by = naming.named(train.unwrap_or(test).clone(), &fields.truth)?.dataset;
            strings.usual(label_names(&named_by, named_by.require(&fields.truth)?)?)
        }
    };
    let joiner = Joiner { tokenizer: &model.tokenizer, chat: chat.as_ref(), joining: Joining::Whole };
    let verbalizer = Verbalizer::after(&labels, &template, &joiner)?;
    let max_length = file.task.max_length.or(recorded.map(|task| task.max_length));
    let task = Task {
        template,
        chat,
        joining: Joining::Whole,
        text_field: fields.text.clone(),
        goal: Goal::Classification(Classification { verbalizer, objective: Objective::Label }),
        method: DEFAULT_METHOD,
        placement: DEFAULT_PLACEMENT,
        max_length: max_length.unwrap_or(DEFAULT_MAX_LENGTH),
    };
    Ok((task, fields))
}

/// What the first prompt was trained to do, where that is recorded.
fn first_task(directories: &[Read]) -> Option<&TaskRecord> {
    let (_, directory) = directories.first()?;
    Some(&directory.passport.as_ref()?.task)
}

/// The words that are set against what was tuned from them: those that are stated, or that a prompt began as.
fn instruction(
    args: &CompareArgs,
    file: &TaskFile,
    directories: &[Read],
    (task, fields): (&Task, &Fields),
) -> String {
    if let Some(stated) = &args.instruction {
        return stated.0.clone();
    }
    let passports = directories.iter().filter_map(|(_, directory)| directory.passport.as_ref());
    let began = passports.filter_map(|passport| passport.training.init.parse().ok());
    let stated = file.prompt.init.iter().cloned();
    let inits = stated.chain(began).chain([default_init(task, fields)]);
    inits
        .filter_map(|init| match init {
            Init::Text(text) => Some(text),
            _ => None,
        })
        .next()
        .unwrap_or_default()
}

/// What prompts are opened with.
struct Opener<'a> {
    file: &'a TaskFile,
    model: &'a Model<Machine>,
    task: &'a Task,
    fields: &'a Fields,
    args: &'a CompareArgs,
}

impl Opener<'_> {
    /// A prompt as it was trained; one without a passport does the task as it is stated.
    fn prompt(
        &self,
        path: PathBuf,
        directory: PromptDirectory,
        test: &Dataset,
        printer: &Printer,
    ) -> Result<Prompt> {
        let recorded = directory.passport.as_ref().map(|passport| &passport.task);
        if recorded.is_some_and(|task| task.kind == TaskKind::Generation) {
            return Err(Given::wrong(format!(
                "the prompt {} was trained to write texts, and compare counts right labels",
                path.display()
            ))
            .hint("`foreword eval` measures it")
            .into());
        }
        let verbalizer = &self.task.classification()?.verbalizer;
        let strings = verbalizer.names().iter().cloned().zip(verbalizer.strings().iter().cloned());
        let labels = LabelArgs { labels: Some(Labels(strings.collect())), exact_labels: true };
        let (task, labels) = if recorded.is_some() {
            (own(), None)
        } else {
            let text = Some(TemplateText(self.task.template.source().to_owned()));
            let chat = self.task.chat.as_ref();
            let (template, message) = match chat {
                Some(_) => (Some(TemplateText(Template::CHAT.to_owned())), text),
                None => (text, None),
            };
            let system = chat.and_then(|chat| chat.system()).map(|system| Plain(system.to_owned()));
            let (placement, max_length) = (self.file.prompt.placement, Some(self.task.max_length));
            (TaskArgs { template, message, system, placement, max_length }, Some(&labels))
        };
        let source = SourceArgs { prompt: path.clone(), model: self.file.model.clone() };
        let fields =
            AskedFields { text: self.fields.text.as_deref(), label: Some(&self.fields.truth), target: None };
        let asked = asked(&source, &task, labels, fields, &self.args.machine);
        let Resolved { task, calibration, .. } =
            asked.resolve_on(self.model, Some(directory.clone()), Some(test), printer)?;
        let own = task.classification()?.verbalizer.names();
        if own != verbalizer.names() {
            return Err(Given::wrong(format!(
                "the prompt {} has the labels {}, and the comparison {}",
                path.display(),
                own.join(", "),
                verbalizer.names().join(", ")
            ))
            .hint("compare prompts that were trained for the labels of the test data")
            .into());
        }
        let mut members = vec![Member::of(&path, directory)?];
        for (dir, directory) in prompt::others(&path, task.method, self.model)? {
            members.push(Member::of(&dir, directory)?);
        }
        Ok(Prompt { path, task, calibration, members })
    }
}
