//! A disk that fills at each write in turn: nothing that was good is lost, and with space again the run ends in the same bytes.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::scene::{Ran, Scene, model, sentences};

/// More calls than any of these runs makes.
const MOST_CALLS: usize = 200;
const FILES: [&str; 3] = ["adapter_config.json", "adapter_model.safetensors", "foreword.json"];

/// The library that makes a call fail, compiled once; `None`, and a line that says so, where there is no C compiler.
#[allow(clippy::print_stderr, reason = "a helper of tests")]
fn shim() -> Option<&'static Path> {
    static SHIM: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let compiled = SHIM.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("full_disk.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/full_disk.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).arg(source);
        let compiled = match cc.output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            compiled => compiled.unwrap(),
        };
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        Some((dir, path))
    });
    if compiled.is_none() {
        eprintln!("skipped: there is no C compiler (cc)");
    }
    compiled.as_ref().map(|(_, path)| &**path)
}

/// How long the disk is full.
#[derive(Clone, Copy, Debug)]
enum Full {
    /// For one call.
    Once,
    /// From that call on.
    Stays,
}

/// Runs the program with its `at`-th call that changes the disk failing: the call's name, if the run came so far.
fn run_full(shim: &Path, scene: &Scene, args: &[&str], at: usize, full: Full) -> (Ran, Option<String>) {
    let report = tempfile::tempdir().unwrap();
    let path = report.path().join("failed");
    let mut command = scene.command(args);
    command.env("LD_PRELOAD", shim).env("FULL_DISK_AT", at.to_string()).env("FULL_DISK_REPORT", &path);
    if matches!(full, Full::Stays) {
        command.env("FULL_DISK_STAYS", "1");
    }
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap_or(-1);
    let ran = Ran { code, stdout: text(output.stdout), stderr: text(output.stderr) };
    (ran, fs::read_to_string(path).ok())
}

/// The files of a prompt and their bytes.
fn prompt(dir: &Path) -> BTreeMap<&'static str, Vec<u8>> {
    FILES.iter().filter_map(|&file| Some((file, fs::read(dir.join(file)).ok()?))).collect()
}

/// Calls `check` with 1, 2, 3 … on two threads, until it says that a run went through untouched; how many did not.
fn each_call(check: impl Fn(usize) -> bool + Sync) -> usize {
    let (next, untouched) = (AtomicUsize::new(1), AtomicUsize::new(usize::MAX));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    assert!(at < MOST_CALLS, "no run goes through");
                    if at >= untouched.load(Ordering::SeqCst) {
                        break;
                    }
                    if check(at) {
                        untouched.fetch_min(at, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    untouched.into_inner() - 1
}

/// Trains to `p`, with a log beside it.
fn train(more: &[&'static str]) -> Vec<String> {
    let args =
        ["--steps", "2", "--batch-size", "4", "--eval-every", "2", "--virtual-tokens", "2", "--limit", "8"];
    let place = ["--threads", "1", "--out", "p", "--log", "log.jsonl"];
    let mut all = vec!["train".to_owned(), sentences(), "--model".to_owned(), model("llama-tiny")];
    all.extend(args.iter().chain(&place).chain(more).map(|&arg| arg.to_owned()));
    all
}

fn borrowed(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Whether a conversation says that the disk was full, and where.
fn tells(stderr: &str, level: &str) -> bool {
    let names = ["p/", "--out p", "create p:", "log.jsonl"];
    let is_it = |line: &str| {
        line.starts_with(level)
            && line.contains("No space left on device")
            && names.iter().any(|name| line.contains(name))
    };
    stderr.lines().any(is_it)
}

/// Fails each call of a training run in turn. `old`: what is in `p` before, to be replaced with --force.
#[track_caller]
fn check_training(old: Option<&BTreeMap<&'static str, Vec<u8>>>, full: Full) {
    let Some(shim) = shim() else { return };
    let plain = train(&[]);
    let forced = train(&["--force"]);
    let resumed = if old.is_some() { train(&["--resume", "--force"]) } else { train(&["--resume"]) };
    let args = if old.is_some() { &forced } else { &plain };
    let unbroken = Scene::new();
    assert_eq!(unbroken.run(&borrowed(&plain)).code, 0);
    let whole = prompt(&unbroken.path("p"));
    assert_eq!(whole.len(), FILES.len());

    let n_calls = each_call(|at| {
        let scene = Scene::new();
        if let Some(old) = old {
            fs::create_dir(scene.path("p")).unwrap();
            old.iter().for_each(|(file, bytes)| fs::write(scene.path("p").join(file), bytes).unwrap());
        }
        let (ran, failed) = run_full(shim, &scene, &borrowed(args), at, full);
        let found = prompt(&scene.path("p"));
        let what = format!("call {at} ({failed:?}, {full:?}) ended with {}:\n{}", ran.code, ran.stderr);
        let Some(failed) = failed else {
            assert_eq!((ran.code, &found), (0, &whole), "{what}");
            return true;
        };
        let is_there = found == whole;
        let was_there = old.map_or(found.is_empty(), |old| found == *old);
        assert!(is_there || was_there, "a mixture: {:?}, {what}", found.keys());
        match ran.code {
            // A flush of a directory that the system refuses is passed over; a checkpoint costs a warning.
            0 => assert!(is_there && (failed == "fsync" || tells(&ran.stderr, "warning: ")), "{what}"),
            2 => assert!(tells(&ran.stderr, "error: "), "{what}"),
            _ => panic!("{what}"),
        }
        assert!(ran.code == 0 || !ran.stderr.contains("this is a bug"), "{what}");
        let temporary = |dir: &str| -> usize {
            let Ok(entries) = fs::read_dir(scene.path(dir)) else { return 0 };
            entries
                .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "tmp"))
                .count()
        };
        assert_eq!(temporary("p") + temporary("p/checkpoint"), 0, "temporary files are left, {what}");

        // With space again.
        if !is_there {
            let has_checkpoint = scene.path("p/checkpoint/state.safetensors").exists();
            let again = if has_checkpoint { &resumed } else { args };
            let again = scene.run(&borrowed(again));
            assert_eq!(again.code, 0, "{what}\nand then\n{}", again.stderr);
            assert_eq!(prompt(&scene.path("p")), whole, "{what}");
        }
        assert!(!scene.path("p/checkpoint").exists(), "{what}");
        false
    });
    assert!(n_calls > 20, "only {n_calls} calls failed");
}

#[test]
fn a_run_on_a_disk_that_fills_leaves_no_prompt_or_a_whole_one() {
    check_training(None, Full::Once);
}

#[test]
fn a_run_on_a_disk_that_stays_full_leaves_no_prompt_or_a_whole_one() {
    check_training(None, Full::Stays);
}

/// The prompt of another seed.
fn another() -> BTreeMap<&'static str, Vec<u8>> {
    let scene = Scene::new();
    assert_eq!(scene.run(&borrowed(&train(&["--seed", "9"]))).code, 0);
    prompt(&scene.path("p"))
}

#[test]
fn an_old_prompt_is_good_until_the_new_one_is() {
    check_training(Some(&another()), Full::Once);
}

#[test]
fn an_old_prompt_straight_from_peft_is_good_until_the_new_one_is() {
    let mut old = another();
    old.remove("foreword.json");
    check_training(Some(&old), Full::Stays);
}

#[test]
fn a_resumed_run_on_a_disk_that_fills_can_be_resumed_again() {
    let Some(shim) = shim() else { return };
    let args = train(&["--force"]);
    let resumed = train(&["--resume"]);
    let unbroken = Scene::new();
    assert_eq!(unbroken.run(&borrowed(&args)).code, 0);
    let whole = prompt(&unbroken.path("p"));

    // A run whose prompt could not be written leaves the checkpoint of its last step.
    let stopped = Scene::new();
    let at = (1..MOST_CALLS).find(|&at| {
        let (ran, failed) = run_full(shim, &stopped, &borrowed(&args), at, Full::Once);
        failed.as_deref() == Some("write")
            && ran.stderr.contains("error: cannot write p/adapter_model.safetensors")
    });
    assert!(at.is_some());
    let checkpoint = fs::read(stopped.path("p/checkpoint/state.safetensors")).unwrap();

    let n_calls = each_call(|at| {
        let scene = Scene::new();
        fs::create_dir_all(scene.path("p/checkpoint")).unwrap();
        scene.file("p/checkpoint/state.safetensors", &checkpoint);
        let (ran, failed) = run_full(shim, &scene, &borrowed(&resumed), at, Full::Once);
        let found = prompt(&scene.path("p"));
        let what = format!("call {at} ({failed:?}) ended with {}:\n{}", ran.code, ran.stderr);
        assert!(found == whole || found.is_empty() && ran.code == 2, "{what}");
        assert!(ran.code == 0 || tells(&ran.stderr, "error: "), "{what}");
        if found.is_empty() {
            assert_eq!(fs::read(scene.path("p/checkpoint/state.safetensors")).unwrap(), checkpoint, "{what}");
            assert_eq!(scene.run(&borrowed(&resumed)).code, 0, "{what}");
            assert_eq!(prompt(&scene.path("p")), whole, "{what}");
        }
        failed.is_none()
    });
    assert!(n_calls > 10, "only {n_calls} calls failed");
}
