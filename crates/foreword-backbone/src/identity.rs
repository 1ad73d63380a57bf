//! Which model a soft prompt belongs to: its Spec and a fingerprint of its embedding table.

use foreword_kernels::Weights;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::digest;
use crate::spec::Spec;

/// Rows of the table that the sketch looks at.
const SKETCH_ROWS: usize = 32;

/// How far the sketch of a table in this format may be from that of the table itself, relative to its length. bf16 rounds by up
/// to 2⁻⁹, and the roundings of a row largely cancel; those of blocks are a share of the sketch that is near their share of
/// the numbers, and twice that with a few large columns. Measured on trained tables: q8_0 0.007, q6_k 0.034, q5_0 0.064, q5_k
/// 0.081, q4_k 0.11, q4_0 0.12; foreword-tiny before and after the last part of its training is 0.32.
fn tolerance(dtype: &str) -> f32 {
    match dtype {
        "q8_0" => 0.02,
        "q6_k" => 0.07,
        "q5_k" | "q5_0" => 0.12,
        "q4_k" => 0.18,
        "q4_0" => 0.25,
        _ => 0.003,
    }
}

/// What a soft prompt's file remembers of its model.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The model's name; only for messages.
    pub name: String,
    /// [`Spec::canonical`].
    pub spec: Value,
    /// Stored format of the embedding table.
    pub dtype: String,
    /// SHA-256 of the table rounded to bf16, as `sha256:…`: the same for a model and its bf16 copy.
    pub digest: String,
    /// One number from each of up to 32 rows spread over the table: recognises other formats of the same table.
    pub sketch: Vec<f32>,
}

/// How two identities relate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The same table in the same format.
    Same,
    /// The same table in another format: results differ by rounding.
    OtherFormat,
    /// Another architecture or size; the fields that differ.
    OtherSpec(String),
    /// The same architecture with other weights.
    OtherWeights,
}

impl Identity {
    /// The identity, and the root mean square of the table's numbers: one pass over the table gives both.
    pub(crate) fn of(name: &str, spec: &Spec, table: &Weights) -> (Self, f64) {
        let mut hash = Sha256::new();
        let mut row = vec![0.0; table.cols()];
        let mut rounded = Vec::with_capacity(2 * table.cols());
        let step = table.rows().div_ceil(SKETCH_ROWS).max(1);
        let mut sketch = Vec::with_capacity(SKETCH_ROWS);
        let mut squares = 0.0;
        for i in 0..table.rows() {
            table.read(i, 0..table.cols(), &mut row);
            squares += row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
            rounded.clear();
            rounded.extend(row.iter().flat_map(|&v| Weights::bf16_bits(v).to_le_bytes()));
            hash.update(&rounded);
            if i % step == 0 {
                // Alternating signs in pairs: a projection that no constant row hides from.
                sketch
                    .push(row.iter().enumerate().map(|(j, &v)| if (j / 2) % 2 == 0 { v } else { -v }).sum());
            }
        }
        let identity = Self {
            name: name.to_owned(),
            spec: spec.canonical(),
            dtype: table.dtype().name().to_owned(),
            digest: digest::spelled(hash),
            sketch,
        };
        (identity, (squares / (table.rows() * table.cols()) as f64).sqrt())
    }

    /// How `self`, a loaded model, relates to `recorded`, the one a soft prompt was made for.
    #[must_use]
    pub fn compare(&self, recorded: &Self) -> Match {
        if !same(&self.spec, &recorded.spec) {
            return Match::OtherSpec(differences(&self.spec, &recorded.spec));
        }
        if self.digest == recorded.digest {
            return if self.dtype == recorded.dtype { Match::Same } else { Match::OtherFormat };
        }
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
        let apart = norm(&mut self.sketch.iter().zip(&recorded.sketch).map(|(a, b)| a - b));
        let (here, there) = (tolerance(&self.dtype), tolerance(&recorded.dtype));
        // Both roundings are independent of each other, where there are two.
        let most = if here.min(there) < 0.01 { here.max(there) } else { here.hypot(there) };
        let close = self.sketch.len() == recorded.sketch.len()
            && apart <= most * norm(&mut self.sketch.iter().copied());
        // Of blocks there are several in the same format: who wrote them chose the scales.
        let may_differ = self.dtype != recorded.dtype || most > 0.01;
        if close && may_differ { Match::OtherFormat } else { Match::OtherWeights }
    }
}

/// How far two numbers of a Spec may be apart, relative to the larger, and still be the same: a few roundings to single
/// precision. A GGUF file stores 1e-6 as the f32 next to it, which other programs then write out as 9.999999974752427e-7,
/// and a root or a quotient of such a number is rounded again.
const SAME_NUMBER: f64 = 1.0 / (1 << 22) as f64;

/// Whether two numbers are the same in single precision, in which all is computed.
pub(crate) fn same_number(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= SAME_NUMBER * a.abs().max(b.abs())
}

/// Whether two specs, or parts of them, say the same. Whole numbers are exact.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => same_number(a, b),
            _ => a == b,
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// The fields in which two specs differ, as `hidden 64 instead of 192`.
pub(crate) fn differences(here: &Value, recorded: &Value) -> String {
    let (Some(here), Some(recorded)) = (here.as_object(), recorded.as_object()) else {
        return "unreadable".into();
    };
    let null = Value::Null;
    let keys = here.keys().chain(recorded.keys().filter(|key| !here.contains_key(*key)));
    let differing = keys.filter_map(|key| {
        let (a, b) = (here.get(key).unwrap_or(&null), recorded.get(key).unwrap_or(&null));
        (!same(a, b)).then(|| format!("{key} {a} instead of {b}"))
    });
    differing.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A number as JSON that went through single precision has it.
    fn rounded(value: &Value) -> Value {
        match value {
            Value::Number(number) if number.is_f64() => {
                json!(f64::from(number.as_f64().unwrap() as f32))
            }
            Value::Array(items) => items.iter().map(rounded).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(key, value)| (key.clone(), rounded(value))).collect()
            }
            other => other.clone(),
        }
    }

    #[test]
    fn numbers_that_went_through_single_precision_are_the_same() {
        let spec = json!({
            "hidden": 640, "norm_eps": 1e-6, "embedding_scale": 25.298_221_281_347_036,
            "logit_scale": 1.0 / 0.3, "attention_soft_cap": 50.0, "logit_soft_cap": 30.1,
            "positions": { "kind": "rotary", "theta": 1e6, "factors": [1.08, 1.11], "low_frequency_factor": 0.1 },
        });
        let rounded = rounded(&spec);
        assert_ne!(rounded, spec);
        assert_eq!(rounded["norm_eps"].to_string(), "9.999999974752427e-7");
        assert!(same(&rounded, &spec) && same(&spec, &rounded));
        assert_eq!(differences(&rounded, &spec), "");
    }

    #[test]
    fn other_numbers_are_others() {
        let base = json!({ "hidden": 640, "norm_eps": 1e-6, "theta": 1e6, "windows": [null, 512] });
        for (key, other) in [
            ("hidden", json!(641)),
            ("norm_eps", json!(1e-5)),
            ("norm_eps", json!(1.000_001e-6)),
            ("theta", json!(1_000_001.0)),
            ("windows", json!([null, 511])),
            ("windows", json!([null])),
            ("theta", json!(null)),
        ] {
            let mut changed = base.clone();
            changed[key] = other;
            assert!(!same(&base, &changed), "{changed}");
            assert!(differences(&changed, &base).starts_with(key), "{changed}");
        }
        // Written without its point a number is the same one; whole ones are exact.
        assert!(same(&json!(10_000), &json!(10_000.0)));
        assert!(!same(&json!(2_000_000_001), &json!(2_000_000_000)));
    }
}
