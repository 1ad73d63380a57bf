//! Texts with special tokens written out, except in a part that has none: a rendered chat around a user's message.

use super::{Tokenizer, TokenizerError, guarded, not_encoded};
use std::collections::BTreeSet;
use std::ops::Range;

/// A text that is tokenised as it is: no special token is added, and text that spells one is one, except in its plain part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedText {
    /// The text.
    pub text: String,
    /// The bytes in which the spelling of a special token is ordinary text.
    pub plain: Range<usize>,
    /// A byte that no token spans.
    pub cut: Option<usize>,
}

/// A special token that is inserted to separate two bytes, and removed again.
struct Marker<'t> {
    id: u32,
    content: &'t str,
}

impl Tokenizer {
    /// The tokens of a marked text, and how many of them are before its cut.
    ///
    /// A text whose plain part spells no special token has the tokens of the whole text. Otherwise each such spelling is
    /// split after its first character by a special token that is removed again.
    ///
    /// # Errors
    /// If the text can't be tokenised, or spells a special token that can't be split.
    ///
    /// # Panics
    /// If the cut is not between two characters.
    pub fn encode_marked(&self, marked: &MarkedText) -> Result<(Vec<u32>, usize), TokenizerError> {
        let MarkedText { text, plain, cut } = marked;
        let mut marks: BTreeSet<usize> = cut.iter().copied().collect();
        let marker = self.marker();
        if let (None, Some(cut)) = (&marker, *cut) {
            // A tokenizer without special tokens: nothing can be spelled like one.
            let mut tokens = self.encode_plain(&text[..cut])?;
            let n_before = tokens.len();
            tokens.extend(self.encode_plain(&text[cut..])?);
            return Ok((tokens, n_before));
        }
        loop {
            let content = marker.as_ref().map_or("", |marker| marker.content);
            let (written, places) = insert_markers(text, &marks, content);
            let encoding = guarded(|| self.inner.encode(written.as_str(), false))
                .map_err(|reason| not_encoded(text, &reason))?;
            let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
            let (mut tokens, mut n_before, mut spelled) = (Vec::new(), 0, Vec::new());
            for (&id, &(start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
                let n_marks = places.partition_point(|&place| place < start);
                let is_mark = places.get(n_marks) == Some(&start)
                    && marker.as_ref().is_some_and(|marker| marker.id == id);
                if is_mark {
                    let at = marks.iter().nth(n_marks);
                    n_before = if at == cut.as_ref() { tokens.len() } else { n_before };
                    continue;
                }
                tokens.push(id);
                if added.get(&id).is_some_and(|token| token.special) {
                    // Space around a special token may belong to it.
                    let whole = written.get(start..end).unwrap_or_default();
                    let first = start + (whole.len() - whole.trim_start().len()) - n_marks * content.len();
                    let after = first + whole.trim().len();
                    if first < plain.end && after > plain.start && first < after {
                        spelled.push(first..after);
                    }
                }
            }
            if spelled.is_empty() {
                self.check_embedded(text, &tokens)?;
                return Ok((tokens, n_before));
            }
            for token in spelled {
                let width =
                    text.get(token.clone()).and_then(|token| token.chars().next()).map_or(0, char::len_utf8);
                if width == 0 || token.start + width >= token.end || !marks.insert(token.start + width) {
                    let spelled = text.get(token).unwrap_or_default();
                    return Err(not_encoded(text, &format!("it holds the special token {spelled:?}")));
                }
            }
        }
    }

    /// The id of a token by its spelling in the vocabulary.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether a token is a special one.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.inner
            .get_added_vocabulary()
            .get_added_tokens_decoder()
            .get(&id)
            .is_some_and(|token| token.special)
    }

    /// The first special token that strips no space and may be anywhere in a word.
    fn marker(&self) -> Option<Marker<'_>> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let fit = added.iter().filter(|(_, token)| {
            token.special && !token.lstrip && !token.rstrip && !token.single_word && !token.content.is_empty()
        });
        let (&id, token) = fit.min_by_key(|(id, _)| **id)?;
        Some(Marker { id, content: &token.content })
    }
}

/// The text with a marker at each of these bytes, and the markers' places in it.
fn insert_markers(text: &str, marks: &BTreeSet<usize>, marker: &str) -> (String, Vec<usize>) {
    let mut written = String::with_capacity(text.len() + marks.len() * marker.len());
    let mut places = Vec::with_capacity(marks.len());
    let mut from = 0;
    for &mark in marks {
        written.push_str(&text[from..mark]);
        places.push(written.len());
        written.push_str(marker);
        from = mark;
    }
    written.push_str(&text[from..]);
    (written, places)
}
