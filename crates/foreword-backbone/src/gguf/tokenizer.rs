//! Translates the tokenizer of a GGUF file into a `tokenizer.json`, and back.
//!
//! Two models are read: `gpt2`, byte-level BPE with its merges and a named pre-tokenizer, and `llama`, SentencePiece's BPE,
//! whose merges follow from the scores. A file may also hold the whole `tokenizer.json`, as those that Foreword writes do;
//! then that is the tokenizer, to the byte.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::Gguf;
use super::inferred::{self, RightStrip};
use crate::error::BackboneError;
use crate::files::ChatFiles;
use crate::notice::Notice;

/// The whole `tokenizer.json`.
pub(crate) const HUGGINGFACE_JSON: &str = "tokenizer.huggingface.json";

/// A `tokenizer_config.json` with what chats need: templates, which may be several, and special tokens by their names.
pub(crate) const CHAT_CONFIG: &str = "tokenizer.huggingface.config.json";
/// The chat template, as llama.cpp reads it.
pub(crate) const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Token types (`tokenizer.ggml.token_type`).
pub(crate) mod kind {
    pub(crate) const NORMAL: i32 = 1;
    pub(crate) const UNKNOWN: i32 = 2;
    pub(crate) const CONTROL: i32 = 3;
    pub(crate) const USER_DEFINED: i32 = 4;
    pub(crate) const UNUSED: i32 = 5;
    pub(crate) const BYTE: i32 = 6;
}

/// SentencePiece's space.
const SPACE: &str = "▁";
const CONTRACTIONS: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+";
const REST: &str = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// A pre-tokenizer by its names (`tokenizer.ggml.pre`).
struct PreTokenizer {
    names: &'static [&'static str],
    normalizer: fn() -> Value,
    json: fn() -> Value,
    /// Words that are tokens skip the merges.
    ignores_merges: bool,
    /// Default of `tokenizer.ggml.add_bos_token`.
    add_bos: bool,
}

fn byte_level(with_pattern: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": with_pattern })
}

fn split(pattern: &str) -> Value {
    json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false })
}

fn sequence(steps: &[Value]) -> Value {
    json!({ "type": "Sequence", "pretokenizers": steps })
}

fn digits_apart() -> Value {
    sequence(&[json!({ "type": "Digits", "individual_digits": true }), byte_level(true)])
}

fn split_by_pattern(numbers: &str) -> Value {
    sequence(&[split(&format!("{CONTRACTIONS}|{numbers}{REST}")), byte_level(false)])
}

/// llama.cpp's pre-tokenizer of files that name none.
fn default_pre_tokenizer() -> Value {
    let words = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)";
    let steps = ["[\\p{P}\\$\\+<=>\\^~\\|]+", words, "\\p{N}+", "[0-9][0-9][0-9]"];
    let steps = steps.map(split).into_iter().chain([byte_level(false)]);
    sequence(&steps.collect::<Vec<_>>())
}

fn none() -> Value {
    Value::Null
}

const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["gpt-2", "phi-2"],
        normalizer: none,
        json: || byte_level(true),
        ignores_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3"],
        normalizer: none,
        json: || split_by_pattern("\\p{N}{1,3}"),
        ignores_merges: true,
        add_bos: true,
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen"],
        normalizer: || json!({ "type": "NFC" }),
        json: || split_by_pattern("\\p{N}"),
        ignores_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r"],
        normalizer: none,
        json: digits_apart,
        ignores_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["default"],
        normalizer: none,
        json: default_pre_tokenizer,
        ignores_merges: false,
        add_bos: false,
    },
];

/// The tokens of a file and their properties.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<i32>,
    bos: Option<usize>,
    eos: Option<usize>,
    unknown: Option<usize>,
    right_strip: RightStrip,
}

impl Tokens {
    fn read(gguf: &Gguf<'_>) -> Result<Self, BackboneError> {
        let texts = gguf.array("tokenizer.ggml.tokens")?;
        let texts =
            texts.ok_or_else(|| gguf.wrong("`tokenizer.ggml.tokens` is missing: it has no tokenizer"))?;
        let texts: Option<Vec<String>> =
            texts.items().map(|item| item.text().map(std::borrow::Cow::into_owned)).collect();
        let texts =
            texts.ok_or_else(|| gguf.wrong("`tokenizer.ggml.tokens` holds something else than strings"))?;
        let mut kinds = match gguf.array("tokenizer.ggml.token_type")? {
            None => vec![kind::NORMAL; texts.len()],
            Some(kinds) => kinds
                .items()
                .map(|item| item.integer().and_then(|kind| i32::try_from(kind).ok()))
                .collect::<Option<_>>()
                .ok_or_else(|| {
                    gguf.wrong("`tokenizer.ggml.token_type` holds something else than whole numbers")
                })?,
        };
        if kinds.len() != texts.len() {
            return Err(
                gguf.wrong("`tokenizer.ggml.token_type` has another length than `tokenizer.ggml.tokens`")
            );
        }
        for (text, kind) in texts.iter().zip(&mut kinds) {
            if inferred::ends_text(text) {
                *kind = kind::CONTROL;
            }
        }
        let known = |name: &str| -> Result<Option<usize>, BackboneError> {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match gguf.count(&key)? {
                Some(token) if token >= texts.len() => {
                    Err(gguf.wrong(format!("`{key}` is {token}, but there are {} tokens", texts.len())))
                }
                token => Ok(token),
            }
        };
        let (bos, eos, unknown) = (known("bos")?, known("eos")?, known("unknown")?);
        let right_strip = RightStrip::of(gguf)?;
        Ok(Self { texts, kinds, bos, eos, unknown, right_strip })
    }

    /// The entries of `vocab`. Of tokens with the same text the first is found.
    fn vocabulary(&self) -> Map<String, Value> {
        let mut vocabulary = Map::new();
        for (id, text) in self.texts.iter().enumerate() {
            vocabulary.entry(text.clone()).or_insert_with(|| id.into());
        }
        vocabulary
    }

    /// The `added_tokens`, which are matched in a text before anything else.
    fn added(&self) -> Vec<Value> {
        let is_added = |kind: i32, text: &str| match kind {
            kind::CONTROL | kind::UNKNOWN => true,
            // Texts have spaces where these have SentencePiece's: merges find them.
            kind::USER_DEFINED => !text.contains(SPACE),
            _ => false,
        };
        let added = self
            .texts
            .iter()
            .zip(&self.kinds)
            .enumerate()
            .filter(|(_, (text, kind))| !text.is_empty() && is_added(**kind, text));
        added
            .map(|(id, (text, &kind))| {
                json!({
                    "id": id, "content": text, "single_word": false, "lstrip": false,
                    "rstrip": self.right_strip.applies_to(text), "normalized": false, "special": kind != kind::USER_DEFINED,
                })
            })
            .collect()
    }

    /// The post-processor: the special tokens around a text.
    fn template(&self, add_bos: bool, add_eos: bool) -> Value {
        let bos = self.bos.filter(|_| add_bos);
        let eos = self.eos.filter(|_| add_eos);
        if bos.is_none() && eos.is_none() {
            return Value::Null;
        }
        let special = |id: usize| json!({ "SpecialToken": { "id": self.texts[id], "type_id": 0 } });
        let text = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
        let around = |texts: Vec<Value>| -> Vec<Value> {
            bos.map(special).into_iter().chain(texts).chain(eos.map(special)).collect()
        };
        let special_tokens: Map<String, Value> = bos
            .into_iter()
            .chain(eos)
            .map(|id| {
                let text = &self.texts[id];
                (text.clone(), json!({ "id": text, "ids": [id], "tokens": [text] }))
            })
            .collect();
        json!({
            "type": "TemplateProcessing", "single": around(vec![text("A")]),
            "pair": around(vec![text("A"), text("B")]), "special_tokens": special_tokens,
        })
    }
}

/// A `tokenizer_config.json` with the file's chat template and special tokens; `None` if it has no template.
pub(crate) fn chat_config(gguf: &Gguf<'_>) -> Result<Option<Vec<u8>>, BackboneError> {
    if let Some(whole) = gguf.text(CHAT_CONFIG)? {
        return Ok(Some(whole.into_owned().into_bytes()));
    }
    let Some(template) = gguf.text(CHAT_TEMPLATE)? else { return Ok(None) };
    let mut config = json!({ "chat_template": template });
    if let Some(tokens) = gguf.array("tokenizer.ggml.tokens")? {
        for (name, key) in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")] {
            let id = gguf.count(&format!("tokenizer.ggml.{key}_token_id"))?;
            if let Some(token) = id.and_then(|id| tokens.items().nth(id)?.text()) {
                config[format!("{name}_token")] = token.into();
            }
        }
    }
    Ok(Some(config.to_string().into_bytes()))
}

/// The `tokenizer_config.json` of a model's chats, and the template that is used unless another is named; `None` without any
/// template.
pub(crate) fn chat_of(chat: &ChatFiles) -> Option<(String, Option<String>)> {
    let config = chat.tokenizer_config.as_deref();
    let mut config: Value = config.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or(json!({}));
    let keys = config.as_object_mut()?;
    // The file has the first word.
    if let Some(template) = &chat.template {
        keys.insert("chat_template".to_owned(), String::from_utf8_lossy(template).into());
    }
    let template = match keys.get("chat_template")? {
        Value::Null => return None,
        Value::Array(named) => {
            let default = named.iter().find(|item| item.get("name").is_some_and(|name| name == "default"));
            default.and_then(|item| item.get("template")?.as_str()).map(str::to_owned)
        }
        one => one.as_str().map(str::to_owned),
    };
    keys.retain(|key, _| {
        key == "chat_template" || key.ends_with("_token") || key.ends_with("special_tokens")
    });
    Some((config.to_string(), template))
}

/// The `tokenizer.json` of a file, and notices about it.
pub(crate) fn to_json(gguf: &Gguf<'_>) -> Result<(Vec<u8>, Vec<Notice>), BackboneError> {
    if let Some(whole) = gguf.text(HUGGINGFACE_JSON)? {
        return Ok((whole.into_owned().into_bytes(), Vec::new()));
    }
    let model = gguf.text("tokenizer.ggml.model")?;
    let tokens = Tokens::read(gguf)?;
    let parts = match model.as_deref() {
        Some("gpt2") => byte_level_bpe(gguf, &tokens)?,
        Some("llama") => sentencepiece(gguf, &tokens)?,
        other => {
            let found = other.unwrap_or("missing");
            return Err(gguf.wrong(format!("`tokenizer.ggml.model` is {found}; gpt2 and llama are read")));
        }
    };
    let mut file =
        json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens.added() });
    for (key, value) in parts {
        file[key] = value;
    }
    Ok((file.to_string().into_bytes(), inferred::notices(gguf)?))
}

/// Parts of a `tokenizer.json` by their keys.
type Parts = Vec<(&'static str, Value)>;

fn byte_level_bpe(gguf: &Gguf<'_>, tokens: &Tokens) -> Result<Parts, BackboneError> {
    let name = gguf.text("tokenizer.ggml.pre")?.filter(|name| !name.is_empty()).unwrap_or("default".into());
    let pre_tokenizer =
        PRE_TOKENIZERS.iter().find(|entry| entry.names.contains(&&*name)).ok_or_else(|| {
            let known: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|entry| entry.names).copied().collect();
            gguf.wrong(format!(
                "`tokenizer.ggml.pre` is {name}, a way to cut texts that is not known here; known are {}",
                known.join(", ")
            ))
        })?;
    let merges = gguf.array("tokenizer.ggml.merges")?;
    let merges = merges.ok_or_else(|| gguf.wrong("`tokenizer.ggml.merges` is missing"))?;
    let pair = |item: super::Value<'_>| {
        let text = item.text()?;
        // The separating space. In old files one of the two may be a space itself.
        let at = text.char_indices().skip(1).find(|(_, c)| *c == ' ')?.0;
        Some(json!([text[..at], text[at + 1..]]))
    };
    let merges: Option<Vec<Value>> = merges.items().map(pair).collect();
    let merges =
        merges.ok_or_else(|| gguf.wrong("`tokenizer.ggml.merges` holds something else than pairs"))?;
    let add_bos = gguf.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(pre_tokenizer.add_bos);
    let add_eos = gguf.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    Ok(vec![
        ("normalizer", (pre_tokenizer.normalizer)()),
        ("pre_tokenizer", (pre_tokenizer.json)()),
        ("post_processor", tokens.template(add_bos, add_eos)),
        ("decoder", byte_level(true)),
        ("model", bpe(&tokens.vocabulary(), &merges, pre_tokenizer.ignores_merges)),
    ])
}

fn bpe(vocabulary: &Map<String, Value>, merges: &[Value], ignores_merges: bool) -> Value {
    json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "ignore_merges": ignores_merges, "vocab": vocabulary, "merges": merges,
    })
}

fn sentencepiece(gguf: &Gguf<'_>, tokens: &Tokens) -> Result<Parts, BackboneError> {
    let scores = gguf.array("tokenizer.ggml.scores")?;
    let scores = scores.ok_or_else(|| gguf.wrong("`tokenizer.ggml.scores` is missing"))?;
    let scores: Option<Vec<f64>> = scores.items().map(super::Value::number).collect();
    let scores = scores.filter(|scores| scores.len() == tokens.texts.len());
    let scores =
        scores.ok_or_else(|| gguf.wrong("`tokenizer.ggml.scores` is not one number for each token"))?;
    let add_bos = gguf.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(true);
    let add_eos = gguf.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let add_space_prefix = gguf.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
    let mut before = vec![replace];
    let mut after = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if add_space_prefix {
        before.insert(0, json!({ "type": "Prepend", "prepend": SPACE }));
        after.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let mut model = bpe(&tokens.vocabulary(), &merges_from_scores(tokens, &scores), false);
    model["byte_fallback"] = true.into();
    model["fuse_unk"] = true.into();
    let unknown = tokens.unknown.or_else(|| tokens.kinds.iter().position(|&kind| kind == kind::UNKNOWN));
    model["unk_token"] = unknown.map(|id| tokens.texts[id].clone()).into();
    Ok(vec![
        ("normalizer", json!({ "type": "Sequence", "normalizers": before })),
        ("pre_tokenizer", Value::Null),
        ("post_processor", tokens.template(add_bos, add_eos)),
        ("decoder", json!({ "type": "Sequence", "decoders": after })),
        ("model", model),
    ])
}

/// All merges of two pieces into a third, best score first, as in SentencePiece.
fn merges_from_scores(tokens: &Tokens, scores: &[f64]) -> Vec<Value> {
    let ids: HashMap<&str, usize> = tokens
        .texts
        .iter()
        .enumerate()
        .rev()
        .filter(|(id, _)| [kind::NORMAL, kind::USER_DEFINED, kind::UNUSED].contains(&tokens.kinds[*id]))
        .map(|(id, text)| (text.as_str(), id))
        .collect();
    let mut merges: Vec<(usize, usize, usize)> = Vec::new();
    for (&text, &id) in &ids {
        let splits = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
        merges.extend(splits.filter_map(|(left, right)| Some((id, *ids.get(left)?, *ids.get(right)?))));
    }
    let length = |id: usize| tokens.texts[id].chars().count();
    merges.sort_unstable_by(|&(a, a_left, a_right), &(b, b_left, b_right)| {
        let longer = length(b_left).cmp(&length(a_left)).then(length(b_right).cmp(&length(a_right)));
        scores[b].total_cmp(&scores[a]).then(longer).then((a_left, a_right).cmp(&(b_left, b_right)))
    });
    merges.into_iter().map(|(_, left, right)| json!([tokens.texts[left], tokens.texts[right]])).collect()
}

/// A tokenizer in the form of GGUF metadata.
#[derive(Debug, PartialEq)]
pub(crate) struct GgufTokenizer {
    pub(crate) model: &'static str,
    /// The name of its pre-tokenizer.
    pub(crate) pre: &'static str,
    pub(crate) tokens: Vec<String>,
    pub(crate) kinds: Vec<i32>,
    /// For SentencePiece only.
    pub(crate) scores: Option<Vec<f32>>,
    /// For byte-level BPE only.
    pub(crate) merges: Option<Vec<String>>,
    pub(crate) bos: Option<u32>,
    pub(crate) unknown: Option<u32>,
    pub(crate) add_bos: bool,
    pub(crate) add_space_prefix: bool,
}

/// Translates a `tokenizer.json` for programs that read only GGUF metadata; `None` if it can't be expressed.
pub(crate) fn from_json(bytes: &[u8]) -> Option<GgufTokenizer> {
    let file: Value = serde_json::from_slice(bytes).ok()?;
    let model = file.get("model")?;
    let vocabulary = model.get("vocab")?.as_object()?;
    let mut by_id: Vec<(u64, &str)> =
        vocabulary.iter().map(|(text, id)| Some((id.as_u64()?, text.as_str()))).collect::<Option<_>>()?;
    let added = file.get("added_tokens").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let special = |token: &Value| token.get("special").and_then(Value::as_bool).unwrap_or(false);
    let added: Vec<(u64, &str, bool)> = added
        .iter()
        .map(|token| Some((token.get("id")?.as_u64()?, token.get("content")?.as_str()?, special(token))))
        .collect::<Option<_>>()?;
    by_id.extend(
        added.iter().filter(|(_, text, _)| !vocabulary.contains_key(*text)).map(|&(id, text, _)| (id, text)),
    );
    by_id.sort_unstable();
    let n = usize::try_from(by_id.last()?.0).ok()?.checked_add(1).filter(|&n| n <= 8 * by_id.len())?;
    // Numbers without a token are named, so that every token has its own.
    let mut tokens: Vec<String> = (0..n).map(|id| format!("[UNUSED{id}]")).collect();
    let mut kinds = vec![kind::UNUSED; n];
    for (id, text) in by_id {
        tokens[id as usize] = text.to_owned();
        kinds[id as usize] = kind::NORMAL;
    }
    for &(id, _, special) in &added {
        kinds[id as usize] = if special { kind::CONTROL } else { kind::USER_DEFINED };
    }
    let pairs = merges(model)?;
    let sentencepiece = model.get("byte_fallback").and_then(Value::as_bool).unwrap_or(false);
    let normalizer = file.get("normalizer").map(Value::to_string).unwrap_or_default();
    let unknown_text = model.get("unk_token").and_then(Value::as_str);
    let unknown = unknown_text.and_then(|text| u32::try_from(vocabulary.get(text)?.as_u64()?).ok());
    let bos = leading_token(&file);
    let mut tokenizer = GgufTokenizer {
        model: if sentencepiece { "llama" } else { "gpt2" },
        pre: "default",
        tokens,
        kinds,
        scores: None,
        merges: None,
        bos,
        unknown,
        add_bos: bos.is_some(),
        add_space_prefix: normalizer.contains("\"Prepend\""),
    };
    if sentencepiece {
        if let Some(unknown) = unknown {
            tokenizer.kinds[unknown as usize] = kind::UNKNOWN;
        }
        tokenizer.scores = Some(scores(&mut tokenizer, &pairs));
    } else {
        tokenizer.pre =
            PRE_TOKENIZERS.iter().find(|entry| entry.matches(&file)).map(|entry| entry.names[0])?;
        tokenizer.merges = Some(pairs.into_iter().map(|(left, right)| format!("{left} {right}")).collect());
    }
    Some(tokenizer)
}

impl PreTokenizer {
    /// Whether a `tokenizer.json` has this pre-tokenizer.
    fn matches(&self, file: &Value) -> bool {
        let part = |key: &str| file.get(key).cloned().unwrap_or(Value::Null);
        // Offsets are ignored.
        let without_offsets = |mut value: Value| {
            let steps = value.get_mut("pretokenizers").and_then(Value::as_array_mut);
            for step in steps.into_iter().flatten() {
                step.as_object_mut().map(|step| step.remove("trim_offsets"));
            }
            value.as_object_mut().map(|value| value.remove("trim_offsets"));
            value
        };
        without_offsets(part("pre_tokenizer")) == without_offsets((self.json)())
            && part("normalizer") == (self.normalizer)()
    }
}

/// Merges as pairs, from either form.
fn merges(model: &Value) -> Option<Vec<(&str, &str)>> {
    let merges = model.get("merges")?.as_array()?;
    merges
        .iter()
        .map(|merge| match merge {
            Value::String(both) => both.split_once(' '),
            Value::Array(both) => Some((both.first()?.as_str()?, both.get(1)?.as_str()?)),
            _ => None,
        })
        .collect()
}

/// Scores that reproduce the order of the merges: minus the index of the first merge that makes a piece.
fn scores(tokenizer: &mut GgufTokenizer, pairs: &[(&str, &str)]) -> Vec<f32> {
    let mut places: HashMap<String, usize> = HashMap::new();
    for (place, (left, right)) in pairs.iter().enumerate() {
        places.entry(format!("{left}{right}")).or_insert(place);
    }
    let is_byte = |text: &str| text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
    let mut scores = Vec::with_capacity(tokenizer.tokens.len());
    for (text, kind) in tokenizer.tokens.iter().zip(&mut tokenizer.kinds) {
        if is_byte(text) && *kind == kind::NORMAL {
            *kind = kind::BYTE;
        }
        let last = pairs.len();
        scores.push(match *kind {
            kind::NORMAL => -(places.get(text).copied().unwrap_or(last) as f32),
            _ => 0.0,
        });
    }
    scores
}

/// The special token that the template puts first.
fn leading_token(file: &Value) -> Option<u32> {
    let processor = file.get("post_processor")?;
    let steps = processor.get("processors").and_then(Value::as_array);
    let template = match steps {
        Some(steps) => steps.iter().find(|step| step.get("single").is_some())?,
        None => processor,
    };
    let first = template.get("single")?.as_array()?.first()?.get("SpecialToken")?.get("id")?.as_str()?;
    let id = template.get("special_tokens")?.get(first)?.get("ids")?.as_array()?.first()?.as_u64()?;
    u32::try_from(id).ok()
}
