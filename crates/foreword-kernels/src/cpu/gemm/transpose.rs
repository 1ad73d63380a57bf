//! Transposes eight stored rows at a time, with the vectors of this architecture.

#![allow(unsafe_code)]

use std::ops::Range;

#[cfg(target_arch = "aarch64")]
use super::neon::{Neon as Vector, transpose8x8};
use super::simd8::{Load, WIDTH};
#[cfg(target_arch = "x86_64")]
use super::x86::transpose8x8;
use crate::cpu::code_path::{CodePath, InstructionSet};

#[cfg(target_arch = "x86_64")]
type Vector = std::arch::x86_64::__m256;
#[cfg(target_arch = "x86_64")]
const NEEDS: InstructionSet = InstructionSet::Avx2;
#[cfg(target_arch = "aarch64")]
const NEEDS: InstructionSet = InstructionSet::Neon;

/// Transposes rows of stored format `S`. There is one only if this processor has the instructions of [`Vector`].
#[derive(Clone, Copy)]
pub(super) struct Transposer(());

impl Transposer {
    pub(super) fn of(path: CodePath) -> Option<Self> {
        path.instruction_set().includes(NEEDS).then_some(Self(()))
    }

    /// Writes the elements `k` of eight rows to the first eight columns of `tile`, `[k, nr]`.
    pub(super) fn run<S: Load<Vector>>(
        self,
        rows: &[&[u8]; WIDTH],
        k: Range<usize>,
        nr: usize,
        tile: &mut [f32],
    ) {
        let n = k.len();
        assert!(rows.iter().all(|row| row.len() >= k.end * S::ELEMENT_BYTES), "elements beyond a row");
        assert!(n == 0 || tile.len() >= (n - 1) * nr + WIDTH, "tile out of shape");
        let whole = n - n % WIDTH;
        for p in (0..whole).step_by(WIDTH) {
            let from: [*const u8; WIDTH] =
                std::array::from_fn(|i| rows[i][(k.start + p) * S::ELEMENT_BYTES..].as_ptr());
            // SAFETY: eight elements of each row, and eight rows of the tile, are there (asserted above); there is a
            // `Transposer` only if this processor has the instructions.
            unsafe { transpose8x8::<S>(from, tile.as_mut_ptr().add(p * nr), nr) };
        }
        for p in whole..n {
            for (row, to) in rows.iter().zip(&mut tile[p * nr..]) {
                *to = S::scalar(&row[(k.start + p) * S::ELEMENT_BYTES..]);
            }
        }
    }
}
