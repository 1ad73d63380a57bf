//! Batched generation with a task's model.
//!
//! The tokens drawn for a text depend on the seed and on the text's own index, not on the rest of its batch.

use std::ops::ControlFlow;

use foreword_backbone::Model;
use foreword_backbone::kernels::Backend;
use foreword_format::SoftPrompt;

pub use super::generator::{FinishReason, Generated};
use super::generator::{Generator, Limits, Output, Request, RequestError, Tell};
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
        let room = self.max_tokens(model, n_virtual)?;
        let most = config.max_new_tokens.unwrap_or(DEFAULT_MAX_NEW_TOKENS.min(room / 2)).max(1);
        let examples = self.opened(model, n_virtual, dataset, most)?;
        Ok((examples, most))
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
        let shared_prefix = self.shared_prefix(model, examples, prompt.map_or(0, SoftPrompt::n_virtual))?;
        let prefix = shared_prefix.prefix(prompt)?;
        let limits = Limits { n_running: MOST_TEXTS, n_prefill_tokens: budget, kv_bytes: u64::MAX };
        let mut generator = Generator::new(model, limits);
        let mut requests = Vec::with_capacity(examples.n());
        for (example, context) in examples.contexts.iter().enumerate() {
            let request = Request {
                prefix: prefix.clone(),
                context: context.clone(),
                max_tokens: most,
                sampling: config.sampling,
                stream: example as u64,
                stop: config.stop.clone(),
                end: match &self.goal {
                    Goal::Generation(to) => Some(to.end),
                    Goal::Classification(_) => None,
                },
                is_spaced: self.is_spaced("") || self.leaves_space(),
                tell: Tell { text: config.stream, log_probs: None },
            };
            requests.push(generator.admit(request)?);
        }
        let mut whole: Vec<Option<Generated>> = vec![None; requests.len()];
        let mut flow = ControlFlow::Continue(());
        let mut failed = None;
        while flow.is_continue() && failed.is_none() {
            let more = generator.step(&mut |id, output| {
                let Ok(example) = requests.binary_search(&id) else { return };
                match output {
                    Output::Text(text) if flow.is_continue() => {
                        flow = on_event(Event::More { example, text });
                    }
                    Output::Done(generated) if flow.is_continue() => {
                        flow = on_event(Event::Done { example, generated: &generated });
                        whole[example] = Some(generated);
                    }
                    Output::Failed(error) => _ = failed.get_or_insert((example, error)),
                    Output::Text(_) | Output::Done(_) | Output::Token { .. } => {}
                }
            })?;
            if !more {
                break;
            }
        }
        match failed {
            Some((example, RequestError::NotFinite)) => Err(TaskError::NotFinite { example: example + 1 }),
            Some((_, RequestError::Tokenizer(error))) => Err(EncodeError::from(error).into()),
            None => Ok(whole.into_iter().map_while(|generated| generated).collect()),
        }
    }
}
