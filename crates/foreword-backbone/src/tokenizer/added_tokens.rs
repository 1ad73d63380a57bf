//! Adds the tokens that only the files next to `tokenizer.json` state, as transformers 5 does when it loads a directory.
//!
//! | where | what it adds |
//! |---|---|
//! | `tokenizer_config.json`, `added_tokens_decoder` | tokens with their flags; if present, the next two files are not read |
//! | `special_tokens_map.json` | special tokens, before those of `tokenizer_config.json` |
//! | `added_tokens.json` | tokens by their ids |
//! | `tokenizer_config.json`, `bos_token`, …, `extra_special_tokens` | special tokens |
//!
//! Tokens are added in the order of their ids and take the next free id, whatever the file states. If nothing is added,
//! `tokenizer.json` and its digest stay the same.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::read::read;
use super::{TokenizerError, guarded};
use crate::error::BackboneError;
use crate::files::{ADDED_TOKENS, SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG};
use crate::notice::Notice;

/// The special tokens that every tokenizer may have, in transformers' order.
const NAMED_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const ADDED_TOKENS_DECODER: &str = "added_tokens_decoder";
/// Lists of further special tokens: the current key, and the old one, which is read if the first is absent.
const EXTRA_TOKENS: [&str; 2] = ["extra_special_tokens", "additional_special_tokens"];

/// The files, if they exist.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AddedTokenFiles<'a> {
    pub(crate) config: Option<&'a [u8]>,
    pub(crate) special_tokens_map: Option<&'a [u8]>,
    pub(crate) added_tokens: Option<&'a [u8]>,
}

/// The merged result.
#[derive(Debug)]
pub(crate) struct MergedTokenizer {
    /// `tokenizer.json` with all tokens.
    pub(crate) tokenizer: Vec<u8>,
    /// `tokenizer_config.json` with the special tokens of `special_tokens_map.json`.
    pub(crate) config: Option<Vec<u8>>,
    pub(crate) notices: Vec<Notice>,
}

/// The part of a `tokenizer.json` that decides whether tokens are added.
#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<StoredToken>,
}

#[derive(Deserialize)]
struct StoredToken {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

fn wrong(file: &'static str, detail: impl Into<String>) -> BackboneError {
    BackboneError::TokenizerFile { file, detail: detail.into() }
}

fn object(file: &'static str, bytes: Option<&[u8]>) -> Result<Map<String, Value>, BackboneError> {
    let Some(bytes) = bytes else { return Ok(Map::new()) };
    serde_json::from_slice(bytes)
        .map_err(|error| BackboneError::Json { file: file.to_owned(), detail: error.to_string() })
}

/// A token from an object.
fn token(
    file: &'static str,
    place: &str,
    value: &Value,
    special: Option<bool>,
) -> Result<AddedToken, BackboneError> {
    let object = match value {
        Value::Object(object) => object,
        Value::String(content) => return Ok(AddedToken::from(content.as_str(), special.unwrap_or(false))),
        _ => {
            return Err(wrong(
                file,
                format!("`{place}` is no token: a text, or an object with `content`, was expected"),
            ));
        }
    };
    let content = object.get("content").and_then(Value::as_str);
    let content = content.ok_or_else(|| wrong(file, format!("`{place}` has no text `content`")))?;
    let flag = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => {
            Err(wrong(file, format!("`{key}` of `{place}` is {other}, true or false was expected")))
        }
    };
    let special = match special {
        Some(special) => special,
        None => flag("special")?.unwrap_or(false),
    };
    Ok(AddedToken {
        content: content.to_owned(),
        single_word: flag("single_word")?.unwrap_or(false),
        lstrip: flag("lstrip")?.unwrap_or(false),
        rstrip: flag("rstrip")?.unwrap_or(false),
        normalized: flag("normalized")?.unwrap_or(!special),
        special,
    })
}

/// `added_tokens_decoder`: tokens by their stated ids.
fn decoder(config: &Map<String, Value>) -> Result<Option<Vec<(u32, AddedToken)>>, BackboneError> {
    let stated = match config.get(ADDED_TOKENS_DECODER) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(stated)) => stated,
        Some(_) => {
            return Err(wrong(
                TOKENIZER_CONFIG,
                format!("`{ADDED_TOKENS_DECODER}` is no object of tokens by their ids"),
            ));
        }
    };
    let entry = |(id, value): (&String, &Value)| {
        let place = format!("{ADDED_TOKENS_DECODER}.{id}");
        if !value.is_object() {
            return Err(wrong(
                TOKENIZER_CONFIG,
                format!("`{place}` is {value}, an object with `content` was expected"),
            ));
        }
        let id =
            id.parse().map_err(|_| wrong(TOKENIZER_CONFIG, format!("`{place}`: its key is no token id")))?;
        Ok((id, token(TOKENIZER_CONFIG, &place, value, None)?))
    };
    stated.iter().map(entry).collect::<Result<_, _>>().map(Some)
}

/// Special tokens by name, then those without one.
struct SpecialTokens {
    named: Vec<(String, AddedToken)>,
    extra: Vec<AddedToken>,
}

impl SpecialTokens {
    /// Those of a configuration merged with `special_tokens_map.json`.
    fn of(config: &Map<String, Value>) -> Result<Self, BackboneError> {
        let is_token = |value: &Value| value.is_string() || value.is_object();
        let mut named = Vec::new();
        let others = config
            .keys()
            .map(String::as_str)
            .filter(|key| key.ends_with("_token") && !NAMED_TOKENS.contains(key));
        for key in NAMED_TOKENS.into_iter().chain(others) {
            if let Some(value) = config.get(key).filter(|value| is_token(value)) {
                named.push((key.to_owned(), token(TOKENIZER_CONFIG, key, value, Some(true))?));
            }
        }
        let is_empty = |value: &&Value| {
            value.is_null()
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(Map::is_empty)
        };
        let extra = EXTRA_TOKENS
            .iter()
            .find_map(|key| Some((*key, config.get(*key).filter(|value| !is_empty(value))?)));
        let extra = match extra {
            None => Vec::new(),
            Some((key, Value::Array(tokens))) => {
                let tokens = tokens.iter().map(|value| token(TOKENIZER_CONFIG, key, value, Some(true)));
                tokens.collect::<Result<_, _>>()?
            }
            Some((key, Value::Object(tokens))) => {
                for (name, value) in tokens {
                    named.push((name.clone(), token(TOKENIZER_CONFIG, key, value, Some(true))?));
                }
                Vec::new()
            }
            Some((key, _)) => return Err(wrong(TOKENIZER_CONFIG, format!("`{key}` is no list of tokens"))),
        };
        Ok(Self { named, extra })
    }

    fn is_named(&self, content: &str) -> bool {
        self.named.iter().any(|(_, token)| token.content == content)
    }

    fn has(&self, content: &str) -> bool {
        self.is_named(content) || self.extra.iter().any(|token| token.content == content)
    }
}

/// Merges `special_tokens_map.json` into a configuration. Its values take precedence.
fn apply_special_tokens_map(mut config: Map<String, Value>, map: Map<String, Value>) -> Map<String, Value> {
    for (key, value) in map {
        let merge = match (config.get(&key), value) {
            (Some(Value::Array(here)), Value::Array(there)) if key == EXTRA_TOKENS[0] => {
                let mut all = here.clone();
                all.extend(there.into_iter().filter(|token| !here.contains(token)));
                Value::Array(all)
            }
            (_, value) => value,
        };
        config.insert(key, merge);
    }
    config
}

/// `added_tokens.json`.
fn added_tokens_json(
    bytes: Option<&[u8]>,
    special: &SpecialTokens,
) -> Result<Vec<(u32, AddedToken)>, BackboneError> {
    let entry = |(content, id): (String, Value)| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| wrong(ADDED_TOKENS, format!("`{content}` has no token id")))?;
        let is_special = special.has(&content);
        Ok((id, AddedToken::from(content, is_special)))
    };
    object(ADDED_TOKENS, bytes)?.into_iter().map(entry).collect()
}

/// The tokenizer of a directory.
///
/// # Errors
/// If a file can't be read, or states a token in a form that transformers refuses.
pub(crate) fn merge(
    tokenizer: Vec<u8>,
    files: AddedTokenFiles<'_>,
) -> Result<MergedTokenizer, BackboneError> {
    let mut config = object(TOKENIZER_CONFIG, files.config)?;
    let stated = decoder(&config)?;
    let mut own_config = files.config.map(<[u8]>::to_vec);
    if stated.is_none() && files.special_tokens_map.is_some() {
        let map = object(SPECIAL_TOKENS_MAP, files.special_tokens_map)?;
        config = apply_special_tokens_map(config, map);
        own_config = Some(Value::Object(config.clone()).to_string().into_bytes());
    }
    let special = SpecialTokens::of(&config)?;
    // Its reader reports what is wrong with it.
    let Ok(TokenizerJson { added_tokens: stored }) = serde_json::from_slice(&tokenizer) else {
        return Ok(MergedTokenizer { tokenizer, config: own_config, notices: Vec::new() });
    };
    let added: BTreeMap<u32, AddedToken> = match stated {
        Some(stated) => stated.into_iter().collect(),
        // Of two tokens with one id, that of tokenizer.json counts.
        None => {
            let own = stored.iter().map(|stored| (stored.id, stored.token.clone()));
            added_tokens_json(files.added_tokens, &special)?.into_iter().chain(own).collect()
        }
    };
    let mut tokens: Vec<AddedToken> = added.values().cloned().collect();
    for token in &mut tokens {
        token.special |= special.is_named(&token.content);
    }
    for token in special.named.iter().map(|(_, token)| token).chain(&special.extra) {
        let same = |other: &AddedToken| other.content == token.content;
        if !stored.iter().any(|stored| same(&stored.token)) && !tokens.iter().any(same) {
            tokens.push(token.clone());
        }
    }
    let whole: HashSet<&AddedToken> = stored.iter().map(|stored| &stored.token).collect();
    let is_there = |token: &AddedToken| whole.contains(token);
    let mut notices = Vec::new();
    if tokens.iter().all(is_there) {
        let stored = stored.iter().rev().map(|stored| (stored.token.content.as_str(), stored.id));
        let ids: HashMap<&str, u32> = stored.collect();
        let other = added.iter().find_map(|(&stated, token)| {
            let id = *ids.get(token.content.as_str())?;
            (id != stated).then(|| Notice::OtherId { token: token.content.clone(), stated, id })
        });
        notices.extend(other);
        return Ok(MergedTokenizer { tokenizer, config: own_config, notices });
    }
    let (tokenizer, other) = add_to_tokenizer(&tokenizer, tokens, &added)?;
    notices.extend(other);
    Ok(MergedTokenizer { tokenizer, config: own_config, notices })
}

/// A `tokenizer.json` with these tokens, and the first whose id differs from the stated one.
fn add_to_tokenizer(
    tokenizer: &[u8],
    tokens: Vec<AddedToken>,
    stated: &BTreeMap<u32, AddedToken>,
) -> Result<(Vec<u8>, Option<Notice>), BackboneError> {
    let done = guarded(|| {
        let (mut inner, _) = read(tokenizer)?;
        inner.add_tokens(tokens)?;
        let id = |token: &str| inner.token_to_id(token);
        let other = stated.iter().find_map(|(stated, token)| {
            let id = id(&token.content).filter(|id| id != stated)?;
            Some(Notice::OtherId { token: token.content.clone(), stated: *stated, id })
        });
        Ok((inner.to_string(false)?.into_bytes(), other))
    });
    done.map_err(|reason| TokenizerError::Invalid { reason: reason.to_string() }.into())
}
