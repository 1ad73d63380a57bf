//! `foreword compare`: the prompts, the baselines and the examples.

use std::path::PathBuf;

use clap::Args;
use foreword::TaskFile;
use foreword::prompt::calibration::Calibrate;

use super::calibration::calibrate_answers;
use super::texts::{Plain, written};
use crate::command_line::quoted;

use super::{
    LabelArgs, LabelNamesArgs, Labels, MachineArgs, ModelArgs, OutputArgs, ReadArgs, TaskArgs, at_least_one,
};

pub(super) const EXAMPLES: &str = "Examples:
  foreword compare task.toml --prompt sentiment
  foreword compare task.toml --prompt seed-1 --prompt seed-2 --prompt seed-3     (also all three together)
  foreword compare --prompt sentiment --train train.jsonl --test test.jsonl --shots 8 --json
  foreword compare task.toml --prompt sentiment --calibrate content-free
  foreword compare task.toml --instruction 'Is the review good or bad?'          (before tuning)";

/// Default number of in-context examples per label.
pub(super) const DEFAULT_SHOTS: usize = 4;
/// Default number of examples shown in each direction.
pub(super) const DEFAULT_FLIPS: usize = 3;

/// `foreword compare`
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// A task file (.toml), as for `foreword train`, or the training data; flags override the task file
    #[arg(value_name = "TASK.toml|DATA")]
    pub(crate) input: Option<PathBuf>,
    /// A prompt directory to compare; can be repeated. A prompt that leads an ensemble gets a second row for the ensemble,
    /// and two or more prompts get a row for all together
    #[arg(long = "prompt", value_name = "DIR")]
    pub(crate) prompts: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Data for the in-context examples and the majority class: a file or directory, as in `foreword train`
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) train: Option<PathBuf>,
    /// The examples that all rows are evaluated on
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) test: Option<PathBuf>,
    /// Evaluate on this many of them, stratified by label and sampled with --seed [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one(), help_heading = "Data")]
    pub(crate) limit: Option<usize>,
    /// The field for {text} in the template [default: the first prompt's, or guessed from common names]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub(crate) text_field: Option<String>,
    /// The field with the label [default: the first prompt's, or guessed from common names]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub(crate) label_field: Option<String>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    #[command(flatten)]
    pub(crate) label_names: LabelNamesArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) labels: LabelArgs,
    /// The instruction of the instruction baseline, on a line before the template; \n is a newline [default: the text that
    /// the prompt began as, or a sentence that names the labels]
    #[arg(long, value_name = "TEXT", help_heading = "Rows")]
    pub(crate) instruction: Option<Plain>,
    /// In-context examples per label in the in-context baseline, fewer if they do not fit; 0: no such row
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SHOTS, hide_default_value = true, help_heading = "Rows")]
    pub(crate) shots: usize,
    /// Random seed of the in-context examples and of --limit
    #[arg(long, value_name = "N", help_heading = "Rows")]
    pub(crate) seed: Option<u64>,
    /// Calibrate the label log-likelihoods of the untrained rows: by those of inputs without content (content-free), or by
    /// their means over the test texts (batch). The comparison is fairer if the model favours a label [default: none]
    #[arg(long, value_name = "HOW", value_parser = calibrate_answers(), help_heading = "Rows")]
    pub(crate) calibrate: Option<Calibrate>,
    /// Number of examples to show that the prompt corrected, and of examples that it broke
    #[arg(long, value_name = "N", default_value_t = DEFAULT_FLIPS, hide_default_value = true, help_heading = "Rows")]
    pub(crate) flips: usize,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl CompareArgs {
    /// The flags shared with `train` that affect the result, quoted for the command line, each after a space.
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
        let given = given.chain(self.labels.exact_labels.then(|| " --exact-labels".to_owned()));
        given.chain([self.read.written()]).collect()
    }

    /// The flags as a task file that contains only what was set.
    pub(crate) fn flags(&self) -> TaskFile {
        let mut file = TaskFile { model: self.model.model.clone(), ..TaskFile::default() };
        (file.data.train, file.data.test) = (self.train.clone(), self.test.clone());
        (file.data.text_field, file.data.label_field) = (self.text_field.clone(), self.label_field.clone());
        self.read.state(&mut file);
        file.data.label_names = self.label_names.names();
        self.task.state(&mut file);
        self.labels.state(&mut file);
        file.train.seed = self.seed;
        file
    }
}
