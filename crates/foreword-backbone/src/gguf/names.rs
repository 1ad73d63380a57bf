//! Maps tensor names between GGUF and a family, in both directions.

use super::Gguf;
use crate::error::BackboneError;
use crate::families::{Family, Names, Qkv};

/// The formats that are read, and how to convert a file.
pub(crate) const FORMATS_HINT: &str = "F32, F16, BF16, Q8_0, Q6_K to Q2_K, Q5_1, Q5_0, Q4_1, Q4_0, IQ4_XS, IQ4_NL and MXFP4 are: \
    take the file in one of them, or convert it with llama.cpp (`llama-quantize --allow-requantize IN OUT Q4_K_M`)";

/// GGUF architectures, and the families that compute the same.
pub(crate) const ARCHITECTURES: &[Architecture] = &[
    Architecture { name: "llama", model_type: "llama", rope_interleaved: true },
    Architecture { name: "qwen2", model_type: "qwen2", rope_interleaved: false },
    Architecture { name: "qwen3", model_type: "qwen3", rope_interleaved: false },
    Architecture { name: "gemma", model_type: "gemma", rope_interleaved: false },
    Architecture { name: "gemma2", model_type: "gemma2", rope_interleaved: false },
    Architecture { name: "gemma3", model_type: "gemma3_text", rope_interleaved: false },
    Architecture { name: "phi3", model_type: "phi3", rope_interleaved: false },
    Architecture { name: "gpt2", model_type: "gpt2", rope_interleaved: false },
];

/// Architectures whose families are read only from Hugging Face directories.
const AS_DIRECTORIES: [&str; 11] = [
    "bloom",
    "command-r",
    "falcon",
    "gptj",
    "gptneox",
    "granite",
    "olmo2",
    "opt",
    "qwen3moe",
    "smollm3",
    "stablelm",
];

/// A GGUF architecture.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// `general.architecture`, and the prefix of its keys.
    pub(crate) name: &'static str,
    /// `model_type` in config.json.
    pub(crate) model_type: &'static str,
    /// Rows of queries and keys are interleaved for rotary positions.
    pub(crate) rope_interleaved: bool,
}

impl Architecture {
    /// The architecture of a file.
    pub(crate) fn of(gguf: &Gguf<'_>) -> Result<&'static Self, BackboneError> {
        let found = gguf.architecture()?;
        ARCHITECTURES.iter().find(|architecture| architecture.name == found).ok_or_else(|| {
            let known: Vec<_> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
            let otherwise = if AS_DIRECTORIES.contains(&&*found) {
                ": take the Hugging Face directory of the model, which is read"
            } else {
                ""
            };
            let known = known.join(", ");
            gguf.wrong(format!("architecture `{found}` is not supported; supported are {known}{otherwise}"))
        })
    }

    /// The architecture that a family is written as. Mistral without its window is written as Llama, and of a Gemma 3 that
    /// sees images the text part.
    pub(crate) fn of_family(family: &Family) -> Option<&'static Self> {
        let name = match family.model_type {
            "mistral" => "llama",
            "gemma3" => "gemma3_text",
            other => other,
        };
        ARCHITECTURES.iter().find(|architecture| architecture.model_type == name)
    }
}

/// Tensors with divisors of the rotary frequencies, which the configuration states in another form.
pub(crate) const FREQUENCY_FACTORS: [&str; 3] = ["rope_freqs.weight", LONG_FACTORS, SHORT_FACTORS];
pub(crate) const LONG_FACTORS: &str = "rope_factors_long.weight";
pub(crate) const SHORT_FACTORS: &str = "rope_factors_short.weight";

/// (name in a file, name in a family).
type Table = Vec<(&'static str, &'static str)>;

/// Tensors outside of the layers.
fn outer(names: &Names) -> Table {
    let head = names.heads.first().copied().unwrap_or_default();
    let all = [
        ("token_embd", names.embeddings),
        ("position_embd", names.positions),
        ("output_norm", names.final_norm),
        ("output", head),
    ];
    all.into_iter().filter(|(_, family_name)| !family_name.is_empty()).collect()
}

/// Tensors of a layer.
fn inner(names: &Names) -> Table {
    let mut all = vec![
        ("attn_norm", names.attention_norm),
        ("attn_q_norm", names.query_norm),
        ("attn_k_norm", names.key_norm),
        ("attn_output", names.output),
        ("post_attention_norm", names.attention_post_norm),
        ("ffn_norm", names.mlp_norm),
        ("ffn_down", names.down),
        ("post_ffw_norm", names.mlp_post_norm),
    ];
    match names.qkv {
        Qkv::Separate([query, key, value]) => {
            all.extend([("attn_q", query), ("attn_k", key), ("attn_v", value)]);
        }
        Qkv::Fused(fused) | Qkv::Grouped(fused) => all.push(("attn_qkv", fused)),
    }
    match *names.up {
        [gate, up] => all.extend([("ffn_gate", gate), ("ffn_up", up)]),
        [up] => all.push(("ffn_up", up)),
        _ => {}
    }
    all.retain(|(_, family_name)| !family_name.is_empty());
    all
}

/// Whether a tensor of a file holds queries or keys, whose rows some files interleave.
pub(crate) fn is_query_or_key(name: &str) -> bool {
    let rest = name.split_once('.').and_then(|(_, rest)| rest.split_once('.')).map_or("", |(_, rest)| rest);
    name.starts_with("blk.")
        && ["attn_q.weight", "attn_k.weight", "attn_q.bias", "attn_k.bias"].contains(&rest)
}

/// The family's name for tensor `name` of a file, without the family's prefix; `None` if it has none.
pub(crate) fn to_family(names: &Names, name: &str) -> Option<String> {
    let (stem, ending) = name.rsplit_once('.').filter(|(_, ending)| ["weight", "bias"].contains(ending))?;
    let find = |table: Vec<(&str, &'static str)>, stem: &str| {
        table.into_iter().find(|(gguf_name, _)| *gguf_name == stem).map(|(_, family_name)| family_name)
    };
    match stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, stem)) => {
            let number: usize = layer.parse().ok().filter(|n: &usize| n.to_string() == layer)?;
            let prefix = names.layer.replace("{}", &number.to_string());
            find(inner(names), stem).map(|family_name| format!("{prefix}{family_name}.{ending}"))
        }
        None => find(outer(names), stem).map(|family_name| format!("{family_name}.{ending}")),
    }
}

/// All tensors that a model with this number of layers may have, weights and biases.
pub(crate) fn all(names: &Names, layers: usize) -> Vec<(String, String)> {
    let both = |gguf_name: String, family_name: String| {
        ["weight", "bias"].map(|ending| (format!("{gguf_name}.{ending}"), format!("{family_name}.{ending}")))
    };
    let mut tensors: Vec<_> = outer(names)
        .into_iter()
        .flat_map(|(gguf_name, family_name)| both(gguf_name.to_owned(), family_name.to_owned()))
        .collect();
    for i in 0..layers {
        let prefix = names.layer.replace("{}", &i.to_string());
        let layer = inner(names).into_iter();
        tensors.extend(layer.flat_map(|(gguf_name, family_name)| {
            both(format!("blk.{i}.{gguf_name}"), format!("{prefix}{family_name}"))
        }));
    }
    tensors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families;

    fn any() -> crate::spec::Spec {
        let config = serde_json::json!({
            "model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
            "intermediate_size": 8, "vocab_size": 8,
        });
        let config = crate::config::HfConfig::parse(config.to_string().as_bytes()).unwrap();
        (families::find(&config).unwrap().spec)(&config).unwrap()
    }

    #[test]
    fn every_name_finds_its_way_back() {
        for architecture in ARCHITECTURES {
            let family =
                families::ALL.iter().find(|family| family.model_type == architecture.model_type).unwrap();
            // No family that is written makes its names from the Spec.
            let names = (family.names)(&any());
            for (gguf_name, family_name) in all(&names, 12) {
                assert_eq!(to_family(&names, &gguf_name), Some(family_name), "{gguf_name}");
            }
        }
        let names =
            &(families::ALL.iter().find(|family| family.model_type == "llama").unwrap().names)(&any());
        for odd in [
            "token_embd",
            "blk.0",
            "blk.x.attn_norm.weight",
            "blk.01.attn_norm.weight",
            "blk.0.router.weight",
        ] {
            assert_eq!(to_family(names, odd), None, "{odd}");
        }
        assert!(is_query_or_key("blk.3.attn_k.bias") && !is_query_or_key("blk.3.attn_q_norm.weight"));
    }
}
