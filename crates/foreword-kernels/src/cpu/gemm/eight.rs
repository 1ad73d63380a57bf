//! Eight numbers at a time: lanes of single precision, and stored numbers widened into them.

#![allow(unsafe_code)]

use half::{bf16, f16};

use crate::cpu::lanes::{PORTABLE_FMA, fma};

/// Lines, or columns, that are worked on at a time.
pub(super) const SIDE: usize = 8;

/// Eight lanes of single precision. The functions are inlined into code that is compiled for a path; all of them need that
/// path's instructions.
pub(super) trait Lanes: Copy {
    /// Eight numbers.
    ///
    /// # Safety
    /// They are there to read; the processor has the instructions.
    unsafe fn load(from: *const f32) -> Self;
    /// One number in every lane.
    ///
    /// # Safety
    /// It is there to read; the processor has the instructions.
    unsafe fn splat(from: *const f32) -> Self;
    /// Writes all lanes.
    ///
    /// # Safety
    /// There is room for eight numbers; the processor has the instructions.
    unsafe fn store(self, to: *mut f32);
    /// a · b + c.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self;
    /// From four numbers of eight lines, where those of line `i` and of line `i + 4` lie side by side in `lines[i]`, to the
    /// first number of every line, the second, and so on.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn turn(lines: [Self; 4]) -> [Self; 4];
    /// Asks for the cache line at `at`, which may be anywhere.
    fn prefetch(at: *const u8);
}

/// A format of stored numbers.
pub(super) trait Format {
    /// Bytes of one.
    const SIZE: usize;
    /// The one at the start of `bytes`, widened.
    fn one(bytes: &[u8]) -> f32;
}

/// A format that is widened into lanes `L`.
pub(super) trait Stored<L>: Format {
    /// Eight of them.
    ///
    /// # Safety
    /// They are there to read; the processor has the instructions of `L`.
    unsafe fn eight(from: *const u8) -> L;
    /// Four from the first place, four from the second.
    ///
    /// # Safety
    /// As for [`Stored::eight`].
    unsafe fn fours(low: *const u8, high: *const u8) -> L;
}

pub(super) struct Single;
pub(super) struct Brain;
pub(super) struct Half;

impl Format for Single {
    const SIZE: usize = 4;
    fn one(bytes: &[u8]) -> f32 {
        bytes.first_chunk().map_or(0.0, |&bytes| f32::from_le_bytes(bytes))
    }
}

impl Format for Brain {
    const SIZE: usize = 2;
    fn one(bytes: &[u8]) -> f32 {
        bytes.first_chunk().map_or(0.0, |&bytes| bf16::from_le_bytes(bytes).to_f32())
    }
}

impl Format for Half {
    const SIZE: usize = 2;
    fn one(bytes: &[u8]) -> f32 {
        bytes.first_chunk().map_or(0.0, |&bytes| f16::from_le_bytes(bytes).to_f32())
    }
}

/// Lanes in a form that compilers turn into those of the target.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; SIDE]);

impl Lanes for Portable {
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; SIDE]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self([unsafe { *from }; SIDE])
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; SIDE]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| fma::<PORTABLE_FMA>(a.0[i], b.0[i], c.0[i])))
    }
    #[inline(always)]
    unsafe fn turn(lines: [Self; 4]) -> [Self; 4] {
        std::array::from_fn(|j| Self(std::array::from_fn(|i| lines[i % 4].0[i / 4 * 4 + j])))
    }
    #[inline(always)]
    fn prefetch(_: *const u8) {}
}

impl Stored<Portable> for Single {
    #[inline(always)]
    unsafe fn eight(from: *const u8) -> Portable {
        // SAFETY: the caller's promise.
        unsafe { Portable::load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn fours(low: *const u8, high: *const u8) -> Portable {
        // SAFETY: the caller's promise.
        let [low, high] = unsafe { [low, high].map(|from| from.cast::<[f32; 4]>().read_unaligned()) };
        Portable(std::array::from_fn(|i| if i < 4 { low[i] } else { high[i - 4] }))
    }
}

impl Stored<Portable> for Brain {
    #[inline(always)]
    unsafe fn eight(from: *const u8) -> Portable {
        // SAFETY: the caller's promise.
        let bits = unsafe { from.cast::<[u16; SIDE]>().read_unaligned() };
        Portable(bits.map(|bits| f32::from_bits(u32::from(bits) << 16)))
    }
    #[inline(always)]
    unsafe fn fours(low: *const u8, high: *const u8) -> Portable {
        // SAFETY: the caller's promise.
        let [low, high] = unsafe { [low, high].map(|from| from.cast::<[u16; 4]>().read_unaligned()) };
        let bits = |i: usize| if i < 4 { low[i] } else { high[i - 4] };
        Portable(std::array::from_fn(|i| f32::from_bits(u32::from(bits(i)) << 16)))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Brain, Half, Lanes, Single, Stored};

    // SAFETY, for all that follows: the caller promises the memory, and the instructions of AVX2, FMA and F16C.

    impl Lanes for __m256 {
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
        unsafe fn turn([a, b, c, d]: [Self; 4]) -> [Self; 4] {
            // Pairs of numbers, then fours change places, in each half.
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
    unsafe fn eights(low: *const u8, high: *const u8) -> __m128i {
        unsafe { _mm_unpacklo_epi64(_mm_loadl_epi64(low.cast()), _mm_loadl_epi64(high.cast())) }
    }

    #[inline(always)]
    unsafe fn widen(bits: __m128i) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits))) }
    }

    impl Stored<__m256> for Single {
        #[inline(always)]
        unsafe fn eight(from: *const u8) -> __m256 {
            unsafe { _mm256_loadu_ps(from.cast()) }
        }
        #[inline(always)]
        unsafe fn fours(low: *const u8, high: *const u8) -> __m256 {
            unsafe { _mm256_set_m128(_mm_loadu_ps(high.cast()), _mm_loadu_ps(low.cast())) }
        }
    }

    impl Stored<__m256> for Brain {
        #[inline(always)]
        unsafe fn eight(from: *const u8) -> __m256 {
            unsafe { widen(_mm_loadu_si128(from.cast())) }
        }
        #[inline(always)]
        unsafe fn fours(low: *const u8, high: *const u8) -> __m256 {
            unsafe { widen(eights(low, high)) }
        }
    }

    impl Stored<__m256> for Half {
        #[inline(always)]
        unsafe fn eight(from: *const u8) -> __m256 {
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }
        #[inline(always)]
        unsafe fn fours(low: *const u8, high: *const u8) -> __m256 {
            unsafe { _mm256_cvtph_ps(eights(low, high)) }
        }
    }
}
