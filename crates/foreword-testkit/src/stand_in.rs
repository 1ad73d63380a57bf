//! A stand-in for the Hugging Face hub: as much of its HTTP interface as is used, and its ways to fail. Large files are sent to
//! a store at another address, as the hub does it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use sha2::{Digest as _, Sha256};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Of the hub itself, not of its store.
    pub of_hub: bool,
    /// `GET /path`.
    pub line: String,
    /// What `Authorization` says.
    pub token: Option<String>,
    /// What `Range` says.
    pub range: Option<String>,
}

/// A repository with one revision.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    pub files: BTreeMap<String, Vec<u8>>,
    pub commit: String,
    /// The only token that is let in.
    pub gate: Option<String>,
    /// Where it lives now.
    pub moved: Option<String>,
}

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The connection ends after so many bytes of a large file, so many times.
    pub cut: Option<(usize, usize)>,
    /// So many answers have this status instead.
    pub status: Option<(u16, usize)>,
    /// The store sends so many bytes fewer than stated, and says so.
    pub short: usize,
    /// The store sends other bytes.
    pub spoiled: bool,
    /// The store knows no ranges.
    pub whole_only: bool,
    /// The ETag of every file.
    pub etag: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    faults: Faults,
    asked: Vec<Asked>,
    /// The token that is known; any other is refused.
    known: Option<String>,
}

/// The hub and its store, until it is dropped.
pub struct StandIn {
    state: Arc<Mutex<State>>,
    addresses: [SocketAddr; 2],
    gone: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn is_large(file: &str) -> bool {
    [".safetensors", ".gguf", ".bin"].iter().any(|ending| file.ends_with(ending))
}

impl StandIn {
    /// An empty one.
    pub fn new() -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = [0, 1].map(|i: usize| listeners[i].local_addr().unwrap());
        let (state, gone) = (Arc::<Mutex<State>>::default(), Arc::<AtomicBool>::default());
        let threads = listeners.into_iter().enumerate().map(|(i, listener)| {
            let (state, gone) = (Arc::clone(&state), Arc::clone(&gone));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if gone.load(Ordering::SeqCst) {
                        return;
                    }
                    let (state, stream) = (Arc::clone(&state), stream.unwrap());
                    // Whoever asked may be gone.
                    thread::spawn(move || drop(answer(&state, &stream, i == 0, addresses[1])));
                }
            })
        });
        let threads = threads.collect();
        Self { state, addresses, gone, threads }
    }

    /// What `HF_ENDPOINT` is to be.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addresses[0])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Puts a repository there, or another commit of it.
    pub fn model(&self, name: &str, files: &[(&str, &[u8])]) -> String {
        let files: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(file, bytes)| ((*file).to_owned(), bytes.to_vec())).collect();
        let commit = hex(format!("{files:?}").as_bytes())[..40].to_owned();
        let repository = Repository { files, commit: commit.clone(), gate: None, moved: None };
        self.state().repositories.insert(name.to_owned(), repository);
        commit
    }

    /// Changes a repository.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Repository)) {
        change(self.state().repositories.get_mut(name).unwrap());
    }

    /// Lets something go wrong from now on.
    pub fn fail(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Refuses every other token.
    pub fn know(&self, token: &str) {
        self.state().known = Some(token.to_owned());
    }

    /// What was asked since this was last called.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().asked)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        for address in self.addresses {
            drop(TcpStream::connect(address));
        }
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// An answer but for its body.
struct Head {
    status: u16,
    headers: Vec<(&'static str, String)>,
}

impl Head {
    fn of(status: u16) -> Self {
        Self { status, headers: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn refusal(status: u16, code: &str) -> Self {
        let head = Self::of(status).with("X-Error-Message", "as the hub says it");
        if code.is_empty() { head } else { head.with("X-Error-Code", code) }
    }
}

fn answer(
    state: &Mutex<State>,
    mut stream: &TcpStream,
    of_hub: bool,
    store: SocketAddr,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let line = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut asked = Asked { of_hub, line: line.replace(" HTTP/1.1", ""), token: None, range: None };
    for line in lines {
        let line = line?;
        match line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())) {
            Some((name, value)) if name == "authorization" => asked.token = Some(value),
            Some((name, value)) if name == "range" => asked.range = Some(value),
            Some(_) => {}
            None => break,
        }
    }
    let Some((method, path)) = asked.line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())) else {
        return Ok(());
    };
    let mut state = state.lock().unwrap();
    state.asked.push(asked.clone());
    let (head, body) = match &mut state.faults.status {
        Some((status, left)) if *left > 0 => {
            *left -= 1;
            (Head::of(*status), Vec::new())
        }
        _ if of_hub => of_the_hub(&state, &path, asked.token.as_deref(), store),
        _ => of_the_store(&state, &path, asked.range.as_deref()),
    };
    let mut sent = body.len();
    if let Some((after, left)) = &mut state.faults.cut
        && !of_hub
        && *left > 0
    {
        *left -= 1;
        sent = sent.min(*after);
    }
    drop(state);
    let mut text = format!("HTTP/1.1 {} So\r\nConnection: close\r\n", head.status);
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{text}Content-Length: {}\r\n\r\n", body.len()).as_bytes())?;
    if method != "HEAD" {
        stream.write_all(&body[..sent])?;
    }
    stream.flush()
}

fn of_the_hub(state: &State, path: &str, token: Option<&str>, store: SocketAddr) -> (Head, Vec<u8>) {
    let refused = |status, code| (Head::refusal(status, code), Vec::new());
    let is_known = |token: &str| state.known.as_ref().is_none_or(|known| token == format!("Bearer {known}"));
    if token.is_some_and(|token| !is_known(token)) {
        return refused(401, "");
    }
    let (is_list, path) = match path.strip_prefix("/api/models/") {
        Some(path) => (true, path),
        None => (false, &path[1..]),
    };
    let mut parts = path.splitn(4, '/').map(|part| part.replace("%2F", "/"));
    let name = [parts.next(), parts.next()].map(Option::unwrap_or_default).join("/");
    let rest = parts.collect::<Vec<_>>().join("/");
    let Some(repository) = state.repositories.get(&name) else {
        // As the hub does it: who may not know learns nothing.
        return if token.is_some() { refused(404, "RepoNotFound") } else { refused(401, "") };
    };
    if let Some(moved) = &repository.moved {
        let api = if is_list { "/api/models" } else { "" };
        return (Head::of(307).with("Location", format!("{api}/{moved}/{rest}")), Vec::new());
    }
    let (_, rest) = rest.split_once('/').unwrap();
    if is_list {
        if rest != "main" && rest != repository.commit {
            return refused(404, "RevisionNotFound");
        }
        let siblings: Vec<String> =
            repository.files.keys().map(|file| format!(r#"{{"rfilename": "{file}"}}"#)).collect();
        let list = format!(r#"{{"sha": "{}", "siblings": [{}]}}"#, repository.commit, siblings.join(", "));
        return (Head::of(200).with("Content-Type", "application/json"), list.into_bytes());
    }
    if let Some(gate) = &repository.gate
        && token != Some(&format!("Bearer {gate}"))
    {
        return refused(if token.is_none() { 401 } else { 403 }, "GatedRepo");
    }
    let (commit, file) = rest.split_once('/').unwrap();
    let bytes = repository.files.get(file).filter(|_| commit == repository.commit);
    let Some(bytes) = bytes else { return refused(404, "EntryNotFound") };
    let digest = hex(bytes);
    let etag = |usual: &str| format!("\"{}\"", state.faults.etag.as_deref().unwrap_or(usual));
    if is_large(file) {
        let head = Head::of(302)
            .with("Location", format!("http://{store}/{name}/{file}?signature=secret"))
            .with("X-Linked-Size", bytes.len().to_string())
            .with("X-Linked-ETag", etag(&digest));
        return (head, Vec::new());
    }
    (Head::of(200).with("ETag", etag(&digest[..40])), bytes.clone())
}

fn of_the_store(state: &State, path: &str, range: Option<&str>) -> (Head, Vec<u8>) {
    let path = path.split('?').next().unwrap_or_default();
    let mut parts = path[1..].splitn(3, '/');
    let name = [parts.next(), parts.next()].map(Option::unwrap_or_default).join("/");
    let mut bytes = state.repositories[&name].files[parts.next().unwrap()].clone();
    if state.faults.spoiled {
        bytes[0] ^= 1;
    }
    bytes.truncate(bytes.len() - state.faults.short);
    let from = range
        .filter(|_| !state.faults.whole_only)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        Some(from) => {
            let span = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            (Head::of(206).with("Content-Range", span), bytes[from..].to_vec())
        }
        None => (Head::of(200), bytes),
    }
}
