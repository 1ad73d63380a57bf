//! A backbone with its tokenizer.

use std::panic::resume_unwind;
use std::thread;

use foreword_kernels::{Backend, Token};

use crate::backbone::{Backbone, check_headers};
use crate::config::end_tokens;
use crate::error::BackboneError;
use crate::families::Family;
use crate::files::{ChatFiles, ModelFiles};
use crate::notice::Notice;
use crate::spec::Spec;
use crate::tokenizer::Tokenizer;

/// A frozen model with its tokenizer.
#[derive(Debug)]
pub struct Model<B: Backend> {
    /// The decoder.
    pub backbone: Backbone<B>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The tokens that end a text: those of `config.json`, the first of which ends learned targets, then those that only
    /// `generation_config.json` names. Empty if the files name none.
    pub end_tokens: Vec<Token>,
    /// The files that define its chats.
    pub chat: ChatFiles,
    /// Notices about its files.
    pub notices: Vec<Notice>,
}

impl<B: Backend> Model<B> {
    /// Reads both from a model's files.
    ///
    /// # Errors
    /// If either can't be read, or the tokenizer has entries that the model has no embeddings for.
    pub fn load(files: &ModelFiles, backend: B) -> Result<Self, BackboneError> {
        Self::load_with(files, || Backbone::load(files, backend))
    }

    /// As [`Self::load`], with the digests of the embedding table and of the tokenizer, which are otherwise computed when they
    /// are first asked for: sooner here, while the tokenizer is read.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_identified(files: &ModelFiles, backend: B) -> Result<Self, BackboneError> {
        Self::load_with(files, || {
            let backbone = Backbone::load(files, backend)?;
            let _ = (backbone.identity(), files.tokenizer.digest());
            Ok(backbone)
        })
    }

    fn load_with(
        files: &ModelFiles,
        backbone: impl FnOnce() -> Result<Backbone<B>, BackboneError>,
    ) -> Result<Self, BackboneError> {
        let (tokenizer, backbone) = beside(|| read_tokenizer(files), backbone);
        let ((mut tokenizer, end_tokens), backbone) = (tokenizer?, backbone?);
        let embedded = backbone.spec().vocab;
        check_vocabulary(&mut tokenizer, embedded)?;
        // A token without an embedding can't occur.
        let end_tokens = end_tokens.into_iter().filter(|&token| (token as usize) < embedded).collect();
        let notices = files.notices.iter().chain(&backbone.notice).cloned().collect();
        Ok(Self { backbone, tokenizer, end_tokens, chat: files.chat.clone(), notices })
    }
}

/// Does both at the same time, if the system has a thread for it.
fn beside<A: Send, B>(one: impl Fn() -> A + Sync, other: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let spawned = thread::Builder::new().spawn_scoped(scope, &one);
        let other = other();
        let one = match spawned {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => one(),
        };
        (one, other)
    })
}

/// The tokenizer and the end tokens.
fn read_tokenizer(files: &ModelFiles) -> Result<(Tokenizer, Vec<Token>), BackboneError> {
    let tokenizer = Tokenizer::of(&files.tokenizer)?;
    Ok((tokenizer, end_tokens(&files.config, files.generation_config.as_deref())?))
}

/// Limits ids to the embedding table. Added tokens without a row are refused in texts; a larger vocabulary belongs to another
/// model.
fn check_vocabulary(tokenizer: &mut Tokenizer, embedded: usize) -> Result<(), BackboneError> {
    let largest = tokenizer.largest_learned_id();
    if largest as usize >= embedded {
        return Err(BackboneError::VocabularyTooSmall { largest, model: embedded });
    }
    tokenizer.limit_ids(embedded);
    Ok(())
}

/// Checks what [`Model::load`] checks, except the numbers of the weights, and returns the files' notices.
pub(crate) fn check(files: &ModelFiles, family: &Family, spec: &Spec) -> Result<Vec<Notice>, BackboneError> {
    let notice = check_headers(family, spec, files)?;
    let (mut tokenizer, _) = read_tokenizer(files)?;
    check_vocabulary(&mut tokenizer, spec.vocab)?;
    Ok(files.notices.iter().chain(&notice).cloned().collect())
}
