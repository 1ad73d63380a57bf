//! A tokenizer and the embedding table that it belongs to: tokens without a row are refused where a text has one.

use super::{Tokenizer, TokenizerError};

impl Tokenizer {
    /// The largest id of a token that was learned with the vocabulary; added ones may lie above it.
    pub(crate) fn largest_learned_id(&self) -> u32 {
        let added = self.inner.get_added_vocabulary().get_vocab();
        let learned = self.inner.get_vocab(false);
        learned
            .into_iter()
            .filter(|(token, _)| !added.contains_key(token))
            .map(|(_, id)| id)
            .max()
            .unwrap_or(0)
    }

    /// Ids from `rows` on have no embedding: a text with one of them is refused from now on.
    pub(crate) fn refuse_from(&mut self, rows: usize) {
        self.rows = rows;
    }

    /// Fails if a text's tokens have one without an embedding.
    pub(super) fn check_embedded(&self, text: &str, ids: &[u32]) -> Result<(), TokenizerError> {
        match ids.iter().find(|&&id| id as usize >= self.rows) {
            None => Ok(()),
            Some(&id) => Err(TokenizerError::NoEmbedding {
                text: text.chars().take(40).collect(),
                token: self.inner.id_to_token(id).unwrap_or_default(),
                id,
                model: self.rows,
            }),
        }
    }
}
