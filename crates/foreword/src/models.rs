//! Lists the available models: the bundled one, the Hugging Face cache, and a directory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::ModelInfo;
use crate::backbone::files::{CONFIG, WEIGHTS};
use crate::backbone::is_later_part;
use crate::error::{Result, UserError};
use crate::events::ModelLine;
use crate::source::{bundled, is_gguf};
use foreword_hub::{Cached, cached};

pub use foreword_hub::cache_dir;

/// Maximum depth of the search below the given directory.
const DEEPEST: usize = 6;

/// All models, and whether each is supported. Reads only configurations and headers.
///
/// # Errors
/// If `dir` is not a directory.
pub fn models(dir: Option<&Path>) -> Result<Vec<ModelLine>> {
    let files = bundled();
    let mut models = vec![ModelLine::of(files.name.clone(), "bundled", (None, None), ModelInfo::of(&files))];
    if let Some(cache) = cache_dir() {
        models.extend(cached(&cache).iter().map(of_cache));
    }
    let Some(dir) = dir else { return Ok(models) };
    if !dir.is_dir() {
        return Err(UserError::new(format!("{} is not a directory", dir.display()))
            .hint("give a directory with models below it, or none")
            .into());
    }
    models.extend(below(dir).iter().map(|path| {
        let (place, survey) = if path.is_dir() {
            ("directory", ModelInfo::directory(path))
        } else {
            ("gguf", ModelInfo::gguf(path))
        };
        ModelLine::of(path.display().to_string(), place, (Some(path), None), survey)
    }));
    Ok(models)
}

/// A cached model of the hub, under a name that selects this commit.
fn of_cache(cached: &Cached) -> ModelLine {
    let Cached { repository, revision, commit, path } = cached;
    let name = match revision.as_deref() {
        Some("main") => repository.clone(),
        Some(revision) => format!("{repository}@{revision}"),
        None => format!("{repository}@{commit}"),
    };
    ModelLine::of(name, "cache", (Some(path), Some(commit.clone())), ModelInfo::directory(path))
}

/// The model directories and GGUF files at or below `dir`, in order. Skips hidden entries and links.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut models = Vec::new();
    let mut folders = vec![(dir.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if folder.join(CONFIG).is_file() || folder.join(WEIGHTS).is_file() {
            models.push(folder.clone());
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let is_hidden = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
        let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        let entries: Vec<fs::DirEntry> = entries.filter(|entry| !is_hidden(entry)).collect();
        let is_file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
        let files = entries.iter().filter(|entry| is_file(entry)).map(fs::DirEntry::path);
        models.extend(files.filter(|path| is_gguf(path) && !is_later_part(path)));
        let inner = entries.iter().filter(|entry| depth < DEEPEST && is_folder(entry));
        folders.extend(inner.map(|entry| (entry.path(), depth + 1)));
    }
    models.sort();
    models
}
