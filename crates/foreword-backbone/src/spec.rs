//! Everything that the decoder may branch on, as data.

use foreword_kernels::{Activation, AttentionShape, Function, NormKind, Pairing};
use serde_json::{Map, Value, json};

use crate::spec_diff::{same, same_number};

/// The description of a decoder. No `Default`: a family states every field.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// H, width of the residual stream and of an embedding.
    pub hidden: usize,
    /// L, number of layers.
    pub layers: usize,
    /// V, rows of the embedding table.
    pub vocab: usize,
    /// Number of positions.
    pub context: usize,
    /// What happens to rows before the first layer.
    pub embedding: Embedding,
    /// How a layer's sublayers are joined to the residual stream.
    pub block: Block,
    /// Attention of every layer.
    pub attention: Attention,
    /// Properties of each layer's attention, `[L]`.
    pub pattern: Vec<LayerKind>,
    /// MLP of every layer.
    pub mlp: Mlp,
    /// Every norm.
    pub norm: NormKind,
    /// Norms of the residual stream have biases.
    pub norm_bias: bool,
    /// How positions enter.
    pub positions: Positions,
    /// From the last hidden rows to logits.
    pub head: Head,
}

/// What happens to rows before the first layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Factor on rows of the table. Learned rows are not multiplied by it.
    pub scale: f64,
    /// Factor on all input rows, learned ones too.
    pub input_scale: f64,
    /// All input rows are normalised.
    pub norm: bool,
}

/// How attention and MLP of a layer are joined to the residual stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Where the norms are.
    pub norms: Norms,
    /// The MLP reads the input of the attention, not its output.
    pub parallel: bool,
    /// Factor on the output of each sublayer.
    pub residual_scale: f64,
}

/// Where the norms of a layer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// Before each sublayer.
    Pre,
    /// One before both sublayers, which are parallel.
    SharedPre,
    /// After each sublayer, before its output is added.
    Post,
    /// Before and after each sublayer.
    PreAndPost,
}

impl Norms {
    /// Whether the input of a sublayer is normalised.
    pub(crate) fn has_pre(self) -> bool {
        self != Self::Post
    }

    /// Whether the output of a sublayer is normalised.
    pub(crate) fn has_post(self) -> bool {
        matches!(self, Self::Post | Self::PreAndPost)
    }
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
    /// Factor on the scores; `None`: 1/√D.
    pub scale: Option<f64>,
    /// c, if scores s become c · tanh(s / c).
    pub soft_cap: Option<f64>,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
}

/// Norms of queries and keys, before they are rotated (QK-norm).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// Of each head, with one gain `[D]` for all heads.
    SharedGain,
    /// Of each head, each with its own gain.
    GainPerHead,
    /// Of all heads together.
    AllHeads,
}

/// Properties of a layer's attention.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerKind {
    /// How many positions up to its own a row sees; `None`: all.
    pub window: Option<usize>,
    /// How queries and keys are rotated; `None`: they are not.
    pub rope: Option<Rope>,
}

impl Attention {
    /// Sizes, in a layer with this window.
    #[must_use]
    pub fn shape(&self, window: Option<usize>) -> AttentionShape {
        AttentionShape {
            query_heads: self.query_heads,
            kv_heads: self.kv_heads,
            head_width: self.head_width,
            scale: self.scale.unwrap_or_else(|| 1.0 / (self.head_width as f64).sqrt()),
            soft_cap: self.soft_cap,
            window,
        }
    }

    /// Q · D, width of a row of queries.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.shape(None).query_width()
    }

    /// K · D, width of a row of keys, or of values.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.shape(None).kv_width()
    }
}

/// MLP of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    /// I, intermediate width.
    pub intermediate: usize,
    /// The activation function.
    pub activation: Activation,
    /// Its projections have biases.
    pub bias: bool,
    /// A mixture of experts in its place.
    pub mixture: Option<Mixture>,
}

/// A mixture of experts (Shazeer et al. 2017).
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    /// E, number of experts.
    pub n: usize,
    /// Experts per row: those with the highest router probability.
    pub top_k: usize,
    /// Their weights sum to one.
    pub normalized: bool,
}

/// How positions enter.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// Queries and keys are rotated, in each layer as the pattern states (Su et al. 2021).
    Rotary,
    /// A learned vector is added to each row.
    Learned {
        /// Row of the table for position 0.
        offset: usize,
    },
    /// Scores fall with the distance, with a slope per head (ALiBi, Press et al. 2022).
    Alibi,
}

/// A rotation of queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Rotated numbers of a head, from the first on.
    pub width: usize,
    /// Which numbers are rotated with each other.
    pub pairing: Pairing,
    /// Scaling of the frequencies for longer contexts.
    pub scaling: RopeScaling,
}

/// Scaling of the rotary frequencies for longer contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// All frequencies are divided.
    Linear {
        /// By this.
        factor: f64,
    },
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
    /// YaRN (Peng et al. 2023): likewise, with a ramp over the numbers of a head, and larger scores.
    Yarn {
        /// Stretch of the long wavelengths.
        factor: f64,
        /// The factor on cosines and sines.
        attention_factor: f64,
        /// Rotations in the original context from which a frequency is kept.
        beta_fast: f64,
        /// Rotations in the original context up to which it is stretched.
        beta_slow: f64,
        /// Context before stretching.
        original_context: usize,
        /// The ends of the ramp are whole numbers.
        truncate: bool,
    },
    /// LongRoPE (Ding et al. 2024) within the original context: each frequency is divided by its own factor.
    Long {
        /// The factors, `[width / 2]`.
        factors: Vec<f64>,
        /// The factor on cosines and sines.
        attention_factor: f64,
    },
}

/// From the last hidden rows to logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Its matrix is the embedding table.
    pub tied: bool,
    /// It has a bias.
    pub bias: bool,
    /// Factor on the logits.
    pub scale: f64,
    /// c, if logits l become c · tanh(l / c).
    pub soft_cap: Option<f64>,
}

impl Spec {
    /// The fields as JSON, always in this order: what a soft prompt's file records of its backbone. Common values are omitted.
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
        let attention = &self.attention;
        let mut fields = Map::new();
        let mut put = |key: &str, value: Value| {
            fields.insert(key.to_owned(), value);
        };
        put("hidden", self.hidden.into());
        put("layers", self.layers.into());
        put("vocab", self.vocab.into());
        put("context", self.context.into());
        put("query_heads", attention.query_heads.into());
        put("kv_heads", attention.kv_heads.into());
        put("head_width", attention.head_width.into());
        put("qkv_bias", attention.qkv_bias.into());
        put("output_bias", attention.output_bias.into());
        put("intermediate", self.mlp.intermediate.into());
        put("function", function.into());
        put("gated", self.mlp.activation.gated.into());
        put("mlp_bias", self.mlp.bias.into());
        put("norm", norm.into());
        put("norm_eps", eps.into());
        put("positions", self.canonical_positions());
        put("tied_head", self.head.tied.into());
        for (key, value, usual) in self.special_numbers() {
            if !same_number(value, usual) {
                put(key, value.into());
            }
        }
        let is_layer = matches!(self.norm, NormKind::Layer { .. });
        for (key, special) in [
            ("embedding_norm", self.embedding.norm),
            ("parallel", self.block.parallel),
            ("head_bias", self.head.bias),
            ("norm_without_bias", is_layer && !self.norm_bias),
        ] {
            if special {
                put(key, true.into());
            }
        }
        match self.block.norms {
            Norms::Pre => {}
            Norms::SharedPre => put("norms", "before-both".into()),
            Norms::Post => put("norms", "after".into()),
            Norms::PreAndPost => put("norms", "around".into()),
        }
        match attention.qk_norm {
            QkNorm::None => {}
            QkNorm::SharedGain => put("head_norms", "shared".into()),
            QkNorm::GainPerHead => put("head_norms", "own".into()),
            QkNorm::AllHeads => put("head_norms", "whole".into()),
        }
        if let Some(Mixture { n, top_k, normalized }) = self.mlp.mixture {
            put("experts", json!({ "n": n, "per_row": top_k, "normalized": normalized }));
        }
        if self.pattern.iter().any(|kind| kind.window.is_some()) {
            put("windows", self.pattern.iter().map(|kind| kind.window).collect());
        }
        Value::Object(fields)
    }

    /// Numbers that few decoders have: name, value, default.
    fn special_numbers(&self) -> [(&'static str, f64, f64); 7] {
        let attention = &self.attention;
        [
            ("attention_scale", attention.scale.unwrap_or(0.0), 0.0),
            ("attention_soft_cap", attention.soft_cap.unwrap_or(0.0), 0.0),
            ("embedding_scale", self.embedding.scale, 1.0),
            ("input_scale", self.embedding.input_scale, 1.0),
            ("residual_scale", self.block.residual_scale, 1.0),
            ("logit_scale", self.head.scale, 1.0),
            ("logit_soft_cap", self.head.soft_cap.unwrap_or(0.0), 0.0),
        ]
    }

    fn canonical_positions(&self) -> Value {
        match self.positions {
            Positions::Learned { offset: 0 } => json!({ "kind": "learned" }),
            Positions::Learned { offset } => json!({ "kind": "learned", "offset": offset }),
            Positions::Alibi => json!({ "kind": "alibi" }),
            Positions::Rotary => {
                let ropes: Vec<Value> =
                    self.pattern.iter().map(|kind| self.canonical_rope(kind.rope.as_ref())).collect();
                match &ropes[..] {
                    [first, rest @ ..] if rest.iter().all(|rope| same(rope, first)) => first.clone(),
                    _ => json!({ "kind": "rotary", "of_layers": ropes }),
                }
            }
        }
    }

    fn canonical_rope(&self, rope: Option<&Rope>) -> Value {
        let Some(rope) = rope else { return Value::Null };
        rope.canonical(self.attention.head_width)
    }
}

impl Rope {
    /// Whether the frequencies and factors are the same in single precision, in which everything is computed.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        // A head of no width: the rotated width is always a field.
        same(&self.canonical(0), &other.canonical(0))
    }

    fn canonical(&self, head_width: usize) -> Value {
        let rope = self;
        let mut value = json!({ "kind": "rotary", "theta": rope.theta });
        let more = match &rope.scaling {
            RopeScaling::None => json!({}),
            RopeScaling::Linear { factor } => json!({ "scaling": "linear", "factor": factor }),
            RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context } => {
                json!({
                    "scaling": "llama3", "factor": factor, "low_frequency_factor": low_frequency_factor,
                    "high_frequency_factor": high_frequency_factor, "original_context": original_context,
                })
            }
            RopeScaling::Yarn {
                factor,
                attention_factor,
                beta_fast,
                beta_slow,
                original_context,
                truncate,
            } => json!({
                "scaling": "yarn", "factor": factor, "attention_factor": attention_factor,
                "beta_fast": beta_fast, "beta_slow": beta_slow, "original_context": original_context,
                "truncate": truncate,
            }),
            RopeScaling::Long { factors, attention_factor } => {
                json!({ "scaling": "long", "factors": factors, "attention_factor": attention_factor })
            }
        };
        if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
            if rope.width != head_width {
                value.insert("width".into(), rope.width.into());
            }
            if rope.pairing == Pairing::Interleaved {
                value.insert("pairing".into(), "neighbours".into());
            }
        }
        value
    }
}

impl Spec {
    /// L·2·K·D, numbers of a position's keys and values in all layers.
    #[must_use]
    pub fn cache_width(&self) -> usize {
        self.layers * 2 * self.attention.kv_width()
    }

    /// Numbers in the model, all of them frozen.
    #[must_use]
    pub fn n_parameters(&self) -> usize {
        let (h, i) = (self.hidden, self.mlp.intermediate);
        let attention = &self.attention;
        let (q, k) = (attention.query_width(), attention.kv_width());
        let up = if self.mlp.activation.gated { 2 * i } else { i };
        let norm = if self.norm_bias { 2 * h } else { h };
        let if_so = |has: bool, n: usize| if has { n } else { 0 };
        let qk_norm = match attention.qk_norm {
            QkNorm::None => 0,
            QkNorm::SharedGain => 2 * attention.head_width,
            QkNorm::GainPerHead | QkNorm::AllHeads => q + k,
        };
        let projections = h * (q + 2 * k)
            + q * h
            + if_so(attention.qkv_bias, q + 2 * k)
            + if_so(attention.output_bias, h)
            + qk_norm;
        let expert = h * (up + i) + if_so(self.mlp.bias, up + h);
        let mlp = self.mlp.mixture.as_ref().map_or(expert, |mixture| mixture.n * (expert + h));
        let n_norms = match self.block.norms {
            Norms::SharedPre => 1,
            Norms::Pre | Norms::Post => 2,
            Norms::PreAndPost => 4,
        };
        let positions = match self.positions {
            Positions::Learned { offset } => (self.context + offset) * h,
            Positions::Rotary | Positions::Alibi => 0,
        };
        let tables = self.vocab * h * if self.head.tied { 1 } else { 2 };
        self.layers * (projections + mlp + n_norms * norm)
            + norm
            + if_so(self.embedding.norm, norm)
            + positions
            + tables
            + if_so(self.head.bias, self.vocab)
    }
}
