//! A backbone with the tokenizer that belongs to it.

use foreword_kernels::Backend;

use crate::backbone::Backbone;
use crate::error::BackboneError;
use crate::files::ModelFiles;
use crate::tokenizer::Tokenizer;

/// A frozen model that can read text.
#[derive(Debug)]
pub struct Model<B: Backend> {
    /// The decoder.
    pub backbone: Backbone<B>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

impl<B: Backend> Model<B> {
    /// Reads both from a model's files.
    ///
    /// # Errors
    /// If either can't be read, or the tokenizer has entries that the model has no embeddings for.
    pub fn load(files: &ModelFiles, backend: B) -> Result<Self, BackboneError> {
        let tokenizer = Tokenizer::from_bytes(&files.tokenizer)?;
        let backbone = Backbone::load(files, backend)?;
        let (largest, embedded) = (tokenizer.largest_id(), backbone.spec().vocab);
        if largest as usize >= embedded {
            return Err(BackboneError::VocabularyTooSmall { largest, model: embedded });
        }
        Ok(Self { backbone, tokenizer })
    }
}
