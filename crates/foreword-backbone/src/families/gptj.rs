//! GPT-J: parallel halves below one norm, the first numbers of each head rotated with their neighbours, and a biased head.

use foreword_kernels::{Activation, Function, NormKind, Pairing};

use super::{
    Family, Names, PLAIN_BLOCK, PLAIN_EMBEDDING, Qkv, function, head_width, llama, norm_kind,
    plain_attention, plain_head, uniform_layers,
};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Block, Head, Mlp, Norms, Positions, Rope, RopeScaling, Spec};

pub(crate) const FAMILY: Family = Family {
    model_type: "gptj",
    spec,
    names: |_| Names {
        prefixes: &["transformer."],
        embeddings: "wte",
        layer: "h.{}.",
        attention_norm: "ln_1",
        qkv: Qkv::Separate(["attn.q_proj", "attn.k_proj", "attn.v_proj"]),
        output: "attn.out_proj",
        up: &["mlp.fc_in"],
        down: "mlp.fc_out",
        final_norm: "ln_f",
        no_weights: &["attn.bias", "attn.masked_bias", "attn.embed_positions"],
        ..llama::NAMES
    },
};

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let hidden = config.count("n_embd")?;
    let layers = config.layers("n_layer")?;
    let heads = config.count("n_head")?;
    let head_width = head_width(config, "n_head", ("n_embd", hidden), heads)?;
    let width = config.count_or_none("rotary_dim")?.unwrap_or(64);
    if width > head_width || !width.is_multiple_of(2) {
        let expected = format!("it must be an even part of the head width {head_width}");
        return Err(config.reject("rotary_dim", expected));
    }
    let rope = Rope { theta: 10_000.0, width, pairing: Pairing::Interleaved, scaling: RopeScaling::None };
    let function = function(config, "activation_function", Function::GeluTanh)?;
    config.ignore(&["rotary", "scale_attn_weights"]);
    Ok(Spec {
        hidden,
        layers,
        vocab: config.count("vocab_size")?,
        context: config.count_or_none("n_positions")?.unwrap_or(2048),
        embedding: PLAIN_EMBEDDING,
        block: Block { norms: Norms::SharedPre, parallel: true, ..PLAIN_BLOCK },
        attention: plain_attention([heads, heads, head_width], [false, false]),
        pattern: uniform_layers(layers, Some(rope)),
        mlp: Mlp {
            intermediate: config.count_or_none("n_inner")?.unwrap_or(4 * hidden),
            activation: Activation { function, gated: false },
            bias: true,
            mixture: None,
        },
        norm: norm_kind(config, ("layer_norm_epsilon", NormKind::Layer { eps: 1e-5 }))?,
        norm_bias: true,
        positions: Positions::Rotary,
        head: Head { bias: true, ..plain_head(config.flag("tie_word_embeddings", false)?) },
    })
}
