//! The golden numbers of testdata/, made by testdata/make_golden.py.

use std::path::PathBuf;

use serde_json::Value;

use crate::{json, root};

/// Every model of testdata/golden, those of testdata/models first. One lies in ../shared, which is not in the repository.
#[must_use]
pub fn models() -> Vec<String> {
    let mut all = tiny_models();
    all.extend(["foreword-tiny", "stories260K"].map(str::to_owned));
    all
}

/// The random models of testdata/models, of every family.
#[must_use]
pub fn tiny_models() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("testdata/models")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() > 20, "of every family");
    names
}

/// The golden numbers of one model.
pub struct Golden {
    pub json: Value,
    tensors: Vec<u8>,
}

impl Golden {
    #[must_use]
    pub fn read(model: &str) -> Self {
        let tensors = std::fs::read(root().join(format!("testdata/golden/{model}.safetensors"))).unwrap();
        Self { json: json(&format!("testdata/golden/{model}.json")), tensors }
    }

    /// The directory of the model; says so where it is missing.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        let path = root().join(self.json["model"].as_str().unwrap());
        if !path.exists() {
            eprintln!("skipped: {} is not here", path.display());
            return None;
        }
        Some(path)
    }

    /// (values, shape) of an array.
    #[must_use]
    pub fn array(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let tensors = safetensors::SafeTensors::deserialize(&self.tensors).unwrap();
        let view = tensors.tensor(name).unwrap();
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        (values, view.shape().to_vec())
    }

    /// The values of an array.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Vec<f32> {
        self.array(name).0
    }

    /// The tokens of a text.
    #[must_use]
    pub fn ids(&self, text: usize) -> Vec<u32> {
        serde_json::from_value(self.json["ids"][text].clone()).unwrap()
    }

    #[must_use]
    pub fn numbers(&self, key: &str) -> Vec<usize> {
        serde_json::from_value(self.json[key].clone()).unwrap()
    }

    /// The tokens of all texts.
    #[must_use]
    pub fn contexts(&self) -> Vec<Vec<u32>> {
        serde_json::from_value(self.json["ids"].clone()).unwrap()
    }

    /// The tokens of all labels.
    #[must_use]
    pub fn labels(&self) -> Vec<Vec<u32>> {
        let labels = self.json["labels"].as_array().unwrap();
        labels.iter().map(|label| serde_json::from_value(label["ids"].clone()).unwrap()).collect()
    }
}

/// Relative L2 distance over all values.
#[must_use]
pub fn distance(a: impl IntoIterator<Item = f64>, b: impl IntoIterator<Item = f64>) -> f64 {
    let (a, b): (Vec<f64>, Vec<f64>) = (a.into_iter().collect(), b.into_iter().collect());
    assert_eq!(a.len(), b.len());
    let apart: f64 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
    (apart / b.iter().map(|b| b * b).sum::<f64>()).sqrt()
}
