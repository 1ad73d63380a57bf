//! The output of `models`.

use std::path::Path;

use crate::ModelInfo;
use serde::Serialize;

/// One model.
#[derive(Debug, Serialize)]
pub struct ModelLine {
    /// The value for `--model`.
    pub model: String,
    /// `bundled`, `cache`, `directory` or `gguf`.
    place: &'static str,
    path: Option<String>,
    commit: Option<String>,
    /// Its family.
    pub family: Option<String>,
    /// Number of parameters.
    pub parameters: Option<u64>,
    /// Size on disk.
    pub bytes: u64,
    /// Whether it can be used.
    pub supported: bool,
    /// The reason if not.
    pub why: Option<String>,
    /// What to try, if there is something.
    pub hint: Option<String>,
    /// Remarks on a supported model.
    pub notes: Vec<String>,
}

impl ModelLine {
    /// A model of this kind of place.
    pub fn of(
        model: String,
        place: &'static str,
        (path, commit): (Option<&Path>, Option<String>),
        survey: ModelInfo,
    ) -> Self {
        let ModelInfo { family, parameters, bytes, refused, notices } = survey;
        let refused = refused.map(crate::Error::from);
        let hint = refused.as_ref().and_then(crate::Error::hint);
        let why = refused.map(|error| error.to_string());
        let notes = notices.iter().map(ToString::to_string).collect();
        let path = path.map(|path| path.display().to_string());
        let supported = why.is_none();
        Self { model, place, path, commit, family, parameters, bytes, supported, why, hint, notes }
    }
}
