//! Architectures as data: each translates `config.json` into a [`Spec`] and names its tensors.

mod bloom;
mod cohere;
mod falcon;
mod gemma;
mod gpt2;
mod gpt_neox;
mod gptj;
mod granite;
mod llama;
mod mistral;
mod mixture;
mod olmo2;
mod opt;
mod phi3;
mod qwen;
mod rope;
mod smollm3;
mod stablelm;
pub(crate) mod tokenizer_classes;

use foreword_kernels::{Activation, Function, NormKind};
use serde_json::json;

use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, Block, Embedding, Head, LayerKind, Mlp, Norms, Positions, QkNorm, Rope, Spec};
pub(crate) use rope::RopeKeys;

/// One architecture.
pub(crate) struct Family {
    /// `model_type` in config.json.
    pub(crate) model_type: &'static str,
    /// Reads config.json.
    pub(crate) spec: fn(&HfConfig) -> Result<Spec, BackboneError>,
    /// Names of the tensors.
    pub(crate) names: fn(&Spec) -> Names,
}

/// Names of the tensors, without `.weight` and `.bias`; `{}` in a layer's prefix is its number. Names that a family does
/// not have are empty.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    /// Prefixes of everything but the head: a file has one of them, or none.
    pub(crate) prefixes: &'static [&'static str],
    pub(crate) embeddings: &'static str,
    pub(crate) embedding_norm: &'static str,
    pub(crate) positions: &'static str,
    pub(crate) layer: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) qkv: Qkv,
    pub(crate) query_norm: &'static str,
    pub(crate) key_norm: &'static str,
    pub(crate) output: &'static str,
    pub(crate) attention_post_norm: &'static str,
    pub(crate) mlp_norm: &'static str,
    /// Projections into the MLP: gates and values, or one for both.
    pub(crate) up: &'static [&'static str],
    pub(crate) down: &'static str,
    /// The experts of a mixture.
    pub(crate) experts: Experts,
    pub(crate) mlp_post_norm: &'static str,
    pub(crate) final_norm: &'static str,
    /// The head's name, and its names in other versions of transformers.
    pub(crate) heads: &'static [&'static str],
    /// Linear weights are stored `[in, out]`.
    pub(crate) transposed: bool,
    /// Added to every stored gain.
    pub(crate) gain_offset: f32,
    /// The gain of each head's norm is a separate tensor.
    pub(crate) head_norm_per_head: bool,
    /// Name endings of tensors that hold no weights.
    pub(crate) no_weights: &'static [&'static str],
    /// Name beginnings of the other parts of a model, which texts alone don't pass.
    pub(crate) other_parts: &'static [&'static str],
}

/// Names of a layer's experts.
#[derive(Clone, Copy)]
pub(crate) struct Experts {
    pub(crate) router: &'static str,
    /// `{}` is the expert's number.
    pub(crate) prefix: &'static str,
    pub(crate) up: &'static [&'static str],
    pub(crate) down: &'static str,
}

/// Where queries, keys and values come from.
#[derive(Clone, Copy)]
pub(crate) enum Qkv {
    /// Three projections.
    Separate([&'static str; 3]),
    /// One, its outputs in the order query, key, value.
    Fused(&'static str),
    /// One, its outputs per key/value head: the queries that share it, its key, its value.
    Grouped(&'static str),
}

/// All architectures.
pub(crate) const ALL: &[&Family] = &[
    &bloom::FAMILY,
    &cohere::FAMILY,
    &falcon::FAMILY,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &gemma::GEMMA3_MULTIMODAL,
    &gpt2::FAMILY,
    &gpt_neox::FAMILY,
    &gptj::FAMILY,
    &granite::FAMILY,
    &llama::FAMILY,
    &mistral::FAMILY,
    &mixture::MIXTRAL,
    &olmo2::FAMILY,
    &opt::FAMILY,
    &phi3::FAMILY,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &mixture::QWEN3,
    &smollm3::FAMILY,
    &stablelm::FAMILY,
];

/// The architecture that config.json names.
pub(crate) fn find(config: &HfConfig) -> Result<&'static Family, BackboneError> {
    let model_type = config.text_or_none("model_type")?.unwrap_or_default();
    config.must_be("is_encoder_decoder", &json!(false), "a decoder reads and writes one text")?;
    ALL.iter().find(|family| family.model_type == model_type).copied().ok_or_else(|| {
        let supported: Vec<_> = ALL.iter().map(|family| family.model_type).collect();
        BackboneError::UnknownArchitecture { found: model_type.to_owned(), supported: supported.join(", ") }
    })
}

/// Defaults of a Llama-like `config.json`, by family.
struct Defaults {
    /// Number of positions.
    context: usize,
    /// Whether the head is the embedding table.
    tied: bool,
    /// The key of the activation, and its default.
    activation: (&'static str, Function),
    /// The MLP is gated.
    gated: bool,
    /// The key of the norm's ε, and the default.
    norm: (&'static str, NormKind),
    rope: RopeKeys,
}

/// Llama's own.
const LLAMA_LIKE: Defaults = Defaults {
    context: 2048,
    tied: false,
    activation: ("hidden_act", Function::Silu),
    gated: true,
    norm: ("rms_norm_eps", NormKind::Rms { eps: 1e-6 }),
    rope: RopeKeys::LLAMA_LIKE,
};

/// Reads the keys that most families share: full attention, no biases, pre-norm. A family changes what differs.
fn llama_like(config: &HfConfig, defaults: &Defaults) -> Result<Spec, BackboneError> {
    let hidden = config.count("hidden_size")?;
    let layers = config.layers("num_hidden_layers")?;
    let [query_heads, kv_heads, head_width] = heads(config, hidden)?;
    let mut context = config.count_or_none("max_position_embeddings")?.unwrap_or(defaults.context);
    let rope = rope::rope(config, head_width, &defaults.rope, &mut context)?;
    let (key, default) = defaults.activation;
    let activation = Activation { function: function(config, key, default)?, gated: defaults.gated };
    let intermediate = config.count("intermediate_size")?;
    Ok(Spec {
        hidden,
        layers,
        vocab: config.count("vocab_size")?,
        context,
        embedding: PLAIN_EMBEDDING,
        block: PLAIN_BLOCK,
        attention: plain_attention([query_heads, kv_heads, head_width], [false, false]),
        pattern: vec![LayerKind { window: None, rope: Some(rope) }; layers],
        mlp: Mlp { intermediate, activation, bias: false, mixture: None },
        norm: norm_kind(config, defaults.norm)?,
        norm_bias: matches!(defaults.norm.1, NormKind::Layer { .. }),
        positions: Positions::Rotary,
        head: plain_head(config.flag("tie_word_embeddings", defaults.tied)?),
    })
}

/// No scale, no norm.
const PLAIN_EMBEDDING: Embedding = Embedding { scale: 1.0, input_scale: 1.0, norm: false };

/// Pre-norm, sequential sublayers.
const PLAIN_BLOCK: Block = Block { norms: Norms::Pre, parallel: false, residual_scale: 1.0 };

/// The default scale; biases of queries, keys and values, and of the output.
fn plain_attention(
    [query_heads, kv_heads, head_width]: [usize; 3],
    [qkv_bias, output_bias]: [bool; 2],
) -> Attention {
    Attention {
        query_heads,
        kv_heads,
        head_width,
        qkv_bias,
        output_bias,
        scale: None,
        soft_cap: None,
        qk_norm: QkNorm::None,
    }
}

/// Full attention in all layers, with the same rotation.
fn uniform_layers(layers: usize, rope: Option<Rope>) -> Vec<LayerKind> {
    vec![LayerKind { window: None, rope }; layers]
}

fn plain_head(tied: bool) -> Head {
    Head { tied, bias: false, scale: 1.0, soft_cap: None }
}

/// A norm whose ε has this key.
fn norm_kind(config: &HfConfig, (key, default): (&str, NormKind)) -> Result<NormKind, BackboneError> {
    Ok(match (config.number_or_none(key)?, default) {
        (None, default) => default,
        (Some(eps), NormKind::Rms { .. }) => NormKind::Rms { eps },
        (Some(eps), NormKind::Layer { .. }) => NormKind::Layer { eps },
    })
}

/// An activation by the name that transformers gives it.
fn function(config: &HfConfig, key: &str, default: Function) -> Result<Function, BackboneError> {
    match config.text_or_none(key)? {
        None => Ok(default),
        Some("silu" | "swish") => Ok(Function::Silu),
        Some("gelu") => Ok(Function::Gelu),
        Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Function::GeluTanh),
        Some("relu") => Ok(Function::Relu),
        Some(_) => Err(config.reject(key, "known are silu, gelu, gelu_new, gelu_pytorch_tanh and relu")),
    }
}

/// Query heads, key/value heads and head width; the width is derived only where the file does not state it.
fn heads(config: &HfConfig, hidden: usize) -> Result<[usize; 3], BackboneError> {
    let query_heads = config.count("num_attention_heads")?;
    let kv_heads = config.count_or_none("num_key_value_heads")?.unwrap_or(query_heads);
    if !query_heads.is_multiple_of(kv_heads) {
        return Err(
            config.reject("num_key_value_heads", format!("it must divide the {query_heads} query heads"))
        );
    }
    let head_width = match config.count_or_none("head_dim")? {
        Some(width) => width,
        None => head_width(config, "num_attention_heads", ("hidden_size", hidden), query_heads)?,
    };
    if !head_width.is_multiple_of(2) {
        return Err(config.reject("head_dim", "rotary positions need an even width"));
    }
    Ok([query_heads, kv_heads, head_width])
}

/// H / heads.
fn head_width(
    config: &HfConfig,
    key: &str,
    (hidden_key, hidden): (&str, usize),
    heads: usize,
) -> Result<usize, BackboneError> {
    if hidden.is_multiple_of(heads) {
        return Ok(hidden / heads);
    }
    Err(config.reject(key, format!("it must divide {hidden_key} {hidden}")))
}

/// The window of each layer that `layer_types` calls sliding; where it is silent, of those that `default` names.
fn windows(
    config: &HfConfig,
    spec: &mut Spec,
    window: Option<usize>,
    default: impl Fn(usize) -> bool,
) -> Result<(), BackboneError> {
    let kind = |value: &serde_json::Value| match value.as_str() {
        Some("sliding_attention") => Some(true),
        Some("full_attention") => Some(false),
        _ => None,
    };
    let expected = "\"full_attention\" or \"sliding_attention\"";
    let stated = config.each("layer_types", spec.layers, kind, expected)?;
    for (i, layer) in spec.pattern.iter_mut().enumerate() {
        let slides = stated.as_ref().map_or_else(|| default(i), |stated| stated[i]);
        layer.window = window.filter(|_| slides);
    }
    if window.is_none() && stated.is_some_and(|stated| stated.contains(&true)) {
        return Err(config.reject("sliding_window", "layer_types has layers that need one"));
    }
    Ok(())
}
