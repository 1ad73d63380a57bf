//! Prompts of other tools, made into ours: PEFT's other methods, `.npy` arrays, and torch files, of which nothing is run.

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

/// Why a prompt of another tool can't be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForeignError {
    /// The operating system refused.
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// A file larger than any prompt.
    #[error("{path} has {bytes} bytes, more than the {MAX_TENSORS_BYTES} that are read: it is no prompt", path = path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Neither of the formats.
    #[error(
        "{path} is nothing that can be imported: give a directory of PEFT's, an .npy file, or a torch file (.pt, .bin)",
        path = path.display()
    )]
    Unknown {
        /// What was given.
        path: PathBuf,
    },
    /// A torch file of before 1.6, a bare pickle.
    #[error(
        "{path} is a bare pickle, as torch wrote before version 1.6, and is not read: load it where you trust it and save it \
         again with torch.save, or with numpy.save",
        path = path.display()
    )]
    Legacy {
        /// Which file.
        path: PathBuf,
    },
    /// A damaged or strange file.
    #[error("{path}: {reason}", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A pickle that asks for more than tensors.
    #[error(
        "{path} asks for {name}, which a file of tensors has no need of; it was not run, and the file is not read",
        path = path.display()
    )]
    Refused {
        /// Which file.
        path: PathBuf,
        /// What it asks for.
        name: String,
    },
    /// Not one matrix.
    #[error(
        "{path} holds {found}: the prompt is the tensor prompt_embeddings, or the only matrix there is",
        path = path.display()
    )]
    NoPrompt {
        /// Which file.
        path: PathBuf,
        /// Tensors with their shapes.
        found: String,
    },
    /// A prompt of several tasks.
    #[error("{path} is a prompt of {n} tasks: choose one with --task 0 to --task {last}", path = path.display(), last = n - 1)]
    WhichTask {
        /// Which directory.
        path: PathBuf,
        /// How many.
        n: usize,
    },
    /// A task of a prompt that has none.
    #[error("{path} is the prompt of one task: leave out --task", path = path.display())]
    NoTasks {
        /// What was given.
        path: PathBuf,
    },
    /// A prompt directory, or rows that are none.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// A prompt of another tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreign {
    /// Its rows, `[P, W]`.
    pub rows: SoftPrompt,
    /// What PEFT is told of them.
    pub adapter: AdapterConfig,
    /// What it was, in a word or two.
    pub format: String,
    /// What was left out, and what can't be known, each in a sentence.
    pub notes: Vec<String>,
}

/// Reads a prompt of another tool; `task` is which of several tasks (from 0), where the prompt has several.
///
/// # Errors
/// If it is of no format that is known, is damaged, or asks for anything but numbers.
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

/// The prompt in the bytes of a torch file, as [`import`] finds it: for those who have no file.
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

/// Numbers under a name.
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

/// The one matrix that is a prompt, and what is said of the others.
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

/// A whole file, no longer than a prompt can be.
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
