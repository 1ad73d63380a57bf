//! The file of a tokenizer: a `tokenizer.json`, or what one can be written from, which is read much sooner than its text.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::read::{self, Read};
use crate::digest;

/// A `tokenizer.json`. Clones share it.
#[derive(Clone, Debug)]
pub struct TokenizerFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    content: Content,
    digest: OnceLock<String>,
}

#[derive(Debug)]
enum Content {
    Json(Vec<u8>),
    Lists(TokenizerLists),
}

impl From<Vec<u8>> for TokenizerFile {
    /// The bytes of a `tokenizer.json`.
    fn from(json: Vec<u8>) -> Self {
        Self::of(Content::Json(json))
    }
}

impl From<TokenizerLists> for TokenizerFile {
    fn from(lists: TokenizerLists) -> Self {
        Self::of(Content::Lists(lists))
    }
}

impl TokenizerFile {
    fn of(content: Content) -> Self {
        Self(Arc::new(Inner { content, digest: OnceLock::new() }))
    }

    /// Its bytes. If the model has no such file, they are written.
    #[must_use]
    pub fn json(&self) -> Cow<'_, [u8]> {
        match &self.0.content {
            Content::Json(json) => json.into(),
            Content::Lists(lists) => lists.json().into(),
        }
    }

    /// `sha256:` and the hexadecimal SHA-256 of its bytes.
    #[must_use]
    pub fn digest(&self) -> &str {
        let digest = &self.0.digest;
        match &self.0.content {
            Content::Json(json) => digest.get_or_init(|| of_bytes(json)),
            Content::Lists(lists) => digest.get().unwrap_or_else(|| {
                // Outside of the lock: while it waits for others, this thread may take work that asks for the same.
                let made = of_bytes(&lists.json());
                digest.get_or_init(|| made)
            }),
        }
    }

    /// The digest, computed now if it is the bytes that would have to be kept for it.
    pub(super) fn file_digest(&self) -> FileDigest {
        match self.0.content {
            Content::Json(_) => FileDigest::Known(self.digest().to_owned()),
            Content::Lists(_) => FileDigest::Of(self.clone()),
        }
    }

    pub(super) fn read(&self) -> Result<Read, tokenizers::Error> {
        let of_lists = match &self.0.content {
            Content::Json(_) => None,
            Content::Lists(lists) => lists.read(),
        };
        // If the lists contradict each other, the error is that of the file.
        of_lists.map_or_else(|| read::read(&self.json()), Ok)
    }
}

fn of_bytes(bytes: &[u8]) -> String {
    digest::hex(Sha256::new_with_prefix(bytes))
}

/// The digest of a tokenizer's file.
#[derive(Debug)]
pub(super) enum FileDigest {
    Known(String),
    Of(TokenizerFile),
}

impl FileDigest {
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        Self::Known(of_bytes(bytes))
    }

    pub(super) fn get(&self) -> &str {
        match self {
            Self::Known(digest) => digest,
            Self::Of(file) => file.digest(),
        }
    }
}

/// Many short texts in one.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    text: String,
    ends: Vec<usize>,
}

impl Pieces {
    pub(crate) fn push(&mut self, piece: &str) {
        self.text.push_str(piece);
        self.ends.push(self.text.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, at: u32) -> &str {
        let at = at as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.text[start..self.ends[at]]
    }
}

/// A `tokenizer.json` with a BPE model, whose long lists are numbers of pieces.
#[derive(Debug)]
pub(crate) struct TokenizerLists {
    /// The file without them, up to the end of its model, which is last in it.
    pub(crate) beginning: Vec<u8>,
    /// The tokens by their ids, then texts that are only in merges.
    pub(crate) pieces: Pieces,
    /// The ids of the tokens that are in the vocabulary.
    pub(crate) vocabulary: Vec<u32>,
    pub(crate) merges: Vec<[u32; 2]>,
}

impl TokenizerLists {
    /// The file.
    fn json(&self) -> Vec<u8> {
        let mut file = self.beginning.clone();
        file.extend(b",\"vocab\":{");
        append(&mut file, &self.vocabulary, |&id, part| {
            quote(self.pieces.get(id), part);
            part.push(b':');
            part.extend(id.to_string().into_bytes());
        });
        file.extend(b"},\"merges\":[");
        append(&mut file, &self.merges, |&[left, right], part| {
            part.push(b'[');
            quote(self.pieces.get(left), part);
            part.push(b',');
            quote(self.pieces.get(right), part);
            part.push(b']');
        });
        file.extend(b"]}}");
        file
    }

    /// What [`read::read`] makes of the file; `None` if it would leave it to the tokenizers crate.
    fn read(&self) -> Option<Read> {
        let file = [&self.beginning, &b",\"vocab\":{},\"merges\":[]}}"[..]].concat();
        let text = |at: u32| self.pieces.get(at).to_owned();
        let vocabulary = self.vocabulary.iter().map(|&id| (text(id), id)).collect();
        let merges = self.merges.iter().map(|&[left, right]| (text(left), text(right))).collect();
        read::with_lists(&file, vocabulary, merges)
    }
}

/// Appends items, separated by commas, which are written in parts at the same time.
fn append<T: Sync>(file: &mut Vec<u8>, items: &[T], write: impl Fn(&T, &mut Vec<u8>) + Sync) {
    let parts = items.par_chunks(1 << 14).map(|items| {
        let mut part = Vec::new();
        for item in items {
            write(item, &mut part);
            part.push(b',');
        }
        part
    });
    for part in parts.collect::<Vec<_>>() {
        file.extend(part);
    }
    if !items.is_empty() {
        file.pop();
    }
}

/// Appends a text as JSON.
fn quote(text: &str, to: &mut Vec<u8>) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        to.extend(serde_json::Value::from(text).to_string().into_bytes());
        return;
    }
    to.push(b'"');
    to.extend(text.as_bytes());
    to.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;

    fn lists(tokens: &[&str], merges: &[[u32; 2]], only_in_merges: &[&str]) -> TokenizerFile {
        let file = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": { "type": "NFC" }, "pre_tokenizer": null,
            "post_processor": null, "decoder": null, "added_tokens": [],
            "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                       "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false },
        });
        let mut beginning = file.to_string().into_bytes();
        beginning.truncate(beginning.len() - 2);
        let mut pieces = Pieces::default();
        tokens.iter().chain(only_in_merges).for_each(|token| pieces.push(token));
        let vocabulary = (0..tokens.len() as u32).collect();
        TokenizerLists { beginning, pieces, vocabulary, merges: merges.to_vec() }.into()
    }

    #[test]
    fn lists_are_the_tokenizer_of_the_file_that_is_written_from_them() {
        let tokens = [
            "a",
            "\"",
            "\\",
            "a\"",
            "\n",
            "\u{1}",
            "\u{7f}",
            "é",
            "éa",
            "好",
            "",
            "\u{2028}",
            "/",
            "\t\u{8}\u{c}\r",
        ];
        let file = lists(&tokens, &[[0, 1], [7, 0]], &[]);
        let json = file.json();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(String::from_utf8_lossy(&json), value.to_string());
        assert_eq!(value["model"]["vocab"].as_object().unwrap().len(), tokens.len());
        assert_eq!(value["model"]["merges"], serde_json::json!([["a", "\""], ["é", "a"]]));
        let TokenizerFile(inner) = &file;
        let Content::Lists(own) = &inner.content else { panic!("these are lists") };
        let ((own, largest), (theirs, same)) = (own.read().unwrap(), read::read(&json).unwrap());
        assert_eq!(largest, same);
        assert_eq!(own.to_string(false).unwrap(), theirs.to_string(false).unwrap());
        let [own, theirs] = [Tokenizer::of(&file), Tokenizer::from_bytes(&json)].map(Result::unwrap);
        for text in ["éa", "a\"aé", "好\n\u{1}/"] {
            assert_eq!(own.encode_plain(text).unwrap(), theirs.encode_plain(text).unwrap(), "{text:?}");
        }
        assert_eq!(own.encode_plain("éaa\"").unwrap(), [8, 3]);
        assert_eq!((own.digest(), file.digest()), (theirs.digest(), theirs.digest()));
        assert_eq!(TokenizerFile::from(json.clone().into_owned()).digest(), theirs.digest());
    }

    #[test]
    fn a_merge_without_a_token_is_the_error_of_the_file() {
        let file = lists(&["a", "b"], &[[0, 2]], &["c"]);
        let message = Tokenizer::of(&file).unwrap_err().to_string();
        assert_eq!(message, Tokenizer::from_bytes(&file.json()).unwrap_err().to_string());
        assert!(message.contains('c'), "{message}");
    }
}
