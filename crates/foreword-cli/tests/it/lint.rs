//! Doubtful data: told before the run, and with --strict the end of it.

use crate::scene::{Scene, model};

/// Six sentences of each of two labels, the first of them twice and one with both labels.
const TRAIN: &str = "text,label\ngood fun,up\nwarm,up\ncharming,up\nbright,up\nlovely,up\nso so,up\n\
                     dull,down\nflat,down\nloud,down\ngrim,down\nlong,down\n so so,down\ngood fun,up\n";
const TEST: &str = "text,label\nflat,down\nnew,up\n";

fn warnings(stderr: &str) -> String {
    stderr
        .lines()
        .filter(|line| !line.starts_with(' ') && line.contains("warning:"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn doubts_are_told_and_with_strict_nothing_is_learned() {
    let scene = Scene::new();
    scene.file("train.csv", TRAIN).file("test.csv", TEST).file("dev.csv", "text,label\nfine,up\npoor,down\n");
    let llama = model("llama-tiny");
    let args = |more: &[&'static str]| {
        let mut args =
            vec!["train", "train.csv", "--dev", "dev.csv", "--test", "test.csv", "--model", &llama];
        args.extend(["--steps", "1", "--virtual-tokens", "2", "--labels", "up= a,down= b"]);
        args.extend(more);
        scene.run(&args)
    };
    let strict = args(&["--strict", "--out", "strict"]);
    assert_eq!((strict.code, strict.stdout.as_str()), (1, ""));
    assert!(!scene.path("strict").exists());
    insta::assert_snapshot!(strict.stderr, @r"
    the init has 20 tokens, of which the first 2 are taken; --virtual-tokens 20 takes all
    warning: 1 training text has more than one label (train.csv, line 7 against line 13): correct the labels, or take these examples out
    warning: 1 of 13 training examples repeats the text and label of an earlier one (train.csv, line 14 repeats line 2): they count more than others; keep one of each
    warning: 1 of 2 test examples is also in the training data (test.csv, line 2 is train.csv, line 9): the test scores will look better than they are; take these texts out of one of the two
    error: 3 warnings about the data, and --strict takes none
    hint: see to them, or leave --strict out
    ");

    let ran = args(&["--out", "p"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(strict.stderr.contains(&warnings(&ran.stderr)));
    assert!(scene.path("p").exists());
}

#[test]
fn texts_are_not_taken_for_labels_unless_that_is_said() {
    let scene = Scene::new();
    let rows: Vec<String> =
        (0..24).map(|i| format!("{{\"input\": \"a {i}\", \"output\": \"b {i}\"}}")).collect();
    scene.file("pairs.jsonl", rows.join("\n"));
    let llama = model("llama-tiny");
    let run = |more: &[&str]| {
        let args = [
            "train",
            "pairs.jsonl",
            "--model",
            &llama,
            "--steps",
            "1",
            "--virtual-tokens",
            "2",
            "--out",
            "p",
        ];
        scene.run(&[&args[..], &["--force"], more].concat())
    };
    let ran = run(&["--text-field", "input"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .contains("the field \"output\" has 24 different values in 24 examples: they are hardly labels")
            && ran.stderr.contains("--target-field output teaches to write them"),
        "{}",
        ran.stderr
    );
    for said in [&["--label-field", "output"], &["--target-field", "output"], &["--kind", "classification"]] {
        let ran = run(&[&["--text-field", "input"][..], said].concat());
        assert_eq!(ran.code, 0, "{said:?}: {}", ran.stderr);
    }
    let ran = run(&["--text-field", "input", "--target-field", "output", "--init", "labels"]);
    assert!(ran.code == 1 && ran.stderr.contains("this task has none"), "{}", ran.stderr);
}

#[test]
fn names_of_labels_do_nothing_to_a_terminal() {
    let scene = Scene::new();
    let rows = (0..12).map(|i| {
        format!(
            "{{\"text\": \"t {i}\", \"label\": \"{}\"}}",
            if i % 2 == 0 { "u\\u001b[31mp" } else { "do\\nwn" }
        )
    });
    scene.file("train.jsonl", rows.collect::<Vec<_>>().join("\n"));
    let llama = model("llama-tiny");
    let args =
        ["train", "train.jsonl", "--model", &llama, "--steps", "1", "--virtual-tokens", "2", "--out", "p"];
    let trained = scene.run(&args);
    let asked = ["--prompt", "p", "--model", &llama];
    let classified = scene.run(&[&["classify", "x", "y"][..], &asked].concat());
    let measured = scene.run(&[&["eval", "--data", "train.jsonl"][..], &asked].concat());
    for ran in [&trained, &classified, &measured, &scene.run(&["inspect", "p", "--model", &llama])] {
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(
            !ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'),
            "{}{}",
            ran.stdout,
            ran.stderr
        );
    }
    assert_eq!(classified.stdout.lines().count(), 2, "{}", classified.stdout);
}

#[test]
fn the_bundled_task_gives_no_doubts() {
    let scene = Scene::new();
    let task = crate::scene::root().join("examples/sentiment/task.toml").display().to_string();
    let ran = scene.run(&["train", &task, "--steps", "1", "--strict", "--out", "p"]);
    assert_eq!((ran.code, warnings(&ran.stderr).as_str()), (0, ""), "{}", ran.stderr);
}
