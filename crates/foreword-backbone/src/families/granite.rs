//! Granite 3: Llama with factors on embeddings, scores, what each half adds, and logits.

use super::{Family, LLAMA_LIKE, llama, llama_like};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, Block, Embedding, Head, Spec};

pub(crate) const FAMILY: Family = Family { model_type: "granite", spec, names: |_| llama::NAMES };

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let spec = llama::with_biases(config, llama_like(config, &LLAMA_LIKE)?)?;
    let factor = |key: &str| config.number_or_none(key).map(|factor| factor.unwrap_or(1.0));
    Ok(Spec {
        embedding: Embedding { input_scale: factor("embedding_multiplier")?, ..spec.embedding },
        block: Block { residual_scale: factor("residual_multiplier")?, ..spec.block },
        attention: Attention { scale: Some(factor("attention_multiplier")?), ..spec.attention },
        head: Head { scale: 1.0 / factor("logits_scaling")?, ..spec.head },
        ..spec
    })
}
