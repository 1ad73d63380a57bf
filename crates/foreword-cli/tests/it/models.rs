//! The list of models.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::scene::{Scene, root};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    model: String,
    place: String,
    path: Option<String>,
    commit: Option<String>,
    family: Option<String>,
    parameters: Option<u64>,
    bytes: u64,
    supported: bool,
    why: Option<String>,
    hint: Option<String>,
    notes: Vec<String>,
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Puts a tiny model into the cache as if it had been fetched.
fn cache(scene: &Scene, folder: &str, revision: &str, model: &str) -> std::path::PathBuf {
    let at = Path::new("hf/hub").join(folder);
    let snapshot = at.join("snapshots").join(COMMIT);
    fs::create_dir_all(scene.path("").join(at.join("refs"))).unwrap();
    fs::write(scene.path("").join(at.join("refs").join(revision)), COMMIT).unwrap();
    scene.copy(&root().join("testdata/models").join(model), snapshot.to_str().unwrap())
}

/// The bundled model, three in the cache and two below a directory, of which some can't be used.
fn scene() -> Scene {
    let scene = Scene::new();
    cache(&scene, "models--org--llama", "main", "llama-tiny");
    let mamba = cache(&scene, "models--org--mamba", "main", "gpt2-tiny");
    fs::write(mamba.join("config.json"), r#"{"model_type": "mamba"}"#).unwrap();
    let older = cache(&scene, "models--org--older", "v1", "qwen2-tiny");
    fs::remove_file(older.join("tokenizer.json")).unwrap();
    scene.copy(&root().join("testdata/models/gpt2-tiny"), "mine/a/gpt2");
    let cut = scene.copy(&root().join("testdata/models/llama-tiny"), "mine/cut");
    let weights = fs::read(cut.join("model.safetensors")).unwrap();
    fs::write(cut.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    fs::create_dir_all(scene.path("mine/prompt")).unwrap();
    scene.file("mine/prompt/adapter_config.json", "{}");
    scene
}

#[test]
fn models_are_told_with_why_they_can_not_be_used() {
    let scene = scene();
    let ran = scene.run(&["models", "mine"]);
    // The list of families grows.
    let told = scene.told(&ran);
    let told: Vec<&str> = told.lines().filter_map(|line| line.split("; supported are ").next()).collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    exit 0
                   family  parameters      size  supported
    foreword-tiny   llama      3.93 M    7.9 MB        yes
    org/llama       llama      46.3 k  188.8 kB        yes
    org/mamba       mamba      83.6 k  336.7 kB         no
    org/older@v1    qwen2      44.1 k   90.9 kB         no
    mine/a/gpt2      gpt2      50.8 k  336.7 kB        yes
    mine/cut        llama      46.3 k   94.4 kB         no

    Not supported:
    org/mamba: config.json: model_type `mamba` is not supported
    org/older@v1: [DIR]/hf/hub/models--org--older/snapshots/0123456789abcdef0123456789abcdef01234567 is no model directory: it has no tokenizer.json; a Hugging Face directory holds config.json, tokenizer.json and model.safetensors (or its shards with model.safetensors.index.json); vocab.json and merges.txt will do instead of tokenizer.json, and a tokenizer of another kind becomes one with `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)` in Python
    mine/cut: model.safetensors: not a whole safetensors file (incomplete metadata, file not fully covered); download or copy it again
    checked: the configuration, the tokenizer, and the name, shape and format of every tensor; the weights' numbers were not read
    the Hugging Face cache is [DIR]/hf/hub
    ");
}

#[test]
fn models_are_told_to_scripts() {
    let scene = scene();
    let lines: Vec<Line> = scene.run(&["models", "mine", "--json"]).lines();
    let names: Vec<(&str, &str)> =
        lines.iter().map(|line| (line.model.as_str(), line.place.as_str())).collect();
    let expected = [
        ("foreword-tiny", "bundled"),
        ("org/llama", "cache"),
        ("org/mamba", "cache"),
        ("org/older@v1", "cache"),
        ("mine/a/gpt2", "directory"),
        ("mine/cut", "directory"),
    ];
    assert_eq!(names, expected);
    for line in &lines {
        assert_eq!(line.supported, line.why.is_none(), "{line:?}");
        assert!(line.notes.is_empty(), "{line:?}");
        assert_eq!(line.commit.is_some(), line.place == "cache", "{line:?}");
        assert_eq!(line.path.is_none(), line.place == "bundled", "{line:?}");
        assert!(line.bytes > 0 && line.parameters.is_some(), "{line:?}");
    }
    assert_eq!(lines[0].parameters, Some(3_934_656));
    assert_eq!(
        lines.iter().map(|line| line.supported).collect::<Vec<_>>(),
        [true, true, false, false, true, false]
    );
    assert_eq!(lines[2].family.as_deref(), Some("mamba"));
    // What the list says can be used can be used by the name that it gives.
    let eval = scene.run(&[
        "eval",
        "--prompt",
        "none",
        "--data",
        &crate::scene::sentences(),
        "--model",
        "org/llama",
    ]);
    assert_eq!(eval.code, 0, "{}", eval.stderr);
}

#[test]
fn weights_are_not_read() {
    let scene = Scene::new();
    let dir = scene.copy(&root().join("testdata/models/llama-tiny"), "m");
    // A file as large as it says, with a hole for weights: a reader of it all would take its time and its memory.
    let n: u64 = 1 << 36;
    let header = format!(r#"{{"w":{{"dtype":"F32","shape":[{n}],"data_offsets":[0,{}]}}}}"#, 4 * n);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    fs::write(dir.join("model.safetensors"), &bytes).unwrap();
    let file = fs::File::options().write(true).open(dir.join("model.safetensors")).unwrap();
    if file.set_len(bytes.len() as u64 + 4 * n).is_err() {
        return; // a file system without holes
    }
    let lines: Vec<Line> = scene.run(&["models", "m", "--json"]).lines();
    assert_eq!(lines[1].bytes, bytes.len() as u64 + 4 * n);
}

#[test]
fn a_directory_that_is_none_is_told() {
    let scene = Scene::new();
    let ran = scene.run(&["models", "nowhere"]);
    assert_eq!((ran.code, ran.stderr.lines().next()), (1, Some("error: nowhere is not a directory")));
}

/// The bundled model needs no directory of the user's; a model of the hub does.
#[test]
fn without_a_home_there_is_no_cache() {
    let scene = Scene::new();
    let run = |args: &[&str]| {
        let mut command = scene.command(args);
        for variable in ["HOME", "USERPROFILE", "XDG_CACHE_HOME", "HF_HOME"] {
            command.env_remove(variable);
        }
        Scene::ran(command.output().unwrap())
    };
    let ran = run(&["models"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("foreword-tiny"), "{}", ran.stdout);
    assert!(
        ran.stderr.ends_with("there is no Hugging Face cache: neither HF_HOME nor HOME is set\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(run(&["classify", "--prompt", "none", "--labels", "a= a,b= b", "x"]).code, 0);
    let ran = run(&["classify", "--prompt", "none", "--labels", "a= a,b= b", "--model", "org/tiny", "x"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("hint: set HF_HOME to a directory"), "{}", ran.stderr);
}

#[test]
fn a_key_that_is_ignored_once_stays_ignored_with_the_prompt() {
    let scene = Scene::new();
    let dir = scene.copy(&root().join("testdata/models/llama-tiny"), "noted");
    let config = fs::read_to_string(dir.join("config.json")).unwrap();
    fs::write(dir.join("config.json"), config.replacen('{', r#"{"house_style": 7, "#, 1)).unwrap();
    let sentences = crate::scene::sentences();
    let train =
        ["train", &sentences, "--model", "noted", "--steps", "2", "--virtual-tokens", "2", "--out", "p"];
    let ran = scene.run(&train);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("config.json: `house_style` is not understood: the model"), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: look in the model's card"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("`--ignore-config house_style`, which the prompt remembers"),
        "{}",
        ran.stderr
    );
    let listed = scene.run(&["models", "noted"]);
    assert!(listed.stdout.contains("\n  hint: look in the model's card"), "{}", listed.stdout);
    assert!(listed.stdout.contains("`--ignore-config house_style`"), "{}", listed.stdout);
    let lines: Vec<Line> = scene.run(&["models", "noted", "--json"]).lines();
    assert!(
        lines[0].hint.is_none() && lines[1].hint.as_ref().unwrap().contains("--ignore-config house_style")
    );
    let ignoring = ["--ignore-config", "house_style", "--ignore-config", "nothing"];
    let ran = scene.run(&[&train[..], &ignoring].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("house_style in the configuration of noted"), "{}", ran.stderr);
    let passport = fs::read_to_string(scene.path("p/foreword.json")).unwrap();
    let passport: serde_json::Value = serde_json::from_str(&passport).unwrap();
    assert_eq!(passport["base_model"]["ignored_config_keys"], serde_json::json!(["house_style"]));
    // Without the flag, the prompt's own keys are ignored; a bare model has none.
    for args in [
        &["classify", "--prompt", "p", "--model", "noted", "a"][..],
        &["eval", "--prompt", "p", "--model", "noted", "--data", &sentences],
        &["inspect", "p", "--model", "noted"],
        &["compile", "p", "--model", "noted", "--out", "prefix"],
        &["compare", "--prompt", "p", "--model", "noted", "--test", &sentences],
        &["quantise", "noted", "noted.gguf", "--ignore-config", "house_style"],
        &["classify", "--prompt", "prefix", "--model", "noted", "a"],
        &["classify", "--prompt", "p", "--model", "noted.gguf", "a"],
    ] {
        let ran = scene.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.stderr);
    }
    // What is understood can't be ignored, whatever the verb.
    let understood = ["--ignore-config", "house_style", "--ignore-config", "rms_norm_eps"];
    for args in [
        &["classify", "--prompt", "p", "--model", "noted", "a"][..],
        &["inspect", "p", "--model", "noted"],
        &["quantise", "noted", "again.gguf"],
    ] {
        let ran = scene.run(&[args, &understood].concat());
        assert_eq!(ran.code, 1, "{args:?}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("rms_norm_eps in the configuration of noted can't be ignored"),
            "{}",
            ran.stderr
        );
    }
    let bare = scene.run(&["classify", "--prompt", "none", "--model", "noted", "--labels", "a= a,b= b", "x"]);
    assert_eq!(bare.code, 1, "{}", bare.stderr);
}

#[test]
fn a_model_in_parts_is_one_line() {
    let scene = Scene::new();
    scene.copy(&root().join("testdata/quantised"), "parts");
    let lines: Vec<Line> = scene.run(&["models", "parts", "--json"]).lines();
    let [_, line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((line.model.as_str(), line.supported), ("parts/tiny-00001-of-00003.gguf", true), "{line:?}");
    let ran =
        scene.run(&["classify", "--prompt", "none", "--model", &line.model, "--labels", "a= a,b= b", "x"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}
