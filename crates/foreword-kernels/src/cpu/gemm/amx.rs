//! Products in bf16 by the tile registers of x86-64 (AMX): 16 rows by 16 columns by 32 terms in one instruction.
//!
//! `tdpbf16ps` sums the earlier and the later terms of 16 units apart, each a chain of multiply-adds from zero, and adds both
//! sums to the accumulator as one number. [`block_portable`] does the same without the instruction, so that all but the
//! instruction is tested on every machine; the bits are the same wherever all numbers are normal.

#![allow(unsafe_code)]

use super::Block;
use super::pairs::halves;
use crate::cpu::code_path::CodePath;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::cpu::code_path::InstructionSet;

/// Units that an instruction takes: of every product as many are multiplied as make up whole ones, the last of them zeros.
pub(super) const UNITS: usize = 16;
/// Rows of a tile register. Those of the left side lie tile by tile, `[UNITS]` of each row after another, so that loads meet neighbouring
/// cache lines; there are as many as make up whole tiles.
pub(super) const ROWS: usize = 16;
/// Columns of a panel's tile, and rows of its register block: two tile registers each way, so that each that is loaded is used twice.
pub(super) const WIDTH: usize = 2 * 16;
pub(super) const HEIGHT: usize = 2 * ROWS;

/// The tile registers of this thread while a product uses them; where there are none, they are imitated.
pub(super) struct Registers {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    path: CodePath,
    /// Rows of the blocks that they are in shape for; 0: they are not in use.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    n_rows: usize,
}

impl Registers {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    pub(super) fn new(path: CodePath) -> Self {
        Self { path, n_rows: 0 }
    }

    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    pub(super) fn new(_: CodePath) -> Self {
        Self {}
    }

    /// Whether this processor has them, and the path is theirs.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn are_there(&self) -> bool {
        self.path.instruction_set() == InstructionSet::Amx
    }

    /// Brings them in shape for blocks of so many rows.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn shape(&mut self, n_rows: usize) {
        assert!(self.are_there() && (1..=HEIGHT).contains(&n_rows), "tiles of {n_rows} rows");
        if self.n_rows != n_rows {
            // SAFETY: the path `amx` exists only if this processor has the instructions.
            unsafe { native::configure(n_rows) };
            self.n_rows = n_rows;
        }
    }

    /// The register block, for units: `c[n_rows, 32] += a[n_rows, k] b[k, 32]`, k a multiple of [`UNITS`], up to [`HEIGHT`] rows.
    ///
    /// # Safety
    /// As for `super::block`.
    pub(super) unsafe fn block(&mut self, n_rows: usize, block: Block) {
        debug_assert!(block.k.is_multiple_of(UNITS) && (1..=HEIGHT).contains(&n_rows), "block out of shape");
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self.are_there() {
            self.shape(n_rows);
            // SAFETY: the caller's promise.
            return unsafe { native::block(n_rows, block) };
        }
        // SAFETY: the caller's promise.
        unsafe { block_portable(n_rows, block) }
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self.n_rows > 0 {
            // SAFETY: they were brought in shape, so the processor has the instruction.
            unsafe { native::release() };
        }
    }
}

/// The register block without the instruction.
///
/// # Safety
/// As for `super::block`.
unsafe fn block_portable(n_rows: usize, block: Block) {
    let Block { k, a, lda, b, c, ldc, .. } = block;
    let at = |row: usize, unit: usize| {
        row / ROWS * ROWS * lda + unit / UNITS * ROWS * UNITS + row % ROWS * UNITS + unit % UNITS
    };
    for i in 0..n_rows {
        // SAFETY: the caller promises that all of these lie within their matrices.
        unsafe {
            let sums = &mut *c.add(i * ldc).cast::<[f32; WIDTH]>();
            for start in (0..k).step_by(UNITS) {
                let mut apart = [[0.0f32; 2]; WIDTH];
                for unit in start..start + UNITS {
                    let (a, b) = (*a.add(at(i, unit)), &*b.add(unit * WIDTH).cast::<[f32; WIDTH]>());
                    for (sums, &b) in apart.iter_mut().zip(b) {
                        *sums = add_apart(*sums, a, b);
                    }
                }
                for (sum, [earlier, later]) in sums.iter_mut().zip(apart) {
                    *sum += earlier + later;
                }
            }
        }
    }
}

/// Sums of the earlier and of the later terms, with those of one more unit. A product of two bf16 numbers is exact in single precision,
/// so that it does not matter whether it is fused.
#[inline(always)]
fn add_apart([earlier, later]: [f32; 2], a: f32, b: f32) -> [f32; 2] {
    let (a, b) = (halves(a), halves(b));
    [earlier + a.1 * b.1, later + a.0 * b.0]
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) use native::few_rows;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod native {
    use std::arch::asm;
    use std::ops::Range;

    use super::super::few::Part;
    use super::super::{FrozenMatrix, Target};
    use super::{Block, HEIGHT, ROWS, Registers, UNITS, WIDTH};
    use crate::cpu::code_path::CodePath;

    /// The shapes of tile registers, as the instruction that sets them reads them.
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        reserved: [u8; 15],
        bytes_per_row: [u16; 16],
        rows: [u8; 16],
    }

    /// Brings this thread's registers in shape for blocks of so many rows, up to [`HEIGHT`].
    ///
    /// # Safety
    /// The processor has tile registers, and the system allows their use.
    pub(super) unsafe fn configure(n_rows: usize) {
        let upper = n_rows.min(ROWS) as u8;
        // A register that is not needed keeps a row.
        let lower = n_rows.saturating_sub(ROWS).max(1) as u8;
        let mut shapes = Shapes { palette: 1, reserved: [0; 15], bytes_per_row: [0; 16], rows: [0; 16] };
        shapes.bytes_per_row[..8].fill(64);
        // Accumulators, two by two; rows; columns.
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

    /// The register block of as many rows as the registers are in shape for.
    ///
    /// # Safety
    /// As for `super::super::block`.
    pub(super) unsafe fn block(n_rows: usize, block: Block) {
        let Block { k, a, lda, b, c, ldc, .. } = block;
        let (ldb, ldc) = (WIDTH * 4, ldc * 4);
        let steps = k / UNITS;
        if steps == 0 {
            return;
        }
        if n_rows > ROWS {
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
                    lower_a = inout(reg) a.add(ROWS * lda) => _,
                    b = inout(reg) b => _,
                    steps = inout(reg) steps => _,
                    c = in(reg) c,
                    lower_c = in(reg) c.byte_add(ROWS * ldc),
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

    /// Lines that are worked on at a time: of four tile registers.
    const LINES: usize = 4 * ROWS;
    /// Terms of a line that are worked on before the other groups' turn; as many are asked for ahead.
    const VISIT: usize = 128;

    /// Memory that tiles are loaded from: a tile's row is a cache line.
    #[derive(Clone)]
    #[repr(C, align(64))]
    struct Aligned<T>(T);

    /// A product of few rows with lines of bf16 that are its columns, from where they lie: lines are the rows of tiles, and so are the
    /// columns of the product, which is turned. The path is `amx`.
    pub(in super::super) fn few_rows(path: CodePath, part: &Part<'_>, matrix: &FrozenMatrix, to: Target) {
        let Part { left, terms, cols, .. } = part;
        let n_units = terms.len().div_ceil(2).next_multiple_of(UNITS);
        assert!(
            to.n_rows <= ROWS && left.values.len() >= ROWS * left.stride && n_units <= left.stride,
            "few rows: shapes"
        );
        let mut units = vec![Aligned([[0.0f32; ROWS]; UNITS]); n_units / UNITS];
        for (tile, from) in units.iter_mut().zip(left.values.chunks_exact(ROWS * UNITS)) {
            for (row, from) in from.chunks_exact(UNITS).take(to.n_rows).enumerate() {
                for (tile, &unit) in tile.0.iter_mut().zip(from) {
                    tile[row] = unit;
                }
            }
        }
        let mut registers = Registers::new(path);
        registers.shape(HEIGHT);
        let mut scratch = Aligned([[0u16; VISIT]; LINES]);
        for start in cols.clone().step_by(LINES) {
            let n_lines = LINES.min(cols.end - start);
            let line = |i: usize| &bytemuck::cast_slice::<_, u16>(matrix.line(start + i).1)[terms.clone()];
            let lines: [&[u16]; LINES] = std::array::from_fn(|i| line(i.min(n_lines - 1)));
            let stride = (lines[1].as_ptr().addr()).wrapping_sub(lines[0].as_ptr().addr());
            let even = n_lines == LINES
                && lines
                    .windows(2)
                    .all(|two| two[1].as_ptr().addr().wrapping_sub(two[0].as_ptr().addr()) == stride);
            let next = cols.end.min(start + 2 * LINES).saturating_sub(start + LINES);
            let mut sums = Aligned([[0.0f32; ROWS]; LINES]);
            // SAFETY: rows of the target have all columns of the part, which belong to this call alone.
            let at = |line: usize, row: usize| unsafe {
                to.first.add(row * to.stride + start - cols.start + line)
            };
            for (i, sums) in sums.0.iter_mut().take(n_lines).enumerate() {
                for (row, sum) in sums.iter_mut().take(to.n_rows).enumerate() {
                    // SAFETY: as above.
                    *sum = unsafe { *at(i, row) };
                }
            }
            for first in (0..terms.len()).step_by(VISIT) {
                let visit = first..(first + VISIT).min(terms.len());
                let after = visit.end..(visit.end + VISIT).min(terms.len());
                if after.is_empty() {
                    (0..next).for_each(|i| fetch(line(LINES + i), 0..VISIT.min(terms.len())));
                } else {
                    lines[..n_lines].iter().for_each(|line| fetch(line, after.clone()));
                }
                let (from, stride) = if even && visit.len().is_multiple_of(2 * UNITS) {
                    (lines[0][first..].as_ptr(), stride)
                } else {
                    for (to, line) in scratch.0.iter_mut().zip(&lines[..n_lines]) {
                        to[..visit.len()].copy_from_slice(&line[visit.clone()]);
                        to[visit.len()..].fill(0);
                    }
                    (scratch.0.as_ptr().cast(), VISIT * size_of::<u16>())
                };
                let steps = visit.len().div_ceil(2 * UNITS);
                let units = &units[first / (2 * UNITS)..][..steps];
                // SAFETY: there are as many lines, and units for all their terms; the registers are in shape for whole tiles.
                unsafe { lines_by_rows(from, stride, units, &mut sums) };
            }
            for (i, sums) in sums.0.iter().take(n_lines).enumerate() {
                for (row, &sum) in sums.iter().take(to.n_rows).enumerate() {
                    // SAFETY: as above.
                    unsafe { *at(i, row) = sum };
                }
            }
        }
    }

    /// Asks for a part of a line.
    fn fetch(line: &[u16], part: Range<usize>) {
        crate::cpu::gemm::fill::fetch(bytemuck::cast_slice(&line[part]));
    }

    /// `sums[LINES, rows] += lines[LINES, terms] · units[terms, rows]`.
    ///
    /// # Safety
    /// `from` has lines of as many terms as there are units for, `stride` bytes apart; the registers are in shape for whole tiles.
    unsafe fn lines_by_rows(
        from: *const u16,
        stride: usize,
        units: &[Aligned<[[f32; ROWS]; UNITS]>],
        sums: &mut Aligned<[[f32; ROWS]; LINES]>,
    ) {
        let group = |i: usize| from.wrapping_byte_add(i * ROWS * stride);
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "tileloadd tmm0, [{sums} + {line}]",
                "tileloadd tmm1, [{sums} + {line} + 1024]",
                "tileloadd tmm2, [{sums} + {line} + 2048]",
                "tileloadd tmm3, [{sums} + {line} + 3072]",
                "2:",
                "tileloadd tmm6, [{units} + {line}]",
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
                "add {units}, 1024",
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
                units = inout(reg) units.as_ptr() => _,
                steps = inout(reg) units.len() => _,
                sums = in(reg) &raw mut *sums,
                stride = in(reg) stride,
                line = in(reg) 64usize,
                options(nostack),
            );
        }
    }
}
