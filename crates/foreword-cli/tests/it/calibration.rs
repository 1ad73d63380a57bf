//! Probabilities are corrected, the correction is kept with the prompt, and what is not sure enough has no label.

use std::fs;

use serde_json::Value;

use crate::scene::{Ran, Scene, model, sentences};
use crate::schema::{Classified, Inspected, Report};

/// A scene with a trained prompt `p`.
fn trained() -> Scene {
    let scene = Scene::new();
    assert_eq!(scene.train("p", "3", &[]).code, 0);
    scene
}

fn run(scene: &Scene, args: &[&str]) -> Ran {
    let llama = model("llama-tiny");
    scene.run(&[args, &["--prompt", "p", "--model", &llama, "--json"]].concat())
}

fn eval(scene: &Scene, more: &[&str]) -> Report {
    let data = sentences();
    run(scene, &[&["eval", "--data", &data][..], more].concat()).line()
}

#[test]
fn a_temperature_changes_probabilities_and_no_answer() {
    let scene = trained();
    let data = sentences();
    let raw = eval(&scene, &[]);
    assert_eq!(raw.calibration, None);
    assert!(raw.ece > 0.0 && raw.brier > 0.0 && raw.per_label.len() == 2, "{raw:?}");
    let args = ["eval", "--data", &data, "--calibrate", "temperature", "--calibrate-on", &data];
    let ran = run(&scene, &args);
    assert!(ran.stderr.contains("fitted on the examples that it is measured by"), "{}", ran.stderr);
    let fitted: Report = ran.line();
    let calibration = fitted.calibration.clone().unwrap();
    assert_eq!(calibration.method, "temperature");
    assert!(calibration.offsets.values().all(|&offset| offset == 0.0));
    assert_ne!(calibration.temperature, 1.0);
    // On the examples that it was fitted on, it can't be worse.
    assert!(fitted.loss < raw.loss, "{} and {}", fitted.loss, raw.loss);
    assert_eq!((fitted.accuracy, &fitted.confusion), (raw.accuracy, &raw.confusion));
}

#[test]
fn a_batch_needs_no_labels_and_texts_without_content_no_data() {
    let scene = trained();
    let data = sentences();
    let own = eval(&scene, &["--calibrate", "batch"]);
    assert_eq!(own, eval(&scene, &["--calibrate", "batch", "--calibrate-on", &data]));
    let batch = own.calibration.unwrap();
    assert!(batch.temperature == 1.0 && batch.offsets.values().sum::<f64>().abs() < 1e-9, "{batch:?}");
    let content_free = eval(&scene, &["--calibrate", "content-free"]).calibration.unwrap();
    assert!(content_free.offsets.values().any(|&offset| offset != 0.0));

    // `classify` corrects as `eval` does: log(p / q) is moved by the difference of the offsets.
    let texts = |more: &[&str]| {
        run(&scene, &[&["classify", "A fine film.", "Dull.", "A joy."][..], more].concat())
            .lines::<Classified>()
    };
    let (raw, corrected) = (texts(&[]), texts(&["--calibrate", "batch", "--calibrate-on", &data]));
    for (raw, corrected) in raw.iter().zip(&corrected) {
        assert_eq!(raw.log_likelihoods, corrected.log_likelihoods);
        let odds =
            |answer: &Classified| (answer.probabilities["positive"] / answer.probabilities["negative"]).ln();
        let moved = batch.offsets["positive"] - batch.offsets["negative"];
        assert!((odds(corrected) - odds(raw) - moved).abs() < 1e-9);
    }
    let few = run(&scene, &["classify", "A fine film.", "Dull.", "--calibrate", "batch"]);
    assert!(few.stderr.contains("a batch of 2 texts says little"), "{}", few.stderr);
}

#[test]
fn a_correction_is_stored_used_and_taken_away() {
    let scene = trained();
    let data = sentences();
    let passport = || fs::read(scene.path("p/foreword.json")).unwrap();
    let (before, raw) = (passport(), eval(&scene, &[]));
    let of_peft = || {
        ["adapter_config.json", "adapter_model.safetensors"]
            .map(|file| fs::read(scene.path("p").join(file)).unwrap())
    };
    let of_peft_before = of_peft();
    let saved = eval(&scene, &["--calibrate", "content-free", "--save-calibration"]);
    assert_ne!(passport(), before);
    assert_eq!(of_peft(), of_peft_before, "what PEFT reads stays as it is");
    assert_eq!(eval(&scene, &[]), saved);
    assert_eq!(eval(&scene, &["--calibrate", "none"]), raw);
    let stored = saved.calibration.clone().unwrap();
    let inspected: Inspected = scene.run(&["inspect", "p", "--json"]).line();
    assert_eq!(inspected.passport.unwrap().calibration, Some(stored));
    assert!(scene.run(&["inspect", "p"]).stdout.contains("corrected probabilities by content-free: "));
    let ran = run(&scene, &["classify", "A fine film."]);
    assert!(ran.stderr.contains("calibrated by content-free (stored with the prompt"), "{}", ran.stderr);
    let answer: Classified = ran.line();
    let raw_answer: Classified = run(&scene, &["classify", "A fine film.", "--calibrate", "none"]).line();
    assert_ne!(answer.probabilities, raw_answer.probabilities);
    // Another template gives other probabilities, for which nothing was fitted.
    let other = eval(&scene, &["--template", "{text} It was"]);
    assert_eq!(other.calibration, None);
    let ran = run(
        &scene,
        &["eval", "--data", &data, "--template", "{text} x", "--calibrate", "batch", "--save-calibration"],
    );
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("stored for the template, labels and placement"), "{}", ran.stderr);

    assert_eq!(eval(&scene, &["--calibrate", "none", "--save-calibration"]), raw);
    assert_eq!(passport(), before, "what was stored is taken away without a trace");
}

#[test]
fn what_is_not_sure_enough_has_no_label() {
    let scene = trained();
    let texts = ["A fine film.", "Dull and long.", "A joy from start to finish.", "Never again."];
    let all = run(&scene, &[&["classify"][..], &texts].concat()).lines::<Classified>();
    let largest = |answer: &Classified| answer.probabilities.values().copied().fold(0.0, f64::max);
    let mut sure: Vec<f64> = all.iter().map(largest).collect();
    sure.sort_by(f64::total_cmp);
    let least = ((sure[1] + sure[2]) / 2.0).to_string();
    let some = run(&scene, &[&["classify", "--abstain-below", &least][..], &texts].concat());
    assert!(some.stderr.contains("abstained from 2 of 4 texts"), "{}", some.stderr);
    for (before, after) in all.iter().zip(some.lines::<Classified>()) {
        let is_sure = largest(before) >= least.parse().unwrap();
        assert_eq!(after.label, before.label.clone().filter(|_| is_sure));
        assert_eq!(after.probabilities, before.probabilities);
    }
    let llama = model("llama-tiny");
    let told = scene.run(&["classify", "--prompt", "p", "--model", &llama, "x", "--abstain-below", "1"]);
    assert!(told.stdout.starts_with("abstained  "), "{}", told.stdout);

    let report = eval(&scene, &["--abstain-below", "0.5"]);
    assert_eq!((report.coverage, report.accuracy_answered), (Some(1.0), Some(report.accuracy)));
    let report = eval(&scene, &["--abstain-below", "1"]);
    assert_eq!(
        (report.abstain_below, report.coverage, report.accuracy_answered),
        (Some(1.0), Some(0.0), None)
    );
    let data = sentences();
    let ran =
        scene.run(&["eval", "--prompt", "p", "--model", &llama, "--data", &data, "--abstain-below", "0.5"]);
    assert!(
        ran.stdout.contains("answered 24 of 24 (100.0 %), where a label has 50.0 % or more; "),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("expected calibration error 0."), "{}", ran.stdout);
}

#[test]
fn per_label_scores_are_those_of_the_confusion() {
    let report = eval(&trained(), &[]);
    for (label, scores) in &report.per_label {
        let given: u64 = report.confusion.values().map(|row| row[label]).sum();
        let (n, right) = (report.confusion[label].values().sum::<u64>(), report.confusion[label][label]);
        assert_eq!(scores.n, n);
        assert_eq!(scores.recall, Some(right as f64 / n as f64));
        assert_eq!(scores.precision, (given > 0).then(|| right as f64 / given as f64));
    }
    let f1: f64 = report.per_label.values().filter_map(|scores| scores.f1).sum();
    assert!((f1 / 2.0 - report.macro_f1).abs() < 1e-12);
}

#[test]
fn what_can_not_be_fitted_is_said() {
    let scene = trained();
    let data = sentences();
    let refused = |args: &[&str], part: &str| {
        let ran = run(&scene, args);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.stderr);
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    };
    refused(
        &["classify", "x", "--calibrate", "temperature"],
        "nothing says which\nhint: give some that are not measured",
    );
    refused(&["classify", "x", "--calibrate", "batch"], "a batch of one text says nothing");
    refused(
        &["classify", "x", "--calibrate", "content-free", "--calibrate-on", &data],
        "does not use a file",
    );
    refused(&["classify", "x", "--calibrate", "none", "--calibrate-on", &data], "does not use a file");
    refused(
        &["classify", "x", "--calibrate", "magic"],
        "[possible values: none, temperature, content-free, batch]",
    );
    refused(&["classify", "x", "--calibrate-on", &data], "--calibrate <HOW>");
    refused(&["classify", "x", "--abstain-below", "0"], "must be greater than 0 and at most 1");
    refused(&["eval", "--data", &data, "--save-calibration"], "--calibrate <HOW>");
    let bare = ["eval", "--prompt", "none", "--data", &data, "--calibrate", "batch", "--save-calibration"];
    let ran = scene.run(&bare);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("the bare model has no prompt to store a calibration with"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_passport_without_a_calibration_is_as_it_was() {
    let scene = trained();
    let passport: Value = serde_json::from_slice(&fs::read(scene.path("p/foreword.json")).unwrap()).unwrap();
    assert!(passport.get("calibration").is_none());
}
