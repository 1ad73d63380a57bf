//! Downloads that break off, and bytes that are not what they should be.

use std::fs;

use foreword_hub::{HubError, HubName, find};

use crate::{Scene, names, weights};
use foreword_testkit::stand_in::{Faults, hex};

/// The blob of the weights.
fn blob(scene: &Scene) -> std::path::PathBuf {
    scene.cached("blobs").join(hex(&weights(300_000)))
}

fn range(from: u64) -> Option<String> {
    Some(format!("bytes={from}-"))
}

#[test]
fn a_cut_download_goes_on_where_it_broke_off() {
    let scene = Scene::new();
    scene.hub.fail(Faults { cut: Some((100_000, 2)), ..Faults::default() });
    let fetched = scene.fetch("org/tiny");
    assert_eq!(fs::read(fetched.path.join("model.safetensors")).unwrap(), weights(300_000));
    assert_eq!(scene.ranges(), [None, range(100_000), range(200_000)]);
}

#[test]
fn what_breaks_off_again_and_again_goes_on_the_next_time() {
    let scene = Scene::new();
    let mut name = blob(&scene).into_os_string();
    name.push(".incomplete");
    let part = std::path::PathBuf::from(name);
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, &weights(300_000)[..50_000]).unwrap();
    scene.hub.fail(Faults { cut: Some((0, 100)), ..Faults::default() });
    let error = scene.refusal("org/tiny");
    assert!(
        error
            .to_string()
            .starts_with("the download of model.safetensors broke off after 50000 of 300000 bytes"),
        "{error}"
    );
    assert!(!error.is_given() && error.hint().unwrap().contains("goes on where it broke off"));
    assert_eq!(scene.ranges(), vec![range(50_000); 5]);
    // Half of it is never taken for it.
    assert!(!blob(&scene).exists() && part.exists());
    assert_eq!(find(&scene.settings, &HubName::parse("org/tiny").unwrap()), None);
    scene.hub.fail(Faults::default());
    let (fetched, told) = scene.told("org/tiny");
    assert_eq!(fs::read(fetched.unwrap().path.join("model.safetensors")).unwrap(), weights(300_000));
    assert_eq!(scene.ranges(), [range(50_000)]);
    assert_eq!(told[0], "Begin { files: 1, bytes: 300000, here: 50000 }");
    assert!(!part.exists());
}

#[test]
fn a_store_without_ranges_begins_again() {
    let scene = Scene::new();
    scene.hub.fail(Faults { cut: Some((100_000, 1)), whole_only: true, ..Faults::default() });
    let fetched = scene.fetch("org/tiny");
    assert_eq!(fs::read(fetched.path.join("model.safetensors")).unwrap(), weights(300_000));
    assert_eq!(scene.ranges(), [None, range(100_000)]);
}

#[test]
fn another_size_or_digest_is_refused_and_not_kept() {
    let scene = Scene::new();
    scene.hub.fail(Faults { short: 10, ..Faults::default() });
    let error = scene.refusal("org/tiny");
    assert!(
        matches!(error, HubError::Size { stated: 300_000, sent: 299_990, .. }) && !error.is_given(),
        "{error}"
    );
    assert!(!error.to_string().contains("signature"), "{error}");
    scene.hub.fail(Faults { spoiled: true, ..Faults::default() });
    let error = scene.refusal("org/tiny");
    assert!(matches!(error, HubError::Digest { .. }) && !error.is_given(), "{error}");
    let left = names(&scene.cached("blobs"));
    assert!(left.iter().all(|name| !name.starts_with(&hex(&weights(300_000)))), "{left:?}");
    assert_eq!(find(&scene.settings, &HubName::parse("org/tiny").unwrap()), None);
    scene.hub.fail(Faults::default());
    scene.fetch("org/tiny");
}

#[test]
fn what_lies_there_from_something_else_is_found_out() {
    let scene = Scene::new();
    let mut name = blob(&scene).into_os_string();
    name.push(".incomplete");
    fs::create_dir_all(scene.cached("blobs")).unwrap();
    let small = hex(br#"{"model_type": "x"}"#)[..40].to_owned();
    fs::write(scene.cached("blobs").join(format!("{small}.incomplete")), "{{{{").unwrap();
    for length in [1000, 300_000, 300_001] {
        fs::write(&name, vec![1; length]).unwrap();
        let fetched = scene.fetch("org/tiny");
        assert_eq!(fs::read(fetched.path.join("model.safetensors")).unwrap(), weights(300_000), "{length}");
        assert_eq!(fs::read(fetched.path.join("config.json")).unwrap(), br#"{"model_type": "x"}"#);
        fs::remove_file(blob(&scene)).unwrap();
    }
}
