//! OLMo 2: norms only after each half, and of all queries and keys of a row.

use foreword_kernels::NormKind;

use super::{Defaults, Family, LLAMA_LIKE, Names, llama, llama_like};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, Block, Norms, QkNorm, Spec};

pub(crate) const FAMILY: Family = Family {
    model_type: "olmo2",
    spec,
    names: |_| Names {
        attention_norm: "",
        attention_post_norm: "post_attention_layernorm",
        mlp_norm: "",
        mlp_post_norm: "post_feedforward_layernorm",
        ..llama::NAMES
    },
};

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let norm = ("rms_norm_eps", NormKind::Rms { eps: 1e-5 });
    let spec = llama::with_biases(config, llama_like(config, &Defaults { norm, ..LLAMA_LIKE })?)?;
    Ok(Spec {
        block: Block { norms: Norms::Post, ..spec.block },
        attention: Attention { qk_norm: QkNorm::AllHeads, ..spec.attention },
        ..spec
    })
}
