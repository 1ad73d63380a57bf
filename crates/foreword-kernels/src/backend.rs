//! The contract between a model and the machine: operations on rows, each with its input gradient.

use crate::dtype::Dtype;
use crate::forest::Forest;
use crate::rows::{Element, RowBlock};
use crate::weights::Weights;

/// A vocabulary entry, or any other row of a table.
pub type Token = u32;

/// Which of the two usual norms, with its ε.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// x / √(mean(x²) + ε), times a gain (Zhang & Sennrich 2019).
    Rms {
        /// ε, added to the mean square.
        eps: f64,
    },
    /// (x − mean) / √(variance + ε), times a gain, plus a bias (Ba et al. 2016).
    Layer {
        /// ε, added to the variance.
        eps: f64,
    },
}

/// A norm with its frozen gain and bias, each `[W]`.
#[derive(Debug)]
pub struct Norm<V> {
    /// Which norm.
    pub kind: NormKind,
    /// Gain, `[W]`.
    pub gain: V,
    /// Bias, `[W]`, if there is one.
    pub bias: Option<V>,
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// x · σ(x).
    Silu,
    /// x · Φ(x), with the exact normal distribution.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// max(x, 0).
    Relu,
}

/// The non-linear part of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activation {
    /// The function.
    pub function: Function,
    /// Gated: `[N, 2I]` of gates and values to `[N, I]`, f(gate) · value. Otherwise f of each number.
    pub gated: bool,
}

/// Which two numbers of a head are rotated with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairing {
    /// Number `i` with number `i + half`.
    Halves,
    /// Number `2i` with number `2i + 1`.
    Interleaved,
}

/// cos and sin of every row's rotary angles, each `[N, rotary width / 2]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryAngles {
    /// Cosines, `[N, half]`.
    pub cos: Vec<f32>,
    /// Sines, `[N, half]`.
    pub sin: Vec<f32>,
    /// Rotated pairs of each head, from its first number on. The numbers after them stay.
    pub half: usize,
    /// Which numbers make a pair.
    pub pairing: Pairing,
}

/// The direction of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// By the angle: forward.
    Forward,
    /// By minus the angle: the gradient of `Forward`.
    Backward,
}

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Q, query heads.
    pub query_heads: usize,
    /// K, key/value heads; Q is a multiple of it.
    pub kv_heads: usize,
    /// D, width of a head.
    pub head_width: usize,
    /// Factor on the scores, usually 1/√D.
    pub scale: f64,
    /// c, if scores s become c · tanh(s / c) (Gemma 2).
    pub soft_cap: Option<f64>,
    /// W, if a row sees only the W positions up to its own.
    pub window: Option<usize>,
}

impl AttentionShape {
    /// Q · D, width of a row of queries.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.query_heads * self.head_width
    }

    /// K · D, width of a row of keys, or of values.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_width
    }
}

/// The inputs of an attention.
#[derive(Debug)]
pub struct Attention<'a, R> {
    /// Sizes.
    pub shape: AttentionShape,
    /// What a score loses per position from the query back to the key, `[Q]`: ALiBi (Press et al. 2022).
    pub slopes: Option<&'a [f32]>,
    /// Which row sees which.
    pub forest: &'a Forest,
    /// The rows of the call that have queries, ascending; `None`: all.
    pub query_rows: Option<&'a [usize]>,
    /// Queries, `[N queries, Q·D]`.
    pub queries: &'a R,
    /// Keys and values of this call's rows, `[N, 2·K·D]`: the keys of all heads, then the values.
    pub key_values: &'a R,
    /// Keys and values of earlier calls' rows, each `[M, 2·K·D]`.
    pub context: &'a [&'a R],
}

/// The outputs of an attention.
#[derive(Debug)]
pub struct Attended<R> {
    /// Weighted values, `[N queries, Q·D]`.
    pub output: R,
    /// Log-sum-exp of the scores, `[N queries, Q]`: all that the gradient needs of them.
    pub log_sums: R,
}

/// Where the gradients of an attention go. Each is added to what its target holds; `None`: it is not computed.
#[derive(Debug)]
pub struct AttentionGradient<'a, R> {
    /// Of the queries, `[N queries, Q·D]`.
    pub queries: Option<&'a mut R>,
    /// Of this call's keys and values, `[N, 2·K·D]`.
    pub key_values: Option<&'a mut R>,
    /// Of the context's keys and values, one per context block, each `[M, 2·K·D]`; `None` for a block without learned rows.
    pub context: Vec<Option<&'a mut R>>,
}

/// The output layer, from hidden rows to logits: l = x·w + b, and with a soft cap c · tanh(l / c).
#[derive(Debug)]
pub struct Head<'a, M, V> {
    /// `[V, H]`.
    pub weight: &'a M,
    /// `[V]`.
    pub bias: Option<&'a V>,
    /// c.
    pub soft_cap: Option<f64>,
}

impl<M, V> Clone for Head<'_, M, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, V> Copy for Head<'_, M, V> {}

/// The head of a backend.
pub type HeadOf<'a, B> = Head<'a, <B as Backend>::Matrix, <B as Backend>::Vector>;

/// The operations. Weights are frozen: gradients are those of inputs only, and are **added** to what their target holds.
///
/// An output row depends, to the bit, only on its own inputs: not on the other rows of the call nor on the number of
/// threads. Sums over rows (the gradients of keys, values and context) run in the order of the rows.
pub trait Backend: Send + Sync + 'static {
    /// The number type of rows that are read back.
    type Element: Element;
    /// A block of rows `[N, W]`.
    type Rows: RowBlock;
    /// A frozen matrix `[out, in]`.
    type Matrix: Send + Sync;
    /// A frozen vector `[W]`.
    type Vector: Send + Sync;

    /// A matrix from frozen blocks `[outᵢ, in]`, stacked to `[Σ outᵢ, in]`.
    fn matrix(&self, blocks: Vec<Weights>) -> Self::Matrix;
    /// The dtype in which products with a matrix of a stored dtype are computed. It decides their bits.
    fn product_dtype(&self, _stored: Dtype) -> Dtype {
        Dtype::F32
    }
    /// A frozen vector.
    fn vector(&self, values: &[f32]) -> Self::Vector;
    /// Rows from host values, `[values.len() / width, width]`.
    fn rows(&self, values: Vec<Self::Element>, width: usize) -> Self::Rows;
    /// Rows of zeros.
    fn zeros(&self, n_rows: usize, width: usize) -> Self::Rows;
    /// The values of rows, row after row.
    fn values(&self, rows: &Self::Rows) -> Vec<Self::Element>;

    /// Rows of a table, `[tokens.len(), in]`.
    fn embed(&self, table: &Self::Matrix, tokens: &[Token]) -> Self::Rows;
    /// The rows at `indices`.
    fn select(&self, x: &Self::Rows, indices: &[usize]) -> Self::Rows;
    /// Row `j` of `source` becomes row `indices[j]`.
    fn assign(&self, into: &mut Self::Rows, indices: &[usize], source: &Self::Rows);
    /// Row `j` of `source` is added to row `indices[j]`.
    fn scatter_add(&self, into: &mut Self::Rows, indices: &[usize], source: &Self::Rows);
    /// `into += x`.
    fn add(&self, into: &mut Self::Rows, x: &Self::Rows);
    /// `x *= factor`, with the factor in single precision.
    fn scale(&self, x: &mut Self::Rows, factor: f32);

    /// x Wᵀ + b: `[N, in]` to `[N, out]`.
    fn linear(&self, x: &Self::Rows, weight: &Self::Matrix, bias: Option<&Self::Vector>) -> Self::Rows;
    /// dy W, added to `dx` if there is one: `[N, out]` to `[N, in]`.
    fn linear_gradient(&self, dy: &Self::Rows, weight: &Self::Matrix, dx: Option<Self::Rows>) -> Self::Rows;

    /// The norm of each row.
    fn norm(&self, x: &Self::Rows, norm: &Norm<Self::Vector>) -> Self::Rows;
    /// Its gradient, given the same `x`.
    fn norm_gradient(&self, x: &Self::Rows, norm: &Norm<Self::Vector>, dy: &Self::Rows, dx: &mut Self::Rows);

    /// The norm of each of the first `n_heads` heads of width `head_width` of each row, with a gain and a bias
    /// `[n_heads · head_width]`. The numbers after them stay.
    fn norm_heads(
        &self,
        x: &Self::Rows,
        n_heads: usize,
        head_width: usize,
        norm: &Norm<Self::Vector>,
    ) -> Self::Rows;
    /// Its gradient, which replaces that of the result.
    fn norm_heads_gradient(
        &self,
        x: &Self::Rows,
        n_heads: usize,
        head_width: usize,
        norm: &Norm<Self::Vector>,
        dy: Self::Rows,
    ) -> Self::Rows;

    /// Rotates the first `n_heads` heads of width `head_width` of each row (Su et al. 2021), in place.
    fn rotate(
        &self,
        x: &mut Self::Rows,
        n_heads: usize,
        head_width: usize,
        angles: &RotaryAngles,
        direction: Direction,
    );

    /// Softmax attention along the forest.
    fn attend(&self, attention: &Attention<'_, Self::Rows>) -> Attended<Self::Rows>;
    /// Its gradient, given the gradient of its output.
    fn attend_gradient(
        &self,
        attention: &Attention<'_, Self::Rows>,
        attended: &Attended<Self::Rows>,
        d_output: &Self::Rows,
        gradient: AttentionGradient<'_, Self::Rows>,
    );

    /// The non-linear part of an MLP.
    fn activate(&self, x: &Self::Rows, activation: Activation) -> Self::Rows;
    /// Its gradient, given the same `x`.
    fn activate_gradient(&self, x: &Self::Rows, activation: Activation, dy: &Self::Rows) -> Self::Rows;

    /// The logit of `token` at `row` for each pair, without forming any other.
    fn logits_at(
        &self,
        x: &Self::Rows,
        head: Head<'_, Self::Matrix, Self::Vector>,
        pairs: &[(usize, Token)],
    ) -> Vec<Self::Element>;
    /// Its gradient, given its result: dx`[row]` += d · ∂logit for each pair, in their order.
    fn logits_at_gradient(
        &self,
        head: Head<'_, Self::Matrix, Self::Vector>,
        pairs: &[(usize, Token)],
        logits: &[Self::Element],
        d: &[Self::Element],
        dx: &mut Self::Rows,
    );
    /// log Σ exp(logits) over the whole vocabulary for each row, streamed: the logits are never stored.
    fn log_sum_exp(&self, x: &Self::Rows, head: Head<'_, Self::Matrix, Self::Vector>) -> Vec<Self::Element>;
    /// Its gradient, given its result.
    fn log_sum_exp_gradient(
        &self,
        x: &Self::Rows,
        head: Head<'_, Self::Matrix, Self::Vector>,
        log_sums: &[Self::Element],
        d: &[Self::Element],
        dx: &mut Self::Rows,
    );
}
