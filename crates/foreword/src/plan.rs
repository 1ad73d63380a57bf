//! A resolved run: settings, data and model, with every check that is possible before training.

pub mod candidates;
pub mod checks;
pub mod data;
mod lock;
pub mod memory;
pub mod output;
pub mod splits;
mod summary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use self::candidates::PlannedCandidate;
use self::output::OutputDir;
use self::splits::{Splits, few, limited, records, with_dev};
pub use self::summary::PlanSummary;
use crate::data::fields::target_of_generation;
use crate::error::{Result, UserError};
use crate::fields::{Fields, tell_unused};
use crate::format::DataRecord;
use crate::memory::Estimate;
use crate::notice::{Notice, Observer, Recorder};
use crate::prompt::format::{self, LabelFormat, PromptFormat, TaskParts};
use crate::prompt::naming::{Named, Naming};
use crate::settings::{Init, Objective, TaskKind};
use crate::verbalizer::label_names;
use crate::{Dataset, Examples, Model, Resources, SoftPrompt, Task, TaskFile, TrainConfig, TrainState};

/// Everything that a run needs, resolved and checked. It serialises as its [`summary`](RunPlan::summary).
#[derive(Debug)]
pub struct RunPlan {
    /// The frozen model.
    pub model: Model,
    /// The task.
    pub task: Task,
    /// The fields of the data.
    pub fields: Fields,
    /// The training examples.
    pub train: Examples,
    /// The development examples.
    pub dev: Option<Examples>,
    /// The test examples.
    pub test: Option<Examples>,
    /// Map from label values in the training data to label names.
    pub label_names: BTreeMap<String, String>,
    /// The record of each split.
    pub data: BTreeMap<String, DataRecord>,
    /// What to train: one prompt, or several candidates; never empty.
    pub candidates: Vec<PlannedCandidate>,
    /// The training configuration.
    pub config: TrainConfig,
    /// The output directory.
    pub output: OutputDir,
    /// The estimated memory use.
    pub estimate: Estimate,
    /// The notices so far.
    pub notices: Vec<Notice>,
    pub(crate) started: Instant,
}

impl RunPlan {
    /// Reads the data, opens the model, and resolves the other settings.
    ///
    /// # Errors
    /// If a setting, the data, the model or the output directory can't be used as they are.
    pub fn new(settings: &TaskFile, output: OutputDir) -> Result<Self> {
        Self::with(settings, output, &Resources::default(), &())
    }

    /// As [`RunPlan::new`], with resources and an observer.
    ///
    /// # Errors
    /// As [`RunPlan::new`].
    pub fn with(
        settings: &TaskFile,
        output: OutputDir,
        resources: &Resources,
        observer: &dyn Observer,
    ) -> Result<Self> {
        Self::over(settings, Splits::read(settings, observer)?, output, resources, observer)
    }

    /// As [`RunPlan::with`], for examples already in memory.
    ///
    /// # Errors
    /// As [`RunPlan::new`].
    pub fn over(
        settings: &TaskFile,
        splits: Splits,
        output: OutputDir,
        resources: &Resources,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let started = Instant::now();
        let recorder = Recorder::new(observer);
        let mut settings = settings.clone();
        settings.train.micro_batch_tokens =
            resources.micro_batch_tokens.or(settings.train.micro_batch_tokens);
        let mut plan = Self::resolve(&settings, splits, output, resources, started, &recorder)?;
        plan.tell(&recorder);
        (&recorder as &dyn Observer).detail(|| plan.details())?;
        plan.notices = recorder.into_notices();
        Ok(plan)
    }

    fn resolve(
        file: &TaskFile,
        splits: Splits,
        output: OutputDir,
        resources: &Resources,
        started: Instant,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let mut config = TrainConfig::from(&file.train);
        positive(config.micro_batch_tokens, "micro_batch_tokens")?;
        positive(config.survivors, "ensemble")?;
        let (stated, splits) = StatedTask::find(file, splits, observer)?;
        let model_name = file.model.as_deref().unwrap_or(foreword_tiny::NAME);
        let model = Model::open_with(model_name, resources, observer)?;
        let task = stated.task(&splits.train, &model, observer)?;
        check_ensemble(&config, &task)?;
        let StatedTask { fields, mut label_names, said, .. } = stated;
        if let Some(verbalizer) = task.verbalizer() {
            label_names.retain(|_, name| verbalizer.index(name).is_some());
        }
        let splits = match task.verbalizer() {
            Some(labels) => {
                let (stated, recorded) = (file.data.label_names.as_ref(), Some(&label_names));
                let naming = Naming { stated, recorded, labels: Some(labels.names()) };
                splits.named(naming, &fields.truth, &said, observer)?
            }
            None => splits,
        };
        let splits = drawn(file, splits, (&task, &fields), config.seed, observer)?;
        let (splits, candidates) =
            candidates::planned(file, splits, (&task, &fields), &model, &mut config, observer)?;

        let n_virtual = candidates.iter().map(PlannedCandidate::n_virtual).max().unwrap_or(0);
        let examples = |dataset: &Dataset| -> Result<Examples> {
            let truth = dataset.require(&fields.truth)?;
            Ok(task.examples(&model, n_virtual, dataset, Some(truth))?)
        };
        let train = examples(&splits.train)?;
        let dev = splits.dev.as_ref().map(examples).transpose()?;
        let test = splits.test.as_ref().map(examples).transpose()?;
        checks::tell(
            [
                ("training", Some(&splits.train), Some(&train)),
                ("dev", splits.dev.as_ref(), dev.as_ref()),
                ("test", splits.test.as_ref(), test.as_ref()),
            ],
            &task,
            task.max_tokens(&model, n_virtual)?,
            file.data.strict == Some(true),
            observer,
        )?;
        let starts: Vec<&SoftPrompt> = candidates.iter().map(|planned| &planned.candidate.start).collect();
        let sizes = memory::sizes(&task, (&train, dev.as_ref()), &starts, config.batch_size, &model)?;
        let estimate = memory::fit(&mut config, &file.train, sizes, &model, observer)?;
        let data = records(&splits, &task, &fields)?;
        let notices = Vec::new();
        Ok(Self {
            model,
            task,
            fields,
            train,
            dev,
            test,
            label_names,
            data,
            candidates,
            config,
            output,
            estimate,
            notices,
            started,
        })
    }

    /// The initial rows of the first candidate.
    #[must_use]
    pub fn start(&self) -> &SoftPrompt {
        &self.candidates[0].candidate.start
    }

    /// The init of the first candidate.
    #[must_use]
    pub fn init(&self) -> &Init {
        &self.candidates[0].how.init
    }

    /// The scale of the learned rows.
    #[must_use]
    pub fn scale(&self) -> f64 {
        crate::train::scale(&self.model, self.task.method, self.start().values())
    }

    /// The initial state of the run.
    pub(crate) fn state(&self) -> TrainState {
        match &self.candidates[..] {
            [one] => one.candidate.start.clone().into(),
            several => several.iter().map(|planned| planned.candidate.clone()).collect::<Vec<_>>().into(),
        }
    }

    /// Number of passes over the training examples after this many steps.
    #[must_use]
    pub fn passes(&self, steps: u64) -> f64 {
        let batch_size = self.config.batch_size.min(self.train.n());
        steps as f64 * batch_size as f64 / self.train.n().max(1) as f64
    }

    /// P · W of the first candidate.
    #[must_use]
    pub fn n_learned(&self) -> usize {
        self.start().values().len()
    }
}

/// An ensemble needs labels to answer together.
fn check_ensemble(config: &TrainConfig, task: &Task) -> Result<()> {
    if config.survivors > 1 && task.verbalizer().is_none() {
        return Err(UserError::new(
            "an ensemble is the mean of what its members say of the labels, and a generation has none",
        )
        .hint("leave --ensemble out: --candidates alone keeps the best prompt")
        .into());
    }
    Ok(())
}

/// The task as set, with the fields of the training data.
struct StatedTask<'a> {
    file: &'a TaskFile,
    format: PromptFormat,
    fields: Fields,
    /// Map from label values in the training data to label names.
    label_names: BTreeMap<String, String>,
    /// The notices about the label names.
    said: Vec<String>,
}

impl<'a> StatedTask<'a> {
    /// Finds the template and the fields, and names the labels of the training data.
    fn find(file: &'a TaskFile, splits: Splits, observer: &dyn Observer) -> Result<(Self, Splits)> {
        let kind = kind_of(file, &splits.train, observer)?;
        let truth = match kind {
            TaskKind::Classification => file.data.label_field.as_deref(),
            TaskKind::Generation => file.data.target_field.as_deref(),
        };
        let text = file.data.text_field.as_deref();
        let together = format::together(Some(&splits.train), text, (kind, truth));
        let format = PromptFormat::find(&file.task, None, kind, together.as_deref())?;
        let mut fields = Fields::find(&splits.train, &format.template, text, (kind, truth))?;
        fields.template_guessed = format.guessed;
        let splits = splits.complete(&format.template, &fields, file, observer)?;
        let Named { dataset: train, names: label_names, field: named_by, said } =
            named(file, splits.train, &fields, observer)?;
        let beside = (Some(fields.truth.as_str()), named_by.as_deref());
        tell_unused(&train, &format.template, text, beside, observer)?;
        Ok((Self { file, format, fields, label_names, said }, Splits { train, ..splits }))
    }

    /// Builds the task for a model.
    fn task(&self, train: &Dataset, model: &Model, observer: &dyn Observer) -> Result<Task> {
        let (file, fields) = (self.file, &self.fields);
        let placement = file.prompt.placement();
        let chat = self.format.chat(model, placement, observer)?;
        let strings = LabelFormat::of(&self.format, chat.as_ref(), &file.task);
        let labels = match (fields.kind, &file.task.labels) {
            (TaskKind::Generation, _) => None,
            (TaskKind::Classification, Some(labels)) => Some(strings.stated(labels, observer)),
            (TaskKind::Classification, None) => {
                let names = label_names(train, train.require(&fields.truth)?)?;
                if file.task.kind.is_none() && file.data.label_field.is_none() {
                    checks::refuse_texts(train, &self.format.template, fields)?;
                }
                Some(strings.usual(names))
            }
        };
        let parts = TaskParts {
            format: self.format.clone(),
            chat,
            labels,
            text_field: fields.text.clone(),
            method: file.prompt.method(),
            placement,
            stated: &file.task,
            recorded: None,
        };
        parts.build(model, observer)
    }
}

/// Selects the examples to use: a few per label, or all with a dev set split off; then applies the limit.
fn drawn(
    file: &TaskFile,
    splits: Splits,
    (task, fields): (&Task, &Fields),
    seed: u64,
    observer: &dyn Observer,
) -> Result<Splits> {
    let splits = match file.data.shots {
        Some(shots) => few(splits, positive(shots, "shots")?, (task, fields), seed, observer)?,
        None => with_dev(splits, task, fields, seed, observer)?,
    };
    let limit = file.data.limit.map(|limit| positive(limit, "limit")).transpose()?;
    limited(splits, limit, task, fields, seed, observer)
}

/// The settings of a run: those of the task file, if any, overridden by `flags`; or `flags` with `input` as the training
/// data.
///
/// # Errors
/// If the task file can't be read, or settings contradict each other.
pub fn settings(input: Option<&Path>, flags: TaskFile) -> Result<TaskFile> {
    let (has_limit, has_shots) = (flags.data.limit.is_some(), flags.data.shots.is_some());
    let mut file = merged(input, flags)?;
    // A flag overrides the same setting in the task file.
    if has_limit {
        file.data.shots = None;
    }
    if has_shots {
        file.data.limit = None;
    }
    if file.data.shots.is_some() && file.data.limit.is_some() {
        return Err(UserError::new(
            "the task file has both shots and limit, which say how many examples to take",
        )
        .hint("leave one of them out")
        .into());
    }
    let train = &file.train;
    let lengths = [
        ("steps", train.steps.is_some()),
        ("epochs", train.epochs.is_some()),
        ("minutes", train.minutes.is_some()),
        ("max_steps", train.max_steps.is_some()),
    ];
    let stated: Vec<&str> =
        lengths.iter().filter(|(_, is_stated)| *is_stated).map(|(name, _)| *name).collect();
    if let [one, other, ..] = stated[..] {
        return Err(UserError::new(format!(
            "the task file has both {one} and {other}, which say how long to train"
        ))
        .hint("leave one of them out")
        .into());
    }
    Ok(file)
}

/// As [`settings`], without the checks of a run.
///
/// # Errors
/// As [`settings`].
pub fn merged(input: Option<&Path>, flags: TaskFile) -> Result<TaskFile> {
    let Some(input) = input else { return Ok(flags) };
    if is_task_file(input) {
        return Ok(TaskFile::read(input)?.overridden_by(flags));
    }
    if flags.data.train.is_some() {
        return Err(UserError::new(format!("both {} and --train name the training data", input.display()))
            .hint("give one of them")
            .into());
    }
    let mut file = flags;
    file.data.train = Some(input.to_owned());
    Ok(file)
}

/// The default prompt directory: named after the task file or the data, in the current directory.
#[must_use]
pub fn default_out(input: Option<&Path>, file: &TaskFile) -> PathBuf {
    let named_by = input.or(file.data.train.as_deref());
    if named_by.is_some_and(data::is_standard_input) {
        return PathBuf::from("stdin-prompt");
    }
    let mut stem = PathBuf::from(named_by.and_then(|path| path.file_name()).unwrap_or_default());
    if stem.extension().is_some_and(|end| end.eq_ignore_ascii_case("gz") || end.eq_ignore_ascii_case("zst")) {
        stem.set_extension("");
    }
    stem.set_extension("");
    PathBuf::from(format!("{}-prompt", stem.display()))
}

fn is_task_file(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("toml"))
}

/// The kind of task: as set, or as the settings suggest, or as the fields of the data do.
fn kind_of(file: &TaskFile, train: &Dataset, observer: &dyn Observer) -> Result<TaskKind> {
    let kind = kind(file)?;
    let data = &file.data;
    let is_open = file.task.kind.is_none() && file.task.labels.is_none() && file.task.objective.is_none();
    let is_open = is_open && data.label_field.is_none() && data.label_names.is_none();
    match target_of_generation(train).filter(|_| kind == TaskKind::Classification && is_open) {
        Some(target) => {
            observer.say(&format!(
                "the texts in the field {target:?} are generated (--kind classification takes them as labels)"
            ));
            Ok(TaskKind::Generation)
        }
        None => Ok(kind),
    }
}

/// The kind of task: as set, or as the named fields suggest.
fn kind(file: &TaskFile) -> Result<TaskKind> {
    let wrong = |message: &str, hint: &str| Err(UserError::new(message).hint(hint).into());
    let (label, target) = (file.data.label_field.is_some(), file.data.target_field.is_some());
    let labels = label || file.task.labels.is_some() || file.data.label_names.is_some();
    let kind = match (file.task.kind, target) {
        (Some(kind), _) => kind,
        (None, true) => TaskKind::Generation,
        (None, false) => TaskKind::Classification,
    };
    match kind {
        TaskKind::Classification if target => wrong(
            "a classification has a label, not a target_field",
            "name the field with --label-field, or ask for --kind generation",
        ),
        TaskKind::Generation if labels => wrong(
            "a generation has a target, not labels or a label_field",
            "name the field with --target-field, or ask for --kind classification",
        ),
        TaskKind::Generation if file.task.objective == Some(Objective::Label) => wrong(
            "a generation has no labels to choose among, so its objective can't be label",
            "leave the objective out: it is lm",
        ),
        kind => Ok(kind),
    }
}

pub(crate) fn positive(value: usize, setting: &str) -> Result<usize> {
    if value == 0 {
        return Err(UserError::new(format!("{setting} must be at least 1")).into());
    }
    Ok(value)
}

/// The training data with named labels; targets stay as they are.
fn named(file: &TaskFile, train: Dataset, fields: &Fields, observer: &dyn Observer) -> Result<Named> {
    if fields.kind == TaskKind::Generation {
        return Ok(Named { dataset: train, names: BTreeMap::new(), field: None, said: Vec::new() });
    }
    let labels = file.task.labels.as_ref();
    let labels: Option<Vec<String>> = labels.map(|labels| labels.keys().cloned().collect());
    let naming = Naming { stated: file.data.label_names.as_ref(), recorded: None, labels: labels.as_deref() };
    naming.check(&train, &fields.truth)?;
    naming.apply(train, &fields.truth, observer)
}
