//! Imports prompts from other tools: PEFT's other methods, `.npy` arrays, and torch files, without executing any code in
//! them.

mod npy;
mod peft;
mod pickle;
mod torch;
mod zip;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::adapter::AdapterConfig;
use crate::directory::ADAPTER_FILE;
use crate::error::FormatError;
use crate::soft_prompt::SoftPrompt;
use crate::tensors::MAX_TENSORS_BYTES;

pub use npy::to_npy;

/// Why a prompt from another tool can't be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForeignError {
    /// The operating system failed.
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is larger than any prompt.
    #[error("{path} has {bytes} bytes, more than the {MAX_TENSORS_BYTES} that are read: it is no prompt", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Not a supported format.
    #[error(
        "{path} is nothing that can be imported: give a directory of PEFT's, an .npy file, or a torch file (.pt, .bin)",
        path = path.display()
    )]
    Unknown {
        /// The given path.
        path: PathBuf,
    },
    /// A torch file from before version 1.6: a bare pickle.
    #[error(
        "{path} is a bare pickle, as torch wrote before version 1.6, and is not read: load it where you trust it and save it \
         again with torch.save, or with numpy.save",
        path = path.display()
    )]
    Legacy {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged or unsupported.
    #[error("{path}: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A pickle that refers to more than tensors.
    #[error(
        "{path} asks for {name}, which a file of tensors has no need of; it was not run, and the file is not read",
        path = path.display()
    )]
    Refused {
        /// The file.
        path: PathBuf,
        /// The name that it refers to.
        name: String,
    },
    /// Not a single matrix.
    #[error(
        "{path} holds {found}: the prompt is the tensor prompt_embeddings, or the only matrix there is",
        path = path.display()
    )]
    NoPrompt {
        /// The file.
        path: PathBuf,
        /// The tensors with their shapes.
        found: String,
    },
    /// A prompt for several tasks, without a choice.
    #[error("{path} is a prompt of {n} tasks: choose one with --task 0 to --task {last}", path = path.display(), last = n - 1)]
    WhichTask {
        /// The directory.
        path: PathBuf,
        /// Number of tasks.
        n: usize,
    },
    /// A task index for a prompt without several tasks.
    #[error("{path} is the prompt of one task: leave out --task", path = path.display())]
    NoTasks {
        /// The given path.
        path: PathBuf,
    },
    /// An error in a prompt directory or in the rows.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// A prompt from another tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreign {
    /// Its rows, `[P, W]`.
    pub rows: SoftPrompt,
    /// PEFT's configuration for them.
    pub adapter: AdapterConfig,
    /// The original format, in a word or two.
    pub format: String,
    /// What was dropped and what can't be known, each as a sentence.
    pub notes: Vec<String>,
}

/// Reads a prompt from another tool; `task` is the index of the task (from 0) if the prompt has several.
///
/// # Errors
/// If its format is unknown, it is damaged, or it refers to anything but numbers.
pub fn import(path: &Path, task: Option<usize>) -> Result<Foreign, ForeignError> {
    if path.is_dir() {
        return peft::read(path, task);
    }
    if task.is_some() {
        return Err(ForeignError::NoTasks { path: path.to_owned() });
    }
    let bytes = read(path)?;
    let (rows, format, mut notes) = if bytes.starts_with(npy::MAGIC) {
        (npy::read(&bytes, path)?, "npy", Vec::new())
    } else if zip::is_zip(&bytes) {
        let (rows, notes) = prompt(torch::read(&bytes, path)?, path)?;
        (rows, "torch", notes)
    } else if bytes.first() == Some(&pickle::PROTO) {
        return Err(ForeignError::Legacy { path: path.to_owned() });
    } else {
        return Err(ForeignError::Unknown { path: path.to_owned() });
    };
    notes.push(
        "nothing in the file says for which model it was made; it is taken to be one for a decoder"
            .to_owned(),
    );
    let adapter = AdapterConfig::causal_lm(rows.n_virtual(), rows.width())?;
    Ok(Foreign { rows, adapter, format: format.to_owned(), notes })
}

/// The prompt in the bytes of a torch file, as found by [`import`].
///
/// # Errors
/// As [`import`].
pub fn from_torch(bytes: &[u8]) -> Result<SoftPrompt, ForeignError> {
    let path = Path::new("the torch file");
    Ok(prompt(torch::read(bytes, path)?, path)?.0)
}

/// The prompt in the bytes of an `.npy` file.
///
/// # Errors
/// As [`import`].
pub fn from_npy(bytes: &[u8]) -> Result<SoftPrompt, ForeignError> {
    npy::read(bytes, Path::new("the npy file"))
}

/// Named numbers.
#[derive(Clone, Debug, PartialEq)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Tensor {
    fn described(&self) -> String {
        let shape: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        let name = if self.name.is_empty() { "a tensor without a name" } else { &self.name };
        format!("{name} [{}]", shape.join(", "))
    }
}

/// The one matrix that is a prompt, with notes on the others.
fn prompt(mut tensors: Vec<Tensor>, path: &Path) -> Result<(SoftPrompt, Vec<String>), ForeignError> {
    let named = tensors.iter().position(|tensor| tensor.name == "prompt_embeddings");
    let is_matrix = |tensor: &Tensor| tensor.shape.len() == 2;
    let only =
        tensors.iter().position(is_matrix).filter(|_| tensors.iter().filter(|t| is_matrix(t)).count() == 1);
    let Some(idx) = named.or(only) else {
        let found = match &tensors[..] {
            [] => "no tensor".to_owned(),
            tensors => tensors.iter().take(5).map(Tensor::described).collect::<Vec<_>>().join(", "),
        };
        return Err(ForeignError::NoPrompt { path: path.to_owned(), found });
    };
    let Tensor { shape, values, .. } = tensors.remove(idx);
    let &[n_virtual, width] = &shape[..] else {
        let reason = format!("prompt_embeddings has {} dimensions, not 2", shape.len());
        return Err(damaged(path, reason));
    };
    let others: Vec<String> = tensors.iter().map(Tensor::described).collect();
    let notes = if others.is_empty() {
        Vec::new()
    } else {
        vec![format!("left out: {}; what was trained with them is not the same without", others.join(", "))]
    };
    Ok((SoftPrompt::new(values, n_virtual, width)?, notes))
}

fn damaged(path: &Path, reason: impl Into<String>) -> ForeignError {
    ForeignError::Damaged { path: path.to_owned(), reason: reason.into() }
}

/// Reads a whole file, up to the maximum size of a prompt.
fn read(path: &Path) -> Result<Vec<u8>, ForeignError> {
    let io = |source| ForeignError::Io { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        return Err(ForeignError::Unknown { path: path.to_owned() });
    }
    if metadata.len() > MAX_TENSORS_BYTES {
        return Err(ForeignError::TooLarge { path: path.to_owned(), bytes: metadata.len() });
    }
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(io)?.take(MAX_TENSORS_BYTES).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
