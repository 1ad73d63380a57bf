//! Models from a stand-in for the hub, with everything that goes wrong on the way.

#![allow(clippy::unwrap_used, reason = "tests, and their helpers that are no tests themselves")]

mod cache;
mod refused;
mod resumed;

use std::path::{Path, PathBuf};
use std::time::Duration;

use foreword_hub::{Event, Fetched, HubError, HubName, Settings, Token, fetch};

use foreword_testkit::stand_in::StandIn;

/// A stand-in with a cache that is empty at first.
struct Scene {
    hub: StandIn,
    dir: tempfile::TempDir,
    settings: Settings,
}

/// Contents that are different everywhere.
fn weights(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}

impl Scene {
    /// With `org/tiny` in the hub.
    fn new() -> Self {
        let hub = StandIn::new();
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            endpoint: hub.endpoint(),
            cache: dir.path().join("hub"),
            token: None,
            offline: false,
            patience: Duration::from_millis(1),
        };
        let scene = Self { hub, dir, settings };
        scene.put(&[]);
        scene
    }

    /// Another commit of `org/tiny`, with these files beside the usual ones.
    fn put(&self, more: &[(&str, &[u8])]) -> String {
        let weights = weights(300_000);
        let mut files: Vec<(&str, &[u8])> = vec![
            ("README.md", b"a model"),
            ("config.json", br#"{"model_type": "x"}"#),
            ("generation_config.json", b"{}"),
            ("model.safetensors", &weights),
            ("pytorch_model.bin", b"a pickle"),
            ("tokenizer.json", b"{\"version\": 1}"),
        ];
        files.extend(more);
        self.hub.model("org/tiny", &files)
    }

    fn token(self, token: &str) -> Self {
        let token = Some(Token::new(token, "HF_TOKEN").unwrap());
        Self { settings: Settings { token, ..self.settings.clone() }, ..self }
    }

    /// Fetches, with what was told on the way.
    fn told(&self, name: &str) -> (Result<Fetched, HubError>, Vec<String>) {
        let mut told = Vec::new();
        let mut listen = |event: Event<'_>| match event {
            Event::Arrived { .. } => {}
            other => told.push(format!("{other:?}")),
        };
        (fetch(&self.settings, &HubName::parse(name).unwrap(), &mut listen), told)
    }

    #[track_caller]
    fn fetch(&self, name: &str) -> Fetched {
        self.told(name).0.unwrap()
    }

    #[track_caller]
    fn refusal(&self, name: &str) -> HubError {
        self.told(name).0.unwrap_err()
    }

    /// Below the cache's directory of `org/tiny`.
    fn cached(&self, path: &str) -> PathBuf {
        self.settings.cache.join("models--org--tiny").join(path)
    }

    /// What was asked for of large files: with or without a range.
    fn ranges(&self) -> Vec<Option<String>> {
        self.hub.asked().into_iter().filter(|asked| !asked.of_hub).map(|asked| asked.range).collect()
    }
}

/// Names in a directory, in their order.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
