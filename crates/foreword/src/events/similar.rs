//! The output of `similar`.

use std::path::Path;

use crate::PromptDirectory;
use crate::similarity::Similarity;
use serde::Serialize;

/// The nearest prompts, nearest first.
#[derive(Debug, Serialize)]
pub struct Similars<'a> {
    /// The prompt to compare with.
    pub prompt: String,
    /// The others, nearest first.
    pub similar: Vec<SimilarLine<'a>>,
    /// Those that can't be compared, with the reason.
    pub not_comparable: Vec<Incomparable<'a>>,
}

/// A prompt of the same model.
#[derive(Debug, Serialize)]
pub struct SimilarLine<'a> {
    prompt: String,
    pooled: f64,
    matched: f64,
    virtual_tokens: usize,
    template: Option<&'a str>,
}

impl<'a> SimilarLine<'a> {
    /// The prompt read from a path.
    pub fn of(path: &Path, other: &'a PromptDirectory, found: Similarity) -> Self {
        Self {
            prompt: path.display().to_string(),
            pooled: found.pooled,
            matched: found.matched,
            virtual_tokens: other.rows.n_virtual(),
            template: other.passport.as_ref().map(|passport| passport.task.template.as_str()),
        }
    }
}

/// A directory that can't be compared.
#[derive(Debug, Serialize)]
pub struct Incomparable<'a> {
    prompt: String,
    why: &'a str,
}

impl<'a> Incomparable<'a> {
    /// The directory and the reason.
    pub fn of(path: &Path, why: &'a str) -> Self {
        Self { prompt: path.display().to_string(), why }
    }
}
