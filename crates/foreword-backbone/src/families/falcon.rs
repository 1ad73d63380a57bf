//! Falcon: one key/value head or a few, halves in parallel below one norm, below two, or one after the other.

use foreword_kernels::{Activation, Function, NormKind};
use serde_json::json;

use super::{
    Family, Names, PLAIN_BLOCK, PLAIN_EMBEDDING, Qkv, RopeKeys, function, head_width, llama, norm_kind,
    plain_attention, plain_head, rope, uniform_layers,
};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Block, Mlp, Norms, Positions, Spec};

pub(crate) const FAMILY: Family = Family { model_type: "falcon", spec, names };

fn names(spec: &Spec) -> Names {
    let two = spec.block.parallel && spec.block.norms == Norms::Pre;
    Names {
        prefixes: &["transformer."],
        embeddings: "word_embeddings",
        layer: "h.{}.",
        attention_norm: if two { "ln_attn" } else { "input_layernorm" },
        qkv: Qkv::Grouped("self_attention.query_key_value"),
        output: "self_attention.dense",
        mlp_norm: if two { "ln_mlp" } else { "post_attention_layernorm" },
        up: &["mlp.dense_h_to_4h"],
        down: "mlp.dense_4h_to_h",
        final_norm: "ln_f",
        ..llama::NAMES
    }
}

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let older = config.count_or_none("n_embed")?;
    let hidden = match older {
        Some(hidden) => hidden,
        None => config.count("hidden_size")?,
    };
    let layers = config.layers("num_hidden_layers")?;
    let heads = config.count("num_attention_heads")?;
    let head_width = head_width(config, "num_attention_heads", ("hidden_size", hidden), heads)?;
    config.must_be("alibi", &json!(false), "distances would have to be rounded as bf16 rounds them")?;
    let grouped = config.flag("new_decoder_architecture", false)?;
    let single = config.flag("multi_query", true)?;
    let stated = config.count_or_none("num_kv_heads")?;
    let kv_heads = match (grouped, single) {
        (true, _) => stated.unwrap_or(heads),
        (false, true) => 1,
        (false, false) => heads,
    };
    if !heads.is_multiple_of(kv_heads) {
        return Err(config.reject("num_kv_heads", format!("it must divide the {heads} query heads")));
    }
    let parallel = config.flag("parallel_attn", true)?;
    if grouped && !parallel {
        return Err(config.reject("parallel_attn", "new_decoder_architecture has parallel halves"));
    }
    let n_norms = config.count_or_none("num_ln_in_parallel_attn")?.unwrap_or(if grouped { 2 } else { 1 });
    if !(1..=2).contains(&n_norms) || (n_norms == 2 && !grouped) {
        return Err(
            config.reject("num_ln_in_parallel_attn", "1, or with new_decoder_architecture 2, is known")
        );
    }
    let norms = if parallel && n_norms == 1 { Norms::SharedPre } else { Norms::Pre };
    let mut context = config.count_or_none("max_position_embeddings")?.unwrap_or(2048);
    let rope = rope::rope(config, head_width, &RopeKeys::LLAMA_LIKE, &mut context)?;
    let bias = config.flag("bias", false)?;
    let function = function(config, "activation", Function::Gelu)?;
    config.ignore(&["hidden_size", "auto_map", "apply_residual_connection_post_layernorm"]);
    Ok(Spec {
        hidden,
        layers,
        vocab: config.count("vocab_size")?,
        context,
        embedding: PLAIN_EMBEDDING,
        block: Block { norms, parallel, ..PLAIN_BLOCK },
        attention: plain_attention([heads, kv_heads, head_width], [bias, bias]),
        pattern: uniform_layers(layers, Some(rope)),
        mlp: Mlp {
            intermediate: config.count_or_none("ffn_hidden_size")?.unwrap_or(4 * hidden),
            activation: Activation { function, gated: false },
            bias,
            mixture: None,
        },
        norm: norm_kind(config, ("layer_norm_epsilon", NormKind::Layer { eps: 1e-5 }))?,
        norm_bias: true,
        positions: Positions::Rotary,
        head: plain_head(config.flag("tie_word_embeddings", true)?),
    })
}
