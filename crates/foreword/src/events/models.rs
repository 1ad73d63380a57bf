//! The answer of `models`.

use std::path::Path;

use crate::ModelInfo;
use serde::Serialize;

/// One model.
#[derive(Debug, Serialize)]
pub struct ModelLine {
    /// What `--model` takes.
    pub model: String,
    /// `bundled`, `cache`, `directory` or `gguf`.
    place: &'static str,
    path: Option<String>,
    commit: Option<String>,
    /// Its family.
    pub family: Option<String>,
    /// Its numbers.
    pub parameters: Option<u64>,
    /// Its size on disk.
    pub bytes: u64,
    /// Whether it can be used.
    pub supported: bool,
    /// Why not.
    pub why: Option<String>,
    /// What is worth knowing of one that can be used.
    pub notes: Vec<String>,
}

impl ModelLine {
    /// A model at a place of a kind.
    pub fn of(
        model: String,
        place: &'static str,
        (path, commit): (Option<&Path>, Option<String>),
        survey: ModelInfo,
    ) -> Self {
        let ModelInfo { family, parameters, bytes, refused, notices } = survey;
        let why = refused.map(|error| crate::Error::from(error).to_string());
        let notes = notices.iter().map(ToString::to_string).collect();
        let path = path.map(|path| path.display().to_string());
        Self { model, place, path, commit, family, parameters, bytes, supported: why.is_none(), why, notes }
    }
}
