//! Products in bf16: both sides rounded to nearest even, terms in pairs, sums in single precision.
//!
//! A unit is the two numbers of neighbouring terms, the earlier one in the lower half; where a product has an odd number of
//! terms, its last one is paired with zero. That is what `vdpbf16ps` multiplies. Processors without it compute the same with
//! two multiply-adds, so that all of this but the instruction itself, in [`block_native`] and in [`super::eight`], runs on
//! every machine. By its definition the instruction is the same two multiply-adds, the later terms first, each rounded to
//! nearest even, but with denormal numbers taken for zero and made zero: the same bits wherever all numbers are normal, as an
//! emulator confirms. The tests ask processors for a bound only, and code paths may differ in the last bits of a sum.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::eight::{EightLanes, SIDE, Single};
use super::{Block, FrozenMatrix, KC, Left, Side};
use crate::cpu::code_path::CodePath;
use crate::cpu::lanes::{PORTABLE_FMA, fma, per_path};
use crate::weights::{Dtype, Weights};

/// The number nearest to `value` that bf16 can hold.
pub(in crate::cpu) fn rounded(value: f32) -> f32 {
    f32::from_bits(u32::from(Weights::bf16_bits(value)) << 16)
}

/// The bits of both, rounded: `low` is the earlier term.
#[inline(always)]
fn pair(low: f32, high: f32) -> u32 {
    // Rounds to nearest even. What is no number keeps its upper bits and one more, so that it stays none.
    let round = |value: f32| {
        let bits = value.to_bits();
        let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        let none = bits & 0x7fff_ffff > 0x7f80_0000;
        (if none { bits | 0x0040_0000 } else { up }) >> 16
    };
    round(low) | round(high) << 16
}

per_path!(fn pair_rows = pair_rows_of(
    from: &[f32], stride: usize, n_terms: usize, layout: Layout, to: &mut [MaybeUninit<u32>]
));

/// Writes a group of rows of `n_terms` numbers in units: whole pieces, with zeros after the terms and for rows that are missing.
#[inline(always)]
fn pair_rows_of<const FMA: bool>(
    from: &[f32],
    stride: usize,
    n_terms: usize,
    layout: Layout,
    to: &mut [MaybeUninit<u32>],
) {
    for (j, pieces) in to.chunks_exact_mut(layout.rows * layout.piece).enumerate() {
        let mut rows = from.chunks(stride);
        for to in pieces.chunks_exact_mut(layout.piece) {
            let row = rows.next().map_or(&[][..], |row| &row[..n_terms]);
            let terms = row.get(2 * layout.piece * j..).unwrap_or_default();
            let (whole, last) = terms[..terms.len().min(2 * layout.piece)].as_chunks::<2>();
            let (units, rest) = to.split_at_mut(whole.len());
            for (to, &[low, high]) in units.iter_mut().zip(whole) {
                to.write(pair(low, high));
            }
            rest.fill(MaybeUninit::new(0));
            if let (Some(to), &[last]) = (rest.first_mut(), last) {
                to.write(pair(last, 0.0));
            }
        }
    }
}

/// How a left-hand side lies in memory: in groups of rows, and each group in pieces of its rows' units, row by row.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) rows: usize,
    pub(super) piece: usize,
}

/// The left-hand side of `n_rows` rows of `n_terms` in units, each the bits of a pair: `n_units` a row, with zeros at the end, and
/// whole groups of rows.
pub(super) fn left(
    path: CodePath,
    left: Left<'_>,
    n_rows: usize,
    n_terms: usize,
    n_units: usize,
    layout: Layout,
) -> Vec<f32> {
    assert!(left.values.len() >= n_rows * left.stride && n_terms <= left.stride, "left-hand side too small");
    assert!(n_units.is_multiple_of(layout.piece) && 2 * n_units >= n_terms, "units out of shape");
    let n = n_rows.next_multiple_of(layout.rows) * n_units;
    let mut units: Vec<f32> = Vec::with_capacity(n);
    let values = &left.values[..n_rows * left.stride];
    if n > 0 {
        let groups = units.spare_capacity_mut()[..n].par_chunks_exact_mut(layout.rows * n_units);
        let groups = groups.zip(values.par_chunks(layout.rows * left.stride));
        groups.with_min_len(16usize.div_ceil(layout.rows)).for_each(|(to, from)| {
            // SAFETY: a unit has the size and alignment of a number, and neither has to be there yet.
            let (_, to, _) = unsafe { to.align_to_mut::<MaybeUninit<u32>>() };
            pair_rows(path, from, left.stride, n_terms, layout, to);
        });
    }
    // SAFETY: all groups were written.
    unsafe { units.set_len(n) };
    units
}

/// The numbers `range` of a line in bf16: as stored, or rounded.
fn line(matrix: &FrozenMatrix, line: usize, range: Range<usize>) -> Cow<'_, [u16]> {
    let (dtype, bytes) = matrix.line(line);
    if dtype == Dtype::Bf16 {
        return Cow::Borrowed(&bytemuck::cast_slice(bytes)[range]);
    }
    let mut wide = vec![0.0; range.len()];
    matrix.read_line(line, range, &mut wide);
    Cow::Owned(wide.into_iter().map(Weights::bf16_bits).collect())
}

/// Packs a panel: tiles `[units, width]`, one after another, of the columns `cols`; missing columns are zero, and so are units
/// beyond the terms.
pub(super) fn fill(
    path: CodePath,
    side: Side<'_>,
    cols: Range<usize>,
    terms: Range<usize>,
    width: usize,
    panel: &mut [f32],
) {
    let panel: &mut [u32] = bytemuck::cast_slice_mut(panel);
    let tile_size = panel.len() / cols.len().div_ceil(width);
    let used = terms.len().div_ceil(2) * width;
    for tile in panel.chunks_exact_mut(tile_size) {
        tile[used..].fill(0);
    }
    match side {
        Side::Terms(matrix) => straight(path, matrix, cols, terms, (tile_size, width), panel),
        Side::Columns(matrix) => {
            let starts = cols.clone().step_by(width);
            for (start, tile) in starts.zip(panel.chunks_exact_mut(tile_size)) {
                let cols = start..(start + width).min(cols.end);
                if cols.len() < width {
                    tile.fill(0);
                }
                turned(path, matrix, cols, terms.clone(), width, tile);
            }
        }
    }
}

/// Lines between the one that is read and the one that is asked for.
const AHEAD: usize = 8;

per_path!(fn beside = beside_of(low: &[u16], high: &[u16], tile_size: usize, width: usize, panel: &mut [u32]));

/// Writes units of neighbours to the first row of every tile of a panel; what they leave of the last one becomes zero.
#[inline(always)]
fn beside_of<const FMA: bool>(low: &[u16], high: &[u16], tile_size: usize, width: usize, panel: &mut [u32]) {
    let lines = low.chunks(width).zip(high.chunks(width));
    for (tile, (low, high)) in panel.chunks_mut(tile_size).zip(lines) {
        let (to, missing) = tile[..width].split_at_mut(low.len());
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

/// Two lines beside each other are the units of a panel's row.
fn straight(
    path: CodePath,
    matrix: &FrozenMatrix,
    cols: Range<usize>,
    terms: Range<usize>,
    (tile_size, width): (usize, usize),
    panel: &mut [u32],
) {
    for unit in 0..terms.len().div_ceil(2) {
        if matrix.dtype() == Some(Dtype::Bf16) {
            let ahead = terms.start + 2 * unit + AHEAD;
            for ahead in ahead..(ahead + 2).min(matrix.n_lines()) {
                super::fill::fetch(bytemuck::cast_slice(&line(matrix, ahead, cols.clone())));
            }
        }
        let low = line(matrix, terms.start + 2 * unit, cols.clone());
        let high = terms.start + 2 * unit + 1;
        let high =
            if high < terms.end { line(matrix, high, cols.clone()) } else { vec![0; low.len()].into() };
        beside(path, &low, &high, tile_size, width, &mut panel[unit * width..]);
    }
}

/// Neighbours in a line are the units of a tile's column.
fn turned(
    path: CodePath,
    matrix: &FrozenMatrix,
    cols: Range<usize>,
    terms: Range<usize>,
    width: usize,
    tile: &mut [u32],
) {
    assert!(terms.len() <= KC && cols.len() <= width, "tile out of shape");
    let mut done = 0;
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if let Some(lanes) = EightLanes::of(path) {
        while done + SIDE <= cols.len() {
            let lines: [Cow<'_, [u16]>; SIDE] =
                std::array::from_fn(|i| line(matrix, cols.start + done + i, terms.clone()));
            // A unit moves as a number of its size.
            let bytes = lines.each_ref().map(|line| bytemuck::cast_slice(line));
            let tile: &mut [f32] = bytemuck::cast_slice_mut(&mut tile[done..]);
            super::fill::squares::<Single>(lanes, &bytes, 0..terms.len() / 2, width, tile);
            if terms.len() % 2 == 1 {
                let last = terms.len() / 2 * width;
                for (to, line) in tile[last..].iter_mut().zip(&lines) {
                    *to = f32::from_bits(line.last().copied().map_or(0, u32::from));
                }
            }
            done += SIDE;
        }
    }
    let _ = path;
    for (j, col) in cols.enumerate().skip(done) {
        let line = line(matrix, col, terms.clone());
        for (to, pair) in tile[j..].iter_mut().step_by(width).zip(line.chunks(2)) {
            *to = u32::from(pair[0]) | pair.get(1).map_or(0, |&high| u32::from(high) << 16);
        }
    }
}

/// Columns of a native tile, and rows of its register block: with them the accumulators fill the registers.
pub(super) const NATIVE_WIDTH: usize = 64;
pub(super) const NATIVE_HEIGHT: usize = 6;

/// The register block, for units: `c[MR, 64] = from[MR, 64] + a[MR, k] b[k, 64]`.
///
/// # Safety
/// As for `super::block`; the processor multiplies pairs by itself.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn block_native<const MR: usize>(block: Block) {
    use std::arch::x86_64::{
        __m512, __m512bh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };
    let Block { k, a, lda, b, from, ldf, c, ldc } = block;
    // SAFETY: the caller of `block` promises that all of these lie within their matrices; a unit moves as a number of its size.
    unsafe {
        let units = |numbers: __m512| std::mem::transmute::<__m512, __m512bh>(numbers);
        let mut sums = [[_mm512_set1_ps(0.0); 4]; MR];
        for (i, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(from.add(i * ldf + v * 16));
            }
        }
        for unit in 0..k {
            let mut right = [_mm512_set1_ps(0.0); 4];
            for (v, right) in right.iter_mut().enumerate() {
                *right = _mm512_loadu_ps(b.add(unit * NATIVE_WIDTH + v * 16));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(i * lda + unit));
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = _mm512_dpbf16_ps(*sum, units(a), units(right));
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

/// The later and the earlier number of a unit.
#[inline(always)]
pub(super) fn halves(unit: f32) -> (f32, f32) {
    let bits = unit.to_bits();
    (f32::from_bits(bits & 0xffff_0000), f32::from_bits(bits << 16))
}

/// a₁ b₁ + a₀ b₀ + c, the later terms first.
#[inline(always)]
pub(super) fn dot<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    let (a, b) = (halves(a), halves(b));
    fma::<FMA>(a.1, b.1, fma::<FMA>(a.0, b.0, c))
}

/// The same block without the instruction.
///
/// # Safety
/// As for `super::block`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn block_avx2<const MR: usize>(block: Block) {
    // SAFETY: the caller's promise.
    unsafe { block_of::<MR, 16, true>(block) }
}

/// The same block without the instruction.
///
/// # Safety
/// As for `super::block`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) unsafe fn block_avx512<const MR: usize>(block: Block) {
    // SAFETY: the caller's promise.
    unsafe { block_of::<MR, 32, true>(block) }
}

/// The same block without the instruction.
///
/// # Safety
/// As for `super::block`.
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn block_neon<const MR: usize>(block: Block) {
    // SAFETY: the caller's promise.
    unsafe { block_of::<MR, 16, true>(block) }
}

/// The same block without the instruction.
///
/// # Safety
/// As for `super::block`.
pub(super) unsafe fn block_portable<const MR: usize>(block: Block) {
    // SAFETY: the caller's promise.
    unsafe { block_of::<MR, NATIVE_WIDTH, PORTABLE_FMA>(block) }
}

#[inline(always)]
unsafe fn block_of<const MR: usize, const NR: usize, const FMA: bool>(block: Block) {
    let Block { k, a, lda, b, from, ldf, c, ldc } = block;
    // SAFETY: the caller promises that all of these lie within their matrices.
    unsafe {
        let mut sums = [[0.0f32; NR]; MR];
        for (i, sums) in sums.iter_mut().enumerate() {
            *sums = *from.add(i * ldf).cast::<[f32; NR]>();
        }
        for unit in 0..k {
            let b = &*b.add(unit * NR).cast::<[f32; NR]>();
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = *a.add(i * lda + unit);
                for (sum, &b) in sums.iter_mut().zip(b) {
                    *sum = dot::<FMA>(a, b, *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            *c.add(i * ldc).cast::<[f32; NR]>() = *sums;
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::microkernel::{Arithmetic, Microkernel};
    use super::super::{Start, Target, parallel};
    use super::*;
    use crate::cpu::code_path::InstructionSet;
    use crate::rows::Rows;
    use bytes::Bytes;

    #[test]
    fn numbers_are_rounded_as_the_library_rounds() {
        let awkward =
            [0.0, -0.0, 1.0, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let patterns = (0..70_000u32).map(|i| f32::from_bits(i.wrapping_mul(61_681)));
        for value in awkward.into_iter().chain(patterns) {
            let bits = u32::from(bf16::from_f32(value).to_bits());
            assert_eq!(pair(value, 0.0), bits, "{value}");
            assert_eq!(pair(0.0, value), bits << 16, "{value}");
        }
    }

    /// Random numbers in ±1.
    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// Each number of a product is one chain of pairs of multiply-adds, or of a tile's sums, to the bit, whatever the means; the
    /// processor's own instruction for pairs may round otherwise. Tiles are imitated on every path but `amx`.
    #[test]
    fn every_microkernel_computes_the_same_chains() {
        let of =
            |path| [Arithmetic::Pairs, Arithmetic::Tiles].map(|arithmetic| Microkernel { path, arithmetic });
        let kernels: Vec<Microkernel> = CodePath::all_available().into_iter().flat_map(of).collect();
        for (out, input) in [(1, 1), (75, 203), (130, 67)] {
            let bytes = Bytes::from(Dtype::Bf16.encode(&numbers(out * input, 7)).unwrap());
            let weights = Weights::new(bytes, Dtype::Bf16, out, input).unwrap();
            let matrix = FrozenMatrix::new(CodePath::PORTABLE, vec![weights.clone()], |_| Dtype::Bf16);
            for n in [1, 3, 8, 19, 45] {
                let x = numbers(n * input, 8);
                let units = |numbers: &[f32]| -> Vec<f32> {
                    let pairs = numbers.chunks(2).map(|two| pair(two[0], two.get(1).copied().unwrap_or(0.0)));
                    pairs.map(f32::from_bits).collect()
                };
                let chain = |x: &[f32], line: &[f32], fused: bool| {
                    units(x).into_iter().zip(units(line)).fold(0.0, |sum, (a, b)| {
                        if fused { dot::<true>(a, b, sum) } else { dot::<false>(a, b, sum) }
                    })
                };
                // Of 16 units the earlier and the later terms apart, then both.
                let tiles = |x: &[f32], line: &[f32]| {
                    units(x).chunks(16).zip(units(line).chunks(16)).fold(0.0f32, |sum, (x, line)| {
                        let apart = x.iter().zip(line).fold([0.0f32; 2], |[earlier, later], (&x, &line)| {
                            let (x, line) = (halves(x), halves(line));
                            [earlier + x.1 * line.1, later + x.0 * line.0]
                        });
                        sum + (apart[0] + apart[1])
                    })
                };
                let products = |chain: &dyn Fn(&[f32], &[f32]) -> f32| -> Vec<f32> {
                    let lines = weights.to_f32();
                    let row = |x| lines.chunks(input).map(move |line| chain(x, line)).collect::<Vec<_>>();
                    x.chunks(input).flat_map(row).collect()
                };
                for &kernel in &kernels {
                    use InstructionSet::{Amx, Avx512Bf16, Portable};
                    let mut to = Rows::zeros(n, out);
                    let (left, target) =
                        (Left { values: &x, stride: input }, Target::of(to.values_mut(), out, 0));
                    parallel(kernel, left, input, matrix.outputs(), Start::Add, target);
                    let fused = PORTABLE_FMA || kernel.path.instruction_set() != Portable;
                    let expected = match kernel.arithmetic {
                        Arithmetic::Tiles => products(&tiles),
                        _ => products(&|x, line| chain(x, line, fused)),
                    };
                    let what = format!("{kernel:?} {out} {input} {n}");
                    if matches!(kernel.parts(), (Arithmetic::Pairs, Amx | Avx512Bf16)) {
                        let far = to.values().iter().zip(&expected).map(|(a, b)| (a - b).abs());
                        assert!(far.fold(0.0, f32::max) < 1e-6 * input as f32, "{what}");
                    } else {
                        assert_eq!(to.values(), expected, "{what}");
                    }
                }
            }
        }
    }

    /// Of numbers of all sizes: as far off as two roundings allow, where what is denormal may count as zero.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_instruction_adds_both_products() {
        if InstructionSet::Avx512Bf16.detect().is_none() {
            eprintln!("skipped: this processor has no AVX512-BF16");
            return;
        }
        let sizes = numbers(5 * 4000, 9);
        for (signs, sizes) in numbers(5 * 4000, 10).chunks(5).zip(sizes.chunks(5)) {
            // Near each other, so that the terms of a sum meet.
            let near = |i: usize| signs[i] * (sizes[i] * 4.0).exp2();
            let (a, b) = (f32::from_bits(pair(near(0), near(1))), f32::from_bits(pair(near(2), near(3))));
            for c in [near(4), near(4) * 1e-38, 0.0] {
                let (left, right) = (halves(a), halves(b));
                let terms = [(left.0, right.0), (left.1, right.1), (c, 1.0)]
                    .map(|(a, b)| f64::from(a) * f64::from(b));
                let (lines, mut sums) = ([b; NATIVE_WIDTH], [c; NATIVE_WIDTH]);
                let (to, ldc) = (sums.as_mut_ptr(), NATIVE_WIDTH);
                let (a, b) = (&raw const a, lines.as_ptr());
                let block = Block { k: 1, a, lda: 1, b, from: to, ldf: ldc, c: to, ldc };
                // SAFETY: a row of one unit, a row of the other side, and a row of the target; the processor has the instruction.
                unsafe { block_native::<1>(block) };
                let exact: f64 = terms.iter().sum();
                let bound = terms.iter().map(|term| term.abs()).sum::<f64>() * 1.2e-7 + 4e-38;
                for sum in sums {
                    assert!((f64::from(sum) - exact).abs() < bound, "{left:?} · {right:?} + {c:e}: {sum:e}");
                }
            }
        }
    }
}
