//! GPT-2: learned positions, layer norms, and linear weights stored input first.

use foreword_kernels::{Activation, Function, NormKind};
use serde_json::json;

use super::{Family, Names, Qkv, function};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, Mlp, Positions, Spec};

pub(crate) const FAMILY: Family = Family {
    model_type: "gpt2",
    spec,
    names: Names {
        prefix: "transformer.",
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
        head: "lm_head",
        transposed: true,
        no_weights: &["attn.bias", "attn.masked_bias"],
    },
};

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let hidden = config.count("n_embd")?;
    let heads = config.count("n_head")?;
    if !hidden.is_multiple_of(heads) {
        return Err(config.reject("n_head", format!("it must divide n_embd {hidden}")));
    }
    config.must_be("scale_attn_weights", &json!(true), "scores are scaled by the head width")?;
    config.must_be(
        "scale_attn_by_inverse_layer_idx",
        &json!(false),
        "scores are scaled by the head width alone",
    )?;
    config.must_be("add_cross_attention", &json!(false), "there is no encoder")?;
    config.ignore(&["reorder_and_upcast_attn", "n_ctx", "resid_pdrop", "embd_pdrop", "attn_pdrop"]);
    config.ignore(&["summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type"]);
    config.ignore(&["summary_use_proj"]);
    Ok(Spec {
        hidden,
        layers: config.count("n_layer")?,
        vocab: config.count("vocab_size")?,
        context: config.count_or_none("n_positions")?.unwrap_or(1024),
        attention: Attention {
            query_heads: heads,
            kv_heads: heads,
            head_width: hidden / heads,
            qkv_bias: true,
            output_bias: true,
        },
        mlp: Mlp {
            intermediate: config.count_or_none("n_inner")?.unwrap_or(4 * hidden),
            activation: Activation {
                function: function(config, "activation_function", Function::GeluTanh)?,
                gated: false,
            },
            bias: true,
        },
        norm: NormKind::Layer { eps: config.number_or_none("layer_norm_epsilon")?.unwrap_or(1e-5) },
        positions: Positions::Learned,
        tied_head: config.flag("tie_word_embeddings", true)?,
    })
}
