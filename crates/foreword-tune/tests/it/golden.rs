//! The golden numbers of testdata/, made by testdata/make_golden.py.

use std::path::PathBuf;

use foreword_backbone::kernels::{Backend, Token};
use foreword_backbone::{Model, ModelFiles};
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

pub(crate) fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(root().join(path)).unwrap()).unwrap()
}

pub(crate) fn load<B: Backend>(path: &str, backend: B) -> Model<B> {
    Model::load(&ModelFiles::directory(&root().join(path)).unwrap(), backend).unwrap()
}

/// Golden numbers of one model.
pub(crate) struct Golden {
    pub(crate) json: Value,
    tensors: Vec<u8>,
}

impl Golden {
    pub(crate) fn read(model: &str) -> Self {
        let tensors = std::fs::read(root().join(format!("testdata/golden/{model}.safetensors"))).unwrap();
        Self { json: json(&format!("testdata/golden/{model}.json")), tensors }
    }

    /// The model, or `None` (and a word about it) where its files are not here.
    pub(crate) fn model<B: Backend>(&self, backend: B) -> Option<Model<B>> {
        let path = self.json["model"].as_str().unwrap();
        if !root().join(path).exists() {
            eprintln!("skipped: {path} is not here");
            return None;
        }
        Some(load(path, backend))
    }

    pub(crate) fn tensor(&self, name: &str) -> Vec<f32> {
        let tensors = safetensors::SafeTensors::deserialize(&self.tensors).unwrap();
        let view = tensors.tensor(name).unwrap();
        view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub(crate) fn contexts(&self) -> Vec<Vec<Token>> {
        serde_json::from_value(self.json["ids"].clone()).unwrap()
    }

    pub(crate) fn labels(&self) -> Vec<Vec<Token>> {
        let labels = self.json["labels"].as_array().unwrap();
        labels.iter().map(|label| serde_json::from_value(label["ids"].clone()).unwrap()).collect()
    }
}

/// Relative L2 distance over all values.
pub(crate) fn distance(a: impl IntoIterator<Item = f64>, b: impl IntoIterator<Item = f64>) -> f64 {
    let (a, b): (Vec<f64>, Vec<f64>) = (a.into_iter().collect(), b.into_iter().collect());
    assert_eq!(a.len(), b.len());
    let apart: f64 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
    (apart / b.iter().map(|b| b * b).sum::<f64>()).sqrt()
}
