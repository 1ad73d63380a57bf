//! `foreword train`: where its examples are, what it learns, and how.

use std::path::PathBuf;

use clap::Args;
use foreword::TaskFile;
use foreword::settings::{Init, Keep, LearningRate, Schedule, Size, TaskKind, Warmup};

use super::{
    FieldArgs, LabelArgs, LossArgs, MachineArgs, ModelArgs, OutputArgs, PlaceArgs, TaskArgs, at_least_one,
    choice, not_negative,
};

pub(super) const EXAMPLES: &str = "Examples:
  foreword train reviews.csv --out sentiment
  foreword train task.toml
  foreword train task.toml --steps 800 --seed 1 --out second-try
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
    pub(crate) machine: MachineArgs,
    /// What the run may take of memory, as 500MB or 2GB: fewer tokens at a time, and activations computed twice where that
    /// is needed; it changes no result [default: half of what is free]
    #[arg(long, value_name = "SIZE", help_heading = "Machine")]
    pub(crate) memory: Option<Size>,
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
    /// Where the data is doubtful (duplicates, contradictory or rare labels, test texts that are learned from, cut
    /// texts, …), end with an error instead of a warning
    #[arg(long)]
    pub(crate) strict: bool,
}

/// The soft prompt.
#[derive(Debug, Args)]
#[command(next_help_heading = "Prompt")]
pub(crate) struct PromptArgs {
    /// How many rows the soft prompt has
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub(crate) virtual_tokens: Option<usize>,
    /// What its rows are at first: the embeddings of a text's tokens (text:…), of the labels' (labels), of tokens drawn
    /// by chance (vocab), noise (random), or the rows of another prompt (from:DIR)
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
    /// The peak of AdamW's learning rate, or auto: a fixed share of the size of the model's embeddings
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
}

impl TrainArgs {
    /// The flags as a task file that holds only what was said.
    pub(crate) fn flags(&self) -> TaskFile {
        let mut file = TaskFile { model: self.model.model.clone(), ..TaskFile::default() };
        let data = &mut file.data;
        (data.train, data.dev, data.test) =
            (self.data.train.clone(), self.data.dev.clone(), self.data.test.clone());
        (data.limit, data.strict) = (self.data.limit, self.data.strict.then_some(true));
        (data.text_field, data.label_field) =
            (self.fields.text_field.clone(), self.fields.label_field.clone());
        file.task.template = self.task.template.as_ref().map(|template| template.0.clone());
        file.data.target_field.clone_from(&self.fields.target_field);
        file.task.kind = self.kind;
        file.task.labels = self.labels.labels.as_ref().map(|labels| labels.0.clone());
        (file.task.objective, file.task.max_length) = (self.loss.objective, self.task.max_length);
        (file.prompt.placement, file.prompt.virtual_tokens) =
            (self.task.placement, self.prompt.virtual_tokens);
        file.prompt.init = self.prompt.init.clone();
        let (train, flags) = (&mut file.train, &self.training);
        (train.steps, train.batch_size, train.seed) = (flags.steps, flags.batch_size, flags.seed);
        (train.learning_rate, train.schedule, train.warmup) =
            (flags.learning_rate, flags.schedule, flags.warmup);
        (train.max_grad_norm, train.weight_decay) = (flags.max_grad_norm, flags.weight_decay);
        train.shuffle = flags.no_shuffle.then_some(false);
        (train.eval_every, train.patience, train.keep) = (flags.eval_every, flags.patience, flags.keep);
        (train.micro_batch_tokens, train.memory) = (self.machine.micro_batch_tokens, self.memory);
        file
    }
}
