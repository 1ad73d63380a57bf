//! Models in fewer bits: written, trained on, and their prompts used with the model that they were written from.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::scene::{Scene, model, sentences};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Quantised {
    out: String,
    to: String,
    bytes: u64,
    from_bytes: u64,
    numbers: BTreeMap<String, u64>,
    other_format: usize,
}

#[derive(Debug, Deserialize)]
struct Classified {
    label: String,
    log_likelihoods: BTreeMap<String, f64>,
}

/// A prompt tuned with a quantised model says nearly the same with the model itself, and the other way round, with a warning.
#[test]
fn a_prompt_goes_from_a_quantised_model_to_the_model_and_back() {
    let scene = Scene::new();
    let written: Quantised =
        scene.run(&["quantise", "foreword-tiny", "tiny.gguf", "--to", "q8_0", "--json"]).line();
    assert_eq!((written.out.as_str(), written.to.as_str(), written.other_format), ("tiny.gguf", "q8_0", 0));
    assert_eq!(written.numbers, BTreeMap::from([("f32".into(), 2_496), ("q8_0".into(), 3_932_160)]));
    assert_eq!(written.bytes, std::fs::metadata(scene.path("tiny.gguf")).unwrap().len());
    assert_eq!(written.from_bytes, 2 * (2_496 + 3_932_160));
    let data = sentences();
    for (out, model) in [("of-q8", "tiny.gguf"), ("of-bf16", "foreword-tiny")] {
        let args = ["train", &data, "--model", model, "--steps", "2", "--virtual-tokens", "4", "--out", out];
        let ran = scene.run(&args);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
    let classify = |prompt: &str, model: &str| {
        let ran =
            scene.run(&["classify", "--prompt", prompt, "--model", model, "A warm, funny film.", "--json"]);
        let warned = ran.stderr.contains("another quantisation of it");
        (ran.line::<Classified>(), warned)
    };
    for (prompt, own, other) in
        [("of-q8", "tiny.gguf", "foreword-tiny"), ("of-bf16", "foreword-tiny", "tiny.gguf")]
    {
        let (here, silent) = classify(prompt, own);
        let (there, warned) = classify(prompt, other);
        assert!(!silent && warned, "{prompt}");
        assert_eq!(here.label, there.label);
        for (label, value) in &here.log_likelihoods {
            let far = (value - there.log_likelihoods[label]).abs();
            assert!(far < 0.1 && far > 0.0, "{prompt} {label}: {far}");
        }
    }
    // The file is the model wherever one is asked for.
    let told = scene.run(&["inspect", "of-q8", "--model", "tiny.gguf"]);
    assert!(told.code == 0 && !told.stderr.contains("another quantisation"), "{}", told.stderr);
    let other = scene.run(&["classify", "--prompt", "of-q8", "--model", &model("llama-tiny"), "x"]);
    assert_eq!(other.code, 1);
}

#[test]
fn what_can_not_be_written_is_told_before_anything_is() {
    let scene = Scene::new();
    let tiny = model("llama-tiny");
    let run = |args: &[&str]| {
        let ran = scene.run(&[&["quantise"], args].concat());
        (ran.code, ran.stderr)
    };
    assert_eq!(run(&[&tiny, "a.gguf", "-q"]).0, 0);
    for (args, says) in [
        (vec![tiny.as_str(), "a.gguf"], "cannot write a.gguf: it already exists"),
        (vec![&tiny, "a.bin"], "does not end in .gguf"),
        (vec![&tiny, "nowhere/a.gguf"], "cannot write nowhere/a.gguf: nowhere is not a directory"),
        (vec!["a.gguf", "a.gguf", "--force"], "OUT is the model itself"),
        (vec!["nowhere", "b.gguf"], "the model nowhere"),
        (vec![&model("qwen3-tiny"), "b.gguf"], "can't express"),
    ] {
        let (code, stderr) = run(&args);
        assert!(code == 1 && stderr.contains(says), "{args:?}: {stderr}");
    }
    assert_eq!(scene.names(), ["a.gguf"]);
    // Another name for the verb; matrices of 12 and 56 columns take other formats, which is told.
    let (code, stderr) = {
        let ran = scene.run(&["quantize", &tiny, "a.gguf", "--force", "--to", "q4_0"]);
        (ran.code, ran.stderr)
    };
    assert!(code == 0 && stderr.contains("could not be q4_0: their rows are no whole blocks"), "{stderr}");
    // A damaged file is told of by its name.
    let bytes = std::fs::read(scene.path("a.gguf")).unwrap();
    scene.file("cut.gguf", &bytes[..bytes.len() / 2]);
    let ran = scene.run(&["eval", "--prompt", "none", "--model", "cut.gguf", "--data", &sentences()]);
    assert!(
        ran.code == 1 && ran.stderr.contains("cut.gguf: not a GGUF file that can be read"),
        "{}",
        ran.stderr
    );
}
