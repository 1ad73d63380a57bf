//! Gemma 1 to 3: scaled embeddings and gains stored less 1. The second has norms before and after, soft caps and a window in
//! every other layer; the third norms of heads, and slower rotations in the few layers without a window.

use foreword_kernels::{Activation, Function, NormKind};
use serde_json::json;

use super::{Defaults, Family, LLAMA_LIKE, Names, RopeKeys, llama, llama_like, rope, windows};
use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Attention, Block, Embedding, Head, Mlp, Norms, QkNorm, Spec};

pub(crate) const GEMMA: Family = Family { model_type: "gemma", spec: gemma, names: |_| NAMES };
pub(crate) const GEMMA2: Family = Family { model_type: "gemma2", spec: gemma2, names: |_| AROUND };
pub(crate) const GEMMA3: Family = Family { model_type: "gemma3_text", spec: gemma3, names: |_| AROUND };
/// The text part of a model that also sees images.
pub(crate) const GEMMA3_MULTIMODAL: Family =
    Family { model_type: "gemma3", spec: gemma3_text_part, names: |_| TEXT_PART };

const NAMES: Names = Names { gain_offset: 1.0, ..llama::NAMES };
const AROUND: Names = Names {
    attention_post_norm: "post_attention_layernorm",
    mlp_norm: "pre_feedforward_layernorm",
    mlp_post_norm: "post_feedforward_layernorm",
    ..NAMES
};

/// As transformers 4 and 5 write it.
const TEXT_PART: Names = Names {
    prefixes: &["language_model.model.", "model.language_model.", "language_model."],
    heads: &["lm_head", "language_model.lm_head"],
    other_parts: &[
        "vision_tower.",
        "model.vision_tower.",
        "multi_modal_projector.",
        "model.multi_modal_projector.",
    ],
    ..AROUND
};

fn gemma(config: &HfConfig) -> Result<Spec, BackboneError> {
    // Older files say gelu and mean its approximation.
    for key in ["hidden_act", "hidden_activation"] {
        if !matches!(config.text_or_none(key)?, None | Some("gelu" | "gelu_pytorch_tanh")) {
            return Err(config.reject(key, "only gelu_pytorch_tanh is known of this model"));
        }
    }
    let spec = all(config, 8192, RopeKeys::LLAMA_LIKE)?;
    let activation = Activation { function: Function::GeluTanh, gated: true };
    Ok(Spec { mlp: Mlp { activation, ..spec.mlp }, ..spec })
}

fn gemma2(config: &HfConfig) -> Result<Spec, BackboneError> {
    let spec = all(config, 8192, RopeKeys::LLAMA_LIKE)?;
    let mut spec = capped(config, spec, [Some(50.0), Some(30.0)])?;
    let window = config.count_or("sliding_window", Some(4096))?;
    // A copy in the first files.
    if let Some(window) = window {
        config.must_be("sliding_window_size", &json!(window), "it is another name of sliding_window")?;
    }
    windows(config, &mut spec, window, |i| i.is_multiple_of(2))?;
    config.ignore(&["cache_implementation", "hidden_act"]);
    Ok(spec)
}

fn gemma3(config: &HfConfig) -> Result<Spec, BackboneError> {
    const GLOBAL: RopeKeys = RopeKeys { theta: ("rope_theta", 1_000_000.0), ..RopeKeys::LLAMA_LIKE };
    const LOCAL: RopeKeys =
        RopeKeys { theta: ("rope_local_base_freq", 10_000.0), layers: rope::SLIDING, ..RopeKeys::LLAMA_LIKE };
    let spec = all(config, 131_072, GLOBAL)?;
    let mut spec = capped(config, spec, [None, None])?;
    let pattern = config.count_or_none("sliding_window_pattern")?;
    let pattern = pattern.or(config.count_or_none("_sliding_window_pattern")?).unwrap_or(6);
    let window = config.count_or("sliding_window", Some(4096))?;
    windows(config, &mut spec, window, |i| !(i + 1).is_multiple_of(pattern))?;
    let local = rope::rope(config, spec.attention.head_width, &LOCAL, &mut spec.context)?;
    for layer in spec.pattern.iter_mut().filter(|layer| layer.window.is_some()) {
        layer.rope = Some(local.clone());
    }
    config.ignore(&["cache_implementation", "hidden_act"]);
    Ok(Spec { attention: Attention { qk_norm: QkNorm::SharedGain, ..spec.attention }, ..spec })
}

/// The configuration of the text part leaves out what is usual. Texts without images are seen from left to right.
fn gemma3_text_part(config: &HfConfig) -> Result<Spec, BackboneError> {
    const USUAL: [(&str, usize); 6] = [
        ("hidden_size", 2304),
        ("intermediate_size", 9216),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 4),
        ("head_dim", 256),
        ("vocab_size", 262_208),
    ];
    let Some(text) = config.object("text_config")? else {
        return Err(config.reject("text_config", "the configuration of the text part was expected"));
    };
    let text = text.with_defaults(&USUAL).with_defaults(&[("num_hidden_layers", 26)]);
    text.check_unquantised()?;
    let mut spec = gemma3(&text)?;
    text.finish()?;
    spec.head.tied = config.flag("tie_word_embeddings", true)?;
    config.ignore(&["vision_config", "mm_tokens_per_image", "boi_token_index", "eoi_token_index"]);
    config.ignore(&["image_token_index", "image_token_id", "boi_token_id", "eoi_token_id"]);
    Ok(spec)
}

/// What all three have in common.
fn all(config: &HfConfig, context: usize, rope: RopeKeys) -> Result<Spec, BackboneError> {
    config.must_be("use_bidirectional_attention", &json!(false), "rows see what is before them")?;
    let activation = ("hidden_activation", Function::GeluTanh);
    let norm = ("rms_norm_eps", NormKind::Rms { eps: 1e-6 });
    let llama_like =
        llama_like(config, &Defaults { context, tied: true, activation, norm, rope, ..LLAMA_LIKE })?;
    let spec = llama::with_biases(config, llama_like)?;
    let scale = f64::from((spec.hidden as f64).sqrt() as f32);
    Ok(Spec { embedding: Embedding { scale, ..spec.embedding }, ..spec })
}

/// Norms around each half, caps on scores and logits, and scores by a width of their own.
fn capped(config: &HfConfig, spec: Spec, defaults: [Option<f64>; 2]) -> Result<Spec, BackboneError> {
    let cap = |key: &str, default: Option<f64>| {
        if config.contains(key) { config.number_or_none(key) } else { Ok(default) }
    };
    let scalar = config.number_or_none("query_pre_attn_scalar")?.unwrap_or(256.0);
    Ok(Spec {
        block: Block { norms: Norms::PreAndPost, ..spec.block },
        attention: Attention {
            scale: Some(1.0 / scalar.sqrt()),
            soft_cap: cap("attn_logit_softcapping", defaults[0])?,
            ..spec.attention
        },
        head: Head { soft_cap: cap("final_logit_softcapping", defaults[1])?, ..spec.head },
        ..spec
    })
}
