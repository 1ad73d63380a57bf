//! The files of a model: mapped from a directory or a GGUF file, or compiled into the program. Only this module maps memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use foreword_kernels::Bytes;

use crate::backbone::read_config;
use crate::config::without_keys;
use crate::error::BackboneError;
use crate::gguf::{self, Gguf};
use crate::notice::Notice;
use crate::tokenizer::TokenizerFile;
use crate::tokenizer::added_tokens::{self, AddedTokenFiles, MergedTokenizer};
use crate::tokenizer::vocab_files::{self, VocabFiles};

/// The files of a model, not yet parsed.
#[derive(Debug)]
pub struct ModelFiles {
    /// The name that a soft prompt records for the model: its directory's, or the bundled model's.
    pub name: String,
    /// `config.json`.
    pub config: Vec<u8>,
    /// `generation_config.json`, if there is one. Only its end tokens are read.
    pub generation_config: Option<Vec<u8>>,
    /// `tokenizer.json`, with the tokens that only the files next to it have.
    pub tokenizer: TokenizerFile,
    /// The files that define its chats.
    pub chat: ChatFiles,
    /// The safetensors files, or the parts of a GGUF file, by name.
    pub weights: Vec<(String, Bytes)>,
    /// The file of each tensor by `model.safetensors.index.json`; empty if there is none.
    pub tensor_files: BTreeMap<String, String>,
    /// Keys of the configuration that were left out of it on request.
    pub ignored_config_keys: Vec<String>,
    /// Notices about them.
    pub notices: Vec<Notice>,
}

/// The files that define a model's chats. They are read only if a chat is used.
#[derive(Clone, Debug, Default)]
pub struct ChatFiles {
    /// `tokenizer_config.json`, if there is one: its `chat_template`, and its special tokens, with those of
    /// `special_tokens_map.json`.
    pub tokenizer_config: Option<Vec<u8>>,
    /// `chat_template.jinja`, if there is one.
    pub template: Option<Vec<u8>>,
}

impl ModelFiles {
    /// The files of a model at `path`: a Hugging Face directory, or a GGUF file.
    ///
    /// # Errors
    /// As for [`Self::directory`] and [`Self::gguf`].
    pub fn open(path: &Path) -> Result<Self, BackboneError> {
        if path.is_file() { Self::gguf(path) } else { Self::directory(path) }
    }

    /// Those of these keys that the configuration has and that are understood: without them the model is computed otherwise.
    #[must_use]
    pub fn understood(&self, config_keys: &[String]) -> Vec<String> {
        let is_understood = |key: &String| {
            let others: Vec<String> = config_keys.iter().filter(|other| *other != key).cloned().collect();
            let (with_it, _) = without_keys(self.config.clone(), &others);
            let (without, removed) = without_keys(with_it.clone(), std::slice::from_ref(key));
            let spec = |config: &[u8]| read_config(config).ok().map(|(_, spec)| spec);
            !removed.is_empty() && spec(&with_it).is_some_and(|with| spec(&without).as_ref() != Some(&with))
        };
        config_keys.iter().filter(|key| is_understood(key)).cloned().collect()
    }

    /// The same without these keys of the configuration: a key that is not understood is an error, and some are no more than
    /// notes. A key of an object inside is written with a dot, as in `rope_scaling.note`.
    #[must_use]
    pub fn ignoring(mut self, config_keys: &[String]) -> Self {
        let (config, ignored) = without_keys(self.config, config_keys);
        self.config = config;
        self.ignored_config_keys.extend(ignored);
        self
    }

    /// The model in a GGUF file, or in several parts, of which `path` is one and the others lie beside it: its metadata becomes
    /// a `config.json` and a tokenizer, its tensors stay in place.
    ///
    /// # Errors
    /// If a file can't be read, is damaged, or holds an architecture or a tokenizer that is not understood.
    pub fn gguf(path: &Path) -> Result<Self, BackboneError> {
        let (name, files) = gguf::parts::beside(path);
        let named = |path: &PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((file, map(path)?))
        };
        Self::from_gguf_parts(name, files.iter().map(named).collect::<Result<_, BackboneError>>()?)
    }

    /// [`Self::gguf`] from the bytes of a file.
    ///
    /// # Errors
    /// As for [`Self::gguf`].
    pub fn from_gguf(name: String, file: String, bytes: Bytes) -> Result<Self, BackboneError> {
        Self::from_gguf_parts(name, vec![(file, bytes)])
    }

    fn from_gguf_parts(name: String, weights: Vec<(String, Bytes)>) -> Result<Self, BackboneError> {
        let gguf = Gguf::parse_parts(&weights)?;
        let parts: Vec<&[u8]> = weights.iter().map(|(_, bytes)| &bytes[..]).collect();
        let config = gguf::config::translate(&gguf, &parts)?.to_string().into_bytes();
        let (tokenizer, notices) = gguf::tokenizer::read(&gguf)?;
        let chat = ChatFiles { tokenizer_config: gguf::tokenizer::chat_config(&gguf)?, template: None };
        Ok(Self {
            name,
            config,
            generation_config: None,
            tokenizer,
            chat,
            weights,
            tensor_files: BTreeMap::new(),
            ignored_config_keys: Vec::new(),
            notices,
        })
    }

    /// The files of a Hugging Face directory, its weights in one file or in shards.
    ///
    /// # Errors
    /// If the directory or a file is missing, or the shard index can't be read.
    pub fn directory(path: &Path) -> Result<Self, BackboneError> {
        if !path.is_dir() {
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, "no such directory");
            return Err(BackboneError::Read { path: path.to_owned(), source });
        }
        let config = required(path, CONFIG, "")?;
        let generation_config = optional(path, GENERATION_CONFIG)?;
        let tokenizer = optional(path, TOKENIZER)?;
        let [config_beside, special_tokens_map, added_tokens] =
            [TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS].map(|name| optional(path, name));
        let (config_beside, special_tokens_map, added_tokens) =
            (config_beside?, special_tokens_map?, added_tokens?);
        let is_older = tokenizer.is_none();
        let (tokenizer, config_beside) = match tokenizer {
            Some(tokenizer) => (tokenizer, config_beside),
            None => {
                let (tokenizer, with_defaults) = older_tokenizer(path, config_beside.as_deref(), &config)?;
                (tokenizer, Some(with_defaults))
            }
        };
        let token_files = AddedTokenFiles {
            config: config_beside.as_deref(),
            special_tokens_map: special_tokens_map.as_deref(),
            added_tokens: added_tokens.as_deref(),
        };
        let MergedTokenizer { mut tokenizer, config: tokenizer_config, notices } =
            added_tokens::merge(tokenizer, token_files)?;
        if let Some(config) = tokenizer_config.as_deref().filter(|_| is_older) {
            tokenizer = vocab_files::with_ends(tokenizer, config)?;
        }
        let chat = ChatFiles { tokenizer_config, template: optional(path, CHAT_TEMPLATE)? };
        let tensor_files = weight_index(path)?;
        let weights = file_names(&tensor_files);
        let weights = weights.into_iter().map(|name| Ok((name.clone(), map(&path.join(name))?)));
        let name = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name =
            name.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
        let weights = weights.collect::<Result<_, BackboneError>>()?;
        Ok(Self {
            name,
            config,
            generation_config,
            tokenizer: tokenizer.into(),
            chat,
            weights,
            tensor_files,
            ignored_config_keys: Vec::new(),
            notices,
        })
    }
}

/// A `tokenizer.json` of `vocab.json` and `merges.txt`, with the `tokenizer_config.json` for it.
fn older_tokenizer(
    path: &Path,
    config: Option<&[u8]>,
    model: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), BackboneError> {
    let (Some(vocab), Some(merges)) = (optional(path, VOCAB)?, optional(path, MERGES)?) else {
        let source = std::io::ErrorKind::NotFound.into();
        return Err(not_found(path, TOKENIZER, TOKENIZER_HINT, source));
    };
    vocab_files::to_json(VocabFiles { vocab: &vocab, merges: &merges, config, model })
}

/// Reads an optional file.
fn optional(directory: &Path, name: &str) -> Result<Option<Vec<u8>>, BackboneError> {
    match fs::read(directory.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BackboneError::Read { path: directory.join(name), source }),
    }
}

/// The model's configuration.
pub const CONFIG: &str = "config.json";
/// Only its end tokens are read.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// The tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";
/// The vocabulary of a tokenizer of the older kind, which is read if there is no `tokenizer.json`.
pub const VOCAB: &str = "vocab.json";
/// Its merges.
pub const MERGES: &str = "merges.txt";
/// Its chat template, added tokens and special tokens are read.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Special tokens, if `tokenizer_config.json` has no `added_tokens_decoder`.
pub const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
/// Added tokens by their ids, under the same condition.
pub const ADDED_TOKENS: &str = "added_tokens.json";
/// A chat template in its own file.
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// The weights, if they are one file.
pub const WEIGHTS: &str = "model.safetensors";
/// Maps tensors to files, if there are several.
pub const INDEX: &str = "model.safetensors.index.json";

const TOKENIZER_HINT: &str = "; vocab.json and merges.txt will do instead of tokenizer.json, and a tokenizer of another kind \
    becomes one with `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)` in Python";
const PICKLE_HINT: &str = "; its pytorch_model.bin is a pickle, which Foreword never reads: convert it once with \
    `AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(DIR)` in Python";

/// Reads a required file.
fn required(path: &Path, name: &'static str, hint: &'static str) -> Result<Vec<u8>, BackboneError> {
    fs::read(path.join(name)).map_err(|source| not_found(path, name, hint, source))
}

/// The error of a required file that can't be read.
fn not_found(
    path: &Path,
    missing: &'static str,
    hint: &'static str,
    source: std::io::Error,
) -> BackboneError {
    if source.kind() == std::io::ErrorKind::NotFound {
        BackboneError::NotAModel { path: path.to_owned(), missing, hint }
    } else {
        BackboneError::Read { path: path.join(missing), source }
    }
}

/// Names of the files with a directory's weights.
fn file_names(tensor_files: &BTreeMap<String, String>) -> Vec<String> {
    if tensor_files.is_empty() {
        return vec![WEIGHTS.to_owned()];
    }
    tensor_files.values().cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

/// The shard of each tensor; empty if the weights are one file.
fn weight_index(path: &Path) -> Result<BTreeMap<String, String>, BackboneError> {
    if path.join(WEIGHTS).exists() {
        return Ok(BTreeMap::new());
    }
    let pickled = path.join("pytorch_model.bin").exists();
    let index = required(path, WEIGHTS, if pickled { PICKLE_HINT } else { "" });
    let tensor_files =
        by_tensor(&index.or_else(|error| {
            if path.join(INDEX).exists() { required(path, INDEX, "") } else { Err(error) }
        })?)?;
    if tensor_files.is_empty() {
        return Err(BackboneError::Json { file: INDEX.into(), detail: "its `weight_map` is empty".into() });
    }
    Ok(tensor_files)
}

/// The weight files of a directory, which must have all required files. Reads nothing but the index.
pub(crate) fn weights_at(path: &Path) -> Result<Vec<PathBuf>, BackboneError> {
    let exists = |name, hint| match fs::metadata(path.join(name)) {
        Ok(_) => Ok(()),
        Err(source) => Err(not_found(path, name, hint, source)),
    };
    exists(CONFIG, "")?;
    if ![VOCAB, MERGES].iter().all(|name| path.join(name).is_file()) {
        exists(TOKENIZER, TOKENIZER_HINT)?;
    }
    let files: Vec<PathBuf> =
        file_names(&weight_index(path)?).into_iter().map(|name| path.join(name)).collect();
    for file in &files {
        fs::metadata(file).map_err(|source| BackboneError::Read { path: file.clone(), source })?;
    }
    Ok(files)
}

/// Names of the shards in a `model.safetensors.index.json`, each once.
///
/// # Errors
/// If it can't be read, or names a file outside of its directory.
pub fn shards(index: &[u8]) -> Result<Vec<String>, BackboneError> {
    Ok(by_tensor(index)?.into_values().collect::<BTreeSet<_>>().into_iter().collect())
}

/// The shard of each tensor.
fn by_tensor(index: &[u8]) -> Result<BTreeMap<String, String>, BackboneError> {
    let bad = |detail: &str| BackboneError::Json { file: INDEX.into(), detail: detail.to_owned() };
    let value: serde_json::Value = serde_json::from_slice(index).map_err(|error| bad(&error.to_string()))?;
    let map = value
        .get("weight_map")
        .and_then(|map| map.as_object())
        .ok_or_else(|| bad("no `weight_map` in it"))?;
    let mut files = BTreeMap::new();
    for (tensor, file) in map {
        let name = file.as_str().ok_or_else(|| bad("a file name is not a string"))?;
        // A shard is in the directory of its index; another path could name any file of the machine.
        if Path::new(name).components().count() != 1 || name.starts_with('.') {
            return Err(bad(&format!("`{name}` is no file beside the index")));
        }
        files.insert(tensor.clone(), name.to_owned());
    }
    Ok(files)
}

/// Maps a file: bytes are read on access.
#[allow(unsafe_code)]
pub(crate) fn map(path: &Path) -> Result<Bytes, BackboneError> {
    let read = |source| BackboneError::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(read)?;
    if file.metadata().map_err(read)?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is read-only and is never handed out as anything but bytes, which have no invalid values. If
    // another process cuts the file short while it is mapped, the system ends this process; that is the usual price of
    // mapped weights, and no memory is written.
    let mapped = unsafe { memmap2::Mmap::map(&file) }.map_err(read)?;
    Ok(Bytes::from_owner(mapped))
}
