//! What can be said of a model without reading its weights: from its configuration and the headers of its files.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{SafeTensorError, SafeTensors};
use serde_json::Value;

use crate::backbone::read_config;
use crate::error::BackboneError;
use crate::files::{CONFIG, ModelFiles, map, weights_at};
use crate::model;
use crate::notice::Notice;

/// What is known of a model that was not loaded.
#[derive(Debug)]
pub struct Survey {
    /// `model_type` of its configuration, where it has one.
    pub family: Option<String>,
    /// Its numbers: by its configuration where that is understood, and else by the headers.
    pub parameters: Option<u64>,
    /// Bytes of its weights in safetensors.
    pub bytes: u64,
    /// Why it can't be loaded. `None`: its configuration, its tokenizer and the name, shape and format of every tensor are as
    /// loading asks for; only the numbers of its weights were not read.
    pub refused: Option<BackboneError>,
    /// What loading would tell beside.
    pub notices: Vec<Notice>,
}

impl Survey {
    /// Looks at a directory.
    #[must_use]
    pub fn directory(path: &Path) -> Self {
        match ModelFiles::directory(path) {
            Ok(files) => Self::of(&files),
            Err(error) => Self::of_remains(path, error),
        }
    }

    /// Looks at a directory that lacks something.
    fn of_remains(path: &Path, error: BackboneError) -> Self {
        let config = fs::read(path.join(CONFIG)).ok();
        let spec = config.as_deref().map(read_config);
        let weights = weights_at(path).unwrap_or_else(|_| all_weights(path));
        let sizes = weights.iter().filter_map(|file| file.metadata().ok());
        let bytes = sizes.map(|metadata| metadata.len()).sum();
        let of_headers = || weights.iter().map(|file| numbers(file)).sum::<Result<u64, BackboneError>>().ok();
        let (parameters, refused) = match spec {
            Some(Ok((_, spec))) => (Some(spec.n_parameters() as u64), error),
            // The configuration first: where it is another architecture's, nothing else matters.
            Some(Err(other)) => (of_headers().filter(|_| !weights.is_empty()), other),
            None => (of_headers().filter(|_| !weights.is_empty()), error),
        };
        let family = config.as_deref().and_then(family);
        Self { family, parameters, bytes, refused: Some(refused), notices: Vec::new() }
    }

    /// Looks at a GGUF file.
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

    /// Looks at files that are at hand: all that loading checks, but the numbers of the weights.
    #[must_use]
    pub fn of(files: &ModelFiles) -> Self {
        let of_headers =
            || files.weights.iter().map(|(file, bytes)| numbers_in(file, bytes)).sum::<Result<u64, _>>();
        let (parameters, checked) = match read_config(&files.config) {
            Ok((family, spec)) => (Some(spec.n_parameters() as u64), model::check(files, family, &spec)),
            Err(error) => (of_headers().ok(), Err(error)),
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

/// How many numbers a safetensors file holds, by its header; whether it has the bytes for them.
fn numbers(path: &Path) -> Result<u64, BackboneError> {
    // Mapped: nothing of it is read but the header.
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

    /// A copy of a tiny model that can be spoiled.
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
            let survey = Survey::directory(&path);
            assert!(survey.refused.is_none(), "{}: {:?}", path.display(), survey.refused);
            let headers: u64 = all_weights(&path).iter().map(|file| numbers(file).unwrap()).sum();
            // Some files hold masks and the like, which are no parameters.
            let parameters = survey.parameters.unwrap();
            assert!((parameters..2 * parameters).contains(&headers), "{}: {headers}", path.display());
            assert!(survey.bytes >= 2 * headers && survey.family.is_some(), "{survey:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_in_the_words_of_loading() {
        let dir = copy();
        let told = || Survey::directory(dir.path()).refused.unwrap().to_string();
        let weights = dir.path().join("model.safetensors");
        let whole = fs::read(&weights).unwrap();
        fs::write(&weights, &whole[..whole.len() - 1]).unwrap();
        assert!(told().contains("model.safetensors: not a whole safetensors file"), "{}", told());
        fs::write(&weights, &whole[..100]).unwrap();
        assert!(told().contains("not a whole safetensors file"), "{}", told());
        fs::write(&weights, &whole).unwrap();
        // What is not loaded is not looked at.
        fs::write(dir.path().join("other.safetensors"), "x").unwrap();
        assert!(Survey::directory(dir.path()).refused.is_none());
        fs::remove_file(dir.path().join("other.safetensors")).unwrap();
        fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        assert!(told().contains("it has no tokenizer.json"), "{}", told());
        fs::write(dir.path().join(CONFIG), r#"{"model_type": "mamba"}"#).unwrap();
        let survey = Survey::directory(dir.path());
        assert_eq!(survey.family.as_deref(), Some("mamba"));
        assert!(survey.parameters.is_some(), "the headers have it");
        assert!(told().starts_with("config.json: model_type `mamba` is not supported"), "{}", told());
    }
}
