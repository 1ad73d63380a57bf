//! Tokenizers of the older kind: `vocab.json` and `merges.txt` become the `tokenizer.json` that transformers 5 makes of them.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::patterns::byte_level;
use crate::error::BackboneError;
use crate::families::tokenizer_classes::TokenizerClass;
use crate::files::{CONFIG, MERGES, TOKENIZER_CONFIG, VOCAB};

/// The files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VocabFiles<'a> {
    pub(crate) vocab: &'a [u8],
    pub(crate) merges: &'a [u8],
    /// `tokenizer_config.json`, if there is one.
    pub(crate) config: Option<&'a [u8]>,
    /// `config.json`.
    pub(crate) model: &'a [u8],
}

fn wrong(file: &'static str, detail: impl Into<String>) -> BackboneError {
    BackboneError::TokenizerFile { file, detail: detail.into() }
}

fn object(file: &str, bytes: &[u8]) -> Result<Map<String, Value>, BackboneError> {
    serde_json::from_slice(bytes)
        .map_err(|error| BackboneError::Json { file: file.to_owned(), detail: error.to_string() })
}

/// The `tokenizer.json`, without added tokens, and the `tokenizer_config.json` with the class's own special tokens.
///
/// # Errors
/// If a file can't be read, or its class is not known.
pub(crate) fn to_json(files: VocabFiles<'_>) -> Result<(Vec<u8>, Vec<u8>), BackboneError> {
    let mut config = files.config.map_or(Ok(Map::new()), |config| object(TOKENIZER_CONFIG, config))?;
    let class = TokenizerClass::of(&config, &object(CONFIG, files.model)?)?;
    for (name, token) in class.special_tokens() {
        config.entry(name).or_insert_with(|| token.into());
    }
    let vocab = object(VOCAB, files.vocab)?;
    let is_id = |id: &Value| id.as_u64().is_some_and(|id| u32::try_from(id).is_ok());
    if let Some((token, id)) = vocab.iter().find(|(_, id)| !is_id(id)) {
        return Err(wrong(
            VOCAB,
            format!("the token {token:?} has the id {id}, a whole number was expected"),
        ));
    }
    let merges = merges(files.merges, &vocab)?;
    let adds_space = config.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(false);
    let (normalizer, pre_tokenizer) = class.steps(adds_space);
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": byte_level(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    });
    Ok((file.to_string().into_bytes(), Value::Object(config).to_string().into_bytes()))
}

/// The pairs of `merges.txt`, each of tokens that make a token.
fn merges<'a>(bytes: &'a [u8], vocab: &Map<String, Value>) -> Result<Vec<[&'a str; 2]>, BackboneError> {
    let text = std::str::from_utf8(bytes).map_err(|_| wrong(MERGES, "it is no UTF-8"))?;
    let known: HashSet<&str> = vocab.keys().map(String::as_str).collect();
    let mut merges = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let pair = line.split_once(' ').filter(|(_, right)| !right.contains(' '));
        let (left, right) = pair.ok_or_else(|| {
            wrong(
                MERGES,
                format!("line {} is {line:?}, two tokens with a space between them were expected", i + 1),
            )
        })?;
        let joined = format!("{left}{right}");
        if let Some(token) = [left, right, &joined].into_iter().find(|token| !known.contains(token)) {
            let detail =
                format!("line {} merges {left:?} and {right:?}, but vocab.json has no {token:?}", i + 1);
            return Err(wrong(MERGES, detail));
        }
        merges.push([left, right]);
    }
    Ok(merges)
}

/// The same tokenizer, with the special tokens around a text that its configuration asks for.
///
/// # Errors
/// If a file is not the one that [`to_json`] and the merge of added tokens made.
pub(crate) fn with_ends(tokenizer: Vec<u8>, config: &[u8]) -> Result<Vec<u8>, BackboneError> {
    let config = object(TOKENIZER_CONFIG, config)?;
    let named = |name: &str| {
        let is_asked = config.get(&format!("add_{name}")).and_then(Value::as_bool).unwrap_or(false);
        let token = config.get(name).filter(|_| is_asked)?;
        token.as_str().or_else(|| token.get("content")?.as_str())
    };
    let (bos, eos) = (named("bos_token"), named("eos_token"));
    if bos.is_none() && eos.is_none() {
        return Ok(tokenizer);
    }
    let mut file = object(VOCAB, &tokenizer)?;
    let id = |token: &str| {
        let added = file.get("added_tokens")?.as_array()?;
        let of_added = added.iter().find(|added| added["content"] == token).and_then(|added| added.get("id"));
        of_added.or_else(|| file.get("model")?.get("vocab")?.get(token)).cloned()
    };
    let special = |token: &str| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let text = |name: &str| json!({ "Sequence": { "id": name, "type_id": 0 } });
    let around = |texts: &[Value]| -> Vec<Value> {
        bos.map(special).into_iter().chain(texts.iter().cloned()).chain(eos.map(special)).collect()
    };
    let mut tokens = Map::new();
    for token in bos.into_iter().chain(eos) {
        tokens.insert(token.to_owned(), json!({ "id": token, "ids": [id(token)], "tokens": [token] }));
    }
    let processor = json!({
        "type": "TemplateProcessing", "single": around(&[text("A")]), "pair": around(&[text("A"), text("B")]),
        "special_tokens": tokens,
    });
    file.insert("post_processor".to_owned(), processor);
    Ok(Value::Object(file).to_string().into_bytes())
}
