//! Cohere's Command R: parallel halves below one norm without a bias, neighbours rotated, and scaled logits.

use foreword_kernels::{NormKind, Pairing};

use super::{Family, RopeKeys, USUAL, Usual, llama, usual};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, Block, Head, HeadNorms, Norms, Spec};

pub(crate) const FAMILY: Family = Family { model_type: "cohere", spec, names: |_| llama::NAMES };

fn spec(config: &HfConfig) -> Result<Spec, BackboneError> {
    let rope = RopeKeys { theta: ("rope_theta", 500_000.0), pairing: Pairing::Neighbours, ..RopeKeys::USUAL };
    let norm = ("layer_norm_eps", NormKind::Layer { eps: 1e-5 });
    let usual = usual(config, &Usual { context: 8192, tied: true, norm, rope, ..USUAL })?;
    let spec = llama::with_biases(config, usual)?;
    let head_norms = if config.flag("use_qk_norm", false)? { HeadNorms::Own } else { HeadNorms::None };
    let scale = config.number_or_none("logit_scale")?.unwrap_or(0.0625);
    config.ignore(&["pretraining_tp", "model_max_length", "use_gated_activation", "use_parallel_block"]);
    Ok(Spec {
        block: Block { norms: Norms::BeforeBoth, parallel: true, ..spec.block },
        attention: Attention { head_norms, ..spec.attention },
        norm_bias: false,
        head: Head { scale, ..spec.head },
        ..spec
    })
}
