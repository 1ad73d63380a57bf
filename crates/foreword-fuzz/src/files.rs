//! Task files, templates and checkpoints.

use std::collections::BTreeMap;
use std::fs;

use foreword::{TaskFile, Template, checkpoint};

use crate::prompts::scratch;

pub(crate) fn task_file(bytes: &[u8]) {
    scratch(|dir| {
        let path = dir.join("task.toml");
        fs::write(&path, bytes).expect("a scratch file is written");
        match TaskFile::read(&path) {
            Ok(file) => {
                let again = file.clone().overridden_by(TaskFile::default());
                // NaN is not itself.
                assert_eq!(format!("{again:?}"), format!("{file:?}"));
            }
            Err(error) => assert!(error.to_string().contains("task.toml")),
        }
    });
}

pub(crate) fn template(bytes: &[u8]) {
    let source = String::from_utf8_lossy(bytes);
    if let Ok(template) = Template::parse(&source) {
        assert_eq!(template.source(), source);
        let rendered = template.render(|_| "");
        assert!(rendered.len() <= source.len());
        assert!(template.slots().all(|slot| !slot.is_empty() && !slot.contains(['{', '}'])));
    }
}

pub(crate) fn checkpoint(bytes: &[u8]) {
    let settings = BTreeMap::new();
    if let Ok(progress) = checkpoint::decode(bytes, &settings) {
        assert!(progress.values(0).iter().all(|value| value.is_finite()));
        assert!(progress.n_virtual() > 0);
        let again = checkpoint::encode(&progress, &settings).expect("what was read can be written");
        let again = checkpoint::decode(&again, &settings).expect("what was written can be read");
        assert_eq!((again.step(), again.values(0)), (progress.step(), progress.values(0)));
    }
}
