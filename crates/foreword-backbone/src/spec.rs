//! All that the decoder may branch on, as data.

use foreword_kernels::{Activation, AttentionShape, Function, NormKind};
use serde_json::{Value, json};

/// What a decoder is. No `Default`: a family states every field.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// H, width of the residual stream and of an embedding.
    pub hidden: usize,
    /// L, number of layers.
    pub layers: usize,
    /// V, rows of the embedding table.
    pub vocab: usize,
    /// Positions that the model was made for.
    pub context: usize,
    /// Attention of every layer.
    pub attention: Attention,
    /// MLP of every layer.
    pub mlp: Mlp,
    /// Every norm.
    pub norm: NormKind,
    /// How rows know their position.
    pub positions: Positions,
    /// The head is the embedding table.
    pub tied_head: bool,
}

/// Attention of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Q, query heads.
    pub query_heads: usize,
    /// K, key/value heads.
    pub kv_heads: usize,
    /// D, width of a head.
    pub head_width: usize,
    /// Queries, keys and values have biases.
    pub qkv_bias: bool,
    /// The output projection has a bias.
    pub output_bias: bool,
}

impl Attention {
    /// Sizes, with scores scaled by 1/√D.
    #[must_use]
    pub fn shape(&self) -> AttentionShape {
        AttentionShape {
            query_heads: self.query_heads,
            kv_heads: self.kv_heads,
            head_width: self.head_width,
            scale: 1.0 / (self.head_width as f64).sqrt(),
        }
    }
}

/// MLP of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    /// I, width inside.
    pub intermediate: usize,
    /// What happens inside.
    pub activation: Activation,
    /// Its projections have biases.
    pub bias: bool,
}

/// How rows know their position.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// Queries and keys are rotated (Su et al. 2021).
    Rotary {
        /// Base of the frequencies.
        theta: f64,
        /// Change of the frequencies for longer contexts.
        scaling: RopeScaling,
    },
    /// A learned vector is added to each row.
    Learned,
}

/// Change of the rotary frequencies for longer contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// Llama 3.1: long wavelengths are stretched, short ones kept, those between interpolated.
    Llama3 {
        /// Stretch of the long wavelengths.
        factor: f64,
        /// Wavelengths above original context / this are stretched.
        low_frequency_factor: f64,
        /// Wavelengths below original context / this are kept.
        high_frequency_factor: f64,
        /// Context before stretching.
        original_context: usize,
    },
}

impl Spec {
    /// The fields as JSON, always in this order: what a soft prompt's file remembers of its backbone.
    #[must_use]
    pub fn canonical(&self) -> Value {
        let (norm, eps) = match self.norm {
            NormKind::Rms { eps } => ("rms", eps),
            NormKind::Layer { eps } => ("layer", eps),
        };
        let function = match self.mlp.activation.function {
            Function::Silu => "silu",
            Function::Gelu => "gelu",
            Function::GeluTanh => "gelu_tanh",
            Function::Relu => "relu",
        };
        let positions = match &self.positions {
            Positions::Learned => json!({ "kind": "learned" }),
            Positions::Rotary { theta, scaling: RopeScaling::None } => {
                json!({ "kind": "rotary", "theta": theta })
            }
            Positions::Rotary {
                theta,
                scaling:
                    RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context },
            } => json!({
                "kind": "rotary", "theta": theta, "scaling": "llama3", "factor": factor,
                "low_frequency_factor": low_frequency_factor, "high_frequency_factor": high_frequency_factor,
                "original_context": original_context,
            }),
        };
        json!({
            "hidden": self.hidden, "layers": self.layers, "vocab": self.vocab, "context": self.context,
            "query_heads": self.attention.query_heads, "kv_heads": self.attention.kv_heads,
            "head_width": self.attention.head_width, "qkv_bias": self.attention.qkv_bias,
            "output_bias": self.attention.output_bias,
            "intermediate": self.mlp.intermediate, "function": function, "gated": self.mlp.activation.gated,
            "mlp_bias": self.mlp.bias,
            "norm": norm, "norm_eps": eps, "positions": positions, "tied_head": self.tied_head,
        })
    }

    /// L·2·K·D, the numbers of a position's keys and values in all layers.
    #[must_use]
    pub fn cache_width(&self) -> usize {
        self.layers * 2 * self.attention.shape().kv_width()
    }

    /// Numbers in the model, all of them frozen.
    #[must_use]
    pub fn n_parameters(&self) -> usize {
        let (h, i) = (self.hidden, self.mlp.intermediate);
        let shape = self.attention.shape();
        let (q, kv) = (shape.query_width(), 2 * shape.kv_width());
        let up = if self.mlp.activation.gated { 2 * i } else { i };
        let norm = if matches!(self.norm, NormKind::Layer { .. }) { 2 * h } else { h };
        let bias = |has: bool, n: usize| if has { n } else { 0 };
        let attention = h * (q + kv)
            + q * h
            + bias(self.attention.qkv_bias, q + kv)
            + bias(self.attention.output_bias, h);
        let mlp = h * (up + i) + bias(self.mlp.bias, up + h);
        let positions = bias(self.positions == Positions::Learned, self.context * h);
        let tables = self.vocab * h * if self.tied_head { 1 } else { 2 };
        self.layers * (attention + mlp + 2 * norm) + norm + positions + tables
    }
}
