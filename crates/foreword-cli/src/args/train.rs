//! `foreword train`: the data, the task and the training settings.

use std::path::PathBuf;

use clap::Args;
use foreword::TaskFile;
use foreword::settings::TaskKind;
use foreword::task_file::{PromptTable, TrainTable};

use super::{
    FieldArgs, LabelArgs, LabelNamesArgs, LossArgs, MachineArgs, ModelArgs, OutputArgs, OutputDirArgs,
    ReadArgs, TaskArgs, at_least_one, choice,
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
    /// A task file (.toml), with any of the settings below, or the training data; flags override the task file
    #[arg(value_name = "TASK.toml|DATA")]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) data: SplitArgs,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    #[command(flatten)]
    pub(crate) fields: FieldArgs,
    #[command(flatten)]
    pub(crate) label_names: LabelNamesArgs,
    /// Task type [default: generation where --target-field names a target, classification otherwise]
    #[arg(long, value_name = "KIND", value_parser = choice(TaskKind::ALL, TaskKind::as_str), help_heading = "Task", hide_short_help = true)]
    pub(crate) kind: Option<TaskKind>,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) labels: LabelArgs,
    #[command(flatten)]
    pub(crate) loss: LossArgs,
    #[command(flatten, next_help_heading = "Prompt")]
    pub(crate) prompt: PromptTable,
    #[command(flatten, next_help_heading = "Training")]
    pub(crate) training: TrainTable,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) output_dir: OutputDirArgs,
    /// Also write the lines of --json to this file; an existing file is overwritten
    #[arg(long, value_name = "FILE", help_heading = "Output", hide_short_help = true)]
    pub(crate) log: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// The data of a run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct SplitArgs {
    /// Training examples: a .jsonl, .json, .csv, .tsv, .txt, .parquet or .arrow file, optionally compressed (.gz, .zst); a
    /// directory with a folder of texts for each label, or from Hugging Face save_to_disk; - reads standard input
    #[arg(long, alias = "data", value_name = "FILE")]
    pub(crate) train: Option<PathBuf>,
    /// Development examples, to select the best prompt [default: a tenth of the training data, drawn by label and seed]
    #[arg(long, value_name = "FILE")]
    pub(crate) dev: Option<PathBuf>,
    /// Test examples, only for the report; nothing is selected on them
    #[arg(long, value_name = "FILE")]
    pub(crate) test: Option<PathBuf>,
    /// Train on this many of the training examples, stratified by label and sampled with the seed [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub(crate) limit: Option<usize>,
    /// Few-shot training: train on this many examples of each label, with as many others as dev set. Five runs sample the
    /// examples with the seeds 13, 21, 42, 87 and 100, and their mean and standard deviation are reported; with --seed
    /// there is one run
    #[arg(long, value_name = "N", value_parser = at_least_one(), conflicts_with = "limit", hide_short_help = true)]
    pub(crate) shots: Option<usize>,
    /// Fail instead of warning about suspicious data (empty texts, duplicates, contradictory or rare labels, test texts in
    /// the training data, truncated texts, …)
    #[arg(long, hide_short_help = true)]
    pub(crate) strict: bool,
}

impl TrainArgs {
    /// The flags as a task file that contains only what was set.
    pub(crate) fn flags(&self) -> TaskFile {
        let (prompt, train) = (self.prompt.clone(), self.training.clone());
        let mut file = TaskFile { model: self.model.model.clone(), prompt, train, ..TaskFile::default() };
        let data = &mut file.data;
        (data.train, data.dev, data.test) =
            (self.data.train.clone(), self.data.dev.clone(), self.data.test.clone());
        data.shots = self.data.shots;
        (data.limit, data.strict) = (self.data.limit, self.data.strict.then_some(true));
        data.label_names = self.label_names.names();
        self.read.state(&mut file);
        self.fields.state(&mut file);
        self.task.state(&mut file);
        self.labels.state(&mut file);
        (file.task.kind, file.task.objective) = (self.kind, self.loss.objective);
        file
    }
}
