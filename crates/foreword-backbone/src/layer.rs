//! A layer of the decoder, in the one layout that there is.

use foreword_kernels::{Backend, Norm};

use crate::linear::Linear;
use crate::mlp::Mlp;

/// A frozen layer, in the one layout that the decoder knows.
pub(crate) struct Layer<B: Backend> {
    pub(crate) attention_norm: Option<Norm<B::Vector>>,
    /// `[H]` to `[Q·D]`.
    pub(crate) query: Linear<B>,
    /// `[H]` to `[2·K·D]`: keys, then values.
    pub(crate) key_value: Linear<B>,
    pub(crate) head_norms: Option<NormsOfHeads<B>>,
    /// `[Q·D]` to `[H]`.
    pub(crate) output: Linear<B>,
    pub(crate) attention_post_norm: Option<Norm<B::Vector>>,
    /// `None`: the one of attention, where there is one.
    pub(crate) own_mlp_norm: Option<Norm<B::Vector>>,
    pub(crate) mlp: Mlp<B>,
    pub(crate) mlp_post_norm: Option<Norm<B::Vector>>,
}

impl<B: Backend> Layer<B> {
    /// The norm before the MLP.
    pub(crate) fn mlp_norm(&self) -> Option<&Norm<B::Vector>> {
        self.own_mlp_norm.as_ref().or(self.attention_norm.as_ref())
    }
}

/// Norms of queries `[Q·D]` and of keys `[K·D]`.
pub(crate) struct NormsOfHeads<B: Backend> {
    pub(crate) queries: Norm<B::Vector>,
    pub(crate) keys: Norm<B::Vector>,
}
