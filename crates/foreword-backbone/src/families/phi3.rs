//! Phi-3 and Phi-4: Llama with fused projections.

use super::{Defaults, Family, LLAMA_LIKE, Names, Qkv, RopeKeys, llama, llama_like, windows};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::Spec;

pub(crate) const FAMILY: Family = Family {
    model_type: "phi3",
    spec,
    names: |_| Names { qkv: Qkv::Fused("self_attn.qkv_proj"), up: &["mlp.gate_up_proj"], ..llama::NAMES },
};

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let rope = RopeKeys { share: Some(("partial_rotary_factor", 1.0)), ..RopeKeys::LLAMA_LIKE };
    let mut spec = llama_like(config, &Defaults { context: 4096, rope, ..LLAMA_LIKE })?;
    let window = config.count_or_none("sliding_window")?;
    windows(config, &mut spec, window, |_| true)?;
    config.ignore(&["attention_bias", "original_max_position_embeddings"]);
    config.ignore(&["auto_map", "interpolate_factor", "lm_head_bias"]);
    Ok(spec)
}
