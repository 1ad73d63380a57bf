//! Tuned prompts beside what costs no training.

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;

use crate::scene::{Scene, root};
use crate::schema::{LabelScores, Report};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compared {
    n: u64,
    model: String,
    template: String,
    instruction: String,
    calibrate: Option<String>,
    reference: Option<String>,
    rows: Vec<Row>,
    flips: Option<Flips>,
    fine_tuning: FineTuning,
    verdict: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    kind: String,
    method: Option<String>,
    name: String,
    accuracy: f64,
    interval: (f64, f64),
    macro_f1: f64,
    loss: Option<f64>,
    learned: u64,
    bytes: u64,
    tokens_before: u64,
    cut: u64,
    training_seconds: Option<f64>,
    milliseconds_per_text: Option<f64>,
    per_label: BTreeMap<String, LabelScores>,
    against: Option<Against>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Against {
    difference: f64,
    interval: (f64, f64),
    only_reference: u64,
    only_this: u64,
    p: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flips {
    n_corrected: u64,
    n_spoiled: u64,
    corrected: Vec<Flip>,
    spoiled: Vec<Flip>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flip {
    text: String,
    label: String,
    without: String,
    with: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FineTuning {
    learned: u64,
    bytes: u64,
}

impl Compared {
    fn row(&self, kind: &str) -> &Row {
        self.rows.iter().find(|row| row.kind == kind).unwrap()
    }

    fn kinds(&self) -> Vec<&str> {
        self.rows.iter().map(|row| row.kind.as_str()).collect()
    }
}

/// Forty sentences to learn from and forty to measure on, and prompts of the bundled model from a few steps.
fn scene(prompts: &[&str]) -> Scene {
    let scene = Scene::new();
    for (name, lines) in [("train", 0..40), ("test", 40..80)] {
        let all = fs::read_to_string(root().join("examples/sentiment/train.jsonl")).unwrap();
        let some: Vec<&str> = all.lines().skip(lines.start).take(lines.len()).collect();
        scene.file(&format!("{name}.jsonl"), some.join("\n"));
    }
    scene.file("task.toml", "[data]\ntrain = \"train.jsonl\"\ntest = \"test.jsonl\"\n[task]\ntemplate = \"{text}\\nSentiment:\"\n");
    for (seed, prompt) in prompts.iter().enumerate() {
        train(&scene, prompt, &["--seed", &seed.to_string()]);
    }
    scene
}

fn train(scene: &Scene, prompt: &str, more: &[&str]) {
    let args = ["train", "task.toml", "--steps", "3", "--batch-size", "8", "--virtual-tokens", "4"];
    let ran = scene.run(&[&args[..], &["--out", prompt], more].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

/// The bytes of a prompt directory without what lies in directories below it.
fn on_disk(scene: &Scene, prompt: &str) -> u64 {
    let files = ["adapter_config.json", "adapter_model.safetensors", "foreword.json"];
    files.iter().map(|file| fs::metadata(scene.path(prompt).join(file)).unwrap().len()).sum()
}

/// A row says what `eval` says.
#[track_caller]
fn same(row: &Row, report: &Report) {
    let expected = (report.accuracy, report.macro_f1, Some(report.loss));
    assert_eq!((row.accuracy, row.macro_f1, row.loss), expected, "{}", row.name);
    assert_eq!(row.per_label, report.per_label);
}

fn compare(scene: &Scene, more: &[&str]) -> Compared {
    scene.run(&[&["compare", "task.toml", "--json"][..], more].concat()).line()
}

fn eval(scene: &Scene, more: &[&str]) -> Report {
    scene.run(&[&["eval", "--data", "test.jsonl", "--json"][..], more].concat()).line()
}

#[test]
fn each_row_is_what_eval_says_and_all_meet_on_the_same_examples() {
    let scene = scene(&["p", "q"]);
    let compared = compare(&scene, &["--prompt", "p", "--prompt", "q"]);
    assert_eq!(
        compared.kinds(),
        ["majority", "bare", "instruction", "demonstrations", "prompt", "prompt", "ensemble"]
    );
    assert_eq!((compared.n, compared.model.as_str()), (40, "foreword-tiny"));
    assert_eq!(compared.template, "{text}\nSentiment:");
    assert_eq!(compared.instruction, "Classify the text as negative or positive.");
    let template = ["--prompt", "none", "--template", "{text}\\nSentiment:"];
    same(compared.row("bare"), &eval(&scene, &template));
    let template = [
        "--prompt",
        "none",
        "--template",
        "Classify the text as negative or positive.\\n{text}\\nSentiment:",
    ];
    same(compared.row("instruction"), &eval(&scene, &template));
    same(&compared.rows[4], &eval(&scene, &["--prompt", "p"]));
    same(&compared.rows[5], &eval(&scene, &["--prompt", "q"]));

    let prompt = &compared.rows[4];
    assert_eq!((prompt.learned, prompt.tokens_before, prompt.cut), (4 * 192, 4, 0));
    assert_eq!(prompt.bytes, on_disk(&scene, "p"));
    assert_eq!((compared.reference.as_deref(), prompt.against.is_none()), (Some("prompt p"), true));
    assert_eq!(compared.row("ensemble").learned, 2 * 4 * 192);
    assert!(compared.row("majority").loss.is_none() && compared.row("bare").bytes == 0);
    assert!(compared.rows.iter().all(|row| row.interval.0 <= row.accuracy && row.accuracy <= row.interval.1));
    assert!(compared.rows.iter().skip(1).all(|row| row.milliseconds_per_text > Some(0.0)));
    // What the prompt corrected and spoiled are the examples on which it and the bare model differ in being right.
    let (flips, against) = (compared.flips.as_ref().unwrap(), compared.row("bare").against.as_ref().unwrap());
    assert_eq!((flips.n_corrected, flips.n_spoiled), (against.only_reference, against.only_this));
    assert!((against.difference - (prompt.accuracy - compared.row("bare").accuracy)).abs() < 1e-12);
    assert!(
        against.interval.0 <= against.difference
            && against.difference <= against.interval.1
            && against.p > 0.0
    );
    assert!(
        flips
            .corrected
            .iter()
            .all(|flip| flip.with == flip.label && flip.without != flip.label && !flip.text.is_empty())
    );
    assert!(flips.spoiled.iter().all(|flip| flip.without == flip.label && flip.with != flip.label));
    assert!(
        compared.fine_tuning.learned > 3_000_000
            && compared.fine_tuning.bytes > 12 * compared.fine_tuning.learned
    );
    assert!(compared.verdict.contains("help"), "{}", compared.verdict);
}

#[test]
fn an_ensemble_is_a_row_beside_its_best_and_a_kv_prefix_is_told_apart() {
    let scene = scene(&[]);
    train(&scene, "e", &["--candidates", "4", "--ensemble", "2", "--keep", "last"]);
    train(&scene, "k", &["--method", "prefix"]);
    let compared = compare(&scene, &["--prompt", "e", "--prompt", "k", "--shots", "0"]);
    let rows: Vec<(&str, &str, Option<&str>)> = compared.rows[3..]
        .iter()
        .map(|row| (row.kind.as_str(), row.name.as_str(), row.method.as_deref()))
        .collect();
    assert_eq!(
        rows,
        [
            ("prompt", "prompt e", Some("prompt")),
            ("ensemble", "prompt e, 2 together", Some("prompt")),
            ("prompt", "KV prefix k", Some("prefix")),
            ("ensemble", "the 2 prompts together", None),
        ]
    );
    let [best, together, prefix, all] = &compared.rows[3..] else { unreachable!() };
    same(best, &eval(&scene, &["--prompt", "e"]));
    same(together, &eval(&scene, &["--prompt", "e", "--ensemble"]));
    same(prefix, &eval(&scene, &["--prompt", "k"]));
    assert_ne!(best.loss, together.loss);

    // Keys and values of six layers, 64 numbers each.
    assert_eq!((best.learned, together.learned, prefix.learned), (4 * 192, 2 * 4 * 192, 4 * 6 * 2 * 64));
    assert_eq!((best.bytes, prefix.bytes), (on_disk(&scene, "e"), on_disk(&scene, "k")));
    assert_eq!(together.bytes, best.bytes + on_disk(&scene, "e/member-2"));
    assert_eq!((together.tokens_before, prefix.tokens_before), (8, 4));
    // The members of an ensemble are no further prompts.
    assert_eq!((all.learned, all.bytes), (best.learned + prefix.learned, best.bytes + prefix.bytes));

    // A prompt does not record how long it was trained.
    assert!(compared.rows[..3].iter().all(|row| row.training_seconds == Some(0.0) && row.method.is_none()));
    assert!(compared.rows[3..].iter().all(|row| row.training_seconds.is_none()));
}

#[test]
fn directories_that_are_no_ensemble_are_refused() {
    let scene = scene(&["p"]);
    train(&scene, "p/member-2", &["--method", "prefix"]);
    for args in [
        &["compare", "task.toml", "--prompt", "p"][..],
        &["eval", "--data", "test.jsonl", "--prompt", "p", "--ensemble"],
    ] {
        let ran = scene.run(args);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert!(
            ran.stderr.contains("are no ensemble: one is a soft prompt, the other a KV prefix"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn rows_without_tuning_are_corrected_on_request_and_prompts_are_not() {
    let scene = scene(&["p"]);
    let raw = compare(&scene, &["--prompt", "p"]);
    for method in ["content-free", "batch"] {
        let corrected = compare(&scene, &["--prompt", "p", "--calibrate", method]);
        assert_eq!((raw.calibrate.as_ref(), corrected.calibrate.as_deref()), (None, Some(method)));
        let template = ["--prompt", "none", "--template", "{text}\\nSentiment:", "--calibrate", method];
        let of_eval = eval(&scene, &template);
        assert_eq!(
            (corrected.row("bare").accuracy, corrected.row("bare").loss),
            (of_eval.accuracy, Some(of_eval.loss))
        );
        assert_ne!(corrected.row("demonstrations").loss, raw.row("demonstrations").loss);
        assert_eq!(corrected.row("prompt").loss, raw.row("prompt").loss);
    }
    let ran = scene.run(&["compare", "task.toml", "--calibrate", "temperature"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("[possible values: none, content-free, batch]"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_stored_correction_counts_in_a_comparison_too() {
    let scene = scene(&["p"]);
    let raw = compare(&scene, &["--prompt", "p"]);
    let corrected = eval(&scene, &["--prompt", "p", "--calibrate", "batch", "--save-calibration"]);
    let ran = scene.run(&["compare", "task.toml", "--prompt", "p"]);
    assert!(
        ran.stdout.contains("the prompt p is corrected as its foreword.json says, by batch: "),
        "{}",
        ran.stdout
    );
    let compared = compare(&scene, &["--prompt", "p"]);
    same(compared.row("prompt"), &corrected);
    assert_ne!(compared.row("prompt").loss, raw.row("prompt").loss);
    assert_eq!(compared.row("bare").loss, raw.row("bare").loss);
}

#[test]
fn what_makes_a_comparison_unfair_is_told() {
    let scene = scene(&["p"]);
    let warned = |more: &[&str], with: &str| {
        let ran = scene.run(&[&["compare", "task.toml", "--shots", "0"][..], more].concat());
        assert!(ran.stderr.contains(with), "{}", ran.stderr);
        ran
    };
    let own = "warning: the prompt p was trained with the label texts \" negative\", \" positive\", and is measured so";
    warned(&["--prompt", "p", "--labels", "negative= bad,positive= good"], own);
    warned(
        &["--prompt", "p", "--placement", "suffix"],
        "was trained with the placement front, and is measured so",
    );
    let overlap = "warning: 40 of 40 test examples are also in the training data";
    let ran =
        warned(&["--test", "train.jsonl", "--template", "{text} It was", "--max-length", "64"], overlap);
    assert!(
        ran.stderr.contains("--template '{text} It was' --max-length 64 --out tuned-prompt"),
        "{}",
        ran.stderr
    );
    let labels = [r"negative=\, bad", r"positive=\= good"].join(",");
    let ran = scene.run(&[
        "compare",
        "task.toml",
        "--shots",
        "0",
        "--template",
        r"{text}\nSo:",
        "--labels",
        &labels,
    ]);
    let recipe = ["--template '{text}", r"\nSo:' --labels '", &labels, "' --out tuned-prompt"].concat();
    assert!(ran.stderr.contains(&recipe), "{recipe} in {}", ran.stderr);
    let none = warned(&["--prompt", "none"], "hint: leave it out");
    assert_eq!(none.code, 1);
}

#[test]
fn several_of_the_same_prompt_are_that_prompt() {
    let scene = scene(&["p"]);
    let one = compare(&scene, &["--prompt", "p"]);
    assert!(!one.kinds().contains(&"ensemble"));
    let two = compare(&scene, &["--prompt", "p", "--prompt", "./p"]);
    let (alone, together) = (one.row("prompt"), two.row("ensemble"));
    assert_eq!((alone.accuracy, alone.loss), (together.accuracy, together.loss));
    let nothing = Against {
        difference: 0.0,
        only_reference: 0,
        only_this: 0,
        p: 1.0,
        interval: together.against.as_ref().unwrap().interval,
    };
    assert_eq!(together.against, Some(nothing));
}

#[test]
fn demonstrations_stand_in_the_context() {
    let scene = scene(&[]);
    let shots = |n: &str, more: &[&str]| compare(&scene, &[&["--shots", n][..], more].concat());
    let (one, four) = (shots("1", &[]), shots("4", &[]));
    let tokens = |compared: &Compared| compared.row("demonstrations").tokens_before;
    // Two labels: two demonstrations against eight, each a sentence, the template and a label.
    assert!(
        tokens(&one) > 2 * 6 && tokens(&four) > 3 * tokens(&one),
        "{} and {}",
        tokens(&one),
        tokens(&four)
    );
    assert_eq!(four.row("demonstrations").name, "8 examples in context");
    assert_ne!(four.row("demonstrations").loss, four.row("bare").loss);
    // The same seed draws the same, another one others, and the row is what eval says of the text written out.
    assert_eq!(four.row("demonstrations").loss, shots("4", &[]).row("demonstrations").loss);
    assert_ne!(four.row("demonstrations").loss, shots("4", &["--seed", "1"]).row("demonstrations").loss);
    assert_eq!(shots("0", &[]).kinds(), ["majority", "bare", "instruction"]);
    // More than there are, or fit: as many as can be.
    let most = shots("100", &[]).row("demonstrations").tokens_before;
    assert!(most > tokens(&four) && most < 2048, "{most}");
    let told = scene.run(&["compare", "task.toml", "--shots", "100"]);
    assert!(told.stderr.contains("--shots 100: ") && told.stderr.contains(", not 200: "), "{}", told.stderr);
    assert!(!scene.run(&["compare", "task.toml"]).stderr.contains("--shots"));
}

#[test]
fn several_prompts_are_tested_against_the_first() {
    let scene = scene(&["p", "q"]);
    let ran = scene.run(&["compare", "task.toml", "--prompt", "p", "--prompt", "q", "--shots", "0"]);
    assert!(
        ran.stdout.contains("first prompt's lead") && ran.stdout.contains("right with the first prompt, ")
    );
    assert!(ran.stdout.contains(" examples the first prompt is "), "{}", ran.stdout);
}

#[test]
fn few_shot_runs_say_how_many_examples_there_were() {
    let scene = scene(&[]);
    let run = |shots: &str, out: &str| {
        let args =
            ["train", "task.toml", "--shots", shots, "--seed", "1", "--steps", "1", "--virtual-tokens", "2"];
        scene.run(&[&args[..], &["--out", out]].concat())
    };
    let ran = run("30", "many");
    assert!(
        ran.stderr.contains("--shots 30: there are fewer training examples of some labels; "),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains(", not 60"), "{}", ran.stderr);
    assert!(!run("4", "few").stderr.contains("there are fewer"));
}

#[test]
fn without_a_prompt_nothing_is_trained_and_the_way_is_told() {
    let scene = scene(&[]);
    let before = scene.names();
    let ran = scene.run(&["compare", "task.toml", "--instruction", "Is it {good}?"]);
    assert_eq!((ran.code, scene.names()), (0, before), "{}", ran.stderr);
    assert!(ran.stdout.contains("that is what a prompt has to beat"), "{}", ran.stdout);
    assert!(ran.stderr.contains("train task.toml --out tuned-prompt"), "{}", ran.stderr);
    assert!(ran.stderr.contains("instruction: \"Is it {good}?\""), "{}", ran.stderr);
    assert!(!ran.stdout.contains("first prompt"), "{}", ran.stdout);
}

#[test]
fn a_prompt_alone_says_how_it_is_asked() {
    let scene = scene(&["p"]);
    let ran =
        scene.run(&["compare", "--prompt", "p", "--test", "test.jsonl", "--limit", "30", "--flips", "1"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("template  \"{text}\\nSentiment:\""), "{}", ran.stderr);
    assert!(ran.stderr.contains("the majority class is that of the test examples"), "{}", ran.stderr);
    // The share of the more frequent label.
    let majority =
        ran.stdout.lines().find(|line| line.starts_with("majority class of the test examples (")).unwrap();
    assert!(majority.contains("(positive)") && majority.contains(" 66.7 %"), "{majority}");
    assert!(ran.stdout.contains(" prompt's lead") && !ran.stdout.contains("first prompt"), "{}", ran.stdout);
    for part in [
        "30 test examples",
        "bare model, same template",
        "instruction in words",
        "prompt p",
        "exact McNemar test",
        "Full fine-tuning (computed, not run)",
    ] {
        assert!(ran.stdout.contains(part), "{part:?}\n{}", ran.stdout);
    }
}

#[test]
fn what_can_not_be_compared_is_said() {
    let scene = scene(&["p"]);
    let refused = |args: &[&str], part: &str| {
        let ran = scene.run(&[&["compare"][..], args].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.stderr);
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    };
    refused(&["--prompt", "p"], "there is nothing to compare on\nhint: give examples");
    refused(&["task.toml", "--prompt", "nowhere"], "there is no prompt directory nowhere");
    scene.file("topics.jsonl", "{\"text\":\"a\",\"label\":\"x\"}\n{\"text\":\"b\",\"label\":\"y\"}\n");
    refused(
        &["--test", "topics.jsonl", "--labels", "x= x,y= y", "--prompt", "p"],
        "has the labels negative, positive, and the comparison x, y",
    );
    scene.file("writing.toml", "[data]\ntest = \"test.jsonl\"\n[task]\nkind = \"generation\"\n");
    refused(&["writing.toml"], "this task is to write texts");
}
