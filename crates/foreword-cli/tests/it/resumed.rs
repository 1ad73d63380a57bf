//! Runs that were killed go on with --resume and end in the same bytes as one that never stopped.

#![cfg(unix)]

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::scene::{Scene, model, sentences};

/// Starts a run and kills it once it has told the given step.
#[track_caller]
fn kill_after(scene: &Scene, args: &[&str], step: usize) {
    let mut child = scene.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = format!("\"step\":{step},\"loss\"");
    let line =
        lines.map(Result::unwrap).find(|line| line.contains(&told) && line.contains("\"event\":\"step\""));
    assert!(line.is_some(), "the run ended before step {step}");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn args<'a>(sentences: &'a str, model: &'a str, out: &'a str) -> Vec<&'a str> {
    let mut args = vec!["train", sentences, "--model", model, "--steps", "60", "--batch-size", "7"];
    args.extend(["--eval-every", "4", "--virtual-tokens", "5", "--patience", "0", "--json", "--out", out]);
    args.extend(["--dtype", "f32"]);
    args
}

#[test]
fn a_run_killed_again_and_again_ends_in_the_bytes_of_an_unbroken_one() {
    let scene = Scene::new();
    let (sentences, llama) = (sentences(), model("llama-tiny"));
    assert_eq!(scene.run(&args(&sentences, &llama, "unbroken")).code, 0);
    let first = args(&sentences, &llama, "killed");
    let resumed: Vec<&str> = first.iter().copied().chain(["--resume"]).collect();
    kill_after(&scene, &first, 6);
    for step in [9, 17, 30, 41, 55] {
        kill_after(&scene, &resumed, step);
    }
    let refused = scene.run(&first);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("killed contains an unfinished run"), "{}", refused.stderr);
    let mut other = resumed.clone();
    other[5] = "61";
    let refused = scene.run(&other);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("steps 60 instead of 61"), "{}", refused.stderr);
    let mut other = resumed.clone();
    *other.iter_mut().find(|arg| **arg == "f32").unwrap() = "bf16";
    let refused = scene.run(&other);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("dtype \"f32\" instead of \"bf16\""), "{}", refused.stderr);
    // Another text in one example, and another label.
    let text = std::fs::read_to_string(&sentences).unwrap();
    let (other_text, other_label) = (text.replacen('.', "!", 1), text.replacen("negative", "positive", 1));
    for changed in [other_text, other_label] {
        assert_ne!(changed, text);
        scene.file("changed.jsonl", changed);
        let mut other = resumed.clone();
        other[1] = "changed.jsonl";
        let refused = scene.run(&other);
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains(" data \""), "{}", refused.stderr);
    }

    assert_eq!(scene.run(&resumed).code, 0);
    for file in ["adapter_config.json", "adapter_model.safetensors", "foreword.json"] {
        let read = |dir: &str| std::fs::read(scene.path(dir).join(file)).unwrap();
        assert_eq!(read("unbroken"), read("killed"), "{file}");
    }
    assert!(!scene.path("killed").join("checkpoint").exists());
    let nothing = scene.run(&resumed);
    assert_eq!(nothing.code, 1);
    assert!(nothing.stderr.contains("there is nothing to resume"), "{}", nothing.stderr);
}
