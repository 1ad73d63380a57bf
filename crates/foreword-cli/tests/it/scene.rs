//! A temporary directory in which the program runs, with what it says made the same on every machine.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;

pub(crate) use foreword_testkit::root;

/// A tiny random model.
pub(crate) fn model(name: &str) -> String {
    root().join("testdata/models").join(name).display().to_string()
}

/// 24 labelled sentences.
pub(crate) fn sentences() -> String {
    root().join("testdata/parity/train.jsonl").display().to_string()
}

/// What a run of the program left on its streams.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The lines of stdout as objects of the contract.
    #[track_caller]
    pub(crate) fn lines<T: DeserializeOwned>(&self) -> Vec<T> {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The only line.
    #[track_caller]
    pub(crate) fn line<T: DeserializeOwned>(&self) -> T {
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1);
        lines.remove(0)
    }
}

/// A directory to run in.
pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// The path of something in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file there.
    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path(name), contents).unwrap();
        self
    }

    /// Copies a directory of the workspace there.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> PathBuf {
        let to = self.path(name);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::write(to.join(entry.file_name()), fs::read(entry.path()).unwrap()).unwrap();
        }
        to
    }

    /// The program, to be run there.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foreword"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null()).env_remove("COLUMNS");
        let theirs = ["HF_ENDPOINT", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH"];
        for variable in ["FOREWORD_THREADS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"].iter().chain(&theirs) {
            command.env_remove(variable);
        }
        // Nobody's cache is looked at, and nobody is asked.
        command.env("HF_HOME", self.path("hf")).env("HF_HUB_OFFLINE", "1");
        command
    }

    /// Runs the program.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Self::ran(self.command(args).output().unwrap())
    }

    /// Runs it with something to read.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut command = self.command(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        match child.stdin.take().unwrap().write_all(stdin) {
            // A program that refuses its flags need not read to its end.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => unreachable!("{error}"),
            _ => {}
        }
        Self::ran(child.wait_with_output().unwrap())
    }

    pub(crate) fn ran(output: std::process::Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Trains `steps` steps of the tiny Llama on the sentences, to `out`.
    #[track_caller]
    pub(crate) fn train(&self, out: &str, steps: &str, more: &[&str]) -> Ran {
        let (model, data) = (model("llama-tiny"), sentences());
        let mut args = vec!["train", &data, "--model", &model, "--steps", steps, "--batch-size", "4"];
        args.extend(["--virtual-tokens", "4", "--out", out]);
        args.extend(more);
        self.run(&args)
    }

    /// Names in the directory, in their order.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// What a run said, with this machine's paths taken out.
    pub(crate) fn told(&self, ran: &Ran) -> String {
        let temporary = self.dir.path().display().to_string();
        let clean = |text: &str| {
            text.replace(&temporary, "[DIR]")
                .replace(&root().display().to_string(), "[ROOT]")
                .replace(env!("CARGO_BIN_EXE_foreword"), "[FOREWORD]")
        };
        format!("exit {}\n{}{}", ran.code, clean(&ran.stdout), clean(&ran.stderr))
    }
}
