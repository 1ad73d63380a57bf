//! Finds the chat template in a model's files, and the special tokens that it may use.

use std::collections::BTreeMap;

use foreword_backbone::ChatFiles;
use minijinja::Value as Written;
use serde_json::{Map, Value};

use super::ChatError;
use super::jinja::{Origin, TEMPLATE_FILE};

/// Maximum size of a template in bytes. Real ones have some tens of thousands.
const MOST_BYTES: usize = 1 << 20;
const CONFIG_FILE: &str = "tokenizer_config.json";
/// The name of the default template of a model with several.
const DEFAULT: &str = "default";
/// The names of special tokens in transformers, which a template may use.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// A chat template and its origin.
#[derive(Debug)]
pub(super) struct ChatTemplate {
    pub(super) source: String,
    pub(super) origin: Origin,
    pub(super) special_tokens: BTreeMap<String, Written>,
}

/// The template of a model, if it has one: `chat_template.jinja`, or else `chat_template` in `tokenizer_config.json`.
pub(super) fn chat_template(files: &ChatFiles) -> Result<Option<ChatTemplate>, ChatError> {
    let config = files.tokenizer_config.as_deref().map(config).transpose()?.unwrap_or_default();
    let found = match &files.template {
        Some(bytes) => Some((text(bytes)?, Origin::File)),
        None => of_config(&config)?.map(|source| (source, Origin::Config)),
    };
    let Some((source, origin)) = found else { return Ok(None) };
    if source.len() > MOST_BYTES {
        let reason =
            format!("a chat template of {} bytes, more than the {MOST_BYTES} that are read", source.len());
        return Err(ChatError::File { file: origin.file(), reason });
    }
    Ok(Some(ChatTemplate { source, origin, special_tokens: special_tokens(&config) }))
}

fn text(bytes: &[u8]) -> Result<String, ChatError> {
    let text = String::from_utf8(bytes.to_vec());
    text.map_err(|_| ChatError::File { file: TEMPLATE_FILE, reason: "not UTF-8 text".to_owned() })
}

fn config(bytes: &[u8]) -> Result<Map<String, Value>, ChatError> {
    serde_json::from_slice(bytes).map_err(|error| bad_config(error.to_string()))
}

fn bad_config(reason: String) -> ChatError {
    ChatError::File { file: CONFIG_FILE, reason }
}

/// `chat_template`: a text, or a list of named texts.
fn of_config(config: &Map<String, Value>) -> Result<Option<String>, ChatError> {
    let named = match config.get("chat_template") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(source)) => return Ok(Some(source.clone())),
        Some(Value::Array(named)) => named,
        Some(_) => {
            return Err(bad_config("`chat_template` is neither a text nor a list of named ones".to_owned()));
        }
    };
    let name = |entry: &Value| entry.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(default) = named.iter().find(|entry| name(entry) == DEFAULT) else {
        let names = named.iter().map(name).collect::<Vec<_>>().join(", ");
        return Err(bad_config(format!("`chat_template` has no entry named {DEFAULT}, only: {names}")));
    };
    match default.get("template").and_then(Value::as_str) {
        Some(source) => Ok(Some(source.to_owned())),
        None => Err(bad_config(format!("the entry {DEFAULT} of `chat_template` has no text `template`"))),
    }
}

/// The special tokens by name: each a text, or an object with `content`.
fn special_tokens(config: &Map<String, Value>) -> BTreeMap<String, Written> {
    let token = |value: &Value| match value {
        Value::String(token) => Some(Written::from(token.as_str())),
        Value::Object(object) => object.get("content").and_then(Value::as_str).map(Written::from),
        _ => None,
    };
    let of_name = |name: &&str| Some(((*name).to_owned(), token(config.get(*name)?)?));
    let of_list = |name: &&str| {
        let tokens: Vec<Written> = config.get(*name)?.as_array()?.iter().filter_map(token).collect();
        Some(((*name).to_owned(), Written::from(tokens)))
    };
    // A model may have others: `image_token`.
    let others = config.keys().map(String::as_str).filter(|key| key.ends_with("_token"));
    let names = SPECIAL_TOKENS.into_iter().chain(others);
    let named = LISTS.iter().filter_map(|name| config.get(*name)?.as_object()).flatten();
    let named = named.filter_map(|(name, value)| Some((name.clone(), token(value)?)));
    names.filter_map(|name| of_name(&name)).chain(named).chain(LISTS.iter().filter_map(of_list)).collect()
}
