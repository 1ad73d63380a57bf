//! Models that can't be had, and why.

use foreword_hub::HubError;

use crate::{Scene, names};
use foreword_testkit::stand_in::Faults;

/// What is wrong and what to do, in words; it is the user's to change.
#[track_caller]
fn given(error: &HubError) -> (String, String) {
    assert!(error.is_given() && !error.is_silence(), "{error}");
    (error.to_string(), error.hint().unwrap_or_default())
}

#[test]
fn a_repository_or_revision_that_is_not_there() {
    let scene = Scene::new();
    let endpoint = scene.hub.endpoint();
    let (message, hint) = given(&scene.refusal("org/none"));
    assert_eq!(message, format!("{endpoint} has no model repository org/none, or it is private"));
    assert!(hint.contains("org/name as the hub spells it") && hint.contains("HF_TOKEN"), "{hint}");
    let (message, hint) = given(&scene.refusal("org/tiny@v9/x"));
    assert_eq!(message, format!("the repository org/tiny at {endpoint} has no revision v9/x"));
    assert!(hint.contains(&format!("{endpoint}/org/tiny/refs")), "{hint}");
    assert!(scene.hub.asked().iter().any(|asked| asked.line.ends_with("/revision/v9%2Fx")));
    let scene = scene.token("hf_1");
    assert!(matches!(scene.refusal("org/none"), HubError::NoRepository { .. }));
    assert!(!scene.settings.cache.exists(), "nothing is left of what is not there");
}

#[test]
fn a_gated_repository_says_what_opens_it() {
    let scene = Scene::new();
    scene.hub.change("org/tiny", |repository| repository.gate = Some("hf_in".to_owned()));
    let (message, hint) = given(&scene.refusal("org/tiny"));
    assert!(message.contains("the repository org/tiny is gated"), "{message}");
    assert!(hint.contains(&format!("accept its licence at {}/org/tiny", scene.hub.endpoint())), "{hint}");
    assert!(hint.contains("set HF_TOKEN"), "{hint}");
    let scene = scene.token("hf_out");
    assert!(matches!(scene.refusal("org/tiny"), HubError::Gated { .. }), "another's token");
    scene.token("hf_in").fetch("org/tiny");
}

#[test]
fn a_token_that_is_not_known() {
    let scene = Scene::new();
    scene.hub.know("hf_good");
    scene.fetch("org/tiny");
    let scene = scene.token("hf_old");
    let (message, hint) = given(&scene.refusal("org/tiny"));
    assert!(message.ends_with("refuses the token (status 401): as the hub says it"), "{message}");
    assert!(hint.contains("HF_TOKEN") && !format!("{message}{hint}").contains("hf_old"), "{hint}");
}

#[test]
fn a_repository_without_safetensors_says_how_to_convert() {
    let scene = Scene::new();
    let model: &[(&str, &[u8])] = &[("config.json", b"{}"), ("tokenizer.json", b"{}")];
    let with = |file: &'static str| [model, &[(file, &b"x"[..])]].concat();
    scene.hub.model("org/tiny", &with("pytorch_model.bin"));
    let (message, hint) = given(&scene.refusal("org/tiny"));
    assert!(
        message.contains("has no model.safetensors") && message.contains("pytorch_model.bin, a pickle"),
        "{message}"
    );
    assert!(
        hint.contains("AutoModelForCausalLM.from_pretrained('org/tiny').save_pretrained('DIR')"),
        "{hint}"
    );
    scene.hub.model("org/tiny", &with("tiny-Q4.gguf"));
    let (_, hint) = given(&scene.refusal("org/tiny"));
    assert_eq!(hint, "name one of its .gguf files, as org/tiny/tiny-Q4.gguf");
    scene.hub.model("org/tiny", &with("model.onnx"));
    let (_, hint) = given(&scene.refusal("org/tiny"));
    assert_eq!(hint, "Foreword reads weights in safetensors only");
    assert!(!scene.settings.cache.exists());
}

#[test]
fn a_repository_without_a_tokenizer_or_a_configuration() {
    let scene = Scene::new();
    scene.hub.model("org/tiny", &[("config.json", b"{}"), ("model.safetensors", b"x")]);
    let (message, hint) = given(&scene.refusal("org/tiny"));
    assert_eq!(message, "the repository org/tiny has no tokenizer.json");
    assert!(hint.contains("AutoTokenizer.from_pretrained('org/tiny')"), "{hint}");
    scene.hub.model("org/tiny", &[("adapter_config.json", b"{}"), ("adapter_model.safetensors", b"x")]);
    let (message, hint) = given(&scene.refusal("org/tiny"));
    assert_eq!(message, "the repository org/tiny has no config.json");
    assert!(hint.contains("an adapter, whose base model is what to name"), "{hint}");
}

#[test]
fn an_index_that_names_what_is_not_there_or_elsewhere() {
    let scene = Scene::new();
    let index = |map: &str| format!(r#"{{"weight_map": {map}}}"#).into_bytes();
    let put = |map: &str| {
        let index = index(map);
        let files: [(&str, &[u8]); 3] =
            [("config.json", b"{}"), ("tokenizer.json", b"{}"), ("model.safetensors.index.json", &index)];
        scene.hub.model("org/tiny", &files);
    };
    put(r#"{"a": "model-1.safetensors"}"#);
    let (message, hint) = given(&scene.refusal("org/tiny"));
    assert_eq!(message, "the repository org/tiny has no model-1.safetensors");
    assert!(hint.contains("tell the owner"), "{hint}");
    put(r#"{"a": "../../../secret"}"#);
    assert!(matches!(scene.refusal("org/tiny"), HubError::Index { .. }));
}

#[test]
fn a_hub_that_wants_to_write_elsewhere_is_not_understood() {
    let scene = Scene::new();
    scene.hub.change("org/tiny", |repository| repository.commit = "../../..".to_owned());
    let error = scene.refusal("org/tiny");
    assert!(matches!(error, HubError::Answer { .. }) && !error.is_given(), "{error}");
    scene.put(&[]);
    scene.hub.fail(Faults { etag: Some("../../../x".to_owned()), ..Faults::default() });
    let error = scene.refusal("org/tiny").to_string();
    assert!(error.contains("its ETag is \"../../../x\""), "{error}");
    assert_eq!(names(scene.dir.path()), Vec::<String>::new());
}

#[test]
fn a_hub_in_trouble_is_asked_again_but_not_for_ever() {
    let scene = Scene::new();
    scene.hub.fail(Faults { status: Some((502, 2)), ..Faults::default() });
    scene.fetch("org/tiny");
    let scene = Scene::new();
    scene.hub.fail(Faults { status: Some((429, 100)), ..Faults::default() });
    let error = scene.refusal("org/tiny");
    assert!(error.to_string().ends_with("answers with status 429") && !error.is_given(), "{error}");
    assert!(error.hint().unwrap().contains("HF_TOKEN"));
    assert_eq!(scene.hub.asked().len(), 3);
}
