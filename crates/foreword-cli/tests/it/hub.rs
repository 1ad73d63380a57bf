//! Models of the Hugging Face hub, from a stand-in for it.

use std::fs;

use serde_json::Value;

use crate::scene::{Ran, Scene, model, root, sentences};
use foreword_testkit::stand_in::{Faults, StandIn};

/// Puts a tiny model there as `org/tiny`.
fn put(hub: &StandIn, model: &str) -> String {
    let entries =
        fs::read_dir(root().join("testdata/models").join(model)).unwrap().map(|entry| entry.unwrap());
    let read =
        |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    let files: Vec<(String, Vec<u8>)> = entries.map(read).collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    hub.model("org/tiny", &files)
}

/// A stand-in with the tiny Llama.
fn hub() -> (StandIn, String) {
    let hub = StandIn::new();
    let commit = put(&hub, "llama-tiny");
    (hub, commit)
}

/// Runs the program where it may ask the stand-in at `endpoint`.
fn run(scene: &Scene, endpoint: &str, args: &[&str]) -> Ran {
    let mut command = scene.command(args);
    command.env("HF_ENDPOINT", endpoint).env("NO_PROXY", "127.0.0.1").env_remove("HF_HUB_OFFLINE");
    Scene::ran(command.output().unwrap())
}

/// Trains a little.
fn train(scene: &Scene, endpoint: &str, more: &[&str]) -> Ran {
    let data = sentences();
    let args = ["train", &data, "--steps", "2", "--batch-size", "4", "--virtual-tokens", "4", "--out", "p"];
    run(scene, endpoint, &[&args[..], more].concat())
}

fn json(scene: &Scene, file: &str) -> Value {
    serde_json::from_slice(&fs::read(scene.path(file)).unwrap()).unwrap()
}

#[test]
fn a_model_is_fetched_once_and_its_prompt_finds_it_again() {
    let (scene, (hub, commit)) = (Scene::new(), hub());
    let endpoint = hub.endpoint();
    let ran = train(&scene, &endpoint, &["--model", "org/tiny"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("fetching  org/tiny from {endpoint}: 3 files, ")), "{}", ran.stderr);
    assert!(ran.stderr.contains("model     org/tiny, "), "{}", ran.stderr);
    assert!(ran.stderr.contains("classify --prompt p 'A text of your own.'"), "{}", ran.stderr);
    assert_eq!(json(&scene, "p/foreword.json")["base_model"]["name"], "org/tiny");
    let adapter = json(&scene, "p/adapter_config.json");
    assert_eq!(
        (&adapter["base_model_name_or_path"], &adapter["revision"]),
        (&"org/tiny".into(), &Value::Null)
    );

    // The model that the directory holds is the same one.
    let llama = model("llama-tiny");
    let args = ["classify", "A fine film.", "--prompt", "p", "--json"];
    let by_path = scene.run(&[&args[..], &["--model", &llama]].concat()).stdout;
    hub.asked();
    let by_name = run(&scene, &endpoint, &args);
    assert_eq!((by_name.code, by_name.stdout.as_str()), (0, by_path.as_str()), "{}", by_name.stderr);
    assert_eq!(hub.asked().len(), 1, "only whether the branch went on");
    let offline = scene.run(&args);
    assert_eq!((offline.code, offline.stdout.as_str(), offline.stderr.as_str()), (0, by_path.as_str(), ""));
    assert!(scene.run(&["inspect", "p"]).stdout.contains("model     org/tiny: 2 layers"), "at hand");
    drop(hub);
    let gone = run(&scene, &endpoint, &args);
    assert_eq!((gone.code, gone.stdout), (0, by_path), "{}", gone.stderr);
    assert!(gone.stderr.starts_with("warning: the hub could not be asked (cannot reach"), "{}", gone.stderr);
    assert!(
        gone.stderr.contains(&format!("taken as it is in the cache, commit {commit}")),
        "{}",
        gone.stderr
    );
}

#[test]
fn a_revision_is_recorded_for_peft_and_heeded_without_a_passport() {
    let (scene, (hub, commit)) = (Scene::new(), hub());
    let name = format!("org/tiny@{commit}");
    let data = sentences();
    scene.file("task.toml", format!("model = {name:?}\n[data]\ntrain = {data:?}\n"));
    let args = ["train", "task.toml", "--steps", "1", "--virtual-tokens", "4", "--out", "p"];
    let ran = run(&scene, &hub.endpoint(), &args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(json(&scene, "p/foreword.json")["base_model"]["name"], name.as_str());
    let adapter = json(&scene, "p/adapter_config.json");
    assert_eq!(adapter["base_model_name_or_path"], "org/tiny");
    assert_eq!(adapter["revision"], commit.as_str());
    // As PEFT leaves it. The branch is another model by now.
    fs::remove_file(scene.path("p/foreword.json")).unwrap();
    put(&hub, "gpt2-tiny");
    hub.asked();
    let eval = run(&scene, &hub.endpoint(), &["eval", "--prompt", "p", "--data", &data, "--json"]);
    assert_eq!(eval.code, 0, "{}", eval.stderr);
    assert_eq!(hub.asked(), [], "a commit never changes");
    // A compiled prompt is told of it too.
    assert_eq!(scene.run(&["compile", "p", "--out", "q"]).code, 0);
    assert_eq!(json(&scene, "q/adapter_config.json")["revision"], commit.as_str());
}

#[test]
fn a_directory_of_that_name_wins() {
    let (scene, (hub, _)) = (Scene::new(), hub());
    fs::create_dir(scene.path("org")).unwrap();
    scene.copy(&root().join("testdata/models/llama-tiny"), "org/tiny");
    let ran = train(&scene, &hub.endpoint(), &["--model", "org/tiny"]);
    assert_eq!((ran.code, hub.asked().len()), (0, 0), "{}", ran.stderr);
    assert_eq!(json(&scene, "p/foreword.json")["base_model"]["name"], "tiny");
}

#[test]
fn what_was_given_wrong_is_one() {
    let (scene, (hub, _)) = (Scene::new(), hub());
    let mut told = String::new();
    let mut tell = |ran: &Ran| told.push_str(&scene.told(ran).replace(&hub.endpoint(), "[HUB]"));
    tell(&train(&scene, &hub.endpoint(), &["--model", "org/none"]));
    tell(&train(&scene, &hub.endpoint(), &["--model", "org/tiny@v2"]));
    hub.change("org/tiny", |repository| repository.gate = Some("hf_in".to_owned()));
    tell(&train(&scene, &hub.endpoint(), &["--model", "org/tiny"]));
    hub.change("org/tiny", |repository| {
        let weights = repository.files.remove("model.safetensors").unwrap();
        repository.files.insert("pytorch_model.bin".to_owned(), weights);
    });
    tell(&train(&scene, &hub.endpoint(), &["--model", "org/tiny"]));
    let sentences = sentences();
    let eval = ["eval", "--prompt", "none", "--data", &sentences, "--model", "org/tiny"];
    tell(&scene.run(&eval));
    tell(&Scene::ran(scene.command(&eval).env("HF_ENDPOINT", "mirror").output().unwrap()));
    insta::assert_snapshot!(told, @r"
    exit 1
    error: the model org/none, which is no directory here: [HUB] has no model repository org/none, or it is private
    hint: a model is a directory that is here, or org/name as the hub spells it; a private repository needs a token in HF_TOKEN
    exit 1
    error: the model org/tiny@v2, which is no directory here: the repository org/tiny at [HUB] has no revision v2
    hint: [HUB]/org/tiny/refs lists its branches and tags; without @… it is main
    exit 1
    error: the model org/tiny, which is no directory here: the repository org/tiny is gated: its files are only for those who were granted access
    hint: accept its licence at [HUB]/org/tiny, then set HF_TOKEN to a token of yours ([HUB]/settings/tokens)
    exit 1
    error: the model org/tiny, which is no directory here: the repository org/tiny has no model.safetensors and no model.safetensors.index.json; it has pytorch_model.bin, a pickle, which can run code and is never read
    hint: convert it once in Python: `AutoModelForCausalLM.from_pretrained('org/tiny').save_pretrained('DIR')` and `AutoTokenizer.from_pretrained('org/tiny').save_pretrained('DIR')`, then --model DIR
    exit 1
    error: the model org/tiny, which is no directory here: HF_HUB_OFFLINE is set, and the cache [DIR]/hf/hub does not hold all of org/tiny
    hint: unset HF_HUB_OFFLINE once, so that org/tiny can be downloaded; `foreword models` lists what is there
    exit 1
    error: HF_ENDPOINT is mirror, an address was expected, such as https://huggingface.co
    hint: correct HF_ENDPOINT, or unset it
    ");
    assert!(!scene.path("p").exists() && !scene.path("hf/hub").exists());
}

#[test]
fn a_network_that_fails_is_two() {
    let (scene, (hub, _)) = (Scene::new(), hub());
    hub.fail(Faults { short: 10, ..Faults::default() });
    let ran = train(&scene, &hub.endpoint(), &["--model", "org/tiny"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("error: the model org/tiny, which is no directory here: model.safetensors should have")
    );
    // One cut is none; the answer is the same.
    hub.fail(Faults { cut: Some((1000, 1)), ..Faults::default() });
    let ran = train(&scene, &hub.endpoint(), &["--model", "org/tiny"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let endpoint = hub.endpoint();
    drop(hub);
    let ran = train(&scene, &endpoint, &["--model", "org/other", "--force"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(
        ran.stderr.contains(&format!("cannot reach {endpoint}/api/models/org/other/revision/main")),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("\nhint: look to the network"), "{}", ran.stderr);
}
