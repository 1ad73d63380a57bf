//! Vectors of eight lanes, and how stored numbers are loaded into them: widened to single precision, or as pairs of bf16
//! numbers ([`super::pair`]).

#![allow(unsafe_code)]

use half::bf16;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use half::f16;

use super::pair::unpack;
use crate::cpu::lanes::{PORTABLE_FMA, fma};

/// Lanes of a vector.
pub(super) const WIDTH: usize = 8;

/// Eight packed elements. The functions are inlined into code that is compiled for a code path, and all of them need its
/// instructions.
pub(super) trait Simd8: Copy {
    /// Loads eight elements.
    ///
    /// # Safety
    /// There are eight to read; the processor has the instructions.
    unsafe fn load(from: *const f32) -> Self;
    /// One element in every lane.
    ///
    /// # Safety
    /// There is one to read; the processor has the instructions.
    unsafe fn splat(from: *const f32) -> Self;
    /// Writes all lanes.
    ///
    /// # Safety
    /// There is room for eight numbers; the processor has the instructions.
    unsafe fn store(self, to: *mut f32);
    /// a · b + c; for pairs, the sum of both products and c.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self;
    /// Whether [`Self::fma_by_lane`] is faster than four of [`Self::fma`].
    const FMA_BY_LANE: bool = false;
    /// Adds the products of four consecutive elements, each in every lane, with as many `b`, one after another.
    ///
    /// # Safety
    /// The elements are there to read; the processor has the instructions.
    #[inline(always)]
    unsafe fn fma_by_lane(lhs: *const f32, b: [Self; 4], c: Self) -> Self {
        let mut sum = c;
        for (p, b) in b.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            sum = unsafe { Self::fma(Self::splat(lhs.add(p)), b, sum) };
        }
        sum
    }
    /// [`Self::fma`] of one lane, to the same bits.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn fma_scalar(a: f32, b: f32, c: f32) -> f32;
    /// Transposes four elements of eight rows: `rows[i]` holds those of row `i`, then those of row `i + 4`. The result is the
    /// first element of every row, the second, and so on.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn transpose4(rows: [Self; 4]) -> [Self; 4];
    /// Prefetches the cache line at `at`, which may be any address.
    fn prefetch(at: *const u8);
}

/// A stored format, and the packed elements that it is multiplied in: single numbers, widened, or pairs.
pub(super) trait Format {
    /// Bytes of a stored number.
    const BYTES: usize;
    /// Numbers of a packed element.
    const K_PER_ELEMENT: usize = 1;
    /// Bytes of an element in a row.
    const ELEMENT_BYTES: usize = Self::BYTES * Self::K_PER_ELEMENT;
    /// The element at the start of `bytes`. A pair that ends early has zero as its second number.
    fn scalar(bytes: &[u8]) -> f32;
    /// The element of the numbers at the start of both: of the first alone if elements are single numbers.
    fn scalar_pair(first: &[u8], _: &[u8]) -> f32 {
        Self::scalar(first)
    }
}

/// A format that is loaded into vectors `V`.
pub(super) trait Load<V>: Format {
    /// Eight elements: the numbers at the first place alone, or each paired with the number at the second.
    ///
    /// # Safety
    /// There are eight numbers to read at both; the processor has the instructions of `V`.
    unsafe fn load8(first: *const u8, second: *const u8) -> V;
    /// Four elements from the first place, four from the second.
    ///
    /// # Safety
    /// They are there to read; the processor has the instructions of `V`.
    unsafe fn load4x2(low: *const u8, high: *const u8) -> V;
}

pub(super) struct F32;
pub(super) struct Bf16;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) struct F16;
/// A pair of bf16 numbers.
pub(super) struct Bf16Pair;

impl Format for F32 {
    const BYTES: usize = 4;
    fn scalar(bytes: &[u8]) -> f32 {
        bytes.first_chunk().map_or(0.0, |&bytes| f32::from_le_bytes(bytes))
    }
}

impl Format for Bf16 {
    const BYTES: usize = 2;
    fn scalar(bytes: &[u8]) -> f32 {
        bytes.first_chunk().map_or(0.0, |&bytes| bf16::from_le_bytes(bytes).to_f32())
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl Format for F16 {
    const BYTES: usize = 2;
    fn scalar(bytes: &[u8]) -> f32 {
        bytes.first_chunk().map_or(0.0, |&bytes| f16::from_le_bytes(bytes).to_f32())
    }
}

impl Format for Bf16Pair {
    const BYTES: usize = 2;
    const K_PER_ELEMENT: usize = 2;
    fn scalar(bytes: &[u8]) -> f32 {
        Self::scalar_pair(bytes, bytes.get(2..).unwrap_or_default())
    }
    fn scalar_pair(first: &[u8], second: &[u8]) -> f32 {
        let bits =
            |bytes: &[u8]| bytes.first_chunk().map_or(0, |&bytes| u32::from(u16::from_le_bytes(bytes)));
        f32::from_bits(bits(first) | bits(second) << 16)
    }
}

/// Eight lanes in a form that compilers vectorise.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; WIDTH]);

impl Simd8 for Portable {
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; WIDTH]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self([unsafe { *from }; WIDTH])
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; WIDTH]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| fma::<PORTABLE_FMA>(a.0[i], b.0[i], c.0[i])))
    }
    #[inline(always)]
    unsafe fn fma_scalar(a: f32, b: f32, c: f32) -> f32 {
        fma::<PORTABLE_FMA>(a, b, c)
    }
    #[inline(always)]
    unsafe fn transpose4(rows: [Self; 4]) -> [Self; 4] {
        std::array::from_fn(|j| Self(std::array::from_fn(|i| rows[i % 4].0[i / 4 * 4 + j])))
    }
    #[inline(always)]
    fn prefetch(_: *const u8) {}
}

impl Load<Portable> for F32 {
    #[inline(always)]
    unsafe fn load8(from: *const u8, _: *const u8) -> Portable {
        // SAFETY: the caller's promise.
        unsafe { Portable::load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load4x2(low: *const u8, high: *const u8) -> Portable {
        // SAFETY: the caller's promise.
        let [low, high] = unsafe { [low, high].map(|from| from.cast::<[f32; 4]>().read_unaligned()) };
        Portable(std::array::from_fn(|i| if i < 4 { low[i] } else { high[i - 4] }))
    }
}

impl Load<Portable> for Bf16 {
    #[inline(always)]
    unsafe fn load8(from: *const u8, _: *const u8) -> Portable {
        // SAFETY: the caller's promise.
        let bits = unsafe { from.cast::<[u16; WIDTH]>().read_unaligned() };
        Portable(bits.map(|bits| f32::from_bits(u32::from(bits) << 16)))
    }
    #[inline(always)]
    unsafe fn load4x2(low: *const u8, high: *const u8) -> Portable {
        // SAFETY: the caller's promise.
        let [low, high] = unsafe { [low, high].map(|from| from.cast::<[u16; 4]>().read_unaligned()) };
        let bits = |i: usize| if i < 4 { low[i] } else { high[i - 4] };
        Portable(std::array::from_fn(|i| f32::from_bits(u32::from(bits(i)) << 16)))
    }
}

/// Defines the methods of [`Simd8`] that a wrapper of `$inner` delegates.
macro_rules! delegate_simd8 {
    ($inner:ty) => {
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller's promise.
            Self(unsafe { <$inner>::load(from) })
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: the caller's promise.
            Self(unsafe { <$inner>::splat(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe { self.0.store(to) }
        }
        #[inline(always)]
        unsafe fn transpose4(rows: [Self; 4]) -> [Self; 4] {
            // SAFETY: the caller's promise.
            unsafe { <$inner>::transpose4(rows.map(|row| row.0)) }.map(Self)
        }
        #[inline(always)]
        fn prefetch(at: *const u8) {
            <$inner>::prefetch(at);
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use delegate_simd8;

/// Vectors that multiply pairs by two multiply-adds.
#[derive(Clone, Copy)]
pub(super) struct EmulatedDot<V>(V);

/// Vectors that can hold pairs of bf16 numbers.
pub(super) trait Bf16Pairs: Simd8 {
    /// The later and the earlier number of each pair.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn unpack(self) -> (Self, Self);
    /// Pairs of the eight numbers at each of two places.
    ///
    /// # Safety
    /// They are there to read; the processor has the instructions.
    unsafe fn interleave(first: *const u8, second: *const u8) -> Self;
}

impl<V: Bf16Pairs> Simd8 for EmulatedDot<V> {
    delegate_simd8!(V);
    #[inline(always)]
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let (a, b) = (a.0.unpack(), b.0.unpack());
            Self(V::fma(a.1, b.1, V::fma(a.0, b.0, c.0)))
        }
    }
    #[inline(always)]
    unsafe fn fma_scalar(a: f32, b: f32, c: f32) -> f32 {
        let (a, b) = (unpack(a), unpack(b));
        // SAFETY: the caller's promise.
        unsafe { V::fma_scalar(a.1, b.1, V::fma_scalar(a.0, b.0, c)) }
    }
}

impl<V: Bf16Pairs> Load<EmulatedDot<V>> for Bf16Pair
where
    F32: Load<V>,
{
    #[inline(always)]
    unsafe fn load8(first: *const u8, second: *const u8) -> EmulatedDot<V> {
        // SAFETY: the caller's promise.
        EmulatedDot(unsafe { V::interleave(first, second) })
    }
    #[inline(always)]
    unsafe fn load4x2(low: *const u8, high: *const u8) -> EmulatedDot<V> {
        // SAFETY: the caller's promise. A pair moves as a number of its size.
        EmulatedDot(unsafe { F32::load4x2(low, high) })
    }
}

impl Bf16Pairs for Portable {
    #[inline(always)]
    unsafe fn unpack(self) -> (Self, Self) {
        (Self(self.0.map(|pair| unpack(pair).0)), Self(self.0.map(|pair| unpack(pair).1)))
    }
    #[inline(always)]
    unsafe fn interleave(first: *const u8, second: *const u8) -> Self {
        // SAFETY: the caller's promise.
        let [low, high] = unsafe { [first, second].map(|from| from.cast::<[u16; WIDTH]>().read_unaligned()) };
        Self(std::array::from_fn(|i| f32::from_bits(u32::from(low[i]) | u32::from(high[i]) << 16)))
    }
}
