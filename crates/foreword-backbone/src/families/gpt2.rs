//! GPT-2: learned positions, layer norms, and linear weights stored input first.

use foreword_kernels::{Activation, Function, NormKind};
use serde_json::json;

use super::{
    Family, Names, PLAIN_BLOCK, PLAIN_EMBEDDING, Qkv, function, head_width, llama, norm_kind,
    plain_attention, plain_head, uniform_layers,
};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Mlp, Positions, Spec};

pub(crate) const FAMILY: Family = Family {
    model_type: "gpt2",
    spec,
    names: |_| Names {
        prefixes: &["transformer."],
        embeddings: "wte",
        positions: "wpe",
        layer: "h.{}.",
        attention_norm: "ln_1",
        qkv: Qkv::Fused("attn.c_attn"),
        output: "attn.c_proj",
        mlp_norm: "ln_2",
        up: &["mlp.c_fc"],
        down: "mlp.c_proj",
        final_norm: "ln_f",
        transposed: true,
        no_weights: &["attn.bias", "attn.masked_bias"],
        ..llama::NAMES
    },
};

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let hidden = config.count("n_embd")?;
    let layers = config.layers("n_layer")?;
    let heads = config.count("n_head")?;
    config.must_be("scale_attn_weights", &json!(true), "scores are scaled by the head width")?;
    config.must_be(
        "scale_attn_by_inverse_layer_idx",
        &json!(false),
        "scores are scaled by the head width alone",
    )?;
    config.must_be("add_cross_attention", &json!(false), "there is no encoder")?;
    config.ignore(&["reorder_and_upcast_attn", "n_ctx"]);
    let width = head_width(config, "n_head", ("n_embd", hidden), heads)?;
    let function = function(config, "activation_function", Function::GeluTanh)?;
    Ok(Spec {
        hidden,
        layers,
        vocab: config.count("vocab_size")?,
        context: config.count_or_none("n_positions")?.unwrap_or(1024),
        embedding: PLAIN_EMBEDDING,
        block: PLAIN_BLOCK,
        attention: plain_attention([heads, heads, width], [true, true]),
        pattern: uniform_layers(layers, None),
        mlp: Mlp {
            intermediate: config.count_or_none("n_inner")?.unwrap_or(4 * hidden),
            activation: Activation { function, gated: false },
            bias: true,
            mixture: None,
        },
        norm: norm_kind(config, ("layer_norm_epsilon", NormKind::Layer { eps: 1e-5 }))?,
        norm_bias: true,
        positions: Positions::Learned { offset: 0 },
        head: plain_head(config.flag("tie_word_embeddings", true)?),
    })
}
