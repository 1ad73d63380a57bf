//! Architectures as data: each translates `config.json` into a [`Spec`] and names its tensors. No code runs here.

mod gpt2;
mod llama;
mod qwen2;

use foreword_kernels::Function;

use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{RopeScaling, Spec};

/// One architecture.
pub(crate) struct Family {
    /// `model_type` in config.json.
    pub(crate) model_type: &'static str,
    /// Reads config.json.
    pub(crate) spec: fn(&HfConfig) -> Result<Spec, BackboneError>,
    /// Names of the tensors.
    pub(crate) names: Names,
}

/// Names of the tensors, without `.weight` and `.bias`; `{}` in a layer's prefix is its number.
pub(crate) struct Names {
    /// Prefix of everything but the head, in some files absent.
    pub(crate) prefix: &'static str,
    pub(crate) embeddings: &'static str,
    /// Learned positions, where the family has them.
    pub(crate) positions: &'static str,
    pub(crate) layer: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) qkv: Qkv,
    pub(crate) output: &'static str,
    pub(crate) mlp_norm: &'static str,
    /// Projections into the MLP: gate and value, or one.
    pub(crate) up: &'static [&'static str],
    pub(crate) down: &'static str,
    pub(crate) final_norm: &'static str,
    pub(crate) head: &'static str,
    /// Linear weights are stored `[in, out]`.
    pub(crate) transposed: bool,
    /// Endings of tensors that hold no weights.
    pub(crate) no_weights: &'static [&'static str],
}

/// Where queries, keys and values come from.
pub(crate) enum Qkv {
    /// Three projections.
    Separate([&'static str; 3]),
    /// One, its outputs in the order query, key, value.
    Fused(&'static str),
}

/// All architectures.
pub(crate) const ALL: &[&Family] = &[&gpt2::FAMILY, &llama::FAMILY, &qwen2::FAMILY];

/// The architecture that config.json names.
pub(crate) fn find(config: &HfConfig) -> Result<&'static Family, BackboneError> {
    let model_type = config.text_or_none("model_type")?.unwrap_or_default();
    ALL.iter().find(|family| family.model_type == model_type).copied().ok_or_else(|| {
        let supported: Vec<_> = ALL.iter().map(|family| family.model_type).collect();
        BackboneError::UnknownArchitecture { found: model_type.to_owned(), supported: supported.join(", ") }
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

/// Why a smaller base is refused: at a far position its angle would be no number.
const LEAST_THETA: &str = "it must be at least 1, so that no frequency is above 1";

/// Rotary positions as transformers 4 (`rope_theta`, `rope_scaling`) and 5 (`rope_parameters`) write them.
fn rotary(config: &HfConfig) -> Result<(f64, RopeScaling), BackboneError> {
    let outer_theta = config.number_or_none("rope_theta")?;
    if outer_theta.is_some_and(|theta| theta < 1.0) {
        return Err(config.reject("rope_theta", LEAST_THETA));
    }
    let old = config.object("rope_scaling")?;
    let new = config.object("rope_parameters")?;
    // transformers 4 knows only the older key, and 5 lets it win where both are there.
    match (&old, &new) {
        (None, None) => Ok((outer_theta.unwrap_or(10_000.0), RopeScaling::None)),
        (Some(one), None) | (None, Some(one)) => rope_parameters(one, outer_theta),
        (Some(old), Some(new)) => {
            let (of_old, of_new) = (rope_parameters(old, outer_theta)?, rope_parameters(new, outer_theta)?);
            if of_old == of_new {
                Ok(of_old)
            } else {
                Err(config.reject("rope_scaling", "it contradicts rope_parameters: keep one of them"))
            }
        }
    }
}

/// Base and scaling of the frequencies, as one object states them.
fn rope_parameters(
    parameters: &HfConfig,
    outer_theta: Option<f64>,
) -> Result<(f64, RopeScaling), BackboneError> {
    let inner_theta = parameters.number_or_none("rope_theta")?;
    let theta = inner_theta.or(outer_theta).unwrap_or(10_000.0);
    if inner_theta.is_some_and(|theta| theta < 1.0) {
        return Err(parameters.reject("rope_theta", LEAST_THETA));
    }
    let older_name = parameters.text_or_none("type")?;
    let scaling = match parameters.text_or_none("rope_type")?.or(older_name) {
        None | Some("default") => RopeScaling::None,
        Some("llama3") => RopeScaling::Llama3 {
            factor: parameters.number("factor")?,
            low_frequency_factor: parameters.number("low_freq_factor")?,
            high_frequency_factor: parameters.number("high_freq_factor")?,
            original_context: parameters.count("original_max_position_embeddings")?,
        },
        Some(_) => return Err(parameters.reject("rope_type", "supported are default and llama3")),
    };
    if let RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, .. } = scaling {
        // As the frequencies are computed: two numbers that are the same in single precision leave nothing between them.
        if low_frequency_factor as f32 >= high_frequency_factor as f32 {
            return Err(parameters.reject("low_freq_factor", "it must be below high_freq_factor"));
        }
        if factor < 1.0 {
            return Err(parameters.reject("factor", "it stretches, so it must be at least 1"));
        }
    }
    parameters.finish()?;
    Ok((theta, scaling))
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
        None if hidden.is_multiple_of(query_heads) => hidden / query_heads,
        None => {
            return Err(config.reject("num_attention_heads", format!("it must divide hidden_size {hidden}")));
        }
    };
    if !head_width.is_multiple_of(2) {
        return Err(config.reject("head_dim", "rotary positions need an even width"));
    }
    Ok([query_heads, kv_heads, head_width])
}
