//! SmolLM3: Llama in which every fourth layer rotates nothing.

use super::{Defaults, Family, LLAMA_LIKE, RopeKeys, llama, llama_like, windows};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::Spec;

pub(crate) const FAMILY: Family = Family { model_type: "smollm3", spec, names: |_| llama::NAMES };

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let rope = RopeKeys { theta: ("rope_theta", 2_000_000.0), ..RopeKeys::LLAMA_LIKE };
    let llama_like = llama_like(config, &Defaults { context: 32_768, tied: true, rope, ..LLAMA_LIKE })?;
    let mut spec = llama::with_biases(config, llama_like)?;
    let flag = |value: &serde_json::Value| value.as_u64().filter(|&n| n <= 1).map(|n| n == 1);
    let interval = config.count_or_none("no_rope_layer_interval")?.unwrap_or(4);
    let stated = config.each("no_rope_layers", spec.layers, flag, "0 or 1")?;
    let rotates = |i: usize| stated.as_ref().map_or(!(i + 1).is_multiple_of(interval), |stated| stated[i]);
    let slides = config.flag("use_sliding_window", false)?;
    let window = config.count_or_none("sliding_window")?.filter(|_| slides);
    windows(config, &mut spec, window, |i| !rotates(i))?;
    for (i, layer) in spec.pattern.iter_mut().enumerate() {
        layer.rope = layer.rope.take().filter(|_| rotates(i));
    }
    config.ignore(&["max_window_layers", "pretraining_tp"]);
    Ok(spec)
}
