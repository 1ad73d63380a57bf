//! Batched generation with a task's model.
//!
//! The tokens drawn for a text depend on the seed and on the text's own index, not on the rest of its batch.

use std::ops::ControlFlow;

use foreword_backbone::Model;
use foreword_backbone::kernels::{Backend, Token};
use foreword_format::SoftPrompt;

pub use super::generator::{FinishReason, Generated};
use super::generator::{Generator, Limits, Output, Request, RequestError, RequestId, Tell};
pub use super::sampling::Sampling;
use crate::data::Dataset;
use crate::encode::EncodeError;
use crate::task::{Examples, Goal, Task, TaskError};

/// Default maximum number of new tokens, if the model's context allows it.
pub const DEFAULT_MAX_NEW_TOKENS: usize = 128;
/// Maximum number of texts generated at a time.
const MOST_TEXTS: usize = 64;

/// Settings of generation.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct GenerateConfig {
    /// Maximum number of new tokens per text; `None`: [`DEFAULT_MAX_NEW_TOKENS`], or half of the space left by the model's
    /// context and the task's `max_length`, whichever is less.
    pub max_new_tokens: Option<usize>,
    /// How tokens are sampled.
    pub sampling: Sampling,
    /// Strings that end a text and are not part of it. An empty string is ignored.
    pub stop: Vec<String>,
    /// Send events as texts grow, not only when they are complete.
    pub stream: bool,
}

/// An event of generation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// More of a text is final.
    More {
        /// The index of the text.
        example: usize,
        /// The continuation of the earlier pieces.
        text: &'a str,
    },
    /// A text is complete.
    Done {
        /// The index of the text.
        example: usize,
        /// The text.
        generated: &'a Generated,
    },
}

impl Task {
    /// Tokenises a data set with space for new tokens; returns their maximum number: see
    /// [`GenerateConfig::max_new_tokens`].
    ///
    /// # Errors
    /// If a field is missing, or the template and the new tokens do not fit.
    pub fn openings<B: Backend>(
        &self,
        model: &Model<B>,
        n_virtual: usize,
        dataset: &Dataset,
        config: &GenerateConfig,
    ) -> Result<(Examples, usize), TaskError> {
        let most = self.max_new_tokens(model, n_virtual, config)?;
        let examples = self.opened(model, n_virtual, dataset, most)?;
        Ok((examples, most))
    }

    /// Maximum number of new tokens of each text: see [`GenerateConfig::max_new_tokens`].
    ///
    /// # Errors
    /// If the prompt does not fit into the model's context.
    pub fn max_new_tokens<B: Backend>(
        &self,
        model: &Model<B>,
        n_virtual: usize,
        config: &GenerateConfig,
    ) -> Result<usize, TaskError> {
        let room = self.max_tokens(model, n_virtual)?;
        Ok(config.max_new_tokens.unwrap_or(DEFAULT_MAX_NEW_TOKENS.min(room / 2)).max(1))
    }

    /// Generates a text after every context, in the order of the examples, each of at most `most` tokens; text i draws from
    /// stream i of the seed. Without a `prompt`, uses the bare model. If `on_event` breaks, ends early with the texts
    /// before the first incomplete one.
    ///
    /// # Errors
    /// If the placement needs a BOS that the tokenizer does not add, a path is longer than the model's context, or the
    /// output of the model is not finite.
    pub fn generate<B: Backend>(
        &self,
        model: &Model<B>,
        prompt: Option<&SoftPrompt>,
        (examples, most): (&Examples, usize),
        config: &GenerateConfig,
        budget: usize,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>, TaskError> {
        let mut generator = self.generator(model, prompt, most, config, budget)?;
        for context in &examples.contexts {
            generator.admit(context.clone())?;
        }
        let mut whole: Vec<Option<Generated>> = vec![None; examples.n()];
        while !generator.is_idle() {
            let flow = generator.step(&mut |event| {
                if let Event::Done { example, generated } = event {
                    whole[example] = Some(generated.clone());
                }
                on_event(event)
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(whole.into_iter().map_while(|generated| generated).collect())
    }

    /// A prompt in this task's template, ready to generate after contexts that come later, at most `most` tokens after each;
    /// without a `prompt`, the bare model.
    ///
    /// # Errors
    /// As [`Task::prefix`].
    pub fn generator<'m, B: Backend>(
        &self,
        model: &'m Model<B>,
        prompt: Option<&SoftPrompt>,
        most: usize,
        config: &GenerateConfig,
        budget: usize,
    ) -> Result<TextGenerator<'m, B>, TaskError> {
        let limits = Limits { n_running: MOST_TEXTS, n_prefill_tokens: budget, kv_bytes: u64::MAX };
        let request = Request {
            prefix: self.prefix(model, prompt)?,
            context: Vec::new(),
            max_tokens: most,
            sampling: config.sampling,
            stream: 0,
            stop: config.stop.clone(),
            end: match &self.goal {
                Goal::Generation(to) => Some(to.end),
                Goal::Classification(_) => None,
            },
            is_spaced: self.is_spaced("") || self.leaves_space(),
            tell: Tell { text: config.stream, log_probs: None },
        };
        Ok(TextGenerator { generator: Generator::new(model, limits), request, requests: Vec::new() })
    }
}

/// Generates texts after contexts that come one after another. A text depends on its context and its index alone.
pub struct TextGenerator<'m, B: Backend> {
    generator: Generator<'m, B>,
    /// What all requests have in common.
    request: Request<B>,
    /// All requests, by index.
    requests: Vec<RequestId>,
}

impl<B: Backend> TextGenerator<'_, B> {
    /// Admits a context and returns its index, counted from 0; text i draws from stream i of the seed.
    ///
    /// # Errors
    /// If it can't stand below the prompt, or is longer than the model's context.
    pub fn admit(&mut self, context: Vec<Token>) -> Result<usize, TaskError> {
        let example = self.requests.len();
        let request = Request { context, stream: example as u64, ..self.request.clone() };
        self.requests.push(self.generator.admit(request)?);
        Ok(example)
    }

    /// Number of contexts whose turn has not come.
    #[must_use]
    pub fn n_waiting(&self) -> usize {
        self.generator.n_waiting()
    }

    /// Whether all texts are complete.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.generator.n_waiting() == 0 && self.generator.n_running() == 0
    }

    /// Generates one token for each running text; passes on a break of `on_event`.
    ///
    /// # Errors
    /// If the output of the model is not finite.
    pub fn step(
        &mut self,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TaskError> {
        let mut flow = ControlFlow::Continue(());
        let mut failed = None;
        let requests = &self.requests;
        self.generator.step(&mut |id, output| {
            let Ok(example) = requests.binary_search(&id) else { return };
            match output {
                Output::Text(text) if flow.is_continue() => flow = on_event(Event::More { example, text }),
                Output::Done(generated) if flow.is_continue() => {
                    flow = on_event(Event::Done { example, generated: &generated });
                }
                Output::Failed(error) => _ = failed.get_or_insert((example, error)),
                Output::Text(_) | Output::Done(_) | Output::Token { .. } => {}
            }
        })?;
        match failed {
            Some((example, RequestError::NotFinite)) => Err(TaskError::NotFinite { example: example + 1 }),
            Some((_, RequestError::Tokenizer(error))) => Err(EncodeError::from(error).into()),
            None => Ok(flow),
        }
    }
}
