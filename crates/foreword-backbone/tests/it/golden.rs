//! The golden numbers of testdata/, made by testdata/make_golden.py.

use std::path::PathBuf;

use foreword_backbone::{Backbone, ModelFiles};
use foreword_kernels::Backend;
use serde_json::Value;

/// Every model of testdata/golden, those of testdata/models first. One lies in ../shared, which is not in the repository.
pub(crate) fn models() -> Vec<String> {
    let mut all = tiny_models();
    all.extend(["foreword-tiny", "stories260K"].map(str::to_owned));
    all
}

/// The random models of testdata/models, of every family.
pub(crate) fn tiny_models() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("testdata/models")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() > 20, "of every family");
    names
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) struct Golden {
    pub(crate) json: Value,
    tensors: Vec<u8>,
}

impl Golden {
    pub(crate) fn read(model: &str) -> Self {
        let golden = root().join("testdata/golden");
        let json = std::fs::read(golden.join(format!("{model}.json"))).unwrap();
        let tensors = std::fs::read(golden.join(format!("{model}.safetensors"))).unwrap();
        Self { json: serde_json::from_slice(&json).unwrap(), tensors }
    }

    /// The model's files, or `None` (and a word about it) where they are not here.
    pub(crate) fn files(&self) -> Option<ModelFiles> {
        let path = root().join(self.json["model"].as_str().unwrap());
        if !path.exists() {
            eprintln!("skipped: {} is not here", path.display());
            return None;
        }
        Some(ModelFiles::directory(&path).unwrap())
    }

    pub(crate) fn backbone<B: Backend>(&self, backend: B) -> Option<Backbone<B>> {
        Some(Backbone::load(&self.files()?, backend).unwrap())
    }

    /// (values, shape) of an array.
    pub(crate) fn tensor(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let tensors = safetensors::SafeTensors::deserialize(&self.tensors).unwrap();
        let view = tensors.tensor(name).unwrap();
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        (values, view.shape().to_vec())
    }

    pub(crate) fn ids(&self, text: usize) -> Vec<u32> {
        serde_json::from_value(self.json["ids"][text].clone()).unwrap()
    }

    pub(crate) fn numbers(&self, key: &str) -> Vec<usize> {
        serde_json::from_value(self.json[key].clone()).unwrap()
    }
}
