//! Estimates the memory of a run before it is allocated, and finds settings within a limit.

use foreword_backbone::kernels::Backend;
use foreword_backbone::{Model, Norms, QkNorm, Save, Spec};

use crate::engine::batch::Budget;
use crate::engine::reduce::GROUP;

/// The memory of the program without a model: code, tokenizer, data.
const PROGRAM_BYTES: u64 = 60_000_000;
/// Tokens at a time to try, in descending order. More than the first would hardly be faster; with fewer than the last, the
/// matrix products are too small to be fast.
const TOKENS: [usize; 4] = [2048, 1024, 512, 256];
/// Below this number of tokens at a time, activation checkpointing is preferred to smaller parts.
const SMALL: usize = 512;
const SINGLE: u64 = size_of::<f32>() as u64;

/// The estimated memory of a training run in bytes; rather too high than too low.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The frozen weights.
    pub weights: u64,
    /// What a micro-batch and the trunk save for the backward pass, and what a layer needs while it runs.
    pub activations: u64,
    /// The soft prompt, its gradient and AdamW's moments.
    pub optimizer: u64,
    /// The cached keys and values of texts before the learned rows, as far as the budget allows.
    pub contexts: u64,
}

impl Estimate {
    /// The peak, including the program itself.
    #[must_use]
    pub fn peak(&self) -> u64 {
        PROGRAM_BYTES + self.weights + self.activations + self.optimizer + self.contexts
    }
}

/// The sizes that determine the estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rows of the trunk: virtual tokens, and tokens shared by all texts.
    pub n_trunk: usize,
    /// Tokens of the longest example with its candidates, alone.
    pub longest: usize,
    /// Tokens of the longest batch.
    pub batch: usize,
    /// Examples per update of one candidate.
    pub batch_size: usize,
    /// P · W of all candidates.
    pub n_learned: usize,
    /// Tokens of all texts before the learned rows.
    pub n_context: usize,
}

/// Estimates a step with this budget.
#[must_use]
pub fn estimate<B: Backend>(model: &Model<B>, sizes: Sizes, budget: Budget) -> Estimate {
    let spec = model.backbone.spec();
    let rows = (budget.tokens.min(sizes.batch).max(sizes.longest) + sizes.n_trunk) as u64;
    let mut per_row = per_row(spec, budget.save);
    if sizes.n_context > 0 {
        // Keys and values of frozen contexts: as cached, as concatenated, and as the pass reads them.
        per_row += 3 * spec.cache_width() as u64;
    }
    // Each group of examples has its own gradient of the trunk: those of a micro-batch, and of the tree of sums.
    let n_groups = sizes.batch_size.div_ceil(GROUP);
    let n_open = n_groups.min(budget.tokens.div_ceil(GROUP) + 1) + n_groups.max(1).ilog2() as usize;
    let sums = (n_open * sizes.n_trunk * spec.cache_width()) as u64;
    Estimate {
        weights: model.backbone.weight_bytes(),
        activations: SINGLE * (rows * per_row + sums),
        optimizer: 4 * SINGLE * sizes.n_learned as u64,
        contexts: 0,
    }
}

/// Bytes of the keys and values of this many tokens.
#[must_use]
pub fn context_bytes<B: Backend>(model: &Model<B>, n_tokens: usize) -> u64 {
    SINGLE * (n_tokens * model.backbone.spec().cache_width()) as u64
}

/// Numbers held per row: saved in all layers, and while one layer runs.
fn per_row(spec: &Spec, save: Save) -> u64 {
    let attention = &spec.attention;
    let (h, i) = (spec.hidden, spec.mlp.intermediate);
    let (q, kv) = (attention.query_width(), 2 * attention.kv_width());
    // In a mixture of experts, each row has the results of several experts.
    let copies = spec.mlp.mixture.as_ref().map_or(1, |mixture| mixture.top_k);
    let outputs = spec.mlp.mixture.as_ref().map_or(0, |mixture| mixture.top_k * h);
    let up = copies * if spec.mlp.activation.gated { 2 * i } else { i };
    // What the norms of heads and of the sublayers' outputs need again.
    let raw = if attention.qk_norm == QkNorm::None { 0 } else { q + kv };
    let halves = match spec.block.norms {
        Norms::Pre | Norms::SharedPre => 0,
        Norms::Post | Norms::PreAndPost => 2 * h,
    };
    // Input, queries, attention's output and log-sums, the residual stream after it, and the MLP's inside.
    let layer = 2 * h + 2 * q + attention.query_heads + up + outputs + raw + halves;
    // Keys and values are kept in any case; those of the trunk also have a gradient.
    let kept = match save {
        Save::None => 2 * kv,
        Save::Checkpoint => 2 * kv + h,
        Save::All => 2 * kv + layer,
    };
    let running = layer + 3 * h + 2 * q + 2 * kv + up + 2 * i;
    (spec.layers * kept + running) as u64
}

/// The fastest budget with an estimated peak within `limit` bytes; the error is the minimum that the run needs.
///
/// # Errors
/// If even one example at a time, with activation checkpointing, takes more.
pub fn within<B: Backend>(model: &Model<B>, sizes: Sizes, limit: u64) -> Result<Budget, u64> {
    let tokens = || TOKENS.into_iter().filter(|&tokens| tokens >= sizes.longest).chain([sizes.longest]);
    let once = tokens().filter(|&tokens| tokens >= SMALL).map(Budget::from);
    let twice = tokens().map(|tokens| Budget { tokens, save: Save::Checkpoint });
    let fits = |budget: &Budget| estimate(model, sizes, *budget).peak() <= limit;
    once.chain(twice).find(fits).ok_or_else(|| {
        estimate(model, sizes, Budget { tokens: sizes.longest, save: Save::Checkpoint }).peak()
    })
}
