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
            .contains("the field \"output\" has 24 different values in 24 examples, 24 of which have one that no other example has: they are hardly labels")
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
fn columns_of_ids_are_no_labels_and_many_labels_are() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    let run = |file: &str, more: &[&str]| {
        let args = ["train", file, "--model", &llama, "--steps", "1", "--virtual-tokens", "2", "--out", "p"];
        scene.run(&[&args[..], &["--force"], more].concat())
    };
    let rows =
        (0..150).map(|i| format!("film number {i},id{},{},{}\n", i % 129, ["pos", "neg"][i % 2], i % 5 + 1));
    scene.file("ids.csv", format!("text,label,sentiment,stars\n{}", rows.collect::<String>()));
    let refused = run("ids.csv", &[]);
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    insta::assert_snapshot!(refused.stderr, @r#"
    error: the field "label" has 129 different values in 150 examples, 108 of which have one that no other example has: they are hardly labels
    hint: the fields that look like labels: "sentiment" (2 values), "stars" (5 values); choose one, as with --label-field sentiment; --target-field label teaches to write them; --label-field label takes them as labels all the same
    "#);
    for more in [["--label-field", "sentiment"], ["--label-field", "label"], ["--kind", "classification"]] {
        let ran = run("ids.csv", &more);
        assert_eq!(ran.code, 0, "{more:?}: {}", ran.stderr);
    }
    let rows = (0..200).map(|i| format!("film number {i},{}.{}\n", i % 7, i % 10));
    scene.file("scores.csv", format!("text,label\n{}", rows.collect::<String>()));
    let refused = run("scores.csv", &[]);
    assert!(refused.code == 1 && refused.stderr.contains("all numbers, with decimals"), "{}", refused.stderr);

    // Intents: 77 with one or two examples, 150 with two.
    for (n_labels, n) in [(77, 150), (150, 300)] {
        let rows = (0..n).map(|i| format!("question number {i},intent {}\n", i % n_labels));
        scene.file("intents.csv", format!("text,label\n{}", rows.collect::<String>()));
        let ran = run("intents.csv", &[]);
        assert_eq!(ran.code, 0, "{n_labels}: {}", ran.stderr);
    }
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
