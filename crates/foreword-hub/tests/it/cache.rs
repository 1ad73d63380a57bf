//! What is fetched, where it lies, and when the hub is asked at all.

use std::fs;

use foreword_hub::{Cached, HubError, HubName, Settings, cached, find};

use crate::{Scene, names, weights};
use foreword_testkit::stand_in::{Faults, StandIn, hex};

#[test]
fn only_what_is_read_is_fetched_and_lies_where_python_looks() {
    let scene = Scene::new();
    let commit =
        scene.put(&[("chat_template.jinja", b"{{ x }}"), ("model.onnx", b"x"), ("tf_model.h5", b"x")]);
    let (fetched, told) = scene.told("org/tiny");
    let fetched = fetched.unwrap();
    assert_eq!(fetched.commit, commit);
    assert_eq!(fetched.path, scene.cached("snapshots").join(&commit));
    let files = [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ];
    assert_eq!(names(&fetched.path), files);
    assert_eq!(fs::read(fetched.path.join("model.safetensors")).unwrap(), weights(300_000));
    assert_eq!(fs::read_to_string(scene.cached("refs/main")).unwrap(), commit);
    // Contents lie under the names that the hub gives them.
    let large = hex(&weights(300_000));
    let blobs = names(&scene.cached("blobs"));
    assert!(blobs.contains(&large) && blobs.len() == files.len(), "{blobs:?}");
    if cfg!(unix) {
        let link = fs::read_link(fetched.path.join("model.safetensors")).unwrap();
        assert_eq!(link.to_str(), Some(format!("../../blobs/{large}").as_str()));
    }
    assert_eq!(
        names(&scene.cached(".no_exist").join(&commit)),
        ["added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"]
    );
    let locks = names(&scene.settings.cache.join(".locks/models--org--tiny"));
    assert!(locks.contains(&format!("{large}.lock")), "{locks:?}");
    assert_eq!(told, ["Begin { files: 5, bytes: 300042, here: 0 }", "End"]);
}

#[test]
fn a_tokenizer_of_the_older_kind_is_two_files() {
    let scene = Scene::new();
    let model: &[(&str, &[u8])] = &[
        ("config.json", b"{}"),
        ("model.safetensors", b"x"),
        ("vocab.json", b"{}"),
        ("merges.txt", b""),
        ("vocab.txt", b""),
    ];
    let commit = scene.hub.model("org/tiny", model);
    let fetched = scene.fetch("org/tiny");
    assert_eq!(names(&fetched.path), ["config.json", "merges.txt", "model.safetensors", "vocab.json"]);
    // A commit that is complete is not asked for again.
    scene.hub.asked();
    assert_eq!(scene.fetch(&format!("org/tiny@{commit}")), fetched);
    assert_eq!(scene.hub.asked(), []);
    // Beside a tokenizer.json they are not read.
    scene.hub.model("org/tiny", &[model, &[("tokenizer.json", b"{}")]].concat());
    let fetched = scene.fetch("org/tiny");
    assert_eq!(names(&fetched.path), ["config.json", "model.safetensors", "tokenizer.json"]);
}

#[test]
fn a_second_time_only_what_changed_is_fetched() {
    let scene = Scene::new();
    let first = scene.fetch("org/tiny");
    scene.hub.asked();
    let (again, told) = scene.told("org/tiny");
    assert_eq!((again.unwrap(), told.len()), (first.clone(), 0));
    let asked = scene.hub.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].line, "GET /api/models/org/tiny/revision/main");

    // The branch goes on: the same weights, another tokenizer.
    let commit = scene.put(&[("tokenizer.json", b"{\"version\": 2}")]);
    let second = scene.fetch("org/tiny");
    assert_eq!((second.commit.as_str(), second.path == first.path), (commit.as_str(), false));
    assert_eq!(fs::read(second.path.join("tokenizer.json")).unwrap(), b"{\"version\": 2}");
    assert_eq!(fs::read(second.path.join("model.safetensors")).unwrap(), weights(300_000));
    assert_eq!(scene.ranges(), [], "the weights were here");
    // The older commit is still there, by its name, and needs no hub.
    assert_eq!(scene.fetch(&format!("org/tiny@{}", first.commit)), first);
    assert_eq!(scene.hub.asked(), []);
}

#[test]
fn without_the_hub_the_cache_will_do() {
    let Scene { hub, dir: _dir, settings } = {
        let scene = Scene::new();
        scene.fetch("org/tiny");
        scene
    };
    let name = HubName::parse("org/tiny").unwrap();
    let fetch = |settings: &Settings| {
        let mut told = Vec::new();
        let fetched = foreword_hub::fetch(settings, &name, &mut |event| told.push(format!("{event:?}")));
        (fetched, told)
    };
    hub.fail(Faults { status: Some((503, 100)), ..Faults::default() });
    let (fetched, told) = fetch(&settings);
    assert!(fetched.is_ok() && told[0].starts_with("Unreachable { why: Status { "), "{told:?}");
    hub.fail(Faults::default());
    hub.asked();
    let offline = Settings { offline: true, ..settings.clone() };
    let (fetched, told) = fetch(&offline);
    assert!(fetched.is_ok() && told.is_empty() && hub.asked().is_empty());
    drop(hub);
    let (fetched, told) = fetch(&settings);
    assert!(fetched.is_ok() && told[0].starts_with("Unreachable { why: Unreachable { "), "{told:?}");
    // Half of a model is none.
    fs::remove_file(settings.cache.join("models--org--tiny/blobs").join(hex(&weights(300_000)))).unwrap();
    let error = fetch(&settings).0.unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }) && !error.is_given(), "{error}");
    let error = fetch(&offline).0.unwrap_err();
    assert!(matches!(error, HubError::NotCached { .. }) && error.is_given(), "{error}");
    assert!(error.hint().unwrap().starts_with("unset HF_HUB_OFFLINE once"));
}

#[test]
fn offline_nothing_is_asked() {
    let scene = Scene::new();
    let scene = Scene { settings: Settings { offline: true, ..scene.settings.clone() }, ..scene };
    let error = scene.refusal("org/tiny@v1");
    assert!(error.to_string().ends_with("does not hold all of org/tiny@v1"), "{error}");
    assert_eq!(scene.hub.asked(), []);
    assert!(!scene.settings.cache.exists());
}

#[test]
fn shards_are_those_that_the_index_names() {
    let scene = Scene::new();
    let index = br#"{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}"#;
    let commit = scene.hub.model(
        "org/big",
        &[
            ("config.json", b"{}"),
            ("tokenizer.json", b"{}"),
            ("model.safetensors.index.json", index),
            ("model-1-of-2.safetensors", &weights(1000)),
            ("model-2-of-2.safetensors", &weights(2000)),
            ("other.safetensors", &weights(3000)),
        ],
    );
    let fetched = scene.fetch("org/big");
    let files = [
        "config.json",
        "model-1-of-2.safetensors",
        "model-2-of-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    assert_eq!(names(&fetched.path), files);
    // All shards must be there for the cache to do.
    let name = HubName::parse("org/big").unwrap();
    assert_eq!(find(&scene.settings, &name), Some(fetched.clone()));
    fs::remove_file(fetched.path.join(files[2])).unwrap();
    assert_eq!(find(&scene.settings, &name), None);
    assert_eq!(scene.fetch("org/big").commit, commit);
    assert_eq!(find(&scene.settings, &name), Some(fetched));
}

#[test]
fn what_python_fetched_is_found() {
    let scene = Scene::new();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let snapshot = scene.cached("snapshots").join(commit);
    for dir in [&scene.cached("blobs"), &scene.cached("refs/pr"), &snapshot] {
        fs::create_dir_all(dir).unwrap();
    }
    for (file, etag) in [("config.json", "e1"), ("tokenizer.json", "e2"), ("model.safetensors", "e3")] {
        fs::write(scene.cached("blobs").join(etag), file).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(format!("../../blobs/{etag}"), snapshot.join(file)).unwrap();
        #[cfg(not(unix))]
        fs::copy(scene.cached("blobs").join(etag), snapshot.join(file)).unwrap();
    }
    fs::write(scene.cached("refs/pr/3"), commit).unwrap();
    let found = find(&scene.settings, &HubName::parse("org/tiny@pr/3").unwrap()).unwrap();
    assert_eq!(found.path, snapshot);
    assert_eq!(find(&scene.settings, &HubName::parse("org/tiny").unwrap()), None);
    let all = cached(&scene.settings.cache);
    let (repository, revision) = ("org/tiny".to_owned(), Some("pr/3".to_owned()));
    assert_eq!(all, [Cached { repository, revision, commit: commit.to_owned(), path: snapshot }]);
    assert_eq!(cached(&scene.dir.path().join("nowhere")), []);
}

#[test]
fn a_cache_that_takes_no_notes_will_do_while_nothing_changes() {
    let scene = Scene::new();
    let first = scene.fetch("org/tiny");
    fs::remove_dir_all(scene.cached(".no_exist")).unwrap();
    fs::write(scene.cached(".no_exist"), "no directory").unwrap();
    assert_eq!(scene.fetch("org/tiny"), first);
}

#[test]
fn a_gguf_file_is_fetched_alone() {
    let scene = Scene::new();
    let gguf = weights(5000);
    scene.put(&[("q4/tiny-Q4.gguf", &gguf), ("tiny-Q8.gguf", b"x")]);
    let fetched = scene.fetch("org/tiny/q4/tiny-Q4.gguf");
    assert!(fetched.path.ends_with("q4/tiny-Q4.gguf"));
    assert_eq!(fs::read(&fetched.path).unwrap(), gguf);
    assert_eq!(names(fetched.path.parent().unwrap().parent().unwrap()), ["q4"]);
    let error = scene.refusal("org/tiny/q4/tiny-Q5.gguf");
    assert_eq!(error.to_string(), "the repository org/tiny has no q4/tiny-Q5.gguf");
    assert_eq!(error.hint().unwrap(), "its .gguf files are q4/tiny-Q4.gguf, tiny-Q8.gguf");
}

#[test]
fn two_at_a_time_fetch_once() {
    // Often, since they seldom meet in the same place.
    for _ in 0..20 {
        let scene = Scene::new();
        std::thread::scope(|scope| {
            let both = [(); 2].map(|()| scope.spawn(|| scene.fetch("org/tiny")));
            let [one, other] = both.map(|fetched| fetched.join().unwrap());
            assert_eq!(one, other);
        });
        assert_eq!(scene.ranges(), [None], "the weights came once");
    }
}

#[test]
fn the_token_is_for_the_hub_alone() {
    let scene = Scene::new().token("hf_secret");
    scene.fetch("org/tiny");
    let asked = scene.hub.asked();
    assert!(asked.iter().any(|asked| !asked.of_hub), "the store was asked too");
    for asked in asked {
        let expected = asked.of_hub.then(|| "Bearer hf_secret".to_owned());
        assert_eq!(asked.token, expected, "{}", asked.line);
    }
}

#[test]
fn a_repository_that_moved_is_followed_with_the_token() {
    let scene = Scene::new().token("hf_secret");
    scene.hub.model("old/tiny", &[]);
    scene.hub.change("old/tiny", |repository| repository.moved = Some("org/tiny".to_owned()));
    scene.hub.change("org/tiny", |repository| repository.gate = Some("hf_secret".to_owned()));
    let fetched = scene.fetch("old/tiny");
    assert_eq!(fs::read(fetched.path.join("model.safetensors")).unwrap(), weights(300_000));
    assert!(fetched.path.starts_with(scene.settings.cache.join("models--old--tiny")));
}

#[test]
fn another_hub_that_is_gone_is_told_by_its_address() {
    let scene = Scene::new();
    let gone = StandIn::new().endpoint();
    let scene = Scene { settings: Settings { endpoint: gone.clone(), ..scene.settings.clone() }, ..scene };
    let error = scene.refusal("org/tiny");
    assert!(error.to_string().starts_with(&format!("cannot reach {gone}/api/models/org/tiny")), "{error}");
    assert!(!error.is_given() && error.hint().unwrap().contains("HF_ENDPOINT"));
}
