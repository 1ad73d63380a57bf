//! Vectors of eight lanes for x86-64: AVX2 with FMA and F16C, and AVX512-BF16.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::simd8::{Bf16, Bf16Pair, Bf16Pairs, F16, F32, Load, Simd8, WIDTH, delegate_simd8};

// SAFETY, for all that follows: the caller promises the memory, and the instructions of AVX2, FMA and F16C.

impl Simd8 for __m256 {
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        unsafe { _mm256_broadcast_ss(&*from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn fma_scalar(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    #[inline(always)]
    unsafe fn transpose4([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        // Exchanges single numbers, then pairs, in each half.
        unsafe {
            let (ab0, ab1) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd0, cd1) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            [
                _mm256_shuffle_ps::<0x44>(ab0, cd0),
                _mm256_shuffle_ps::<0xee>(ab0, cd0),
                _mm256_shuffle_ps::<0x44>(ab1, cd1),
                _mm256_shuffle_ps::<0xee>(ab1, cd1),
            ]
        }
    }
    #[inline(always)]
    fn prefetch(at: *const u8) {
        // SAFETY: a hint, which never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

/// Eight bytes from each place.
#[inline(always)]
unsafe fn load8x2(low: *const u8, high: *const u8) -> __m128i {
    unsafe { _mm_unpacklo_epi64(_mm_loadl_epi64(low.cast()), _mm_loadl_epi64(high.cast())) }
}

#[inline(always)]
unsafe fn widen(bits: __m128i) -> __m256 {
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits))) }
}

impl Load<__m256> for F32 {
    #[inline(always)]
    unsafe fn load8(from: *const u8, _: *const u8) -> __m256 {
        unsafe { _mm256_loadu_ps(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load4x2(low: *const u8, high: *const u8) -> __m256 {
        unsafe { _mm256_set_m128(_mm_loadu_ps(high.cast()), _mm_loadu_ps(low.cast())) }
    }
}

impl Load<__m256> for Bf16 {
    #[inline(always)]
    unsafe fn load8(from: *const u8, _: *const u8) -> __m256 {
        unsafe { widen(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load4x2(low: *const u8, high: *const u8) -> __m256 {
        unsafe { widen(load8x2(low, high)) }
    }
}

impl Load<__m256> for F16 {
    #[inline(always)]
    unsafe fn load8(from: *const u8, _: *const u8) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load4x2(low: *const u8, high: *const u8) -> __m256 {
        unsafe { _mm256_cvtph_ps(load8x2(low, high)) }
    }
}

impl Bf16Pairs for __m256 {
    #[inline(always)]
    unsafe fn unpack(self) -> (Self, Self) {
        unsafe {
            let (bits, mask) = (_mm256_castps_si256(self), _mm256_set1_epi32(0xffff_0000_u32.cast_signed()));
            let (high, low) = (_mm256_and_si256(bits, mask), _mm256_slli_epi32::<16>(bits));
            (_mm256_castsi256_ps(high), _mm256_castsi256_ps(low))
        }
    }
    #[inline(always)]
    unsafe fn interleave(first: *const u8, second: *const u8) -> Self {
        unsafe {
            let [low, high] = [first, second].map(|from| _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())));
            _mm256_castsi256_ps(_mm256_or_si256(low, _mm256_slli_epi32::<16>(high)))
        }
    }
}

/// Writes the transpose of eight rows of eight numbers.
///
/// # Safety
/// There are eight numbers to read at each source, and eight rows of eight to write; the processor has the
/// instructions.
#[target_feature(enable = "avx2,f16c")]
pub(super) unsafe fn transpose8x8<S: Load<__m256>>(from: [*const u8; WIDTH], to: *mut f32, stride: usize) {
    unsafe {
        let [a, b, c, d, e, f, g, h] = [
            S::load8(from[0], from[0]),
            S::load8(from[1], from[1]),
            S::load8(from[2], from[2]),
            S::load8(from[3], from[3]),
            S::load8(from[4], from[4]),
            S::load8(from[5], from[5]),
            S::load8(from[6], from[6]),
            S::load8(from[7], from[7]),
        ];
        // Exchanges single numbers, then pairs, then fours.
        let (ab0, ab1) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (cd0, cd1) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        let (ef0, ef1) = (_mm256_unpacklo_ps(e, f), _mm256_unpackhi_ps(e, f));
        let (gh0, gh1) = (_mm256_unpacklo_ps(g, h), _mm256_unpackhi_ps(g, h));
        let low = [
            _mm256_shuffle_ps::<0x44>(ab0, cd0),
            _mm256_shuffle_ps::<0xee>(ab0, cd0),
            _mm256_shuffle_ps::<0x44>(ab1, cd1),
            _mm256_shuffle_ps::<0xee>(ab1, cd1),
        ];
        let high = [
            _mm256_shuffle_ps::<0x44>(ef0, gh0),
            _mm256_shuffle_ps::<0xee>(ef0, gh0),
            _mm256_shuffle_ps::<0x44>(ef1, gh1),
            _mm256_shuffle_ps::<0xee>(ef1, gh1),
        ];
        for i in 0..4 {
            _mm256_storeu_ps(to.add(i * stride), _mm256_permute2f128_ps::<0x20>(low[i], high[i]));
            _mm256_storeu_ps(to.add((i + 4) * stride), _mm256_permute2f128_ps::<0x31>(low[i], high[i]));
        }
    }
}

/// Vectors of a processor that multiplies pairs in one instruction.
#[derive(Clone, Copy)]
pub(super) struct NativeDot(__m256);

/// `vdpbf16ps`: adds both products of each pair to `c`.
#[inline]
#[target_feature(enable = "avx512bf16,avx512vl")]
fn dot_native(a: __m256, b: __m256, c: __m256) -> __m256 {
    // SAFETY: both types are 32 bytes of any bits.
    let pairs = |numbers: __m256| unsafe { std::mem::transmute::<__m256, __m256bh>(numbers) };
    _mm256_dpbf16_ps(c, pairs(a), pairs(b))
}

impl Simd8 for NativeDot {
    delegate_simd8!(__m256);
    #[inline(always)]
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
        Self(unsafe { dot_native(a.0, b.0, c.0) })
    }
    #[inline(always)]
    unsafe fn fma_scalar(a: f32, b: f32, c: f32) -> f32 {
        unsafe { _mm256_cvtss_f32(dot_native(_mm256_set1_ps(a), _mm256_set1_ps(b), _mm256_set1_ps(c))) }
    }
}

impl Load<NativeDot> for Bf16Pair {
    #[inline(always)]
    unsafe fn load8(first: *const u8, second: *const u8) -> NativeDot {
        NativeDot(unsafe { __m256::interleave(first, second) })
    }
    #[inline(always)]
    unsafe fn load4x2(low: *const u8, high: *const u8) -> NativeDot {
        NativeDot(unsafe { F32::load4x2(low, high) })
    }
}
