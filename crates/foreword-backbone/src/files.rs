//! The files of a model: mapped from a directory, or compiled into the program. The one place that maps memory.

use std::fs;
use std::path::Path;

use foreword_kernels::Bytes;

use crate::error::BackboneError;

/// The files of a model, not yet understood.
#[derive(Debug)]
pub struct ModelFiles {
    /// The name under which a soft prompt remembers the model: its directory's, or the bundled one.
    pub name: String,
    /// `config.json`.
    pub config: Vec<u8>,
    /// `generation_config.json`, where there is one: of it, only the end tokens are read.
    pub generation_config: Option<Vec<u8>>,
    /// `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// What the model's chats look like.
    pub chat: ChatFiles,
    /// The safetensors files, by name.
    pub weights: Vec<(String, Bytes)>,
}

/// What a model's files say of chats, read only where a chat is asked for.
#[derive(Clone, Debug, Default)]
pub struct ChatFiles {
    /// `tokenizer_config.json`, where there is one: its `chat_template`, and its special tokens.
    pub tokenizer_config: Option<Vec<u8>>,
    /// `chat_template.jinja`, where there is one.
    pub template: Option<Vec<u8>>,
}

impl ModelFiles {
    /// The files of a Hugging Face directory, its weights in one file or in shards.
    ///
    /// # Errors
    /// If the directory or a file isn't there, or the shard index is not understood.
    pub fn directory(path: &Path) -> Result<Self, BackboneError> {
        let missing = |missing, hint| BackboneError::NotAModel { path: path.to_owned(), missing, hint };
        if !path.is_dir() {
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, "no such directory");
            return Err(BackboneError::Read { path: path.to_owned(), source });
        }
        let required = |name: &'static str, hint| match fs::read(path.join(name)) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing(name, hint)),
            Err(source) => Err(BackboneError::Read { path: path.join(name), source }),
        };
        let config = required("config.json", "")?;
        let generation_config = optional(path, "generation_config.json")?;
        let tokenizer = required("tokenizer.json", TOKENIZER_HINT)?;
        let chat = ChatFiles {
            tokenizer_config: optional(path, "tokenizer_config.json")?,
            template: optional(path, "chat_template.jinja")?,
        };
        let weights = if path.join("model.safetensors").exists() {
            vec!["model.safetensors".to_owned()]
        } else {
            let pickled = path.join("pytorch_model.bin").exists();
            shards(&required("model.safetensors", if pickled { PICKLE_HINT } else { "" }).or_else(
                |error| {
                    if path.join(INDEX).exists() { required(INDEX, "") } else { Err(error) }
                },
            )?)?
        };
        let weights = weights.into_iter().map(|name| Ok((name.clone(), map(&path.join(name))?)));
        let name = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name =
            name.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
        let weights = weights.collect::<Result<_, BackboneError>>()?;
        Ok(Self { name, config, generation_config, tokenizer, chat, weights })
    }
}

/// A file that a model need not have.
fn optional(directory: &Path, name: &str) -> Result<Option<Vec<u8>>, BackboneError> {
    match fs::read(directory.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BackboneError::Read { path: directory.join(name), source }),
    }
}

const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER_HINT: &str = "; a tokenizer of the older kind becomes one with \
    `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)` in Python";
const PICKLE_HINT: &str = "; its pytorch_model.bin is a pickle, which Foreword never reads: convert it once with \
    `AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(DIR)` in Python";

/// Names of the shards in a `model.safetensors.index.json`, each once.
fn shards(index: &[u8]) -> Result<Vec<String>, BackboneError> {
    let bad = |detail: &str| BackboneError::Json { file: INDEX.into(), detail: detail.to_owned() };
    let value: serde_json::Value = serde_json::from_slice(index).map_err(|error| bad(&error.to_string()))?;
    let map = value
        .get("weight_map")
        .and_then(|map| map.as_object())
        .ok_or_else(|| bad("no `weight_map` in it"))?;
    let mut names = std::collections::BTreeSet::new();
    for file in map.values() {
        let name = file.as_str().ok_or_else(|| bad("a file name is not a string"))?;
        // A shard lies beside its index; anything else could name any file of the machine.
        if Path::new(name).components().count() != 1 || name.starts_with('.') {
            return Err(bad(&format!("`{name}` is no file beside the index")));
        }
        names.insert(name.to_owned());
    }
    Ok(names.into_iter().collect())
}

#[allow(unsafe_code)]
fn map(path: &Path) -> Result<Bytes, BackboneError> {
    let read = |source| BackboneError::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(read)?;
    if file.metadata().map_err(read)?.len() == 0 {
        return Ok(Bytes::new(Vec::new()));
    }
    // SAFETY: the mapping is read-only and is never handed out as anything but bytes, which have no invalid values. If
    // another process cuts the file short while it is mapped, the system ends this process; that is the usual price of
    // mapped weights, and no memory is written.
    let mapped = unsafe { memmap2::Mmap::map(&file) }.map_err(read)?;
    Ok(Bytes::new(mapped))
}
