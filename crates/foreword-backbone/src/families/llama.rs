//! Llama 1 to 3 and everything that calls itself `llama`, SmolLM 1 and 2 and TinyLlama among them.

use serde_json::json;

use super::{Experts, Family, LLAMA_LIKE, Names, Qkv, llama_like};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, Mlp, Spec};

pub(crate) const FAMILY: Family = Family { model_type: "llama", spec, names: |_| NAMES };

pub(super) const NAMES: Names = Names {
    prefixes: &["model."],
    embeddings: "embed_tokens",
    embedding_norm: "",
    positions: "",
    layer: "layers.{}.",
    attention_norm: "input_layernorm",
    qkv: Qkv::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    query_norm: "self_attn.q_norm",
    key_norm: "self_attn.k_norm",
    output: "self_attn.o_proj",
    attention_post_norm: "",
    mlp_norm: "post_attention_layernorm",
    up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
    experts: Experts { router: "", prefix: "", up: &[], down: "" },
    mlp_post_norm: "",
    final_norm: "norm",
    heads: &["lm_head"],
    transposed: false,
    gain_offset: 0.0,
    head_norm_per_head: false,
    no_weights: &["rotary_emb.inv_freq"],
    other_parts: &[],
};

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    config.must_be("rope_interleaved", &json!(false), "a number is rotated with the one half a head away")?;
    // Slices of the projections give the same sum.
    config.ignore(&["is_llama_config", "pretraining_tp"]);
    with_biases(config, llama_like(config, &LLAMA_LIKE)?)
}

/// Biases by the flags `attention_bias` and `mlp_bias`.
pub(super) fn with_biases(config: &HfConfig, spec: Spec) -> Result<Spec, BackboneError> {
    let (attention, mlp) = (config.flag("attention_bias", false)?, config.flag("mlp_bias", false)?);
    Ok(Spec {
        attention: Attention { qkv_bias: attention, output_bias: attention, ..spec.attention },
        mlp: Mlp { bias: mlp, ..spec.mlp },
        ..spec
    })
}
