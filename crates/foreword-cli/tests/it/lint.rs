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
    warning: 1 training text has more than one label (train.csv, line 7 against line 13): correct the labels, or take these examples out
    warning: 1 of 13 training examples repeats the text and label of an earlier one (train.csv, line 14 repeats line 2): they count more than others; keep one of each
    warning: 1 of 2 test examples is also in the training data (test.csv, line 2 is train.csv, line 9): the test scores will look better than they are; take these texts out of one of the two
    error: 3 warnings about the data, and --strict takes none
    hint: see to them, or leave --strict out
    ");

    let ran = args(&["--out", "p"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(strict.stderr.starts_with(&warnings(&ran.stderr)));
    assert!(scene.path("p").exists());
}

#[test]
fn the_bundled_task_gives_no_doubts() {
    let scene = Scene::new();
    let task = crate::scene::root().join("examples/sentiment/task.toml").display().to_string();
    let ran = scene.run(&["train", &task, "--steps", "1", "--strict", "--out", "p"]);
    assert_eq!((ran.code, warnings(&ran.stderr).as_str()), (0, ""), "{}", ran.stderr);
}
