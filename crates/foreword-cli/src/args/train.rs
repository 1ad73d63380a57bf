//! `foreword train`: where its examples are, what it learns, and how.

use std::path::PathBuf;

use clap::Args;
use foreword::TaskFile;
use foreword::settings::{
    CandidateCount, Init, Keep, LearningRate, Method, Schedule, Size, TaskKind, Warmup,
};

use super::{
    FieldArgs, LabelArgs, LabelNamesArgs, LossArgs, MachineArgs, ModelArgs, OutputArgs, PlaceArgs, TaskArgs,
    at_least_one, below_one, choice, not_negative,
};

pub(super) const EXAMPLES: &str = "Examples:
  foreword train reviews.csv --out sentiment
  foreword train task.toml
  foreword train task.toml --steps 800 --seed 1 --out second-try
  foreword train reviews.csv --candidates auto --out best-of-eight
  foreword train reviews.csv --method prefix --out as-keys-and-values
  foreword train restaurants.jsonl --text-field input --target-field output
  foreword train reviews.jsonl --model ./Qwen2.5-0.5B --template '{text}\\nSentiment:' \\
      --labels 'neg= negative,pos= positive' --log run.jsonl";

/// `foreword train`
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// A task file (.toml), which holds any of the settings below, or the training data; flags win over the task file
    #[arg(value_name = "TASK.toml|DATA")]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) data: SplitArgs,
    #[command(flatten)]
    pub(crate) fields: FieldArgs,
    #[command(flatten)]
    pub(crate) label_names: LabelNamesArgs,
    /// What the examples teach [default: generation where --target-field names a target, classification otherwise]
    #[arg(long, value_name = "KIND", value_parser = choice(TaskKind::ALL, TaskKind::as_str), help_heading = "Task")]
    pub(crate) kind: Option<TaskKind>,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) labels: LabelArgs,
    #[command(flatten)]
    pub(crate) loss: LossArgs,
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    #[command(flatten)]
    pub(crate) training: TrainingArgs,
    #[command(flatten)]
    pub(crate) regularizers: RegularizerArgs,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// What the run may take of memory, as 500MB or 2GB: fewer tokens at a time, and activations computed twice where that
    /// is needed; it changes no result [default: half of what is free]
    #[arg(long, value_name = "SIZE", help_heading = "Machine")]
    pub(crate) memory: Option<Size>,
    /// Placement suffix: keep on disk, in a temporary file in this directory, what memory does not take of what the model
    /// makes of each text before the prompt; it is computed again in every step otherwise, and changes no result
    #[arg(long, value_name = "DIR", help_heading = "Machine")]
    pub(crate) context_cache_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Also write the lines of --json to this file, replacing it
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) log: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Where a run's examples are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct SplitArgs {
    /// Examples to learn from: a .jsonl, .json, .csv, .tsv or .parquet file, also packed (.gz, .zst); - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) train: Option<PathBuf>,
    /// Examples to choose the best prompt by [default: a tenth of the training data, drawn by label and seed]
    #[arg(long, value_name = "FILE")]
    pub(crate) dev: Option<PathBuf>,
    /// Examples to report on; nothing is chosen by them
    #[arg(long, value_name = "FILE")]
    pub(crate) test: Option<PathBuf>,
    /// Learn from this many of the training examples, drawn by label and seed [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub(crate) limit: Option<usize>,
    /// Learn from this many examples of each label, and choose by as many others: five runs, whose examples the seeds 13, 21,
    /// 42, 87 and 100 draw, or one where --seed is given. Their mean and deviation is told
    #[arg(long, value_name = "N", value_parser = at_least_one(), conflicts_with = "limit")]
    pub(crate) shots: Option<usize>,
    /// Where the data is doubtful (empty texts, duplicates, contradictory or rare labels, test texts that are learned from, cut
    /// texts, …), end with an error instead of a warning
    #[arg(long)]
    pub(crate) strict: bool,
}

/// The soft prompt.
#[derive(Debug, Args)]
#[command(next_help_heading = "Prompt")]
pub(crate) struct PromptArgs {
    /// What is learned: a soft prompt, rows of the model's input (prompt), or a KV prefix, keys and values of each of its
    /// layers (prefix), which has many more numbers and costs nothing to compute
    #[arg(long, value_name = "METHOD", value_parser = choice(Method::ALL, Method::as_str))]
    pub(crate) method: Option<Method>,
    /// How many rows the soft prompt has
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub(crate) virtual_tokens: Option<usize>,
    /// What its rows are at first: the embeddings of a text's tokens (text:…), of the labels' (labels), of tokens drawn
    /// by chance (vocab), noise (random), training examples
    /// with their labels (demonstrations), or the rows of another prompt (from:DIR). A KV prefix begins with the keys and
    /// values that the model makes of such rows
    /// [default: text: and a sentence that names the labels]
    #[arg(long, value_name = "INIT")]
    pub(crate) init: Option<Init>,
}

/// How it learns.
#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
pub(crate) struct TrainingArgs {
    /// How many updates are made
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) steps: Option<u64>,
    /// Examples per step
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub(crate) batch_size: Option<usize>,
    /// The peak of AdamW's learning rate: a number, a share of the size of the learned rows (3%), or auto: a share that
    /// fits most models
    #[arg(long, value_name = "RATE")]
    pub(crate) learning_rate: Option<LearningRate>,
    /// How the learning rate goes after the warm-up: it stays, or falls to a tenth along a line or half a cosine
    #[arg(long, value_name = "SHAPE", value_parser = choice(Schedule::ALL, Schedule::as_str))]
    pub(crate) schedule: Option<Schedule>,
    /// Steps over which the learning rate rises, or a share of all steps if below 1
    #[arg(long, value_name = "STEPS|SHARE")]
    pub(crate) warmup: Option<Warmup>,
    /// Longer gradients are shortened to this norm; 0: none are
    #[arg(long, value_name = "NORM", value_parser = not_negative)]
    pub(crate) max_grad_norm: Option<f64>,
    /// AdamW's weight decay
    #[arg(long, value_name = "DECAY", value_parser = not_negative)]
    pub(crate) weight_decay: Option<f64>,
    /// Take the examples in the order of the file, every time
    #[arg(long)]
    pub(crate) no_shuffle: bool,
    /// Steps from one evaluation on dev to the next; 0: only at the end [default: about ten evaluations a run]
    #[arg(long, value_name = "STEPS")]
    pub(crate) eval_every: Option<u64>,
    /// Evaluations in a row without a lower loss on dev after which the run stops; 0: never
    #[arg(long, value_name = "N")]
    pub(crate) patience: Option<u64>,
    /// Which soft prompt is written: the best, which has the lowest loss on dev, or the last
    #[arg(long, value_name = "WHICH", value_parser = choice(Keep::ALL, Keep::as_str))]
    pub(crate) keep: Option<Keep>,
    /// What all that is drawn by chance is drawn from: the same seed gives the same prompt, bit for bit
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Try this many ways to learn at once and keep the best on dev, or auto: learning rates, inits and lengths are varied, as
    /// far as they are not stated, then seeds, from --seed on. The worse half leaves early, and half of the rest each time
    /// after twice as many steps
    #[arg(long, value_name = "N")]
    pub(crate) candidates: Option<CandidateCount>,
    /// Let this many of the candidates learn to the end, and write them all, to answer together: the best to --out and the
    /// others below it
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub(crate) ensemble: Option<usize>,
}

/// What keeps a soft prompt from fitting the training examples alone.
#[derive(Debug, Args)]
#[command(next_help_heading = "Regularisation")]
pub(crate) struct RegularizerArgs {
    /// The chance with which each virtual token is left out of a step
    #[arg(long, value_name = "SHARE", value_parser = below_one)]
    pub(crate) token_dropout: Option<f64>,
    /// Noise that is added to the rows in each step, its standard deviation a share of their size
    #[arg(long, value_name = "SHARE", value_parser = not_negative)]
    pub(crate) noise: Option<f64>,
    /// Judge and keep an exponential moving average of the rows, of which this share stays in each step; 0: the rows
    /// themselves
    #[arg(long, value_name = "SHARE", value_parser = below_one)]
    pub(crate) ema_decay: Option<f64>,
    /// How far a row may get from its init, as a share of its size; 0: anywhere
    #[arg(long, value_name = "SHARE", value_parser = not_negative)]
    pub(crate) trust_region: Option<f64>,
}

impl TrainArgs {
    /// The flags as a task file that holds only what was said.
    pub(crate) fn flags(&self) -> TaskFile {
        let mut file = TaskFile { model: self.model.model.clone(), ..TaskFile::default() };
        let data = &mut file.data;
        (data.train, data.dev, data.test) =
            (self.data.train.clone(), self.data.dev.clone(), self.data.test.clone());
        data.shots = self.data.shots;
        (data.limit, data.strict) = (self.data.limit, self.data.strict.then_some(true));
        self.fields.state(&mut file);
        self.task.state(&mut file);
        self.labels.state(&mut file);
        file.data.label_names = self.label_names.names();
        (file.task.kind, file.task.objective) = (self.kind, self.loss.objective);
        file.prompt.virtual_tokens = self.prompt.virtual_tokens;
        file.prompt.init = self.prompt.init.clone();
        file.prompt.method = self.prompt.method;
        let (train, flags) = (&mut file.train, &self.training);
        (train.steps, train.batch_size, train.seed) = (flags.steps, flags.batch_size, flags.seed);
        (train.learning_rate, train.schedule, train.warmup) =
            (flags.learning_rate, flags.schedule, flags.warmup);
        (train.max_grad_norm, train.weight_decay) = (flags.max_grad_norm, flags.weight_decay);
        train.shuffle = flags.no_shuffle.then_some(false);
        (train.eval_every, train.patience, train.keep) = (flags.eval_every, flags.patience, flags.keep);
        (train.candidates, train.ensemble) = (flags.candidates, flags.ensemble);
        let regularizers = &self.regularizers;
        (train.token_dropout, train.noise) = (regularizers.token_dropout, regularizers.noise);
        (train.ema_decay, train.trust_region) = (regularizers.ema_decay, regularizers.trust_region);
        (train.micro_batch_tokens, train.memory) = (self.machine.micro_batch_tokens, self.memory);
        train.context_cache_dir.clone_from(&self.context_cache_dir);
        file
    }
}
