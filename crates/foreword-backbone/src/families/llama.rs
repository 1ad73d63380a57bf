//! Llama 1 to 3 and everything that calls itself `llama`, SmolLM and TinyLlama among them.

use foreword_kernels::{Activation, Function, NormKind};
use serde_json::json;

use super::{Family, Names, Qkv, function, heads, rotary};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, Mlp, Positions, Spec};

pub(crate) const FAMILY: Family = Family { model_type: "llama", spec, names: NAMES };

pub(super) const NAMES: Names = Names {
    prefix: "model.",
    embeddings: "embed_tokens",
    positions: "",
    layer: "layers.{}.",
    attention_norm: "input_layernorm",
    qkv: Qkv::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    output: "self_attn.o_proj",
    mlp_norm: "post_attention_layernorm",
    up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
    final_norm: "norm",
    head: "lm_head",
    transposed: false,
    no_weights: &["rotary_emb.inv_freq"],
};

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let hidden = config.count("hidden_size")?;
    let [query_heads, kv_heads, head_width] = heads(config, hidden)?;
    let bias = config.flag("attention_bias", false)?;
    let (theta, scaling) = rotary(config)?;
    config.must_be("rope_interleaved", &json!(false), "a number is rotated with the one half a head away")?;
    // Slices of the projections give the same sum.
    config.ignore(&["is_llama_config", "pretraining_tp"]);
    config.must_be("partial_rotary_factor", &json!(1.0), "whole heads are rotated")?;
    Ok(Spec {
        hidden,
        layers: config.count("num_hidden_layers")?,
        vocab: config.count("vocab_size")?,
        context: config.count_or_none("max_position_embeddings")?.unwrap_or(2048),
        attention: Attention { query_heads, kv_heads, head_width, qkv_bias: bias, output_bias: bias },
        mlp: Mlp {
            intermediate: config.count("intermediate_size")?,
            activation: Activation { function: function(config, "hidden_act", Function::Silu)?, gated: true },
            bias: config.flag("mlp_bias", false)?,
        },
        norm: NormKind::Rms { eps: config.number_or_none("rms_norm_eps")?.unwrap_or(1e-6) },
        positions: Positions::Rotary { theta, scaling },
        tied_head: config.flag("tie_word_embeddings", false)?,
    })
}
