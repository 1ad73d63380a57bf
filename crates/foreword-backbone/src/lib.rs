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
pub mod files;
mod gguf;
mod identity;
mod layer;
mod linear;
mod loader;
mod mlp;
mod model;
mod notice;
mod rotary;
mod spec;
mod survey;
mod tensors;
pub mod tokenizer;

pub use backbone::{Backbone, Embeddings};
pub use decoder::{Gradient, Input, KeyValues, Output, Tape, Taped};
pub use error::BackboneError;
pub use files::{ChatFiles, ModelFiles};
pub use foreword_kernels as kernels;
pub use gguf::write::{Quantisation, Written};
pub use identity::{Identity, Match};
pub use model::Model;
pub use notice::Notice;
pub use spec::{
    Attention, Block, Embedding, Head, HeadNorms, LayerKind, Mixture, Mlp, Norms, Positions, Rope,
    RopeScaling, Spec,
};
pub use survey::Survey;
pub use tokenizer::{Tokenizer, TokenizerError};
