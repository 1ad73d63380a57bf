//! Products of a few rows with a matrix that is stored in blocks, or in several formats: pieces of a few lines are unpacked into
//! a buffer that stays in the first-level cache, and are multiplied from there as a matrix in single precision is.

#![allow(unsafe_code)]

use std::ops::Range;

use super::eight::{Lanes, SIDE, Single, Stored};
use super::few::{BESIDE, Part, rows, straight_lines, turned_lines};
use super::{FrozenMatrix, Side, Target};
use crate::blocks;
use crate::cpu::lanes::per_path;
use crate::weights::Dtype;

/// Numbers of a line that are unpacked at a time.
const PIECE: usize = 256;

per_path!(
    /// Writes the numbers `range` of a line of blocks.
    pub(super) fn read = read_of(dtype: Dtype, line: &[u8], range: Range<usize>, to: &mut [f32])
);

#[inline(always)]
fn read_of<const FMA: bool>(dtype: Dtype, line: &[u8], range: Range<usize>, to: &mut [f32]) {
    blocks::read(dtype, line, range, to);
}

/// As for other formats, but for the registers that lines are read into: they come from the buffer one group at a time.
///
/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn by_rows<L: Lanes>(part: &Part<'_>, to: Target)
where
    Single: Stored<L>,
{
    // SAFETY: the caller's promise.
    unsafe {
        match (part.side, to.n_rows) {
            (Side::Columns(matrix), 1) => columns::<L, 1>(part, matrix, to),
            (Side::Columns(matrix), 2) => columns::<L, 2>(part, matrix, to),
            (Side::Columns(matrix), 3..=4) => columns::<L, 4>(part, matrix, to),
            (Side::Columns(matrix), _) => columns::<L, 8>(part, matrix, to),
            (Side::Terms(matrix), 1) => terms::<L, 1, 4>(part, matrix, to),
            (Side::Terms(matrix), 2) => terms::<L, 2, 4>(part, matrix, to),
            (Side::Terms(matrix), 3..=4) => terms::<L, 4, 2>(part, matrix, to),
            (Side::Terms(matrix), _) => terms::<L, 8, 1>(part, matrix, to),
        }
    }
}

/// `range` in pieces.
fn pieces(range: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = range.end;
    range.clone().step_by(PIECE).map(move |start| start..(start + PIECE).min(end))
}

/// Lines are columns: eight at a time, along all terms. Columns beyond the part's are computed and dropped.
///
/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn columns<L: Lanes, const N: usize>(part: &Part<'_>, matrix: &FrozenMatrix, to: Target)
where
    Single: Stored<L>,
{
    let Part { left, terms, cols, .. } = part;
    let mut buffer = [[0.0f32; PIECE]; SIDE];
    for start in cols.clone().step_by(SIDE) {
        let n_cols = (cols.end - start).min(SIDE);
        let mut sums = [[[0.0f32; SIDE]; 1]; N];
        // SAFETY: the rows of the target exist, and the columns of this part belong to this call alone; the rows of the left
        // side have all terms (asserted by `few::multiply`), and the buffer has the piece of each line.
        unsafe {
            let c: [*mut f32; N] = rows(to.n_rows, |i| to.first.add(i * to.stride + (start - cols.start)));
            for (sums, c) in sums.iter_mut().zip(c) {
                c.copy_to_nonoverlapping(sums.as_mut_ptr().cast(), n_cols);
            }
            for piece in pieces(terms) {
                for (i, numbers) in buffer.iter_mut().enumerate() {
                    let line = (start + i).min(cols.end - 1);
                    matrix.read_line(line, piece.clone(), &mut numbers[..piece.len()]);
                }
                let lines: [&[u8]; SIDE] =
                    buffer.each_ref().map(|numbers| bytemuck::cast_slice(&numbers[..piece.len()]));
                let after = lines.map(<[u8]>::as_ptr);
                let a: [*const f32; N] = rows(to.n_rows, |i| {
                    left.values.as_ptr().add(i * left.stride + (piece.start - terms.start))
                });
                turned_lines::<L, Single, N, 1>(piece.len(), a, &[lines], &[after], &mut sums);
            }
            for (sums, c) in sums.iter().zip(c) {
                c.copy_from_nonoverlapping(sums.as_ptr().cast(), n_cols);
            }
        }
    }
}

/// Lines are terms: a few at a time, along all columns.
///
/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn terms<L: Lanes, const N: usize, const G: usize>(part: &Part<'_>, matrix: &FrozenMatrix, to: Target)
where
    Single: Stored<L>,
{
    let Part { left, terms, cols, .. } = part;
    let mut buffer = [[0.0f32; PIECE]; BESIDE];
    for term in terms.clone().step_by(BESIDE) {
        let n = BESIDE.min(terms.end - term);
        for piece in pieces(cols) {
            for (i, numbers) in buffer[..n].iter_mut().enumerate() {
                matrix.read_line(term + i, piece.clone(), &mut numbers[..piece.len()]);
            }
            let lines: [[&[u8]; 2]; BESIDE] =
                buffer.each_ref().map(|numbers| [bytemuck::cast_slice(&numbers[..piece.len()]); 2]);
            let after = lines.map(|line| line.map(<[u8]>::as_ptr));
            // SAFETY: the rows of the target exist, and the columns of this part belong to this call alone; the rows of the
            // left side have all terms (asserted by `few::multiply`), and the buffer has the piece of each line.
            unsafe {
                let a: [*const f32; N] =
                    rows(to.n_rows, |i| left.values.as_ptr().add(i * left.stride + (term - terms.start)));
                let c: [*mut f32; N] =
                    rows(to.n_rows, |i| to.first.add(i * to.stride + (piece.start - cols.start)));
                straight_lines::<L, Single, N, G>(piece.len(), a, &lines[..n], &after, c);
            }
        }
    }
}
