//! Reads a `tokenizer.json`. A BPE model is built from the text directly. The tokenizers crate first makes trees of JSON values
//! of it, which takes seconds for a vocabulary of 262,144 tokens.

use std::fmt;

use ahash::AHashSet;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PaddingParams, PostProcessorWrapper,
    PreTokenizerWrapper, TokenizerBuilder, TruncationParams,
};

/// A tokenizer, and the largest id of its vocabulary without added tokens, if it is known.
pub(super) type Read = (tokenizers::Tokenizer, Option<u32>);

/// Reads a file. What is not understood here is left to the tokenizers crate, which decides and reports what is wrong.
pub(super) fn read(bytes: &[u8]) -> Result<Read, tokenizers::Error> {
    match serde_json::from_slice::<File>(bytes).ok().and_then(|file| file.build().ok()) {
        Some((inner, largest)) => Ok((inner, Some(largest))),
        None => Ok((tokenizers::Tokenizer::from_bytes(bytes)?, None)),
    }
}

/// Reads a file whose BPE model has these lists in place of its own, which are empty. `None`: see [`read`].
pub(super) fn with_lists(bytes: &[u8], vocab: Vec<(String, u32)>, merges: Merges) -> Option<Read> {
    let mut file: File = serde_json::from_slice(bytes).ok()?;
    (file.model.vocab, file.model.merges) = (vocab, merges);
    let (inner, largest) = file.build().ok()?;
    Some((inner, Some(largest)))
}

/// A whole file with a BPE model.
#[derive(Deserialize)]
struct File {
    version: Version,
    truncation: Option<TruncationParams>,
    padding: Option<PaddingParams>,
    #[serde(default)]
    added_tokens: Vec<StoredToken>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    post_processor: Option<PostProcessorWrapper>,
    decoder: Option<DecoderWrapper>,
    model: Model,
}

#[derive(Deserialize)]
enum Version {
    #[serde(rename = "1.0")]
    One,
}

#[derive(Deserialize)]
struct StoredToken {
    #[serde(rename = "id")]
    _id: u32,
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

impl From<StoredToken> for AddedToken {
    fn from(token: StoredToken) -> Self {
        let StoredToken { content, single_word, lstrip, rstrip, normalized, special, .. } = token;
        Self { content, single_word, lstrip, rstrip, normalized, special }
    }
}

#[derive(Deserialize)]
enum Kind {
    #[serde(rename = "BPE")]
    Bpe,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    _kind: Kind,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    #[serde(deserialize_with = "vocabulary")]
    vocab: Vec<(String, u32)>,
    #[serde(deserialize_with = "merges")]
    merges: Merges,
}

impl File {
    fn build(self) -> Result<(tokenizers::Tokenizer, u32), tokenizers::Error> {
        let Version::One = self.version;
        let added = self.added_tokens.iter().map(|token| token.content.as_str());
        let added: AHashSet<&str> = added.filter(|content| !content.is_empty()).collect();
        let learned = self.model.vocab.iter().filter(|(token, _)| !added.contains(token.as_str()));
        let largest = learned.map(|(_, id)| *id).max().unwrap_or(0);
        let mut inner: tokenizers::Tokenizer = TokenizerBuilder::<
            ModelWrapper,
            NormalizerWrapper,
            PreTokenizerWrapper,
            PostProcessorWrapper,
            DecoderWrapper,
        >::new()
        .with_model(self.model.build()?.into())
        .with_normalizer(self.normalizer)
        .with_pre_tokenizer(self.pre_tokenizer)
        .with_post_processor(self.post_processor)
        .with_decoder(self.decoder)
        .with_truncation(self.truncation)
        .with_padding(self.padding)
        .build()?
        .into();
        inner.add_tokens(self.added_tokens.into_iter().map(Into::into))?;
        Ok((inner, largest))
    }
}

impl Model {
    fn build(self) -> Result<BPE, tokenizers::Error> {
        let mut builder = BpeBuilder::new()
            .vocab_and_merges(self.vocab.into_iter().collect::<Vocab>(), self.merges)
            .fuse_unk(self.fuse_unk.unwrap_or(false))
            .byte_fallback(self.byte_fallback.unwrap_or(false))
            .ignore_merges(self.ignore_merges.unwrap_or(false));
        if let Some(dropout) = self.dropout {
            builder = builder.dropout(dropout);
        }
        if let Some(unknown) = self.unk_token {
            builder = builder.unk_token(unknown);
        }
        if let Some(prefix) = self.continuing_subword_prefix {
            builder = builder.continuing_subword_prefix(prefix);
        }
        if let Some(suffix) = self.end_of_word_suffix {
            builder = builder.end_of_word_suffix(suffix);
        }
        builder.build()
    }
}

/// The entries of an object, in their order. Of equal tokens, the last counts.
fn vocabulary<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, u32)>, D::Error> {
    struct All;

    impl<'de> Visitor<'de> for All {
        type Value = Vec<(String, u32)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a vocabulary")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut vocabulary = Vec::new();
            while let Some(entry) = entries.next_entry()? {
                vocabulary.push(entry);
            }
            Ok(vocabulary)
        }
    }

    deserializer.deserialize_map(All)
}

/// The merges, each of them a pair, or all of them lines.
fn merges<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Merges, D::Error> {
    struct All;

    impl<'de> Visitor<'de> for All {
        type Value = Merges;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("merges")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Merges, A::Error> {
            let (mut merges, mut n_lines) = (Vec::new(), 0);
            while let Some(Merge { pair, is_line }) = items.next_element()? {
                merges.push(pair);
                n_lines += usize::from(is_line);
            }
            if n_lines == 0 || n_lines == merges.len() {
                return Ok(merges);
            }
            Err(A::Error::custom("lines among pairs"))
        }
    }

    deserializer.deserialize_seq(All)
}

struct Merge {
    pair: (String, String),
    is_line: bool,
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;

        impl<'de> Visitor<'de> for One {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge")
            }

            fn visit_str<E: Error>(self, line: &str) -> Result<Merge, E> {
                // Comments are for the tokenizers crate.
                let pair = line.split_once(' ').filter(|(_, right)| !right.contains(' '));
                let (left, right) =
                    pair.filter(|_| !line.starts_with("#version")).ok_or_else(|| E::custom("no pair"))?;
                Ok(Merge { pair: (left.to_owned(), right.to_owned()), is_line: true })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Merge, A::Error> {
                match (pair.next_element()?, pair.next_element()?, pair.next_element::<String>()?) {
                    (Some(left), Some(right), None) => Ok(Merge { pair: (left, right), is_line: false }),
                    _ => Err(A::Error::custom("no pair")),
                }
            }
        }

        deserializer.deserialize_any(One)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn file(model: &Value) -> Value {
        json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": { "type": "NFC" }, "pre_tokenizer": null,
            "post_processor": null, "decoder": null, "model": model,
            "added_tokens": [{ "id": 4, "content": "<x>", "single_word": false, "lstrip": false, "rstrip": true,
                               "normalized": false, "special": true }],
        })
    }

    fn model() -> Value {
        json!({
            "type": "BPE", "dropout": null, "unk_token": "?", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": false, "ignore_merges": true,
            "vocab": { "?": 0, "a": 1, "b": 2, "ab": 3, "<x>": 4, " ": 5 }, "merges": [["a", "b"]],
        })
    }

    fn read_value(file: &Value) -> (Option<Read>, Result<tokenizers::Tokenizer, String>) {
        let bytes = file.to_string();
        let own = serde_json::from_str::<File>(&bytes).ok().and_then(|file| file.build().ok());
        let theirs = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| error.to_string());
        (own.map(|(inner, largest)| (inner, Some(largest))), theirs)
    }

    /// The same model as the tokenizers crate makes of a file, part by part.
    #[track_caller]
    fn is_the_same(file: &Value) {
        let (own, theirs) = read_value(file);
        let ((own, largest), theirs) = (own.unwrap(), theirs.unwrap());
        assert_eq!(own.to_string(false).unwrap(), theirs.to_string(false).unwrap());
        let added = theirs.get_added_vocabulary().get_vocab();
        let learned = theirs.get_vocab(false).into_iter().filter(|(token, _)| !added.contains_key(token));
        assert_eq!(largest, learned.map(|(_, id)| id).max());
        for text in ["", "ab", "abxb <x>  b", "ba<x>a"] {
            let ids =
                |tokenizer: &tokenizers::Tokenizer| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
            assert_eq!(ids(&own), ids(&theirs), "{text:?}");
        }
    }

    fn with(key: &str, value: Value) -> Value {
        let mut model = model();
        model[key] = value;
        file(&model)
    }

    #[test]
    fn bpe_models_are_those_of_the_tokenizers_crate() {
        is_the_same(&file(&model()));
        is_the_same(&with("merges", json!(["a b"])));
        is_the_same(&with("merges", json!([])));
        is_the_same(&with("unk_token", Value::Null));
        is_the_same(&with("fuse_unk", json!(false)));
        is_the_same(&with("byte_fallback", json!(true)));
        is_the_same(&with("ignore_merges", Value::Null));
        is_the_same(&with("end_of_word_suffix", json!("b")));
        let mut without = model();
        for key in ["dropout", "unk_token", "ignore_merges", "fuse_unk", "byte_fallback"] {
            without.as_object_mut().unwrap().remove(key);
        }
        is_the_same(&file(&without));
        let mut prefixed = model();
        prefixed["continuing_subword_prefix"] = json!("#");
        prefixed["vocab"]["#b"] = json!(6);
        prefixed["merges"] = json!([["a", "#b"]]);
        is_the_same(&file(&prefixed));
        let mut truncated = file(&model());
        truncated["truncation"] =
            json!({ "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 });
        is_the_same(&truncated);
        // At an end of its range dropout is no chance.
        is_the_same(&with("dropout", json!(1.0)));
        let (own, theirs) = read_value(&with("dropout", json!(0.5)));
        assert_eq!(own.unwrap().0.to_string(false).unwrap(), theirs.unwrap().to_string(false).unwrap());
        // Every tokenizer of the tests that is a BPE.
        for name in ["byte-level", "words-first", "words-legacy"] {
            let path = format!("{}/../../testdata/chat/{name}.json", env!("CARGO_MANIFEST_DIR"));
            let value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            is_the_same(&value);
        }
    }

    #[test]
    fn other_files_are_left_to_the_tokenizers_crate() {
        let differs = |file: Value, is_read: bool| {
            let (own, theirs) = read_value(&file);
            assert!(own.is_none(), "{file}");
            assert_eq!(theirs.is_ok(), is_read, "{file}");
            assert_eq!(read(file.to_string().as_bytes()).is_ok(), is_read, "{file}");
        };
        differs(with("merges", json!(["#version: 0.2", "a b"])), true);
        differs(with("merges", json!(["a b", ["a", "b"]])), false);
        differs(with("merges", json!([["a", "b", "a"]])), false);
        differs(with("merges", json!(["ab"])), false);
        differs(with("merges", json!([["a", "c"]])), false);
        differs(with("vocab", json!({ "a": -1 })), false);
        differs(with("type", json!("WordPiece")), false);
        let words = json!({ "type": "WordLevel", "vocab": { "a": 0 }, "unk_token": "a" });
        differs(file(&words), true);
        let mut untyped = model();
        untyped.as_object_mut().unwrap().remove("type");
        differs(file(&untyped), true);
        let mut other = file(&model());
        other["version"] = json!("2.0");
        differs(other, false);
    }
}
