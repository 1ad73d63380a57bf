//! OPT: learned positions that begin at the table's third row, layer norms before each half.

use foreword_kernels::{Activation, Function, NormKind};
use serde_json::json;

use super::{
    Family, Names, PLAIN_BLOCK, PLAIN_EMBEDDING, Qkv, function, head_width, llama, plain_attention,
    plain_head, uniform_layers,
};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Mlp, Positions, Spec};

pub(crate) const FAMILY: Family = Family {
    model_type: "opt",
    spec,
    names: |_| Names {
        prefixes: &["model.decoder.", "decoder."],
        positions: "embed_positions",
        attention_norm: "self_attn_layer_norm",
        qkv: Qkv::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        output: "self_attn.out_proj",
        mlp_norm: "final_layer_norm",
        up: &["fc1"],
        down: "fc2",
        final_norm: "final_layer_norm",
        ..llama::NAMES
    },
};

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let hidden = config.count("hidden_size")?;
    let layers = config.layers("num_hidden_layers")?;
    let heads = config.count("num_attention_heads")?;
    let head_width = head_width(config, "num_attention_heads", ("hidden_size", hidden), heads)?;
    config.must_be("do_layer_norm_before", &json!(true), "norms are before each sublayer")?;
    config.must_be("_remove_final_layer_norm", &json!(false), "the last rows are normed")?;
    config.must_be("word_embed_proj_dim", &json!(hidden), "embeddings are as wide as the rows")?;
    config.must_be("layer_norm_elementwise_affine", &json!(true), "norms have a gain and a bias")?;
    let bias = config.flag("enable_bias", true)?;
    let function = function(config, "activation_function", Function::Relu)?;
    Ok(Spec {
        hidden,
        layers,
        vocab: config.count("vocab_size")?,
        context: config.count_or_none("max_position_embeddings")?.unwrap_or(2048),
        embedding: PLAIN_EMBEDDING,
        block: PLAIN_BLOCK,
        attention: plain_attention([heads, heads, head_width], [bias, bias]),
        pattern: uniform_layers(layers, None),
        mlp: Mlp {
            intermediate: config.count("ffn_dim")?,
            activation: Activation { function, gated: false },
            bias,
            mixture: None,
        },
        norm: NormKind::Layer { eps: 1e-5 },
        norm_bias: true,
        positions: Positions::Learned { offset: 2 },
        head: plain_head(config.flag("tie_word_embeddings", true)?),
    })
}
