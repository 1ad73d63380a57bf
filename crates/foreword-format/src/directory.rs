//! The three files of a prompt: reads and cross-checks them, and replaces them so that no mixture is ever accepted as a
//! prompt.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::adapter::AdapterConfig;
use crate::choices::{Method, Placement};
use crate::digest;
use crate::error::{FormatError, Origin};
use crate::passport::Passport;
use crate::soft_prompt::SoftPrompt;
use crate::tensors::{MAX_TENSORS_BYTES, StoredRows};
use crate::whole::{SetAside, Staged, sync_directory};

/// PEFT's configuration of the prompt.
pub const ADAPTER_FILE: &str = "adapter_config.json";
/// The learned rows.
pub const TENSORS_FILE: &str = "adapter_model.safetensors";
/// The passport.
pub const PASSPORT_FILE: &str = "foreword.json";
/// PEFT's format before safetensors. Only [`crate::foreign`] reads it.
pub const PICKLE_FILE: &str = "adapter_model.bin";
/// The directory of a run's checkpoint while it is unfinished. It may exist in an otherwise empty directory.
pub const CHECKPOINT_DIR: &str = "checkpoint";
/// The file in a prompt directory that a run holds locked while it writes there; not part of the prompt.
pub const LOCK_FILE: &str = ".lock";

/// The files of a prompt.
const FILES: [&str; 3] = [TENSORS_FILE, ADAPTER_FILE, PASSPORT_FILE];
/// Maximum size of a JSON file in bytes.
const MAX_JSON_BYTES: u64 = 16 << 20;

/// A prompt directory in memory.
///
/// Without a passport it comes directly from PEFT and has the placement "front". With one, the PEFT file may be absent: it
/// exists only if PEFT would place the prompt as we do.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptDirectory {
    /// The learned numbers, `[P, W]`.
    pub rows: SoftPrompt,
    /// PEFT's configuration of them.
    pub adapter: Option<AdapterConfig>,
    /// Foreword's metadata of them.
    pub passport: Option<Passport>,
}

/// What [`PromptDirectory::write`] does if something exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Overwrite {
    /// Returns [`FormatError::Exists`].
    Refuse,
    /// Replaces the prompt once the new one is completely on disk.
    Replace,
}

impl PromptDirectory {
    /// Reads and checks a prompt directory, from Foreword or from PEFT.
    ///
    /// # Errors
    /// If a file is missing, damaged or of another kind, if the files do not belong together, and if the tensors
    /// were changed after the passport was written.
    pub fn read(dir: &Path) -> Result<Self, FormatError> {
        if !dir.is_dir() {
            return Err(FormatError::NotADirectory { path: dir.to_owned() });
        }
        let adapter = read_json(&dir.join(ADAPTER_FILE), AdapterConfig::from_json)?;
        let passport = read_json(&dir.join(PASSPORT_FILE), Passport::from_json)?;
        let stored = read_tensors(dir)?;
        if adapter.is_none() && passport.is_none() {
            return Err(FormatError::NoDescription { dir: dir.to_owned() });
        }
        if let Some(passport) = &passport
            && passport.tensors_digest != stored.digest()
        {
            return Err(FormatError::TensorsChanged {
                path: dir.join(TENSORS_FILE),
                recorded: passport.tensors_digest.clone(),
                found: stored.digest().to_owned(),
            });
        }
        let n_virtual = match &adapter {
            Some(adapter) => {
                check_stored(adapter, stored.n_rows(), dir)?;
                adapter.n_virtual()
            }
            None => stored.n_rows(),
        };
        let read = Self { rows: stored.decode(n_virtual)?, adapter, passport };
        read.check(dir)?;
        Ok(read)
    }

    /// Writes the prompt to `dir`, which is created with its parents if it does not exist.
    ///
    /// Computes the digest of the tensors in the passport. An adapter read from PEFT is written as described in
    /// [`AdapterConfig::to_json`].
    ///
    /// All files are first written under temporary names and flushed to disk. Only then are they moved into place, in an
    /// order that leaves, whenever it is interrupted, the old prompt, the new one, or something that
    /// [`PromptDirectory::read`] refuses, but never a mixture that it accepts as a prompt:
    ///
    /// 1. the old `adapter_config.json` is moved aside: the rest is the old prompt if it had a passport, and otherwise
    ///    tensors without a description, which are refused;
    /// 2. the old tensors are moved aside: without tensors the directory is refused;
    /// 3. the new tensors are moved in: an old passport does not have their digest, so they are refused;
    /// 4. the new `adapter_config.json` is moved in, if there is one: still refused if there is an old passport, and
    ///    otherwise the new rows as PEFT reads them;
    /// 5. the passport is moved in, or the old one removed: the new prompt.
    ///
    /// If a step fails while the machine keeps running, for instance because the disk is full, the steps before it are
    /// undone: the old prompt is back, and a directory that had none of the files before is left without any.
    ///
    /// # Errors
    /// If the parts do not belong together, if `dir` is not empty and `overwrite` is
    /// [`Overwrite::Refuse`], and if the disk fails.
    pub fn write(&self, dir: &Path, overwrite: Overwrite) -> Result<(), FormatError> {
        let contents = self.contents(dir)?;
        match overwrite {
            Overwrite::Refuse => check_vacant(dir)?,
            Overwrite::Replace => check_replaceable(dir)?,
        }
        let existed = dir.is_dir();
        fs::create_dir_all(dir).map_err(|source| FormatError::Io {
            action: "create",
            path: dir.to_owned(),
            source,
        })?;
        let had_files = FILES.iter().any(|file| dir.join(file).exists());
        let written = Replacement::stage(dir, &contents).and_then(Replacement::finish);
        if written.is_err() {
            if !had_files {
                for file in FILES {
                    let _ = fs::remove_file(dir.join(file)); // the first error is the one to tell
                }
            }
            if !existed {
                let _ = fs::remove_dir(dir);
            }
        }
        written
    }

    /// The contents of the three files.
    fn contents(&self, dir: &Path) -> Result<Contents, FormatError> {
        self.check(dir)?;
        let tensors = self.rows.to_safetensors()?;
        let tensors_digest = digest::sha256(&tensors);
        Ok(Contents {
            adapter: self.adapter.as_ref().map(AdapterConfig::to_json).transpose()?,
            passport: self.passport.as_ref().map(|passport| passport.to_json(&tensors_digest)).transpose()?,
            tensors,
        })
    }

    /// What was learned.
    pub fn method(&self) -> Method {
        match (&self.passport, &self.adapter) {
            (Some(passport), _) => passport.training.method,
            (None, Some(adapter)) => adapter.method(),
            (None, None) => Method::Prompt,
        }
    }

    /// Checks that the parts belong together.
    fn check(&self, dir: &Path) -> Result<(), FormatError> {
        let tensors = (TENSORS_FILE, self.rows.n_virtual(), self.rows.width());
        let adapter = self.adapter.as_ref().map(|a| (ADAPTER_FILE, a.n_virtual(), a.width()));
        let passport =
            self.passport.as_ref().map(|p| (PASSPORT_FILE, p.training.n_virtual, p.training.width));
        for (file, n_virtual, width) in adapter.into_iter().chain(passport) {
            agree("virtual tokens", dir, (file, n_virtual), (tensors.0, tensors.1))?;
            agree("row width", dir, (file, width), (tensors.0, tensors.2))?;
        }
        match (&self.adapter, &self.passport) {
            (None, None) => Err(FormatError::NoDescription { dir: dir.to_owned() }),
            (Some(adapter), Some(passport)) if adapter.method() != passport.training.method => {
                let (one, other) = (adapter.method(), passport.training.method);
                Err(FormatError::OtherMethod { dir: dir.to_owned(), one, other })
            }
            (Some(_), Some(passport)) if passport.task.placement != Placement::Front => {
                let placement = passport.task.placement;
                Err(FormatError::AdapterMisplaced { dir: dir.to_owned(), placement })
            }
            _ => Ok(()),
        }
    }
}

/// Checks that [`Overwrite::Refuse`] can write a prompt to `dir`: it does not exist, is empty, or contains only the
/// checkpoint of a run. To be called before training.
///
/// # Errors
/// [`FormatError::Exists`] with the first entry by name; [`FormatError::NotADirectory`] if it is a file.
pub fn check_vacant(dir: &Path) -> Result<(), FormatError> {
    let io = |source| FormatError::Io { action: "list", path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(FormatError::NotADirectory { path: dir.to_owned() });
        }
        Err(error) => return Err(io(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io)?;
        let is_checkpoint = entry.file_name() == CHECKPOINT_DIR && entry.path().is_dir();
        if !is_checkpoint && entry.file_name() != LOCK_FILE {
            names.push(entry.file_name());
        }
    }
    match names.into_iter().min() {
        None => Ok(()),
        Some(name) => {
            let entry = name.to_string_lossy().into_owned();
            Err(FormatError::Exists { dir: dir.to_owned(), entry })
        }
    }
}

/// Checks that each file could be replaced, before anything is changed.
fn check_replaceable(dir: &Path) -> Result<(), FormatError> {
    if dir.exists() && !dir.is_dir() {
        return Err(FormatError::NotADirectory { path: dir.to_owned() });
    }
    for file in FILES {
        let path = dir.join(file);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            return Err(FormatError::NotAFile { path });
        }
    }
    Ok(())
}

/// Checks that two files agree.
fn agree(
    quantity: &'static str,
    dir: &Path,
    one: (&str, usize),
    other: (&str, usize),
) -> Result<(), FormatError> {
    if one.1 == other.1 {
        return Ok(());
    }
    let (one_value, other_value) = (one.1, other.1);
    Err(FormatError::Disagree {
        quantity,
        one: dir.join(one.0),
        one_value,
        other: dir.join(other.0),
        other_value,
    })
}

/// Checks that the tensors have as many rows as PEFT would have stored.
fn check_stored(adapter: &AdapterConfig, n_rows: usize, dir: &Path) -> Result<(), FormatError> {
    let stored = adapter.n_stored().unwrap_or(usize::MAX);
    agree("stored rows", dir, (ADAPTER_FILE, stored), (TENSORS_FILE, n_rows))
}

/// Reads and parses a JSON file, if it exists.
fn read_json<T>(
    path: &Path,
    parse: impl FnOnce(&[u8], &Path) -> Result<T, FormatError>,
) -> Result<Option<T>, FormatError> {
    let Some((file, _)) = open(path, MAX_JSON_BYTES)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(MAX_JSON_BYTES).read_to_end(&mut bytes).map_err(|source| FormatError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    parse(&bytes, path).map(Some)
}

/// Reads the tensors of the directory, and checks their sizes.
fn read_tensors(dir: &Path) -> Result<StoredRows, FormatError> {
    let path = dir.join(TENSORS_FILE);
    match open(&path, MAX_TENSORS_BYTES)? {
        Some((mut file, bytes)) => StoredRows::read(&mut file, bytes, Origin::File(path)),
        None => {
            let pickle = dir.join(PICKLE_FILE);
            Err(if pickle.exists() {
                FormatError::Pickle { path: pickle }
            } else {
                FormatError::NoTensors { path }
            })
        }
    }
}

/// Opens a file and returns its size, if it exists.
fn open(path: &Path, limit: u64) -> Result<Option<(File, u64)>, FormatError> {
    let io = |source| FormatError::Io { action: "open", path: path.to_owned(), source };
    // Checked before opening: opening a pipe would wait for its other end.
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    if !metadata.is_file() {
        return Err(FormatError::NotAFile { path: path.to_owned() });
    }
    if metadata.len() > limit {
        return Err(FormatError::TooLarge { path: path.to_owned(), bytes: metadata.len(), limit });
    }
    let file = File::open(path).map_err(io)?;
    Ok(Some((file, metadata.len())))
}

/// The contents of the files of a prompt.
struct Contents {
    tensors: Vec<u8>,
    adapter: Option<Vec<u8>>,
    passport: Option<Vec<u8>>,
}

/// The steps of replacing a prompt, in order. [`PromptDirectory::write`] explains why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    SetAdapterAside,
    SetTensorsAside,
    Tensors,
    Adapter,
    Passport,
}

impl Step {
    const ALL: [Self; 5] =
        [Self::SetAdapterAside, Self::SetTensorsAside, Self::Tensors, Self::Adapter, Self::Passport];
}

/// New files on disk under temporary names, to be moved into place.
struct Replacement {
    dir: PathBuf,
    tensors: Option<Staged>,
    adapter: Option<Staged>,
    passport: Option<Staged>,
    old_adapter: Option<SetAside>,
    old_tensors: Option<SetAside>,
    /// New files already in place.
    installed: Vec<&'static str>,
}

impl Replacement {
    /// Writes all files under temporary names.
    fn stage(dir: &Path, contents: &Contents) -> Result<Self, FormatError> {
        let stage = |file, bytes: &[u8]| Staged::write(&dir.join(file), bytes);
        Ok(Self {
            dir: dir.to_owned(),
            tensors: Some(stage(TENSORS_FILE, &contents.tensors)?),
            adapter: contents.adapter.as_deref().map(|bytes| stage(ADAPTER_FILE, bytes)).transpose()?,
            passport: contents.passport.as_deref().map(|bytes| stage(PASSPORT_FILE, bytes)).transpose()?,
            old_adapter: None,
            old_tensors: None,
            installed: Vec::new(),
        })
    }

    /// Takes all steps. If one fails, undoes those before it.
    fn finish(mut self) -> Result<(), FormatError> {
        let finished = Step::ALL.into_iter().try_for_each(|step| self.take(step));
        if finished.is_err() {
            self.undo();
        }
        finished
    }

    /// Takes one step and makes it durable before the next.
    fn take(&mut self, step: Step) -> Result<(), FormatError> {
        let place = |file| self.dir.join(file);
        match step {
            Step::SetAdapterAside => self.old_adapter = SetAside::take(&place(ADAPTER_FILE))?,
            Step::SetTensorsAside => self.old_tensors = SetAside::take(&place(TENSORS_FILE))?,
            Step::Tensors => {
                if let Some(tensors) = self.tensors.take() {
                    tensors.install()?;
                    self.installed.push(TENSORS_FILE);
                }
            }
            Step::Adapter => {
                if let Some(adapter) = self.adapter.take() {
                    adapter.install()?;
                    self.installed.push(ADAPTER_FILE);
                }
            }
            Step::Passport => match self.passport.take() {
                Some(passport) => passport.install()?,
                None => remove(&place(PASSPORT_FILE))?,
            },
        }
        sync_directory(&self.dir);
        Ok(())
    }

    /// Removes the new files and restores the old ones, the tensors before their description: if interrupted, this too
    /// leaves something that is refused. The old passport is still in place, since its step is the last.
    fn undo(self) {
        for file in self.installed.iter().rev() {
            let _ = fs::remove_file(self.dir.join(file)); // the first error is the one to tell
        }
        for old in [self.old_tensors, self.old_adapter].into_iter().flatten() {
            old.restore();
        }
        sync_directory(&self.dir);
    }
}

/// Removes a file, if it exists.
fn remove(path: &Path) -> Result<(), FormatError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FormatError::Io { action: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
