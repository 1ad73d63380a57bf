//! Which register block a product uses: a code path, and the arithmetic that it has to do on it.

use super::{FrozenMatrix, Left, amx, pairs};
use crate::cpu::code_path::{CodePath, InstructionSet};

/// In what a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// In single precision: units of the sums are single terms.
    Single,
    /// In bf16: units are pairs of terms.
    Pairs,
    /// In bf16, as tile registers sum it.
    Tiles,
}

/// How a product is computed. Every combination runs on every processor: instructions that the code path lacks are imitated
/// with those that it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Microkernel {
    pub(super) path: CodePath,
    pub(super) arithmetic: Arithmetic,
}

impl Microkernel {
    /// Of products with `matrix`.
    pub(super) fn of(path: CodePath, matrix: &FrozenMatrix) -> Self {
        let arithmetic = match path.instruction_set() {
            _ if !matrix.pairs => Arithmetic::Single,
            InstructionSet::Amx => Arithmetic::Tiles,
            _ => Arithmetic::Pairs,
        };
        Self { path, arithmetic }
    }

    pub(super) fn single(path: CodePath) -> Self {
        Self { path, arithmetic: Arithmetic::Single }
    }

    /// Both parts, to be matched.
    pub(super) fn parts(self) -> (Arithmetic, InstructionSet) {
        (self.arithmetic, self.path.instruction_set())
    }

    pub(super) fn has_tiles(self) -> bool {
        self.arithmetic == Arithmetic::Tiles
    }

    /// Terms of a unit.
    pub(super) fn unit_terms(self) -> usize {
        match self.arithmetic {
            Arithmetic::Single => 1,
            Arithmetic::Pairs | Arithmetic::Tiles => 2,
        }
    }

    /// Units of a row of so many terms; what they have more is zero.
    pub(super) fn n_units(self, n_terms: usize) -> usize {
        match self.arithmetic {
            Arithmetic::Single => n_terms,
            Arithmetic::Pairs => n_terms.div_ceil(2),
            Arithmetic::Tiles => n_terms.div_ceil(2).next_multiple_of(amx::UNITS),
        }
    }

    /// NR, columns of a tile.
    pub(super) fn tile_width(self) -> usize {
        use InstructionSet::{Amx, Avx512Bf16, Portable};
        match self.parts() {
            (Arithmetic::Tiles, _) => amx::WIDTH,
            // The portable path has the native shape, so that its tiles are tested wherever tests run.
            (Arithmetic::Pairs, Amx | Avx512Bf16 | Portable) => pairs::NATIVE_WIDTH,
            (_, set) => set.tile_width(),
        }
    }

    /// MR, rows of a register block: with NR as above the accumulators fill the registers, but for those of what is multiplied.
    pub(super) fn block_height(self) -> usize {
        use InstructionSet::{Amx, Avx2, Avx512, Avx512Bf16, Neon, Portable};
        match self.parts() {
            (Arithmetic::Tiles, _) => amx::HEIGHT,
            (Arithmetic::Pairs, Amx | Avx512Bf16 | Portable) => pairs::NATIVE_HEIGHT,
            (_, Amx | Avx512Bf16 | Avx512) => 12,
            (_, Avx2) | (Arithmetic::Single, Neon) => 6,
            (_, Neon | Portable) => 4,
        }
    }

    /// How its left side, so many units a row, lies in memory.
    pub(super) fn layout(self, n_units: usize) -> pairs::Layout {
        match self.arithmetic {
            Arithmetic::Tiles => pairs::Layout { rows: amx::ROWS, piece: amx::UNITS },
            Arithmetic::Single | Arithmetic::Pairs => pairs::Layout { rows: 1, piece: n_units },
        }
    }

    /// Runs `product` with the left side in units of this microkernel.
    pub(super) fn with_units(self, left: Left<'_>, n_rows: usize, terms: usize, product: impl Fn(Left<'_>)) {
        match self.arithmetic {
            Arithmetic::Single => product(left),
            Arithmetic::Pairs | Arithmetic::Tiles => {
                let stride = self.n_units(terms);
                let values = pairs::left(self.path, left, n_rows, terms, stride, self.layout(stride));
                product(Left { values: &values, stride });
            }
        }
    }
}

impl InstructionSet {
    /// NR, columns of a tile in single precision.
    pub(super) fn tile_width(self) -> usize {
        match self {
            Self::Amx | Self::Avx512Bf16 | Self::Avx512 => 32,
            Self::Avx2 | Self::Neon | Self::Portable => 16,
        }
    }
}
