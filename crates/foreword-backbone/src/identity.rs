//! The identity of a model: its Spec and a fingerprint of its embedding table.

use std::ops::Range;

use foreword_kernels::Weights;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::digest;
use crate::spec::Spec;
use crate::spec_diff::{differences, same};

/// Numbers of the table that are read at a time.
const PART: usize = 1 << 19;
/// Rows of them whose squares are summed side by side.
const ROWS_AT_ONCE: usize = 8;
/// Rows of the table that the sketch looks at.
const SKETCH_ROWS: usize = 32;

/// How far the sketch of a table in this format may be from that of the table itself, relative to its length. bf16 rounds by up
/// to 2⁻⁹, and the roundings of a row largely cancel; those of blocks are a share of the sketch that is near their share of
/// the numbers, and twice that with a few large columns. Measured on trained tables: q8_0 0.007, q6_k 0.034, q5_0 0.064, q5_k
/// 0.081, q4_k 0.11, q4_0 0.12, q5_1 0.08, q4_1 and iq4_nl 0.15, mxfp4 0.21, and with exact scales 0.23 in three bits and 0.51 in
/// two; foreword-tiny before and after the last part of its training is 0.32.
fn tolerance(dtype: &str) -> f32 {
    match dtype {
        "q8_0" => 0.02,
        "q6_k" => 0.07,
        "q5_k" | "q5_0" | "q5_1" => 0.12,
        "q4_k" | "iq4_xs" => 0.18,
        "q4_0" | "q4_1" | "iq4_nl" => 0.25,
        "q3_k" | "mxfp4" => 0.35,
        "q2_k" => 0.6,
        _ => 0.003,
    }
}

/// The identity that a soft prompt's file records of its model.
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
    /// Keys of its configuration that were left out on request; they are no part of the comparison.
    pub ignored_config_keys: Vec<String>,
    /// One number from each of up to 32 rows spread over the table: recognises other formats of the same table.
    pub sketch: Vec<f32>,
}

/// What some rows of the table contribute.
struct Part {
    /// All numbers, rounded to bf16.
    rounded: Vec<u8>,
    /// The sum of the squares of each row.
    squares: Vec<f64>,
    sketch: Vec<f32>,
}

impl Part {
    /// Reads these rows; every `step`th row of the table is in the sketch.
    fn read(table: &Weights, rows: Range<usize>, step: usize) -> Self {
        let cols = table.cols();
        let mut rounded = vec![0; 2 * cols * rows.len()];
        let mut squares = vec![0.0; rows.len()];
        let mut sketch = Vec::new();
        let mut values = vec![0.0f32; cols * ROWS_AT_ONCE];
        let groups = rows.clone().step_by(ROWS_AT_ONCE);
        let of_groups =
            rounded.chunks_mut((2 * cols * ROWS_AT_ONCE).max(1)).zip(squares.chunks_mut(ROWS_AT_ONCE));
        for (first, (rounded, squares)) in groups.zip(of_groups) {
            for (i, row) in values.chunks_exact_mut(cols.max(1)).take(squares.len()).enumerate() {
                table.read(first + i, 0..cols, row);
                if (first + i).is_multiple_of(step) {
                    // Alternating signs in pairs: a projection that no constant row hides from.
                    let signed = |(j, &v): (usize, &f32)| if (j / 2) % 2 == 0 { v } else { -v };
                    sketch.push(row.iter().enumerate().map(signed).sum());
                }
            }
            let values = &values[..cols * squares.len()];
            Weights::bf16_bytes(values, rounded);
            squares.copy_from_slice(&sums_of_squares(values, cols)[..squares.len()]);
        }
        Self { rounded, squares, sketch }
    }
}

/// The sum of the squares of each row of up to [`ROWS_AT_ONCE`], in the order of its numbers. Each sum waits for its last
/// addition, so those of several rows are computed in turn.
fn sums_of_squares(values: &[f32], cols: usize) -> [f64; ROWS_AT_ONCE] {
    let mut sums = [0.0; ROWS_AT_ONCE];
    if values.len() < cols * ROWS_AT_ONCE {
        for (sum, row) in sums.iter_mut().zip(values.chunks_exact(cols.max(1))) {
            *sum = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        }
        return sums;
    }
    let rows: [&[f32]; ROWS_AT_ONCE] = std::array::from_fn(|i| &values[i * cols..(i + 1) * cols]);
    for j in 0..cols {
        for (sum, row) in sums.iter_mut().zip(rows) {
            *sum += f64::from(row[j]) * f64::from(row[j]);
        }
    }
    sums
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
    pub(crate) fn of(
        name: &str,
        ignored_config_keys: &[String],
        spec: &Spec,
        table: &Weights,
    ) -> (Self, f64) {
        let mut hash = Sha256::new();
        let step = table.rows().div_ceil(SKETCH_ROWS).max(1);
        let mut sketch = Vec::with_capacity(SKETCH_ROWS);
        let mut squares = 0.0;
        let n_rows = (PART / table.cols().max(1)).next_multiple_of(ROWS_AT_ONCE).max(ROWS_AT_ONCE);
        let mut parts =
            (0..table.rows()).step_by(n_rows).map(|first| first..(first + n_rows).min(table.rows()));
        let read = |rows: Option<Range<usize>>| rows.map(|rows| Part::read(table, rows, step));
        let mut part = read(parts.next());
        // The digest goes through the table in order; meanwhile the next part is read.
        while let Some(Part { rounded, squares: of_rows, sketch: of_part }) = part {
            let next = parts.next();
            let ((), read) = rayon::join(|| hash.update(&rounded), || read(next));
            squares = of_rows.into_iter().fold(squares, |sum, squares| sum + squares);
            sketch.extend(of_part);
            part = read;
        }
        let identity = Self {
            name: name.to_owned(),
            spec: spec.canonical(),
            ignored_config_keys: ignored_config_keys.to_vec(),
            dtype: table.dtype().name().to_owned(),
            digest: digest::hex(hash),
            sketch,
        };
        (identity, (squares / (table.rows() * table.cols()) as f64).sqrt())
    }

    /// How `self`, a loaded model, relates to `recorded`, the model a soft prompt was trained for.
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
        // Two roundings are independent of each other.
        let most = if here.min(there) < 0.01 { here.max(there) } else { here.hypot(there) };
        let close = self.sketch.len() == recorded.sketch.len()
            && apart <= most * norm(&mut self.sketch.iter().copied());
        // A block format has several encodings of the same table: the writer chooses the scales.
        let may_differ = self.dtype != recorded.dtype || most > 0.01;
        if close && may_differ { Match::OtherFormat } else { Match::OtherWeights }
    }
}
