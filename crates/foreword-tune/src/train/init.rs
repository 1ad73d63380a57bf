//! Initialises a soft prompt: with rows of the embedding table if possible, since the model knows those.

use foreword_backbone::kernels::{Backend, Token};
use foreword_backbone::{Embeddings, Model, Tokenizer, TokenizerError};
use foreword_format::{FormatError, PromptDirectory, SoftPrompt};
use std::path::Path;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::engine::compile::{CompileError, compile_below};
use crate::settings::{Init, Method, Placement};
use crate::task::{Task, TaskError};
use crate::verbalizer::Verbalizer;

/// Rows are sampled from the first entries of the vocabulary, which byte-pair tokenizers order by frequency (Lester et al.
/// 2021, section 3.2, sample from the 5,000 most common).
const COMMON_TOKENS: usize = 5_000;

/// Why an init failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// No rows.
    #[error("a soft prompt needs at least one virtual token")]
    NoVirtualTokens,
    /// More rows than the model has positions.
    #[error("{n_virtual} virtual tokens do not fit into the model's context of {context}; use fewer")]
    TooMany {
        /// P.
        n_virtual: usize,
        /// Positions of the model.
        context: usize,
    },
    /// The init text has no tokens.
    #[error("the init text {text:?} has no tokens; write what is to be done, in a sentence")]
    NoTokens {
        /// The text.
        text: String,
    },
    /// The width of the directory's soft prompt differs.
    #[error("{dir} holds rows of width {found}, but those of this model have width {expected}")]
    Width {
        /// The directory.
        dir: String,
        /// Its width.
        found: usize,
        /// The width of the model.
        expected: usize,
    },
    /// There are no labels.
    #[error(
        "the init labels takes the labels' words, and this task has none; write what is to be done with text:…"
    )]
    NoLabels,
    /// Demonstrations can't be written as a text.
    #[error("demonstrations are drawn from training examples, of which there are none here")]
    NeedsExamples,
    /// No demonstration fits.
    #[error(
        "not even one training example with its label fits into {most} virtual tokens; use more, or another init"
    )]
    NoDemonstration {
        /// Maximum number of virtual tokens.
        most: usize,
    },
    /// A KV prefix can't be converted back to rows.
    #[error(
        "{dir} holds a KV prefix, from which no soft prompt can begin; use the method prefix, or another init"
    )]
    OtherMethod {
        /// The directory.
        dir: String,
    },
    /// The task does not allow it.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The rows can't be converted to a KV prefix.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The directory can't be read.
    #[error(transparent)]
    Directory(#[from] FormatError),
    /// The init text can't be tokenised.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// The sources of an init.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The embedding table.
    pub table: &'a Embeddings,
    /// Root mean square of its numbers.
    pub rms: f64,
    /// Positions of the model: as many rows or more are refused before memory is allocated.
    pub context: usize,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The labels, for a classification.
    pub verbalizer: Option<&'a Verbalizer>,
}

impl<'a> Sources<'a> {
    /// The sources from a model and the labels of a task.
    #[must_use]
    pub fn of<B: Backend>(model: &'a Model<B>, verbalizer: Option<&'a Verbalizer>) -> Self {
        let (table, context) = (model.backbone.embeddings(), model.backbone.spec().context);
        Self { table, rms: model.backbone.embedding_rms(), context, tokenizer: &model.tokenizer, verbalizer }
    }

    /// The initial rows, `[n_virtual, H]`; `from:DIR` takes as many as the directory has. The same seed gives the same
    /// rows.
    ///
    /// # Errors
    /// If the text has no tokens, or the directory can't be read or has another width.
    pub fn soft_prompt(&self, init: &Init, n_virtual: usize, seed: u64) -> Result<SoftPrompt, InitError> {
        let hidden = self.table.width();
        if n_virtual == 0 {
            return Err(InitError::NoVirtualTokens);
        }
        if n_virtual >= self.context {
            return Err(InitError::TooMany { n_virtual, context: self.context });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values = match init {
            Init::Text(text) => {
                let tokens = self.tokenizer.encode_plain(text)?;
                if tokens.is_empty() {
                    return Err(InitError::NoTokens { text: text.clone() });
                }
                // Shorter texts are repeated, longer ones truncated, as in PEFT.
                self.embed(tokens.into_iter().cycle().take(n_virtual))
            }
            Init::Labels => {
                let verbalizer = self.verbalizer.ok_or(InitError::NoLabels)?;
                let tokens = (0..verbalizer.n()).flat_map(|label| verbalizer.tokens(label).iter().copied());
                let sampled = std::iter::repeat_with(|| self.sample(&mut rng));
                self.embed(tokens.chain(sampled).take(n_virtual))
            }
            Init::Vocab => self.embed(std::iter::repeat_with(|| self.sample(&mut rng)).take(n_virtual)),
            Init::Random => {
                let rms = self.rms;
                (0..n_virtual * hidden).map(|_| rms as f32 * normal(&mut rng)).collect()
            }
            Init::Demonstrations => return Err(InitError::NeedsExamples),
            Init::From(dir) => {
                return of_directory(&PromptDirectory::read(dir)?, dir, Method::Prompt, hidden);
            }
        };
        Ok(SoftPrompt::new(values, n_virtual, hidden)?)
    }

    fn embed(&self, tokens: impl Iterator<Item = Token>) -> Vec<f32> {
        let mut row = vec![0.0; self.table.width()];
        let mut values = Vec::new();
        for token in tokens {
            self.table.read(token, &mut row);
            values.extend_from_slice(&row);
        }
        values
    }

    fn sample(&self, rng: &mut ChaCha8Rng) -> Token {
        let n = self.tokenizer.vocab_size().min(self.table.n()).min(COMMON_TOKENS) as u64;
        // The remainder favours small numbers by less than 5,000 / 2⁶⁴.
        (rng.next_u64() % n) as Token
    }
}

/// The initial state of a run of this task, `[n_virtual, W]`: rows, or for a KV prefix the model's keys and values for the
/// placed rows, since the model knows those of real text (Eyuboglu et al. 2025). `from:DIR` takes as many as the directory
/// has.
///
/// # Errors
/// As [`Sources::soft_prompt`], and if the rows can't be converted to a KV prefix.
pub fn start<B: Backend>(
    model: &Model<B>,
    task: &Task,
    init: &Init,
    n_virtual: usize,
    seed: u64,
) -> Result<SoftPrompt, InitError> {
    let sources = Sources::of(model, task.verbalizer());
    if task.method == Method::Prompt {
        return sources.soft_prompt(init, n_virtual, seed);
    }
    if task.placement == Placement::Suffix {
        return Err(TaskError::PrefixAtEnd.into());
    }
    if let Init::From(dir) = init {
        let directory = PromptDirectory::read(dir)?;
        if directory.method() == Method::Prefix {
            return of_directory(&directory, dir, Method::Prefix, task.row_width(model));
        }
    }
    Ok(compile_below(model, task.above(model), &sources.soft_prompt(init, n_virtual, seed)?)?)
}

/// The rows of a directory, if they match the method.
fn of_directory(
    directory: &PromptDirectory,
    dir: &Path,
    method: Method,
    expected: usize,
) -> Result<SoftPrompt, InitError> {
    let (dir, found) = (dir.display().to_string(), directory.rows.width());
    if directory.method() != method {
        return Err(InitError::OtherMethod { dir });
    }
    if found != expected {
        return Err(InitError::Width { dir, found, expected });
    }
    Ok(directory.rows.clone())
}

/// A sample from N(0, 1), by the Box–Muller transform.
pub(crate) fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let uniform = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let (u, v) = (uniform(rng.next_u64()), uniform(rng.next_u64()));
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}
