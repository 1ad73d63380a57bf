//! Arguments of `inspect`, `similar`, `completions` and `man`; the environment variables in the help; `--version`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;
use foreword::kernels::{CODE_PATH_VARIABLE, CodePath};

use super::{IgnoreConfigArgs, OutputArgs};

/// The environment variables, as the help lists them.
pub(super) const ENVIRONMENT: &str = "Environment:
  FOREWORD_CODE_PATH  Processor instructions to use: portable, avx2, avx512, avx512bf16, amx or neon
  FOREWORD_THREADS    Number of threads, unless --threads is given
  HF_ENDPOINT         URL of the Hugging Face hub (default: https://huggingface.co)
  HF_HOME             Directory of its cache and token (default: ~/.cache/huggingface)
  HF_HUB_CACHE        Directory of its cache (default: hub in HF_HOME)
  HF_HUB_OFFLINE      If 1, never contact the hub and use only its cache
  HF_TOKEN            Access token for gated or private models
  NO_COLOR            If set and not empty, disable colours, even on a terminal
  TERM                If `dumb`, disable colours and progress bars";

/// The variables without a flag.
#[cfg(test)]
pub(super) const OF_NO_FLAG: [&str; 8] = [
    "FOREWORD_CODE_PATH",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "NO_COLOR",
    "TERM",
];

pub(super) const EXPLAIN_EXAMPLES: &str = "Examples:
  foreword explain                                          (after foreword quickstart)
  foreword explain 'The movie was fantastic.' --as positive
  foreword explain 'A waste of time.' --as negative --prompt sentiment
  foreword explain --html explained.html                    (also as an HTML page)";

pub(super) const INSPECT_EXAMPLES: &str = "Examples:
  foreword inspect sentiment-prompt                         (after foreword quickstart)
  foreword inspect reviews-prompt --model ./Qwen2.5-0.5B --top 5
  foreword inspect from-peft --json";

pub(super) const SIMILAR_EXAMPLES: &str = "Examples:
  foreword similar sentiment-prompt prompts/*               (find the nearest)
  foreword similar first-try second-try --json";

pub(super) const COMPLETIONS_EXAMPLES: &str = "Examples:
  foreword completions bash > ~/.local/share/bash-completion/completions/foreword
  foreword completions fish > ~/.config/fish/completions/foreword.fish";

pub(super) const MAN_EXAMPLES: &str = "Examples:
  foreword man > foreword.1
  foreword man train > foreword-train.1";

/// The output flags of verbs that have none.
pub(super) const PLAIN: OutputArgs = OutputArgs { json: false, quiet: false, verbose: false };

/// `foreword inspect`
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The prompt directory, from foreword or from PEFT
    #[arg(value_name = "DIR")]
    pub(crate) prompt: PathBuf,
    /// The model of the prompt, as in `foreword train --model` [default: the model recorded in the prompt,
    /// if bundled or in the Hugging Face cache; otherwise none, and the rows are not compared with its vocabulary]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Number of nearest tokens to list for each row; 0: none
    #[arg(long, value_name = "N", default_value_t = foreword::inspect::DEFAULT_TOP, hide_default_value = true)]
    pub(crate) top: usize,
    #[command(flatten)]
    pub(crate) ignore_config: IgnoreConfigArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `foreword similar`
#[derive(Debug, Args)]
pub(crate) struct SimilarArgs {
    /// The prompt directory to compare
    #[arg(value_name = "DIR")]
    pub(crate) prompt: PathBuf,
    /// The prompt directories to compare it with
    #[arg(value_name = "OTHER", required = true)]
    pub(crate) others: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `foreword completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// `foreword man`
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The verb to print the page of [default: none: the page of the whole command]
    #[arg(value_name = "VERB")]
    pub(crate) verb: Option<String>,
}

/// `--version`, with the build details that a result may depend on.
pub(super) fn long_version() -> String {
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let available: Vec<_> =
        CodePath::all_available().into_iter().map(|path| path.instruction_set().as_str()).collect();
    let code_path = match CodePath::from_env() {
        Ok(path) => {
            let is_set = std::env::var_os(CODE_PATH_VARIABLE).is_some_and(|name| !name.is_empty());
            let why =
                if is_set { format!("set by {CODE_PATH_VARIABLE}, of") } else { "the fastest of".to_owned() };
            let bf16 =
                path.fast_bf16().map_or("no faster than f32".to_owned(), |means| format!("by {means}"));
            format!("{} ({why} {})\nbf16       {bf16}", path.instruction_set(), available.join(", "))
        }
        Err(error) => format!("none ({CODE_PATH_VARIABLE}: {error})"),
    };
    format!(
        "{}\nbuild      {build}, {} {}\ncode path  {code_path}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
    )
}
