//! One run at a time writes to a directory, and a finished prompt is replaced only on purpose.

#![cfg(unix)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::scene::{Scene, model, sentences};

/// Starts a run to `out` that goes on until it is stopped, and waits for its first step.
fn start(scene: &Scene, more: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let (sentences, llama) = (sentences(), model("llama-tiny"));
    let args = ["train", &sentences, "--model", &llama, "--steps", "1000000", "--patience", "0"];
    let args = [&args[..], &["--eval-every", "1", "--json", "--out", "p"], more].concat();
    let mut child = scene.command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"step\":2,") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the run ended");
    }
    (child, lines)
}

fn passport(scene: &Scene) -> Vec<u8> {
    std::fs::read(scene.path("p/foreword.json")).unwrap()
}

#[test]
fn a_second_run_is_told_which_process_holds_the_directory() {
    let scene = Scene::new();
    let (mut child, _lines) = start(&scene, &[]);
    for more in [&[][..], &["--force"], &["--resume"]] {
        let refused = scene.train("p", "1", more);
        let told = format!("error: p is in use: process {} writes a prompt there", child.id());
        assert!(refused.code == 1 && refused.stderr.contains(&told), "{}", refused.stderr);
    }
    assert_eq!(scene.train("q", "1", &[]).code, 0, "another directory is free");
    child.kill().unwrap();
    child.wait().unwrap();
    // The lock of a process that is gone is no lock.
    let again = scene.train("p", "1", &["--force"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    let mut names: Vec<_> = std::fs::read_dir(scene.path("p"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["adapter_config.json", "adapter_model.safetensors", "foreword.json"]);
}

#[test]
fn a_run_that_is_refused_leaves_no_directory() {
    let scene = Scene::new();
    scene.file("bad.csv", "text,label\nx\n");
    let refused = scene.run(&["train", "bad.csv", "--out", "a/b/c"]);
    assert_eq!(refused.code, 1);
    assert_eq!(scene.names(), ["bad.csv"]);
}

#[test]
fn a_finished_prompt_is_replaced_by_no_resumed_run_without_force() {
    let scene = Scene::new();
    assert_eq!(scene.train("p", "1", &[]).code, 0);
    let finished = passport(&scene);
    // Another run to the same place, which is killed.
    let (mut child, _lines) = start(&scene, &["--force"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(passport(&scene), finished);
    let resume = |more: &[&str]| {
        let (sentences, llama) = (sentences(), model("llama-tiny"));
        let args = ["train", &sentences, "--model", &llama, "--steps", "1000000", "--patience", "0"];
        let args = [&args[..], &["--eval-every", "1", "--out", "p", "--resume", "--json"], more].concat();
        let mut child = scene.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut first).unwrap();
        let kill = ["-c", "kill -INT \"$0\"", &child.id().to_string()];
        if !first.is_empty() {
            assert!(Command::new("sh").args(kill).status().unwrap().success());
        }
        std::io::copy(&mut lines, &mut std::io::sink()).unwrap();
        Scene::ran(child.wait_with_output().unwrap())
    };
    let refused = resume(&[]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("p contains a finished prompt"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--resume --force"), "{}", refused.stderr);
    assert_eq!(passport(&scene), finished);

    // With both it goes on. What it writes when it is interrupted is its own, and the next one needs no force.
    let forced = resume(&["--force"]);
    assert_eq!(forced.code, 130, "{}", forced.stderr);
    assert_ne!(passport(&scene), finished);
    let own = resume(&[]);
    assert_eq!(own.code, 130, "{}", own.stderr);
}
