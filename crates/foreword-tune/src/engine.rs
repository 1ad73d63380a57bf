//! What computes: prompts in their place, examples below them, their scores and gradients, and texts.
//!
//! - [`prefix`]: a prompt in its place as keys and values that every example below it sees, owned and shared; [`compile`] turns a
//!   soft prompt into the KV prefix that it is.
//! - [`batch`]: examples below prompts in one forward pass, and the gradients that come back; `blocks`: the keys and values that
//!   such a pass reads, each with the target of its gradient; [`frozen_texts`] keeps those of texts that never change.
//! - [`loss`]: which numbers a loss reads from an example's rows, and what it sends back.
//! - [`pass`] and [`reduce`]: loss and gradient of a step, summed in an order that budgets, threads and machines do not change.
//! - [`score`]: how likely labels and targets are.
//! - [`kv_pool`], [`generator`], [`sampling`], [`generate`]: texts that are written, requests coming and going, each as if alone.

pub mod batch;
pub(crate) mod blocks;
pub mod compile;
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
