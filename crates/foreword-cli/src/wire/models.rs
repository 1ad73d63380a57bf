//! The answer of `models`.

use std::path::Path;

use foreword::ModelInfo;
use serde::Serialize;

use crate::exit::message_of;

/// One model.
#[derive(Debug, Serialize)]
pub(crate) struct ModelLine {
    /// What `--model` takes.
    pub(crate) model: String,
    /// `bundled`, `cache`, `directory` or `gguf`.
    place: &'static str,
    path: Option<String>,
    commit: Option<String>,
    pub(crate) family: Option<String>,
    pub(crate) parameters: Option<u64>,
    pub(crate) bytes: u64,
    pub(crate) supported: bool,
    pub(crate) why: Option<String>,
    /// What is worth knowing of one that can be used.
    pub(crate) notes: Vec<String>,
}

impl ModelLine {
    /// A model at a place of a kind.
    pub(crate) fn of(
        model: String,
        place: &'static str,
        (path, commit): (Option<&Path>, Option<String>),
        survey: ModelInfo,
    ) -> Self {
        let ModelInfo { family, parameters, bytes, refused, notices } = survey;
        let why = refused.map(|error| message_of(&error.into()));
        let notes = notices.iter().map(ToString::to_string).collect();
        let path = path.map(|path| path.display().to_string());
        Self { model, place, path, commit, family, parameters, bytes, supported: why.is_none(), why, notes }
    }
}
