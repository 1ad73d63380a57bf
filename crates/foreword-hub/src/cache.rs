//! The standard cache on disk, with the layout of Python's huggingface_hub:
//!
//! ```text
//! models--org--name/blobs/<etag>                 the contents
//! models--org--name/snapshots/<commit>/<file>    links to them
//! models--org--name/refs/<revision>              the last known commit of a branch or tag
//! models--org--name/.no_exist/<commit>/<file>    marks a file that the commit does not have
//! .locks/models--org--name/<etag>.lock           held while a blob is written
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use foreword_backbone::files::{self, INDEX, WEIGHTS};
use foreword_format::HubName;

use crate::error::HubError;
use crate::wanted::{required, settled};

const PREFIX: &str = "models--";

/// One repository in the cache.
#[derive(Debug)]
pub(crate) struct Repository {
    dir: PathBuf,
    locks: PathBuf,
}

/// What the cache has of a model.
#[derive(Debug)]
pub(crate) struct Found {
    /// The directory of the snapshot, or the named file in it.
    pub(crate) path: PathBuf,
    /// The commit.
    pub(crate) commit: String,
    /// Whether the cache has everything that the hub might have.
    pub(crate) is_all: bool,
}

impl Repository {
    /// The repository of `name` in `cache`.
    pub(crate) fn of(cache: &Path, name: &HubName) -> Self {
        let folder = format!("{PREFIX}{}", name.repository().replace('/', "--"));
        Self { dir: cache.join(&folder), locks: cache.join(".locks").join(folder) }
    }

    /// The commit of `revision` at the last request.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.dir.join("refs").join(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Stores the commit of `revision`.
    pub(crate) fn point(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.dir.join("refs").join(revision);
        // A unique name for this write: other processes and threads may be writing the same file.
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let (process, write) = (std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
        let beside = self.dir.join("refs").join(format!("{revision}.{process}-{write}.incomplete"));
        make_parent(&path)?;
        fs::write(&beside, commit).map_err(|source| HubError::Io {
            action: "write",
            path: beside.clone(),
            source,
        })?;
        fs::rename(&beside, &path).map_err(|source| HubError::Io { action: "write", path, source })
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.dir.join("blobs").join(etag)
    }

    /// The model at `commit`, if all of it is cached.
    pub(crate) fn found(&self, commit: &str, file: Option<&str>) -> Option<Found> {
        let snapshot = self.snapshot(commit);
        let has = |name: &str| snapshot.join(name).is_file();
        if let Some(file) = file {
            let path = snapshot.join(file);
            return path.is_file().then(|| Found { path, commit: commit.to_owned(), is_all: true });
        }
        let has_weights = || {
            has(WEIGHTS)
                || fs::read(snapshot.join(INDEX)).is_ok_and(|index| {
                    files::shards(&index).is_ok_and(|names| names.iter().all(|name| has(name)))
                })
        };
        if required(has).is_none() || !has_weights() {
            return None;
        }
        let is_settled =
            |name: &str| has(name) || self.dir.join(".no_exist").join(commit).join(name).exists();
        let is_all = settled().all(is_settled);
        Some(Found { path: snapshot, commit: commit.to_owned(), is_all })
    }

    /// Stores that `commit` has no `file`, if the cache is writable: it only saves a request.
    pub(crate) fn note_absent(&self, commit: &str, file: &str) {
        let path = self.dir.join(".no_exist").join(commit).join(file);
        if !path.exists() && make_parent(&path).is_ok() {
            drop(File::create(&path));
        }
    }

    /// Links `file` of `commit` to the blob `etag`.
    pub(crate) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(file);
        if path.is_file() {
            return Ok(());
        }
        make_parent(&path)?;
        if path.symlink_metadata().is_ok() {
            // Its blob was removed.
            fs::remove_file(&path).map_err(|source| HubError::Io {
                action: "write",
                path: path.clone(),
                source,
            })?;
        }
        let up = "../".repeat(Path::new(file).components().count() + 1);
        let made = symlink(&PathBuf::from(format!("{up}blobs/{etag}")), &path);
        match made {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // A file system without links: the file itself is stored there, as in Python.
            Err(_) => fs::rename(self.blob(etag), &path).map_err(|source| HubError::Io {
                action: "write",
                path,
                source,
            }),
            Ok(()) => Ok(()),
        }
    }

    /// A lock on a blob, held until it is dropped; calls `wait` if another process holds it.
    pub(crate) fn lock(&self, etag: &str, wait: impl FnOnce()) -> Result<File, HubError> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let lock = || {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            match file.try_lock() {
                Err(fs::TryLockError::WouldBlock) => {
                    wait();
                    file.lock()?;
                }
                // Without locks there is nothing to wait for.
                Err(fs::TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => {
                    return Err(error);
                }
                Err(fs::TryLockError::Error(_)) | Ok(()) => {}
            }
            Ok(file)
        };
        lock().map_err(|source| HubError::Io { action: "lock", path: path.clone(), source })
    }
}

#[cfg(unix)]
fn symlink(to: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}

#[cfg(windows)]
fn symlink(to: &Path, at: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(to, at)
}

pub(crate) fn make_parent(path: &Path) -> Result<(), HubError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(|source| HubError::Io {
        action: "make the directory",
        path: parent.to_owned(),
        source,
    })
}

/// Whether this is a full commit hash.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A commit of a repository in the cache, complete or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// `org/name`.
    pub repository: String,
    /// The branch or tag that pointed to it at the last request; `main` before others.
    pub revision: Option<String>,
    /// The commit.
    pub commit: String,
    /// The directory with its files.
    pub path: PathBuf,
}

/// All models in the cache, in the order of their names; empty if it is not a cache.
#[must_use]
pub fn cached(cache: &Path) -> Vec<Cached> {
    let mut all = Vec::new();
    for folder in names(cache) {
        let Some((owner, name)) = folder.strip_prefix(PREFIX).and_then(|name| name.split_once("--")) else {
            continue;
        };
        let dir = cache.join(&folder);
        let mut refs = Vec::new();
        references(&dir.join("refs"), &mut refs);
        for commit in names(&dir.join("snapshots")) {
            let mut of_it = refs.iter().filter(|(_, points_to)| *points_to == commit).map(|(name, _)| name);
            let revision = of_it.clone().find(|name| *name == "main").or_else(|| of_it.next());
            all.push(Cached {
                repository: format!("{owner}/{name}"),
                revision: revision.cloned(),
                path: dir.join("snapshots").join(&commit),
                commit,
            });
        }
    }
    all
}

/// Names in a directory, in order.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Branches and tags below `dir`, each with its commit.
fn references(dir: &Path, found: &mut Vec<(String, String)>) {
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for name in names(&dir.join(&folder)) {
            let below = folder.join(name);
            match fs::read_to_string(dir.join(&below)) {
                Ok(commit) => {
                    let parts = below.components().filter_map(|part| match part {
                        Component::Normal(part) => part.to_str(),
                        _ => None,
                    });
                    found.push((parts.collect::<Vec<_>>().join("/"), commit.trim().to_owned()));
                }
                Err(_) if dir.join(&below).is_dir() => folders.push(below),
                Err(_) => {}
            }
        }
    }
    found.sort();
}
