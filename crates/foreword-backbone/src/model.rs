//! A backbone with the tokenizer that belongs to it.

use foreword_kernels::{Backend, Token};

use crate::backbone::Backbone;
use crate::config::end_tokens;
use crate::error::BackboneError;
use crate::files::{ChatFiles, ModelFiles};
use crate::tokenizer::Tokenizer;

/// A frozen model that can read text.
#[derive(Debug)]
pub struct Model<B: Backend> {
    /// The decoder.
    pub backbone: Backbone<B>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The tokens that end a text: those of `config.json`, the first of which ends the targets that are learned, then
    /// those that only `generation_config.json` names. Empty where the files name none.
    pub end_tokens: Vec<Token>,
    /// What its files say of chats.
    pub chat: ChatFiles,
}

impl<B: Backend> Model<B> {
    /// Reads both from a model's files.
    ///
    /// # Errors
    /// If either can't be read, or the tokenizer has entries that the model has no embeddings for.
    pub fn load(files: &ModelFiles, backend: B) -> Result<Self, BackboneError> {
        let tokenizer = Tokenizer::from_bytes(&files.tokenizer)?;
        let end_tokens = end_tokens(&files.config, files.generation_config.as_deref())?;
        let backbone = Backbone::load(files, backend)?;
        let (largest, embedded) = (tokenizer.largest_id(), backbone.spec().vocab);
        if largest as usize >= embedded {
            return Err(BackboneError::VocabularyTooSmall { largest, model: embedded });
        }
        // A file that names a token which the model has no embedding for can't mean it: it could never be met.
        let end_tokens = end_tokens.into_iter().filter(|&token| (token as usize) < embedded).collect();
        Ok(Self { backbone, tokenizer, end_tokens, chat: files.chat.clone() })
    }
}
