//! Microkernels in single precision.

#![allow(unsafe_code)]

use super::types::RegisterBlock;
use crate::cpu::lanes::{PORTABLE_FMA, fma};

/// # Safety
/// As for [`super::kernel::Kernel::run`]; the processor has AVX-512F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) unsafe fn avx512<const MR: usize>(block: RegisterBlock) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps};
    let RegisterBlock { k, a, lda, b, init, ldi, c, ldc } = block;
    // SAFETY: the caller promises that all of these lie within their matrices.
    unsafe {
        let mut sums = [[_mm512_set1_ps(0.0); 2]; MR];
        for (i, sums) in sums.iter_mut().enumerate() {
            *sums = [_mm512_loadu_ps(init.add(i * ldi)), _mm512_loadu_ps(init.add(i * ldi + 16))];
        }
        for p in 0..k {
            let b0 = _mm512_loadu_ps(b.add(p * 32));
            let b1 = _mm512_loadu_ps(b.add(p * 32 + 16));
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(i * lda + p));
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

/// Defines a microkernel that is [`generic`], compiled for an instruction set.
macro_rules! generic_microkernel {
    ($(#[$attribute:meta])* $name:ident: $nr:literal, $multiply_add:expr) => {
        $(#[$attribute])*
        /// # Safety
        /// As for [`super::kernel::Kernel::run`]; the processor has the instructions.
        pub(super) unsafe fn $name<const MR: usize>(block: RegisterBlock) {
            // SAFETY: the caller's promise.
            unsafe { super::f32::generic::<MR, $nr>(block, $multiply_add) }
        }
    };
}
pub(super) use generic_microkernel;

generic_microkernel!(#[cfg(target_arch = "x86_64")] #[target_feature(enable = "avx2,fma")] avx2: 16, fma::<true>);
generic_microkernel!(portable: 16, fma::<PORTABLE_FMA>);

/// The register block in a form that compilers vectorise. `multiply_add(a, b, c)` takes packed elements.
///
/// # Safety
/// As for [`super::kernel::Kernel::run`].
#[inline(always)]
pub(super) unsafe fn generic<const MR: usize, const NR: usize>(
    block: RegisterBlock,
    multiply_add: impl Fn(f32, f32, f32) -> f32,
) {
    let RegisterBlock { k, a, lda, b, init, ldi, c, ldc } = block;
    // SAFETY: the caller promises that all of these lie within their matrices.
    unsafe {
        let mut sums = [[0.0f32; NR]; MR];
        for (i, sums) in sums.iter_mut().enumerate() {
            *sums = *init.add(i * ldi).cast::<[f32; NR]>();
        }
        for p in 0..k {
            let b = &*b.add(p * NR).cast::<[f32; NR]>();
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = *a.add(i * lda + p);
                for (sum, &b) in sums.iter_mut().zip(b) {
                    *sum = multiply_add(a, b, *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            *c.add(i * ldc).cast::<[f32; NR]>() = *sums;
        }
    }
}
