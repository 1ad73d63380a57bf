//! Translates the tokenizer of a GGUF file into that of a `tokenizer.json`, and back.
//!
//! Two models are read: `gpt2`, byte-level BPE with its merges and a named pre-tokenizer, and `llama`, SentencePiece's BPE,
//! whose merges follow from the scores. A file may also hold the whole `tokenizer.json`, as those that Foreword writes do;
//! then that is the tokenizer, to the byte.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;

use ahash::AHashMap;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Gguf;
use super::inferred::{self, RightStrip};
use super::pre_tokenizers::PreTokenizer;
use crate::error::BackboneError;
use crate::files::ChatFiles;
use crate::notice::Notice;
use crate::tokenizer::patterns::byte_level;
use crate::tokenizer::{Pieces, TokenizerFile, TokenizerLists};

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
/// The tokens of a file and their properties.
struct Tokens<'a> {
    texts: Vec<Cow<'a, str>>,
    kinds: Vec<i32>,
    bos: Option<usize>,
    eos: Option<usize>,
    unknown: Option<usize>,
    right_strip: RightStrip,
}

impl<'a> Tokens<'a> {
    fn read(gguf: &Gguf<'a>) -> Result<Self, BackboneError> {
        let texts = gguf.array("tokenizer.ggml.tokens")?;
        let texts =
            texts.ok_or_else(|| gguf.wrong("`tokenizer.ggml.tokens` is missing: it has no tokenizer"))?;
        let texts: Option<Vec<_>> = texts.items().map(super::Value::text).collect();
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

    /// The first token of each text, in their order and by their texts, of those of some kinds.
    fn first(&self, is_wanted: impl Fn(i32) -> bool) -> (Vec<u32>, AHashMap<&str, u32>) {
        let mut ids = Vec::with_capacity(self.texts.len());
        let mut by_text = AHashMap::with_capacity(self.texts.len());
        for ((text, &kind), id) in self.texts.iter().zip(&self.kinds).zip(0..) {
            if is_wanted(kind) && !by_text.contains_key(&**text) {
                by_text.insert(&**text, id);
                ids.push(id);
            }
        }
        (ids, by_text)
    }

    fn pieces(&self) -> Pieces {
        let mut pieces = Pieces::default();
        self.texts.iter().for_each(|text| pieces.push(text));
        pieces
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
        let special = |id: usize| json!({ "SpecialToken": { "id": &*self.texts[id], "type_id": 0 } });
        let text = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
        let around = |texts: Vec<Value>| -> Vec<Value> {
            bos.map(special).into_iter().chain(texts).chain(eos.map(special)).collect()
        };
        let special_tokens: Map<String, Value> = bos
            .into_iter()
            .chain(eos)
            .map(|id| {
                let text = &*self.texts[id];
                (text.to_owned(), json!({ "id": text, "ids": [id], "tokens": [text] }))
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

/// A `tokenizer.json` without the long lists of its model, which are last in it.
#[derive(Serialize)]
struct TokenizerJson<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<Value>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Bpe<'a>,
}

#[derive(Serialize)]
struct Bpe<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    dropout: (),
    unk_token: Option<&'a str>,
    continuing_subword_prefix: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    #[serde(skip)]
    lists: Lists,
}

/// The long lists of a model.
struct Lists {
    pieces: Pieces,
    vocabulary: Vec<u32>,
    merges: Vec<[u32; 2]>,
}

impl TokenizerJson<'_> {
    fn finish(self) -> serde_json::Result<TokenizerFile> {
        let mut beginning = serde_json::to_vec(&self)?;
        beginning.truncate(beginning.len() - "}}".len());
        let Lists { pieces, vocabulary, merges } = self.model.lists;
        Ok(TokenizerLists { beginning, pieces, vocabulary, merges }.into())
    }
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

/// The tokenizer of a file, and notices about it.
pub(crate) fn read(gguf: &Gguf<'_>) -> Result<(TokenizerFile, Vec<Notice>), BackboneError> {
    if let Some(whole) = gguf.text(HUGGINGFACE_JSON)? {
        return Ok((whole.into_owned().into_bytes().into(), Vec::new()));
    }
    let model = gguf.text("tokenizer.ggml.model")?;
    let tokens = Tokens::read(gguf)?;
    let file = match model.as_deref() {
        Some("gpt2") => byte_level_bpe(gguf, &tokens)?,
        Some("llama") => sentencepiece(gguf, &tokens)?,
        other => {
            let found = other.unwrap_or("missing");
            return Err(gguf.wrong(format!("`tokenizer.ggml.model` is {found}; gpt2 and llama are read")));
        }
    };
    let file = file.finish().map_err(|error| gguf.wrong(format!("its tokenizer: {error}")))?;
    Ok((file, inferred::notices(gguf)?))
}

fn byte_level_bpe<'a>(gguf: &Gguf<'a>, tokens: &'a Tokens<'a>) -> Result<TokenizerJson<'a>, BackboneError> {
    let pre_tokenizer = PreTokenizer::named_in(gguf)?;
    let merges = gguf.array("tokenizer.ggml.merges")?;
    let merges = merges.ok_or_else(|| gguf.wrong("`tokenizer.ggml.merges` is missing"))?;
    let pair = |item: super::Value<'a>| -> Option<(&'a str, &'a str)> {
        let super::Value::Text(bytes) = item else { return None };
        let text = std::str::from_utf8(bytes).ok()?;
        // The separating space. In old files one of the two may be a space itself.
        let at = text.char_indices().skip(1).find(|(_, c)| *c == ' ')?.0;
        Some((&text[..at], &text[at + 1..]))
    };
    let merges: Option<Vec<_>> = merges.items().map(pair).collect();
    let merges =
        merges.ok_or_else(|| gguf.wrong("`tokenizer.ggml.merges` holds something else than pairs"))?;
    let add_bos = gguf.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(pre_tokenizer.add_bos);
    let add_eos = gguf.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    Ok(TokenizerJson {
        normalizer: (pre_tokenizer.normalizer)(),
        pre_tokenizer: (pre_tokenizer.json)(),
        post_processor: tokens.template(add_bos, add_eos),
        decoder: byte_level(true),
        ..tokens.json(Bpe {
            ignore_merges: pre_tokenizer.ignores_merges,
            ..tokens.bpe(merges_of_pairs(tokens, &merges))
        })
    })
}

impl<'a> Tokens<'a> {
    /// A model with these lists.
    fn bpe(&self, lists: Lists) -> Bpe<'a> {
        Bpe {
            kind: "BPE",
            dropout: (),
            unk_token: None,
            continuing_subword_prefix: (),
            end_of_word_suffix: (),
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: false,
            lists,
        }
    }

    /// A file with this model.
    fn json(&self, model: Bpe<'a>) -> TokenizerJson<'a> {
        TokenizerJson {
            version: "1.0",
            truncation: (),
            padding: (),
            added_tokens: self.added(),
            normalizer: Value::Null,
            pre_tokenizer: Value::Null,
            post_processor: Value::Null,
            decoder: Value::Null,
            model,
        }
    }
}

fn sentencepiece<'a>(gguf: &Gguf<'a>, tokens: &'a Tokens<'a>) -> Result<TokenizerJson<'a>, BackboneError> {
    let scores = gguf.array("tokenizer.ggml.scores")?;
    let scores = scores.ok_or_else(|| gguf.wrong("`tokenizer.ggml.scores` is missing"))?;
    let scores: Option<Vec<f64>> = scores.items().map(super::Value::rough_number).collect();
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
    let unknown = tokens.unknown.or_else(|| tokens.kinds.iter().position(|&kind| kind == kind::UNKNOWN));
    // Of tokens with the same text the first is in the vocabulary.
    let (merges, (pieces, (vocabulary, _))) =
        rayon::join(|| merges_from_scores(tokens, &scores), || (tokens.pieces(), tokens.first(|_| true)));
    let lists = Lists { pieces, vocabulary, merges };
    let model = Bpe {
        unk_token: unknown.map(|id| &*tokens.texts[id]),
        fuse_unk: true,
        byte_fallback: true,
        ..tokens.bpe(lists)
    };
    Ok(TokenizerJson {
        normalizer: json!({ "type": "Sequence", "normalizers": before }),
        post_processor: tokens.template(add_bos, add_eos),
        decoder: json!({ "type": "Sequence", "decoders": after }),
        ..tokens.json(model)
    })
}

/// Lists with these merges, whose texts are tokens, or are added to the pieces.
fn merges_of_pairs(tokens: &Tokens<'_>, pairs: &[(&str, &str)]) -> Lists {
    let ((vocabulary, ids), mut pieces) = rayon::join(|| tokens.first(|_| true), || tokens.pieces());
    let mut id = |text: &str| {
        ids.get(text).copied().unwrap_or_else(|| {
            pieces.push(text);
            (pieces.len() - 1) as u32
        })
    };
    let merges = pairs.iter().map(|(left, right)| [id(left), id(right)]).collect();
    Lists { pieces, vocabulary, merges }
}

/// All merges of two pieces into a third, best score first, as in SentencePiece.
fn merges_from_scores(tokens: &Tokens<'_>, scores: &[f64]) -> Vec<[u32; 2]> {
    let is_piece = |kind| [kind::NORMAL, kind::USER_DEFINED, kind::UNUSED].contains(&kind);
    let (pieces, ids) = tokens.first(is_piece);
    let lengths: Vec<u32> = tokens.texts.par_iter().map(|text| text.chars().count() as u32).collect();
    // Of scores as of pieces with the same score: the best first, then the longest on the left, then on the right.
    let key = |id: u32, [left, right]: [u32; 2]| {
        let length = |id: u32| Reverse(lengths[id as usize]);
        (Reverse(ordered(scores[id as usize])), length(left), length(right), left, right)
    };
    let text = |id: u32| &*tokens.texts[id as usize];
    let splits = Splits::of(&ids, pieces.iter().map(|&id| text(id)));
    let merges = pieces.par_chunks(1 << 12).map(|pieces| {
        let (mut merges, mut places) = (Vec::new(), Vec::new());
        for &id in pieces {
            splits.of_text(text(id), &mut places, |halves| merges.push(key(id, halves)));
        }
        merges
    });
    let mut merges = merges.collect::<Vec<_>>().concat();
    merges.par_sort_unstable();
    merges.into_par_iter().map(|(.., left, right)| [left, right]).collect()
}

/// Splits texts into two pieces. Most halves are no piece, and a bit of their hash says so sooner than the table, which is larger
/// than a cache. The hashes of all left halves take one pass over a text, those of all right halves one from its end.
struct Splits<'a> {
    ids: &'a AHashMap<&'a str, u32>,
    lefts: Vec<u64>,
    rights: Vec<u64>,
    /// Which bits of a hash are the number of its bit.
    shift: u32,
}

impl<'a> Splits<'a> {
    fn of(ids: &'a AHashMap<&'a str, u32>, pieces: impl Iterator<Item = &'a str>) -> Self {
        let n_bits = (16 * ids.len()).next_power_of_two().max(64);
        let shift = u64::BITS - n_bits.trailing_zeros();
        let (mut lefts, mut rights) = (vec![0u64; n_bits / 64], vec![0u64; n_bits / 64]);
        for text in pieces {
            for (bits, hash) in
                [(&mut lefts, text.bytes().fold(0, mix)), (&mut rights, text.bytes().rev().fold(0, mix))]
            {
                let bit = hash >> shift;
                bits[(bit / 64) as usize] |= 1 << (bit % 64);
            }
        }
        Self { ids, lefts, rights, shift }
    }

    /// Whether a half with this hash can be a piece.
    fn can_be(&self, bits: &[u64], hash: u64) -> bool {
        let bit = hash >> self.shift;
        bits[(bit / 64) as usize] >> (bit % 64) & 1 == 1
    }

    /// Calls `found` with both ids of every split of a text; `places` is memory to use again.
    fn of_text(&self, text: &str, places: &mut Vec<usize>, mut found: impl FnMut([u32; 2])) {
        let bytes = text.as_bytes();
        let mut hash = 0;
        places.clear();
        for at in (1..bytes.len()).rev() {
            hash = mix(hash, bytes[at]);
            if self.can_be(&self.rights, hash) && text.is_char_boundary(at) {
                places.push(at);
            }
        }
        let (mut hash, mut start) = (0, 0);
        for &at in places.iter().rev() {
            hash = bytes[start..at].iter().copied().fold(hash, mix);
            start = at;
            if !self.can_be(&self.lefts, hash) {
                continue;
            }
            let (left, right) = text.split_at(at);
            if let (Some(&left), Some(&right)) = (self.ids.get(left), self.ids.get(right)) {
                found([left, right]);
            }
        }
    }
}

/// The hash of a text with one more byte; its upper bits are well mixed.
fn mix(hash: u64, byte: u8) -> u64 {
    (hash.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// An integer that is larger for a larger number, in the order of [`f64::total_cmp`].
fn ordered(number: f64) -> i64 {
    let bits = number.to_bits().cast_signed();
    bits ^ (((bits >> 63).cast_unsigned()) >> 1).cast_signed()
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
        tokenizer.pre = PreTokenizer::of(&file)?.names[0];
        tokenizer.merges = Some(pairs.into_iter().map(|(left, right)| format!("{left} {right}")).collect());
    }
    Some(tokenizer)
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
