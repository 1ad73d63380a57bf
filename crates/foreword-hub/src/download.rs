//! Downloads one file from the hub to the cache: resumed, verified, and only then given its final name.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::thread;

use sha2::{Digest as _, Sha256};

use crate::cache::{Repository, make_parent};
use crate::error::HubError;
use crate::http::{About, Client, Stated, text};

/// Maximum number of successive attempts without progress.
const TRIES: u32 = 5;
/// Read size in bytes.
const PIECE: usize = 1 << 17;

/// A file to download.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Its path in the repository.
    pub(crate) file: String,
    /// Its URL.
    pub(crate) url: String,
    /// What the hub states about it.
    pub(crate) stated: Stated,
}

impl Wanted {
    /// How much of it is in the cache.
    pub(crate) fn here(&self, repository: &Repository) -> u64 {
        let blob = repository.blob(&self.stated.etag);
        let part = || beside(&blob).metadata().map_or(0, |metadata| metadata.len()).min(self.stated.size);
        match self.stated.sha256() {
            _ if blob.is_file() => self.stated.size,
            Some(_) => part(),
            None => 0,
        }
    }

    /// Downloads its contents to the cache; `arrived` receives the growing number of bytes.
    pub(crate) fn fetch(
        &self,
        client: &Client<'_>,
        about: About<'_>,
        repository: &Repository,
        (arrived, wait): (&mut dyn FnMut(u64), &mut dyn FnMut()),
    ) -> Result<(), HubError> {
        let blob = repository.blob(&self.stated.etag);
        let _lock = repository.lock(&self.stated.etag, wait)?;
        // The previous holder of the lock may have downloaded it.
        if blob.is_file() {
            arrived(self.stated.size);
            return Ok(());
        }
        make_parent(&blob)?;
        let part = beside(&blob);
        let io = |action| move |path: &Path, source| HubError::Io { action, path: path.to_owned(), source };
        let opened = File::options().create(true).truncate(false).read(true).write(true).open(&part);
        let mut out = opened.map_err(|source| io("write")(&part, source))?;
        if self.stated.sha256().is_none() {
            // The partial file could not be told from another one.
            self.begin_again(&mut out, &part)?;
        }
        let mut was_here = out.metadata().is_ok_and(|metadata| metadata.len() > 0);
        loop {
            let whole = self.complete(client, about, (&mut out, &part), arrived);
            match whole.and_then(|()| self.check(&mut out, &part)) {
                Ok(()) => break,
                // The partial file was of another version.
                Err(HubError::Digest { .. }) if was_here => {
                    self.begin_again(&mut out, &part)?;
                    was_here = false;
                }
                Err(error) => {
                    if matches!(error, HubError::Size { .. } | HubError::Digest { .. }) {
                        drop(fs::remove_file(&part));
                    }
                    return Err(error);
                }
            }
        }
        out.sync_all().map_err(|source| io("write")(&part, source))?;
        drop(out);
        fs::rename(&part, &blob).map_err(|source| io("write")(&blob, source))
    }

    /// Downloads all of it, with as many attempts as needed.
    fn complete(
        &self,
        client: &Client<'_>,
        about: About<'_>,
        (out, part): (&mut File, &Path),
        arrived: &mut dyn FnMut(u64),
    ) -> Result<(), HubError> {
        let mut tries = 0;
        let mut at = out.metadata().map_or(0, |metadata| metadata.len());
        if at > self.stated.size {
            at = self.begin_again(out, part)?;
        }
        while at < self.stated.size {
            let before = at;
            match self.go_on(client, about, (&mut *out, part), &mut at, arrived) {
                Ok(()) => {}
                Err(Broken::For(error)) => return Err(error),
                Err(Broken::Off(why)) => {
                    tries = if at > before { 1 } else { tries + 1 };
                    if tries >= TRIES {
                        let (file, size) = (self.file.clone(), self.stated.size);
                        return Err(HubError::Cut { file, at, size, why });
                    }
                    thread::sleep(client.patience(tries));
                }
            }
        }
        Ok(())
    }

    /// Downloads more of it, until it ends or the connection breaks.
    fn go_on(
        &self,
        client: &Client<'_>,
        about: About<'_>,
        (out, part): (&mut File, &Path),
        at: &mut u64,
        arrived: &mut dyn FnMut(u64),
    ) -> Result<(), Broken> {
        let response = client.bytes(&self.url, *at, about).map_err(|error| match error {
            HubError::Unreachable { why, .. } => Broken::Off(why),
            HubError::Status { status, .. } => Broken::Off(format!("status {status}")),
            other => Broken::For(other),
        })?;
        let begins = response.status().as_u16() == 206 && {
            let range = text(response.headers(), "content-range").unwrap_or_default();
            range.strip_prefix("bytes ").is_some_and(|range| range.starts_with(&format!("{at}-")))
        };
        if !begins {
            // The hub does not support ranges.
            let was_middle = *at > 0;
            *at = self.begin_again(out, part)?;
            if response.status().as_u16() != 200 {
                let why = format!("status {} for the rest of it", response.status().as_u16());
                return if was_middle { Err(Broken::Off(why)) } else { Err(Broken::For(self.nonsense(why))) };
            }
        }
        let rest = self.stated.size - *at;
        if let Some(sent) = response.body().content_length().filter(|&sent| sent != rest) {
            let (file, url, stated) = (self.file.clone(), self.url.clone(), self.stated.size);
            return Err(HubError::Size { file, url, stated, sent: *at + sent }.into());
        }
        let write = |source| HubError::Io { action: "write", path: part.to_owned(), source };
        out.seek(SeekFrom::Start(*at)).map_err(write)?;
        let mut reader = response.into_body().into_reader();
        let mut piece = vec![0; PIECE];
        loop {
            let n = match reader.read(&mut piece) {
                Ok(0) if *at < self.stated.size => {
                    return Err(Broken::Off("the connection was closed".to_owned()));
                }
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Broken::Off(error.to_string())),
            };
            if *at + n as u64 > self.stated.size {
                let (file, url, stated) = (self.file.clone(), self.url.clone(), self.stated.size);
                return Err(HubError::Size { file, url, stated, sent: *at + n as u64 }.into());
            }
            out.write_all(&piece[..n]).map_err(write)?;
            *at += n as u64;
            arrived(*at);
        }
    }

    fn nonsense(&self, detail: String) -> HubError {
        HubError::Answer { url: self.url.clone(), detail }
    }

    /// Discards what is on disk.
    fn begin_again(&self, out: &mut File, part: &Path) -> Result<u64, HubError> {
        out.set_len(0).map_err(|source| HubError::Io { action: "write", path: part.to_owned(), source })?;
        Ok(0)
    }

    /// Verifies the bytes on disk.
    fn check(&self, out: &mut File, part: &Path) -> Result<(), HubError> {
        let Some(stated) = self.stated.sha256() else { return Ok(()) };
        let read = |source| HubError::Io { action: "read", path: part.to_owned(), source };
        out.rewind().map_err(read)?;
        let mut hash = Sha256::new();
        let mut piece = vec![0; PIECE];
        loop {
            match out.read(&mut piece).map_err(read)? {
                0 => break,
                n => hash.update(&piece[..n]),
            }
        }
        let found: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        if found.eq_ignore_ascii_case(stated) {
            return Ok(());
        }
        Err(HubError::Digest { file: self.file.clone(), stated: stated.to_owned(), found })
    }
}

/// Why a download stopped.
enum Broken {
    /// The connection broke; another attempt may succeed.
    Off(String),
    /// A permanent error.
    For(HubError),
}

impl From<HubError> for Broken {
    fn from(error: HubError) -> Self {
        Self::For(error)
    }
}

/// The path of an incomplete blob; Python uses the same name.
fn beside(blob: &Path) -> std::path::PathBuf {
    let mut name = blob.as_os_str().to_owned();
    name.push(".incomplete");
    name.into()
}
