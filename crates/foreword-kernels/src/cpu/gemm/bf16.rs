//! Products in bf16: both operands rounded to nearest even, in pairs of neighbouring k, with sums in single precision.
//!
//! Pairs are what `vdpbf16ps` multiplies. A row with an odd k is padded with a zero. Processors without the instruction
//! compute the same with two multiply-adds, so that everything but the instruction itself, here and in [`super::x86`], runs
//! on every machine. By definition the instruction is the same two multiply-adds, the later k first, each rounded to nearest
//! even, but it takes denormal numbers for zero and returns none: the same bits wherever all numbers are normal, as an
//! emulator confirms. The tests hold processors to a bound only, and code paths may differ in the last bits of a sum.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::f32::generic_microkernel;
use super::matrix::{FrozenMatrix, Rhs};
use super::pair;
use super::prefetch::prefetch;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::simd8::{F32, WIDTH};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::transpose::Transposer;
use super::types::{KC, Lhs, LhsLayout, RegisterBlock};
use crate::cpu::code_path::CodePath;
use crate::cpu::lanes::{PORTABLE_FMA, per_path};
use crate::dtype::Dtype;
use crate::weights::Weights;

/// The number nearest to `value` that bf16 can hold.
pub(in crate::cpu) fn round(value: f32) -> f32 {
    f32::from_bits(u32::from(Weights::bf16_bits(value)) << 16)
}

/// The left-hand side of `n_rows` rows of `k` numbers, packed in pairs: `packed_k` a row, with zeros at the end, and whole
/// groups of rows.
pub(super) fn pack_lhs(
    path: CodePath,
    lhs: Lhs<'_>,
    n_rows: usize,
    k: usize,
    packed_k: usize,
    layout: LhsLayout,
) -> Vec<f32> {
    assert!(lhs.values.len() >= n_rows * lhs.stride && k <= lhs.stride, "left-hand side too small");
    assert!(packed_k.is_multiple_of(layout.depth) && 2 * packed_k >= k, "packed row out of shape");
    let n = n_rows.next_multiple_of(layout.rows) * packed_k;
    let mut packed: Vec<f32> = Vec::with_capacity(n);
    let values = &lhs.values[..n_rows * lhs.stride];
    if n > 0 {
        let groups = packed.spare_capacity_mut()[..n].par_chunks_exact_mut(layout.rows * packed_k);
        let groups = groups.zip(values.par_chunks(layout.rows * lhs.stride));
        groups.with_min_len(16usize.div_ceil(layout.rows)).for_each(|(to, from)| {
            // SAFETY: a pair has the size and alignment of a number, and neither has to be initialised.
            let (_, to, _) = unsafe { to.align_to_mut::<MaybeUninit<u32>>() };
            pack_lhs_rows(path, from, lhs.stride, k, layout, to);
        });
    }
    // SAFETY: all groups were written.
    unsafe { packed.set_len(n) };
    packed
}

per_path!(fn pack_lhs_rows = pack_lhs_rows_of(
    from: &[f32], stride: usize, k: usize, layout: LhsLayout, to: &mut [MaybeUninit<u32>]
));

/// Packs a group of rows: whole pieces, with zeros beyond k and for missing rows.
#[inline(always)]
fn pack_lhs_rows_of<const FMA: bool>(
    from: &[f32],
    stride: usize,
    k: usize,
    layout: LhsLayout,
    to: &mut [MaybeUninit<u32>],
) {
    for (j, pieces) in to.chunks_exact_mut(layout.rows * layout.depth).enumerate() {
        let mut rows = from.chunks(stride);
        for to in pieces.chunks_exact_mut(layout.depth) {
            let row = rows.next().map_or(&[][..], |row| &row[..k]);
            let numbers = row.get(2 * layout.depth * j..).unwrap_or_default();
            let (whole, last) = numbers[..numbers.len().min(2 * layout.depth)].as_chunks::<2>();
            let (pairs, rest) = to.split_at_mut(whole.len());
            for (to, &[low, high]) in pairs.iter_mut().zip(whole) {
                to.write(pair::pack(low, high));
            }
            rest.fill(MaybeUninit::new(0));
            if let (Some(to), &[last]) = (rest.first_mut(), last) {
                to.write(pair::pack(last, 0.0));
            }
        }
    }
}

/// The numbers `range` of a stored row in bf16: as stored, or rounded.
fn read_bf16(matrix: &FrozenMatrix, row: usize, range: Range<usize>) -> Cow<'_, [u16]> {
    let (dtype, bytes) = matrix.stored_row(row);
    if dtype == Dtype::Bf16 {
        return Cow::Borrowed(&bytemuck::cast_slice(bytes)[range]);
    }
    let mut wide = vec![0.0; range.len()];
    matrix.read_stored_row(row, range, &mut wide);
    Cow::Owned(wide.into_iter().map(Weights::bf16_bits).collect())
}

/// Packs the columns `cols` of a frozen matrix, rows `k` of them, into tiles `[packed k, NR]`, one after another. Missing
/// columns are zero, and so are pairs beyond k.
pub(super) fn pack(
    path: CodePath,
    rhs: Rhs<'_>,
    cols: Range<usize>,
    k: Range<usize>,
    nr: usize,
    panel: &mut [f32],
) {
    let panel: &mut [u32] = bytemuck::cast_slice_mut(panel);
    let tile_size = panel.len() / cols.len().div_ceil(nr);
    let used = k.len().div_ceil(2) * nr;
    for tile in panel.chunks_exact_mut(tile_size) {
        tile[used..].fill(0);
    }
    match rhs {
        Rhs::Plain(matrix) => pack_plain(path, matrix, cols, k, (tile_size, nr), panel),
        Rhs::Transposed(matrix) => {
            let starts = cols.clone().step_by(nr);
            for (start, tile) in starts.zip(panel.chunks_exact_mut(tile_size)) {
                let cols = start..(start + nr).min(cols.end);
                if cols.len() < nr {
                    tile.fill(0);
                }
                pack_transposed(path, matrix, cols, k.clone(), nr, tile);
            }
        }
    }
}

/// Stored rows between the one that is read and the one that is prefetched.
const PREFETCH_DISTANCE: usize = 8;

per_path!(fn interleave = interleave_of(low: &[u16], high: &[u16], tile_size: usize, nr: usize, panel: &mut [u32]));

/// Writes the pairs of two rows to the first row of every tile. What is left of the last tile becomes zero.
#[inline(always)]
fn interleave_of<const FMA: bool>(low: &[u16], high: &[u16], tile_size: usize, nr: usize, panel: &mut [u32]) {
    let rows = low.chunks(nr).zip(high.chunks(nr));
    for (tile, (low, high)) in panel.chunks_mut(tile_size).zip(rows) {
        let (to, missing) = tile[..nr].split_at_mut(low.len());
        missing.fill(0);
        let (to, last) = to.as_chunks_mut::<16>();
        let ((low, last_low), (high, last_high)) = (low.as_chunks::<16>(), high.as_chunks::<16>());
        for ((to, low), high) in to.iter_mut().zip(low).zip(high) {
            *to = std::array::from_fn(|i| u32::from(low[i]) | u32::from(high[i]) << 16);
        }
        for ((to, &low), &high) in last.iter_mut().zip(last_low).zip(last_high) {
            *to = u32::from(low) | u32::from(high) << 16;
        }
    }
}

/// Packs a matrix whose stored rows hold one k each: two rows make the pairs of a tile's row.
fn pack_plain(
    path: CodePath,
    matrix: &FrozenMatrix,
    cols: Range<usize>,
    k: Range<usize>,
    (tile_size, nr): (usize, usize),
    panel: &mut [u32],
) {
    for p in 0..k.len().div_ceil(2) {
        if matrix.dtype() == Some(Dtype::Bf16) {
            let next = k.start + 2 * p + PREFETCH_DISTANCE;
            for next in next..(next + 2).min(matrix.stored_shape().0) {
                prefetch(bytemuck::cast_slice(&read_bf16(matrix, next, cols.clone())));
            }
        }
        let low = read_bf16(matrix, k.start + 2 * p, cols.clone());
        let high = k.start + 2 * p + 1;
        let high =
            if high < k.end { read_bf16(matrix, high, cols.clone()) } else { vec![0; low.len()].into() };
        interleave(path, &low, &high, tile_size, nr, &mut panel[p * nr..]);
    }
}

/// Packs a matrix whose stored rows are columns of the product: neighbours make the pairs of a tile's column.
fn pack_transposed(
    path: CodePath,
    matrix: &FrozenMatrix,
    cols: Range<usize>,
    k: Range<usize>,
    nr: usize,
    tile: &mut [u32],
) {
    assert!(k.len() <= KC && cols.len() <= nr, "tile out of shape");
    let mut done = 0;
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if let Some(transposer) = Transposer::of(path) {
        while done + WIDTH <= cols.len() {
            let rows: [Cow<'_, [u16]>; WIDTH] =
                std::array::from_fn(|i| read_bf16(matrix, cols.start + done + i, k.clone()));
            // A pair moves as a number of its size.
            let bytes = rows.each_ref().map(|row| bytemuck::cast_slice(row));
            let tile: &mut [f32] = bytemuck::cast_slice_mut(&mut tile[done..]);
            transposer.run::<F32>(&bytes, 0..k.len() / 2, nr, tile);
            if k.len() % 2 == 1 {
                let last = k.len() / 2 * nr;
                for (to, row) in tile[last..].iter_mut().zip(&rows) {
                    *to = f32::from_bits(row.last().copied().map_or(0, u32::from));
                }
            }
            done += WIDTH;
        }
    }
    let _ = path;
    for (j, col) in cols.enumerate().skip(done) {
        let row = read_bf16(matrix, col, k.clone());
        for (to, pair) in tile[j..].iter_mut().step_by(nr).zip(row.chunks(2)) {
            *to = u32::from(pair[0]) | pair.get(1).map_or(0, |&high| u32::from(high) << 16);
        }
    }
}

/// By the processor's own instruction: 6 × 64, with which the accumulators fill the registers.
///
/// # Safety
/// As for [`super::kernel::Kernel::run`]; the processor has AVX512-BF16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn avx512_bf16<const MR: usize>(block: RegisterBlock) {
    use std::arch::x86_64::{
        __m512, __m512bh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };
    let RegisterBlock { k, a, lda, b, init, ldi, c, ldc } = block;
    // SAFETY: the caller promises that all of these lie within their matrices; a pair moves as a number of its size.
    unsafe {
        let pairs = |numbers: __m512| std::mem::transmute::<__m512, __m512bh>(numbers);
        let mut sums = [[_mm512_set1_ps(0.0); 4]; MR];
        for (i, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(init.add(i * ldi + v * 16));
            }
        }
        for p in 0..k {
            let mut rhs = [_mm512_set1_ps(0.0); 4];
            for (v, rhs) in rhs.iter_mut().enumerate() {
                *rhs = _mm512_loadu_ps(b.add(p * 64 + v * 16));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(i * lda + p));
                for (sum, rhs) in sums.iter_mut().zip(rhs) {
                    *sum = _mm512_dpbf16_ps(*sum, pairs(a), pairs(rhs));
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                _mm512_storeu_ps(c.add(i * ldc + v * 16), sum);
            }
        }
    }
}

// Without the instruction.
generic_microkernel!(#[cfg(target_arch = "x86_64")] #[target_feature(enable = "avx2,fma")] avx2: 16, pair::dot::<true>);
generic_microkernel!(
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    avx512: 32, pair::dot::<true>
);
generic_microkernel!(#[cfg(target_arch = "aarch64")] neon: 16, pair::dot::<true>);
generic_microkernel!(portable: 64, pair::dot::<PORTABLE_FMA>);
