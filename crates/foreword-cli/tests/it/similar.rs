//! The nearest of several prompts.

use serde::Deserialize;

use crate::scene::{Scene, model, sentences};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Similars {
    prompt: String,
    similar: Vec<Similar>,
    not_comparable: Vec<Incomparable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Similar {
    prompt: String,
    pooled: f64,
    matched: f64,
    virtual_tokens: usize,
    template: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Incomparable {
    prompt: String,
    why: String,
}

#[test]
fn the_nearest_come_first_and_others_are_named() {
    let scene = Scene::new();
    assert_eq!(scene.train("one", "1", &["--init", "text:good film"]).code, 0);
    assert_eq!(scene.train("near", "2", &["--init", "text:good film"]).code, 0);
    assert_eq!(scene.train("far", "1", &["--init", "random", "--template", "{text}\\nSo:"]).code, 0);
    let (data, other) = (sentences(), model("gpt2-tiny"));
    let args =
        ["train", &data, "--model", &other, "--steps", "1", "--virtual-tokens", "4", "--out", "foreign"];
    assert_eq!(scene.run(&args).code, 0);
    scene.file("notes.txt", "no prompt");
    scene.copy(&scene.path("one"), "copy");

    let all = ["similar", "one", "far", "near", "one", "copy", "foreign", "notes.txt", "missing"];
    let found: Similars = scene.run(&[&all[..], &["--json"]].concat()).line();
    assert_eq!(found.prompt, "one");
    let order: Vec<&str> = found.similar.iter().map(|near| near.prompt.as_str()).collect();
    // Not itself; a copy is the same.
    assert_eq!(order, ["copy", "near", "far"]);
    let copy = &found.similar[0];
    assert!((copy.pooled - 1.0).abs() < 1e-9 && (copy.matched - 1.0).abs() < 1e-9, "{copy:?}");
    assert!(
        found.similar[1].pooled > 0.9 && found.similar[2].pooled < 0.5 && copy.virtual_tokens == 4,
        "{found:?}"
    );
    assert_eq!(found.similar[2].template.as_deref(), Some("{text}\nSo:"));
    let why: Vec<&str> = found.not_comparable.iter().map(|other| other.prompt.as_str()).collect();
    assert_eq!(why, ["foreign", "notes.txt", "missing"]);
    assert!(found.not_comparable[0].why.starts_with("it was made for another model, gpt2-tiny: "));
    assert!(found.not_comparable[2].why.contains("there is no prompt directory missing"));

    let ran = scene.run(&all);
    assert!(ran.stdout.contains("not comparable: foreign: it was made for another model"), "{}", ran.stdout);
    assert!(ran.stderr.contains("foreword train … --init from:copy"), "{}", ran.stderr);
}

#[test]
fn what_has_no_model_is_said() {
    let scene = Scene::new();
    assert_eq!(scene.train("one", "1", &[]).code, 0);
    let ran = scene.run(&["similar", "nowhere", "one"]);
    assert!(ran.code == 1 && ran.stderr.contains("there is no prompt directory nowhere"), "{}", ran.stderr);
    scene.copy(&scene.path("one"), "bare");
    std::fs::remove_file(scene.path("bare/foreword.json")).unwrap();
    let ran = scene.run(&["similar", "bare", "one"]);
    assert!(ran.code == 1 && ran.stderr.contains("bare has no foreword.json"), "{}", ran.stderr);
    let ran = scene.run(&["similar", "one", "bare"]);
    assert!(ran.code == 0 && ran.stdout.contains("none of them can be compared"), "{}", ran.stdout);
    assert_eq!(scene.run(&["similar", "one"]).code, 1);
}
