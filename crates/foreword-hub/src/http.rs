//! HTTP requests to the hub. The token is sent to the endpoint and nowhere else.

use std::thread;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{HeaderMap, Method, Request, Response, Uri, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::cache::is_commit;
use crate::error::HubError;
use crate::settings::Settings;

/// Maximum number of redirects per request.
const MOST_REDIRECTS: usize = 10;
/// Maximum number of attempts while the hub reports errors.
const TRIES: u32 = 3;
/// Maximum size in bytes of the list of a repository's files.
const LARGEST_LIST: u64 = 64 << 20;

/// Sends requests to the hub.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    agent: Agent,
    settings: &'a Settings,
}

/// A revision of a repository.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Its commit.
    pub(crate) commit: String,
    /// Its files.
    pub(crate) files: Vec<String>,
}

/// The hub's metadata of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stated {
    /// The name of its contents: the SHA-256 for a large file, git's digest for a small one.
    pub(crate) etag: String,
    /// Size in bytes.
    pub(crate) size: u64,
}

impl Stated {
    /// The SHA-256 of the contents, if stated.
    pub(crate) fn sha256(&self) -> Option<&str> {
        let is_sha256 = self.etag.len() == 64 && self.etag.bytes().all(|b| b.is_ascii_hexdigit());
        is_sha256.then_some(self.etag.as_str())
    }
}

/// The subject of a request, for error messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) repository: &'a str,
    pub(crate) revision: &'a str,
}

impl<'a> Client<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // Each redirect is checked first: the token must not be forwarded, and the hub's headers are on the way.
            .max_redirects(0)
            .user_agent(concat!("foreword/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(Duration::from_secs(10)))
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(30)))
            .build()
            .new_agent();
        Self { agent, settings }
    }

    /// Waiting time before attempt `n`, from 1.
    pub(crate) fn patience(&self, n: u32) -> Duration {
        self.settings.patience * 2u32.saturating_pow(n.saturating_sub(1)).min(16)
    }

    /// Requests the commit and the files of a revision.
    pub(crate) fn listing(&self, about: About<'_>) -> Result<Listing, HubError> {
        #[derive(Deserialize)]
        struct Model {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let (endpoint, revision) = (&self.settings.endpoint, escaped(about.revision).replace('/', "%2F"));
        let url = format!("{endpoint}/api/models/{}/revision/{revision}", about.repository);
        let response = self.patiently(|| self.follow(&Method::GET, &url, None, about, |_| false))?;
        let read = response.into_body().into_with_config().limit(LARGEST_LIST).read_to_vec();
        let bytes =
            read.map_err(|error| HubError::Unreachable { url: url.clone(), why: error.to_string() })?;
        let answer = |detail: String| HubError::Answer { url: url.clone(), detail };
        let model: Model = serde_json::from_slice(&bytes).map_err(|error| answer(error.to_string()))?;
        if !is_commit(&model.sha) {
            return Err(answer(format!("`sha` is {:?}, which is no commit", model.sha)));
        }
        // Names with control characters are not valid.
        let names = model.siblings.into_iter().map(|file| file.rfilename);
        let files = names.filter(|name| !name.contains(char::is_control)).collect();
        Ok(Listing { commit: model.sha, files })
    }

    /// The URL of a file of a commit.
    pub(crate) fn address(&self, about: About<'_>, commit: &str, file: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.settings.endpoint, about.repository, escaped(file))
    }

    /// Requests the metadata of a file.
    pub(crate) fn stated(&self, url: &str, about: About<'_>) -> Result<Stated, HubError> {
        let is_enough = |headers: &HeaderMap| linked(headers).is_some();
        let response = self.patiently(|| self.follow(&Method::HEAD, url, None, about, is_enough))?;
        let headers = response.headers();
        let plain = || Some((text(headers, "etag")?, text(headers, "content-length")?.parse().ok()?));
        let answer = |detail: &str| HubError::Answer { url: url.to_owned(), detail: detail.to_owned() };
        let (etag, size) = linked(headers)
            .or_else(plain)
            .ok_or_else(|| answer("it does not state the file's size and ETag"))?;
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        // It becomes a file name.
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if etag.is_empty() || etag.len() > 128 || !etag.bytes().all(is_plain) {
            return Err(answer(&format!("its ETag is {etag:?}")));
        }
        Ok(Stated { etag: etag.to_owned(), size })
    }

    /// Requests the file from byte `from` on, if the hub supports it; the status says.
    pub(crate) fn bytes(&self, url: &str, from: u64, about: About<'_>) -> Result<Response<Body>, HubError> {
        self.follow(&Method::GET, url, (from > 0).then_some(from), about, |_| false)
    }

    /// Repeats a request while the hub reports errors.
    fn patiently<T>(&self, ask: impl Fn() -> Result<T, HubError>) -> Result<T, HubError> {
        let mut tries = 1;
        loop {
            match ask() {
                Err(HubError::Status { .. }) if tries < TRIES => thread::sleep(self.patience(tries)),
                result => return result,
            }
            tries += 1;
        }
    }

    /// The response after all redirects, or a redirect whose headers already suffice. Refusals are errors.
    fn follow(
        &self,
        method: &Method,
        url: &str,
        from: Option<u64>,
        about: About<'_>,
        is_enough: impl Fn(&HeaderMap) -> bool,
    ) -> Result<Response<Body>, HubError> {
        let answer = |detail: String| HubError::Answer { url: url.to_owned(), detail };
        let mut at = parsed(url, url)?;
        for _ in 0..=MOST_REDIRECTS {
            let response = self.ask(method, &at, from)?;
            let status = response.status();
            if !status.is_redirection() {
                let is_range = status.as_u16() == 416 && from.is_some();
                return if status.is_success() || is_range {
                    Ok(response)
                } else {
                    Err(self.refusal(&at, &response, about))
                };
            }
            let location = text(response.headers(), "location")
                .ok_or_else(|| answer(format!("status {} without a Location", status.as_u16())))?;
            // The hub redirects to itself by path, and elsewhere by a full URL.
            let is_path = location.starts_with('/') && !location.starts_with("//");
            if !is_path && is_enough(response.headers()) {
                return Ok(response);
            }
            let next = if is_path {
                parsed(&format!("{}{location}", origin(&at)), url)?
            } else {
                parsed(&location, url)?
            };
            if at.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(answer(format!("it redirects to {}, which is not encrypted", origin(&next))));
            }
            at = next;
        }
        Err(answer(format!("it redirects more than {MOST_REDIRECTS} times")))
    }

    fn ask(&self, method: &Method, at: &Uri, from: Option<u64>) -> Result<Response<Body>, HubError> {
        let unreachable = |why: String| HubError::Unreachable { url: without_query(at), why };
        let mut request =
            Request::builder().method(method).uri(at).header(header::ACCEPT_ENCODING, "identity");
        let endpoint = self.settings.endpoint.parse::<Uri>();
        if let Some(token) = &self.settings.token
            && endpoint.is_ok_and(|endpoint| origin(&endpoint) == origin(at))
        {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        if let Some(from) = from {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let request = request.body(()).map_err(|error| unreachable(error.to_string()))?;
        self.agent.run(request).map_err(|error| match error {
            ureq::Error::Io(error) => unreachable(error.to_string()),
            error => unreachable(error.to_string()),
        })
    }

    /// The error for a refused request.
    fn refusal(&self, at: &Uri, response: &Response<Body>, about: About<'_>) -> HubError {
        let (status, headers) = (response.status().as_u16(), response.headers());
        let code = text(headers, "x-error-code").unwrap_or_default();
        let said = text(headers, "x-error-message").map_or_else(String::new, |said| format!(": {said}"));
        let (repository, endpoint) = (about.repository.to_owned(), self.settings.endpoint.clone());
        match (status, code.as_str()) {
            (401 | 403, "GatedRepo") => HubError::Gated { repository, endpoint },
            (404, "RevisionNotFound") => {
                HubError::NoRevision { repository, endpoint, revision: about.revision.to_owned() }
            }
            (_, "RepoNotFound") | (404, "") => HubError::NoRepository { repository, endpoint },
            // The hub's response without a token to a request for something missing or private.
            (401, _) if self.settings.token.is_none() => HubError::NoRepository { repository, endpoint },
            (401 | 403, _) if self.settings.token.is_some() => HubError::Token { endpoint, status, said },
            (403, _) => HubError::Gated { repository, endpoint },
            _ => HubError::Status { url: without_query(at), status, said },
        }
    }
}

/// The value of a header.
pub(crate) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// The metadata in a redirect to the store of large files.
fn linked(headers: &HeaderMap) -> Option<(String, u64)> {
    let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"))?;
    Some((etag, text(headers, "x-linked-size")?.parse().ok()?))
}

fn parsed(location: &str, url: &str) -> Result<Uri, HubError> {
    let uri = location.parse::<Uri>().ok();
    let is_web = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    uri.filter(is_web).ok_or_else(|| HubError::Answer {
        url: url.to_owned(),
        detail: format!("{location:?} is no address"),
    })
}

/// Scheme, host and port.
fn origin(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    format!("{scheme}://{}:{port}", uri.host().unwrap_or_default().to_lowercase())
}

/// A URL without its query, which may be a signature that gives anyone access to the file.
fn without_query(uri: &Uri) -> String {
    uri.to_string().split('?').next().unwrap_or_default().to_owned()
}

/// Escapes a path for a URL.
fn escaped(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for b in path.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~' | b'/') {
            escaped.push(char::from(b));
        } else {
            escaped.push_str(&format!("%{b:02X}"));
        }
    }
    escaped
}
