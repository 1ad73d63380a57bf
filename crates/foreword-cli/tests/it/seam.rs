//! What stands between a text and its label: one space where one is meant, whoever writes it.

use std::fs;

use serde_json::Value;

use crate::scene::{Scene, model, root, sentences};
use crate::schema::{Classified, Report};

fn held_out() -> String {
    root().join("examples/sentiment/dev.jsonl").display().to_string()
}

#[test]
fn a_space_that_is_written_twice_or_not_at_all_costs_nothing() {
    let scene = Scene::new();
    let data = held_out();
    let eval = |more: &[&str]| {
        scene.run(&[&["eval", "--prompt", "none", "--data", &data, "--json"][..], more].concat())
    };
    let right = eval(&["--template", "{text}\\nSentiment:"]);
    assert!(!right.stderr.contains("labels  "), "{}", right.stderr);
    let expected: Report = right.line();
    assert_eq!(expected.accuracy, 0.72);
    for (more, said) in [
        (&["--template", "{text}\\nSentiment: "][..], None),
        (
            &["--template", "{text}\\nSentiment: ", "--labels", "negative= negative,positive= positive"],
            Some("the template ends in one"),
        ),
        (&["--template", "{text}\\nSentiment: ", "--labels", "negative=negative,positive=positive"], None),
        (
            &["--template", "{text}\\nSentiment:", "--labels", "negative=negative,positive=positive"],
            Some("a space was put before the texts of \"negative\" and \"positive\""),
        ),
    ] {
        let ran = eval(more);
        assert_eq!(said.is_some(), ran.stderr.contains("--exact-labels"), "{more:?}: {}", ran.stderr);
        assert!(said.is_none_or(|said| ran.stderr.contains(said)), "{}", ran.stderr);
        assert_eq!(ran.line::<Report>(), expected, "{more:?}");
    }
    let exactly = ["--labels", "negative=negative,positive=positive", "--exact-labels"];
    let exact: Report = eval(&[&["--template", "{text}\\nSentiment:"][..], &exactly].concat()).line();
    assert_ne!(exact.loss, expected.loss);
}

#[test]
fn labels_that_a_space_alone_tells_apart_are_kept() {
    let scene = Scene::new();
    let ran = scene.run(&[
        "classify",
        "--prompt",
        "none",
        "--template",
        "{text}:",
        "--labels",
        "a= happy,b=happy",
        "--json",
        "a big dog",
    ]);
    let answer: Classified = ran.line();
    assert!(answer.log_likelihoods["a"] > answer.log_likelihoods["b"]);
}

#[test]
fn a_label_that_begins_another_is_said_and_learned() {
    let scene = Scene::new();
    let row = |i: usize| match i % 2 {
        0 => format!("{{\"text\":\"please refund order {i}\",\"label\":\"spam\"}}\n"),
        _ => format!("{{\"text\":\"I lost my card, number {i}\",\"label\":\"spam not at all\"}}\n"),
    };
    fs::write(scene.path("d.jsonl"), (0..80).map(row).collect::<String>()).unwrap();
    let ran = scene.run(&["train", "d.jsonl", "--steps", "40", "--patience", "0", "--out", "p", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("begins with the tokens of \"spam\""), "{}", ran.stderr);
    let ran = scene.run(&["eval", "--prompt", "p", "--data", "d.jsonl", "--json"]);
    assert!(ran.stderr.contains("does not go on to another label"), "{}", ran.stderr);
    assert_eq!(ran.line::<Report>().accuracy, 1.0);
}

/// Labels that a prompt records behind a template that ended in a space, behind one that does not.
#[test]
fn recorded_labels_are_fitted_to_another_template() {
    let scene = Scene::new();
    let data = sentences();
    let llama = model("llama-tiny");
    assert_eq!(scene.train("p", "2", &["--template", "{text}\\nClass: "]).code, 0);
    let eval = |template: &str| {
        let args = ["eval", "--prompt", "p", "--model", &llama, "--data", &data, "--json"];
        scene.run(&[&args[..], &["--template", template]].concat())
    };
    let own: Report = eval("{text}\\nClass: ").line();
    let ran = eval("{text}\\nClass:");
    assert!(ran.stderr.contains("a space was put before"), "{}", ran.stderr);
    assert_eq!(ran.line::<Report>(), own);
}

/// A passport without `joining` is of an earlier version: it means labels that were tokenised apart.
#[test]
fn prompts_of_earlier_versions_are_used_as_they_were_trained_and_a_difference_is_said() {
    let scene = Scene::new();
    let data = sentences();
    let llama = model("llama-tiny");
    for (name, template) in [("same", "{text}\\nSentiment:"), ("other", "{text}\\nSentiment: ")] {
        let labels = "negative= negative,positive= positive";
        let labels = ["--labels", labels, "--exact-labels", "--template", template];
        assert_eq!(scene.train(name, "2", &labels).code, 0);
        let eval = || scene.run(&["eval", "--prompt", name, "--model", &llama, "--data", &data, "--json"]);
        let now = eval();
        assert!(!now.stderr.contains("earlier version"), "{}", now.stderr);
        let path = scene.path(&format!("{name}/foreword.json"));
        let mut passport: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let joining = passport["task"].as_object_mut().unwrap().remove("joining");
        assert_eq!(joining, Some("whole".into()));
        fs::write(&path, passport.to_string()).unwrap();
        let before = eval();
        assert_eq!(
            before.stderr.contains("trained by an earlier version"),
            name == "other",
            "{}",
            before.stderr
        );
        let (before, now): (Report, Report) = (before.line(), now.line());
        assert_eq!(before.loss == now.loss, name == "same");
    }
}
