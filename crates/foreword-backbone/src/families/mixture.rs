//! Mixtral and Qwen3-MoE: Mistral and Qwen3 with a mixture of experts in each layer.

use foreword_kernels::NormKind;
use serde_json::json;

use super::{Defaults, Experts, Family, LLAMA_LIKE, Names, RopeKeys, llama, llama_like, qwen, windows};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Mixture, Mlp, Spec};

pub(crate) const MIXTRAL: Family = Family {
    model_type: "mixtral",
    spec: mixtral,
    names: |_| Names {
        experts: Experts {
            router: "block_sparse_moe.gate",
            prefix: "block_sparse_moe.experts.{}.",
            up: &["w1", "w3"],
            down: "w2",
        },
        ..llama::NAMES
    },
};
pub(crate) const QWEN3: Family = Family {
    model_type: "qwen3_moe",
    spec: qwen3,
    names: |_| Names {
        experts: Experts {
            router: "mlp.gate",
            prefix: "mlp.experts.{}.",
            up: &["gate_proj", "up_proj"],
            down: "down_proj",
        },
        ..llama::NAMES
    },
};

fn mixtral(config: &HfConfig) -> Result<Spec, BackboneError> {
    let rope = RopeKeys { theta: ("rope_theta", 1_000_000.0), ..RopeKeys::LLAMA_LIKE };
    let norm = ("rms_norm_eps", NormKind::Rms { eps: 1e-5 });
    let mut spec = llama_like(config, &Defaults { context: 131_072, norm, rope, ..LLAMA_LIKE })?;
    let window = config.count_or_none("sliding_window")?;
    windows(config, &mut spec, window, |_| true)?;
    let inner = spec.mlp.intermediate;
    with_experts(config, spec, inner, 8, true)
}

fn qwen3(config: &HfConfig) -> Result<Spec, BackboneError> {
    // Here every layer has the window.
    config.ignore(&["max_window_layers"]);
    let spec = qwen::with_head_norms(config, 0)?;
    config.must_be("decoder_sparse_step", &json!(1), "every layer has experts")?;
    config.must_be("mlp_only_layers", &json!([]), "every layer has experts")?;
    let inner = config.count_or_none("moe_intermediate_size")?.unwrap_or(768);
    let normalized = config.flag("norm_topk_prob", false)?;
    with_experts(config, spec, inner, 128, normalized)
}

fn with_experts(
    config: &HfConfig,
    spec: Spec,
    inner: usize,
    usual_number: usize,
    normalized: bool,
) -> Result<Spec, BackboneError> {
    const MOST: usize = 10_000;
    let older = config.count_or_none("num_experts")?;
    let n = config.count_or_none("num_local_experts")?.or(older).unwrap_or(usual_number);
    let key = if config.contains("num_local_experts") { "num_local_experts" } else { "num_experts" };
    if n > MOST {
        return Err(config.reject(key, format!("at most {MOST} experts were expected")));
    }
    let top_k = config.count("num_experts_per_tok")?;
    if top_k > n {
        return Err(config.reject("num_experts_per_tok", format!("it must be at most the {n} experts")));
    }
    let mixture = Some(Mixture { n, top_k, normalized });
    Ok(Spec { mlp: Mlp { intermediate: inner, mixture, ..spec.mlp }, ..spec })
}
