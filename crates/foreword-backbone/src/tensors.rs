//! The tensors of a model's safetensors files, each asked for by name and shape; none may be left over.

use std::collections::BTreeMap;

use foreword_kernels::{Bytes, Dtype, Weights};
use safetensors::SafeTensors;

use crate::error::BackboneError;

struct Stored {
    dtype: Result<Dtype, String>,
    shape: Vec<usize>,
    bytes: Bytes,
}

/// Tensors not yet asked for.
pub(crate) struct Tensors(BTreeMap<String, Stored>);

impl Tensors {
    /// Reads the headers; one of the prefixes is taken off the names that have it.
    pub(crate) fn read(files: &[(String, Bytes)], prefixes: &[&str]) -> Result<Self, BackboneError> {
        let mut tensors = BTreeMap::new();
        for (file, bytes) in files {
            let all = bytes.as_slice();
            let bad = |detail: String| BackboneError::Safetensors { file: file.clone(), detail };
            let parsed = SafeTensors::deserialize(all).map_err(|error| bad(error.to_string()))?;
            for (name, view) in parsed.iter() {
                let start = view.data().as_ptr() as usize - all.as_ptr() as usize;
                let range = start..start + view.data().len();
                let bytes =
                    bytes.slice(range).ok_or_else(|| bad(format!("tensor `{name}` leaves the file")))?;
                let dtype = match view.dtype() {
                    safetensors::Dtype::F32 => Ok(Dtype::F32),
                    safetensors::Dtype::BF16 => Ok(Dtype::Bf16),
                    safetensors::Dtype::F16 => Ok(Dtype::F16),
                    other => Err(format!("{other:?}")),
                };
                let stored = Stored { dtype, shape: view.shape().to_vec(), bytes };
                let short = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
                let short = short.unwrap_or(name).to_owned();
                if tensors.insert(short, stored).is_some() {
                    return Err(bad(format!("tensor `{name}` is there twice")));
                }
            }
        }
        Ok(Self(tensors))
    }

    /// Takes a matrix `[rows, cols]`.
    pub(crate) fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Weights, BackboneError> {
        self.take(name, &[rows, cols])
    }

    /// Takes a vector `[n]`, widened. NaN and infinities are refused here, where looking costs nothing.
    pub(crate) fn vector(&mut self, name: &str, n: usize) -> Result<Vec<f32>, BackboneError> {
        let values = self.take(name, &[n])?.to_f32().into_owned();
        self.finite(name, values)
    }

    /// Takes a matrix `[rows, cols]`, widened, row after row; likewise.
    pub(crate) fn flat(&mut self, name: &str, rows: usize, cols: usize) -> Result<Vec<f32>, BackboneError> {
        let values = self.take(name, &[rows, cols])?.to_f32().into_owned();
        self.finite(name, values)
    }

    fn finite(&self, name: &str, values: Vec<f32>) -> Result<Vec<f32>, BackboneError> {
        if values.iter().any(|v| !v.is_finite()) {
            return Err(BackboneError::NotFinite { name: name.to_owned() });
        }
        Ok(values)
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weights, BackboneError> {
        let name = name.to_owned();
        let Some(stored) = self.0.remove(&name) else {
            return Err(BackboneError::MissingTensor { name, shape: shape.to_vec() });
        };
        if stored.shape != shape {
            return Err(BackboneError::TensorShape { name, found: stored.shape, expected: shape.to_vec() });
        }
        let dtype = match stored.dtype {
            Ok(dtype) => dtype,
            Err(found) => return Err(BackboneError::TensorDtype { name, found }),
        };
        let (rows, cols) = if let [rows, cols] = *shape { (rows, cols) } else { (1, shape.iter().product()) };
        Weights::new(stored.bytes, dtype, rows, cols)
            .map_err(|error| BackboneError::Safetensors { file: name, detail: error.to_string() })
    }

    /// Whether a tensor of that name is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether a tensor of that name is there and is not `table`, to the bit.
    pub(crate) fn differs(&self, name: &str, table: &Weights) -> bool {
        let same = |stored: &Stored| {
            stored.shape == [table.rows(), table.cols()]
                && stored.dtype.as_ref().is_ok_and(|&dtype| dtype == table.dtype())
                && stored.bytes.as_slice() == table.bytes()
        };
        self.0.get(name).is_some_and(|stored| !same(stored))
    }

    /// Fails if a tensor is left that is not among `without_use` by its ending.
    pub(crate) fn finish(self, family: &str, without_use: &[&str]) -> Result<(), BackboneError> {
        let used = |name: &String| !without_use.iter().any(|ending| name.ends_with(ending));
        let left: Vec<String> = self.0.into_keys().filter(used).collect();
        match left.first() {
            None => Ok(()),
            Some(example) => Err(BackboneError::LeftoverTensors {
                n: left.len(),
                family: family.to_owned(),
                example: example.clone(),
            }),
        }
    }
}
