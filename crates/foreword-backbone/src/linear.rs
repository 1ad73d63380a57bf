//! A projection whose weights are frozen.

use foreword_kernels::Backend;

/// A frozen projection.
pub(crate) struct Linear<B: Backend> {
    pub(crate) weight: B::Matrix,
    pub(crate) bias: Option<B::Vector>,
}

impl<B: Backend> Linear<B> {
    /// `[N, in]` to `[N, out]`.
    pub(crate) fn run(&self, backend: &B, x: &B::Rows) -> B::Rows {
        backend.linear(x, &self.weight, self.bias.as_ref())
    }
}
