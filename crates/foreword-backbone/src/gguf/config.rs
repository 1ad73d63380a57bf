//! Translates the metadata of a GGUF file into the `config.json` that its family reads. Every key of the architecture is read,
//! known to have no effect, or passed on for the family to refuse.

use std::cell::RefCell;
use std::collections::BTreeSet;

use foreword_kernels::Pairing;
use serde_json::{Map, Value, json};

use super::names::{self, Architecture};
use super::{Gguf, TensorInfo};
use crate::error::BackboneError;
use crate::rotary::divisors;
use crate::spec::{Rope, RopeScaling};

/// Keys of an architecture without effect.
const WITHOUT_EFFECT: &[&str] =
    &["vocab_size", "pooling_type", "rope.scaling.finetuned", "use_parallel_residual", "tensor_data_layout"];
/// Relative tolerance between a stored frequency and the computed one.
const SAME_FREQUENCY: f32 = 1e-4;

/// The keys of an architecture. It tracks which were read.
struct Keys<'g, 'a> {
    gguf: &'g Gguf<'a>,
    architecture: &'static str,
    read: RefCell<BTreeSet<String>>,
}

impl Keys<'_, '_> {
    fn key(&self, key: &str) -> String {
        self.read.borrow_mut().insert(key.to_owned());
        format!("{}.{key}", self.architecture)
    }

    fn count(&self, key: &str) -> Result<Option<usize>, BackboneError> {
        self.gguf.count(&self.key(key))
    }

    fn number(&self, key: &str) -> Result<Option<f64>, BackboneError> {
        self.gguf.number(&self.key(key))
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, BackboneError> {
        value.ok_or_else(|| self.gguf.wrong(format!("`{}.{key}` is missing", self.architecture)))
    }

    fn required_count(&self, key: &str) -> Result<usize, BackboneError> {
        self.required(key, self.count(key)?)
    }

    /// Keys of the architecture that were not read, by their whole names.
    fn unread(&self) -> Vec<(String, Value)> {
        let read = self.read.borrow();
        let beginning = format!("{}.", self.architecture);
        let is_known = |key: &str, value: &super::Value<'_>| match (key, value) {
            ("attention.causal", super::Value::Bool(true)) => true,
            ("expert_count" | "expert_used_count", super::Value::Integer(0)) => true,
            _ => read.contains(key) || WITHOUT_EFFECT.contains(&key),
        };
        let of_architecture = self.gguf.metadata.iter().filter_map(|(whole, value)| {
            let key = whole.strip_prefix(&beginning)?;
            (!is_known(key, value)).then(|| ((*whole).to_owned(), as_json(*value)))
        });
        of_architecture.collect()
    }
}

/// The equivalent `config.json`.
pub(crate) fn translate(gguf: &Gguf<'_>, parts: &[&[u8]]) -> Result<Value, BackboneError> {
    let architecture = Architecture::of(gguf)?;
    let keys = Keys { gguf, architecture: architecture.name, read: RefCell::default() };
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| {
        config.insert(key.to_owned(), value);
    };
    set("model_type", architecture.model_type.into());
    let table = gguf.tensors.get("token_embd.weight");
    let vocab = table.and_then(|info| info.shape.first()).copied();
    set("vocab_size", vocab.ok_or_else(|| gguf.wrong("it has no tensor `token_embd.weight`"))?.into());
    set("tie_word_embeddings", (!gguf.tensors.contains_key("output.weight")).into());
    if architecture.model_type == "gpt2" {
        gpt2(&keys, &mut set)?;
    } else {
        let width = heads(&keys, &mut set)?;
        positions(&keys, parts, width, &mut set)?;
    }
    architecture_keys(&keys, &mut set)?;
    // The family refuses them, unless they are to be ignored.
    config.extend(keys.unread());
    let end_tokens = end_tokens(gguf)?;
    if !end_tokens.is_empty() {
        config.insert("eos_token_id".to_owned(), json!(end_tokens));
    }
    Ok(Value::Object(config))
}

/// A value of the metadata; an array only says that it is one.
fn as_json(value: super::Value<'_>) -> Value {
    match value {
        super::Value::Bool(flag) => flag.into(),
        super::Value::Text(text) => String::from_utf8_lossy(text).into(),
        super::Value::Integer(number) => json!(number as f64),
        super::Value::Array(_) => "an array".into(),
        number => number.number().into(),
    }
}

/// Keys of a single architecture.
fn architecture_keys(keys: &Keys<'_, '_>, set: &mut Set<'_>) -> Result<(), BackboneError> {
    let has = |tensor: &str| keys.gguf.tensors.contains_key(tensor);
    match keys.architecture {
        "llama" => {
            set("attention_bias", has("blk.0.attn_q.bias").into());
            set("mlp_bias", has("blk.0.ffn_up.bias").into());
            if keys.count("expert_count")?.is_some_and(|n| n > 0) {
                return Err(keys.gguf.wrong(
                    "`llama.expert_count` is above 0: mixtures of experts are read from Hugging Face directories only",
                ));
            }
        }
        "phi3" => window(keys, set)?,
        "gemma" => set("hidden_act", "gelu_pytorch_tanh".into()),
        "gemma2" => {
            for cap in ["attn_logit_softcapping", "final_logit_softcapping"] {
                if let Some(cap_at) = keys.number(cap)? {
                    set(cap, cap_at.into());
                }
            }
            window(keys, set)?;
            query_scale(keys, set, 46)?;
        }
        "gemma3" => {
            if let Some(pattern) = keys.count("attention.sliding_window_pattern")? {
                set("sliding_window_pattern", pattern.into());
            }
            if let Some(theta) = keys.number("rope.freq_base_swa")? {
                set("rope_local_base_freq", theta.into());
            }
            window(keys, set)?;
            query_scale(keys, set, 62)?;
        }
        _ => {}
    }
    Ok(())
}

/// The window of layers that have one.
fn window(keys: &Keys<'_, '_>, set: &mut Set<'_>) -> Result<(), BackboneError> {
    if let Some(window) = keys.count("attention.sliding_window")?.filter(|&window| window > 0) {
        set("sliding_window", window.into());
    }
    Ok(())
}

/// The number by whose root Gemma's scores are divided (`query_pre_attn_scalar`). Files don't state it: it is the head width,
/// except for the largest model of a generation, with `largest` layers, where it is the hidden width divided by the heads.
pub(super) fn query_scale_divisor(
    hidden: usize,
    heads: usize,
    width: usize,
    layers: usize,
    largest: usize,
) -> usize {
    if layers == largest { hidden / heads.max(1) } else { width }
}

fn query_scale(keys: &Keys<'_, '_>, set: &mut Set<'_>, largest: usize) -> Result<(), BackboneError> {
    let [hidden, heads, layers] =
        ["embedding_length", "attention.head_count", "block_count"].map(|key| keys.count(key));
    let (hidden, heads, layers) = (hidden?.unwrap_or(0), heads?.unwrap_or(0), layers?.unwrap_or(0));
    let width = keys.count("attention.key_length")?.or_else(|| hidden.checked_div(heads)).unwrap_or(0);
    let by = match keys.number("attention.scale")? {
        None => query_scale_divisor(hidden, heads, width, layers, largest) as f64,
        // A whole number, up to the rounding of its root.
        Some(scale) => {
            let by = 1.0 / (scale * scale);
            if (by - by.round()).abs() < 1e-4 * by { by.round() } else { by }
        }
    };
    set("query_pre_attn_scalar", by.into());
    Ok(())
}

/// The width of the heads whose query and key rows the file interleaves, if it does.
pub(crate) fn interleaved_width(gguf: &Gguf<'_>) -> Result<Option<usize>, BackboneError> {
    let architecture = Architecture::of(gguf)?;
    if !architecture.rope_interleaved {
        return Ok(None);
    }
    let keys = Keys { gguf, architecture: architecture.name, read: RefCell::default() };
    let (hidden, heads) =
        (keys.required_count("embedding_length")?, keys.required_count("attention.head_count")?);
    Ok(keys.count("attention.key_length")?.or_else(|| hidden.checked_div(heads)))
}

/// The tokens that end a text: end of text, and end of turn.
fn end_tokens(gguf: &Gguf<'_>) -> Result<Vec<usize>, BackboneError> {
    let mut end_tokens: Vec<usize> = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        if let Some(token) = gguf.count(key)?.filter(|token| !end_tokens.contains(token)) {
            end_tokens.push(token);
        }
    }
    Ok(end_tokens)
}

/// Sets a key of the configuration.
type Set<'s> = dyn FnMut(&str, Value) + 's;

fn gpt2(keys: &Keys<'_, '_>, set: &mut Set<'_>) -> Result<(), BackboneError> {
    set("n_embd", keys.required_count("embedding_length")?.into());
    let heads = keys.required_count("attention.head_count")?;
    set("n_head", heads.into());
    if keys.count("attention.head_count_kv")?.is_some_and(|n| n != heads) {
        return Err(keys.gguf.wrong("`gpt2.attention.head_count_kv` is not `gpt2.attention.head_count`"));
    }
    set("n_layer", keys.required_count("block_count")?.into());
    set("n_positions", keys.required_count("context_length")?.into());
    set("n_inner", keys.required_count("feed_forward_length")?.into());
    let eps = "attention.layer_norm_epsilon";
    set("layer_norm_epsilon", keys.required(eps, keys.number(eps)?)?.into());
    Ok(())
}

/// Sizes and norms of architectures with rotary positions. Returns how many numbers of a head are rotated.
fn heads(keys: &Keys<'_, '_>, set: &mut Set<'_>) -> Result<usize, BackboneError> {
    let hidden = keys.required_count("embedding_length")?;
    let heads = keys.required_count("attention.head_count")?;
    let width = keys.count("attention.key_length")?;
    let width = width.or_else(|| hidden.checked_div(heads)).unwrap_or(0);
    let rotated = keys.count("rope.dimension_count")?.unwrap_or(width);
    let wrong = |key: &str| {
        let key = format!("{}.{key}", keys.architecture);
        keys.gguf.wrong(format!("`{key}` is not {width}, the width of a head: that is not supported"))
    };
    if keys.count("attention.value_length")?.is_some_and(|other| other != width) {
        return Err(wrong("attention.value_length"));
    }
    match keys.architecture {
        // The family truncates width · factor: adding one half makes the result exact.
        "phi3" if rotated < width => {
            set("partial_rotary_factor", ((rotated as f64 + 0.5) / width as f64).into());
        }
        _ if rotated != width => return Err(wrong("rope.dimension_count")),
        _ => {}
    }
    set("hidden_size", hidden.into());
    set("num_attention_heads", heads.into());
    set("num_key_value_heads", keys.count("attention.head_count_kv")?.unwrap_or(heads).into());
    set("head_dim", width.into());
    set("num_hidden_layers", keys.required_count("block_count")?.into());
    set("intermediate_size", keys.required_count("feed_forward_length")?.into());
    set("max_position_embeddings", keys.required_count("context_length")?.into());
    let eps = "attention.layer_norm_rms_epsilon";
    set("rms_norm_eps", keys.required(eps, keys.number(eps)?)?.into());
    Ok(rotated)
}

/// Base and scaling of the frequencies.
fn positions(
    keys: &Keys<'_, '_>,
    parts: &[&[u8]],
    width: usize,
    set: &mut Set<'_>,
) -> Result<(), BackboneError> {
    let theta = keys.number("rope.freq_base")?;
    if let Some(theta) = theta {
        set("rope_theta", theta.into());
    }
    let original = keys.count("rope.scaling.original_context_length")?;
    let factor = keys.number("rope.scaling.factor")?;
    let kind = keys.gguf.text(&keys.key("rope.scaling.type"))?;
    if let [Some(short), Some(long)] =
        [names::SHORT_FACTORS, names::LONG_FACTORS].map(|name| keys.gguf.tensors.get(name))
    {
        // Both lists and the original context suffice; the factor on scores follows from the contexts.
        keys.number("rope.scaling.attn_factor")?;
        let [short, long] = [short, long].map(|info| f32_values(info, parts));
        let long = json!({ "rope_type": "longrope", "short_factor": short, "long_factor": long });
        set("rope_scaling", long);
        set("original_max_position_embeddings", original.into());
        return Ok(());
    }
    if let Some(info) = keys.gguf.tensors.get(names::FREQUENCY_FACTORS[0]) {
        let scaling = llama3(info, parts, width, theta.unwrap_or(10_000.0), original);
        let scaling = scaling.ok_or_else(|| {
            let name = names::FREQUENCY_FACTORS[0];
            keys.gguf
                .wrong(format!("`{name}` holds other factors than those of Llama 3: that is not supported"))
        })?;
        set("rope_scaling", scaling);
        return Ok(());
    }
    let mut scaling = match kind.as_deref() {
        None | Some("none") => return Ok(()),
        Some(kind) => Map::from_iter([("rope_type".to_owned(), kind.into())]),
    };
    // The family interprets it.
    if let Some(factor) = factor {
        scaling.insert("factor".to_owned(), factor.into());
    }
    if let Some(original) = original.filter(|_| kind.as_deref() != Some("linear")) {
        scaling.insert("original_max_position_embeddings".to_owned(), original.into());
    }
    set("rope_scaling", Value::Object(scaling));
    Ok(())
}

/// The numbers of a single-precision tensor, each as its shortest decimal.
fn f32_values(info: &TensorInfo, parts: &[&[u8]]) -> Vec<f64> {
    let stored = parts.get(info.part).and_then(|bytes| bytes.get(info.range.clone()));
    let stored = stored.filter(|_| info.dtype == Ok(foreword_kernels::Dtype::F32));
    let stored = stored.unwrap_or_default().as_chunks::<4>().0.iter();
    stored.map(|&bytes| super::Value::F32(f32::from_le_bytes(bytes)).number().unwrap_or(0.0)).collect()
}

/// The parameters of Llama 3's scaling, recovered from the divisors, which are all that a file stores.
fn llama3(
    info: &TensorInfo,
    parts: &[&[u8]],
    width: usize,
    theta: f64,
    original: Option<usize>,
) -> Option<Value> {
    let stored: Vec<f32> = f32_values(info, parts).into_iter().map(|number| number as f32).collect();
    if stored.len() != width / 2 {
        return None;
    }
    let factor = f64::from(stored.iter().copied().fold(1.0f32, f32::max));
    // Llama's own limits; the original context is a power of two.
    let (low, high) = (1.0, 4.0);
    let contexts = original.into_iter().chain([8192]).chain((4..24).map(|bits| 1 << bits));
    let found = contexts.into_iter().find(|&original_context| {
        let scaling = RopeScaling::Llama3 {
            factor,
            low_frequency_factor: low,
            high_frequency_factor: high,
            original_context,
        };
        let computed = divisors(&Rope { theta, width, pairing: Pairing::Halves, scaling });
        computed.iter().zip(&stored).all(|(a, b)| (a - b).abs() <= SAME_FREQUENCY * a)
    })?;
    Some(json!({
        "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": found,
    }))
}
