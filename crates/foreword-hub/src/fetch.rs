//! From a name to files: combines the cache and the hub.

use std::fs;
use std::path::PathBuf;

use foreword_backbone::files;
use foreword_format::HubName;

use crate::cache::{Found, Repository, is_commit};
use crate::download::Wanted;
use crate::error::HubError;
use crate::http::{About, Client, Listing};
use crate::settings::Settings;
use crate::wanted::{self, OPTIONAL, Weights};

/// The default branch.
const MAIN: &str = "main";

/// A model's files on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The directory with its files, or the named `.gguf` file.
    pub path: PathBuf,
    /// The commit.
    pub commit: String,
}

impl From<Found> for Fetched {
    fn from(found: Found) -> Self {
        Self { path: found.path, commit: found.commit }
    }
}

/// An event during a download.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The hub is unreachable; the cached model is used.
    Unreachable {
        /// The reason.
        why: &'a HubError,
        /// The commit used.
        commit: &'a str,
    },
    /// Downloads begin.
    Begin {
        /// Number of files.
        files: usize,
        /// Total size in bytes.
        bytes: u64,
        /// Bytes already on disk.
        here: u64,
    },
    /// More bytes have arrived.
    Arrived {
        /// Bytes on disk.
        bytes: u64,
    },
    /// Another process is downloading this file; waiting for it.
    Waiting {
        /// The file.
        file: &'a str,
    },
    /// Everything is on disk.
    End,
}

/// The model from the cache, without contacting the hub.
#[must_use]
pub fn find(settings: &Settings, name: &HubName) -> Option<Fetched> {
    Some(in_cache(&Repository::of(&settings.cache, name), name)?.into())
}

/// The cached model, if it is complete.
fn in_cache(repository: &Repository, name: &HubName) -> Option<Found> {
    repository.found(&repository.commit(name.revision().unwrap_or(MAIN))?, name.file())
}

/// Makes the model available on this machine: from the cache, and from the hub if it is missing there or has changed.
///
/// # Errors
/// If there is no such model, access is denied, it is not supported, or the network or the disk fails.
pub fn fetch(
    settings: &Settings,
    name: &HubName,
    listen: &mut dyn FnMut(Event<'_>),
) -> Result<Fetched, HubError> {
    let repository = Repository::of(&settings.cache, name);
    let revision = name.revision().unwrap_or(MAIN);
    let found = in_cache(&repository, name);
    if settings.offline {
        let missing = || HubError::NotCached { name: name.to_string(), cache: settings.cache.clone() };
        return found.map(Fetched::from).ok_or_else(missing);
    }
    if let Some(found) = found.as_ref().filter(|found| found.is_all && is_commit(revision)) {
        // A commit never changes.
        return Ok(Fetched { path: found.path.clone(), commit: found.commit.clone() });
    }
    let about = About { repository: name.repository(), revision };
    let client = Client::new(settings);
    let fetcher = Fetcher { client: &client, about, repository: &repository };
    let fetched = client.listing(about).and_then(|listing| fetcher.fetch(name, &listing, listen));
    match (fetched, found) {
        (Err(why), Some(found)) if why.is_silence() => {
            listen(Event::Unreachable { why: &why, commit: &found.commit });
            Ok(found.into())
        }
        (fetched, _) => fetched,
    }
}

struct Fetcher<'a> {
    client: &'a Client<'a>,
    about: About<'a>,
    repository: &'a Repository,
}

impl Fetcher<'_> {
    fn fetch(
        &self,
        name: &HubName,
        listing: &Listing,
        listen: &mut dyn FnMut(Event<'_>),
    ) -> Result<Fetched, HubError> {
        let commit = &listing.commit;
        let (names, path) = if let Some(file) = name.file() {
            wanted::gguf(name, file, &listing.files)?;
            (vec![file.to_owned()], self.repository.snapshot(commit).join(file))
        } else {
            (self.names(listing, listen)?, self.repository.snapshot(commit))
        };
        self.all(commit, &names, listen)?;
        for file in wanted::settled().filter(|_| name.file().is_none()) {
            if !listing.files.iter().any(|there| there == file) {
                self.repository.note_absent(commit, file);
            }
        }
        // Only now: the branch must not point to an incomplete commit.
        self.repository.point(self.about.revision, commit)?;
        Ok(Fetched { path, commit: commit.clone() })
    }

    /// The required files. Shards are named in their index, which is downloaded first.
    fn names(&self, listing: &Listing, listen: &mut dyn FnMut(Event<'_>)) -> Result<Vec<String>, HubError> {
        let weights = wanted::weights(self.about.repository, &listing.files)?;
        let is_there = |name: &&str| listing.files.iter().any(|file| file == name);
        let required = wanted::required(|name| is_there(&name)).unwrap_or_default();
        let optional = OPTIONAL.into_iter().filter(is_there);
        let mut names: Vec<String> = required.into_iter().chain(optional).map(str::to_owned).collect();
        names.push(weights.file().to_owned());
        if weights == Weights::Whole {
            return Ok(names);
        }
        self.all(&listing.commit, &[weights.file().to_owned()], &mut |event| {
            if let Event::Waiting { .. } = event {
                listen(event);
            }
        })?;
        let path = self.repository.snapshot(&listing.commit).join(weights.file());
        let index = fs::read(&path).map_err(|source| HubError::Io { action: "read", path, source })?;
        let repository = || self.about.repository.to_owned();
        let shards =
            files::shards(&index).map_err(|source| HubError::Index { repository: repository(), source })?;
        if let Some(file) = shards.iter().find(|shard| !is_there(&shard.as_str())) {
            let hint = format!("its {} names that file: tell the owner of the repository", weights.file());
            return Err(HubError::NoFile { repository: repository(), file: file.clone(), hint });
        }
        names.extend(shards);
        Ok(names)
    }

    /// Puts all these files into the snapshot.
    fn all(&self, commit: &str, names: &[String], listen: &mut dyn FnMut(Event<'_>)) -> Result<(), HubError> {
        let snapshot = self.repository.snapshot(commit);
        let mut missing = Vec::new();
        for file in names.iter().filter(|file| !snapshot.join(file).is_file()) {
            let url = self.client.address(self.about, commit, file);
            let stated = self.client.stated(&url, self.about)?;
            missing.push(Wanted { file: file.clone(), url, stated });
        }
        let coming = |wanted: &&Wanted| wanted.here(self.repository) < wanted.stated.size;
        let here = missing.iter().map(|wanted| wanted.here(self.repository)).sum();
        let bytes = missing.iter().map(|wanted| wanted.stated.size).sum();
        if missing.iter().any(|wanted| coming(&wanted)) {
            listen(Event::Begin { files: missing.iter().filter(coming).count(), bytes, here });
        }
        let mut before = here;
        for wanted in &missing {
            before = before.saturating_sub(wanted.here(self.repository));
            let listen = std::cell::RefCell::new(&mut *listen);
            let mut arrived = |n| (listen.borrow_mut())(Event::Arrived { bytes: before + n });
            let mut wait = || (listen.borrow_mut())(Event::Waiting { file: &wanted.file });
            wanted.fetch(self.client, self.about, self.repository, (&mut arrived, &mut wait))?;
            self.repository.link(commit, &wanted.file, &wanted.stated.etag)?;
            before += wanted.stated.size;
        }
        if !missing.is_empty() {
            listen(Event::End);
        }
        Ok(())
    }
}
