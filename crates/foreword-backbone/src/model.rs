//! A backbone with the tokenizer that belongs to it.

use foreword_kernels::{Backend, Token};

use crate::backbone::{Backbone, check_headers};
use crate::config::end_tokens;
use crate::error::BackboneError;
use crate::families::Family;
use crate::files::{ChatFiles, ModelFiles};
use crate::notice::Notice;
use crate::spec::Spec;
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
    /// What is worth knowing of its files.
    pub notices: Vec<Notice>,
}

impl<B: Backend> Model<B> {
    /// Reads both from a model's files.
    ///
    /// # Errors
    /// If either can't be read, or the tokenizer has entries that the model has no embeddings for.
    pub fn load(files: &ModelFiles, backend: B) -> Result<Self, BackboneError> {
        let (mut tokenizer, end_tokens) = read_words(files)?;
        let backbone = Backbone::load(files, backend)?;
        let embedded = backbone.spec().vocab;
        fit(&mut tokenizer, embedded)?;
        // A file that names a token which the model has no embedding for can't mean it: it could never be met.
        let end_tokens = end_tokens.into_iter().filter(|&token| (token as usize) < embedded).collect();
        let notices = files.notices.clone();
        Ok(Self { backbone, tokenizer, end_tokens, chat: files.chat.clone(), notices })
    }
}

/// The tokenizer and the end tokens.
fn read_words(files: &ModelFiles) -> Result<(Tokenizer, Vec<Token>), BackboneError> {
    let tokenizer = Tokenizer::from_bytes(&files.tokenizer)?;
    Ok((tokenizer, end_tokens(&files.config, files.generation_config.as_deref())?))
}

/// Makes sure that no token leaves the embedding table. Tokens that were added to a model and never got a row are refused when
/// a text has one; a vocabulary that is larger is another model's.
fn fit(tokenizer: &mut Tokenizer, embedded: usize) -> Result<(), BackboneError> {
    let largest = tokenizer.largest_learned_id();
    if largest as usize >= embedded {
        return Err(BackboneError::VocabularyTooSmall { largest, model: embedded });
    }
    tokenizer.refuse_from(embedded);
    Ok(())
}

/// Checks what [`Model::load`] would, without a number of the weights; what is worth knowing of the files.
pub(crate) fn check(files: &ModelFiles, family: &Family, spec: &Spec) -> Result<Vec<Notice>, BackboneError> {
    check_headers(family, spec, &files.weights)?;
    let (mut tokenizer, _) = read_words(files)?;
    fit(&mut tokenizer, spec.vocab)?;
    Ok(files.notices.clone())
}
