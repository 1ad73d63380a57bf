//! Frozen language models: embeddings in, hidden rows out, gradients of inputs only.
//!
//! A [`Backbone`] is loaded once from [`ModelFiles`] and never changes. Families translate a Hugging Face `config.json` into a
//! closed [`Spec`], and one decoder runs all of them over a [`Forest`](foreword_kernels::Forest) of segments. It does not know
//! what its rows represent.

mod backbone;
mod config;
mod decoder;
mod digest;
mod error;
mod families;
pub mod files;
mod gguf;
mod identity;
mod info;
mod layer;
mod linear;
mod loader;
mod mlp;
mod model;
mod notice;
mod rotary;
mod spec;
mod spec_diff;
mod tensors;
pub mod tokenizer;

pub use backbone::{Backbone, Embeddings};
pub use decoder::{Gradient, Input, KeyValues, Output, Save, Tape};
pub use error::BackboneError;
pub use files::{ChatFiles, ModelFiles};
pub use foreword_kernels as kernels;
pub use gguf::parts::is_later_part;
pub use gguf::write::{GgufSummary, Quantisation, write_gguf};
pub use identity::{Identity, Match};
pub use info::ModelInfo;
pub use model::Model;
pub use notice::Notice;
pub use spec::{
    Attention, Block, Embedding, Head, LayerKind, Mixture, Mlp, Norms, Positions, QkNorm, Rope, RopeScaling,
    Spec,
};
pub use tokenizer::{Tokenizer, TokenizerError, TokenizerFile};
