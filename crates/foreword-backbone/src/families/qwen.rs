//! Qwen2, Qwen2.5: Llama's tensors with biases on queries, keys and values. Qwen3: norms of heads in their place.

use serde_json::json;

use super::{Defaults, Family, LLAMA_LIKE, llama, llama_like, windows};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, QkNorm, Spec};

pub(crate) const QWEN2: Family = Family { model_type: "qwen2", spec: qwen2, names: |_| llama::NAMES };
pub(crate) const QWEN3: Family = Family { model_type: "qwen3", spec: qwen3, names: |_| llama::NAMES };

fn qwen2(config: &HfConfig) -> Result<Spec, BackboneError> {
    let spec = with_windows(config, first_with_window(config)?)?;
    config.must_be("use_mrope", &json!(false), "positions have one dimension here")?;
    Ok(Spec { attention: Attention { qkv_bias: true, ..spec.attention }, ..spec })
}

fn qwen3(config: &HfConfig) -> Result<Spec, BackboneError> {
    with_head_norms(config, first_with_window(config)?)
}

/// Qwen3, with a window from this layer on, where windows are on at all.
pub(super) fn with_head_norms(config: &HfConfig, first: usize) -> Result<Spec, BackboneError> {
    let spec = llama::with_biases(config, with_windows(config, first)?)?;
    Ok(Spec { attention: Attention { qk_norm: QkNorm::SharedGain, ..spec.attention }, ..spec })
}

fn first_with_window(config: &HfConfig) -> Result<usize, BackboneError> {
    Ok(config.count_or_none("max_window_layers")?.unwrap_or(28))
}

fn with_windows(config: &HfConfig, first: usize) -> Result<Spec, BackboneError> {
    let mut spec = llama_like(config, &Defaults { context: 32_768, ..LLAMA_LIKE })?;
    let slides = config.flag("use_sliding_window", false)?;
    let window = config.count_or("sliding_window", Some(4096))?.filter(|_| slides);
    windows(config, &mut spec, window, |i| i >= first)?;
    Ok(spec)
}
