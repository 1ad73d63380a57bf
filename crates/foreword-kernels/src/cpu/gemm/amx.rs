//! The microkernel of AMX, the tile registers of x86-64: bf16, 16 rows by 16 columns by 32 k in one instruction.
//!
//! `tdpbf16ps` sums the earlier and the later numbers of 16 packed elements separately, each as a chain of multiply-adds
//! from zero, and adds both sums to the accumulator as one number. So bits differ from those of other code paths, and few
//! rows must use tiles too. [`emulated`] does the same without the instruction, so that everything but the instruction is
//! tested on every machine. The bits are the same wherever all numbers are normal.

#![allow(unsafe_code)]

#[cfg(test)]
use super::pair::unpack;
#[cfg(any(test, all(target_arch = "x86_64", target_os = "linux")))]
use super::types::RegisterBlock;

/// Packed elements of a row that an instruction takes. Rows are padded with zeros to whole tiles.
#[cfg(any(test, all(target_arch = "x86_64", target_os = "linux")))]
pub(super) const TILE_K: usize = 16;
/// Rows of a tile register. The left-hand side lies tile by tile, so that loads read neighbouring cache lines, and is padded
/// to whole tiles.
#[cfg(any(test, all(target_arch = "x86_64", target_os = "linux")))]
pub(super) const TILE_ROWS: usize = 16;
/// NR and MR: two tile registers each way, so that each one loaded is used twice.
#[cfg(any(test, all(target_arch = "x86_64", target_os = "linux")))]
pub(super) const NR: usize = 2 * 16;
#[cfg(any(test, all(target_arch = "x86_64", target_os = "linux")))]
pub(super) const MR: usize = 2 * TILE_ROWS;

/// The tile registers of this thread while a product uses them.
#[derive(Default)]
pub(super) struct TileRegisters {
    /// Rows of the blocks that they are configured for; 0: they are not in use.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    n_rows: usize,
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
impl TileRegisters {
    /// Configures them for blocks of up to MR rows.
    ///
    /// # Safety
    /// The processor has tile registers, and the system allows their use.
    unsafe fn configure(&mut self, n_rows: usize) {
        assert!((1..=MR).contains(&n_rows), "tiles of {n_rows} rows");
        if self.n_rows != n_rows {
            // SAFETY: the caller's promise.
            unsafe { native::configure(n_rows) };
            self.n_rows = n_rows;
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
impl Drop for TileRegisters {
    fn drop(&mut self) {
        if self.n_rows > 0 {
            // SAFETY: they were configured, so the processor has the instruction.
            unsafe { native::release() };
        }
    }
}

/// `c[n_rows, NR] += a[n_rows, k] b[k, NR]`, where k is a multiple of [`TILE_K`].
///
/// # Safety
/// As for [`super::kernel::Kernel::run`]; the processor has tile registers, and the system allows their use.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) unsafe fn native(tiles: &mut TileRegisters, n_rows: usize, block: RegisterBlock) {
    debug_assert!(block.k.is_multiple_of(TILE_K), "block out of shape");
    // SAFETY: the caller's promise.
    unsafe {
        tiles.configure(n_rows);
        native::block(n_rows, block);
    }
}

/// The same without the instruction.
///
/// # Safety
/// As for [`super::kernel::Kernel::run`].
#[cfg(test)]
pub(super) unsafe fn emulated(_: &mut TileRegisters, n_rows: usize, block: RegisterBlock) {
    let RegisterBlock { k, a, lda, b, c, ldc, .. } = block;
    debug_assert!(k.is_multiple_of(TILE_K) && (1..=MR).contains(&n_rows), "block out of shape");
    let at = |row: usize, p: usize| {
        row / TILE_ROWS * TILE_ROWS * lda
            + p / TILE_K * TILE_ROWS * TILE_K
            + row % TILE_ROWS * TILE_K
            + p % TILE_K
    };
    for i in 0..n_rows {
        // SAFETY: the caller promises that all of these lie within their matrices.
        unsafe {
            let sums = &mut *c.add(i * ldc).cast::<[f32; NR]>();
            for start in (0..k).step_by(TILE_K) {
                let mut tile_sums = [[0.0f32; 2]; NR];
                for p in start..start + TILE_K {
                    let (a, b) = (unpack(*a.add(at(i, p))), &*b.add(p * NR).cast::<[f32; NR]>());
                    for ([earlier, later], &b) in tile_sums.iter_mut().zip(b) {
                        // A product of two bf16 numbers is exact in single precision, so fusing changes nothing.
                        let b = unpack(b);
                        *earlier += a.1 * b.1;
                        *later += a.0 * b.0;
                    }
                }
                for (sum, [earlier, later]) in sums.iter_mut().zip(tile_sums) {
                    *sum += earlier + later;
                }
            }
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) use native::small_m;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod native {
    use std::arch::asm;
    use std::ops::Range;

    use super::super::prefetch;
    use super::super::types::{Output, RegisterBlock, SmallProduct};
    use super::{MR, NR, TILE_K, TILE_ROWS, TileRegisters};

    /// The operand of `ldtilecfg`.
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        reserved: [u8; 15],
        bytes_per_row: [u16; 16],
        rows: [u8; 16],
    }

    /// Configures this thread's registers for blocks of up to MR rows.
    ///
    /// # Safety
    /// The processor has tile registers, and the system allows their use.
    pub(super) unsafe fn configure(n_rows: usize) {
        let upper = n_rows.min(TILE_ROWS) as u8;
        // An unused register keeps one row.
        let lower = n_rows.saturating_sub(TILE_ROWS).max(1) as u8;
        let mut shapes = Shapes { palette: 1, reserved: [0; 15], bytes_per_row: [0; 16], rows: [0; 16] };
        shapes.bytes_per_row[..8].fill(64);
        // Two by two accumulators, then two registers each for rows and for columns.
        shapes.rows[..8].copy_from_slice(&[upper, upper, lower, lower, upper, lower, 16, 16]);
        // SAFETY: the caller's promise, and the shapes are within the palette.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, preserves_flags, readonly));
        };
    }

    /// Ends the use of this thread's registers.
    ///
    /// # Safety
    /// The processor has tile registers.
    pub(super) unsafe fn release() {
        // SAFETY: the caller's promise.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }

    /// The register block of as many rows as the registers are configured for.
    ///
    /// # Safety
    /// As for `super::native`.
    pub(super) unsafe fn block(n_rows: usize, block: RegisterBlock) {
        let RegisterBlock { k, a, lda, b, c, ldc, .. } = block;
        let (ldb, ldc) = (NR * 4, ldc * 4);
        let steps = k / TILE_K;
        if steps == 0 {
            return;
        }
        if n_rows > TILE_ROWS {
            // SAFETY: the caller's promise; each instruction reads or writes the rows that its register is configured for.
            unsafe {
                asm!(
                    "tileloadd tmm0, [{c} + {ldc}]",
                    "tileloadd tmm1, [{c} + {ldc} + 64]",
                    "tileloadd tmm2, [{lower_c} + {ldc}]",
                    "tileloadd tmm3, [{lower_c} + {ldc} + 64]",
                    "2:",
                    "tileloadd tmm6, [{b} + {ldb}]",
                    "tileloadd tmm4, [{a} + {line}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{b} + {ldb} + 64]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{lower_a} + {line}]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "add {a}, 1024",
                    "add {lower_a}, 1024",
                    "add {b}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{c} + {ldc}], tmm0",
                    "tilestored [{c} + {ldc} + 64], tmm1",
                    "tilestored [{lower_c} + {ldc}], tmm2",
                    "tilestored [{lower_c} + {ldc} + 64], tmm3",
                    a = inout(reg) a => _,
                    lower_a = inout(reg) a.add(TILE_ROWS * lda) => _,
                    b = inout(reg) b => _,
                    steps = inout(reg) steps => _,
                    c = in(reg) c,
                    lower_c = in(reg) c.byte_add(TILE_ROWS * ldc),
                    line = in(reg) 64usize,
                    ldb = in(reg) ldb,
                    ldc = in(reg) ldc,
                    options(nostack),
                );
            }
        } else {
            // SAFETY: as above.
            unsafe {
                asm!(
                    "tileloadd tmm0, [{c} + {ldc}]",
                    "tileloadd tmm1, [{c} + {ldc} + 64]",
                    "2:",
                    "tileloadd tmm6, [{b} + {ldb}]",
                    "tileloadd tmm4, [{a} + {line}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{b} + {ldb} + 64]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "add {a}, 1024",
                    "add {b}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{c} + {ldc}], tmm0",
                    "tilestored [{c} + {ldc} + 64], tmm1",
                    a = inout(reg) a => _,
                    b = inout(reg) b => _,
                    steps = inout(reg) steps => _,
                    c = in(reg) c,
                    line = in(reg) 64usize,
                    ldb = in(reg) ldb,
                    ldc = in(reg) ldc,
                    options(nostack),
                );
            }
        }
    }

    /// Columns at a time: those of four tile registers.
    const COLS: usize = 4 * TILE_ROWS;
    /// k of a column before the next column's turn. As many are prefetched.
    const DEPTH: usize = 128;

    /// Memory that tiles are loaded from: a tile's row is a cache line.
    #[derive(Clone)]
    #[repr(C, align(64))]
    struct Aligned<T>(T);

    /// A product of few rows with a transposed bf16 matrix, read where it lies. The stored rows are the rows of tiles, so the
    /// product comes out transposed.
    ///
    /// # Safety
    /// The processor has tile registers, and the system allows their use.
    pub(in super::super) unsafe fn small_m(product: &SmallProduct<'_>, output: Output) {
        let SmallProduct { lhs, rhs, k, cols } = product;
        let packed_k = k.len().div_ceil(2).next_multiple_of(TILE_K);
        assert!(
            output.n_rows <= TILE_ROWS
                && lhs.values.len() >= TILE_ROWS * lhs.stride
                && packed_k <= lhs.stride,
            "small m: shapes"
        );
        let mut lhs_tiles = vec![Aligned([[0.0f32; TILE_ROWS]; TILE_K]); packed_k / TILE_K];
        for (tile, from) in lhs_tiles.iter_mut().zip(lhs.values.chunks_exact(TILE_ROWS * TILE_K)) {
            for (row, from) in from.chunks_exact(TILE_K).take(output.n_rows).enumerate() {
                for (tile, &element) in tile.0.iter_mut().zip(from) {
                    tile[row] = element;
                }
            }
        }
        let mut registers = TileRegisters::default();
        // SAFETY: the caller's promise.
        unsafe { registers.configure(MR) };
        let mut scratch = Aligned([[0u16; DEPTH]; COLS]);
        for start in cols.clone().step_by(COLS) {
            let n_cols = COLS.min(cols.end - start);
            let stored =
                |i: usize| &bytemuck::cast_slice::<_, u16>(rhs.matrix().stored_row(start + i).1)[k.clone()];
            let columns: [&[u16]; COLS] = std::array::from_fn(|i| stored(i.min(n_cols - 1)));
            let distance = |a: &[u16], b: &[u16]| b.as_ptr().addr().wrapping_sub(a.as_ptr().addr());
            let stride = distance(columns[0], columns[1]);
            let evenly_spaced =
                n_cols == COLS && columns.windows(2).all(|two| distance(two[0], two[1]) == stride);
            let n_next = cols.end.min(start + 2 * COLS).saturating_sub(start + COLS);
            let mut sums = Aligned([[0.0f32; TILE_ROWS]; COLS]);
            // SAFETY: rows of the output have all columns of the product, which belong to this call alone.
            let at = |col: usize, row: usize| unsafe {
                output.first.add(row * output.stride + start - cols.start + col)
            };
            for (i, sums) in sums.0.iter_mut().take(n_cols).enumerate() {
                for (row, sum) in sums.iter_mut().take(output.n_rows).enumerate() {
                    // SAFETY: as above.
                    *sum = unsafe { *at(i, row) };
                }
            }
            for first in (0..k.len()).step_by(DEPTH) {
                let block = first..(first + DEPTH).min(k.len());
                let next = block.end..(block.end + DEPTH).min(k.len());
                if next.is_empty() {
                    (0..n_next).for_each(|i| prefetch_numbers(stored(COLS + i), 0..DEPTH.min(k.len())));
                } else {
                    columns[..n_cols].iter().for_each(|column| prefetch_numbers(column, next.clone()));
                }
                let (from, stride) = if evenly_spaced && block.len().is_multiple_of(2 * TILE_K) {
                    (columns[0][first..].as_ptr(), stride)
                } else {
                    for (to, column) in scratch.0.iter_mut().zip(&columns[..n_cols]) {
                        to[..block.len()].copy_from_slice(&column[block.clone()]);
                        to[block.len()..].fill(0);
                    }
                    (scratch.0.as_ptr().cast(), DEPTH * size_of::<u16>())
                };
                let n_tiles = block.len().div_ceil(2 * TILE_K);
                let tiles = &lhs_tiles[first / (2 * TILE_K)..][..n_tiles];
                // SAFETY: there are as many columns, and tiles for all of k; the registers are configured for whole tiles.
                unsafe { add_transposed(from, stride, tiles, &mut sums) };
            }
            for (i, sums) in sums.0.iter().take(n_cols).enumerate() {
                for (row, &sum) in sums.iter().take(output.n_rows).enumerate() {
                    // SAFETY: as above.
                    unsafe { *at(i, row) = sum };
                }
            }
        }
    }

    fn prefetch_numbers(column: &[u16], k: Range<usize>) {
        prefetch::prefetch(bytemuck::cast_slice(&column[k]));
    }

    /// `sums[COLS, rows] += columns[COLS, k] · tiles[k, rows]`.
    ///
    /// # Safety
    /// `from` has columns with as many k as there are tiles for, `stride` bytes apart; the registers are configured for whole
    /// tiles.
    unsafe fn add_transposed(
        from: *const u16,
        stride: usize,
        tiles: &[Aligned<[[f32; TILE_ROWS]; TILE_K]>],
        sums: &mut Aligned<[[f32; TILE_ROWS]; COLS]>,
    ) {
        let group = |i: usize| from.wrapping_byte_add(i * TILE_ROWS * stride);
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "tileloadd tmm0, [{sums} + {line}]",
                "tileloadd tmm1, [{sums} + {line} + 1024]",
                "tileloadd tmm2, [{sums} + {line} + 2048]",
                "tileloadd tmm3, [{sums} + {line} + 3072]",
                "2:",
                "tileloadd tmm6, [{tiles} + {line}]",
                "tileloadd tmm4, [{a} + {stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{b} + {stride}]",
                "tdpbf16ps tmm1, tmm5, tmm6",
                "tileloadd tmm4, [{c} + {stride}]",
                "tdpbf16ps tmm2, tmm4, tmm6",
                "tileloadd tmm5, [{d} + {stride}]",
                "tdpbf16ps tmm3, tmm5, tmm6",
                "add {a}, 64",
                "add {b}, 64",
                "add {c}, 64",
                "add {d}, 64",
                "add {tiles}, 1024",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {line}], tmm0",
                "tilestored [{sums} + {line} + 1024], tmm1",
                "tilestored [{sums} + {line} + 2048], tmm2",
                "tilestored [{sums} + {line} + 3072], tmm3",
                a = inout(reg) group(0) => _,
                b = inout(reg) group(1) => _,
                c = inout(reg) group(2) => _,
                d = inout(reg) group(3) => _,
                tiles = inout(reg) tiles.as_ptr() => _,
                steps = inout(reg) tiles.len() => _,
                sums = in(reg) &raw mut *sums,
                stride = in(reg) stride,
                line = in(reg) 64usize,
                options(nostack),
            );
        }
    }
}
