//! Phi-3 and Phi-4: Llama with fused projections.

use super::{Family, Names, Qkv, RopeKeys, USUAL, Usual, llama, usual, windows};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::Spec;

pub(crate) const FAMILY: Family = Family {
    model_type: "phi3",
    spec,
    names: |_| Names { qkv: Qkv::Fused("self_attn.qkv_proj"), up: &["mlp.gate_up_proj"], ..llama::NAMES },
};

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let rope = RopeKeys { share: Some(("partial_rotary_factor", 1.0)), ..RopeKeys::USUAL };
    let mut spec = usual(config, &Usual { context: 4096, rope, ..USUAL })?;
    let window = config.count_or_none("sliding_window")?;
    windows(config, &mut spec, window, |_| true)?;
    config.ignore(&["attention_bias", "original_max_position_embeddings"]);
    config.ignore(&["auto_map", "interpolate_factor", "lm_head_bias"]);
    Ok(spec)
}
