//! What a run is measured and kept by: scores, weights, passes, scales, many labels.

use std::fmt::Write as _;

use crate::scene::{Scene, model};
use crate::schema::{Classified, Done, Line, Report};

/// Examples of these labels, in turn.
fn examples(labels: &[&str], n: usize) -> String {
    let mut csv = "text,label\n".to_owned();
    for (row, label) in labels.iter().cycle().take(n).enumerate() {
        writeln!(csv, "Number {row} is of the kind {label}.,{label}").unwrap();
    }
    csv
}

fn train<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = ["train", "d.csv", "--model", model, "--virtual-tokens", "4", "--out", "p", "--force"];
    [&args[..], more].concat()
}

fn done(lines: &[Line]) -> &Done {
    match lines.last() {
        Some(Line::Done(done)) => done,
        other => unreachable!("the last line is {other:?}"),
    }
}

#[test]
fn passes_become_steps() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    scene.file("d.csv", examples(&["a", "b"], 40)).file("dev.csv", examples(&["a", "b"], 4));
    let steps = |more: &[&str]| {
        let args = train(&llama, &[&["--dev", "dev.csv", "--batch-size", "8", "--json"][..], more].concat());
        let ran = scene.run(&args);
        done(&ran.lines()).steps
    };
    assert_eq!(steps(&["--epochs", "1"]), 5);
    assert_eq!(steps(&["--epochs", "0.25"]), 2);
    assert_eq!(steps(&["--epochs", "0.01"]), 1);
    // A flag overrides the other way of saying it in the task file.
    scene.file(
        "task.toml",
        "[data]\ntrain = \"d.csv\"\ndev = \"dev.csv\"\n[train]\nsteps = 7\nbatch_size = 10\n",
    );
    let of_file = |more: &[&str]| {
        let args =
            ["train", "task.toml", "--model", &llama, "--virtual-tokens", "4", "--out", "p", "--force"];
        scene.run(&[&args[..], more].concat())
    };
    let told = of_file(&["--epochs", "1"]);
    assert!(told.code == 0 && told.stderr.contains(" 4 steps of 10 examples"), "{}", told.stderr);
    assert!(told.stdout.contains("1.0 passes over the training examples; "), "{}", told.stdout);
    scene.file("task.toml", "[data]\ntrain = \"d.csv\"\n[train]\nsteps = 7\nepochs = 2\n");
    let both = of_file(&[]);
    assert!(both.code == 1 && both.stderr.contains("has both steps and epochs"), "{}", both.stderr);
    for epochs in ["0", "-1", "nan", "x"] {
        let refused = scene.run(&train(&llama, &[&format!("--epochs={epochs}")]));
        assert!(refused.code == 1 && refused.stderr.contains("must be greater than 0"), "{}", refused.stderr);
    }
    let refused = scene.run(&train(&llama, &["--epochs", "1", "--steps", "2"]));
    assert!(refused.code == 1 && refused.stderr.contains("cannot be used with"), "{}", refused.stderr);
}

#[test]
fn a_choice_by_few_dev_examples_says_how_uncertain_it_is() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    scene.file("d.csv", examples(&["a", "b"], 60));
    let run = |n_dev: usize, more: &[&str]| {
        scene.file("dev.csv", examples(&["a", "b"], n_dev).replace("Number", "Example"));
        let args = train(&llama, &["--dev", "dev.csv", "--steps", "2"]);
        let ran = scene.run(&[&args[..], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran
    };
    for n in [2, 12, 30] {
        let ran = run(n, &[]);
        let said = format!(" (chosen on only {n} dev examples: the accuracy there is ");
        let (_, rest) = ran.stderr.split_once(&said).unwrap_or_else(|| panic!("{}", ran.stderr));
        let (accuracy, rest) = rest.split_once(", with a 95 % interval of ").unwrap();
        // As in the table, in whose row the same prompt is.
        let row = ran.stdout.lines().find(|line| line.starts_with("tuned soft prompt")).unwrap();
        let (interval, _) = rest.split_once(')').unwrap();
        assert!(row.contains(accuracy) && row.contains(interval), "{row} {accuracy} {interval}");
        assert_eq!(ran.stderr.matches("chosen on only").count(), 1, "{}", ran.stderr);
        assert!(ran.stdout.contains("chosen on these few examples, so expect less"), "{}", ran.stdout);
        if ran.stdout.contains("not worthwhile") {
            assert!(ran.stdout.contains(&format!("as far as {n} examples can tell")), "{}", ran.stdout);
        }
    }
    let many = run(32, &[]);
    assert!(
        !many.stderr.contains("chosen on only") && !many.stdout.contains("few examples"),
        "{}",
        many.stderr
    );
    // Nothing is chosen where the last prompt is kept.
    assert!(!run(12, &["--keep", "last"]).stderr.contains("chosen on only"));
}

#[test]
fn the_prompt_is_kept_by_what_was_chosen() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    scene.file("d.csv", examples(&["a", "b", "a"], 60));
    let best = |by: &str, score: fn(f64, f64) -> (f64, f64)| {
        let more = ["--steps", "24", "--eval-every", "2", "--patience", "0", "--keep-by", by, "--json"];
        let lines: Vec<Line> = scene.run(&train(&llama, &more)).lines();
        let mut best: Option<((f64, f64), u64)> = None;
        for line in &lines {
            let &Line::Eval { step, loss, accuracy, .. } = line else { continue };
            let score = score(accuracy, loss);
            if best.is_none_or(|(other, _)| score < other) {
                best = Some((score, step));
            }
        }
        (best.unwrap().1, done(&lines).best_step)
    };
    let (expected, kept) = best("loss", |_, loss| (loss, loss));
    assert_eq!(kept, expected);
    let (expected, kept) = best("accuracy", |accuracy, loss| (-accuracy, loss));
    assert_eq!(kept, expected);
    let passport = || std::fs::read_to_string(scene.path("p/foreword.json")).unwrap();
    assert!(passport().contains("\"keep_by\": \"accuracy\""));
    assert_eq!(scene.run(&train(&llama, &["--steps", "1", "--keep-by", "macro-f1"])).code, 0);
    assert!(passport().contains("\"keep_by\": \"macro-f1\""));
    let generation = ["--steps", "1", "--target-field", "label", "--keep-by", "accuracy"];
    let refused = scene.run(&train(&llama, &generation));
    assert!(refused.code == 1 && refused.stderr.contains("keep_by must be loss"), "{}", refused.stderr);
}

#[test]
fn rare_labels_may_count_as_much_as_common_ones() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    let tensors = |more: &[&str]| {
        let ran = scene.run(&train(&llama, &[&["--steps", "6", "--keep", "last"][..], more].concat()));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        std::fs::read(scene.path("p/adapter_model.safetensors")).unwrap()
    };
    // With as many of each, every weight is 1.
    scene.file("d.csv", examples(&["a", "b"], 40));
    assert!(tensors(&[]) == tensors(&["--class-weights", "balanced"]));
    scene.file("d.csv", examples(&["a", "a", "a", "b"], 40));
    let plain = tensors(&[]);
    assert!(plain == tensors(&["--class-weights", "none"]));
    assert!(plain != tensors(&["--class-weights", "balanced"]));
    let passport = std::fs::read_to_string(scene.path("p/foreword.json")).unwrap();
    assert!(passport.contains("\"class_weights\": \"balanced\""));
    assert!(passport.contains("\"keep_by\": \"macro-f1\""), "the default with balanced weights");
    let inspected = scene.run(&["inspect", "p", "--model", &llama]);
    assert!(inspected.stdout.contains("class weights balanced"), "{}", inspected.stdout);
}

#[test]
fn labels_that_are_numbers_are_in_the_order_of_numbers_and_may_be_a_scale() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    scene.file("d.csv", examples(&["10", "9", "8", "2", "1"], 40));
    let ran = scene.run(&train(&llama, &["--steps", "1"]));
    assert!(ran.stderr.contains("as 1, 2, 8, 9 or 10."), "{}", ran.stderr);
    assert!(!ran.stderr.contains("look like a scale"), "not at equal distances: {}", ran.stderr);
    let rows = ran.stdout.lines().filter_map(|line| line.split_whitespace().next());
    let order: Vec<&str> = rows.filter(|word| word.parse::<u8>().is_ok_and(|label| label < 11)).collect();
    assert_eq!(&order[order.len() - 5..], ["1", "2", "8", "9", "10"], "{}", ran.stdout);

    scene.file("d.csv", examples(&["1", "2", "3", "4", "5"], 40));
    let ran = scene.run(&train(&llama, &["--steps", "1"]));
    assert!(ran.stderr.contains("the labels look like a scale from 1 to 5"), "{}", ran.stderr);
    let asked = ["--prompt", "p", "--model", &llama, "--data", "d.csv"];
    let report: Report = scene.run(&[&["eval"][..], &asked, &["--json"]].concat()).line();
    let answers: Vec<Classified> = scene.run(&[&["classify"][..], &asked, &["--json"]].concat()).lines();
    let (mut expected, mut predicted) = (0.0, 0.0);
    for (row, answer) in answers.iter().enumerate() {
        let truth = (row % 5 + 1) as f64;
        let value: f64 =
            answer.probabilities.iter().map(|(label, p)| p * label.parse::<f64>().unwrap()).sum();
        assert!((answer.expected.unwrap() - value).abs() < 1e-12);
        expected += (value - truth).abs() / 40.0;
        predicted += (answer.label.as_ref().unwrap().parse::<f64>().unwrap() - truth).abs() / 40.0;
    }
    let errors = report.mean_absolute_error.unwrap();
    assert!((errors.expected - expected).abs() < 1e-9 && (errors.predicted - predicted).abs() < 1e-9);
    let shown = scene.run(&[&["eval"][..], &asked].concat()).stdout;
    let line = format!(
        "on a scale from 1 to 5: mean absolute error {expected:.3} of the expected value, {predicted:.3}"
    );
    assert!(shown.contains(&line), "{shown}");
    assert!(shown.contains("the surest mistakes:\n"), "{shown}");
    assert!(
        report.mistakes.len() == 5 && report.mistakes.is_sorted_by(|a, b| a.probability >= b.probability)
    );
    for mistake in &report.mistakes {
        assert_ne!(mistake.truth, mistake.label);
        assert!(mistake.text.ends_with(&format!("kind {}.", mistake.truth)), "{mistake:?}");
        let row = answers.iter().position(|answer| answer.text == mistake.text).unwrap();
        assert_eq!(mistake.line, row as u64 + 2);
        let answered = answers[row].probabilities[&mistake.label];
        assert!((mistake.probability - answered).abs() < 1e-12);
    }
    // Labels that are words are no scale.
    scene.file("d.csv", examples(&["one", "two", "three"], 30));
    assert_eq!(scene.run(&train(&llama, &["--steps", "1"])).code, 0);
    let report: Report = scene.run(&[&["eval"][..], &asked, &["--json"]].concat()).line();
    assert_eq!(report.mean_absolute_error, None);
}

#[test]
fn with_hundreds_of_labels_everything_stays_readable() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    let names: Vec<String> = (0..300).map(|label| format!("kind {label}")).collect();
    let labels: Vec<&str> = names.iter().map(String::as_str).collect();
    scene.file("d.csv", examples(&labels, 600));
    let ran = scene.run(&train(&llama, &["--steps", "1", "--max-length", "64"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("60 of 600 training examples"), "dev takes a tenth: {}", ran.stderr);
    assert!(ran.stderr.len() < 6000, "{} bytes: {}", ran.stderr.len(), ran.stderr);
    assert!(ran.stdout.contains("the 10 of 300 labels with the lowest F1:\n"), "{}", ran.stdout);
    assert!(ran.stdout.lines().count() < 40, "{}", ran.stdout);
    let asked = ["eval", "--prompt", "p", "--model", &llama, "--data", "d.csv", "--limit", "300"];
    let shown = scene.run(&asked);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    assert!(shown.stdout.contains("the 10 most frequent of "), "{}", shown.stdout);
    let longest = shown.stdout.lines().map(|line| line.chars().count()).max();
    assert!(shown.stdout.lines().count() < 50 && longest < Some(160), "{}", shown.stdout);
    let report: Report = scene.run(&[&asked[..], &["--json"]].concat()).line();
    assert_eq!((report.per_label.len(), report.confusion.len()), (300, 300), "nothing is left out of --json");
}
