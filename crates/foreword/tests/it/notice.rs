//! Notices as values.

use foreword::{Notices, Observer};

#[test]
fn notices_are_collected_and_serialised() {
    let all = Notices::default();
    let observer: &dyn Observer = &all;
    observer.tell("model", "a model");
    observer.warn("doubtful");
    observer.detail(|| unreachable!("details are not wanted")).unwrap();
    let kept = all.take();
    assert_eq!(kept[0].to_string(), "model     a model");
    assert_eq!(serde_json::to_string(&kept[1]).unwrap(), r#"{"level":"warning","text":"doubtful"}"#);
    assert!(all.take().is_empty());
}
