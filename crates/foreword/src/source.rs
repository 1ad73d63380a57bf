//! Finds a model by name: bundled, on this machine, or on the Hugging Face hub.

use std::collections::BTreeMap;
use std::path::Path;

use crate::backbone::files::WEIGHTS;
use crate::error::Result;
use crate::{Bytes, ChatFiles, ModelFiles};
use anyhow::Context as _;
use foreword_hub::{Event, HubName, Settings};

use crate::display::bytes;
use crate::error::UserError;
use crate::notice::{Observer, Progress};

/// The files of a model. A bundled name takes precedence, then a local path; any other name in the form of the hub is
/// downloaded.
pub fn files(name: &str, observer: &dyn Observer) -> Result<ModelFiles> {
    if name == foreword_tiny::NAME {
        return Ok(bundled());
    }
    let path = Path::new(name);
    match HubName::parse(name) {
        Some(hub) if !path.exists() => {
            let settings = Settings::from_env()?;
            let fetched = fetch(&settings, &hub, observer)
                .with_context(|| format!("the model {name}, which is no directory here"))?;
            of_hub(&hub, &fetched.path)
        }
        _ => local(path),
    }
}

/// Model files without these keys of their configuration. `name`: that of the model, for messages.
///
/// # Errors
/// If a key is understood: the model would be another one without it.
pub fn ignoring(files: ModelFiles, name: &str, config_keys: &[String]) -> Result<ModelFiles> {
    let understood = files.understood(config_keys);
    if let Some(first) = understood.first() {
        return Err(UserError::new(format!(
            "{} in the configuration of {name} can't be ignored: Foreword understands it, and the model would be another one \
             without it",
            understood.join(", ")
        ))
        .hint(format!("leave out --ignore-config {first}"))
        .into());
    }
    Ok(files.ignoring(config_keys))
}

/// The files of the bundled model.
pub fn bundled() -> ModelFiles {
    ModelFiles {
        name: foreword_tiny::NAME.to_owned(),
        config: foreword_tiny::CONFIG.to_vec(),
        generation_config: None,
        tokenizer: foreword_tiny::TOKENIZER.to_vec().into(),
        chat: ChatFiles::default(),
        weights: vec![(WEIGHTS.to_owned(), Bytes::from_static(foreword_tiny::WEIGHTS))],
        tensor_files: BTreeMap::new(),
        ignored_config_keys: Vec::new(),
        notices: Vec::new(),
    }
}

/// As [`files`], but only for names that need neither a download nor a path.
pub fn files_at_hand(name: &str) -> Option<ModelFiles> {
    if name == foreword_tiny::NAME {
        return Some(bundled());
    }
    let hub = HubName::parse(name)?;
    let found = foreword_hub::find(&Settings::from_env().ok()?, &hub)?;
    of_hub(&hub, &found.path).ok()
}

/// Whether a recorded name is enough to find its model.
pub fn is_enough(name: &str) -> bool {
    name == foreword_tiny::NAME || HubName::parse(name).is_some()
}

/// The files of a model from the hub, under the requested name.
fn of_hub(hub: &HubName, path: &Path) -> Result<ModelFiles> {
    Ok(ModelFiles { name: hub.to_string(), ..local(path)? })
}

/// Whether a file has the GGUF extension.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"))
}

/// The files of a model on this machine.
fn local(path: &Path) -> Result<ModelFiles> {
    if path.is_dir() || (path.is_file() && is_gguf(path)) {
        return Ok(ModelFiles::open(path)?);
    }
    let wrong = if path.exists() {
        "is neither a directory nor a .gguf file"
    } else {
        "is neither a bundled model, nor a directory or .gguf file, nor org/name of the Hugging Face hub"
    };
    let cache = foreword_hub::cache_dir();
    let full = path.to_str().filter(|_| !path.exists());
    let full = full.and_then(|name| foreword_hub::full_name(name, cache.as_deref()));
    let full =
        full.map_or_else(String::new, |full| format!("perhaps {full} of the Hugging Face hub is meant; "));
    Err(UserError::new(format!("the model {} {wrong}", path.display()))
        .hint(format!(
            "{full}give {} (bundled), a directory with config.json, tokenizer.json and model.safetensors, a .gguf file, or org/name",
            foreword_tiny::NAME
        ))
        .into())
}

/// Downloads a model from the hub unless it is in the cache.
fn fetch(settings: &Settings, hub: &HubName, observer: &dyn Observer) -> Result<foreword_hub::Fetched> {
    let fetched = foreword_hub::fetch(settings, hub, &mut |event| match event {
        Event::Unreachable { why, commit } => observer.warn(&format!(
            "the hub could not be asked ({why}); {hub} is taken as it is in the cache, commit {commit}"
        )),
        Event::Begin { files, bytes: all, here } => {
            let rest = if here > 0 { format!(", {} already on disk", bytes(here)) } else { String::new() };
            let files = if files == 1 { "one file".to_owned() } else { format!("{files} files") };
            observer
                .tell("fetching", format!("{hub} from {}: {files}, {}{rest}", settings.endpoint, bytes(all)));
            observer.progress(Progress::Fetch { total: all, here });
        }
        Event::Arrived { bytes } => observer.progress(Progress::Fetched { here: bytes }),
        Event::Waiting { file } => {
            observer.tell("fetching", format!("waiting for another process that is downloading {file}"));
        }
        Event::End => observer.progress(Progress::FetchEnd),
        _ => {}
    });
    // After a failure too.
    observer.progress(Progress::FetchEnd);
    Ok(fetched?)
}
