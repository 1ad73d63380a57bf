//! Mistral: Llama with a window in every layer.

use super::{Defaults, Family, LLAMA_LIKE, llama, llama_like, windows};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::Spec;

pub(crate) const FAMILY: Family = Family { model_type: "mistral", spec, names: |_| llama::NAMES };

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let mut spec = llama_like(config, &Defaults { context: 131_072, ..LLAMA_LIKE })?;
    let window = config.count_or("sliding_window", Some(4096))?;
    windows(config, &mut spec, window, |_| true)?;
    Ok(spec)
}
