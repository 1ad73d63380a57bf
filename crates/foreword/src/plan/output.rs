//! Output paths, checked before any work.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lock::OutputLock;
use crate::error::Result;

use crate::error::{UserError, unwritable};
use crate::format::{Overwrite, check_vacant};
use crate::run::checkpoints;

/// The output directory of a prompt.
#[derive(Clone, Debug)]
pub struct OutputDir {
    /// The directory.
    pub out: PathBuf,
    /// What to do if a prompt exists there.
    pub overwrite: Overwrite,
    /// Resume from the checkpoint there.
    pub resume: bool,
    /// Keeps other runs out, until a run ends or the last clone is dropped.
    lock: Arc<OutputLock>,
}

impl OutputDir {
    /// A directory without a prompt.
    ///
    /// # Errors
    /// As [`OutputDir::check`].
    pub fn new(out: impl Into<PathBuf>) -> Result<Self> {
        Self::check(out.into(), false, false)
    }

    /// A directory whose prompt, if there is one, is replaced.
    ///
    /// # Errors
    /// As [`OutputDir::check`].
    pub fn replace(out: impl Into<PathBuf>) -> Result<Self> {
        Self::check(out.into(), true, false)
    }

    /// The directory of an unfinished run, which continues.
    ///
    /// # Errors
    /// As [`OutputDir::check`].
    pub fn resume(out: impl Into<PathBuf>) -> Result<Self> {
        Self::check(out.into(), false, true)
    }

    /// Locks the directory again, if a run that ended has released it.
    pub(crate) fn hold(&self) -> Result<()> {
        self.lock.hold()
    }

    /// Lets other runs write there.
    pub(crate) fn release(&self) {
        self.lock.release();
    }

    /// A directory below this one, under the same lock.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        Self { out: self.out.join(name), ..self.clone() }
    }

    /// Checks that a prompt can be written there, and locks the directory. An unfinished run that resumes replaces a
    /// finished prompt only with `force`.
    ///
    /// # Errors
    /// If it can't, if another run holds the lock, if something exists there and neither `force` nor `resume` is set, or if
    /// there is nothing to resume.
    pub fn check(out: PathBuf, force: bool, resume: bool) -> Result<Self> {
        let overwrite = if force || resume { Overwrite::Replace } else { Overwrite::Refuse };
        if out.as_os_str().is_empty() {
            return Err(UserError::new("--out is empty")
                .hint("give the directory to write the prompt to")
                .into());
        }
        let there = nearest(&out);
        let refused = |why: &str| {
            let (out, there) = (out.display(), there.display());
            UserError::new(format!("cannot write a prompt to --out {out}: {there} {why}"))
        };
        if !there.is_dir() {
            return Err(refused("is not a directory").into());
        }
        tempfile::tempfile_in(&there).map_err(|error| {
            let what = format!("a prompt to --out {}", out.display());
            unwritable(what, error, |why| refused(&format!("is not writable ({why})")))
        })?;
        let lock = OutputLock::take(&out)?;
        let unfinished = checkpoints::is_there(&out);
        if resume && !unfinished {
            return Err(UserError::new(format!(
                "there is nothing to resume: {} has no checkpoint",
                out.display()
            ))
            .hint("drop --resume to start; a finished run deletes its checkpoint")
            .into());
        }
        if resume && !force && checkpoints::has_finished_prompt(&out) {
            return Err(UserError::new(format!(
                "{} contains a finished prompt, which the unfinished run would replace",
                out.display()
            ))
            .hint(
                "--resume --force continues the run and replaces the prompt; move the prompt away to keep it",
            )
            .into());
        }
        if overwrite == Overwrite::Refuse {
            if unfinished {
                return Err(UserError::new(format!("{} contains an unfinished run", out.display()))
                    .hint("--resume continues it, --force starts over")
                    .into());
            }
            check_vacant(&out)?;
        }
        Ok(Self { out, overwrite, resume, lock: Arc::new(lock) })
    }
}

/// Whether there is the checkpoint of an unfinished run.
#[must_use]
pub fn has_checkpoint(out: &Path) -> bool {
    checkpoints::is_there(out)
}

/// The path itself, or its nearest existing ancestor.
fn nearest(out: &Path) -> PathBuf {
    let existing = out.ancestors().find(|path| !path.as_os_str().is_empty() && path.exists());
    existing.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Refuses a path that is not writable as a file; an existing file needs `force`.
pub fn check_file(path: &Path, force: bool) -> Result<()> {
    let name = path.display();
    let cannot = |why: &str| UserError::new(format!("cannot write {name}: {why}"));
    if path.is_dir() {
        return Err(cannot("it is a directory").hint("give the name of a file in it").into());
    }
    if path.exists() && !force {
        return Err(cannot("it already exists").hint("give another file, or --force to replace it").into());
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(cannot(&format!("{} is not a directory", folder.display())).into());
    }
    tempfile::tempfile_in(folder).map_err(|error| {
        let given = |why: &str| cannot(&format!("{} is not writable ({why})", folder.display()));
        unwritable(name.to_string(), error, given)
    })?;
    Ok(())
}

/// Whether two paths are the same file or directory.
#[must_use]
pub fn is_same(a: &Path, b: &Path) -> bool {
    real(a) == real(b)
}

/// The path with its links resolved, if it exists.
#[must_use]
pub fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
