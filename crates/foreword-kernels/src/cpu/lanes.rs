//! Vector loops that are compiled for each code path: with a fixed number of lanes and a fixed order, whatever the path's
//! vector width.

/// Whether the portable path fuses multiply-adds: without the instruction, `mul_add` would be a library call.
pub(super) const PORTABLE_FMA: bool = cfg!(target_arch = "aarch64");

/// Defines `$name`, which runs the inlined generic function `$body` compiled for the given path.
/// `$body` takes the const parameter `FMA` first.
macro_rules! per_path {
    ($(#[$doc:meta])* $vis:vis fn $name:ident = $body:ident($($arg:ident: $kind:ty),* $(,)?) $(-> $result:ty)?) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, unsafe_code)]
        $vis fn $name(path: $crate::cpu::code_path::CodePath, $($arg: $kind),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn avx512($($arg: $kind),*) $(-> $result)? {
                $body::<true>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $kind),*) $(-> $result)? {
                $body::<true>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::cpu::code_path::InstructionSet::{Avx2, Avx512};
                let set = path.instruction_set();
                if set.includes(Avx512) {
                    // SAFETY: a code path exists only if this processor has its instructions.
                    return unsafe { avx512($($arg),*) };
                }
                if set.includes(Avx2) {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            let _ = path;
            $body::<{ $crate::cpu::lanes::PORTABLE_FMA }>($($arg),*)
        }
    };
}
pub(super) use per_path;

/// Lanes of a reduction, on every path.
pub(super) const LANES: usize = 16;

/// a · b + c.
#[inline(always)]
pub(super) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Sum of the lanes, as a fixed tree.
#[inline(always)]
fn fold(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ aᵢ bᵢ.
#[inline(always)]
pub(super) fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] = fma::<FMA>(a[i], b[i], lanes[i]);
        }
    }
    for (i, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] = fma::<FMA>(a, b, lanes[i]);
    }
    fold(lanes)
}

/// Σ f(aᵢ).
#[inline(always)]
pub(super) fn sum(a: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = a.as_chunks::<LANES>();
    for a in chunks {
        for i in 0..LANES {
            lanes[i] += f(a[i]);
        }
    }
    for (i, &a) in rest.iter().enumerate() {
        lanes[i] += f(a);
    }
    fold(lanes)
}

/// y += a x.
#[inline(always)]
pub(super) fn axpy<const FMA: bool>(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = fma::<FMA>(a, x, *y);
    }
}

/// eˣ to about one unit in the last place, without branches so that it vectorises. The argument is reduced by multiples of
/// ln 2 (in two parts); the rest is the Taylor polynomial of degree 7 on ±ln 2 / 2. Below −87.3 the result is 0 or denormal,
/// above 88.7 it is infinite.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 · 2²³ rounds to the nearest integer, which is then in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.3, 88.72);
    let rounded = fma::<FMA>(clamped, LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = fma::<FMA>(n, -LN_2_LOW, fma::<FMA>(n, -LN_2_HIGH, clamped));
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = fma::<FMA>(p, r, c);
    }
    // 2ⁿ in two steps, since n may be 128.
    let n = rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let power = |k: i32| f32::from_bits(((k + 127) as u32) << 23);
    let y = p * power(n >> 1) * power(n - (n >> 1));
    let y = if x > 88.72 { f32::INFINITY } else { y };
    let y = if x < -87.3 { 0.0 } else { y };
    if x.is_nan() { x } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_a_few_units_in_the_last_place() {
        let mut worst = 0f64;
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp::<true>(x)) - exact).abs() / exact);
            worst = worst.max((f64::from(exp::<false>(x)) - exact).abs() / exact);
        }
        assert!(worst < 3e-7, "{worst}");
        assert_eq!((exp::<true>(-1e9), exp::<true>(f32::NEG_INFINITY), exp::<true>(0.0)), (0.0, 0.0, 1.0));
        assert!(exp::<true>(1e9).is_infinite() && exp::<true>(f32::NAN).is_nan());
    }
}
