//! The lock on an output directory: one run at a time writes there.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Result, UserError, unwritable};
use crate::format::LOCK_FILE;

/// Number of attempts to lock a file that others remove.
const ATTEMPTS: usize = 100;

/// A lock on a directory, held from the start until it is released or dropped.
#[derive(Debug)]
pub(super) struct OutputLock {
    out: PathBuf,
    held: Mutex<Option<Held>>,
}

impl OutputLock {
    /// Locks a directory, which is made if needed.
    ///
    /// # Errors
    /// If another run holds the lock, or the directory is not writable.
    pub(super) fn take(out: &Path) -> Result<Self> {
        Ok(Self { out: out.to_owned(), held: Mutex::new(Some(Held::take(out)?)) })
    }

    /// Locks the directory again if the lock was released.
    ///
    /// # Errors
    /// As [`OutputLock::take`].
    pub(super) fn hold(&self) -> Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = Some(Held::take(&self.out)?);
        }
        Ok(())
    }

    /// Releases the lock.
    pub(super) fn release(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A held lock. When it is dropped, its file is removed, and the directories that were made for it if they are empty.
#[derive(Debug)]
struct Held {
    file: Option<File>,
    path: PathBuf,
    /// The directories that were made for it, outermost first.
    made: Vec<PathBuf>,
}

impl Held {
    fn take(out: &Path) -> Result<Self> {
        let missing = out.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let mut made: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        made.reverse();
        let cannot = |error| {
            let what = format!("a prompt to --out {}", out.display());
            unwritable(what.clone(), error, |why| UserError::new(format!("cannot write {what}: {why}")))
        };
        std::fs::create_dir_all(out).map_err(cannot)?;
        let mut held = Self { file: None, path: out.join(LOCK_FILE), made };
        for _ in 0..ATTEMPTS {
            let options =
                File::options().read(true).write(true).create(true).truncate(false).open(&held.path);
            let mut file = options.map_err(cannot)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(held.refused()),
                // Some network file systems have no locks.
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => return Ok(held),
                Err(TryLockError::Error(error)) => return Err(cannot(error).into()),
            }
            let id = format!("{}\n", std::process::id());
            let written =
                file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(id.as_bytes()));
            written.map_err(cannot)?;
            // Another run may have removed the file after it was opened here: then this lock is on nothing.
            if is_at(&file, &held.path) {
                held.file = Some(file);
                return Ok(held);
            }
        }
        Err(held.refused())
    }

    /// The error that another run holds the lock. Nothing of it is removed.
    fn refused(mut self) -> crate::Error {
        self.made.clear();
        let holder = std::fs::read_to_string(&self.path).ok().and_then(|id| id.trim().parse::<u32>().ok());
        let holder = holder.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"));
        let out = self.path.parent().unwrap_or(&self.path).display().to_string();
        UserError::new(format!("{out} is in use: {holder} writes a prompt there"))
            .hint("give another --out, or wait until it ends")
            .into()
    }
}

/// Whether a file is the one at a path.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        file.metadata().map(id).ok() == std::fs::metadata(path).map(id).ok()
    }
    #[cfg(not(unix))]
    {
        // An open file is not removed.
        let _ = (file, path);
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.file.is_some() {
            drop(std::fs::remove_file(&self.path));
        }
        for dir in self.made.iter().rev() {
            // Not if there is something in it.
            drop(std::fs::remove_dir(dir));
        }
    }
}
