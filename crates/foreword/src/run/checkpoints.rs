//! Checkpoints of a run, next to its prompt directory: written periodically, read by --resume, removed at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::TrainState;
use crate::checkpoint;
use crate::error::Result;
use crate::format::digest::sha256;
use crate::format::{CHECKPOINT_DIR, PASSPORT_FILE, TENSORS_FILE, write_whole};
use anyhow::Context as _;
use serde_json::Value;

use crate::error::UserError;
use crate::notice::Observer;

/// The file name in the checkpoint directory.
const FILE: &str = "state.safetensors";
/// The file there with the digest of the passport that the unfinished run wrote when it was cancelled.
const OWN_PROMPT: &str = "prompt.sha256";
/// Time between two checkpoints, besides those at evaluations: the most work that a crash loses.
const EVERY: Duration = Duration::from_secs(30);

/// Whether an unfinished run left a checkpoint for `out`.
pub fn is_there(out: &Path) -> bool {
    out.join(CHECKPOINT_DIR).join(FILE).exists()
}

/// Whether `out` has a prompt that is not the unfinished run's own, written when it was cancelled.
pub fn has_finished_prompt(out: &Path) -> bool {
    let own = std::fs::read_to_string(out.join(CHECKPOINT_DIR).join(OWN_PROMPT)).unwrap_or_default();
    let is_own = || std::fs::read(out.join(PASSPORT_FILE)).is_ok_and(|passport| sha256(&passport) == own);
    out.join(TENSORS_FILE).exists() && !is_own()
}

/// Writes the checkpoints of one run.
#[derive(Debug)]
pub struct CheckpointWriter {
    dir: PathBuf,
    settings: BTreeMap<String, Value>,
    last: Instant,
    failed: bool,
}

impl CheckpointWriter {
    /// A writer for the run with output directory `out`, which `settings` determine.
    pub fn new(out: &Path, settings: BTreeMap<String, Value>) -> Self {
        Self { dir: out.join(CHECKPOINT_DIR), settings, last: Instant::now(), failed: false }
    }

    /// Reads the state of the last run.
    pub fn read(&self) -> Result<TrainState> {
        let path = self.dir.join(FILE);
        let bytes = std::fs::read(&path).map_err(|error| {
            UserError::new(format!("cannot read the checkpoint {}: {error}", path.display()))
        })?;
        Ok(checkpoint::decode(&bytes, &self.settings).with_context(|| path.display().to_string())?)
    }

    /// Writes a checkpoint if `now`, or if the last one is old. A failure is a warning and does not stop the run.
    pub fn keep(&mut self, progress: &TrainState, now: bool, observer: &dyn Observer) {
        if self.failed || !(now || self.last.elapsed() >= EVERY) {
            return;
        }
        self.last = Instant::now();
        if let Err(error) = self.write(progress) {
            self.failed = true;
            let resume = match self.dir.join(FILE).exists() {
                true => "--resume will continue from the last one",
                false => "--resume will not work",
            };
            observer.warn(&format!("{error:#}; the run goes on without checkpoints, so {resume}"));
        }
    }

    /// Remembers that the prompt in `out` is that of the unfinished run.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn mark_own(&self, out: &Path) -> Result<()> {
        let path = out.join(PASSPORT_FILE);
        let passport =
            std::fs::read(&path).with_context(|| format!("cannot read {} again", path.display()))?;
        Ok(write_whole(&self.dir.join(OWN_PROMPT), sha256(&passport).as_bytes())?)
    }

    fn write(&self, progress: &TrainState) -> Result<()> {
        let bytes = checkpoint::encode(progress, &self.settings)?;
        let dir = self.dir.display();
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot make the directory {dir}"))?;
        Ok(write_whole(&self.dir.join(FILE), &bytes)?)
    }

    /// Removes the checkpoint: the run has ended, or another begins.
    pub fn remove(&self, observer: &dyn Observer) {
        if self.dir.exists()
            && let Err(error) = std::fs::remove_dir_all(&self.dir)
        {
            observer.warn(&format!("cannot remove {}: {error}", self.dir.display()));
        }
    }
}
