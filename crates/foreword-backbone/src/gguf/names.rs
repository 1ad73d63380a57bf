//! Names of tensors: GGUF's for the places that a family's table has, both ways.

use super::Gguf;
use crate::error::BackboneError;
use crate::families::{Family, Names, Qkv};

/// Architectures by GGUF's name for them, and the families that compute the same.
pub(crate) const ARCHITECTURES: &[Architecture] = &[
    Architecture { name: "llama", model_type: "llama", by_pairs: true },
    Architecture { name: "qwen2", model_type: "qwen2", by_pairs: false },
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

    /// The architecture that a family is written as.
    pub(crate) fn of_family(family: &Family) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|architecture| architecture.model_type == family.model_type)
    }
}

/// Tensors that hold frequencies, which the configuration states another way.
pub(crate) const FREQUENCIES: &str = "rope_freqs.weight";

/// Tensors outside of the layers: (in the file, in the family).
fn outer(names: &Names) -> Vec<(&'static str, &'static str)> {
    let mut all =
        vec![("token_embd", names.embeddings), ("output_norm", names.final_norm), ("output", names.head)];
    if !names.positions.is_empty() {
        all.push(("position_embd", names.positions));
    }
    all
}

/// Tensors of a layer.
fn inner(names: &Names) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![
        ("attn_norm", names.attention_norm),
        ("attn_output", names.output),
        ("ffn_norm", names.mlp_norm),
        ("ffn_down", names.down),
    ];
    match names.qkv {
        Qkv::Separate([query, key, value]) => {
            all.extend([("attn_q", query), ("attn_k", key), ("attn_v", value)]);
        }
        Qkv::Fused(fused) => all.push(("attn_qkv", fused)),
    }
    match *names.up {
        [gate, up] => all.extend([("ffn_gate", gate), ("ffn_up", up)]),
        [up] => all.push(("ffn_up", up)),
        _ => {}
    }
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

    #[test]
    fn every_name_finds_its_way_back() {
        for family in families::ALL {
            for (theirs, ours) in all(&family.names, 12) {
                assert_eq!(to_family(&family.names, &theirs), Some(ours), "{theirs}");
            }
        }
        let names = &families::ALL[0].names;
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
