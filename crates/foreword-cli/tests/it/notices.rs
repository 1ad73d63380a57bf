//! What is worth knowing of a model, told wherever it is used.

use crate::scene::{Scene, root, sentences};

#[test]
fn a_gguf_file_without_a_way_to_cut_texts_is_told_by_every_command() {
    let scene = Scene::new();
    let gguf = root().join("testdata/tokens/unnamed-cuts.gguf").display().to_string();
    let warning = "warning: unnamed-cuts.gguf has no `tokenizer.ggml.pre`";
    let data = sentences();
    for command in [
        vec!["eval", "--prompt", "none", "--data", &data, "--model", &gguf],
        vec!["classify", "--prompt", "none", "--labels", "a=a,b=b", "--model", &gguf, "the film"],
        vec!["train", &data, "--model", &gguf, "--steps", "1", "--out", "prompt"],
        vec!["eval", "--prompt", "prompt", "--data", &data, "--model", &gguf],
        vec!["inspect", "prompt", "--model", &gguf],
        vec!["quantise", &gguf, "out.gguf"],
    ] {
        let ran = scene.run(&command);
        assert_eq!(ran.code, 0, "{command:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(warning), "{command:?}: {}", ran.stderr);
    }
    std::fs::create_dir(scene.path("models")).unwrap();
    std::fs::copy(&gguf, scene.path("models/unnamed.gguf")).unwrap();
    let ran = scene.run(&["models", "models"]);
    assert!(
        ran.stdout.contains("Worth knowing:\nmodels/unnamed.gguf: unnamed.gguf has no"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_template_that_gives_texts_a_second_bos_is_told() {
    let scene = Scene::new();
    let data = sentences();
    let told = |template: &str| {
        let ran = scene.run(&["eval", "--prompt", "none", "--data", &data, "--template", template]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stderr.contains("warning: every text begins with \"<s>\" twice")
    };
    assert!(told("<s>{text}\\nSentiment:"));
    assert!(told("<s> {text}\\nSentiment:"));
    assert!(!told("{text}\\nSentiment:"));
    assert!(!told("{text}<s>\\nSentiment:"));
}
