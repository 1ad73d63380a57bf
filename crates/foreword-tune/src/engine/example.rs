//! What the engine computes for one example: its context below a prompt, and the token sequences that may follow.

use foreword_backbone::kernels::Token;

/// A context below a prompt, and its possible continuations.
#[derive(Clone, Copy, Debug)]
pub struct Example<'a> {
    /// Index of its prompt.
    pub prompt: usize,
    /// Virtual tokens that are masked for it.
    pub masked: MaskedSpan,
    /// All tokens of the context, including those shared with other contexts.
    pub context: &'a [Token],
    /// Candidate continuations, each of at least one token, followed by extensions of some of them.
    pub continuations: &'a [&'a [Token]],
    /// For each extension, the candidate that it extends by one token: see [`crate::continuations`]. Empty without
    /// extensions.
    pub extended: &'a [usize],
    /// Index of the true candidate, for training examples.
    pub truth: usize,
}

impl<'a> Example<'a> {
    /// A context without continuations.
    #[must_use]
    pub fn of(prompt: usize, context: &'a [Token]) -> Self {
        let masked = MaskedSpan::NONE;
        Self { prompt, masked, context, continuations: &[], extended: &[], truth: 0 }
    }
}

/// Consecutive positions of a KV prefix that are masked for an example: its own demonstration, if the prefix contains it.
/// The other positions do not move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaskedSpan {
    /// The first position.
    pub first: usize,
    /// Number of positions.
    pub n: usize,
}

impl MaskedSpan {
    /// Nothing is masked.
    pub const NONE: Self = Self { first: 0, n: 0 };
}
