//! Cohere's Command R: parallel halves below one norm without a bias, neighbours rotated, and scaled logits.

use foreword_kernels::{NormKind, Pairing};

use super::{Defaults, Family, LLAMA_LIKE, RopeKeys, llama, llama_like};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, Block, Head, Norms, QkNorm, Spec};

pub(crate) const FAMILY: Family = Family { model_type: "cohere", spec, names: |_| llama::NAMES };

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let rope =
        RopeKeys { theta: ("rope_theta", 500_000.0), pairing: Pairing::Interleaved, ..RopeKeys::LLAMA_LIKE };
    let norm = ("layer_norm_eps", NormKind::Layer { eps: 1e-5 });
    let llama_like = llama_like(config, &Defaults { context: 8192, tied: true, norm, rope, ..LLAMA_LIKE })?;
    let spec = llama::with_biases(config, llama_like)?;
    let qk_norm = if config.flag("use_qk_norm", false)? { QkNorm::GainPerHead } else { QkNorm::None };
    let scale = config.number_or_none("logit_scale")?.unwrap_or(0.0625);
    config.ignore(&["pretraining_tp", "model_max_length", "use_gated_activation", "use_parallel_block"]);
    Ok(Spec {
        block: Block { norms: Norms::SharedPre, parallel: true, ..spec.block },
        attention: Attention { qk_norm, ..spec.attention },
        norm_bias: false,
        head: Head { scale, ..spec.head },
        ..spec
    })
}
