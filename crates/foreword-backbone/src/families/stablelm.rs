//! StableLM: layer norms, and a quarter of each head rotated.

use foreword_kernels::NormKind;

use super::{Defaults, Family, LLAMA_LIKE, Names, RopeKeys, llama, llama_like};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, Block, Norms, QkNorm, Spec};

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
    let rope = RopeKeys { share: Some(("partial_rotary_factor", 0.25)), ..RopeKeys::LLAMA_LIKE };
    let norm = ("layer_norm_eps", NormKind::Layer { eps: 1e-5 });
    let spec = llama_like(config, &Defaults { context: 4096, norm, rope, ..LLAMA_LIKE })?;
    let parallel = config.flag("use_parallel_residual", false)?;
    let norms = if parallel { Norms::SharedPre } else { Norms::Pre };
    let qk_norm = if config.flag("qk_layernorm", false)? { QkNorm::GainPerHead } else { QkNorm::None };
    Ok(Spec {
        block: Block { norms, parallel, ..spec.block },
        attention: Attention { qkv_bias: config.flag("use_qkv_bias", false)?, qk_norm, ..spec.attention },
        ..spec
    })
}
