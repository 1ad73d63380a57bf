//! Products of few rows, as in generation: the frozen matrix is read once, straight from its stored format into registers,
//! so that a single row runs at the memory's rate.
//!
//! Stored rows that are columns of the product are transposed in registers, eight at a time; of those that hold one k each,
//! several are read together. Rows stored in blocks, or in several formats, are dequantised in chunks into a buffer that
//! stays in the first-level cache, and are multiplied from there. Either way each number of the product is the same chain of
//! multiply-adds, in the order of k, as in a product of many rows, to the bit.

#![allow(unsafe_code)]

use std::ops::Range;

use super::matrix::{FrozenMatrix, Rhs};
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::simd8::F16;
use super::simd8::{Bf16, Bf16Pair, EmulatedDot, F32, Load, Portable, Simd8, WIDTH};
use super::types::{NR_MAX, Output, SMALL_M_TILES, SmallProduct};
#[cfg(target_arch = "x86_64")]
use super::x86::NativeDot;
use crate::dtype::Dtype;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m256;

/// Elements of a column before the next columns' turn: a cache line in single precision.
const DEPTH: usize = 16;
/// Bytes between what is read of a stored row and what is prefetched.
const PREFETCH_DISTANCE: usize = 512;
/// Packed elements of k whose stored rows are read together.
const K_TOGETHER: usize = 8;
/// Numbers of a stored row that are dequantised at a time.
const CHUNK: usize = 256;
/// The row after the last one of an odd number.
static ZEROS: [u8; 8 * NR_MAX * SMALL_M_TILES] = [0; 8 * NR_MAX * SMALL_M_TILES];

/// # Safety
/// As for [`super::kernel::Kernel::run_small_m`]; the processor has AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn f32_avx2(product: &SmallProduct<'_>, output: Output) {
    // SAFETY: the caller's promise.
    unsafe {
        match product.rhs.matrix().dtype() {
            Some(Dtype::F32) => with_avx2::<__m256, F32>(product, output),
            Some(Dtype::Bf16) => with_avx2::<__m256, Bf16>(product, output),
            Some(Dtype::F16) => with_avx2::<__m256, F16>(product, output),
            _ => dequantized_with_avx2(product, output),
        }
    }
}

/// # Safety
/// As for [`super::kernel::Kernel::run_small_m`]; the processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn bf16_avx2(product: &SmallProduct<'_>, output: Output) {
    // SAFETY: the caller's promise.
    unsafe { with_avx2::<EmulatedDot<__m256>, Bf16Pair>(product, output) }
}

/// # Safety
/// As for [`super::kernel::Kernel::run_small_m`]; the processor has AVX512-BF16 and AVX512-VL.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512vl,avx512bf16")]
pub(super) unsafe fn bf16_avx512(product: &SmallProduct<'_>, output: Output) {
    // SAFETY: the caller's promise.
    unsafe { multiply::<NativeDot, Bf16Pair>(product, output) }
}

/// # Safety
/// As for [`multiply`], with AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn with_avx2<V: Simd8, S: Load<V>>(product: &SmallProduct<'_>, output: Output) {
    // SAFETY: the caller's promise.
    unsafe { multiply::<V, S>(product, output) }
}

/// # Safety
/// As for [`multiply_dequantized`], with AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dequantized_with_avx2(product: &SmallProduct<'_>, output: Output) {
    // SAFETY: the caller's promise.
    unsafe { multiply_dequantized::<__m256>(product, output) }
}

/// # Safety
/// As for [`super::kernel::Kernel::run_small_m`]; the processor has NEON.
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn f32_neon(product: &SmallProduct<'_>, output: Output) {
    // SAFETY: the caller's promise.
    unsafe {
        match product.rhs.matrix().dtype() {
            Some(Dtype::F32) => multiply::<Neon, F32>(product, output),
            Some(Dtype::Bf16) => multiply::<Neon, Bf16>(product, output),
            Some(Dtype::F16) => multiply::<Neon, F16>(product, output),
            _ => multiply_dequantized::<Neon>(product, output),
        }
    }
}

/// # Safety
/// As for [`super::kernel::Kernel::run_small_m`]; the processor has NEON.
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn bf16_neon(product: &SmallProduct<'_>, output: Output) {
    // SAFETY: the caller's promise.
    unsafe { multiply::<EmulatedDot<Neon>, Bf16Pair>(product, output) }
}

/// # Safety
/// As for [`super::kernel::Kernel::run_small_m`].
pub(super) unsafe fn f32_portable(product: &SmallProduct<'_>, output: Output) {
    // SAFETY: the caller's promise.
    unsafe {
        match product.rhs.matrix().dtype() {
            Some(Dtype::F32) => multiply::<Portable, F32>(product, output),
            Some(Dtype::Bf16) => multiply::<Portable, Bf16>(product, output),
            _ => multiply_dequantized::<Portable>(product, output),
        }
    }
}

/// # Safety
/// As for [`super::kernel::Kernel::run_small_m`].
pub(super) unsafe fn bf16_portable(product: &SmallProduct<'_>, output: Output) {
    // SAFETY: the caller's promise.
    unsafe { multiply::<EmulatedDot<Portable>, Bf16Pair>(product, output) }
}

/// Calls `$function::<$types, M, G>`, with as many rows `M` as the output has or more, and groups `G` of eight columns so
/// that there are eight vectors of sums.
macro_rules! by_rows {
    ($n_rows:expr, $function:ident::<$($type:ty),*>($($arg:expr),*)) => {
        match $n_rows {
            1 => $function::<$($type,)* 1, 4>($($arg),*),
            2 => $function::<$($type,)* 2, 4>($($arg),*),
            3..=4 => $function::<$($type,)* 4, 2>($($arg),*),
            _ => $function::<$($type,)* 8, 1>($($arg),*),
        }
    };
}

/// # Safety
/// As for [`super::kernel::Kernel::run_small_m`]; the processor has the instructions of `V`.
#[inline(always)]
unsafe fn multiply<V: Simd8, S: Load<V>>(product: &SmallProduct<'_>, output: Output) {
    // SAFETY: the caller's promise.
    unsafe {
        match product.rhs {
            Rhs::Transposed(matrix) => {
                by_rows!(output.n_rows, transposed::<V, S>(product, matrix, output));
            }
            Rhs::Plain(matrix) => by_rows!(output.n_rows, plain::<V, S>(product, matrix, output)),
        }
    }
}

/// [`multiply`] from a buffer that stored rows are dequantised into.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn multiply_dequantized<V: Simd8>(product: &SmallProduct<'_>, output: Output)
where
    F32: Load<V>,
{
    // SAFETY: the caller's promise.
    unsafe {
        match product.rhs {
            Rhs::Transposed(matrix) => {
                by_rows!(output.n_rows, transposed_dequantized::<V>(product, matrix, output));
            }
            Rhs::Plain(matrix) => {
                by_rows!(output.n_rows, plain_dequantized::<V>(product, matrix, output));
            }
        }
    }
}

/// Places of row 0, 1, … of `n`. The last one is repeated: computing a row twice changes nothing.
fn rows<T, const M: usize>(n: usize, row: impl Fn(usize) -> T) -> [T; M] {
    std::array::from_fn(|i| row(i.min(n - 1)))
}

/// Stored rows are columns: `G` groups of eight at a time, then one group at a time.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn transposed<V: Simd8, S: Load<V>, const M: usize, const G: usize>(
    product: &SmallProduct<'_>,
    matrix: &FrozenMatrix,
    output: Output,
) {
    let cols = &product.cols;
    let mut start = cols.start;
    while start < cols.end {
        if cols.end - start >= G * WIDTH {
            // SAFETY: the caller's promise.
            unsafe { column_groups::<V, S, M, G>(product, matrix, start, output) };
            start += G * WIDTH;
        } else {
            // SAFETY: the caller's promise.
            unsafe { column_groups::<V, S, M, 1>(product, matrix, start, output) };
            start += WIDTH;
        }
    }
}

/// Computes `G` · 8 columns from `start` on. Columns beyond the product's are computed and dropped.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn column_groups<V: Simd8, S: Load<V>, const M: usize, const G: usize>(
    product: &SmallProduct<'_>,
    matrix: &FrozenMatrix,
    start: usize,
    output: Output,
) {
    let SmallProduct { lhs, k, cols, .. } = product;
    let column = |j: usize| &matrix.stored_row(j.min(cols.end - 1)).1[k.start * S::BYTES..k.end * S::BYTES];
    let columns: [[&[u8]; WIDTH]; G] =
        std::array::from_fn(|g| std::array::from_fn(|i| column(start + g * WIDTH + i)));
    let next: [[*const u8; WIDTH]; G] =
        std::array::from_fn(|g| std::array::from_fn(|i| column(start + (G + g) * WIDTH + i).as_ptr()));
    let n_cols = (cols.end - start).min(G * WIDTH);
    let col = start - cols.start;
    let mut sums = [[[0.0f32; WIDTH]; G]; M];
    // SAFETY: the output has the rows, and the columns of this product belong to this call alone; the rows of the left-hand
    // side have all of k (asserted by `Kernel::run_small_m`), and so have the columns (sliced above).
    unsafe {
        let a: [*const f32; M] = rows(output.n_rows, |i| lhs.values.as_ptr().add(i * lhs.stride));
        let c: [*mut f32; M] = rows(output.n_rows, |i| output.first.add(i * output.stride + col));
        for (sums, c) in sums.iter_mut().zip(c) {
            c.copy_to_nonoverlapping(sums.as_mut_ptr().cast(), n_cols);
        }
        add_columns::<V, S, M, G>(k.len().div_ceil(S::K_PER_ELEMENT), a, &columns, &next, &mut sums);
        for (sums, c) in sums.iter().zip(c) {
            c.copy_from_nonoverlapping(sums.as_ptr().cast(), n_cols);
        }
    }
}

/// `sums[i][g][l] += Σ a[i][p] · columns[g][l][p]`. `next`: the columns that follow, to be prefetched.
///
/// # Safety
/// Every row of `a` has `n` elements, and so has every column except for the last number; the processor has the instructions
/// of `V`.
#[inline(always)]
unsafe fn add_columns<V: Simd8, S: Load<V>, const M: usize, const G: usize>(
    n: usize,
    a: [*const f32; M],
    columns: &[[&[u8]; WIDTH]; G],
    next: &[[*const u8; WIDTH]; G],
    sums: &mut [[[f32; WIDTH]; G]; M],
) {
    let whole = columns[0][0].len() / S::ELEMENT_BYTES / 4 * 4;
    // SAFETY: the caller's promise.
    unsafe {
        let mut lanes = [[V::load(sums[0][0].as_ptr()); G]; M];
        for i in 0..M {
            for g in 0..G {
                lanes[i][g] = V::load(sums[i][g].as_ptr());
            }
        }
        for start in (0..whole).step_by(DEPTH) {
            for g in 0..G {
                let ahead = start * S::ELEMENT_BYTES + PREFETCH_DISTANCE;
                for (column, next) in columns[g].iter().zip(next[g]) {
                    let beyond = ahead.wrapping_sub(column.len());
                    V::prefetch(if ahead < column.len() {
                        column.as_ptr().wrapping_add(ahead)
                    } else {
                        next.wrapping_add(beyond)
                    });
                }
                for p in (start..(start + DEPTH).min(whole)).step_by(4) {
                    let at = |l: usize| columns[g][l].as_ptr().add(p * S::ELEMENT_BYTES);
                    let elements = V::transpose4([
                        S::load4x2(at(0), at(4)),
                        S::load4x2(at(1), at(5)),
                        S::load4x2(at(2), at(6)),
                        S::load4x2(at(3), at(7)),
                    ]);
                    if V::FMA_BY_LANE {
                        for i in 0..M {
                            lanes[i][g] = V::fma_by_lane(a[i].add(p), elements, lanes[i][g]);
                        }
                        continue;
                    }
                    for (j, element) in elements.into_iter().enumerate() {
                        for i in 0..M {
                            lanes[i][g] = V::fma(V::splat(a[i].add(p + j)), element, lanes[i][g]);
                        }
                    }
                }
            }
        }
        for i in 0..M {
            for g in 0..G {
                lanes[i][g].store(sums[i][g].as_mut_ptr());
            }
        }
        for p in whole..n {
            for (sums, a) in sums.iter_mut().zip(a) {
                for (sum, column) in sums.as_flattened_mut().iter_mut().zip(columns.as_flattened()) {
                    *sum = V::fma_scalar(*a.add(p), S::scalar(&column[p * S::ELEMENT_BYTES..]), *sum);
                }
            }
        }
    }
}

/// Stored rows hold one k each: a few at a time, along all columns.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn plain<V: Simd8, S: Load<V>, const M: usize, const G: usize>(
    product: &SmallProduct<'_>,
    matrix: &FrozenMatrix,
    output: Output,
) {
    let SmallProduct { lhs, k, cols, .. } = product;
    assert!(cols.len() * S::BYTES <= ZEROS.len(), "too many columns");
    let row = |p: usize| {
        let row = &matrix.stored_row(p.min(k.end - 1)).1[cols.start * S::BYTES..cols.end * S::BYTES];
        if p < k.end { row } else { &ZEROS[..row.len()] }
    };
    for p in k.clone().step_by(K_TOGETHER * S::K_PER_ELEMENT) {
        let n = K_TOGETHER.min((k.end - p).div_ceil(S::K_PER_ELEMENT));
        let b: [[&[u8]; 2]; K_TOGETHER] = std::array::from_fn(|t| {
            [0, S::K_PER_ELEMENT - 1].map(|second| row(p + S::K_PER_ELEMENT * t + second))
        });
        let next: [[*const u8; 2]; K_TOGETHER] = std::array::from_fn(|t| {
            [0, S::K_PER_ELEMENT - 1]
                .map(|second| row(p + S::K_PER_ELEMENT * (K_TOGETHER + t) + second).as_ptr())
        });
        let first = (p - k.start) / S::K_PER_ELEMENT;
        // SAFETY: the output has the rows, and the columns of this product belong to this call alone; the rows of the
        // left-hand side have all elements (asserted by `Kernel::run_small_m`), and the stored rows all columns (sliced
        // above).
        unsafe {
            let a: [*const f32; M] = rows(output.n_rows, |i| lhs.values.as_ptr().add(i * lhs.stride + first));
            let c: [*mut f32; M] = rows(output.n_rows, |i| output.first.add(i * output.stride));
            add_rows::<V, S, M, G>(cols.len(), a, &b[..n], &next, c);
        }
    }
}

/// `c[i][j] += Σ a[i][p] · b[p][j]`. `next`: the rows that follow, to be prefetched.
///
/// # Safety
/// Every row of `a` has as many elements as `b` has rows; every row of `b` and of `c`, which may be the same row several
/// times, has `n` numbers; the processor has the instructions of `V`.
#[inline(always)]
unsafe fn add_rows<V: Simd8, S: Load<V>, const M: usize, const G: usize>(
    n: usize,
    a: [*const f32; M],
    b: &[[&[u8]; 2]],
    next: &[[*const u8; 2]; K_TOGETHER],
    c: [*mut f32; M],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let wide = n - n % (G * WIDTH);
        for j in (0..wide).step_by(G * WIDTH) {
            for next in &next[..b.len()] {
                for next in &next[..S::K_PER_ELEMENT] {
                    for line in (0..G * WIDTH * S::BYTES).step_by(64) {
                        V::prefetch(next.wrapping_add(j * S::BYTES + line));
                    }
                }
            }
            add_rows_at::<V, S, M, G>(j, a, b, c);
        }
        let whole = n - n % WIDTH;
        for j in (wide..whole).step_by(WIDTH) {
            add_rows_at::<V, S, M, 1>(j, a, b, c);
        }
        for j in whole..n {
            let mut sums = c.map(|c| *c.add(j));
            for (p, row) in b.iter().enumerate() {
                let element = S::scalar_pair(&row[0][j * S::BYTES..], &row[1][j * S::BYTES..]);
                for (sum, a) in sums.iter_mut().zip(a) {
                    *sum = V::fma_scalar(*a.add(p), element, *sum);
                }
            }
            for (sum, c) in sums.into_iter().zip(c) {
                *c.add(j) = sum;
            }
        }
    }
}

/// [`add_rows`] for `G` · 8 columns from `j` on.
///
/// # Safety
/// As for [`add_rows`].
#[inline(always)]
unsafe fn add_rows_at<V: Simd8, S: Load<V>, const M: usize, const G: usize>(
    j: usize,
    a: [*const f32; M],
    b: &[[&[u8]; 2]],
    c: [*mut f32; M],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = c.map(|c| {
            let mut sums = [V::load(c.add(j)); G];
            for (g, sum) in sums.iter_mut().enumerate() {
                *sum = V::load(c.add(j + g * WIDTH));
            }
            sums
        });
        for (p, row) in b.iter().enumerate() {
            let at = |g: usize| row.map(|row| row.as_ptr().add((j + g * WIDTH) * S::BYTES));
            let mut elements = [S::load8(at(0)[0], at(0)[1]); G];
            for (g, element) in elements.iter_mut().enumerate() {
                *element = S::load8(at(g)[0], at(g)[1]);
            }
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = V::splat(a.add(p));
                for (sum, element) in sums.iter_mut().zip(elements) {
                    *sum = V::fma(a, element, *sum);
                }
            }
        }
        for (sums, c) in sums.into_iter().zip(c) {
            for (g, sum) in sums.into_iter().enumerate() {
                sum.store(c.add(j + g * WIDTH));
            }
        }
    }
}

/// `range` in chunks that are dequantised at a time.
fn chunks(range: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = range.end;
    range.clone().step_by(CHUNK).map(move |start| start..(start + CHUNK).min(end))
}

/// [`transposed`], from a buffer: eight columns at a time, along all of k.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn transposed_dequantized<V: Simd8, const M: usize, const G: usize>(
    product: &SmallProduct<'_>,
    matrix: &FrozenMatrix,
    output: Output,
) where
    F32: Load<V>,
{
    let SmallProduct { lhs, k, cols, .. } = product;
    let mut buffer = [[0.0f32; CHUNK]; WIDTH];
    for start in cols.clone().step_by(WIDTH) {
        let n_cols = (cols.end - start).min(WIDTH);
        let mut sums = [[[0.0f32; WIDTH]; 1]; M];
        // SAFETY: as in `column_groups`; the buffer has the chunk of each column.
        unsafe {
            let c: [*mut f32; M] =
                rows(output.n_rows, |i| output.first.add(i * output.stride + (start - cols.start)));
            for (sums, c) in sums.iter_mut().zip(c) {
                c.copy_to_nonoverlapping(sums.as_mut_ptr().cast(), n_cols);
            }
            for chunk in chunks(k) {
                for (i, numbers) in buffer.iter_mut().enumerate() {
                    let column = (start + i).min(cols.end - 1);
                    matrix.read_stored_row(column, chunk.clone(), &mut numbers[..chunk.len()]);
                }
                let columns: [&[u8]; WIDTH] =
                    buffer.each_ref().map(|numbers| bytemuck::cast_slice(&numbers[..chunk.len()]));
                let next = columns.map(<[u8]>::as_ptr);
                let a: [*const f32; M] = rows(output.n_rows, |i| {
                    lhs.values.as_ptr().add(i * lhs.stride + (chunk.start - k.start))
                });
                add_columns::<V, F32, M, 1>(chunk.len(), a, &[columns], &[next], &mut sums);
            }
            for (sums, c) in sums.iter().zip(c) {
                c.copy_from_nonoverlapping(sums.as_ptr().cast(), n_cols);
            }
        }
    }
}

/// [`plain`], from a buffer.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn plain_dequantized<V: Simd8, const M: usize, const G: usize>(
    product: &SmallProduct<'_>,
    matrix: &FrozenMatrix,
    output: Output,
) where
    F32: Load<V>,
{
    let SmallProduct { lhs, k, cols, .. } = product;
    let mut buffer = [[0.0f32; CHUNK]; K_TOGETHER];
    for p in k.clone().step_by(K_TOGETHER) {
        let n = K_TOGETHER.min(k.end - p);
        for chunk in chunks(cols) {
            for (i, numbers) in buffer[..n].iter_mut().enumerate() {
                matrix.read_stored_row(p + i, chunk.clone(), &mut numbers[..chunk.len()]);
            }
            let b: [[&[u8]; 2]; K_TOGETHER] =
                buffer.each_ref().map(|numbers| [bytemuck::cast_slice(&numbers[..chunk.len()]); 2]);
            let next = b.map(|row| row.map(<[u8]>::as_ptr));
            // SAFETY: as in `plain`; the buffer has the chunk of each row.
            unsafe {
                let a: [*const f32; M] =
                    rows(output.n_rows, |i| lhs.values.as_ptr().add(i * lhs.stride + (p - k.start)));
                let c: [*mut f32; M] =
                    rows(output.n_rows, |i| output.first.add(i * output.stride + (chunk.start - cols.start)));
                add_rows::<V, F32, M, G>(chunk.len(), a, &b[..n], &next, c);
            }
        }
    }
}
