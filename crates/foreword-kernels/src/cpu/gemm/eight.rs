//! Eight numbers at a time: lanes of single precision, and stored numbers widened into them; or eight units of two bf16 numbers,
//! which a lane takes as they are ([`super::pairs`]).

#![allow(unsafe_code)]

use half::bf16;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use half::f16;

use super::pairs::halves;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::cpu::code_path::{CodePath, InstructionSet};
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
    /// a · b + c; of units, the sum of both their products and c.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self;
    /// Whether [`Self::add_fours`] is the better way to several terms of a row.
    const BY_LANE: bool = false;
    /// Adds the products of four numbers, each in every lane, with as many `b`, one after another.
    ///
    /// # Safety
    /// The numbers are there to read; the processor has the instructions.
    #[inline(always)]
    unsafe fn add_fours(left: *const f32, b: [Self; 4], c: Self) -> Self {
        let mut sum = c;
        for (term, b) in b.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            sum = unsafe { Self::fma(Self::splat(left.add(term)), b, sum) };
        }
        sum
    }
    /// The same of one number or unit, to the same bits.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn fma_one(a: f32, b: f32, c: f32) -> f32;
    /// From four numbers of eight lines, where those of line `i` and of line `i + 4` lie side by side in `lines[i]`, to the
    /// first number of every line, the second, and so on.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn turn(lines: [Self; 4]) -> [Self; 4];
    /// Asks for the cache line at `at`, which may be anywhere.
    fn prefetch(at: *const u8);
}

/// A format of stored numbers, and the units in which they are multiplied: single ones, widened, or pairs.
pub(super) trait Format {
    /// Bytes of a stored number.
    const STORED: usize;
    /// Terms of a unit.
    const TERMS: usize = 1;
    /// Bytes of a unit in a line.
    const SIZE: usize = Self::STORED * Self::TERMS;
    /// The unit at the start of `bytes`; the second term of one that ends early is zero.
    fn one(bytes: &[u8]) -> f32;
    /// The unit of the numbers at the start of both: of the first alone where units are single numbers.
    fn beside(first: &[u8], _: &[u8]) -> f32 {
        Self::one(first)
    }
}

/// A format whose units are taken into lanes `L`.
pub(super) trait Stored<L>: Format {
    /// Eight units: of the numbers at the first place alone, or each with its neighbour at the second.
    ///
    /// # Safety
    /// Eight numbers are there to read at both; the processor has the instructions of `L`.
    unsafe fn eight(from: *const u8, beside: *const u8) -> L;
    /// Four units from the first place, four from the second.
    ///
    /// # Safety
    /// They are there to read; the processor has the instructions of `L`.
    unsafe fn fours(low: *const u8, high: *const u8) -> L;
}

pub(super) struct Single;
pub(super) struct Brain;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) struct Half;
/// Two bf16 numbers.
pub(super) struct Pair;

impl Format for Single {
    const STORED: usize = 4;
    fn one(bytes: &[u8]) -> f32 {
        bytes.first_chunk().map_or(0.0, |&bytes| f32::from_le_bytes(bytes))
    }
}

impl Format for Brain {
    const STORED: usize = 2;
    fn one(bytes: &[u8]) -> f32 {
        bytes.first_chunk().map_or(0.0, |&bytes| bf16::from_le_bytes(bytes).to_f32())
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl Format for Half {
    const STORED: usize = 2;
    fn one(bytes: &[u8]) -> f32 {
        bytes.first_chunk().map_or(0.0, |&bytes| f16::from_le_bytes(bytes).to_f32())
    }
}

impl Format for Pair {
    const STORED: usize = 2;
    const TERMS: usize = 2;
    fn one(bytes: &[u8]) -> f32 {
        Self::beside(bytes, bytes.get(2..).unwrap_or_default())
    }
    fn beside(first: &[u8], second: &[u8]) -> f32 {
        let bits =
            |bytes: &[u8]| bytes.first_chunk().map_or(0, |&bytes| u32::from(u16::from_le_bytes(bytes)));
        f32::from_bits(bits(first) | bits(second) << 16)
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
    unsafe fn fma_one(a: f32, b: f32, c: f32) -> f32 {
        fma::<PORTABLE_FMA>(a, b, c)
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
    unsafe fn eight(from: *const u8, _: *const u8) -> Portable {
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
    unsafe fn eight(from: *const u8, _: *const u8) -> Portable {
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

/// Lanes that multiply units by two multiply-adds.
#[derive(Clone, Copy)]
pub(super) struct Units<L>(L);

/// Lanes that can take units apart.
pub(super) trait Halves: Lanes {
    /// The later and the earlier number of each unit.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn halves(self) -> (Self, Self);
    /// Units of eight numbers each at the two places.
    ///
    /// # Safety
    /// They are there to read; the processor has the instructions.
    unsafe fn zip(first: *const u8, second: *const u8) -> Self;
}

impl<L: Halves> Lanes for Units<L> {
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { L::load(from) })
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { L::splat(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { self.0.store(to) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let (a, b) = (a.0.halves(), b.0.halves());
            Self(L::fma(a.1, b.1, L::fma(a.0, b.0, c.0)))
        }
    }
    #[inline(always)]
    unsafe fn fma_one(a: f32, b: f32, c: f32) -> f32 {
        let (a, b) = (halves(a), halves(b));
        // SAFETY: the caller's promise.
        unsafe { L::fma_one(a.1, b.1, L::fma_one(a.0, b.0, c)) }
    }
    #[inline(always)]
    unsafe fn turn(lines: [Self; 4]) -> [Self; 4] {
        // SAFETY: the caller's promise.
        unsafe { L::turn(lines.map(|line| line.0)) }.map(Self)
    }
    #[inline(always)]
    fn prefetch(at: *const u8) {
        L::prefetch(at);
    }
}

impl<L: Halves> Stored<Units<L>> for Pair
where
    Single: Stored<L>,
{
    #[inline(always)]
    unsafe fn eight(from: *const u8, beside: *const u8) -> Units<L> {
        // SAFETY: the caller's promise.
        Units(unsafe { L::zip(from, beside) })
    }
    #[inline(always)]
    unsafe fn fours(low: *const u8, high: *const u8) -> Units<L> {
        // SAFETY: the caller's promise. A unit moves as a number of its size.
        Units(unsafe { Single::fours(low, high) })
    }
}

impl Halves for Portable {
    #[inline(always)]
    unsafe fn halves(self) -> (Self, Self) {
        (Self(self.0.map(|unit| halves(unit).0)), Self(self.0.map(|unit| halves(unit).1)))
    }
    #[inline(always)]
    unsafe fn zip(first: *const u8, second: *const u8) -> Self {
        // SAFETY: the caller's promise.
        let [low, high] = unsafe { [first, second].map(|from| from.cast::<[u16; SIDE]>().read_unaligned()) };
        Self(std::array::from_fn(|i| f32::from_bits(u32::from(low[i]) | u32::from(high[i]) << 16)))
    }
}

/// Proof that this processor has the instructions of [`Eight`].
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[derive(Clone, Copy)]
pub(super) struct EightLanes(());

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl EightLanes {
    /// Of every path but the portable one.
    pub(super) fn of(path: CodePath) -> Option<Self> {
        use InstructionSet::{Amx, Avx2, Avx512, Avx512Bf16, Neon, Portable};
        match path.instruction_set() {
            Amx | Avx512Bf16 | Avx512 | Avx2 | Neon => Some(Self(())),
            Portable => None,
        }
    }
}

/// The lanes of this architecture.
#[cfg(target_arch = "x86_64")]
pub(super) type Eight = std::arch::x86_64::__m256;
#[cfg(target_arch = "aarch64")]
pub(super) use super::neon::{Neon as Eight, square};
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Native, square};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Brain, Half, Halves, Lanes, Pair, SIDE, Single, Stored};

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
        unsafe fn fma_one(a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
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
        unsafe fn eight(from: *const u8, _: *const u8) -> __m256 {
            unsafe { _mm256_loadu_ps(from.cast()) }
        }
        #[inline(always)]
        unsafe fn fours(low: *const u8, high: *const u8) -> __m256 {
            unsafe { _mm256_set_m128(_mm_loadu_ps(high.cast()), _mm_loadu_ps(low.cast())) }
        }
    }

    impl Stored<__m256> for Brain {
        #[inline(always)]
        unsafe fn eight(from: *const u8, _: *const u8) -> __m256 {
            unsafe { widen(_mm_loadu_si128(from.cast())) }
        }
        #[inline(always)]
        unsafe fn fours(low: *const u8, high: *const u8) -> __m256 {
            unsafe { widen(eights(low, high)) }
        }
    }

    impl Stored<__m256> for Half {
        #[inline(always)]
        unsafe fn eight(from: *const u8, _: *const u8) -> __m256 {
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }
        #[inline(always)]
        unsafe fn fours(low: *const u8, high: *const u8) -> __m256 {
            unsafe { _mm256_cvtph_ps(eights(low, high)) }
        }
    }

    impl Halves for __m256 {
        #[inline(always)]
        unsafe fn halves(self) -> (Self, Self) {
            unsafe {
                let (bits, mask) =
                    (_mm256_castps_si256(self), _mm256_set1_epi32(0xffff_0000_u32.cast_signed()));
                let (high, low) = (_mm256_and_si256(bits, mask), _mm256_slli_epi32::<16>(bits));
                (_mm256_castsi256_ps(high), _mm256_castsi256_ps(low))
            }
        }
        #[inline(always)]
        unsafe fn zip(first: *const u8, second: *const u8) -> Self {
            unsafe {
                let [low, high] =
                    [first, second].map(|from| _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())));
                _mm256_castsi256_ps(_mm256_or_si256(low, _mm256_slli_epi32::<16>(high)))
            }
        }
    }

    /// Row `i` of the target becomes number `i` of each source.
    ///
    /// # Safety
    /// Eight numbers are there to read at each source, and eight rows of eight to write at the target; the processor has the
    /// instructions.
    #[target_feature(enable = "avx2,f16c")]
    pub(in crate::cpu::gemm) unsafe fn square<S: Stored<__m256>>(
        from: [*const u8; SIDE],
        to: *mut f32,
        stride: usize,
    ) {
        unsafe {
            let [a, b, c, d, e, f, g, h] = [
                S::eight(from[0], from[0]),
                S::eight(from[1], from[1]),
                S::eight(from[2], from[2]),
                S::eight(from[3], from[3]),
                S::eight(from[4], from[4]),
                S::eight(from[5], from[5]),
                S::eight(from[6], from[6]),
                S::eight(from[7], from[7]),
            ];
            // Pairs of numbers, then fours, then eights change places.
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

    /// Lanes of a processor that multiplies units by itself.
    #[derive(Clone, Copy)]
    pub(in crate::cpu::gemm) struct Native(__m256);

    /// The one instruction that cannot run everywhere: the products of both terms of each unit are added to `c`.
    #[inline]
    #[target_feature(enable = "avx512bf16,avx512vl")]
    fn dot_native(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: both types are 32 bytes of any bits.
        let units = |numbers: __m256| unsafe { std::mem::transmute::<__m256, __m256bh>(numbers) };
        _mm256_dpbf16_ps(c, units(a), units(b))
    }

    impl Lanes for Native {
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { __m256::load(from) })
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            Self(unsafe { __m256::splat(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { self.0.store(to) }
        }
        #[inline(always)]
        unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
            Self(unsafe { dot_native(a.0, b.0, c.0) })
        }
        #[inline(always)]
        unsafe fn fma_one(a: f32, b: f32, c: f32) -> f32 {
            unsafe { _mm256_cvtss_f32(dot_native(_mm256_set1_ps(a), _mm256_set1_ps(b), _mm256_set1_ps(c))) }
        }
        #[inline(always)]
        unsafe fn turn(lines: [Self; 4]) -> [Self; 4] {
            unsafe { __m256::turn(lines.map(|line| line.0)) }.map(Self)
        }
        #[inline(always)]
        fn prefetch(at: *const u8) {
            __m256::prefetch(at);
        }
    }

    impl Stored<Native> for Pair {
        #[inline(always)]
        unsafe fn eight(from: *const u8, beside: *const u8) -> Native {
            Native(unsafe { __m256::zip(from, beside) })
        }
        #[inline(always)]
        unsafe fn fours(low: *const u8, high: *const u8) -> Native {
            Native(unsafe { Single::fours(low, high) })
        }
    }
}
