//! Ctrl-C during a run: the best prompt so far is written.

#![cfg(unix)]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::scene::{Scene, model, sentences};
use crate::schema::{Classified, Done, Line};

/// Starts a run that tells its steps, interrupts it after the second, and gives its last line.
#[track_caller]
fn interrupt(scene: &Scene, args: &[&str]) -> Done {
    let mut child = scene.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().contains("\"step\":2,") {}
    // The shell's own `kill`: small systems have no other.
    let kill = ["-c", "kill -INT \"$0\"", &child.id().to_string()];
    assert!(Command::new("sh").args(kill).status().unwrap().success());
    let last = lines.map(Result::unwrap).last().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    match serde_json::from_str(&last) {
        Ok(Line::Done(done)) => done,
        other => unreachable!("the last line is {other:?}"),
    }
}

#[test]
fn an_interrupted_run_writes_its_best_prompt() {
    let scene = Scene::new();
    let (sentences, llama) = (sentences(), model("llama-tiny"));
    let args = [
        "train",
        &sentences,
        "--model",
        &llama,
        "--steps",
        "1000000",
        "--out",
        "p",
        "--json",
        "--patience",
        "0",
    ];
    let done = interrupt(&scene, &args);
    assert!(done.steps >= 2 && done.dev.is_some());
    let answer: Classified =
        scene.run(&["classify", "--prompt", "p", "--model", &llama, "x", "--json"]).line();
    assert_eq!(answer.text, "x");
}

#[test]
fn an_interrupted_quickstart_leaves_a_prompt_that_works() {
    let scene = Scene::new();
    let done = interrupt(&scene, &["quickstart", "--json"]);
    assert_eq!(done.out, "sentiment-prompt");
    let ran =
        scene.run(&["classify", "--prompt", "sentiment-prompt", "A joy from start to finish.", "--json"]);
    assert_eq!(ran.line::<Classified>().log_likelihoods.len(), 2);
}
