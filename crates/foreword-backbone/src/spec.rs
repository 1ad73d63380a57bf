//! All that the decoder may branch on, as data.

use foreword_kernels::{Activation, AttentionShape, Function, NormKind, Pairing};
use serde_json::{Map, Value, json};

use crate::identity::{same, same_number};

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
    /// What happens to rows before the first layer.
    pub embedding: Embedding,
    /// How a layer's two halves are joined to the residual stream.
    pub block: Block,
    /// Attention of every layer.
    pub attention: Attention,
    /// In what the layers' attentions differ, `[L]`.
    pub pattern: Vec<LayerKind>,
    /// MLP of every layer.
    pub mlp: Mlp,
    /// Every norm.
    pub norm: NormKind,
    /// Norms of the residual stream have biases.
    pub norm_bias: bool,
    /// How rows know their position.
    pub positions: Positions,
    /// From the last hidden rows to logits.
    pub head: Head,
}

/// What happens to rows before the first layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Factor on a row of the table, before it enters: learned rows are not multiplied by it.
    pub scale: f64,
    /// Factor on every row that enters, learned ones too.
    pub input_scale: f64,
    /// Every row that enters is normed.
    pub norm: bool,
}

/// How attention and MLP of a layer are joined to the residual stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Where the norms stand.
    pub norms: Norms,
    /// The MLP reads what the attention reads, not what it gives.
    pub parallel: bool,
    /// Factor on what each half adds.
    pub residual_scale: f64,
}

/// Where the norms of a layer's halves stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// Before each half.
    Before,
    /// Before both halves at once, which are parallel: one norm.
    BeforeBoth,
    /// After each half, before its result is added.
    After,
    /// Before and after each half.
    Around,
}

impl Norms {
    /// Whether a half's input is normed.
    pub(crate) fn before(self) -> bool {
        self != Self::After
    }

    /// Whether a half's result is normed.
    pub(crate) fn after(self) -> bool {
        matches!(self, Self::After | Self::Around)
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
    /// c, where scores s become c · tanh(s / c).
    pub soft_cap: Option<f64>,
    /// Norms of queries and keys.
    pub head_norms: HeadNorms,
}

/// Norms of queries and keys, before they are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorms {
    /// None.
    None,
    /// Of each head, with one gain `[D]` for all of them.
    Shared,
    /// Of each head, with a gain of its own.
    Own,
    /// Of all heads together.
    Whole,
}

/// In what a layer's attention is its own.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerKind {
    /// How many positions up to its own a row sees; `None`: all.
    pub window: Option<usize>,
    /// How queries and keys are rotated; `None`: not at all.
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
        self.query_heads * self.head_width
    }

    /// K · D, width of a row of keys, or of values.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_width
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
    /// There are several, of which each row asks a few.
    pub mixture: Option<Mixture>,
}

/// Several MLPs in the place of one (Shazeer et al. 2017).
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    /// E, how many there are.
    pub n: usize,
    /// How many a row asks: those that its router holds for the likeliest.
    pub per_row: usize,
    /// Their weights sum to one.
    pub normalized: bool,
}

/// How rows know their position.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// Queries and keys are rotated, layer by layer as the pattern says (Su et al. 2021).
    Rotary,
    /// A learned vector is added to each row.
    Learned {
        /// Row of the table for position 0.
        offset: usize,
    },
    /// Scores fall with the distance, in each head by another slope (ALiBi, Press et al. 2022).
    Alibi,
}

/// A rotation of queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How many numbers of a head are rotated, from the first on.
    pub width: usize,
    /// Which numbers are rotated with each other.
    pub pairing: Pairing,
    /// Change of the frequencies for longer contexts.
    pub scaling: RopeScaling,
}

/// Change of the rotary frequencies for longer contexts.
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
    /// c, where logits l become c · tanh(l / c).
    pub soft_cap: Option<f64>,
}

impl Spec {
    /// The fields as JSON, always in this order: what a soft prompt's file remembers of its backbone. What most decoders
    /// have in common is left out.
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
            Norms::Before => {}
            Norms::BeforeBoth => put("norms", "before-both".into()),
            Norms::After => put("norms", "after".into()),
            Norms::Around => put("norms", "around".into()),
        }
        match attention.head_norms {
            HeadNorms::None => {}
            HeadNorms::Shared => put("head_norms", "shared".into()),
            HeadNorms::Own => put("head_norms", "own".into()),
            HeadNorms::Whole => put("head_norms", "whole".into()),
        }
        if let Some(Mixture { n, per_row, normalized }) = self.mlp.mixture {
            put("experts", json!({ "n": n, "per_row": per_row, "normalized": normalized }));
        }
        if self.pattern.iter().any(|kind| kind.window.is_some()) {
            put("windows", self.pattern.iter().map(|kind| kind.window).collect());
        }
        Value::Object(fields)
    }

    /// Numbers that few decoders have: name, value, and what it is without them.
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
    /// Whether the frequencies and factors are the same in single precision, in which all is computed.
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
            if rope.pairing == Pairing::Neighbours {
                value.insert("pairing".into(), "neighbours".into());
            }
        }
        value
    }
}

impl Spec {
    /// L·2·K·D, the numbers of a position's keys and values in all layers.
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
        let head_norms = match attention.head_norms {
            HeadNorms::None => 0,
            HeadNorms::Shared => 2 * attention.head_width,
            HeadNorms::Own | HeadNorms::Whole => q + k,
        };
        let projections = h * (q + 2 * k)
            + q * h
            + if_so(attention.qkv_bias, q + 2 * k)
            + if_so(attention.output_bias, h)
            + head_norms;
        let expert = h * (up + i) + if_so(self.mlp.bias, up + h);
        let mlp = self.mlp.mixture.as_ref().map_or(expert, |mixture| mixture.n * (expert + h));
        let n_norms = match self.block.norms {
            Norms::BeforeBoth => 1,
            Norms::Before | Norms::After => 2,
            Norms::Around => 4,
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
