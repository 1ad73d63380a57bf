//! `foreword compare`: what is set side by side, and on which examples.

use std::path::PathBuf;

use clap::Args;
use foreword::TaskFile;
use foreword::prompt::calibration::Calibrate;

use super::calibration::calibrate_answers;
use super::texts::{Plain, written};
use crate::command_line::quoted;

use super::{LabelArgs, LabelNamesArgs, Labels, MachineArgs, ModelArgs, OutputArgs, TaskArgs, at_least_one};

pub(super) const EXAMPLES: &str = "Examples:
  foreword compare task.toml --prompt sentiment
  foreword compare task.toml --prompt seed-1 --prompt seed-2 --prompt seed-3     (and all three together)
  foreword compare --prompt sentiment --train train.jsonl --test test.jsonl --shots 8 --json
  foreword compare task.toml --prompt sentiment --calibrate content-free
  foreword compare task.toml --instruction 'Is the review good or bad?'          (before anything is tuned)";

/// Demonstrations of each label, if nobody says how many.
pub(super) const DEFAULT_SHOTS: usize = 4;
/// Examples shown in each direction, if nobody says how many.
pub(super) const DEFAULT_FLIPS: usize = 3;

/// `foreword compare`
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// A task file (.toml), as `train` takes it, or the training data; flags win over the task file
    #[arg(value_name = "TASK.toml|DATA")]
    pub(crate) input: Option<PathBuf>,
    /// A prompt directory to compare, with a row more where it leads an ensemble; given again, it adds another, and with two
    /// or more there is a row for all together
    #[arg(long = "prompt", value_name = "DIR")]
    pub(crate) prompts: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Examples to draw demonstrations and the majority class from: a .jsonl, .json, .csv, .tsv or .parquet file, also packed
    /// (.gz, .zst)
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) train: Option<PathBuf>,
    /// The examples that all rows are measured on
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) test: Option<PathBuf>,
    /// Measure on this many of them, drawn by label and --seed [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one(), help_heading = "Data")]
    pub(crate) limit: Option<usize>,
    /// The field that {text} in the template stands for [default: the first prompt's, or guessed from common names]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub(crate) text_field: Option<String>,
    /// The field with the label [default: the first prompt's, or guessed from common names]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub(crate) label_field: Option<String>,
    #[command(flatten)]
    pub(crate) label_names: LabelNamesArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) labels: LabelArgs,
    /// The text of the row with an instruction, which stands in a line before the template; \n is a newline [default: the
    /// text that the prompt began as, or a sentence that names the labels]
    #[arg(long, value_name = "TEXT", help_heading = "Rows")]
    pub(crate) instruction: Option<Plain>,
    /// Demonstrations of each label in the row with examples in context, fewer where they do not fit; 0: no such row
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SHOTS, hide_default_value = true, help_heading = "Rows")]
    pub(crate) shots: usize,
    /// What demonstrations and --limit draw by
    #[arg(long, value_name = "N", help_heading = "Rows")]
    pub(crate) seed: Option<u64>,
    /// Correct the labels' log-likelihoods in the rows for which nothing is learned: by what the labels have for texts without
    /// content, or by their means over the test texts; a fairer contest where a model favours a label [default: none]
    #[arg(long, value_name = "HOW", value_parser = calibrate_answers(), help_heading = "Rows")]
    pub(crate) calibrate: Option<Calibrate>,
    /// How many of the examples are shown that the prompt corrected, and as many that it spoiled
    #[arg(long, value_name = "N", default_value_t = DEFAULT_FLIPS, hide_default_value = true, help_heading = "Rows")]
    pub(crate) flips: usize,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl CompareArgs {
    /// The flags that `train` takes too and that decide what is measured, as they are to be written, each after a space.
    pub(crate) fn shared_with_train(&self) -> String {
        let text = |text: &str| quoted(&written(text, ""));
        let flags = [
            ("--text-field", self.text_field.as_deref().map(quoted)),
            ("--label-field", self.label_field.as_deref().map(quoted)),
            (
                "--label-names",
                self.label_names
                    .label_names
                    .as_ref()
                    .map(|names| quoted(&Labels(names.0.clone()).to_string())),
            ),
            ("--template", self.task.template.as_ref().map(|template| text(&template.0))),
            ("--message", self.task.message.as_ref().map(|message| text(&message.0))),
            ("--system", self.task.system.as_ref().map(|system| text(&system.0))),
            ("--labels", self.labels.labels.as_ref().map(|labels| quoted(&labels.to_string()))),
            ("--placement", self.task.placement.map(|placement| placement.to_string())),
            ("--max-length", self.task.max_length.map(|tokens| tokens.to_string())),
        ];
        let given = flags.into_iter().filter_map(|(flag, value)| Some(format!(" {flag} {}", value?)));
        given.chain(self.labels.exact_labels.then(|| " --exact-labels".to_owned())).collect()
    }

    /// The flags as a task file that holds only what was said.
    pub(crate) fn flags(&self) -> TaskFile {
        let mut file = TaskFile { model: self.model.model.clone(), ..TaskFile::default() };
        (file.data.train, file.data.test) = (self.train.clone(), self.test.clone());
        (file.data.text_field, file.data.label_field) = (self.text_field.clone(), self.label_field.clone());
        file.data.label_names = self.label_names.names();
        self.task.state(&mut file);
        self.labels.state(&mut file);
        file.train.seed = self.seed;
        file
    }
}
