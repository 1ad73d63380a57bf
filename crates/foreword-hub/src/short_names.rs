//! Names of models as people write them, without the owner: what the hub calls them.

use std::path::Path;

use crate::cache::cached;

/// Names from before the hub had owners.
const FORMER: &[(&str, &str)] = &[
    ("gpt2", "openai-community/gpt2"),
    ("gpt2-medium", "openai-community/gpt2-medium"),
    ("gpt2-large", "openai-community/gpt2-large"),
    ("gpt2-xl", "openai-community/gpt2-xl"),
    ("openai-gpt", "openai-community/openai-gpt"),
    ("distilgpt2", "distilbert/distilgpt2"),
    ("ctrl", "Salesforce/ctrl"),
    ("xlnet-base-cased", "xlnet/xlnet-base-cased"),
    ("xlnet-large-cased", "xlnet/xlnet-large-cased"),
    ("transfo-xl-wt103", "transfo-xl/transfo-xl-wt103"),
];

/// Owners by how the names of their models begin.
const OWNERS: &[(&str, &str)] = &[
    ("bert-", "google-bert"),
    ("distilbert-", "distilbert"),
    ("distilroberta-", "distilbert"),
    ("albert-", "albert"),
    ("roberta-", "FacebookAI"),
    ("xlm-", "FacebookAI"),
    ("t5-", "google-t5"),
    ("flan-t5-", "google"),
    ("bart-", "facebook"),
    ("opt-", "facebook"),
    ("bloom-", "bigscience"),
    ("bloomz-", "bigscience"),
    ("gpt-j-", "EleutherAI"),
    ("gpt-neo", "EleutherAI"),
    ("pythia-", "EleutherAI"),
    ("qwen-", "Qwen"),
    ("qwen1", "Qwen"),
    ("qwen2", "Qwen"),
    ("qwen3", "Qwen"),
    ("qwq-", "Qwen"),
    ("llama-2-", "meta-llama"),
    ("llama-3", "meta-llama"),
    ("meta-llama-3", "meta-llama"),
    ("tinyllama", "TinyLlama"),
    ("smollm", "HuggingFaceTB"),
    ("gemma-", "google"),
    ("phi-", "microsoft"),
    ("mistral-", "mistralai"),
    ("mixtral-", "mistralai"),
    ("ministral-", "mistralai"),
    ("falcon-", "tiiuae"),
    ("falcon3-", "tiiuae"),
    ("stablelm-", "stabilityai"),
    ("olmo-", "allenai"),
    ("granite-", "ibm-granite"),
    ("c4ai-", "CohereLabs"),
];

/// The hub's name for a name without an owner: of a model in the cache, or of a well-known one. A revision stays.
#[must_use]
pub fn full_name(name: &str, cache: Option<&Path>) -> Option<String> {
    let (model, revision) = match name.split_once('@') {
        Some((model, revision)) => (model, format!("@{revision}")),
        None => (name, String::new()),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if model.is_empty() || !model.chars().all(is_name) || model.to_ascii_lowercase().ends_with(".gguf") {
        return None;
    }
    let is_same = |repository: &str| {
        repository.split_once('/').is_some_and(|(_, name)| name.eq_ignore_ascii_case(model))
    };
    let in_cache = || cached(cache?).into_iter().map(|cached| cached.repository).find(|name| is_same(name));
    let former = || FORMER.iter().find(|(short, _)| short.eq_ignore_ascii_case(model));
    let begins = |with: &str| model.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    let owner = || OWNERS.iter().find(|(start, _)| begins(start));
    let full = in_cache()
        .or_else(|| former().map(|(_, full)| (*full).to_owned()))
        .or_else(|| owner().map(|(_, owner)| format!("{owner}/{model}")))?;
    Some(format!("{full}{revision}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_an_owner_are_completed() {
        for (short, full) in [
            ("gpt2", Some("openai-community/gpt2")),
            ("GPT2-XL", Some("openai-community/gpt2-xl")),
            ("distilgpt2@main", Some("distilbert/distilgpt2@main")),
            ("Qwen3-0.6B", Some("Qwen/Qwen3-0.6B")),
            ("gpt-neo-125m", Some("EleutherAI/gpt-neo-125m")),
            ("Llama-3.2-1B", Some("meta-llama/Llama-3.2-1B")),
            ("bert-base-uncased", Some("google-bert/bert-base-uncased")),
            ("SmolLM2-135M", Some("HuggingFaceTB/SmolLM2-135M")),
            ("gpt2.gguf", None),
            ("./gpt2", None),
            ("org/gpt2", None),
            ("sentiment", None),
            ("", None),
        ] {
            assert_eq!(full_name(short, None).as_deref(), full, "{short}");
        }
        for (_, full) in FORMER {
            assert!(foreword_format::HubName::parse(full).is_some(), "{full}");
        }
    }

    #[test]
    fn the_cache_knows_best() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("models--me--GPT2/snapshots/0123456789abcdef0123456789abcdef01234567");
        std::fs::create_dir_all(folder).unwrap();
        assert_eq!(full_name("gpt2", Some(cache.path())).as_deref(), Some("me/GPT2"));
        assert_eq!(full_name("gpt3", Some(cache.path())), None);
    }
}
