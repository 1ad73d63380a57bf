//! What the parts of a product share: block sizes, operands, and where the result goes.
//!
//! A product is `C[m, n] = init + A[m, k] · B[k, n]`, with activations on the left and a frozen matrix on the right. Its
//! operands are *packed elements* of 32 bits: one number in single precision, or a pair of bf16 numbers of neighbouring k.

use std::ops::Range;

use super::matrix::Rhs;

/// Single-precision numbers of a cache line.
pub(super) const CACHE_LINE: usize = 16;
/// Depth of a packed panel: it takes 128 KiB (256 KiB with 32 columns), a share of the second-level cache.
pub(super) const KC: usize = 512;
/// Columns of the widest tile in single precision. In bf16 there may be twice as many, with half as many packed elements.
pub(super) const NR_MAX: usize = 32;
/// Rows of the largest register block.
pub(super) const MR_MAX: usize = 32;
/// Up to this many rows, reading the frozen matrix takes about as long as multiplying it.
pub(super) const SMALL_M: usize = 8;
/// Tiles of the widest part of a product of few rows.
pub(super) const SMALL_M_TILES: usize = 64;

/// The left-hand side: rows of `stride` numbers.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Lhs<'a> {
    pub(in crate::cpu) values: &'a [f32],
    pub(in crate::cpu) stride: usize,
}

/// Where rows and k of a packed left-hand side lie: groups of `rows` rows, each cut into pieces of `depth` packed
/// elements a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct LhsLayout {
    pub(super) rows: usize,
    pub(super) depth: usize,
}

/// What the sums of a product start from.
#[derive(Clone, Copy)]
pub(in crate::cpu) enum Init<'a> {
    /// The output's values.
    Accumulate,
    /// Zero.
    Zero,
    /// The same row for all output rows.
    Row(&'a [f32]),
}

impl Init<'_> {
    /// The part for some of the columns.
    pub(super) fn columns(self, cols: Range<usize>) -> Self {
        match self {
            Self::Row(row) => Self::Row(&row[cols]),
            other => other,
        }
    }

    /// Writes it to the first `n_cols` columns of an output.
    #[allow(unsafe_code)]
    pub(super) fn write(self, n_cols: usize, output: Output) {
        for row in 0..output.n_rows {
            // SAFETY: each row of an output has all columns of a part of it, and these belong to one thread.
            unsafe {
                let first = output.first.add(row * output.stride);
                match self {
                    Self::Accumulate => return,
                    Self::Zero => first.write_bytes(0, n_cols),
                    Self::Row(row) => first.copy_from_nonoverlapping(row[..n_cols].as_ptr(), n_cols),
                }
            }
        }
    }
}

/// A view of output rows, from some column on.
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub(super) first: *mut f32,
    pub(super) stride: usize,
    pub(super) n_rows: usize,
}

impl Output {
    pub(super) fn of(values: &mut [f32], stride: usize, col: usize) -> Self {
        assert!(values.len().is_multiple_of(stride) && col < stride, "output out of shape");
        Self { n_rows: values.len() / stride, first: values.as_mut_ptr(), stride }.offset(col)
    }

    pub(super) fn rows(self, rows: Range<usize>) -> Self {
        assert!(rows.end <= self.n_rows, "rows beyond an output");
        Self { first: self.first.wrapping_add(rows.start * self.stride), n_rows: rows.len(), ..self }
    }

    pub(super) fn offset(self, col: usize) -> Self {
        Self { first: self.first.wrapping_add(col), ..self }
    }
}

/// One register block: `c[MR, NR] = init[MR, NR] + a[MR, k] b[k, NR]`, where `init` may be `c`.
#[derive(Clone, Copy)]
pub(super) struct RegisterBlock {
    pub(super) k: usize,
    pub(super) a: *const f32,
    pub(super) lda: usize,
    pub(super) b: *const f32,
    pub(super) init: *const f32,
    /// 0 if all rows start from the same row.
    pub(super) ldi: usize,
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
}

/// A part of a product of few rows: `output[m, cols] += lhs[m, k] · rhs`, with a packed left-hand side.
pub(super) struct SmallProduct<'a> {
    pub(super) lhs: Lhs<'a>,
    pub(super) rhs: Rhs<'a>,
    pub(super) k: Range<usize>,
    pub(super) cols: Range<usize>,
}
