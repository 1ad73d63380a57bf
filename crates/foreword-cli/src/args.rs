//! The command line, as close to what is written as can be. The doc comments here are the help.

mod calibration;
mod compare;
mod compile;
mod defaults;
mod exchange;
mod generate;
mod labels;
mod meant;
mod models;
mod quantise;
mod read;
mod source;
mod texts;
mod tools;
mod train;

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, FromArgMatches as _, Parser, Subcommand};
use foreword::flags::{at_least_one, choice, not_negative, positive};
use foreword::kernels::ComputeDtype;
use foreword::settings::{Objective, Placement};

pub(crate) use calibration::CalibrationArgs;
pub(crate) use compare::CompareArgs;
pub(crate) use compile::CompileArgs;
pub(crate) use defaults::build_command;
pub(crate) use exchange::{ExportArgs, ExportFormat, ImportArgs};
pub(crate) use generate::{GenerateArgs, NewTokensArgs, SamplingArgs};
pub(crate) use labels::{LabelNamesArgs, Labels};
pub(crate) use models::ModelsArgs;
pub(crate) use quantise::QuantiseArgs;
pub(crate) use read::ReadArgs;
pub(crate) use source::{EnsembleArgs, IgnoreConfigArgs, ModelArgs, SourceArgs};
pub(crate) use texts::{Plain, TemplateText, TextFieldsArgs};
pub(crate) use tools::{CompletionsArgs, InspectArgs, ManArgs, SimilarArgs};
pub(crate) use train::TrainArgs;

use foreword::device::Device;
use foreword::error::Result as ForewordResult;
use foreword::{Error, OutputDir, Resources, TaskFile};

use tools::{
    COMPLETIONS_EXAMPLES, ENVIRONMENT, EXPLAIN_EXAMPLES, INSPECT_EXAMPLES, MAN_EXAMPLES, SIMILAR_EXAMPLES,
};

/// The name of the command.
pub(crate) const NAME: &str = "foreword";

/// Teach a frozen language model a task by learning a few input vectors.
///
/// Foreword learns a soft prompt: a few vectors that precede every text, the model's own foreword to a task. The model
/// never changes, and the result is a file of a few kilobytes. To see it at work, run `foreword quickstart`.
#[derive(Debug, Parser)]
#[command(name = NAME, version, long_version = tools::long_version(), max_term_width = 110)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct LowArgs {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The verb: what the program does.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Learn a soft prompt from examples, for classification or generation
    ///
    /// Reads the examples, freezes the model, trains the rows of a soft prompt, and writes them to a directory with
    /// everything needed to use them: the template, the labels, the identity of the model, and the scores. The best prompt
    /// on the dev set is kept. Each example has a label or, with --target-field, a target text.
    #[command(after_help = train::EXAMPLES)]
    Train(Box<TrainArgs>),
    /// Evaluate a soft prompt, or the bare model, on examples with known labels or targets
    ///
    /// Gives each example its most likely label and compares it with the true one: accuracy with its 95 % interval, macro
    /// F1, loss, calibration of the probabilities, and a confusion matrix. For generation, decodes greedily and compares
    /// the output with the target: loss, exact match, ROUGE-L, BLEU.
    #[command(after_help = EVAL_EXAMPLES)]
    Eval(Box<EvalArgs>),
    /// Compare tuned prompts with baselines that need no training, with intervals and paired tests
    ///
    /// Evaluates on the same examples: the majority class, the bare model, an instruction, in-context examples, each
    /// prompt, the ensemble that it leads, and all prompts together. Reports the size of each, its training time and its
    /// time per text; tests it against the first prompt; shows examples that this prompt corrected and broke; and says
    /// whether it helped.
    #[command(after_help = compare::EXAMPLES)]
    Compare(Box<CompareArgs>),
    /// Classify texts with a soft prompt
    ///
    /// Takes texts from the command line, from a file, or from standard input, one per line, and prints a label and its
    /// probability for each, in the same order.
    #[command(after_help = CLASSIFY_EXAMPLES)]
    Classify(Box<ClassifyArgs>),
    /// Generate texts with a soft prompt
    ///
    /// Takes texts from the command line, from a file, or from standard input, one per line, and continues each token by
    /// token until the model ends it. Decoding is greedy unless --temperature is set. On a terminal, the output for a
    /// single text is streamed.
    #[command(after_help = generate::EXAMPLES)]
    Generate(Box<GenerateArgs>),
    /// Walk through the mathematics of prompt tuning on one text, with real values
    ///
    /// For one text and its true label, shows step by step: the tokens, the learnable prompt p, the model's prediction
    /// without and with it, the loss, the gradient of each virtual token, one update, many updates, and the cost compared
    /// with fine-tuning the same model.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Box<ExplainArgs>),
    /// Describe a prompt directory, and compare its rows with the model's vocabulary
    ///
    /// Prints the prompt's passport (its metadata): the model, the task, the training, and whether it beat the bare model;
    /// and how PEFT can use it. If the model is available, compares each virtual token with its vocabulary: the norm, the
    /// distance from the init, the labels and the nearest tokens.
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(InspectArgs),
    /// Convert a soft prompt to a KV prefix, which costs nothing to compute
    ///
    /// Computes the keys and values of a soft prompt in every layer, and writes them as a prompt of their own: a KV prefix.
    /// It scores every text as the soft prompt does, to the bit. It is larger, but its virtual tokens cost nothing to
    /// compute. PEFT loads it as PREFIX_TUNING.
    #[command(after_help = compile::EXAMPLES)]
    Compile(CompileArgs),
    /// Convert a prompt from another tool to a prompt directory
    ///
    /// Reads CPT and MULTITASK_PROMPT_TUNING prompts from PEFT, NumPy arrays, and torch files. Only the numbers in a torch
    /// file are read; no code in it is run. With --model, the prompt is checked and gets a passport (metadata); without,
    /// the result is like a prompt from PEFT.
    #[command(after_help = exchange::IMPORT_EXAMPLES)]
    Import(Box<ImportArgs>),
    /// Export a prompt for other tools, as a NumPy array or a PEFT directory
    #[command(after_help = exchange::EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Quantise a model to a GGUF file
    ///
    /// Norms, biases and positions stay in single precision, and the tokenizer is included. Matrices whose rows do not
    /// divide into blocks use the next larger format, and this is reported. Both `--model FILE.gguf` and llama.cpp load the
    /// file.
    #[command(after_help = quantise::EXAMPLES, visible_alias = "quantize")]
    Quantise(QuantiseArgs),
    /// Find the nearest of several tuned prompts for the same model
    ///
    /// Compares the rows of a prompt with those of others: the cosine of their means, and the mean cosine of the
    /// best-matching rows. Prompts for similar tasks tend to be similar, and make a good init: `foreword train --init
    /// from:DIR`.
    #[command(after_help = SIMILAR_EXAMPLES)]
    Similar(SimilarArgs),
    /// List the available models: the bundled one, the Hugging Face cache, and a directory
    ///
    /// Prints the family and size of each model, and whether it can be used, or why not. Only configurations and headers
    /// are read.
    #[command(after_help = models::EXAMPLES)]
    Models(ModelsArgs),
    /// Try it: learn sentiment with the bundled model, in about a minute
    ///
    /// Trains a soft prompt for the bundled model on three hundred film-review sentences that come with this program, and
    /// compares it with the bare model on two hundred others. Nothing is downloaded.
    #[command(after_help = QUICKSTART_EXAMPLES)]
    Quickstart(QuickstartArgs),
    /// Print a shell completion script
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print the man page of this command, or of one of its verbs
    #[command(after_help = MAN_EXAMPLES)]
    Man(ManArgs),
}

impl Verb {
    /// The output flags of this verb.
    pub(crate) fn output(&self) -> &OutputArgs {
        match self {
            Self::Train(args) => &args.output,
            Self::Eval(args) => &args.output,
            Self::Compare(args) => &args.output,
            Self::Classify(args) => &args.output,
            Self::Generate(args) => &args.output,
            Self::Explain(args) => &args.output,
            Self::Inspect(args) => &args.output,
            Self::Compile(args) => &args.output,
            Self::Import(args) => &args.output,
            Self::Export(args) => &args.output,
            Self::Quantise(args) => &args.output,
            Self::Similar(args) => &args.output,
            Self::Models(args) => &args.output,
            Self::Quickstart(args) => &args.output,
            Self::Completions(_) | Self::Man(_) => &tools::PLAIN,
        }
    }
}

const EVAL_EXAMPLES: &str = "Examples:
  foreword eval --prompt sentiment --data test.jsonl
  foreword eval --prompt none --template '{text}\\nSentiment:' --data test.jsonl     (the bare model)
  foreword eval --prompt from-peft --model ./Qwen2.5-0.5B --data test.csv --json
  foreword eval --prompt sentiment --data test.jsonl --predictions out.csv
  foreword eval --prompt sentiment --data test.jsonl \\
      --calibrate temperature --calibrate-on dev.jsonl --save-calibration";

const CLASSIFY_EXAMPLES: &str = "Examples:
  foreword classify --prompt sentiment 'The movie was fantastic.' 'Never again.'
  foreword classify --prompt sentiment --data reviews.csv --out labelled.csv
  cat reviews.txt | foreword classify --prompt sentiment -
  foreword classify --prompt sentiment --data reviews.csv --abstain-below 0.8";

const QUICKSTART_EXAMPLES: &str = "Examples:
  foreword quickstart
  foreword quickstart --out my-first-prompt";

/// `foreword eval`
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) ensemble: EnsembleArgs,
    /// The examples: a .jsonl, .json, .csv, .tsv, .txt, .parquet or .arrow file, optionally compressed (.gz, .zst), or a
    /// directory, as in `foreword train`; - reads standard input
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Evaluate on this many of the examples, stratified by label and sampled with --seed [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one(), help_heading = "Data")]
    pub(crate) limit: Option<usize>,
    /// Random seed of --limit; the same seed takes the same examples
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) fields: FieldArgs,
    #[command(flatten)]
    pub(crate) label_names: LabelNamesArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) labels: LabelArgs,
    #[command(flatten)]
    pub(crate) loss: LossArgs,
    #[command(flatten)]
    pub(crate) calibration: CalibrationArgs,
    /// Store the result of --calibrate with the prompt: `classify` and `eval` then use it by default. With --calibrate
    /// none, remove the stored one
    #[arg(long, requires = "calibrate", help_heading = "Probabilities")]
    pub(crate) save_calibration: bool,
    #[command(flatten)]
    pub(crate) new_tokens: NewTokensArgs,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Write the prediction for each example to this .csv, .tsv, .jsonl or .parquet file: the fields of the data, then
    /// truth, answer, probability, and the probability of each label
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) predictions: Option<PathBuf>,
    /// Replace an existing file in --predictions
    #[arg(long, requires = "predictions", help_heading = "Output")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `foreword classify`
#[derive(Debug, Args)]
pub(crate) struct ClassifyArgs {
    #[command(flatten)]
    pub(crate) texts: TextArgs,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) ensemble: EnsembleArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) labels: LabelArgs,
    #[command(flatten)]
    pub(crate) calibration: CalibrationArgs,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Write a table to this .csv, .tsv, .jsonl or .parquet file instead of the answers: the fields of the data, then label,
    /// probability, and the probability of each label
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,
    /// Replace an existing file in --out
    #[arg(long, requires = "out", help_heading = "Output")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// The texts to answer.
#[derive(Debug, Args)]
pub(crate) struct TextArgs {
    /// The texts; a single - reads them from standard input, one per line. For a template with several fields, a text is a
    /// JSON object, as in '{"premise": "It rains.", "hypothesis": "It is wet."}'
    #[arg(value_name = "TEXT", conflicts_with_all = ["data", "field"])]
    pub(crate) texts: Vec<String>,
    #[command(flatten)]
    pub(crate) field: TextFieldsArgs,
    /// The texts as a .jsonl, .json, .csv, .tsv, .txt, .parquet or .arrow file, optionally compressed (.gz, .zst), or a
    /// directory, as in `foreword train`, with the fields of the template; no labels or targets are needed. - reads such a
    /// file from standard input
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Take only the first N texts, with or without labels
    #[arg(long, value_name = "N", value_parser = at_least_one(), help_heading = "Data")]
    pub(crate) limit: Option<usize>,
    /// The field for {text} in the template [default: the prompt's, or guessed from common names]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub(crate) text_field: Option<String>,
}

/// `foreword explain`
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The text x; for a template with several fields, a JSON object [default: The movie was fantastic.]
    #[arg(value_name = "TEXT", conflicts_with = "field")]
    pub(crate) text: Option<String>,
    #[command(flatten)]
    pub(crate) field: TextFieldsArgs,
    /// The true label y [default: the last of the prompt's labels]
    #[arg(long = "as", value_name = "LABEL")]
    pub(crate) label: Option<String>,
    /// The prompt directory [default: sentiment-prompt, where foreword quickstart writes]
    #[arg(long, value_name = "DIR")]
    pub(crate) prompt: Option<PathBuf>,
    /// The model of the prompt, as in `foreword train --model` [default: the model recorded in the prompt,
    /// if bundled or on the Hugging Face hub]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Root mean square of an update to p [default: what `auto` is for the model]
    #[arg(long = "rate", value_name = "RATE", value_parser = not_negative)]
    pub(crate) learning_rate: Option<f64>,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) labels: LabelArgs,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Also write the walk-through to this file, as a self-contained HTML page; an existing file is overwritten
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `foreword quickstart`
#[derive(Debug, Args)]
pub(crate) struct QuickstartArgs {
    #[command(flatten)]
    pub(crate) output_dir: OutputDirArgs,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// The fields of the data.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct FieldArgs {
    /// The field for {text} in the template
    #[arg(long, value_name = "NAME")]
    pub(crate) text_field: Option<String>,
    /// The field with the label
    #[arg(long, value_name = "NAME", conflicts_with = "target_field")]
    pub(crate) label_field: Option<String>,
    /// The field with the target text, for generation
    #[arg(long, value_name = "NAME")]
    pub(crate) target_field: Option<String>,
}

/// How a text is formatted.
#[derive(Debug, Args)]
#[command(next_help_heading = "Task")]
pub(crate) struct TaskArgs {
    /// The text around the fields, as in '{premise}\nSo {hypothesis}?'; the label or target follows it. \n is a newline, \t
    /// a tab, \\ a backslash; {{ and }} are literal braces; an example may lack the field of {?field}. `chat` uses the model's
    /// own chat template: the text is the user message, and the label or target is the assistant's reply
    #[arg(long, value_name = "TEXT|chat")]
    pub(crate) template: Option<TemplateText>,
    /// In a chat, the template of the user message
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    pub(crate) message: Option<TemplateText>,
    /// In a chat, the system message [default: none, or what the model's chat template says itself]
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    pub(crate) system: Option<Plain>,
    /// Position of the soft prompt: before everything, as in PEFT (front); after the BOS token (after-bos); at the start of
    /// the chat's system message (system); or between the template and the label or target (suffix)
    #[arg(long, value_name = "PLACE", value_parser = choice(Placement::ALL, Placement::as_str), hide_short_help = true)]
    pub(crate) placement: Option<Placement>,
    /// Maximum number of tokens of template, text and label or target together; longer texts are truncated. Virtual tokens
    /// do not count, but must also fit into the model's context
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one(), hide_short_help = true)]
    pub(crate) max_length: Option<usize>,
}

/// The texts of the labels.
#[derive(Debug, Args)]
#[command(next_help_heading = "Task")]
pub(crate) struct LabelArgs {
    /// The text of each label, as 'negative= negative,positive= positive'. A word that follows a word is separated from it
    /// by exactly one space. A backslash makes a comma, an equals sign or a backslash literal; \n and \t are as above. The
    /// answers keep the label
    #[arg(long, value_name = "LABEL=TEXT,…", allow_hyphen_values = true)]
    pub(crate) labels: Option<Labels>,

    /// Use the texts of --labels exactly as written, without adding or removing spaces
    #[arg(long, hide_short_help = true)]
    pub(crate) exact_labels: bool,
}

impl TaskArgs {
    /// Puts what was given into the settings.
    pub(crate) fn state(&self, file: &mut TaskFile) {
        let text = |text: &Option<TemplateText>| text.as_ref().map(|text| text.0.clone());
        (file.task.template, file.task.message) = (text(&self.template), text(&self.message));
        file.task.system = self.system.as_ref().map(|system| system.0.clone());
        (file.task.max_length, file.prompt.placement) = (self.max_length, self.placement);
    }
}

impl LabelArgs {
    /// Puts what was given into the settings.
    pub(crate) fn state(&self, file: &mut TaskFile) {
        file.task.labels = self.labels.as_ref().map(|labels| labels.0.clone());
        file.task.exact_labels = self.exact_labels.then_some(true);
    }
}

impl FieldArgs {
    /// Puts what was given into the settings.
    pub(crate) fn state(&self, file: &mut TaskFile) {
        file.data.text_field.clone_from(&self.text_field);
        file.data.label_field.clone_from(&self.label_field);
        file.data.target_field.clone_from(&self.target_field);
    }
}

/// The loss of a label.
#[derive(Debug, Args)]
#[command(next_help_heading = "Task")]
pub(crate) struct LossArgs {
    /// Loss: the cross-entropy of the true label among all labels (label), or the language-modelling loss of its text (lm)
    #[arg(long, value_name = "LOSS", value_parser = choice(Objective::ALL, Objective::as_str), hide_short_help = true)]
    pub(crate) objective: Option<Objective>,
}

/// The hardware and its use.
#[derive(Debug, Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct MachineArgs {
    /// Number of threads, at most 256 [default: one for each core]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=256), env = "FOREWORD_THREADS")]
    pub(crate) threads: Option<usize>,
    /// Number format of matrix products: f32; bf16, which rounds both operands; or auto: bf16 if the model is stored in
    /// bf16 and the processor has instructions for it, f32 otherwise
    #[arg(long, value_name = "FORMAT", value_parser = choice(ComputeDtype::ALL, ComputeDtype::as_str), default_value = "auto", hide_short_help = true)]
    pub(crate) dtype: ComputeDtype,
    /// Maximum number of tokens computed at a time; fewer use less memory and change no result
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one(), hide_short_help = true)]
    pub(crate) micro_batch_tokens: Option<usize>,
    /// Device: cpu, cuda:0, metal; or auto: the GPU if this build supports one and it responds, cpu otherwise
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Auto, hide_short_help = true)]
    pub(crate) device: Device,
    #[command(flatten)]
    pub(crate) ignore_config: IgnoreConfigArgs,
}

impl MachineArgs {
    /// The resources that the model may use. This program also computes on its own thread.
    pub(crate) fn resources(&self) -> Resources {
        let &Self { threads, dtype, micro_batch_tokens, device, .. } = self;
        let ignored_config_keys = self.ignore_config.keys.clone();
        Resources { device, threads, dtype, micro_batch_tokens, ignored_config_keys, on_this_thread: true }
    }

    /// Sets the number of threads for reading and tokenising; the model has its own threads.
    pub(crate) fn start_threads(&self) -> ForewordResult<()> {
        let Some(n) = self.threads else { return Ok(()) };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build_global();
        pool.map_err(|error| Error::other(error).context("cannot start threads"))
    }
}

/// Where a prompt is written.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputDirArgs {
    /// The directory to write the prompt to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace an existing prompt in --out and start over
    #[arg(long)]
    pub(crate) force: bool,
    /// Resume an interrupted run in --out, and give the same result, to the bit, as without the interruption. With --force,
    /// also if a finished prompt in --out is then replaced
    #[arg(long)]
    pub(crate) resume: bool,
}

impl OutputDirArgs {
    /// The checked output directory: --out, or `default` if it is not given.
    pub(crate) fn check(&self, default: impl FnOnce() -> PathBuf) -> ForewordResult<OutputDir> {
        OutputDir::check(self.out.clone().unwrap_or_else(default), self.force, self.resume)
    }
}

/// How results are printed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Write one JSON object per line to standard output, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Print only warnings and errors to standard error
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Print more to standard error: the hardware in use, and details of the run
    #[arg(long, short, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
}

/// Parses the command line of this process.
pub(crate) fn parse() -> Result<LowArgs, clap::Error> {
    let mut command = build_command();
    let matches = command.try_get_matches_from_mut(std::env::args_os()).map_err(meant::with_meant_verb)?;
    LowArgs::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn from_zero_to_one(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1.0 => Ok(value),
        _ => Err("must be greater than 0 and at most 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_formed() {
        build_command().debug_assert();
    }

    #[test]
    fn every_variable_is_told_in_the_first_help() {
        let command = build_command();
        let of_flags =
            command.get_subcommands().flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_env);
        let mut heeded: Vec<String> = of_flags.map(|name| name.to_string_lossy().into_owned()).collect();
        heeded.extend(tools::OF_NO_FLAG.map(str::to_owned));
        heeded.sort();
        heeded.dedup();
        let told = ENVIRONMENT.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        assert_eq!(told.collect::<Vec<_>>(), heeded);
    }
}
