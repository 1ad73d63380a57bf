//! The computation: prompts as prefixes, the examples below them, scores, gradients and generation.
//!
//! - [`prefix`]: a placed prompt as keys and values that all examples below it attend to, owned and shared; [`compile`]
//!   converts a soft prompt to the equivalent KV prefix.
//! - [`example`]: a context below a prompt with the token sequences to score; `continuation_set` makes them of a task's data.
//! - [`batch`]: examples below prompts in one forward pass, and their gradients; `blocks`: the keys and values that such a
//!   pass reads, each with the target of its gradient; [`frozen_texts`] caches those of texts that never change.
//! - [`loss`]: the numbers that a loss reads from an example's rows, and the gradients that it returns.
//! - [`pass`] and [`reduce`]: loss and gradient of a step, summed in an order that does not depend on budgets, threads and
//!   machines.
//! - [`score`]: the likelihood of labels and targets.
//! - [`kv_pool`], [`generator`], [`sampling`], [`generate`]: generation with requests that come and go, each computed as if
//!   alone.

pub mod batch;
pub(crate) mod blocks;
pub mod compile;
pub(crate) mod continuation_set;
pub mod example;
pub mod frozen_texts;
pub mod generate;
pub mod generator;
pub mod kv_pool;
pub mod loss;
pub mod pass;
pub mod prefix;
pub mod reduce;
pub mod sampling;
pub mod score;
