//! Qwen2 and Qwen2.5: Llama's tensors with biases on queries, keys and values.

use foreword_kernels::{Activation, Function, NormKind};
use serde_json::json;

use super::{Family, function, heads, llama, rotary};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, Mlp, Positions, Spec};

pub(crate) const FAMILY: Family = Family { model_type: "qwen2", spec, names: llama::NAMES };

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let hidden = config.count("hidden_size")?;
    let layers = config.count("num_hidden_layers")?;
    let [query_heads, kv_heads, head_width] = heads(config, hidden)?;
    let (theta, scaling) = rotary(config)?;
    config.must_be("use_sliding_window", &json!(false), "every layer must see the whole text")?;
    config.ignore(&["sliding_window", "max_window_layers"]);
    config.each_must_be("layer_types", layers, "full_attention", "every layer must see the whole text")?;
    config.must_be("use_mrope", &json!(false), "positions have one dimension here")?;
    Ok(Spec {
        hidden,
        layers,
        vocab: config.count("vocab_size")?,
        context: config.count_or_none("max_position_embeddings")?.unwrap_or(32_768),
        attention: Attention { query_heads, kv_heads, head_width, qkv_bias: true, output_bias: false },
        mlp: Mlp {
            intermediate: config.count("intermediate_size")?,
            activation: Activation { function: function(config, "hidden_act", Function::Silu)?, gated: true },
            bias: false,
        },
        norm: NormKind::Rms { eps: config.number_or_none("rms_norm_eps")?.unwrap_or(1e-6) },
        positions: Positions::Rotary { theta, scaling },
        tied_head: config.flag("tie_word_embeddings", false)?,
    })
}
