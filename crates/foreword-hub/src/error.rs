//! What can go wrong between a model's name and its files.

use std::path::PathBuf;

use foreword_backbone::BackboneError;

/// Why a model isn't there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A variable of the environment holds what it can't.
    #[error("{variable} is {found}, {expected}")]
    Setting {
        /// Its name.
        variable: &'static str,
        /// What it holds.
        found: String,
        /// What would be understood.
        expected: String,
    },
    /// Nothing says where the cache is.
    #[error("nothing says where models from the Hugging Face hub are kept")]
    NoHome,
    /// There is no such repository, or none that may be known of.
    #[error("{endpoint} has no model repository {repository}, or it is private")]
    NoRepository {
        /// `org/name`.
        repository: String,
        /// The hub.
        endpoint: String,
    },
    /// There is no such revision.
    #[error("the repository {repository} at {endpoint} has no revision {revision}")]
    NoRevision {
        /// `org/name`.
        repository: String,
        /// The hub.
        endpoint: String,
        /// What was asked for.
        revision: String,
    },
    /// The repository wants its licence accepted.
    #[error("the repository {repository} is gated: its files are only for those who were granted access")]
    Gated {
        /// `org/name`.
        repository: String,
        /// The hub.
        endpoint: String,
    },
    /// The hub does not know the token, or does not let it in.
    #[error("{endpoint} refuses the token (status {status}){said}")]
    Token {
        /// The hub.
        endpoint: String,
        /// 401 or 403.
        status: u16,
        /// The hub's words, after a colon.
        said: String,
    },
    /// The hub may not be asked, and the cache does not have all.
    #[error("HF_HUB_OFFLINE is set, and the cache {cache} does not hold all of {name}", cache = .cache.display())]
    NotCached {
        /// The model.
        name: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The repository has no weights that are read.
    #[error(
        "the repository {repository} has no model.safetensors and no model.safetensors.index.json{instead}"
    )]
    NoWeights {
        /// `org/name`.
        repository: String,
        /// What it has instead, after a semicolon.
        instead: String,
        /// What to do.
        hint: String,
    },
    /// The repository lacks another file.
    #[error("the repository {repository} has no {file}")]
    NoFile {
        /// `org/name`.
        repository: String,
        /// The file.
        file: String,
        /// What to do.
        hint: String,
    },
    /// The index of the shards is not understood.
    #[error("the repository {repository}")]
    Index {
        /// `org/name`.
        repository: String,
        /// Why.
        source: BackboneError,
    },
    /// No answer.
    #[error("cannot reach {url} ({why})")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What the network said.
        why: String,
    },
    /// The hub has trouble.
    #[error("{url} answers with status {status}{said}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// The hub's words, after a colon.
        said: String,
    },
    /// An answer that makes no sense.
    #[error("the answer of {url} is not understood: {detail}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A download that broke off, again and again.
    #[error("the download of {file} broke off after {at} of {size} bytes ({why})")]
    Cut {
        /// The file.
        file: String,
        /// Bytes that are there.
        at: u64,
        /// Bytes that it should have.
        size: u64,
        /// What the network said last.
        why: String,
    },
    /// More or fewer bytes than stated.
    #[error("{file} should have {stated} bytes, but {url} sends {sent}")]
    Size {
        /// The file.
        file: String,
        /// From where.
        url: String,
        /// Bytes that it should have.
        stated: u64,
        /// Bytes that would come.
        sent: u64,
    },
    /// Other bytes than stated.
    #[error("{file} is not what the hub states: its SHA-256 is {found}, which should be {stated}")]
    Digest {
        /// The file.
        file: String,
        /// What it should be.
        stated: String,
        /// What it is.
        found: String,
    },
    /// The disk.
    #[error("cannot {action} {path}", path = .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl HubError {
    /// Whether something else should have been asked for or set: no fault of the network or the disk.
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

    /// Whether the hub could not be asked: what the cache has may do instead.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Status { .. } | Self::Answer { .. })
    }

    /// What to do.
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
