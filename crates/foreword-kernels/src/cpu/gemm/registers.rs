//! The register block, which is where products spend their time: few rows of the left side by one tile, by the means of each microkernel.

use super::microkernel::{Arithmetic, Microkernel};
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::{amx, pairs};
use crate::cpu::code_path::InstructionSet;
use crate::cpu::lanes::{PORTABLE_FMA, fma};

/// One register block: `c[MR, NR] = from[MR, NR] + a[MR, k] b[k, NR]`, where `from` may be `c`.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) k: usize,
    pub(super) a: *const f32,
    pub(super) lda: usize,
    pub(super) b: *const f32,
    pub(super) from: *const f32,
    /// 0 where all rows start from the same.
    pub(super) ldf: usize,
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
}

/// Runs the register block of `n` rows.
///
/// # Safety
/// `a` has `n` rows of `k`, `b` is `[k, NR]`, `from` has `n` rows of NR to read and `c` to write. For [`Arithmetic::Tiles`], `from`
/// is `c`.
#[allow(unsafe_code)]
pub(super) unsafe fn block(kernel: Microkernel, registers: &mut amx::Registers, n: usize, block: Block) {
    #[cfg(target_arch = "aarch64")]
    use InstructionSet::Neon;
    use InstructionSet::Portable;
    #[cfg(target_arch = "x86_64")]
    use InstructionSet::{Amx, Avx2, Avx512, Avx512Bf16};
    macro_rules! by_height {
        ($run:ident: $($mr:literal)*) => {
            match n {
                // SAFETY: the caller's promise; a code path exists only if the processor has its instructions.
                $($mr => unsafe { $run::<$mr>(block) },)*
                _ => unreachable!("register block of {n} rows"),
            }
        };
    }
    match kernel.parts() {
        // SAFETY: the caller's promise.
        (Arithmetic::Tiles, _) => unsafe { registers.block(n, block) },
        #[cfg(target_arch = "x86_64")]
        (Arithmetic::Single, Amx | Avx512Bf16 | Avx512) => {
            by_height!(block_avx512: 1 2 3 4 5 6 7 8 9 10 11 12);
        }
        #[cfg(target_arch = "x86_64")]
        (Arithmetic::Single, Avx2) => by_height!(block_avx2: 1 2 3 4 5 6),
        #[cfg(target_arch = "aarch64")]
        (Arithmetic::Single, Neon) => {
            use neon::block_neon;
            by_height!(block_neon: 1 2 3 4 5 6);
        }
        (Arithmetic::Single, Portable) => by_height!(block_portable: 1 2 3 4),
        #[cfg(target_arch = "x86_64")]
        (Arithmetic::Pairs, Amx | Avx512Bf16) => {
            use pairs::block_native;
            by_height!(block_native: 1 2 3 4 5 6);
        }
        #[cfg(target_arch = "x86_64")]
        (Arithmetic::Pairs, Avx512) => {
            use pairs::block_avx512;
            by_height!(block_avx512: 1 2 3 4 5 6 7 8 9 10 11 12);
        }
        #[cfg(target_arch = "x86_64")]
        (Arithmetic::Pairs, Avx2) => {
            use pairs::block_avx2;
            by_height!(block_avx2: 1 2 3 4 5 6);
        }
        #[cfg(target_arch = "aarch64")]
        (Arithmetic::Pairs, Neon) => {
            use pairs::block_neon;
            by_height!(block_neon: 1 2 3 4);
        }
        (Arithmetic::Pairs, Portable) => {
            use pairs::block_portable;
            by_height!(block_portable: 1 2 3 4 5 6);
        }
        (_, other) => unreachable!("{other}: a code path of another architecture"),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
#[allow(unsafe_code)]
unsafe fn block_avx512<const MR: usize>(block: Block) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps};
    let Block { k, a, lda, b, from, ldf, c, ldc } = block;
    // SAFETY: the caller of `block` promises that all of these lie within their matrices.
    unsafe {
        let mut sums = [[_mm512_set1_ps(0.0); 2]; MR];
        for (i, sums) in sums.iter_mut().enumerate() {
            *sums = [_mm512_loadu_ps(from.add(i * ldf)), _mm512_loadu_ps(from.add(i * ldf + 16))];
        }
        for term in 0..k {
            let b0 = _mm512_loadu_ps(b.add(term * 32));
            let b1 = _mm512_loadu_ps(b.add(term * 32 + 16));
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(i * lda + term));
                sums[0] = _mm512_fmadd_ps(a, b0, sums[0]);
                sums[1] = _mm512_fmadd_ps(a, b1, sums[1]);
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            _mm512_storeu_ps(c.add(i * ldc), sums[0]);
            _mm512_storeu_ps(c.add(i * ldc + 16), sums[1]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[allow(unsafe_code)]
unsafe fn block_avx2<const MR: usize>(block: Block) {
    // SAFETY: the caller of `block` promises the shapes.
    unsafe { block_of::<MR, 16, true>(block) }
}

#[allow(unsafe_code)]
unsafe fn block_portable<const MR: usize>(block: Block) {
    // SAFETY: the caller of `block` promises the shapes.
    unsafe { block_of::<MR, 16, PORTABLE_FMA>(block) }
}

/// The register block in a form that compilers turn into lanes.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn block_of<const MR: usize, const NR: usize, const FMA: bool>(block: Block) {
    let Block { k, a, lda, b, from, ldf, c, ldc } = block;
    // SAFETY: the caller promises that all of these lie within their matrices.
    unsafe {
        let mut sums = [[0.0f32; NR]; MR];
        for (i, sums) in sums.iter_mut().enumerate() {
            *sums = *from.add(i * ldf).cast::<[f32; NR]>();
        }
        for term in 0..k {
            let b = &*b.add(term * NR).cast::<[f32; NR]>();
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = *a.add(i * lda + term);
                for (sum, &b) in sums.iter_mut().zip(b) {
                    *sum = fma::<FMA>(a, b, *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            *c.add(i * ldc).cast::<[f32; NR]>() = *sums;
        }
    }
}
