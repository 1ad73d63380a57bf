//! A frozen layer of the decoder.

use foreword_kernels::{Backend, Norm};

use crate::linear::Linear;
use crate::mlp::Mlp;

/// A frozen layer, in the decoder's only layout.
pub(crate) struct Layer<B: Backend> {
    pub(crate) attention_norm: Option<Norm<B::Vector>>,
    /// `[H]` to `[Q·D]`.
    pub(crate) query: Linear<B>,
    /// `[H]` to `[2·K·D]`: keys, then values.
    pub(crate) key_value: Linear<B>,
    pub(crate) qk_norms: Option<QkNorms<B>>,
    /// `[Q·D]` to `[H]`.
    pub(crate) output: Linear<B>,
    pub(crate) attention_post_norm: Option<Norm<B::Vector>>,
    /// `None`: the attention's, if there is one.
    pub(crate) mlp_pre_norm: Option<Norm<B::Vector>>,
    pub(crate) mlp: Mlp<B>,
    pub(crate) mlp_post_norm: Option<Norm<B::Vector>>,
}

impl<B: Backend> Layer<B> {
    /// The norm before the MLP.
    pub(crate) fn mlp_norm(&self) -> Option<&Norm<B::Vector>> {
        self.mlp_pre_norm.as_ref().or(self.attention_norm.as_ref())
    }
}

/// Norms of queries `[Q·D]` and of keys `[K·D]`.
pub(crate) struct QkNorms<B: Backend> {
    pub(crate) queries: Norm<B::Vector>,
    pub(crate) keys: Norm<B::Vector>,
}
