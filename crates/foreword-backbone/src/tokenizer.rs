//! Text to token ids and back: a model's `tokenizer.json`, for contexts that labels are appended to.
//!
//! A context is tokenised whole, and keeps the special tokens that the model wants in front of it (BOS) but not those
//! that would close it. A label or target is tokenised with its context as one text, which is the business of whoever knows
//! both. `encode_joined` and `encode_verbatim` tokenise it on its own, as prompts of earlier versions were trained.

pub(crate) mod added_tokens;
mod file;
mod marked;
pub(crate) mod patterns;
mod read;
pub(crate) mod vocab_files;
mod vocabulary;

use file::FileDigest;
pub use file::TokenizerFile;
pub(crate) use file::{Pieces, TokenizerLists};
pub use marked::MarkedText;

use rayon::prelude::*;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::{Encoding, ModelWrapper};

/// The error for files on which the tokenizers crate panics.
const CONTRADICTORY: &str = "the parts of tokenizer.json contradict each other";

thread_local!(static GUARDED: Cell<bool> = const { Cell::new(false) });

/// Whether a panic on this thread is caused by a damaged `tokenizer.json` and becomes a [`TokenizerError`]. A panic hook
/// should ignore it.
#[must_use]
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// Runs code of the tokenizers crate. On some damaged files it panics, while reading them or later at a text, which becomes
/// an error. (A stack overflow or an endless loop can't be caught.)
fn guarded<T>(work: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, tokenizers::Error> {
    let before = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    done.unwrap_or_else(|_| Err(CONTRADICTORY.into()))
}

/// Texts tokenised at load, to find what the tokenizer adds around a text. Several, for small vocabularies.
const PROBE_WORDS: [&str; 6] = ["a", "the", "yes", "0", "x", "A"];

/// Errors of tokenizers and their inputs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The bytes are not a `tokenizer.json`.
    #[error("not a tokenizer.json that can be read: {reason}")]
    Invalid {
        /// The parser's message.
        reason: String,
    },
    /// A text could not be tokenised.
    #[error("the text {text:?} cannot be tokenised: {reason}")]
    Encode {
        /// The beginning of the text.
        text: String,
        /// The tokenizer's message.
        reason: String,
    },
    /// Token ids could not be turned into text.
    #[error("{n_tokens} token ids cannot be turned into text: {reason}")]
    Decode {
        /// Number of ids.
        n_tokens: usize,
        /// The tokenizer's message.
        reason: String,
    },
    /// A text has a token that was added to the tokenizer but not to the model.
    #[error(
        "the text {text:?} has the token {token:?} with number {id}, but the model embeds only {model}, from 0: give the model \
         rows for its added tokens (`model.resize_token_embeddings(len(tokenizer))` in Python), or leave the token out"
    )]
    NoEmbedding {
        /// The beginning of the text.
        text: String,
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the embedding table.
        model: usize,
    },
}

/// A model's tokenizer. Truncation, padding and BPE dropout are off, whatever the file states.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The largest id of the vocabulary without added tokens, if it is known.
    largest_learned: Option<u32>,
    leading: Vec<u32>,
    adds_space: bool,
    anchor: Option<Anchor>,
    /// The file that it was read from, for its digest.
    digest: FileDigest,
    /// Ids from here on have no embedding and are refused.
    rows: usize,
}

/// A token with its text. Decoders strip the space before a text's first token; decoding after this token keeps it.
#[derive(Debug)]
struct Anchor {
    id: u32,
    text: String,
}

impl Tokenizer {
    /// Reads the bytes of a `tokenizer.json`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        Self::from_inner(|| read::read(bytes), FileDigest::of_bytes(bytes))
    }

    /// Reads a model's tokenizer.
    pub fn of(file: &TokenizerFile) -> Result<Self, TokenizerError> {
        Self::from_inner(|| file.read(), file.file_digest())
    }

    fn from_inner(
        read: impl FnOnce() -> Result<read::Read, tokenizers::Error>,
        digest: FileDigest,
    ) -> Result<Self, TokenizerError> {
        let invalid = |reason: tokenizers::Error| TokenizerError::Invalid { reason: reason.to_string() };
        let inner = guarded(|| {
            let (mut inner, largest) = read()?;
            inner.with_truncation(None)?;
            inner.with_padding(None);
            if let ModelWrapper::BPE(bpe) = inner.get_model()
                && bpe.dropout.is_some()
            {
                let mut bpe = bpe.clone();
                bpe.dropout = None;
                inner.with_model(bpe);
            }
            Ok((inner, largest))
        });
        let (inner, largest_learned) = inner.map_err(invalid)?;
        let mut tokenizer = Self {
            inner,
            largest_learned,
            leading: Vec::new(),
            adds_space: false,
            anchor: None,
            digest,
            rows: usize::MAX,
        };
        tokenizer.leading = tokenizer.probe_leading()?;
        tokenizer.adds_space = tokenizer.probe_added_space()?;
        tokenizer.anchor = tokenizer.probe_anchor()?;
        Ok(tokenizer)
    }

    /// The tokens of a context, with leading special tokens and without trailing ones. Special tokens in the text itself are
    /// kept.
    pub fn encode_context(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.without_trailing(&self.encoding(text, true)?))
    }

    /// `encode_context` of every text, in their order, on all cores.
    pub fn encode_contexts(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, TokenizerError> {
        texts.par_iter().map(|text| self.encode_context(text)).collect()
    }

    /// The tokens of a string that follows a context, such as a label, without special tokens. If the tokenizer adds a space
    /// before every text, the string's own is removed, so that " positive" is the one token "▁positive" and not a space and
    /// then "▁positive".
    pub fn encode_joined(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_plain(if self.adds_space { text.strip_prefix(' ').unwrap_or(text) } else { text })
    }

    /// The tokens of a string that follows a context with no space added: "positive" is tokenised as after a line break, like
    /// an answer in a chat.
    pub fn encode_verbatim(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if text.starts_with(' ') {
            return self.encode_joined(text);
        }
        let (before, both) = (self.encode_plain("\n")?, self.encode_plain(&format!("\n{text}"))?);
        match both.strip_prefix(before.as_slice()) {
            Some(tokens) if !before.is_empty() => Ok(tokens.to_vec()),
            _ => self.encode_plain(text),
        }
    }

    /// The tokens of a text on its own, without special tokens.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.encoding(text, false)?.get_ids().to_vec())
    }

    /// The text of these tokens. Special tokens and unknown ids are omitted.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.decode_with(ids, true)
    }

    /// The text of tokens that follow others, with the leading space that decoders strip from a text's first token.
    pub fn decode_joined(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let Some(anchor) = &self.anchor else { return self.decode(ids) };
        let text = self.decode_with(&[&[anchor.id], ids].concat(), true)?;
        Ok(text.strip_prefix(&anchor.text).map(str::to_owned).unwrap_or(text))
    }

    /// One token as a person would write it: `" positive"`, `"ing"`, `"<s>"`. A token that is only a part of a character is
    /// shown as the vocabulary spells it (`"Ã"`, `"<0xC3>"`). `None` for an id that the vocabulary does not have.
    pub fn token(&self, id: u32) -> Option<String> {
        let spelled = self.inner.id_to_token(id)?;
        if self.inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id) {
            return Some(spelled);
        }
        let text = match &self.anchor {
            Some(anchor) => {
                let joined = self.decode_with(&[anchor.id, id], false).ok()?;
                joined.strip_prefix(&anchor.text).map(str::to_owned)
            }
            None => self.decode_with(&[id], false).ok(),
        };
        Some(text.filter(|text| !text.is_empty() && !text.contains('\u{fffd}')).unwrap_or(spelled))
    }

    /// The special token that begins every context, if this tokenizer adds one.
    pub fn bos(&self) -> Option<u32> {
        self.leading.first().copied()
    }

    /// All special tokens that `encode_context` puts before a text, even an empty one.
    pub fn leading(&self) -> &[u32] {
        &self.leading
    }

    /// How many tokens there are, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The largest id of any token; ids may have gaps.
    pub fn largest_id(&self) -> u32 {
        self.inner.get_vocab(true).into_values().max().unwrap_or(0)
    }

    /// `sha256:` and the hexadecimal SHA-256 of the bytes of its `tokenizer.json`.
    pub fn digest(&self) -> &str {
        self.digest.get()
    }

    fn encoding(&self, text: &str, with_special: bool) -> Result<Encoding, TokenizerError> {
        let encoding = guarded(|| self.inner.encode_fast(text, with_special));
        let encoding = encoding.map_err(|reason| not_encoded(text, &reason))?;
        self.check_embedded(text, encoding.get_ids())?;
        Ok(encoding)
    }

    fn without_trailing(&self, encoding: &Encoding) -> Vec<u32> {
        let is_special = encoding.get_special_tokens_mask();
        let text_end = is_special.iter().rposition(|&special| special == 0).map_or(0, |last| last + 1);
        let ids = encoding.get_ids();
        // An empty text has only special tokens: keep the leading ones.
        let end = text_end.max(self.leading.len()).min(ids.len());
        ids[..end].to_vec()
    }

    fn decode_with(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        guarded(|| self.inner.decode(ids, skip_special))
            .map_err(|reason| TokenizerError::Decode { n_tokens: ids.len(), reason: reason.to_string() })
    }

    /// The special tokens before a text that has tokens of its own.
    fn probe_leading(&self) -> Result<Vec<u32>, TokenizerError> {
        for word in PROBE_WORDS {
            let encoding = self.encoding(word, true)?;
            if let Some(n) = encoding.get_special_tokens_mask().iter().position(|&special| special == 0) {
                return Ok(encoding.get_ids()[..n].to_vec());
            }
        }
        Ok(Vec::new())
    }

    /// Whether a word alone already has the space in front that it has after another word.
    fn probe_added_space(&self) -> Result<bool, TokenizerError> {
        for before in PROBE_WORDS {
            for word in PROBE_WORDS {
                let alone = self.encode_plain(word)?;
                let spaced = self.encode_plain(&format!(" {word}"))?;
                let after = self.encode_plain(&format!("{before} {word}"))?;
                let joined = after.strip_prefix(self.encode_plain(before)?.as_slice());
                match joined {
                    // Both forms are the same tokens: no evidence.
                    _ if alone == spaced => {}
                    Some(joined) if joined == spaced => return Ok(false),
                    Some(joined) if joined == alone => return Ok(true),
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    fn probe_anchor(&self) -> Result<Option<Anchor>, TokenizerError> {
        for word in PROBE_WORDS {
            if let Some(&id) = self.encode_plain(word)?.last() {
                let text = self.decode_with(&[id], false)?;
                if !text.is_empty() && !text.contains('\u{fffd}') {
                    return Ok(Some(Anchor { id, text }));
                }
            }
        }
        Ok(None)
    }
}

fn not_encoded(text: &str, reason: &dyn std::fmt::Display) -> TokenizerError {
    TokenizerError::Encode { text: text.chars().take(40).collect(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Path, PathBuf};

    fn workspace() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    fn tiny() -> Tokenizer {
        let bytes = std::fs::read(workspace().join("crates/foreword-tiny/tokenizer.json")).unwrap();
        Tokenizer::from_bytes(&bytes).unwrap()
    }

    /// A tokenizer beside the workspace, where there is one.
    fn shared(name: &str) -> Option<Tokenizer> {
        let path = workspace().join("../shared").join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Some(Tokenizer::from_bytes(&bytes).unwrap()),
            Err(_) => {
                eprintln!("skipped: {} is not here", path.display());
                None
            }
        }
    }

    /// A word-piece-like model of a few words, with the given parts.
    fn small(vocab: &[&str], parts: &serde_json::Value) -> Tokenizer {
        let vocab: serde_json::Map<_, _> =
            vocab.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
        let mut file = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                       "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                       "vocab": vocab, "merges": [] }
        });
        for (key, value) in parts.as_object().unwrap() {
            file[key] = value.clone();
        }
        Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn byte_level_labels_keep_their_space_and_contexts_begin_with_bos() {
        let tokenizer = tiny();
        assert_eq!(tokenizer.leading(), [1]);
        assert_eq!(tokenizer.bos(), Some(1));
        assert_eq!(tokenizer.vocab_size(), 8192);
        assert_eq!(tokenizer.encode_context("").unwrap(), [1]);
        let label = tokenizer.encode_joined(" positive").unwrap();
        assert_eq!(label.len(), 1);
        assert_eq!(tokenizer.token(label[0]).unwrap(), " positive");
        assert_eq!(tokenizer.token(1).unwrap(), "<s>");
        assert_eq!(tokenizer.token(1 << 20), None);
        assert_eq!(
            tokenizer.decode(&tokenizer.encode_context("Très bien,\n 好").unwrap()).unwrap(),
            "Très bien,\n 好"
        );
        assert!(tokenizer.digest().starts_with("sha256:") && tokenizer.digest().len() == 71);
    }

    #[test]
    fn joined_labels_are_what_the_whole_text_gives() {
        let tokenizers = [
            Some(tiny()),
            shared("models/stories260K/tokenizer.json"),
            shared("tokenizers/t5/tokenizer.json"),
        ];
        for tokenizer in tokenizers.iter().flatten() {
            let check = |context: &str, label: &str, tokens: Vec<u32>| {
                let mut joined = tokenizer.encode_context(context).unwrap();
                joined.extend(tokens);
                assert_eq!(joined, tokenizer.encode_context(&format!("{context}{label}")).unwrap());
            };
            for label in [" positive", " no", " yes indeed"] {
                check("Was it good? Answer:", label, tokenizer.encode_joined(label).unwrap());
                check("Was it good? Answer:", label, tokenizer.encode_verbatim(label).unwrap());
            }
            for label in ["positive", "no", "Yes"] {
                check("Was it good?\n", label, tokenizer.encode_verbatim(label).unwrap());
            }
        }
    }

    #[test]
    fn a_prepending_normalizer_is_found_by_probing() {
        let Some(tokenizer) = shared("models/stories260K/tokenizer.json") else { return };
        assert!(tokenizer.adds_space);
        assert_eq!(tokenizer.encode_joined(" little").unwrap(), tokenizer.encode_plain("little").unwrap());
        assert_eq!(tokenizer.leading(), [1]);
        let id = *tokenizer.encode_joined(" the").unwrap().first().unwrap();
        assert_eq!(tokenizer.token(id).unwrap(), " the");
    }

    #[test]
    fn stored_truncation_and_padding_are_off_and_trailing_special_tokens_go() {
        let Some(tokenizer) = shared("tokenizers/t5/tokenizer.json") else { return };
        let ids = tokenizer.encode_context("a sentence that is longer than three tokens").unwrap();
        assert!(ids.len() > 3);
        assert_ne!(ids.last(), Some(&1), "the closing </s> goes");
        assert_eq!(tokenizer.bos(), None);
        assert_eq!(tokenizer.encode_context("").unwrap(), [0_u32; 0]);
        let with_own = tokenizer.encode_context("one</s> two</s>").unwrap();
        assert_eq!(with_own.iter().filter(|&&id| id == 1).count(), 2, "the text's own stay");
    }

    #[test]
    fn a_separate_space_token_is_not_an_added_space() {
        let vocab = ["a", "x", "0", "A", "t", "h", "e", "y", "s", " "];
        let split = serde_json::json!({
            "pre_tokenizer": { "type": "Split", "pattern": { "String": " " }, "behavior": "Isolated", "invert": false }
        });
        assert_eq!(small(&vocab, &split).encode_joined(" a").unwrap(), [9, 0]);
    }

    #[test]
    fn metaspace_and_prefix_space_byte_level_join_as_one_token() {
        let metaspace = serde_json::json!({
            "pre_tokenizer": { "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true }
        });
        let tokenizer = small(&["a", "x", "▁"], &metaspace);
        assert_eq!(tokenizer.encode_joined(" a").unwrap(), [2, 0]);
        assert_eq!(tokenizer.encode_joined(" a").unwrap(), tokenizer.encode_plain("a").unwrap());
        let byte_level = serde_json::json!({
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true }
        });
        let tokenizer = small(&["a", "x", "Ġ"], &byte_level);
        assert_eq!(tokenizer.encode_joined(" a").unwrap(), [2, 0]);
    }

    #[test]
    fn dropout_in_the_file_is_off() {
        let parts = serde_json::json!({
            "model": { "type": "BPE", "dropout": 0.9, "unk_token": null, "continuing_subword_prefix": null,
                       "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                       "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": ["a b"] }
        });
        let tokenizer = small(&[], &parts);
        assert!((0..64).all(|_| tokenizer.encode_plain("ab").unwrap() == [2]));
    }

    #[test]
    fn garbage_is_an_error() {
        for bytes in [b"".as_slice(), b"{}", b"[1,2]", b"\xff\xfe", br#"{"version":"1.0","model":{}}"#] {
            assert!(matches!(Tokenizer::from_bytes(bytes), Err(TokenizerError::Invalid { .. })));
        }
    }

    #[test]
    fn what_the_tokenizers_crate_panics_over_is_an_error() {
        // A map of characters without its first entry, which every search begins with.
        let empty = serde_json::json!({
            "normalizer": { "type": "Precompiled", "precompiled_charsmap": "AAAAAA==" }
        });
        let file = |parts: &serde_json::Value| {
            let mut file = serde_json::json!({
                "version": "1.0", "model": { "type": "BPE", "vocab": { "a": 0 }, "merges": [] }
            });
            file["normalizer"] = parts["normalizer"].clone();
            Tokenizer::from_bytes(file.to_string().as_bytes())
        };
        let message = file(&empty).unwrap_err().to_string();
        assert!(message.contains(CONTRADICTORY), "{message}");
        assert!(!is_guarded());
        assert!(file(&serde_json::json!({ "normalizer": { "type": "NFC" } })).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn a_batch_gives_what_its_texts_give(texts in proptest::collection::vec(".{0,60}", 0..40)) {
            let tokenizer = tiny();
            let single: Vec<_> = texts.iter().map(|text| tokenizer.encode_context(text).unwrap()).collect();
            prop_assert_eq!(tokenizer.encode_contexts(&texts).unwrap(), single);
        }
    }
}
