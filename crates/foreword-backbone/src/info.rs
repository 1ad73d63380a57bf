//! Information about a model that needs no weights: from its configuration and the headers of its files.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{SafeTensorError, SafeTensors};
use serde_json::Value;

use crate::backbone::{read_config, read_model_config};
use crate::error::BackboneError;
use crate::files::{CONFIG, ModelFiles, map, weights_at};
use crate::model;
use crate::notice::Notice;

/// Information about a model that is not loaded.
#[derive(Debug)]
pub struct ModelInfo {
    /// `model_type` of its configuration, if it has one.
    pub family: Option<String>,
    /// Number of parameters: by its configuration if that is understood, otherwise by the headers.
    pub parameters: Option<u64>,
    /// Bytes of its weights.
    pub bytes: u64,
    /// Why it can't be loaded. `None`: its configuration, its tokenizer and the name, shape and format of every tensor are what
    /// loading expects; only the numbers of its weights were not read.
    pub refused: Option<BackboneError>,
    /// Notices that loading would return.
    pub notices: Vec<Notice>,
}

impl ModelInfo {
    /// Of a directory.
    #[must_use]
    pub fn directory(path: &Path) -> Self {
        match ModelFiles::directory(path) {
            Ok(files) => Self::of(&files),
            Err(error) => Self::incomplete(path, error),
        }
    }

    /// Of a directory that can't be opened.
    fn incomplete(path: &Path, error: BackboneError) -> Self {
        let config = fs::read(path.join(CONFIG)).ok();
        let spec = config.as_deref().map(read_config);
        let weights = weights_at(path).unwrap_or_else(|_| all_weights(path));
        let sizes = weights.iter().filter_map(|file| file.metadata().ok());
        let bytes = sizes.map(|metadata| metadata.len()).sum();
        let from_headers =
            || weights.iter().map(|file| numbers(file)).sum::<Result<u64, BackboneError>>().ok();
        let (parameters, refused) = match spec {
            Some(Ok((_, spec))) => (Some(spec.n_parameters() as u64), error),
            // The configuration first: if it is of another architecture, nothing else matters.
            Some(Err(other)) => (from_headers().filter(|_| !weights.is_empty()), other),
            None => (from_headers().filter(|_| !weights.is_empty()), error),
        };
        let family = config.as_deref().and_then(family);
        Self { family, parameters, bytes, refused: Some(refused), notices: Vec::new() }
    }

    /// Of a GGUF file.
    #[must_use]
    pub fn gguf(path: &Path) -> Self {
        match ModelFiles::gguf(path) {
            Ok(files) => Self::of(&files),
            Err(error) => {
                let bytes = path.metadata().map_or(0, |metadata| metadata.len());
                let refused = Some(error);
                Self { family: None, parameters: None, bytes, refused, notices: Vec::new() }
            }
        }
    }

    /// Of opened files: checks everything that loading checks, except the numbers of the weights.
    #[must_use]
    pub fn of(files: &ModelFiles) -> Self {
        let from_headers =
            || files.weights.iter().map(|(file, bytes)| numbers_in(file, bytes)).sum::<Result<u64, _>>();
        let (parameters, checked) = match read_model_config(files) {
            Ok((family, spec)) => (Some(spec.n_parameters() as u64), model::check(files, family, &spec)),
            Err(error) => (from_headers().ok(), Err(error)),
        };
        let (notices, refused) = match checked {
            Ok(notices) => (notices, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let bytes = files.weights.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        Self { family: family(&files.config), parameters, bytes, refused, notices }
    }
}

fn family(config: &[u8]) -> Option<String> {
    let config: Value = serde_json::from_slice(config).ok()?;
    Some(config.get("model_type")?.as_str()?.to_owned())
}

/// All safetensors files of a directory.
fn all_weights(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_read =
        |path: &PathBuf| path.extension().is_some_and(|ending| ending == "safetensors") && path.is_file();
    let mut files: Vec<PathBuf> = entries.filter(is_read).collect();
    files.sort();
    files
}

/// Numbers of a safetensors file, by its header; fails if it does not have their bytes.
fn numbers(path: &Path) -> Result<u64, BackboneError> {
    // Mapped: only the header is read.
    numbers_in(&path.display().to_string(), &map(path)?)
}

fn numbers_in(file: &str, bytes: &[u8]) -> Result<u64, BackboneError> {
    let bad = |error: &SafeTensorError| BackboneError::Safetensors {
        file: file.to_owned(),
        detail: error.to_string(),
    };
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| bad(&error))?;
    let product = |shape: &[usize]| shape.iter().fold(1u64, |n, &dim| n.saturating_mul(dim as u64));
    Ok(metadata.tensors().values().fold(0u64, |n, tensor| n.saturating_add(product(&tensor.shape))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name)
    }

    /// A copy of a tiny model, to be damaged.
    fn copy() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let models = fs::read_dir(tiny("")).unwrap().map(|entry| entry.unwrap().path());
        let model = models.filter(|path| path.join(CONFIG).exists()).min().unwrap();
        for entry in fs::read_dir(model).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        dir
    }

    #[test]
    fn every_tiny_model_is_known() {
        for entry in fs::read_dir(tiny("")).unwrap() {
            let path = entry.unwrap().path();
            let info = ModelInfo::directory(&path);
            assert!(info.refused.is_none(), "{}: {:?}", path.display(), info.refused);
            let headers: u64 = all_weights(&path).iter().map(|file| numbers(file).unwrap()).sum();
            // Some files hold masks and the like, which are no parameters.
            let parameters = info.parameters.unwrap();
            assert!((parameters..2 * parameters).contains(&headers), "{}: {headers}", path.display());
            assert!(info.bytes >= 2 * headers && info.family.is_some(), "{info:?}");
        }
    }

    #[test]
    fn errors_are_those_of_loading() {
        let dir = copy();
        let refused = || ModelInfo::directory(dir.path()).refused.unwrap().to_string();
        let weights = dir.path().join("model.safetensors");
        let whole = fs::read(&weights).unwrap();
        fs::write(&weights, &whole[..whole.len() - 1]).unwrap();
        assert!(refused().contains("model.safetensors: not a whole safetensors file"), "{}", refused());
        fs::write(&weights, &whole[..100]).unwrap();
        assert!(refused().contains("not a whole safetensors file"), "{}", refused());
        fs::write(&weights, &whole).unwrap();
        // Files that are not loaded are not checked.
        fs::write(dir.path().join("other.safetensors"), "x").unwrap();
        assert!(ModelInfo::directory(dir.path()).refused.is_none());
        fs::remove_file(dir.path().join("other.safetensors")).unwrap();
        fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        assert!(refused().contains("it has no tokenizer.json"), "{}", refused());
        fs::write(dir.path().join(CONFIG), r#"{"model_type": "mamba"}"#).unwrap();
        let info = ModelInfo::directory(dir.path());
        assert_eq!(info.family.as_deref(), Some("mamba"));
        assert!(info.parameters.is_some(), "the headers have it");
        assert!(refused().starts_with("config.json: model_type `mamba` is not supported"), "{}", refused());
    }
}
