//! GPT-NeoX and Pythia: parallel halves with a norm each, and a quarter of each head rotated.

use foreword_kernels::{Function, NormKind};

use super::{Defaults, Family, LLAMA_LIKE, Names, Qkv, RopeKeys, llama, llama_like};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, Block, Mlp, Spec};

pub(crate) const FAMILY: Family = Family {
    model_type: "gpt_neox",
    spec,
    names: |_| Names {
        prefixes: &["gpt_neox."],
        embeddings: "embed_in",
        qkv: Qkv::Grouped("attention.query_key_value"),
        output: "attention.dense",
        up: &["mlp.dense_h_to_4h"],
        down: "mlp.dense_4h_to_h",
        final_norm: "final_layer_norm",
        heads: &["embed_out", "lm_head"],
        no_weights: &["attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"],
        ..llama::NAMES
    },
};

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let rope = RopeKeys {
        theta: ("rotary_emb_base", 10_000.0),
        share: Some(("rotary_pct", 0.25)),
        ..RopeKeys::LLAMA_LIKE
    };
    let activation = ("hidden_act", Function::Gelu);
    let norm = ("layer_norm_eps", NormKind::Layer { eps: 1e-5 });
    let spec = llama_like(config, &Defaults { activation, gated: false, norm, rope, ..LLAMA_LIKE })?;
    let bias = config.flag("attention_bias", true)?;
    let parallel = config.flag("use_parallel_residual", true)?;
    config.ignore(&["rope_theta", "partial_rotary_factor"]);
    Ok(Spec {
        block: Block { parallel, ..spec.block },
        attention: Attention { qkv_bias: bias, output_bias: bias, ..spec.attention },
        mlp: Mlp { bias: true, ..spec.mlp },
        ..spec
    })
}
