//! Frozen language models: embeddings in, hidden rows out, gradients of inputs only.
//!
//! A [`Backbone`] is read once from [`ModelFiles`] and never changes. Its families translate a foreign `config.json` into
//! a closed [`Spec`]; one decoder runs them all over a [`Forest`](foreword_kernels::Forest) of segments. It knows nothing
//! of what its rows stand for.

mod backbone;
mod config;
mod decoder;
mod digest;
mod error;
mod families;
mod files;
mod identity;
mod model;
mod rotary;
mod spec;
mod tensors;
pub mod tokenizer;

pub use backbone::Backbone;
pub use decoder::{Gradient, Input, KeyValues, Output, Tape, Taped};
pub use error::BackboneError;
pub use files::{ChatFiles, ModelFiles};
pub use foreword_kernels as kernels;
pub use identity::{Identity, Match};
pub use model::Model;
pub use spec::{Attention, Mlp, Positions, RopeScaling, Spec};
pub use tokenizer::{Tokenizer, TokenizerError};
