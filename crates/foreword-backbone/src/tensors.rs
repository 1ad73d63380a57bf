//! The tensors of a model's safetensors or GGUF files. Each is taken by name and shape, and none may remain.

use std::collections::BTreeMap;

use foreword_kernels::{Bytes, Dtype, Weights};
use safetensors::SafeTensors;

use crate::error::BackboneError;
use crate::families::Names;
use crate::files::ModelFiles;
use crate::gguf::{self, Gguf};
use crate::notice::Notice;

/// How to get a tensor's numbers in a format that is read.
const SAFETENSORS_HINT: &str = "F32, BF16 and F16 are: if the model is quantised, use the one that it was made from or a GGUF file \
    of it; otherwise write it as bf16 in Python (`AutoModelForCausalLM.from_pretrained(DIR, dtype=\"bfloat16\")\
    .save_pretrained(OUT)`)";

/// Heads for other purposes, beside a whole language model: of classifiers, of rewards and values, of tokens further ahead.
const EXTRA_HEADS: [&str; 18] = [
    "classification_head.",
    "classifier.",
    "cls.",
    "critic_head.",
    "medusa_head.",
    "medusa_heads.",
    "mtp.",
    "qa_outputs.",
    "regression_head.",
    "reward_head.",
    "reward_model.",
    "rm_head.",
    "score.",
    "summary.",
    "v_head.",
    "value_head.",
    "multiple_choice_head.",
    "rank_head.",
];
/// Scales of a key/value cache in eight bits.
const CACHE_SCALES: [&str; 5] =
    [".k_scale", ".v_scale", ".kv_scale", "k_proj.output_scale", "v_proj.output_scale"];

/// Whether a tensor belongs to such a head.
fn is_extra_head(name: &str) -> bool {
    EXTRA_HEADS.iter().any(|head| name.starts_with(head))
        || CACHE_SCALES.iter().any(|end| name.ends_with(end))
}

struct StoredTensor {
    dtype: Result<Dtype, String>,
    shape: Vec<usize>,
    bytes: Bytes,
    /// Width of the heads whose rows are interleaved ([`Weights::rope_interleaved`]).
    interleaved: Option<usize>,
}

/// Tensors that have not been taken.
pub(crate) struct Tensors {
    remaining: BTreeMap<String, StoredTensor>,
    /// Weights of linear layers are stored `[out, in]`, even if the family's own files store `[in, out]`.
    output_first: bool,
    /// No number is read: vectors are zeros.
    headers_only: bool,
    n_bytes: u64,
}

impl Tensors {
    /// Reads the headers and strips the family's prefix from names. If a tensor is in several shards, the index decides.
    pub(crate) fn read(files: &ModelFiles, names: &Names) -> Result<Self, BackboneError> {
        let mut tensors = BTreeMap::new();
        if files.weights.first().is_some_and(|(_, bytes)| gguf::is_gguf(bytes)) {
            return Self::from_gguf(&files.weights, names);
        }
        for (file, bytes) in &files.weights {
            let bad = |detail: String| BackboneError::Safetensors { file: file.clone(), detail };
            let parsed = SafeTensors::deserialize(bytes).map_err(|error| bad(error.to_string()))?;
            // Sorted, so that errors always name the same tensor.
            let mut views: Vec<_> = parsed.iter().collect();
            views.sort_unstable_by_key(|(name, _)| *name);
            for (name, view) in views {
                let indexed = files.tensor_files.get(name);
                let short = names.prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
                let short = short.unwrap_or(name).to_owned();
                if tensors.contains_key(&short) && indexed.is_some_and(|indexed| indexed != file) {
                    continue;
                }
                let bytes = bytes.slice_ref(view.data());
                let dtype = match view.dtype() {
                    safetensors::Dtype::F32 => Ok(Dtype::F32),
                    safetensors::Dtype::BF16 => Ok(Dtype::Bf16),
                    safetensors::Dtype::F16 => Ok(Dtype::F16),
                    other => Err(format!("{other:?}")),
                };
                let stored = StoredTensor { dtype, shape: view.shape().to_vec(), bytes, interleaved: None };
                if tensors.insert(short, stored).is_some() && indexed.is_none() {
                    return Err(BackboneError::DuplicateTensor { file: file.clone(), name: name.to_owned() });
                }
            }
        }
        Ok(Self { remaining: tensors, output_first: false, headers_only: false, n_bytes: 0 })
    }

    /// The tensors of a GGUF file by the family's names. Tensors without one keep their name, and so remain in the end.
    fn from_gguf(parts: &[(String, Bytes)], names: &Names) -> Result<Self, BackboneError> {
        let gguf = Gguf::parse_parts(parts)?;
        let head_width = gguf::config::interleaved_width(&gguf)?;
        let mut tensors = BTreeMap::new();
        for (&name, info) in &gguf.tensors {
            // The configuration reads these.
            if gguf::names::FREQUENCY_FACTORS.contains(&name) {
                continue;
            }
            let name_in_family = gguf::names::to_family(names, name).unwrap_or_else(|| name.to_owned());
            let interleaved = head_width.filter(|_| gguf::names::is_query_or_key(name));
            let part = &parts[info.part].1;
            let bytes = part.get(info.range.clone()).map_or_else(Bytes::new, |range| part.slice_ref(range));
            let stored =
                StoredTensor { dtype: info.dtype.clone(), shape: info.shape.clone(), bytes, interleaved };
            if tensors.insert(name_in_family, stored).is_some() {
                return Err(gguf.wrong(format!("tensor `{name}` is duplicated")));
            }
        }
        Ok(Self { remaining: tensors, output_first: true, headers_only: false, n_bytes: 0 })
    }

    /// The same tensors, none of whose numbers will be read.
    pub(crate) fn headers_only(self) -> Self {
        Self { headers_only: true, ..self }
    }

    /// A family's names for tensors stored so: in GGUF files linear weights are `[out, in]` and gains have no offset.
    pub(crate) fn as_stored(&self, names: &Names) -> Names {
        if self.output_first { Names { transposed: false, gain_offset: 0.0, ..*names } } else { *names }
    }

    /// Stored bytes of all tensors that were taken.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The shape of a tensor that has not been taken.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.remaining.get(name).map(|stored| &stored.shape[..])
    }

    /// Takes a matrix `[rows, cols]`.
    pub(crate) fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Weights, BackboneError> {
        let (weights, interleaved) = self.take(name, &[rows, cols])?;
        Ok(match interleaved {
            Some(width) => weights.rope_interleaved(width),
            None => weights,
        })
    }

    /// Takes a vector `[n]`, widened. NaN and infinities are refused.
    pub(crate) fn vector(&mut self, name: &str, n: usize) -> Result<Vec<f32>, BackboneError> {
        let (weights, interleaved) = self.take(name, &[n])?;
        if self.headers_only {
            return Ok(vec![0.0; n]);
        }
        let mut values = weights.to_f32().into_owned();
        if let Some(width) = interleaved {
            // As a matrix with one column, whose rows have the same order.
            values = Weights::from_f32(&values, 1).rope_interleaved(width).to_f32().into_owned();
        }
        self.finite(name, values)
    }

    /// Takes a matrix `[rows, cols]`, widened, row after row. NaN and infinities are refused.
    pub(crate) fn flat(&mut self, name: &str, rows: usize, cols: usize) -> Result<Vec<f32>, BackboneError> {
        let matrix = self.matrix(name, rows, cols)?;
        if self.headers_only {
            return Ok(vec![0.0; rows * cols]);
        }
        let values = matrix.to_f32().into_owned();
        self.finite(name, values)
    }

    fn finite(&self, name: &str, values: Vec<f32>) -> Result<Vec<f32>, BackboneError> {
        if values.iter().any(|v| !v.is_finite()) {
            return Err(BackboneError::NotFinite { name: name.to_owned() });
        }
        Ok(values)
    }

    /// The stored numbers, and the width of heads whose rows are interleaved.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<(Weights, Option<usize>), BackboneError> {
        let name = name.to_owned();
        let Some(stored) = self.remaining.remove(&name) else {
            return Err(BackboneError::MissingTensor { name, shape: shape.to_vec() });
        };
        if stored.shape != shape {
            return Err(BackboneError::TensorShape { name, found: stored.shape, expected: shape.to_vec() });
        }
        let dtype = match stored.dtype {
            Ok(dtype) => dtype,
            Err(found) => {
                let hint = if self.output_first { gguf::names::FORMATS_HINT } else { SAFETENSORS_HINT };
                return Err(BackboneError::TensorDtype { name, found, hint });
            }
        };
        let (rows, cols) = if let [rows, cols] = *shape { (rows, cols) } else { (1, shape.iter().product()) };
        self.n_bytes += stored.bytes.len() as u64;
        let interleaved = stored.interleaved.filter(|&width| width > 0);
        if interleaved.is_some_and(|width| !width.is_multiple_of(2) || !shape[0].is_multiple_of(width)) {
            return Err(BackboneError::TensorShape { name, found: stored.shape, expected: shape.to_vec() });
        }
        Weights::new(stored.bytes, dtype, rows, cols)
            .map(|weights| (weights, interleaved))
            .map_err(|error| BackboneError::Safetensors { file: name, detail: error.to_string() })
    }

    /// Whether a tensor remains.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.remaining.contains_key(name)
    }

    /// Whether a tensor remains that differs from `table` in a bit, or, by headers only, in shape or format.
    pub(crate) fn differs(&self, name: &str, table: &Weights) -> bool {
        let same = |stored: &StoredTensor| {
            stored.shape == [table.rows(), table.cols()]
                && stored.dtype.as_ref().is_ok_and(|&dtype| dtype == table.dtype())
                && (self.headers_only || stored.bytes == table.bytes())
        };
        self.remaining.get(name).is_some_and(|stored| !same(stored))
    }

    /// The first tensor that remains of a head for another purpose.
    pub(crate) fn extra_head(&self) -> Option<&String> {
        self.remaining.keys().find(|name| is_extra_head(name))
    }

    /// Fails if a tensor remains whose name has none of the endings `ignored`, unless it belongs to another part of the model, or
    /// to a head for another purpose, which a notice tells.
    pub(crate) fn finish(
        self,
        (family, names): (&str, &Names),
        ignored: &[&str],
    ) -> Result<Option<Notice>, BackboneError> {
        let is_used = |name: &String| {
            !ignored.iter().any(|ending| name.ends_with(ending))
                && !names.other_parts.iter().any(|beginning| name.starts_with(beginning))
        };
        let remaining = self.remaining.into_keys().filter(is_used);
        let (extra, remaining): (Vec<String>, Vec<String>) = remaining.partition(|name| is_extra_head(name));
        if let Some(example) = remaining.first() {
            let (n, example) = (remaining.len(), example.clone());
            return Err(BackboneError::LeftoverTensors { n, family: family.to_owned(), example });
        }
        let n = extra.len();
        Ok(extra.into_iter().next().map(|example| Notice::ExtraTensors { n, example }))
    }
}
