//! Names of tensors: GGUF's for the places that a family's table has, both ways.

use super::Gguf;
use crate::error::BackboneError;
use crate::families::{Family, Names, Qkv};

/// Architectures by GGUF's name for them, and the families that compute the same.
pub(crate) const ARCHITECTURES: &[Architecture] = &[
    Architecture { name: "llama", model_type: "llama", by_pairs: true },
    Architecture { name: "qwen2", model_type: "qwen2", by_pairs: false },
    Architecture { name: "qwen3", model_type: "qwen3", by_pairs: false },
    Architecture { name: "gemma", model_type: "gemma", by_pairs: false },
    Architecture { name: "gemma2", model_type: "gemma2", by_pairs: false },
    Architecture { name: "gemma3", model_type: "gemma3_text", by_pairs: false },
    Architecture { name: "phi3", model_type: "phi3", by_pairs: false },
    Architecture { name: "gpt2", model_type: "gpt2", by_pairs: false },
];

/// One of them.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// `general.architecture`, and the beginning of its keys.
    pub(crate) name: &'static str,
    /// `model_type` in config.json.
    pub(crate) model_type: &'static str,
    /// Rows of queries and keys are stored by pairs.
    pub(crate) by_pairs: bool,
}

impl Architecture {
    /// The architecture of a file.
    pub(crate) fn of(gguf: &Gguf<'_>) -> Result<&'static Self, BackboneError> {
        let found = gguf.architecture()?;
        ARCHITECTURES.iter().find(|architecture| architecture.name == found).ok_or_else(|| {
            let known: Vec<_> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
            gguf.wrong(format!("architecture `{found}` is not supported; supported are {}", known.join(", ")))
        })
    }

    /// The architecture that a family is written as. Mistral without its window is Llama, and is called so.
    pub(crate) fn of_family(family: &Family) -> Option<&'static Self> {
        let name = if family.model_type == "mistral" { "llama" } else { family.model_type };
        ARCHITECTURES.iter().find(|architecture| architecture.model_type == name)
    }
}

/// Tensors that hold what frequencies are divided by, which the configuration states another way: Llama 3's, and those of longer
/// contexts.
pub(crate) const FREQUENCIES: [&str; 3] = ["rope_freqs.weight", LONG, SHORT];
pub(crate) const LONG: &str = "rope_factors_long.weight";
pub(crate) const SHORT: &str = "rope_factors_short.weight";

/// Names in a file and in a family.
type Table = Vec<(&'static str, &'static str)>;

/// Tensors outside of the layers: (in the file, in the family).
fn outer(names: &Names) -> Table {
    let head = names.heads.first().copied().unwrap_or_default();
    let all = [
        ("token_embd", names.embeddings),
        ("position_embd", names.positions),
        ("output_norm", names.final_norm),
        ("output", head),
    ];
    all.into_iter().filter(|(_, ours)| !ours.is_empty()).collect()
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
    all.retain(|(_, ours)| !ours.is_empty());
    all
}

/// Whether a tensor of a file holds queries or keys, whose rows some files store by pairs.
pub(crate) fn is_query_or_key(name: &str) -> bool {
    let rest = name.split_once('.').and_then(|(_, rest)| rest.split_once('.')).map_or("", |(_, rest)| rest);
    name.starts_with("blk.")
        && ["attn_q.weight", "attn_k.weight", "attn_q.bias", "attn_k.bias"].contains(&rest)
}

/// The name that the family has for tensor `name` of a file, without the family's prefix; `None` if it has no place for it.
pub(crate) fn to_family(names: &Names, name: &str) -> Option<String> {
    let (stem, ending) = name.rsplit_once('.').filter(|(_, ending)| ["weight", "bias"].contains(ending))?;
    let find = |table: Vec<(&str, &'static str)>, stem: &str| {
        table.into_iter().find(|(theirs, _)| *theirs == stem).map(|(_, ours)| ours)
    };
    match stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, stem)) => {
            let number: usize = layer.parse().ok().filter(|n: &usize| n.to_string() == layer)?;
            let prefix = names.layer.replace("{}", &number.to_string());
            find(inner(names), stem).map(|ours| format!("{prefix}{ours}.{ending}"))
        }
        None => find(outer(names), stem).map(|ours| format!("{ours}.{ending}")),
    }
}

/// All tensors that a model of so many layers may have, weights and biases: (in the file, in the family).
pub(crate) fn all(names: &Names, layers: usize) -> Vec<(String, String)> {
    let both = |theirs: String, ours: String| {
        ["weight", "bias"].map(|ending| (format!("{theirs}.{ending}"), format!("{ours}.{ending}")))
    };
    let mut tensors: Vec<_> = outer(names)
        .into_iter()
        .flat_map(|(theirs, ours)| both(theirs.to_owned(), ours.to_owned()))
        .collect();
    for i in 0..layers {
        let prefix = names.layer.replace("{}", &i.to_string());
        let layer = inner(names).into_iter();
        tensors.extend(
            layer.flat_map(|(theirs, ours)| both(format!("blk.{i}.{theirs}"), format!("{prefix}{ours}"))),
        );
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
            for (theirs, ours) in all(&names, 12) {
                assert_eq!(to_family(&names, &theirs), Some(ours), "{theirs}");
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
