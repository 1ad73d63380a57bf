//! What the library reports while it works: notices as values, and the progress of long tasks, for an [`Observer`].

use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::error::Result;

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Shown on request only.
    Detail,
    /// A decision, such as a guessed field.
    Info,
    /// Allowed, but suspicious.
    Warning,
}

/// A warning or a remark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// How much it matters.
    pub level: Level,
    /// The subject in one word, such as `model` or `labels`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<&'static str>,
    /// One sentence or more.
    pub text: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.topic {
            Some(topic) => write!(f, "{topic:<9} {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Progress of a long task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress<'a> {
    /// The task begins.
    Begin {
        /// Its name, such as `scoring`.
        what: &'static str,
        /// Number of parts.
        total: u64,
    },
    /// Some parts are done.
    Advance {
        /// Number of parts done.
        done: u64,
        /// The current part or result in a few words; may be empty.
        message: &'a str,
    },
    /// The task has ended.
    End,
    /// A download begins.
    Fetch {
        /// Bytes in total.
        total: u64,
        /// Bytes already on disk.
        here: u64,
    },
    /// More bytes have arrived.
    Fetched {
        /// Bytes on disk.
        here: u64,
    },
    /// The download has ended.
    FetchEnd,
}

/// Receives notices and progress. All methods have defaults that do nothing.
pub trait Observer {
    /// Receives a notice.
    fn notice(&self, notice: Notice) {
        drop(notice);
    }

    /// Receives progress.
    fn progress(&self, progress: Progress<'_>) {
        let _ = progress;
    }

    /// Whether notices of [`Level::Detail`] are wanted; some take time to compute.
    fn wants_details(&self) -> bool {
        false
    }
}

/// Ignores everything.
impl Observer for () {}

/// Collects notices.
#[derive(Debug, Default)]
pub struct Notices(Mutex<Vec<Notice>>);

impl Notices {
    /// Takes the notices so far.
    pub fn take(&self) -> Vec<Notice> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Notices {
    fn notice(&self, notice: Notice) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
    }
}

/// Forwards to another observer and keeps a copy of each notice.
pub(crate) struct Recorder<'a> {
    to: &'a dyn Observer,
    kept: Notices,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(to: &'a dyn Observer) -> Self {
        Self { to, kept: Notices::default() }
    }

    pub(crate) fn into_notices(self) -> Vec<Notice> {
        self.kept.take()
    }
}

impl Observer for Recorder<'_> {
    fn notice(&self, notice: Notice) {
        self.kept.notice(notice.clone());
        self.to.notice(notice);
    }

    fn progress(&self, progress: Progress<'_>) {
        self.to.progress(progress);
    }

    fn wants_details(&self) -> bool {
        self.to.wants_details()
    }
}

impl dyn Observer + '_ {
    /// A remark.
    pub fn say(&self, text: &str) {
        self.notice(Notice { level: Level::Info, topic: None, text: text.to_owned() });
    }

    /// A remark on a subject.
    pub fn tell(&self, topic: &'static str, text: impl Into<String>) {
        self.notice(Notice { level: Level::Info, topic: Some(topic), text: text.into() });
    }

    /// A warning.
    pub fn warn(&self, text: &str) {
        self.notice(Notice { level: Level::Warning, topic: None, text: text.to_owned() });
    }

    /// Details, computed only if the observer wants them.
    ///
    /// # Errors
    /// The errors of the computation.
    pub fn detail(&self, details: impl FnOnce() -> Result<Vec<(&'static str, String)>>) -> Result<()> {
        if self.wants_details() {
            for (topic, text) in details()? {
                self.notice(Notice { level: Level::Detail, topic: Some(topic), text });
            }
        }
        Ok(())
    }

    /// Begins a task of `total` parts.
    pub fn begin(&self, total: u64, what: &'static str) {
        self.progress(Progress::Begin { what, total });
    }

    /// Reports the number of finished parts.
    pub fn advance(&self, done: u64, message: &str) {
        self.progress(Progress::Advance { done, message });
    }

    /// Ends the task.
    pub fn end(&self) {
        self.progress(Progress::End);
    }
}
