//! Atomic file writes: a temporary file next to the target, flushed to disk, then renamed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::error::FormatError;

/// Writes `bytes` to `path` so that it contains either all of them or its previous contents, even if the machine stops.
///
/// # Errors
/// If the directory does not exist, can't be written or is full. Nothing is left behind then.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), FormatError> {
    let staged = Staged::write(path, bytes)?;
    staged.install()?;
    sync_directory(directory_of(path));
    Ok(())
}

/// Writes a file of any size at `path` through `write`, so that it contains either all of it or its previous contents.
///
/// # Errors
/// The errors of `write`; and if the directory does not exist, can't be written or is full. Nothing is left behind then.
pub fn write_whole_by<T, E: From<FormatError>>(
    path: &Path,
    write: impl FnOnce(&mut dyn io::Write) -> Result<T, E>,
) -> Result<T, E> {
    let failed = |source| FormatError::Io { action: "write", path: path.to_owned(), source };
    let temp = temporary_beside(path).map_err(failed)?;
    let mut buffered = io::BufWriter::with_capacity(1 << 20, temp.as_file());
    let done = write(&mut buffered)?;
    buffered.flush().map_err(failed)?;
    drop(buffered);
    temp.as_file().sync_all().map_err(failed)?;
    Staged { temp: temp.into_temp_path(), target: path.to_owned() }.install()?;
    sync_directory(directory_of(path));
    Ok(done)
}

/// A complete file under a temporary name next to its target. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct Staged {
    temp: TempPath,
    target: PathBuf,
}

impl Staged {
    /// Writes `bytes` next to `target` and waits until they are on disk.
    pub(crate) fn write(target: &Path, bytes: &[u8]) -> Result<Self, FormatError> {
        let write = || -> io::Result<TempPath> {
            let mut temp = temporary_beside(target)?;
            // On the file itself: its wrapper's errors name the temporary file, which is gone when they are read.
            temp.as_file_mut().write_all(bytes)?;
            temp.as_file().sync_all()?;
            Ok(temp.into_temp_path())
        };
        let temp =
            write().map_err(|source| FormatError::Io { action: "write", path: target.to_owned(), source })?;
        Ok(Self { temp, target: target.to_owned() })
    }

    /// Moves the file into place, replacing what was there.
    pub(crate) fn install(self) -> Result<(), FormatError> {
        let Self { temp, target } = self;
        temp.persist(&target).map_err(|failed| FormatError::Io {
            action: "write",
            path: target,
            source: failed.error,
        })
    }

    /// Leaves the temporary file, as a killed process would.
    #[cfg(test)]
    pub(crate) fn abandon(self) {
        self.temp.keep().unwrap();
    }
}

/// A file moved aside. Dropping it removes the file; restoring it moves it back.
#[derive(Debug)]
pub(crate) struct SetAside {
    temp: TempPath,
    target: PathBuf,
}

impl SetAside {
    /// Moves the file at `target` aside, if it exists.
    pub(crate) fn take(target: &Path) -> Result<Option<Self>, FormatError> {
        let move_aside = || -> io::Result<Option<TempPath>> {
            let temp = temporary_beside(target)?.into_temp_path();
            match fs::rename(target, &temp) {
                Ok(()) => Ok(Some(temp)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        let temp = move_aside().map_err(|source| FormatError::Io {
            action: "replace",
            path: target.to_owned(),
            source,
        })?;
        Ok(temp.map(|temp| Self { temp, target: target.to_owned() }))
    }

    /// Moves the file back. If that fails, it is kept under its temporary name rather than lost.
    pub(crate) fn restore(self) {
        if let Err(failed) = self.temp.persist(&self.target) {
            let _ = failed.path.keep();
        }
    }

    /// Leaves the file where it is, as a killed process would.
    #[cfg(test)]
    pub(crate) fn abandon(self) {
        self.temp.keep().unwrap();
    }
}

/// Makes renames in `dir` durable. Best effort: not every file system supports it, and the files themselves are already on
/// disk.
pub(crate) fn sync_directory(dir: &Path) {
    if cfg!(unix)
        && let Ok(dir) = File::open(dir)
    {
        let _ = dir.sync_all();
    }
}

/// The directory of `path`.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// An empty file next to `target`, with the permissions of any new file: a prompt is made to be shared.
fn temporary_beside(target: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".foreword-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(directory_of(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_that_is_not_finished_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        let write = |text: &'static str, whole: bool| {
            write_whole_by(&path, |out| {
                out.write_all(text.as_bytes()).unwrap();
                if whole {
                    Ok(7)
                } else {
                    Err(FormatError::Io { action: "write", path: "a".into(), source: io::Error::other("no") })
                }
            })
        };
        assert_eq!(write("first", true).unwrap(), 7);
        write("second", false).unwrap_err();
        assert_eq!(
            (fs::read(&path).unwrap(), names(dir.path())),
            (b"first".to_vec(), vec!["a.bin".to_owned()])
        );
        write("third", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["a.json"]);
    }

    #[test]
    fn a_failed_write_leaves_what_was_there_and_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"kept").unwrap();
        let error = write_whole(&path, b"one").unwrap_err();
        assert!(matches!(&error, FormatError::Io { path: at, .. } if *at == path), "{error:?}");
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"kept");
        assert_eq!(names(dir.path()), ["a.json"]);
        assert!(write_whole(&dir.path().join("absent/a.json"), b"one").is_err());
    }

    #[test]
    fn a_bare_file_name_lies_in_the_current_directory() {
        assert_eq!(directory_of(Path::new("a.json")), Path::new("."));
        assert_eq!(directory_of(Path::new("b/a.json")), Path::new("b"));
        assert_eq!(directory_of(Path::new("/a.json")), Path::new("/"));
    }

    #[test]
    fn a_file_set_aside_comes_back_or_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert!(SetAside::take(&path).unwrap().is_none());
        fs::write(&path, b"one").unwrap();
        let aside = SetAside::take(&path).unwrap().unwrap();
        assert!(!path.exists());
        aside.restore();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        drop(SetAside::take(&path).unwrap());
        assert!(names(dir.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_has_the_permissions_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("plain"), b"").unwrap();
        write_whole(&dir.path().join("whole"), b"").unwrap();
        let mode = |name| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode("whole"), mode("plain"));
    }
}
