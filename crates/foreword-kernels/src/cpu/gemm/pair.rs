//! A pair of bf16 numbers of neighbouring k as one packed element: the earlier number in the lower half.

use crate::cpu::lanes::fma;

/// Both numbers rounded to nearest even, as bits.
#[inline(always)]
pub(super) fn pack(low: f32, high: f32) -> u32 {
    // A NaN keeps its upper bits and one more, so that it stays one.
    let round = |value: f32| {
        let bits = value.to_bits();
        let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
        (if is_nan { bits | 0x0040_0000 } else { up }) >> 16
    };
    round(low) | round(high) << 16
}

/// The later and the earlier number.
#[inline(always)]
pub(super) fn unpack(pair: f32) -> (f32, f32) {
    let bits = pair.to_bits();
    (f32::from_bits(bits & 0xffff_0000), f32::from_bits(bits << 16))
}

/// a₁ b₁ + a₀ b₀ + c: the later product is added first.
#[inline(always)]
pub(super) fn dot<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    let (a, b) = (unpack(a), unpack(b));
    fma::<FMA>(a.1, b.1, fma::<FMA>(a.0, b.0, c))
}
