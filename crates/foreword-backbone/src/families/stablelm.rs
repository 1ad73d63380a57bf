//! StableLM: layer norms, and a quarter of each head rotated.

use foreword_kernels::NormKind;

use super::{Family, Names, RopeKeys, USUAL, Usual, llama, usual};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, Block, HeadNorms, Norms, Spec};

pub(crate) const FAMILY: Family = Family {
    model_type: "stablelm",
    spec,
    names: |_| Names {
        query_norm: "self_attn.q_layernorm",
        key_norm: "self_attn.k_layernorm",
        head_norm_per_head: true,
        ..llama::NAMES
    },
};

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let rope = RopeKeys { share: Some(("partial_rotary_factor", 0.25)), ..RopeKeys::USUAL };
    let norm = ("layer_norm_eps", NormKind::Layer { eps: 1e-5 });
    let spec = usual(config, &Usual { context: 4096, norm, rope, ..USUAL })?;
    let parallel = config.flag("use_parallel_residual", false)?;
    let norms = if parallel { Norms::BeforeBoth } else { Norms::Before };
    let head_norms = if config.flag("qk_layernorm", false)? { HeadNorms::Own } else { HeadNorms::None };
    Ok(Spec {
        block: Block { norms, parallel, ..spec.block },
        attention: Attention { qkv_bias: config.flag("use_qkv_bias", false)?, head_norms, ..spec.attention },
        ..spec
    })
}
