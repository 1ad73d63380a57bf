//! A tokenizer and its model's embedding table: a text with a token that has no row is refused.

use super::{Tokenizer, TokenizerError};

impl Tokenizer {
    /// The largest id of the vocabulary without added tokens.
    pub(crate) fn largest_learned_id(&self) -> u32 {
        if let Some(largest) = self.largest_learned {
            return largest;
        }
        let added = self.inner.get_added_vocabulary().get_vocab();
        let learned = self.inner.get_vocab(false);
        learned
            .into_iter()
            .filter(|(token, _)| !added.contains_key(token))
            .map(|(_, id)| id)
            .max()
            .unwrap_or(0)
    }

    /// Refuses texts with ids from `rows` on, which have no embedding.
    pub(crate) fn limit_ids(&mut self, rows: usize) {
        self.rows = rows;
    }

    /// Fails if one of a text's tokens has no embedding.
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
