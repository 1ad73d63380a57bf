//! The table of microkernels: how each code path multiplies in each arithmetic.
//!
//! A product uses the first entry of its arithmetic whose instructions its code path has. A new instruction set is a name
//! and its detection in `code_path`, an entry here, and the file of its microkernel.

#![allow(unsafe_code)]

use std::ops::Range;

use super::matrix::{FrozenMatrix, Rhs};
use super::pack::Panel;
use super::types::{Lhs, LhsLayout, Output, RegisterBlock, SMALL_M, SmallProduct};
use super::{amx, bf16, f32, pack, small_m};
use crate::cpu::code_path::{CodePath, InstructionSet};
use crate::dtype::Dtype;

/// In what a product is computed. Sums are in single precision either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arithmetic {
    F32,
    /// Both operands are rounded to bf16; a packed element is a pair of neighbouring k.
    Bf16,
}

/// An entry of the table.
#[derive(Debug)]
pub(super) struct Microkernel {
    needs: InstructionSet,
    arithmetic: Arithmetic,
    /// MR, rows of a register block. With NR columns the accumulators fill the registers, except for those that hold
    /// operands.
    pub(super) mr: usize,
    /// NR, columns of a register block.
    pub(super) nr: usize,
    /// Packed elements of a row, and rows, of a tile register; the left-hand side is packed tile by tile.
    tile: Option<LhsLayout>,
    pack: Pack,
    run: Run,
    /// Products of up to [`SMALL_M`] rows, straight from the stored format.
    small_m: Option<SmallKernel>,
}

/// Packs columns of the right-hand side, for some k, into tiles `[packed k, NR]` one after another.
type Pack = fn(CodePath, Rhs<'_>, Range<usize>, Range<usize>, usize, &mut [f32]);
/// Runs a register block with up to MR rows.
type Run = unsafe fn(&mut amx::TileRegisters, usize, RegisterBlock);

/// A kernel for products of few rows.
#[derive(Debug)]
struct SmallKernel {
    applies: fn(Rhs<'_>) -> bool,
    run: SmallRun,
}

/// A [`Run`] that selects a function by the number of rows.
macro_rules! by_rows {
    ($module:ident::$function:ident: $($mr:literal)*) => {{
        unsafe fn run(_: &mut amx::TileRegisters, n_rows: usize, block: RegisterBlock) {
            match n_rows {
                // SAFETY: the caller's promise.
                $($mr => unsafe { $module::$function::<$mr>(block) },)*
                _ => unreachable!("register block of {n_rows} rows"),
            }
        }
        run
    }};
}

type SmallRun = unsafe fn(&SmallProduct<'_>, Output);

const fn f32_entry(needs: InstructionSet, [mr, nr]: [usize; 2], run: Run, small_m: SmallRun) -> Microkernel {
    let small_m = Some(SmallKernel { applies: |_| true, run: small_m });
    Microkernel { needs, arithmetic: Arithmetic::F32, mr, nr, tile: None, pack: pack::pack, run, small_m }
}

const fn bf16_entry(needs: InstructionSet, [mr, nr]: [usize; 2], run: Run, small_m: SmallRun) -> Microkernel {
    let small_m = Some(SmallKernel { applies: is_bf16, run: small_m });
    Microkernel { needs, arithmetic: Arithmetic::Bf16, mr, nr, tile: None, pack: bf16::pack, run, small_m }
}

fn is_bf16(rhs: Rhs<'_>) -> bool {
    rhs.matrix().dtype() == Some(Dtype::Bf16)
}

/// Fastest first. Entries for bf16 without an instruction for it emulate it, to the same bits.
static TABLE: &[Microkernel] = {
    use InstructionSet::Portable;
    #[cfg(target_arch = "x86_64")]
    use InstructionSet::{Avx2, Avx512, Avx512Bf16};
    #[cfg(target_arch = "aarch64")]
    use {super::neon, InstructionSet::Neon};
    &[
        #[cfg(target_arch = "x86_64")]
        f32_entry(Avx512, [12, 32], by_rows!(f32::avx512: 1 2 3 4 5 6 7 8 9 10 11 12), small_m::f32_avx2),
        #[cfg(target_arch = "x86_64")]
        f32_entry(Avx2, [6, 16], by_rows!(f32::avx2: 1 2 3 4 5 6), small_m::f32_avx2),
        #[cfg(target_arch = "aarch64")]
        f32_entry(Neon, [6, 16], by_rows!(neon::f32: 1 2 3 4 5 6), small_m::f32_neon),
        f32_entry(Portable, [4, 16], by_rows!(f32::portable: 1 2 3 4), small_m::f32_portable),
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Microkernel {
            // Rows with one k each would have to be packed into tiles first, which is what panels are.
            small_m: Some(SmallKernel {
                applies: |rhs| matches!(rhs, Rhs::Transposed(_)) && is_bf16(rhs),
                run: amx::small_m,
            }),
            ..amx_entry(InstructionSet::Amx, amx::native)
        },
        #[cfg(target_arch = "x86_64")]
        bf16_entry(Avx512Bf16, [6, 64], by_rows!(bf16::avx512_bf16: 1 2 3 4 5 6), small_m::bf16_avx512),
        #[cfg(target_arch = "x86_64")]
        bf16_entry(Avx512, [12, 32], by_rows!(bf16::avx512: 1 2 3 4 5 6 7 8 9 10 11 12), small_m::bf16_avx2),
        #[cfg(target_arch = "x86_64")]
        bf16_entry(Avx2, [6, 16], by_rows!(bf16::avx2: 1 2 3 4 5 6), small_m::bf16_avx2),
        #[cfg(target_arch = "aarch64")]
        bf16_entry(Neon, [4, 16], by_rows!(bf16::neon: 1 2 3 4), small_m::bf16_neon),
        // The shape of `avx512bf16`, so that its tiles are tested on every machine.
        bf16_entry(Portable, [6, 64], by_rows!(bf16::portable: 1 2 3 4 5 6), small_m::bf16_portable),
    ]
};

#[cfg(any(test, all(target_arch = "x86_64", target_os = "linux")))]
const fn amx_entry(needs: InstructionSet, run: Run) -> Microkernel {
    Microkernel {
        needs,
        arithmetic: Arithmetic::Bf16,
        mr: amx::MR,
        nr: amx::NR,
        tile: Some(LhsLayout { rows: amx::TILE_ROWS, depth: amx::TILE_K }),
        pack: bf16::pack,
        run,
        small_m: None,
    }
}

/// A microkernel on a code path that has its instructions.
#[derive(Clone, Copy, Debug)]
pub(in crate::cpu) struct Kernel {
    path: CodePath,
    micro: &'static Microkernel,
}

impl Kernel {
    fn find(path: CodePath, arithmetic: Arithmetic) -> Self {
        let fits = |micro: &&Microkernel| {
            micro.arithmetic == arithmetic && path.instruction_set().includes(micro.needs)
        };
        match TABLE.iter().find(fits) {
            Some(micro) => Self { path, micro },
            None => unreachable!("every code path includes the portable one"),
        }
    }

    /// For products in single precision.
    pub(in crate::cpu) fn f32(path: CodePath) -> Self {
        Self::find(path, Arithmetic::F32)
    }

    /// For products with `matrix`.
    pub(super) fn of(path: CodePath, matrix: &FrozenMatrix) -> Self {
        let arithmetic = if matrix.computes_in_bf16() { Arithmetic::Bf16 } else { Arithmetic::F32 };
        Self::find(path, arithmetic)
    }

    /// The portable emulation of tile registers.
    #[cfg(test)]
    pub(super) fn emulated_tiles(path: CodePath) -> Self {
        static EMULATED: Microkernel = amx_entry(InstructionSet::Portable, amx::emulated);
        Self { path, micro: &EMULATED }
    }

    /// The kernel for bf16.
    #[cfg(test)]
    pub(super) fn bf16(path: CodePath) -> Self {
        Self::find(path, Arithmetic::Bf16)
    }

    pub(in crate::cpu) fn path(self) -> CodePath {
        self.path
    }

    pub(super) fn mr(self) -> usize {
        self.micro.mr
    }

    pub(super) fn nr(self) -> usize {
        self.micro.nr
    }

    /// Whether operands are tiles, which are added to what the output holds.
    pub(super) fn has_tiles(self) -> bool {
        self.micro.tile.is_some()
    }

    /// k of a packed element.
    pub(super) fn k_per_element(self) -> usize {
        match self.micro.arithmetic {
            Arithmetic::F32 => 1,
            Arithmetic::Bf16 => 2,
        }
    }

    /// Packed elements of a row of `k` numbers; those beyond k are zero.
    pub(super) fn packed_k(self, k: usize) -> usize {
        k.div_ceil(self.k_per_element()).next_multiple_of(self.micro.tile.map_or(1, |tile| tile.depth))
    }

    /// How the left-hand side lies in memory, with `packed_k` elements a row.
    pub(super) fn lhs_layout(self, packed_k: usize) -> LhsLayout {
        self.micro.tile.unwrap_or(LhsLayout { rows: 1, depth: packed_k })
    }

    /// Runs `product` with the packed left-hand side.
    pub(super) fn with_packed_lhs(self, lhs: Lhs<'_>, n_rows: usize, k: usize, product: impl Fn(Lhs<'_>)) {
        match self.micro.arithmetic {
            Arithmetic::F32 => product(lhs),
            Arithmetic::Bf16 => {
                let stride = self.packed_k(k);
                let values = bf16::pack_lhs(self.path, lhs, n_rows, k, stride, self.lhs_layout(stride));
                product(Lhs { values: &values, stride });
            }
        }
    }

    /// Packs the columns `cols` of the right-hand side, rows `k` of them, into tiles `[packed k, NR]`, one after another.
    /// Missing columns are zero, and so are elements beyond k.
    pub(super) fn pack_rhs(self, rhs: Rhs<'_>, cols: Range<usize>, k: Range<usize>, panel: &mut [f32]) {
        (self.micro.pack)(self.path, rhs, cols, k, self.micro.nr, panel);
    }

    /// Packs the numbers `k` of activations `[n, k]`.
    pub(in crate::cpu) fn pack_transposed(self, panel: &mut Panel, rows: &[&[f32]], k: Range<usize>) {
        panel.pack_transposed((self.path, self.micro.nr), rows, k);
    }

    /// Packs the numbers `cols` of activations `[k, n]`.
    pub(in crate::cpu) fn pack_plain(self, panel: &mut Panel, rows: &[&[f32]], cols: Range<usize>) {
        panel.pack_plain(self.micro.nr, rows, cols);
    }

    /// Runs the register block of `n_rows` rows.
    ///
    /// # Safety
    /// `a` has `n_rows` rows of `k` packed elements, `b` is `[k, NR]`, `init` has `n_rows` rows of NR to read and `c` to
    /// write. With tiles, `init` is `c`.
    pub(super) unsafe fn run(self, tiles: &mut amx::TileRegisters, n_rows: usize, block: RegisterBlock) {
        // SAFETY: the caller's promise; the code path has the instructions.
        unsafe { (self.micro.run)(tiles, n_rows, block) }
    }

    /// Whether there is a kernel for a product of so few rows with this matrix.
    pub(super) fn has_small_m(self, rhs: Rhs<'_>, n_rows: usize) -> bool {
        n_rows <= SMALL_M && self.micro.small_m.as_ref().is_some_and(|small| (small.applies)(rhs))
    }

    /// Adds a product of few rows to the output.
    ///
    /// # Panics
    /// If there is no kernel for it.
    pub(super) fn run_small_m(self, product: &SmallProduct<'_>, output: Output) {
        let SmallProduct { lhs, rhs, k, .. } = product;
        let packed_k = k.len().div_ceil(self.k_per_element());
        assert!(
            output.n_rows > 0
                && self.has_small_m(*rhs, output.n_rows)
                && lhs.values.len() >= output.n_rows * lhs.stride
                && packed_k <= lhs.stride,
            "small m: shapes"
        );
        if let Some(small) = &self.micro.small_m {
            // SAFETY: the code path has the instructions; shapes as asserted above.
            unsafe { (small.run)(product, output) }
        }
    }
}
