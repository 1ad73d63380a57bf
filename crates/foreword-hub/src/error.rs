//! Errors between a model's name and its files.

use std::path::PathBuf;

use foreword_backbone::BackboneError;

/// Why a model is not available.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// An environment variable has an invalid value.
    #[error("{variable} is {found}, {expected}")]
    Setting {
        /// Its name.
        variable: &'static str,
        /// Its value.
        found: String,
        /// The valid values.
        expected: String,
    },
    /// The cache directory is unknown.
    #[error("nothing says where models from the Hugging Face hub are kept")]
    NoHome,
    /// The repository does not exist, or is not visible.
    #[error("{endpoint} has no model repository {repository}, or it is private")]
    NoRepository {
        /// `org/name`.
        repository: String,
        /// The hub.
        endpoint: String,
    },
    /// The revision does not exist.
    #[error("the repository {repository} at {endpoint} has no revision {revision}")]
    NoRevision {
        /// `org/name`.
        repository: String,
        /// The hub.
        endpoint: String,
        /// The requested revision.
        revision: String,
    },
    /// The repository requires its licence to be accepted.
    #[error("the repository {repository} is gated: its files are only for those who were granted access")]
    Gated {
        /// `org/name`.
        repository: String,
        /// The hub.
        endpoint: String,
    },
    /// The hub does not know the token, or denies it access.
    #[error("{endpoint} refuses the token (status {status}){said}")]
    Token {
        /// The hub.
        endpoint: String,
        /// 401 or 403.
        status: u16,
        /// The hub's message, after a colon.
        said: String,
    },
    /// The hub must not be contacted, and the cache is incomplete.
    #[error("HF_HUB_OFFLINE is set, and the cache {cache} does not hold all of {name}", cache = .cache.display())]
    NotCached {
        /// The model.
        name: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The repository has no supported weights.
    #[error(
        "the repository {repository} has no model.safetensors and no model.safetensors.index.json{instead}"
    )]
    NoWeights {
        /// `org/name`.
        repository: String,
        /// What it has instead, after a semicolon.
        instead: String,
        /// The hint.
        hint: String,
    },
    /// The repository lacks another required file.
    #[error("the repository {repository} has no {file}")]
    NoFile {
        /// `org/name`.
        repository: String,
        /// The file.
        file: String,
        /// The hint.
        hint: String,
    },
    /// The index of the shards is invalid.
    #[error("the repository {repository}")]
    Index {
        /// `org/name`.
        repository: String,
        /// The reason.
        source: BackboneError,
    },
    /// No response.
    #[error("cannot reach {url} ({why})")]
    Unreachable {
        /// The requested URL.
        url: String,
        /// The network's error.
        why: String,
    },
    /// The hub reports an error.
    #[error("{url} answers with status {status}{said}")]
    Status {
        /// The requested URL.
        url: String,
        /// The status.
        status: u16,
        /// The hub's message, after a colon.
        said: String,
    },
    /// An invalid response.
    #[error("the answer of {url} is not understood: {detail}")]
    Answer {
        /// The requested URL.
        url: String,
        /// The reason.
        detail: String,
    },
    /// A download that broke off repeatedly.
    #[error("the download of {file} broke off after {at} of {size} bytes ({why})")]
    Cut {
        /// The file.
        file: String,
        /// Bytes on disk.
        at: u64,
        /// Expected number of bytes.
        size: u64,
        /// The network's last error.
        why: String,
    },
    /// The size differs from the stated one.
    #[error("{file} should have {stated} bytes, but {url} sends {sent}")]
    Size {
        /// The file.
        file: String,
        /// Its URL.
        url: String,
        /// The stated size.
        stated: u64,
        /// The size that would be sent.
        sent: u64,
    },
    /// The digest differs from the stated one.
    #[error("{file} is not what the hub states: its SHA-256 is {found}, which should be {stated}")]
    Digest {
        /// The file.
        file: String,
        /// The stated digest.
        stated: String,
        /// The actual digest.
        found: String,
    },
    /// A disk error.
    #[error("cannot {action} {path}", path = .path.display())]
    Io {
        /// The action.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

impl HubError {
    /// Whether a different name or setting would fix it: not an error of the network or the disk.
    #[must_use]
    pub fn is_given(&self) -> bool {
        match self {
            Self::Setting { .. }
            | Self::NoHome
            | Self::NoRepository { .. }
            | Self::NoRevision { .. }
            | Self::Gated { .. }
            | Self::Token { .. }
            | Self::NotCached { .. }
            | Self::NoWeights { .. }
            | Self::NoFile { .. }
            | Self::Index { .. } => true,
            Self::Unreachable { .. }
            | Self::Status { .. }
            | Self::Answer { .. }
            | Self::Cut { .. }
            | Self::Size { .. }
            | Self::Digest { .. }
            | Self::Io { .. } => false,
        }
    }

    /// Whether the hub could not be reached, so the cache may be used instead.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Status { .. } | Self::Answer { .. })
    }

    /// A hint.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Setting { variable, .. } => format!("correct {variable}, or unset it"),
            Self::NoHome => "set HF_HOME to a directory for them".to_owned(),
            Self::NoRepository { .. } => {
                "a model is a directory that is here, or org/name as the hub spells it; a private \
                                          repository needs a token in HF_TOKEN"
                    .to_owned()
            }
            Self::NoRevision { repository, endpoint, .. } => {
                format!("{endpoint}/{repository}/refs lists its branches and tags; without @… it is main")
            }
            Self::Gated { repository, endpoint } => format!(
                "accept its licence at {endpoint}/{repository}, then set HF_TOKEN to a token of yours \
                 ({endpoint}/settings/tokens)"
            ),
            Self::Token { endpoint, .. } => {
                format!("set HF_TOKEN to a token that is valid ({endpoint}/settings/tokens), or unset it")
            }
            Self::NotCached { name, .. } => {
                format!(
                    "unset HF_HUB_OFFLINE once, so that {name} can be downloaded; `foreword models` lists what is there"
                )
            }
            Self::NoWeights { hint, .. } | Self::NoFile { hint, .. } if !hint.is_empty() => hint.clone(),
            Self::Unreachable { .. } => {
                "look to the network, or HF_ENDPOINT where the hub is elsewhere; models that are \
                                         here need no network: `foreword models` lists them"
                    .to_owned()
            }
            Self::Status { status: 429, .. } => {
                "wait a little; with a token in HF_TOKEN the hub allows more".to_owned()
            }
            Self::Status { .. } | Self::Answer { .. } => "try again later, or look at HF_ENDPOINT".to_owned(),
            Self::Cut { .. } => "run the same again: it goes on where it broke off".to_owned(),
            Self::Size { .. } | Self::Digest { .. } => {
                "nothing of it was kept; try again, and if it comes again, tell the owner of the repository"
                    .to_owned()
            }
            _ => return None,
        };
        Some(text)
    }
}
