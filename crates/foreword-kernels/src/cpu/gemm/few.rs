//! Products of a few rows, as in generation: the frozen matrix is read once, straight from its stored format into registers
//! (blocks by way of a small buffer: [`unpacked`]).
//!
//! Lines of the matrix that are columns of the product are turned eight at a time in registers; lines that are its terms
//! are read a few at a time beside each other. Either way each number of the product is the same chain of multiply-adds
//! in the order of its terms as in a product of many rows, to the bit.

#![allow(unsafe_code)]

use std::ops::Range;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::amx;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::eight::Half;
use super::eight::{Brain, Lanes, Pair, Portable, SIDE, Single, Stored, Units};
use super::microkernel::{Arithmetic, Microkernel};
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::{FrozenMatrix, Left, NR_MAX, PANEL_FEW_ROWS, Side, Target, unpacked};
use crate::cpu::code_path::InstructionSet;
use crate::weights::Dtype;

/// Up to so many rows, this is faster than widening panels: reading the frozen matrix takes about as long as multiplying it.
pub(super) const MAX_ROWS: usize = 8;
/// Terms of a line that are read before another line's turn: a cache line in single precision.
const VISIT: usize = 16;
/// Bytes of a line that are asked for ahead of their use.
const AHEAD: usize = 512;
/// Units whose lines are read beside each other where lines are terms.
pub(super) const BESIDE: usize = 8;
/// The line after the last one of an odd number.
static ZEROS: [u8; 8 * NR_MAX * PANEL_FEW_ROWS] = [0; 8 * NR_MAX * PANEL_FEW_ROWS];

/// A part of a product on this thread: `to[N, cols] += left[N, terms] · side`, the left side in
/// units of the microkernel.
pub(super) struct Part<'a> {
    pub(super) left: Left<'a>,
    pub(super) side: Side<'a>,
    pub(super) terms: Range<usize>,
    pub(super) cols: Range<usize>,
}

/// Whether a product of so many rows is one of few, and there is code for the matrix's format.
pub(super) fn applies(kernel: Microkernel, side: Side<'_>, n_rows: usize) -> bool {
    n_rows <= MAX_ROWS
        && match kernel.parts() {
            (Arithmetic::Pairs, _) => side.matrix().dtype() == Some(Dtype::Bf16),
            (Arithmetic::Single, _) => true,
            // Lines that are terms would have to be brought into tiles first: that is what panels are.
            (Arithmetic::Tiles, InstructionSet::Amx) => {
                matches!(side, Side::Columns(matrix) if matrix.dtype() == Some(Dtype::Bf16))
            }
            (Arithmetic::Tiles, _) => false,
        }
}

/// Computes a part of a product to which this [applies].
pub(super) fn multiply(kernel: Microkernel, part: &Part<'_>, to: Target) {
    #[cfg(target_arch = "aarch64")]
    use InstructionSet::Neon as NeonSet;
    #[cfg(target_arch = "x86_64")]
    use InstructionSet::{Amx, Avx2, Avx512, Avx512Bf16};
    #[cfg(target_arch = "x86_64")]
    use std::arch::x86_64::__m256;
    let n_units = part.terms.len().div_ceil(kernel.unit_terms());
    assert!(
        (1..=MAX_ROWS).contains(&to.n_rows)
            && part.left.values.len() >= to.n_rows * part.left.stride
            && n_units <= part.left.stride,
        "few rows: shapes"
    );
    let (arithmetic, set) = kernel.parts();
    // SAFETY, for all calls: a code path exists only if this processor has its instructions; `Portable` lanes need none.
    match (arithmetic, set, part.side.matrix().dtype()) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        (Arithmetic::Tiles, Amx, _) => amx::few_rows(kernel.path, part, part.side.matrix(), to),
        (Arithmetic::Tiles, ..) => unreachable!("few rows of imitated tiles"),
        #[cfg(target_arch = "x86_64")]
        (Arithmetic::Pairs, Amx | Avx512Bf16, _) => unsafe { native(part, to) },
        #[cfg(target_arch = "x86_64")]
        (Arithmetic::Pairs, Avx512 | Avx2, _) => unsafe { avx2::<Units<__m256>, Pair>(part, to) },
        #[cfg(target_arch = "x86_64")]
        (Arithmetic::Single, Amx | Avx512Bf16 | Avx512 | Avx2, dtype) => unsafe {
            match dtype {
                Some(Dtype::F32) => avx2::<__m256, Single>(part, to),
                Some(Dtype::Bf16) => avx2::<__m256, Brain>(part, to),
                Some(Dtype::F16) => avx2::<__m256, Half>(part, to),
                _ => avx2_unpacked(part, to),
            }
        },
        #[cfg(target_arch = "aarch64")]
        (Arithmetic::Pairs, NeonSet, _) => unsafe { by_rows::<Units<Neon>, Pair>(part, to) },
        #[cfg(target_arch = "aarch64")]
        (Arithmetic::Single, NeonSet, dtype) => unsafe {
            match dtype {
                Some(Dtype::F32) => by_rows::<Neon, Single>(part, to),
                Some(Dtype::Bf16) => by_rows::<Neon, Brain>(part, to),
                Some(Dtype::F16) => by_rows::<Neon, Half>(part, to),
                _ => unpacked::by_rows::<Neon>(part, to),
            }
        },
        (Arithmetic::Pairs, ..) => unsafe { by_rows::<Units<Portable>, Pair>(part, to) },
        (Arithmetic::Single, _, Some(Dtype::F32)) => unsafe { by_rows::<Portable, Single>(part, to) },
        (Arithmetic::Single, _, Some(Dtype::Bf16)) => unsafe { by_rows::<Portable, Brain>(part, to) },
        (Arithmetic::Single, ..) => unsafe { unpacked::by_rows::<Portable>(part, to) },
    }
}

/// # Safety
/// `L` needs no other instructions.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<L: Lanes, S: Stored<L>>(part: &Part<'_>, to: Target) {
    // SAFETY: the instructions are enabled for this function; the caller's promise.
    unsafe { by_rows::<L, S>(part, to) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn avx2_unpacked(part: &Part<'_>, to: Target) {
    // SAFETY: the instructions are enabled for this function.
    unsafe { unpacked::by_rows::<std::arch::x86_64::__m256>(part, to) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512vl,avx512bf16")]
fn native(part: &Part<'_>, to: Target) {
    // SAFETY: the instructions are enabled for this function.
    unsafe { by_rows::<super::eight::Native, Pair>(part, to) }
}

/// With the registers that so many rows need: eight sums in lanes altogether.
///
/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn by_rows<L: Lanes, S: Stored<L>>(part: &Part<'_>, to: Target) {
    // SAFETY: the caller's promise.
    unsafe {
        match (part.side, to.n_rows) {
            (Side::Columns(matrix), 1) => columns::<L, S, 1, 4>(part, matrix, to),
            (Side::Columns(matrix), 2) => columns::<L, S, 2, 4>(part, matrix, to),
            (Side::Columns(matrix), 3..=4) => columns::<L, S, 4, 2>(part, matrix, to),
            (Side::Columns(matrix), _) => columns::<L, S, 8, 1>(part, matrix, to),
            (Side::Terms(matrix), 1) => terms::<L, S, 1, 4>(part, matrix, to),
            (Side::Terms(matrix), 2) => terms::<L, S, 2, 4>(part, matrix, to),
            (Side::Terms(matrix), 3..=4) => terms::<L, S, 4, 2>(part, matrix, to),
            (Side::Terms(matrix), _) => terms::<L, S, 8, 1>(part, matrix, to),
        }
    }
}

/// Places of row 0, 1, … of `n`, the last one as often as needed: computing a row twice changes nothing.
pub(super) fn rows<T, const N: usize>(n: usize, row: impl Fn(usize) -> T) -> [T; N] {
    std::array::from_fn(|i| row(i.min(n - 1)))
}

/// Lines are columns: `G` groups of eight at a time, then one group at a time.
///
/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn columns<L: Lanes, S: Stored<L>, const N: usize, const G: usize>(
    part: &Part<'_>,
    matrix: &FrozenMatrix,
    to: Target,
) {
    let mut start = part.cols.start;
    while start < part.cols.end {
        if part.cols.end - start >= G * SIDE {
            // SAFETY: the caller's promise.
            unsafe { group::<L, S, N, G>(part, matrix, start, to) };
            start += G * SIDE;
        } else {
            // SAFETY: the caller's promise.
            unsafe { group::<L, S, N, 1>(part, matrix, start, to) };
            start += SIDE;
        }
    }
}

/// Adds all terms to `G` · 8 columns from `start` on; columns beyond the part's are computed and dropped.
///
/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn group<L: Lanes, S: Stored<L>, const N: usize, const G: usize>(
    part: &Part<'_>,
    matrix: &FrozenMatrix,
    start: usize,
    to: Target,
) {
    let Part { left, terms, cols, .. } = part;
    let line = |j: usize| &matrix.line(j.min(cols.end - 1)).1[terms.start * S::STORED..terms.end * S::STORED];
    let lines: [[&[u8]; SIDE]; G] =
        std::array::from_fn(|g| std::array::from_fn(|i| line(start + g * SIDE + i)));
    let after: [[*const u8; SIDE]; G] =
        std::array::from_fn(|g| std::array::from_fn(|i| line(start + (G + g) * SIDE + i).as_ptr()));
    let n_cols = (cols.end - start).min(G * SIDE);
    let col = start - cols.start;
    let mut sums = [[[0.0f32; SIDE]; G]; N];
    // SAFETY: the rows of the target exist, and the columns of this part belong to this call alone; the rows of the left side
    // have all terms (asserted by `multiply`), and so have the lines (cut to them above).
    unsafe {
        let a: [*const f32; N] = rows(to.n_rows, |i| left.values.as_ptr().add(i * left.stride));
        let c: [*mut f32; N] = rows(to.n_rows, |i| to.first.add(i * to.stride + col));
        for (sums, c) in sums.iter_mut().zip(c) {
            c.copy_to_nonoverlapping(sums.as_mut_ptr().cast(), n_cols);
        }
        turned_lines::<L, S, N, G>(terms.len().div_ceil(S::TERMS), a, &lines, &after, &mut sums);
        for (sums, c) in sums.iter().zip(c) {
            c.copy_from_nonoverlapping(sums.as_ptr().cast(), n_cols);
        }
    }
}

/// `sums[i][g][l] += Σ a[i][t] · lines[g][l][t]`.
///
/// # Safety
/// Every row of `a` has `n` units, and so has every line but for the last term; the processor has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn turned_lines<L: Lanes, S: Stored<L>, const N: usize, const G: usize>(
    n: usize,
    a: [*const f32; N],
    lines: &[[&[u8]; SIDE]; G],
    after: &[[*const u8; SIDE]; G],
    sums: &mut [[[f32; SIDE]; G]; N],
) {
    let whole = lines[0][0].len() / S::SIZE / 4 * 4;
    // SAFETY: the caller's promise.
    unsafe {
        let mut lanes = [[L::load(sums[0][0].as_ptr()); G]; N];
        for i in 0..N {
            for g in 0..G {
                lanes[i][g] = L::load(sums[i][g].as_ptr());
            }
        }
        for visit in (0..whole).step_by(VISIT) {
            for g in 0..G {
                let ahead = visit * S::SIZE + AHEAD;
                for (line, after) in lines[g].iter().zip(after[g]) {
                    let beyond = ahead.wrapping_sub(line.len());
                    L::prefetch(if ahead < line.len() {
                        line.as_ptr().wrapping_add(ahead)
                    } else {
                        after.wrapping_add(beyond)
                    });
                }
                for t in (visit..(visit + VISIT).min(whole)).step_by(4) {
                    let at = |l: usize| lines[g][l].as_ptr().add(t * S::SIZE);
                    let numbers = L::turn([
                        S::fours(at(0), at(4)),
                        S::fours(at(1), at(5)),
                        S::fours(at(2), at(6)),
                        S::fours(at(3), at(7)),
                    ]);
                    if L::BY_LANE {
                        for i in 0..N {
                            lanes[i][g] = L::add_fours(a[i].add(t), numbers, lanes[i][g]);
                        }
                        continue;
                    }
                    for (j, number) in numbers.into_iter().enumerate() {
                        for i in 0..N {
                            lanes[i][g] = L::fma(L::splat(a[i].add(t + j)), number, lanes[i][g]);
                        }
                    }
                }
            }
        }
        for i in 0..N {
            for g in 0..G {
                lanes[i][g].store(sums[i][g].as_mut_ptr());
            }
        }
        for t in whole..n {
            for (sums, a) in sums.iter_mut().zip(a) {
                for (sum, line) in sums.as_flattened_mut().iter_mut().zip(lines.as_flattened()) {
                    *sum = L::fma_one(*a.add(t), S::one(&line[t * S::SIZE..]), *sum);
                }
            }
        }
    }
}

/// Lines are terms: a few at a time, along all columns.
///
/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn terms<L: Lanes, S: Stored<L>, const N: usize, const G: usize>(
    part: &Part<'_>,
    matrix: &FrozenMatrix,
    to: Target,
) {
    let Part { left, terms, cols, .. } = part;
    assert!(cols.len() * S::STORED <= ZEROS.len(), "a wide part");
    let line = |term: usize| {
        let line = &matrix.line(term.min(terms.end - 1)).1[cols.start * S::STORED..cols.end * S::STORED];
        if term < terms.end { line } else { &ZEROS[..line.len()] }
    };
    for term in terms.clone().step_by(BESIDE * S::TERMS) {
        let n = BESIDE.min((terms.end - term).div_ceil(S::TERMS));
        let lines: [[&[u8]; 2]; BESIDE] =
            std::array::from_fn(|t| [0, S::TERMS - 1].map(|second| line(term + S::TERMS * t + second)));
        let after: [[*const u8; 2]; BESIDE] = std::array::from_fn(|t| {
            [0, S::TERMS - 1].map(|second| line(term + S::TERMS * (BESIDE + t) + second).as_ptr())
        });
        let unit = (term - terms.start) / S::TERMS;
        // SAFETY: the rows of the target exist, and the columns of this part belong to this call alone; the rows of the left
        // side have all units (asserted by `multiply`), and the lines all columns (cut to them above).
        unsafe {
            let a: [*const f32; N] = rows(to.n_rows, |i| left.values.as_ptr().add(i * left.stride + unit));
            let c: [*mut f32; N] = rows(to.n_rows, |i| to.first.add(i * to.stride));
            straight_lines::<L, S, N, G>(cols.len(), a, &lines[..n], &after, c);
        }
    }
}

/// `c[i][j] += Σ a[i][t] · lines[t][j]`.
///
/// # Safety
/// Every row of `a` has as many terms as there are lines; every line and every row of `c`, which may be the same row several
/// times, has `n` numbers; the processor has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn straight_lines<L: Lanes, S: Stored<L>, const N: usize, const G: usize>(
    n: usize,
    a: [*const f32; N],
    lines: &[[&[u8]; 2]],
    after: &[[*const u8; 2]; BESIDE],
    c: [*mut f32; N],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let wide = n - n % (G * SIDE);
        for j in (0..wide).step_by(G * SIDE) {
            for after in &after[..lines.len()] {
                for after in &after[..S::TERMS] {
                    for ahead in (0..G * SIDE * S::STORED).step_by(64) {
                        L::prefetch(after.wrapping_add(j * S::STORED + ahead));
                    }
                }
            }
            straight_group::<L, S, N, G>(j, a, lines, c);
        }
        let whole = n - n % SIDE;
        for j in (wide..whole).step_by(SIDE) {
            straight_group::<L, S, N, 1>(j, a, lines, c);
        }
        for j in whole..n {
            let mut sums = c.map(|c| *c.add(j));
            for (t, line) in lines.iter().enumerate() {
                let number = S::beside(&line[0][j * S::STORED..], &line[1][j * S::STORED..]);
                for (sum, a) in sums.iter_mut().zip(a) {
                    *sum = L::fma_one(*a.add(t), number, *sum);
                }
            }
            for (sum, c) in sums.into_iter().zip(c) {
                *c.add(j) = sum;
            }
        }
    }
}

/// The same for `G` · 8 columns from `j` on.
///
/// # Safety
/// As above.
#[inline(always)]
unsafe fn straight_group<L: Lanes, S: Stored<L>, const N: usize, const G: usize>(
    j: usize,
    a: [*const f32; N],
    lines: &[[&[u8]; 2]],
    c: [*mut f32; N],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = c.map(|c| {
            let mut sums = [L::load(c.add(j)); G];
            for (g, sum) in sums.iter_mut().enumerate() {
                *sum = L::load(c.add(j + g * SIDE));
            }
            sums
        });
        for (t, line) in lines.iter().enumerate() {
            let at = |g: usize| line.map(|line| line.as_ptr().add((j + g * SIDE) * S::STORED));
            let mut numbers = [S::eight(at(0)[0], at(0)[1]); G];
            for (g, number) in numbers.iter_mut().enumerate() {
                *number = S::eight(at(g)[0], at(g)[1]);
            }
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = L::splat(a.add(t));
                for (sum, number) in sums.iter_mut().zip(numbers) {
                    *sum = L::fma(a, number, *sum);
                }
            }
        }
        for (sums, c) in sums.into_iter().zip(c) {
            for (g, sum) in sums.into_iter().enumerate() {
                sum.store(c.add(j + g * SIDE));
            }
        }
    }
}
