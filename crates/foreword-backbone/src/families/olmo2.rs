//! OLMo 2: norms only after each half, and of all queries and keys of a row.

use foreword_kernels::NormKind;

use super::{Family, Names, USUAL, Usual, llama, usual};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, Block, HeadNorms, Norms, Spec};

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
    let spec = llama::with_biases(config, usual(config, &Usual { norm, ..USUAL })?)?;
    Ok(Spec {
        block: Block { norms: Norms::After, ..spec.block },
        attention: Attention { head_norms: HeadNorms::Whole, ..spec.attention },
        ..spec
    })
}
