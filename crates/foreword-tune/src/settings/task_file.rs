//! The task file: the settings of a run as TOML, parsed without interpretation. Missing values are resolved later.

use crate::data::{Delimiter, ReadOptions, TextEncoding};
use crate::settings::{
    CandidateCount, ClassWeights, Init, Keep, KeepBy, LearningRate, Method, Objective, Placement, Schedule,
    Size, TaskKind, Warmup,
};
use crate::settings::{
    DEFAULT_MAX_STEPS, DEFAULT_METHOD, DEFAULT_MICRO_BATCH_TOKENS, DEFAULT_PLACEMENT, DEFAULT_VIRTUAL_TOKENS,
};
use crate::train::Length;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

#[cfg(feature = "clap")]
use crate::flags;

/// Errors in a task file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskFileError {
    /// The file could not be read, or is not UTF-8 text.
    #[error("cannot read the task file {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or an invalid value.
    #[error("{path}, line {line}, column {column}: {reason}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, in characters from 1.
        column: usize,
        /// The TOML parser's message.
        reason: String,
    },
}

/// Declares a table of the task file: every key optional, no other key accepted, and `overridden_by` for all. A key may
/// have a default after it, and a flag before it in brackets: with the feature `clap` the table is then a group of flags,
/// whose help is the documentation of the keys. A flag that few people need has `hide_short_help`: `--help` shows it, `-h` does
/// not.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident {
        $($(#[doc = $field_doc:literal])* $([$($flag:tt)+])? $field:ident: $type:ty $(= $default:expr)?,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[doc = $field_doc])*
                $(#[cfg_attr(feature = "clap", arg($($flag)+))])?
                pub $field: Option<$type>,
            )+
        }

        impl $name {
            /// These settings, overridden by those set in `flags`.
            #[must_use]
            pub fn overridden_by(self, flags: Self) -> Self {
                Self { $($field: flags.$field.or(self.$field),)+ }
            }

            /// The defaults of the keys that have one, by name.
            #[must_use]
            pub fn defaults() -> Vec<(&'static str, String)> {
                Vec::from([$($({
                    let default: $type = $default;
                    (stringify!($field), default.to_string())
                },)?)+])
            }

            $($(
                /// The setting, or its default.
                #[must_use]
                pub fn $field(&self) -> $type {
                    self.$field.clone().unwrap_or($default)
                }
            )?)+
        }
    };
}

/// A task file, or the equivalent flags.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskFile {
    /// A bundled name, a local directory, a `.gguf` file or a Hugging Face id.
    pub model: Option<String>,
    /// `[data]`
    pub data: DataTable,
    /// `[task]`
    pub task: TaskTable,
    /// `[prompt]`
    pub prompt: PromptTable,
    /// `[train]`
    pub train: TrainTable,
}

table!(
    /// `[data]`: the examples and their fields.
    DataTable {
        /// The training examples.
        train: PathBuf,
        /// The development examples; absent: split off `train`.
        dev: PathBuf,
        /// The test examples.
        test: PathBuf,
        /// The encoding of text files.
        encoding: TextEncoding,
        /// The character between the cells of CSV and TSV files.
        delimiter: Delimiter,
        /// Whether the first line of CSV and TSV files is an example.
        no_header: bool,
        /// Whether rows that can't be read are left out.
        skip_bad: bool,
        /// The field for `{text}` in the template.
        text_field: String,
        /// The field with the label, for classification.
        label_field: String,
        /// Map from label values in the data to label names.
        label_names: BTreeMap<String, String>,
        /// The field with the target text, for generation.
        target_field: String,
        /// Maximum number of training examples.
        limit: usize,
        /// Few-shot training: this many examples of each label, sampled with the seed. The program repeats it with several
        /// seeds.
        shots: usize,
        /// Whether suspicious data is an error.
        strict: bool,
    }
);

impl DataTable {
    /// How the files are read.
    #[must_use]
    pub fn read_options(&self) -> ReadOptions {
        ReadOptions {
            encoding: self.encoding,
            delimiter: self.delimiter,
            no_header: self.no_header,
            skip_bad: self.skip_bad.unwrap_or(false),
        }
    }
}

table!(
    /// `[task]`: the task of the model.
    TaskTable {
        /// Classification or generation.
        kind: TaskKind,
        /// The text around the fields, before the label or target; `chat` is the model's own chat template.
        template: String,
        /// In a chat, the template of the user message.
        message: String,
        /// In a chat, the system message.
        system: String,
        /// Map from label to its text.
        labels: BTreeMap<String, String>,
        /// Whether those texts are used exactly as written.
        exact_labels: bool,
        /// The loss of a label.
        objective: Objective,
        /// Maximum number of tokens of template, text and label, without virtual tokens.
        max_length: usize,
    }
);

table!(
    /// `[prompt]`: the soft prompt.
    #[cfg_attr(feature = "clap", derive(clap::Args))]
    PromptTable {
        /// What is learned: a soft prompt, rows of the model's input (prompt), or a KV prefix, keys and values of each of its
        /// layers (prefix), which has many more numbers and costs nothing to compute
        [long, value_name = "METHOD", value_parser = flags::choice(Method::ALL, Method::as_str), hide_short_help = true]
        method: Method = DEFAULT_METHOD,
        /// Number of virtual tokens, the rows of the soft prompt
        [long, value_name = "N", value_parser = flags::at_least_one()]
        virtual_tokens: usize = DEFAULT_VIRTUAL_TOKENS,
        /// Where it stands.
        [skip]
        placement: Placement = DEFAULT_PLACEMENT,
        /// Initial rows: the embeddings of a text's tokens (text:…), of the labels' (labels), of random tokens (vocab), noise
        /// (random), training examples with their labels (demonstrations), or the rows of another prompt (from:DIR). A KV prefix
        /// starts with the keys and values that the model makes of such rows
        /// [default: text: and a sentence that names the labels]
        [long, value_name = "INIT"]
        init: Init,
    }
);

table!(
    /// `[train]`: how it learns.
    #[cfg_attr(feature = "clap", derive(clap::Args))]
    TrainTable {
        /// Number of updates. By default a run lasts until dev stops improving
        [long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..)]
        steps: u64,
        /// Number of passes over the training examples, which may be a fraction; instead of --steps
        [long, value_name = "N", value_parser = flags::positive, conflicts_with = "steps", hide_short_help = true]
        epochs: f64,
        /// Minutes for the whole run, of which it makes the best; instead of --steps
        [long, value_name = "N", value_parser = flags::positive, conflicts_with_all = ["steps", "epochs"]]
        minutes: f64,
        /// Most updates of a run that lasts until dev stops improving
        [long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..),
         conflicts_with_all = ["steps", "epochs", "minutes"], hide_short_help = true]
        max_steps: u64 = DEFAULT_MAX_STEPS,
        /// Examples per step
        [long, value_name = "N", value_parser = flags::at_least_one()]
        batch_size: usize,
        /// Peak learning rate of AdamW: a number, a share of the size of the learned rows (3%), or auto: a share that fits most
        /// models
        [long, value_name = "RATE"]
        learning_rate: LearningRate = LearningRate::Auto,
        /// Shape of the learning-rate decay: constant, linear or cosine (to 10 %); with --steps it begins after the warm-up
        [long, value_name = "SHAPE", value_parser = flags::choice(Schedule::ALL, Schedule::as_str), hide_short_help = true]
        schedule: Schedule = Schedule::Cosine,
        /// Warm-up: a number of steps, or a share of all steps if below 1 (of 200 if their number is not known)
        [long, value_name = "STEPS|SHARE", hide_short_help = true]
        warmup: Warmup = Warmup::Share(0.05),
        /// Clip the gradient norm to this value; 0 disables clipping
        [long, value_name = "NORM", value_parser = flags::not_negative, hide_short_help = true]
        max_grad_norm: f64 = 1.0,
        /// AdamW's weight decay
        [long, value_name = "DECAY", value_parser = flags::not_negative, hide_short_help = true]
        weight_decay: f64 = 0.0,
        /// Take the examples in the order of the file in every epoch
        [long = "no-shuffle", num_args = 0, default_missing_value = "false", hide_short_help = true]
        shuffle: bool = true,
        /// Steps between evaluations on dev; 0: only at the end [default: ten evaluations, or at growing distances]
        [long, value_name = "STEPS", hide_short_help = true]
        eval_every: u64,
        /// Evaluations in a row without a better one on dev, after which the learning rate decays, or with --steps the run stops;
        /// 0: never
        [long, value_name = "N", hide_short_help = true]
        patience: u64 = 5,
        /// The prompt to keep: the best on dev, or the last
        [long, value_name = "WHICH", value_parser = flags::choice(Keep::ALL, Keep::as_str), hide_short_help = true]
        keep: Keep = Keep::Best,
        /// What is better on dev: a lower loss, a higher accuracy or a higher macro-f1; on a tie, a lower loss
        /// [default: loss, or macro-f1 with --class-weights balanced]
        [long, value_name = "SCORE", value_parser = flags::choice(KeepBy::ALL, KeepBy::as_str), hide_short_help = true]
        keep_by: KeepBy,
        /// Weights of the labels in the training loss: none, or balanced, by which a rare label counts as much as a common one
        [long, value_name = "WEIGHTS", value_parser = flags::choice(ClassWeights::ALL, ClassWeights::as_str)]
        class_weights: ClassWeights = ClassWeights::None,
        /// The most tokens computed at a time.
        [skip]
        micro_batch_tokens: usize = DEFAULT_MICRO_BATCH_TOKENS,
        /// The most memory for the run, as 500MB or 2GB: fewer tokens at a time, and activation checkpointing where that is
        /// needed; it changes no result [default: half of the free memory]
        [long, value_name = "SIZE", help_heading = "Machine", hide_short_help = true]
        memory: Size,
        /// Placement suffix: keep the keys and values of each text before the prompt that do not fit into memory in a temporary
        /// file in this directory; without it they are computed again in every step. It changes no result
        [long, value_name = "DIR", help_heading = "Machine", hide_short_help = true]
        context_cache_dir: PathBuf,
        /// Random seed; the same seed gives the same prompt, bit for bit
        [long, value_name = "N"]
        seed: u64 = 0,
        /// Train this many candidates at once and keep the best on dev, or auto: learning rates, inits and lengths vary where they
        /// are not set, then seeds, from --seed on. The worse half stops early, and half of the rest each time after twice as
        /// many steps
        [long, value_name = "N"]
        candidates: CandidateCount,
        /// Train this many of the candidates to the end and write them all, to answer together: the best to --out and the others
        /// below it
        [long, value_name = "N", value_parser = flags::at_least_one(), hide_short_help = true]
        ensemble: usize = 1,
        /// Probability of dropping each virtual token in a step
        [long, value_name = "SHARE", value_parser = flags::below_one, help_heading = "Regularisation", hide_short_help = true]
        token_dropout: f64 = 0.0,
        /// Standard deviation of the noise added to the rows in each step, as a share of their size
        [long, value_name = "SHARE", value_parser = flags::not_negative, help_heading = "Regularisation", hide_short_help = true]
        noise: f64 = 0.0,
        /// Evaluate and keep an exponential moving average of the rows with this decay; 0: the rows themselves
        [long, value_name = "SHARE", value_parser = flags::below_one, help_heading = "Regularisation", hide_short_help = true]
        ema_decay: f64 = 0.0,
        /// The most that a row may move from its init, as a share of its size; 0: no limit
        [long, value_name = "SHARE", value_parser = flags::not_negative, help_heading = "Regularisation", hide_short_help = true]
        trust_region: f64 = 0.0,
    }
);

impl TrainTable {
    /// Whether it says how long to train.
    #[must_use]
    pub fn states_length(&self) -> bool {
        self.steps.is_some() || self.epochs.is_some() || self.minutes.is_some() || self.max_steps.is_some()
    }

    /// How long to train, except for `epochs` and `minutes`, which depend on the data.
    #[must_use]
    pub fn length(&self) -> Length {
        match self.steps {
            Some(steps) => Length::Steps(steps),
            None => Length::Plateau { most: self.max_steps() },
        }
    }
}

impl TaskFile {
    /// Reads a task file. Relative paths in it are relative to its folder. `model` is a path if that path exists or begins
    /// with `./` or `../`, and a name otherwise.
    pub fn read(path: &Path) -> Result<Self, TaskFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TaskFileError::Io { path: path.to_owned(), source })?;
        Ok(Self::parse(&text, path)?.relative_to(path.parent().unwrap_or(Path::new(""))))
    }

    /// The settings of this file, overridden key by key by those set in `flags`.
    #[must_use]
    pub fn overridden_by(mut self, flags: Self) -> Self {
        // Two ways to set one thing.
        if flags.train.states_length() {
            let train = &mut self.train;
            (train.steps, train.epochs, train.minutes, train.max_steps) = (None, None, None, None);
        }
        Self {
            model: flags.model.or(self.model),
            data: self.data.overridden_by(flags.data),
            task: self.task.overridden_by(flags.task),
            prompt: self.prompt.overridden_by(flags.prompt),
            train: self.train.overridden_by(flags.train),
        }
    }

    /// Parses the text of a task file; `path` is only used in messages, and paths in the text are not changed.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TaskFileError> {
        toml::from_str(text).map_err(|error| {
            let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            TaskFileError::Invalid {
                path: path.to_owned(),
                line: 1 + before.matches('\n').count(),
                column: 1 + before[line_start..].chars().count(),
                reason: error.message().trim_end().to_owned(),
            }
        })
    }

    fn relative_to(mut self, folder: &Path) -> Self {
        for path in [&mut self.data.train, &mut self.data.dev, &mut self.data.test].into_iter().flatten() {
            // A dash alone is standard input.
            if path.as_os_str() != "-" {
                *path = folder.join(&*path);
            }
        }
        if let Some(dir) = &mut self.train.context_cache_dir {
            *dir = folder.join(&*dir);
        }
        if let Some(Init::From(path)) = &mut self.prompt.init {
            *path = folder.join(&*path);
        }
        if let Some(model) = &mut self.model {
            let there = folder.join(&*model);
            let first = Path::new(&*model).components().next();
            let is_path = matches!(first, Some(Component::CurDir | Component::ParentDir)) || there.exists();
            if let (true, Some(there)) = (is_path, there.to_str()) {
                *model = there.to_owned();
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
model = "foreword-tiny"
[data]
train = "train.jsonl"
dev = "/data/dev.jsonl"
test = "more/test.jsonl"
encoding = "latin-1"
delimiter = ";"
no_header = false
skip_bad = true
text_field = "text"
label_field = "label"
label_names = { 0 = "negative", 1 = "positive" }
target_field = "output"
limit = 200
shots = 16
strict = false
[task]
kind = "classification"
template = "{text}\nSentiment:"
message = "{text}"
system = "Be brief."
labels = { negative = " negative", positive = " positive" }
exact_labels = true
objective = "label"
max_length = 512
[prompt]
virtual_tokens = 20
method = "prompt"
placement = "after-bos"
init = "text:Classify the sentiment."
[train]
steps = 400
epochs = 2.5
minutes = 3
max_steps = 900
batch_size = 32
learning_rate = "auto"
schedule = "cosine"
warmup = 0.05
max_grad_norm = 1
weight_decay = 0.0
shuffle = true
eval_every = 40
patience = 0
keep = "best"
keep_by = "macro-f1"
class_weights = "balanced"
micro_batch_tokens = 4096
memory = "2GB"
context_cache_dir = "/tmp"
seed = 0
candidates = 8
ensemble = 3
token_dropout = 0.1
noise = 0.02
ema_decay = 0.99
trust_region = 0.5
"#;

    fn parse(text: &str) -> Result<TaskFile, TaskFileError> {
        TaskFile::parse(text, Path::new("task.toml"))
    }

    fn message(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_key_is_read() {
        let file = parse(WHOLE).unwrap();
        assert_eq!(file.prompt.placement, Some(Placement::AfterBos));
        let read = file.data.read_options();
        assert_eq!((read.encoding, read.delimiter), ("cp1252".parse().ok(), "semicolon".parse().ok()));
        assert_eq!((read.no_header, read.skip_bad), (Some(false), true));
        assert_eq!(file.train.learning_rate, Some(LearningRate::Auto));
        assert_eq!(file.train.warmup, Some(Warmup::Share(0.05)));
        assert_eq!(file.train.max_grad_norm, Some(1.0));
        assert_eq!(file.task.labels.as_ref().unwrap()["negative"], " negative");
        assert!(!format!("{file:?}").contains("None"), "a key is missing from this test");
        assert_eq!(parse("").unwrap(), TaskFile::default());
    }

    #[test]
    fn mistakes_are_named_by_line_and_column() {
        let unknown = message("[train]\nsteeps = 1\n");
        assert!(
            unknown.starts_with("task.toml, line 2, column 1: unknown field `steeps`, expected one of"),
            "{unknown}"
        );
        assert!(unknown.contains("`steps`"));
        let name = message("[prompt]\nplacement = \"middle\"\n");
        assert_eq!(
            name,
            "task.toml, line 2, column 13: unknown placement \"middle\", expected one of: front, after-bos, system, suffix"
        );
        assert!(message("[train]\nsteps = -1\n").starts_with("task.toml, line 2, column 9: invalid value"));
        assert!(message("[train]\nlearning_rate = -1\n").contains("neither \"auto\" nor a number above 0"));
        assert!(message("[train]\nwarmup = true\n").contains("a number of steps, or a share"));
        assert!(message("modle = 1\n").contains("unknown field `modle`"));
        assert!(
            message("[data]\nencoding = \"x\"\n").contains("\"x\" is no encoding of the Encoding Standard")
        );
        assert!(message("[data]\ndelimiter = \"::\"\n").contains("\"::\" is no delimiter"));
        assert!(message("é = [\n").starts_with("task.toml, line 1"));
        assert!(
            message("[train]\nsteps = 1\nsteps = 2\n")
                .starts_with("task.toml, line 3, column 1: duplicate key")
        );
    }

    #[test]
    fn numbers_may_be_whole() {
        let file = parse("[train]\nlearning_rate = 1\nwarmup = 20\n").unwrap();
        assert_eq!(file.train.learning_rate, Some(LearningRate::Value(1.0)));
        assert_eq!(file.train.warmup, Some(Warmup::Steps(20)));
    }

    #[test]
    fn flags_win_key_by_key() {
        let flags = parse("[train]\nsteps = 7\n[task]\nlabels = { a = \"A\", b = \"B\" }\n").unwrap();
        let file = parse(WHOLE).unwrap().overridden_by(flags);
        assert_eq!(file.train.steps, Some(7));
        assert_eq!(file.train.batch_size, Some(32));
        assert_eq!(file.task.labels.unwrap().len(), 2);
        assert_eq!(parse(WHOLE).unwrap().overridden_by(TaskFile::default()), parse(WHOLE).unwrap());
    }

    #[test]
    fn paths_are_relative_to_the_files_folder_and_names_are_not_paths() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task.toml");
        std::fs::create_dir(folder.path().join("my-model")).unwrap();
        for (model, expected) in [
            ("foreword-tiny", "foreword-tiny".to_owned()),
            ("org/name", "org/name".to_owned()),
            ("my-model", folder.path().join("my-model").display().to_string()),
            ("../elsewhere", folder.path().join("../elsewhere").display().to_string()),
        ] {
            let text = WHOLE
                .replace("foreword-tiny", model)
                .replace("text:Classify the sentiment.", "from:prompts/a");
            std::fs::write(&path, text).unwrap();
            let file = TaskFile::read(&path).unwrap();
            assert_eq!(file.model.unwrap(), expected);
            assert_eq!(file.data.train.unwrap(), folder.path().join("train.jsonl"));
            assert_eq!(file.data.dev.unwrap(), Path::new("/data/dev.jsonl"));
            assert_eq!(file.prompt.init.unwrap(), Init::From(folder.path().join("prompts/a")));
        }
        let missing = TaskFile::read(&folder.path().join("none.toml")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read the task file") && missing.contains("none.toml"));
    }
}
