//! BLOOM: scores that fall with the distance, and a norm of the embeddings.

use foreword_kernels::{Activation, Function, NormKind};
use serde_json::json;

use super::{
    Family, Names, PLAIN_BLOCK, PLAIN_EMBEDDING, Qkv, head_width, llama, norm_kind, plain_attention,
    plain_head, uniform_layers,
};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Embedding, Mlp, Positions, Spec};

pub(crate) const FAMILY: Family = Family {
    model_type: "bloom",
    spec,
    names: |_| Names {
        prefixes: &["transformer."],
        embeddings: "word_embeddings",
        embedding_norm: "word_embeddings_layernorm",
        layer: "h.{}.",
        qkv: Qkv::Grouped("self_attention.query_key_value"),
        output: "self_attention.dense",
        up: &["mlp.dense_h_to_4h"],
        down: "mlp.dense_4h_to_h",
        final_norm: "ln_f",
        ..llama::NAMES
    },
};

/// The model has no last position; training texts had this length.
const CONTEXT: usize = 2048;

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let older = config.count_or_none("n_embed")?;
    let hidden = match older {
        Some(hidden) => hidden,
        None => config.count("hidden_size")?,
    };
    let count = |newer: &str, older: &str| match config.count_or_none(newer)? {
        Some(count) => Ok(count),
        None => config.count(older),
    };
    let layers = config.layers(if config.contains("n_layer") { "n_layer" } else { "num_hidden_layers" })?;
    let heads = count("n_head", "num_attention_heads")?;
    let head_width = head_width(config, "n_head", ("hidden_size", hidden), heads)?;
    config.must_be(
        "apply_residual_connection_post_layernorm",
        &json!(false),
        "the residual stream is not normed",
    )?;
    config.ignore(&["hidden_size", "pretraining_tp", "slow_but_exact", "skip_bias_add"]);
    config.ignore(&["skip_bias_add_qkv", "attention_softmax_in_fp32", "bias_dropout_fusion", "n_inner"]);
    config.ignore(&["masked_softmax_fusion", "offset_alibi", "use_alibi"]);
    config.ignore(&["num_hidden_layers", "num_attention_heads"]);
    Ok(Spec {
        hidden,
        layers,
        vocab: config.count("vocab_size")?,
        context: config.count_or_none("seq_length")?.unwrap_or(CONTEXT),
        embedding: Embedding { norm: true, ..PLAIN_EMBEDDING },
        block: PLAIN_BLOCK,
        attention: plain_attention([heads, heads, head_width], [true, true]),
        pattern: uniform_layers(layers, None),
        mlp: Mlp {
            intermediate: 4 * hidden,
            activation: Activation { function: Function::GeluTanh, gated: false },
            bias: true,
            mixture: None,
        },
        norm: norm_kind(config, ("layer_norm_epsilon", NormKind::Layer { eps: 1e-5 }))?,
        norm_bias: true,
        positions: Positions::Alibi,
        head: plain_head(config.flag("tie_word_embeddings", true)?),
    })
}
