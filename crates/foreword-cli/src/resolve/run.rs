//! A run resolved: flags and task file with what they name, everything checked that can be checked before learning.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use foreword::chat::Chat;
use foreword::format::{DataRecord, check_vacant};
use foreword::joint::Joiner;
use foreword::memory::Estimate;
use foreword::regularize::Regularizers;
use foreword::settings::{Init, Joining, Method, Objective, TaskKind};
use foreword::task_file::TrainTable;
use foreword::train::{
    DEFAULT_MAX_LENGTH, DEFAULT_METHOD, DEFAULT_OBJECTIVE, DEFAULT_PLACEMENT, default_batch_size,
};
use foreword::verbalizer::label_names;
use foreword::{
    Classification, Dataset, Examples, Generation, Goal, Model, Overwrite, SoftPrompt, Task, TaskFile,
    Template, TrainConfig, TrainState, Verbalizer,
};

use super::begin::{self, Tried, default_init};
use super::naming::{Named, Naming};
use super::splits::{Splits, few, limited, records, with_dev};
use super::wording::{self, LabelWording, Wording};
use super::{Fields, data, doubts, memory, tell_unused};
use crate::args::{MachineArgs, PlaceArgs, TrainArgs};
use crate::checkpoints;
use crate::device::{self, Machine};
use crate::exit::{self, Given};
use crate::printer::Printer;
use crate::words::{count, in_a_line};

/// Where the prompt goes.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The directory.
    pub(crate) out: PathBuf,
    /// What if there is one already.
    pub(crate) overwrite: Overwrite,
    /// Go on with the checkpoint that is there.
    pub(crate) resume: bool,
}

impl Place {
    /// Checks that a prompt can be written there, before any work is done.
    pub(crate) fn check(args: &PlaceArgs, default: impl FnOnce() -> PathBuf) -> Result<Self> {
        let out = args.out.clone().unwrap_or_else(default);
        let overwrite = if args.force || args.resume { Overwrite::Replace } else { Overwrite::Refuse };
        if out.as_os_str().is_empty() {
            return Err(Given::wrong("--out is empty")
                .hint("give the directory to write the prompt to")
                .into());
        }
        let there = nearest(&out);
        let unwritable = |why: &str| {
            let (out, there) = (out.display(), there.display());
            Given::wrong(format!("cannot write a prompt to --out {out}: {there} {why}"))
        };
        if !there.is_dir() {
            return Err(unwritable("is not a directory").into());
        }
        let unfinished = checkpoints::is_there(&out);
        if args.resume && !unfinished {
            return Err(Given::wrong(format!(
                "there is nothing to resume: {} has no checkpoint",
                out.display()
            ))
            .hint("leave out --resume to begin; a run that ended takes its checkpoint away")
            .into());
        }
        if overwrite == Overwrite::Refuse {
            if unfinished {
                return Err(Given::wrong(format!("{} holds a run that did not end", out.display()))
                    .hint("--resume goes on with it, --force begins anew")
                    .into());
            }
            check_vacant(&out)?;
        }
        tempfile::tempfile_in(&there).map_err(|error| {
            let what = format!("a prompt to --out {}", out.display());
            exit::unwritable(what, error, |why| unwritable(&format!("takes no files ({why})")))
        })?;
        Ok(Self { out, overwrite, resume: args.resume })
    }
}

/// The path itself, or the nearest above it that exists.
fn nearest(out: &Path) -> PathBuf {
    let existing = out.ancestors().find(|path| !path.as_os_str().is_empty() && path.exists());
    existing.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Different values up to which a field whose name was guessed is taken for labels, however few examples there are.
const MOST_GUESSED: usize = 20;

/// Everything a run needs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What `--model` named.
    pub(crate) model_name: String,
    pub(crate) model: Model<Machine>,
    pub(crate) task: Task,
    pub(crate) fields: Fields,
    pub(crate) train: Examples,
    pub(crate) dev: Option<Examples>,
    pub(crate) test: Option<Examples>,
    /// What stood in the training data for labels under other names, to those names.
    pub(crate) label_names: BTreeMap<String, String>,
    /// Per split, what was used.
    pub(crate) data: BTreeMap<String, DataRecord>,
    /// How it begins; with several candidates the first of them.
    pub(crate) init: Init,
    pub(crate) start: SoftPrompt,
    /// The candidates, if there are several.
    pub(crate) tried: Vec<Tried>,
    pub(crate) config: TrainConfig,
    pub(crate) place: Place,
    /// What it will take of memory.
    pub(crate) estimate: Estimate,
    /// When the run began.
    pub(crate) started: Instant,
}

impl Plan {
    /// Resolves the settings over these examples, and tells what was decided.
    pub(crate) fn new(
        file: &TaskFile,
        splits: Splits,
        place: Place,
        machine: &MachineArgs,
        printer: &Printer,
    ) -> Result<Self> {
        let started = Instant::now();
        let mut config = config(&file.train)?;
        let kind = kind(file)?;
        let truth = match kind {
            TaskKind::Classification => file.data.label_field.as_deref(),
            TaskKind::Generation => file.data.target_field.as_deref(),
        };
        let text = file.data.text_field.as_deref();
        let together = wording::together(Some(&splits.train), text, (kind, truth));
        let wording = Wording::find((&file.task).into(), None, kind, together.as_deref())?;
        let template = wording.template.clone();
        let mut fields = Fields::find(&splits.train, &template, text, (kind, truth))?;
        fields.template_guessed = wording.guessed;
        let stated = file.data.label_names.as_ref();
        let Named { dataset: train, names: mut label_names, field: named_by, said } =
            named(file, splits.train, &fields, printer)?;
        let splits = Splits { train, ..splits };
        tell_unused(&splits.train, &template, text, (Some(&fields.truth), named_by.as_deref()), printer)?;

        let model_name = file.model.as_deref().unwrap_or(foreword_tiny::NAME);
        let model = super::model(model_name, machine, printer)?;
        let placement = file.prompt.placement.unwrap_or(DEFAULT_PLACEMENT);
        let chat = wording.chat(&model, placement, printer)?;
        let task = Task {
            text_field: fields.text.clone(),
            goal: goal(file, &splits.train, &fields, (&model, chat.as_ref()), &template, printer)?,
            template,
            chat,
            joining: Joining::Whole,
            method: file.prompt.method.unwrap_or(DEFAULT_METHOD),
            placement,
            max_length: positive(file.task.max_length.unwrap_or(DEFAULT_MAX_LENGTH), "max_length")?,
        };
        wording::tell_continued(&task, printer);
        if config.survivors > 1 && task.verbalizer().is_none() {
            return Err(Given::wrong(
                "an ensemble is the mean of what its members say of the labels, and a generation has none",
            )
            .hint("leave --ensemble out: --candidates alone keeps the best prompt")
            .into());
        }
        if let Some(verbalizer) = task.verbalizer() {
            label_names.retain(|_, name| verbalizer.index(name).is_some());
        }
        let splits = match task.verbalizer() {
            Some(labels) => {
                let (recorded, labels) = (Some(&label_names), Some(labels.names()));
                splits.named(Naming { stated, recorded, labels }, &fields.truth, &said, printer)?
            }
            None => splits,
        };
        let splits = match file.data.shots {
            Some(shots) => few(splits, positive(shots, "shots")?, &task, &fields, config.seed)?,
            None => with_dev(splits, &task, &fields, config.seed, printer)?,
        };
        let limit = file.data.limit.map(|limit| positive(limit, "limit")).transpose()?;
        let splits = limited(splits, limit, &task, &fields, config.seed, printer)?;
        let init = file.prompt.init.clone().unwrap_or_else(|| default_init(&task, &fields));
        let shown = begin::shown(&init, file, (&model, &task), (&splits.train, &fields), config.seed)?;
        let splits = begin::without_shown(splits, shown.as_ref(), &task)?;
        config.batch_size = file.train.batch_size.unwrap_or_else(|| default_batch_size(splits.train.n()));
        let start = match &shown {
            Some(shown) => shown.start.clone(),
            None => begin::start(&init, file.prompt.virtual_tokens, &model, &task, config.seed, printer)?,
        };
        if let (Some(shown), Method::Prefix) = (&shown, task.method) {
            config.demonstrations.clone_from(&shown.demonstrations);
        }
        let tried = begin::tried(file, (&task, &fields), &model, &config, shown.as_ref())?;
        if tried.len() > 1 && splits.dev.is_none() {
            return Err(Given::wrong("there are too few examples to choose among candidates by")
                .hint("give dev examples with --dev, or leave out --candidates")
                .into());
        }
        let longest = tried.iter().map(|tried| tried.candidate.start.n_virtual()).max().unwrap_or(0);
        let n_virtual = longest.max(start.n_virtual());

        let examples = |dataset: &Dataset| {
            let truth = dataset.require(&fields.truth)?;
            anyhow::Ok(task.examples(&model, n_virtual, dataset, Some(truth))?)
        };
        let train = examples(&splits.train)?;
        let dev = splits.dev.as_ref().map(examples).transpose()?;
        let test = splits.test.as_ref().map(examples).transpose()?;
        let read = [
            ("training", Some(&splits.train), Some(&train)),
            ("dev", splits.dev.as_ref(), dev.as_ref()),
            ("test", splits.test.as_ref(), test.as_ref()),
        ];
        let room = task.room(&model, n_virtual)?;
        doubts::tell(read, &task, room, file.data.strict == Some(true), printer)?;
        let starts: Vec<&SoftPrompt> = match &tried[..] {
            [] => vec![&start],
            tried => tried.iter().map(|tried| &tried.candidate.start).collect(),
        };
        let sizes = memory::sizes(&task, (&train, dev.as_ref()), &starts, config.batch_size, &model)?;
        let estimate = memory::fit(&mut config, &file.train, sizes, &model, printer)?;
        let (data, model_name) = (records(&splits, &task, &fields)?, model_name.to_owned());
        let plan = Self {
            model_name,
            model,
            task,
            fields,
            train,
            dev,
            test,
            label_names,
            data,
            init,
            start,
            tried,
            config,
            place,
            estimate,
            started,
        };
        plan.tell(printer);
        printer.detail(|| plan.details())?;
        Ok(plan)
    }

    /// The scale of the learned rows.
    pub(crate) fn scale(&self) -> f64 {
        foreword::train::scale(&self.model, self.task.method, self.start.values())
    }

    /// Where the run begins.
    pub(crate) fn progress(&self) -> TrainState {
        match &self.tried[..] {
            [] => self.start.clone().into(),
            tried => tried.iter().map(|tried| tried.candidate.clone()).collect::<Vec<_>>().into(),
        }
    }

    fn trying(&self) -> String {
        match self.tried.len() {
            0 => String::new(),
            n => format!(
                "{n} candidates at once, of which the worse half leaves until {} {} left; the first is the one above",
                self.config.survivors,
                if self.config.survivors == 1 { "is" } else { "are" }
            ),
        }
    }

    /// P · W.
    pub(crate) fn n_learned(&self) -> usize {
        self.start.values().len()
    }

    fn details(&self) -> Result<Vec<(&'static str, String)>> {
        let stem = self.task.shared_prefix(&self.model, &self.train, self.start.n_virtual())?;
        let shared = format!(
            "{} tokens that all training texts begin with, computed once for all of them",
            stem.n_shared()
        );
        Ok(vec![super::computing(&self.model, self.config.micro_batch_tokens), ("shared", shared)])
    }

    fn tell(&self, printer: &Printer) {
        let spec = self.model.backbone.spec();
        let n = |examples: &Option<Examples>| count(examples.as_ref().map_or(0, Examples::n) as u64);
        let labels = self.task.verbalizer().map(|labels| {
            let labels = labels.names().iter().zip(labels.strings());
            labels
                .map(|(name, string)| format!("{} → {string:?}", in_a_line(name)))
                .collect::<Vec<_>>()
                .join(", ")
        });
        let rate = self.config.peak_rate(self.task.method, self.scale());
        let (n_virtual, hidden) = (self.start.n_virtual(), self.start.width());
        let lines = [
            (
                "model",
                format!("{}, {} numbers, all frozen", self.model_name, count(spec.n_parameters() as u64)),
            ),
            (
                "data",
                format!(
                    "{} to train on, {} dev, {} test",
                    count(self.train.n() as u64),
                    n(&self.dev),
                    n(&self.test)
                ),
            ),
            ("fields", self.fields.describe(&self.task.template)),
            ("template", wording::in_words(&self.task.template, self.task.chat.as_ref())),
            ("labels", labels.unwrap_or_default()),
            ("init", in_a_line(&self.init.to_string())),
            (
                "learning",
                format!(
                    "{} numbers ({n_virtual} virtual tokens × {hidden}), {} steps of {} examples, learning rate {rate:.2e}",
                    count(self.n_learned() as u64),
                    count(self.config.steps),
                    self.config.batch_size
                ),
            ),
            ("trying", self.trying()),
            ("device", device::told(self.model.backbone.backend()).map(str::to_owned).unwrap_or_default()),
            ("memory", memory::in_words(&self.estimate, &self.config)),
            ("out", self.place.out.display().to_string()),
        ];
        for (what, is) in lines.into_iter().filter(|(_, is)| !is.is_empty()) {
            printer.say(&format!("{what:<9} {is}"));
        }
    }
}

/// The task file's settings, or none, with the flags' in their place; the data where the positional names it.
pub(crate) fn settings(args: &TrainArgs) -> Result<TaskFile> {
    let mut file = merged(args.input.as_ref(), args.flags())?;
    // A flag wins over what the task file says of the same thing.
    if args.data.limit.is_some() {
        file.data.shots = None;
    }
    if args.data.shots.is_some() {
        file.data.limit = None;
    }
    if file.data.shots.is_some() && file.data.limit.is_some() {
        return Err(Given::wrong(
            "the task file has both shots and limit, which say how many examples to take",
        )
        .hint("leave one of them out")
        .into());
    }
    Ok(file)
}

/// The same for any verb that takes a task file.
pub(crate) fn merged(input: Option<&PathBuf>, flags: TaskFile) -> Result<TaskFile> {
    let Some(input) = input else { return Ok(flags) };
    if is_task_file(input) {
        return Ok(TaskFile::read(input)?.overridden_by(flags));
    }
    if flags.data.train.is_some() {
        return Err(Given::wrong(format!("both {} and --train name the training data", input.display()))
            .hint("give one of them")
            .into());
    }
    let mut file = flags;
    file.data.train = Some(input.clone());
    Ok(file)
}

/// The prompt directory of a run that names none: after the task file or the data, in the current directory.
pub(crate) fn default_out(args: &TrainArgs, file: &TaskFile) -> PathBuf {
    let named_by = args.input.as_ref().or(file.data.train.as_ref());
    if named_by.is_some_and(|path| data::is_standard_input(path)) {
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

/// Whether labels are learned or texts to write: what is stated, or what the named fields hold.
fn kind(file: &TaskFile) -> Result<TaskKind> {
    let wrong = |message: &str, hint: &str| Err(Given::wrong(message).hint(hint).into());
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

/// The defaults with the settings in their place.
fn config(table: &TrainTable) -> Result<TrainConfig> {
    let default = TrainConfig::default();
    let micro_batch_tokens = table.micro_batch_tokens.unwrap_or(default.micro_batch_tokens);
    Ok(TrainConfig {
        steps: table.steps.unwrap_or(default.steps),
        batch_size: default.batch_size,
        learning_rate: table.learning_rate.unwrap_or(default.learning_rate),
        schedule: table.schedule.unwrap_or(default.schedule),
        warmup: table.warmup.unwrap_or(default.warmup),
        max_grad_norm: table.max_grad_norm.unwrap_or(default.max_grad_norm),
        weight_decay: table.weight_decay.unwrap_or(default.weight_decay),
        shuffle: table.shuffle.unwrap_or(default.shuffle),
        eval_every: table.eval_every.or(default.eval_every),
        patience: table.patience.unwrap_or(default.patience),
        keep: table.keep.unwrap_or(default.keep),
        seed: table.seed.unwrap_or(default.seed),
        micro_batch_tokens: positive(micro_batch_tokens, "micro_batch_tokens")?,
        recompute: default.recompute,
        regularizers: Regularizers {
            token_dropout: table.token_dropout.unwrap_or(default.regularizers.token_dropout),
            noise: table.noise.unwrap_or(default.regularizers.noise),
            ema_decay: table.ema_decay.unwrap_or(default.regularizers.ema_decay),
            trust_region: table.trust_region.unwrap_or(default.regularizers.trust_region),
        },
        demonstrations: default.demonstrations,
        cache_budget: default.cache_budget,
        survivors: positive(table.ensemble.unwrap_or(default.survivors), "ensemble")?,
    })
}

fn positive(value: usize, setting: &str) -> Result<usize> {
    if value == 0 {
        return Err(Given::wrong(format!("{setting} must be at least 1")).into());
    }
    Ok(value)
}

/// The training data with its labels named; targets are as they are.
fn named(file: &TaskFile, train: Dataset, fields: &Fields, printer: &Printer) -> Result<Named> {
    if fields.kind == TaskKind::Generation {
        return Ok(Named { dataset: train, names: BTreeMap::new(), field: None, said: Vec::new() });
    }
    let labels = file.task.labels.as_ref();
    let labels: Option<Vec<String>> = labels.map(|labels| labels.keys().cloned().collect());
    let naming = Naming { stated: file.data.label_names.as_ref(), recorded: None, labels: labels.as_deref() };
    naming.check(&train, &fields.truth)?;
    naming.apply(train, &fields.truth, printer)
}

/// What the examples are to teach: the labels that are stated, or those of the training data; or to write their targets.
fn goal(
    file: &TaskFile,
    train: &Dataset,
    fields: &Fields,
    (model, chat): (&Model<Machine>, Option<&Chat>),
    template: &Template,
    printer: &Printer,
) -> Result<Goal> {
    if fields.kind == TaskKind::Generation {
        return Ok(Goal::Generation(Generation::of(model, chat)?));
    }
    let wording = LabelWording { template, chat, exact: file.task.exact_labels == Some(true) };
    let labels = match &file.task.labels {
        Some(labels) => wording.stated(labels, printer),
        None => {
            let names = label_names(train, train.require(&fields.truth)?)?;
            if file.task.kind.is_none() && file.data.label_field.is_none() {
                refuse_texts(names.len(), train.n(), &fields.truth)?;
            }
            wording.usual(names)
        }
    };
    let joiner = Joiner { tokenizer: &model.tokenizer, chat, joining: Joining::Whole };
    let verbalizer = Verbalizer::after(&labels, template, &joiner)?;
    let objective = file.task.objective.unwrap_or(DEFAULT_OBJECTIVE);
    Ok(Goal::Classification(Classification { verbalizer, objective }))
}

/// What hardly ever comes twice is no label, and nobody has said that it is.
fn refuse_texts(n_labels: usize, n: usize, field: &str) -> Result<()> {
    if n_labels <= MOST_GUESSED || 2 * n_labels <= n {
        return Ok(());
    }
    let (n_labels, n) = (count(n_labels as u64), count(n as u64));
    Err(Given::wrong(format!("the field {field:?} has {n_labels} different values in {n} examples: they are hardly labels"))
        .hint(format!(
            "--target-field {field} teaches to write them; --label-field names the field with the label, {field:?} too"
        ))
        .into())
}
