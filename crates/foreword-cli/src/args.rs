//! The command line, as close to what is written as can be. The doc comments here are the help.

mod calibration;
mod compare;
mod compile;
mod defaults;
mod exchange;
mod generate;
mod labels;
mod models;
mod quantise;
mod source;
mod texts;
mod tools;
mod train;

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, FromArgMatches as _, Parser, Subcommand};
use foreword::flags::{at_least_one, choice, not_negative};
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
pub(crate) use source::{EnsembleArgs, ModelArgs, SourceArgs};
pub(crate) use texts::{Plain, TemplateText, TextFieldsArgs};
pub(crate) use tools::{CompletionsArgs, InspectArgs, ManArgs, SimilarArgs};
pub(crate) use train::TrainArgs;

use foreword::device::Device;
use foreword::error::Result as ForewordResult;
use foreword::{Error, Place, Resources, TaskFile};
use tools::{
    COMPLETIONS_EXAMPLES, ENVIRONMENT, EXPLAIN_EXAMPLES, INSPECT_EXAMPLES, MAN_EXAMPLES, SIMILAR_EXAMPLES,
};

/// The name of the command.
pub(crate) const NAME: &str = "foreword";

/// Teach a frozen language model a task by learning a few input vectors.
///
/// Foreword learns a soft prompt: a few rows of numbers that stand before every text, a model's own foreword to a task.
/// The model is never changed; what is learned is a file of a few kilobytes. `foreword quickstart` shows it at work.
#[derive(Debug, Parser)]
#[command(name = NAME, version, long_version = tools::long_version(), max_term_width = 110)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct LowArgs {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Learn a soft prompt from examples, to choose a label or to write a text
    ///
    /// Reads examples, freezes the model, learns the rows of a soft prompt, and writes them to a directory with all that
    /// is needed to use them: the template, the labels, the identity of the model, and how well it does. The prompt that
    /// is best on the dev set is the one that is kept. Examples have a label, or with --target-field a text to be written.
    #[command(after_help = train::EXAMPLES)]
    Train(Box<TrainArgs>),
    /// Measure a soft prompt, or the bare model, on examples whose label or target is known
    ///
    /// Gives each example the label whose text the model finds likeliest, and compares it with the true one: accuracy with
    /// its 95 % interval, macro F1, loss, how far its probabilities can be trusted, and which labels were taken for which.
    /// Where texts are to be generated, writes
    /// one for each example, always the likeliest token, and compares it with the target: loss, exact match, ROUGE-L, BLEU.
    #[command(after_help = EVAL_EXAMPLES)]
    Eval(Box<EvalArgs>),
    /// Set tuned prompts beside what costs no training: one table, with intervals and paired tests
    ///
    /// Measures on the same examples: the majority class, the bare model, an instruction in words, demonstrations in context,
    /// each prompt, with the ensemble that it leads, and all prompts together; tells what each holds, took to train and takes
    /// per text, tests it against the first prompt, shows what that corrected and spoiled, and says whether it helped.
    #[command(after_help = compare::EXAMPLES)]
    Compare(Box<CompareArgs>),
    /// Label texts with a soft prompt
    ///
    /// Takes texts from the command line, from a file, or one a line from standard input, and answers in their order with
    /// a label and its probability.
    #[command(after_help = CLASSIFY_EXAMPLES)]
    Classify(Box<ClassifyArgs>),
    /// Write texts with a soft prompt
    ///
    /// Takes texts from the command line, from a file, or one a line from standard input, and writes one after each, token by
    /// token, until the model ends it. The likeliest token is taken unless --temperature says otherwise. A single text
    /// is shown on a terminal as it grows.
    #[command(after_help = generate::EXAMPLES)]
    Generate(Box<GenerateArgs>),
    /// Walk through the mathematics of prompt tuning on one text, with real values
    ///
    /// Shows for one text and its true label, step by step: the tokens, the learnable prompt p, what the model says without
    /// and with it, the loss, the gradient of each virtual token, an update, many updates, and what all this costs against
    /// fine-tuning the same model.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Box<ExplainArgs>),
    /// Tell what is in a prompt directory, and where its rows lie among the model's own
    ///
    /// Reads the prompt's passport out in words: its model, task, training, and whether it beat the bare model; and says
    /// what PEFT can do with it. Where the model is at hand, each virtual token is set beside its vocabulary: its length,
    /// its way from the init, the labels and the nearest tokens.
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(InspectArgs),
    /// Turn a soft prompt into a KV prefix, which is never computed again
    ///
    /// Has the model make the keys and values of a soft prompt, in every layer, and writes them as a prompt of their own: a
    /// KV prefix, which scores every text as the soft prompt does, to the bit. It is larger, and its virtual tokens cost
    /// nothing to compute. PEFT loads it as PREFIX_TUNING.
    #[command(after_help = compile::EXAMPLES)]
    Compile(CompileArgs),
    /// Make a prompt of another tool into a prompt directory
    ///
    /// Reads what PEFT writes for CPT and MULTITASK_PROMPT_TUNING, arrays of NumPy's, and files of torch, of which only numbers
    /// are read and nothing is run. With --model the prompt is checked and gets a passport; without, the result is as from PEFT.
    #[command(after_help = exchange::IMPORT_EXAMPLES)]
    Import(Box<ImportArgs>),
    /// Write a prompt for other tools: as an array of NumPy's, or as a directory of PEFT's
    #[command(after_help = exchange::EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Write a model as a GGUF file, its matrices in fewer bits
    ///
    /// Norms, biases and positions stay in single precision, and the tokenizer goes along. Matrices whose rows are no whole blocks
    /// take the next larger format, which is told. `--model FILE.gguf` takes the file, and so does llama.cpp.
    #[command(after_help = quantise::EXAMPLES, visible_alias = "quantize")]
    Quantise(QuantiseArgs),
    /// Find the nearest of several tuned prompts of the same model
    ///
    /// Compares the rows of a prompt with those of others: the cosine of their means, and the mean cosine of rows that match
    /// best. Prompts of near tasks tend to be near, and make a good beginning: `foreword train --init from:DIR`.
    #[command(after_help = SIMILAR_EXAMPLES)]
    Similar(SimilarArgs),
    /// List the models that are here: the bundled one, those in the Hugging Face cache, and those below a directory
    ///
    /// Tells of each its family, its size, and whether it can be used, or why not. Only configurations and headers are read.
    #[command(after_help = models::EXAMPLES)]
    Models(ModelsArgs),
    /// See it work: learn sentiment with the bundled model, in about a minute
    ///
    /// Trains a soft prompt for the bundled model on three hundred film-review sentences that come with this program, and
    /// compares it with the bare model on two hundred others. Nothing is downloaded.
    #[command(after_help = QUICKSTART_EXAMPLES)]
    Quickstart(QuickstartArgs),
    /// Print what a shell needs to complete this command line
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print the manual page of this command, or of one of its verbs
    #[command(after_help = MAN_EXAMPLES)]
    Man(ManArgs),
}

impl Verb {
    /// How it answers.
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
  foreword eval --prompt sentiment --data test.jsonl --calibrate temperature --calibrate-on dev.jsonl \\
      --save-calibration";

const CLASSIFY_EXAMPLES: &str = "Examples:
  foreword classify --prompt sentiment 'The movie was fantastic.' 'Never again.'
  foreword classify --prompt sentiment --data reviews.csv --json
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
    /// The examples: a .jsonl, .json, .csv, .tsv or .parquet file, also packed (.gz, .zst); - is standard input
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: PathBuf,
    /// Measure on this many of the examples, drawn by label and --seed [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one(), help_heading = "Data")]
    pub(crate) limit: Option<usize>,
    /// What --limit draws by: the same seed takes the same examples
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
    /// Store the correction of --calibrate with the prompt: `classify` and `eval` then use it unless --calibrate says
    /// otherwise. With none, what is stored is taken away
    #[arg(long, requires = "calibrate", help_heading = "Probabilities")]
    pub(crate) save_calibration: bool,
    #[command(flatten)]
    pub(crate) new_tokens: NewTokensArgs,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
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
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// The texts of which an answer is wanted.
#[derive(Debug, Args)]
pub(crate) struct TextArgs {
    /// The texts; a single - reads them from standard input, one a line. For a template with several fields a text is a JSON
    /// object with them, as '{"premise": "It rains.", "hypothesis": "It is wet."}'
    #[arg(value_name = "TEXT", conflicts_with_all = ["data", "field"])]
    pub(crate) texts: Vec<String>,
    #[command(flatten)]
    pub(crate) field: TextFieldsArgs,
    /// The texts as a .jsonl, .json, .csv, .tsv or .parquet file, also packed (.gz, .zst), with the template's fields; it
    /// needs no labels or targets. - reads such a file from standard input
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(crate) data: Option<PathBuf>,
    /// Take only the first texts. Whether they have labels makes no difference: nothing is measured
    #[arg(long, value_name = "N", value_parser = at_least_one(), help_heading = "Data")]
    pub(crate) limit: Option<usize>,
    /// The field that {text} in the template stands for [default: the prompt's, or guessed from common names]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub(crate) text_field: Option<String>,
}

/// `foreword explain`
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The text x; for a template with several fields a JSON object with them [default: The movie was fantastic.]
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
    /// The model that the prompt was made for, as foreword train takes it [default: the prompt's own where that is the bundled
    /// one or of the Hugging Face hub]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// How far an update moves the numbers of p, in the root mean square [default: what `auto` is for the model]
    #[arg(long = "rate", value_name = "RATE", value_parser = not_negative)]
    pub(crate) learning_rate: Option<f64>,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) labels: LabelArgs,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Also write the walk-through to this file, replacing it: one HTML page that needs nothing else
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `foreword quickstart`
#[derive(Debug, Args)]
pub(crate) struct QuickstartArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Which field is what.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct FieldArgs {
    /// The field that {text} in the template stands for [default: guessed from common names]
    #[arg(long, value_name = "NAME")]
    pub(crate) text_field: Option<String>,
    /// The field with the label [default: guessed from common names]
    #[arg(long, value_name = "NAME", conflicts_with = "target_field")]
    pub(crate) label_field: Option<String>,
    /// The field with the text to be written, where examples have no label but a target
    #[arg(long, value_name = "NAME")]
    pub(crate) target_field: Option<String>,
}

/// How a text is written.
#[derive(Debug, Args)]
#[command(next_help_heading = "Task")]
pub(crate) struct TaskArgs {
    /// The text around the fields, as in '{premise}\nSo {hypothesis}?'; the label or target follows it. \n is a newline, \t a
    /// tab, \\ a backslash; {{ and }} are braces. `chat` is the model's own chat template, in which the text is what the user
    /// says, and the label or target what the assistant answers
    #[arg(long, value_name = "TEXT|chat")]
    pub(crate) template: Option<TemplateText>,
    /// In a chat, the text around the fields in the user's message, written as a template
    #[arg(long, value_name = "TEXT")]
    pub(crate) message: Option<TemplateText>,
    /// In a chat, the system message [default: none, or what the model's chat template says itself]
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<Plain>,
    /// Where the soft prompt stands: before all, as PEFT has it; after the BOS token; at the beginning of a chat's system
    /// message; or between the template's end and the label or target
    #[arg(long, value_name = "PLACE", value_parser = choice(Placement::ALL, Placement::as_str))]
    pub(crate) placement: Option<Placement>,
    /// The most tokens of template, text and label or target together; longer texts are cut. Virtual tokens do not count,
    /// but must fit into the model's context as well
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one())]
    pub(crate) max_length: Option<usize>,
}

/// What stands for the labels.
#[derive(Debug, Args)]
#[command(next_help_heading = "Task")]
pub(crate) struct LabelArgs {
    /// The text that stands for each label, as 'negative= negative,positive= positive'. A word that follows a word gets a
    /// space before it, and never two. A backslash before a comma, an equals sign or a backslash takes it literally; \n
    /// and \t are as above [default: the labels in the data, each with a space before its name]
    #[arg(long, value_name = "LABEL=TEXT,…")]
    pub(crate) labels: Option<Labels>,

    /// Use the texts of --labels exactly as written, without adding or removing a space
    #[arg(long)]
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

/// What the loss of a label is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Task")]
pub(crate) struct LossArgs {
    /// What counts: the true label against the others (label), or its text against all texts (lm)
    #[arg(long, value_name = "LOSS", value_parser = choice(Objective::ALL, Objective::as_str))]
    pub(crate) objective: Option<Objective>,
}

/// What it runs on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct MachineArgs {
    /// Threads to compute with, at most 256 [default: one for each core]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=256), env = "FOREWORD_THREADS")]
    pub(crate) threads: Option<usize>,
    /// What the model's matrices are multiplied in: f32; bf16, which rounds both sides of each product; or bf16 where the model
    /// is stored so and the processor has instructions for it, and f32 elsewhere (auto)
    #[arg(long, value_name = "FORMAT", value_parser = choice(ComputeDtype::ALL, ComputeDtype::as_str), default_value = "auto")]
    pub(crate) dtype: ComputeDtype,
    /// The most tokens computed at a time: fewer take less memory, and change no result
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one())]
    pub(crate) micro_batch_tokens: Option<usize>,
    /// What to compute on: cpu, cuda:0, metal; or auto, which is the GPU where this build can use one that answers, and else
    /// cpu
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Auto)]
    pub(crate) device: Device,
}

impl MachineArgs {
    /// What the model may use. This program computes on its own thread too.
    pub(crate) fn resources(&self) -> Resources {
        let &Self { threads, dtype, micro_batch_tokens, device } = self;
        Resources { device, threads, dtype, micro_batch_tokens, on_this_thread: true }
    }

    /// Sets how many threads read and tokenise; the model has threads of its own.
    pub(crate) fn start_threads(&self) -> ForewordResult<()> {
        let Some(n) = self.threads else { return Ok(()) };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build_global();
        pool.map_err(|error| Error::other(error).context("cannot start threads"))
    }
}

/// Where a prompt is written.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct PlaceArgs {
    /// The directory to write the prompt to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace the prompt in --out, if there is one, and begin anew
    #[arg(long)]
    pub(crate) force: bool,
    /// Go on with the run into --out that was interrupted or killed; the result is the same, to the bit, as without
    #[arg(long, conflicts_with = "force")]
    pub(crate) resume: bool,
}

impl PlaceArgs {
    /// The place, checked; `default` is its directory where none is given.
    pub(crate) fn check(&self, default: impl FnOnce() -> PathBuf) -> ForewordResult<Place> {
        Place::check(self.out.clone().unwrap_or_else(default), self.force, self.resume)
    }
}

/// How answers look.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Write one JSON object per line to standard output, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    /// Say nothing on standard error but warnings and errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Say more on standard error: what it runs on, and how much all training texts share
    #[arg(long, short, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
}

/// Reads the command line of this process.
pub(crate) fn parse() -> Result<LowArgs, clap::Error> {
    let mut command = build_command();
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    LowArgs::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("not a number above 0".to_owned()),
    }
}

fn from_zero_to_one(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1.0 => Ok(value),
        _ => Err("not a number above 0 and up to 1".to_owned()),
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
