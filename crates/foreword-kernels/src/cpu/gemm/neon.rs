//! aarch64: eight lanes in two registers, and a microkernel that multiplies by single lanes.

#![allow(unsafe_code)]

use std::arch::aarch64::*;

use half::f16;

use super::simd8::{Bf16, Bf16Pairs, F16, F32, Load, Simd8, WIDTH};
use super::types::RegisterBlock;

/// Eight lanes.
#[derive(Clone, Copy)]
pub(super) struct Neon(float32x4_t, float32x4_t);

/// Registers of a row of the register block.
const REGISTERS: usize = 4;

/// The microkernel in single precision. A register holds four k of a row of `a`, and a multiply-add takes one of its lanes.
/// With six rows, 24 sums, 6 registers of `a` and 2 of `b` fill the 32 registers: 1.22 instructions per multiply-add, and
/// nothing is spilled (counted in the compiled code, never timed).
///
/// # Safety
/// As for [`super::kernel::Kernel::run`].
pub(super) unsafe fn f32<const MR: usize>(block: RegisterBlock) {
    let RegisterBlock { k, a, lda, b, init, ldi, c, ldc } = block;
    // SAFETY: the caller promises that all of these lie within their matrices.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); REGISTERS]; MR];
        for (i, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = vld1q_f32(init.add(i * ldi + v * 4));
            }
        }
        let whole = k - k % 4;
        for p in (0..whole).step_by(4) {
            let mut lhs = [vdupq_n_f32(0.0); MR];
            for (i, lhs) in lhs.iter_mut().enumerate() {
                *lhs = vld1q_f32(a.add(i * lda + p));
            }
            let b = b.add(p * 4 * REGISTERS);
            add_lane::<MR, 0>(&mut sums, lhs, b);
            add_lane::<MR, 1>(&mut sums, lhs, b);
            add_lane::<MR, 2>(&mut sums, lhs, b);
            add_lane::<MR, 3>(&mut sums, lhs, b);
        }
        for p in whole..k {
            let mut lhs = [vdupq_n_f32(0.0); MR];
            for (i, lhs) in lhs.iter_mut().enumerate() {
                *lhs = vld1q_dup_f32(a.add(i * lda + p));
            }
            add_lane::<MR, 0>(&mut sums, lhs, b.add(p * 4 * REGISTERS));
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                vst1q_f32(c.add(i * ldc + v * 4), sum);
            }
        }
    }
}

/// Adds the products of lane `LANE` of `lhs` and row `LANE` of `b`.
///
/// # Safety
/// `b` has more than `LANE` rows.
#[inline(always)]
unsafe fn add_lane<const MR: usize, const LANE: i32>(
    sums: &mut [[float32x4_t; REGISTERS]; MR],
    lhs: [float32x4_t; MR],
    b: *const f32,
) {
    for v in 0..REGISTERS {
        // SAFETY: the caller's promise.
        unsafe {
            let rhs = vld1q_f32(b.add((LANE as usize * REGISTERS + v) * 4));
            for (sums, lhs) in sums.iter_mut().zip(lhs) {
                sums[v] = vfmaq_laneq_f32::<LANE>(sums[v], rhs, lhs);
            }
        }
    }
}

/// The first numbers of four registers, the second ones, and so on.
#[inline]
#[target_feature(enable = "neon")]
fn transposed([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    // Exchanges single numbers, then pairs.
    let (ab0, ab1) = (vtrn1q_f32(a, b), vtrn2q_f32(a, b));
    let (cd0, cd1) = (vtrn1q_f32(c, d), vtrn2q_f32(c, d));
    let [ab0, ab1, cd0, cd1] = [ab0, ab1, cd0, cd1].map(|twos| vreinterpretq_f64_f32(twos));
    let twos = [vtrn1q_f64(ab0, cd0), vtrn1q_f64(ab1, cd1), vtrn2q_f64(ab0, cd0), vtrn2q_f64(ab1, cd1)];
    twos.map(|twos| vreinterpretq_f32_f64(twos))
}

/// Writes the transpose of eight rows of eight numbers.
///
/// # Safety
/// There are eight numbers to read at each source, and eight rows of eight to write.
pub(super) unsafe fn transpose8x8<S: Load<Neon>>(from: [*const u8; WIDTH], to: *mut f32, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let rows = from.map(|from| S::load8(from, from));
        let [a, b, c, d, e, f, g, h] = rows;
        let low = [transposed([a.0, b.0, c.0, d.0]), transposed([e.0, f.0, g.0, h.0])];
        let high = [transposed([a.1, b.1, c.1, d.1]), transposed([e.1, f.1, g.1, h.1])];
        for i in 0..4 {
            Neon(low[0][i], low[1][i]).store(to.add(i * stride));
            Neon(high[0][i], high[1][i]).store(to.add((i + 4) * stride));
        }
    }
}

impl Simd8 for Neon {
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(vld1q_f32(from), vld1q_f32(from.add(4))) }
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        let lanes = unsafe { vld1q_dup_f32(from) };
        Self(lanes, lanes)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            vst1q_f32(to, self.0);
            vst1q_f32(to.add(4), self.1);
        }
    }
    #[inline(always)]
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self(vfmaq_f32(c.0, a.0, b.0), vfmaq_f32(c.1, a.1, b.1)) }
    }
    const FMA_BY_LANE: bool = true;
    #[inline(always)]
    unsafe fn fma_by_lane(lhs: *const f32, b: [Self; 4], c: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let lhs = vld1q_f32(lhs);
            let by_lanes = |c, [b0, b1, b2, b3]: [float32x4_t; 4]| {
                let sum = vfmaq_laneq_f32::<1>(vfmaq_laneq_f32::<0>(c, b0, lhs), b1, lhs);
                vfmaq_laneq_f32::<3>(vfmaq_laneq_f32::<2>(sum, b2, lhs), b3, lhs)
            };
            Self(by_lanes(c.0, b.map(|b| b.0)), by_lanes(c.1, b.map(|b| b.1)))
        }
    }
    #[inline(always)]
    unsafe fn fma_scalar(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    #[inline(always)]
    unsafe fn transpose4([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        // SAFETY: the caller's promise.
        let [low, high] = unsafe { [transposed([a.0, b.0, c.0, d.0]), transposed([a.1, b.1, c.1, d.1])] };
        std::array::from_fn(|i| Self(low[i], high[i]))
    }
    #[inline(always)]
    fn prefetch(at: *const u8) {
        // SAFETY: a hint, which never faults.
        unsafe {
            std::arch::asm!(
                "prfm pldl1keep, [{at}]",
                at = in(reg) at,
                options(nostack, preserves_flags, readonly)
            );
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn widen(bits: uint16x4_t) -> float32x4_t {
    vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(bits)))
}

#[inline]
#[target_feature(enable = "neon")]
fn widen_f16x4(bits: uint16x4_t) -> float32x4_t {
    vcvt_f32_f16(vreinterpret_f16_u16(bits))
}

/// Four numbers of two bytes.
///
/// # Safety
/// They are there to read.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load4(from: *const u8) -> uint16x4_t {
    // SAFETY: the caller's promise.
    vreinterpret_u16_u8(unsafe { vld1_u8(from) })
}

/// Widens as many numbers, by an instruction that all processors have. The library's conversion needs an extension.
pub(super) fn widen_f16(to: &mut [f32], from: &[f16]) {
    let (wide, rest) = to.as_chunks_mut::<4>();
    for (to, from) in wide.iter_mut().zip(from.as_chunks::<4>().0) {
        // SAFETY: there are four numbers on both sides.
        unsafe { vst1q_f32(to.as_mut_ptr(), widen_f16x4(load4(from.as_ptr().cast()))) };
    }
    for (to, from) in rest.iter_mut().zip(&from[wide.len() * 4..]) {
        *to = from.to_f32();
    }
}

impl Load<Neon> for F32 {
    #[inline(always)]
    unsafe fn load8(from: *const u8, _: *const u8) -> Neon {
        // SAFETY: the caller's promise.
        unsafe { Neon::load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load4x2(low: *const u8, high: *const u8) -> Neon {
        // SAFETY: the caller's promise.
        unsafe { Neon(vld1q_f32(low.cast()), vld1q_f32(high.cast())) }
    }
}

impl Load<Neon> for Bf16 {
    #[inline(always)]
    unsafe fn load8(from: *const u8, _: *const u8) -> Neon {
        // SAFETY: the caller's promise.
        unsafe { Self::load4x2(from, from.add(8)) }
    }
    #[inline(always)]
    unsafe fn load4x2(low: *const u8, high: *const u8) -> Neon {
        // SAFETY: the caller's promise.
        unsafe { Neon(widen(load4(low)), widen(load4(high))) }
    }
}

impl Load<Neon> for F16 {
    #[inline(always)]
    unsafe fn load8(from: *const u8, _: *const u8) -> Neon {
        // SAFETY: the caller's promise.
        unsafe { Self::load4x2(from, from.add(8)) }
    }
    #[inline(always)]
    unsafe fn load4x2(low: *const u8, high: *const u8) -> Neon {
        // SAFETY: the caller's promise.
        unsafe { Neon(widen_f16x4(load4(low)), widen_f16x4(load4(high))) }
    }
}

impl Bf16Pairs for Neon {
    #[inline(always)]
    unsafe fn unpack(self) -> (Self, Self) {
        // SAFETY: the caller's promise.
        unsafe {
            let bits = [self.0, self.1].map(|pairs| vreinterpretq_u32_f32(pairs));
            let upper = bits.map(|bits| vreinterpretq_f32_u32(vandq_u32(bits, vdupq_n_u32(0xffff_0000))));
            let lower = bits.map(|bits| vreinterpretq_f32_u32(vshlq_n_u32::<16>(bits)));
            (Self(upper[0], upper[1]), Self(lower[0], lower[1]))
        }
    }
    #[inline(always)]
    unsafe fn interleave(first: *const u8, second: *const u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let [low, high] = [first, second].map(|from| vreinterpretq_u16_u8(vld1q_u8(from)));
            let (first, second) = (vzip1q_u16(low, high), vzip2q_u16(low, high));
            Self(vreinterpretq_f32_u16(first), vreinterpretq_f32_u16(second))
        }
    }
}
