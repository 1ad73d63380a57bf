//! Quantised numbers in ggml's block layouts: 32 or 256 neighbours of a row share their scales.
//!
//! A row is read in groups of 32, the smallest part that every layout can be read by. A group is plain loops over its bytes,
//! which compilers vectorise for the code path that they are inlined into. Each number is computed as in ggml, `d · q`,
//! `d · q − m` or `d · q + m` with every step rounded to single precision, so it has the same bits everywhere.

mod encode;

use std::ops::Range;

use crate::dtype::Dtype;

/// Numbers of a group.
pub(crate) const GROUP: usize = 32;

/// A half-precision number from its bytes. The library's conversion checks for the processor's instruction every time.
#[inline(always)]
fn half(bytes: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(bytes));
    let sign = (bits & 0x8000) << 16;
    // The exponents of both formats differ by 112 in their bias; a product handles subnormal numbers too.
    let scaled = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(sign | scaled.to_bits() | special)
}

/// Writes the numbers `range` of a row of blocks to `to`.
#[inline(always)]
pub(crate) fn read(dtype: Dtype, row: &[u8], range: Range<usize>, to: &mut [f32]) {
    let mut at = range.start;
    let mut to = &mut to[..range.len()];
    while at < range.end {
        let (group, skip) = (at / GROUP, at % GROUP);
        let n = if skip == 0 && range.end - at >= GROUP {
            let n = (range.end - at) / GROUP;
            read_groups(dtype, row, group..group + n, &mut to[..n * GROUP]);
            n * GROUP
        } else {
            let n = (GROUP - skip).min(range.end - at);
            let mut whole = [0.0; GROUP];
            read_groups(dtype, row, group..group + 1, &mut whole);
            to[..n].copy_from_slice(&whole[skip..skip + n]);
            n
        };
        at += n;
        to = &mut to[n..];
    }
}

/// Writes whole groups of a row.
#[inline(always)]
fn read_groups(dtype: Dtype, row: &[u8], groups: Range<usize>, to: &mut [f32]) {
    let to = to.as_chunks_mut::<GROUP>().0;
    match dtype {
        Dtype::Q8_0 => each::<34, 1>(row, groups, to, |block, _, to| q8_0(block, to)),
        Dtype::Q5_0 => each::<22, 1>(row, groups, to, |block, _, to| q5_0(block, to)),
        Dtype::Q4_0 => each::<18, 1>(row, groups, to, |block, _, to| q4_0(block, to)),
        Dtype::Q4K => each::<144, 8>(row, groups, to, q4_k),
        Dtype::Q5K => each::<176, 8>(row, groups, to, q5_k),
        Dtype::Q6K => each::<210, 8>(row, groups, to, q6_k),
        Dtype::Q5_1 => each::<24, 1>(row, groups, to, |block, _, to| q5_1(block, to)),
        Dtype::Q4_1 => each::<20, 1>(row, groups, to, |block, _, to| q4_1(block, to)),
        Dtype::Iq4Nl => each::<18, 1>(row, groups, to, |block, _, to| iq4_nl(block, to)),
        Dtype::Iq4Xs => each::<136, 8>(row, groups, to, iq4_xs),
        Dtype::Q3K => each::<110, 8>(row, groups, to, q3_k),
        Dtype::Q2K => each::<84, 8>(row, groups, to, q2_k),
        Dtype::Mxfp4 => each::<17, 1>(row, groups, to, |block, _, to| mxfp4(block, to)),
        Dtype::F32 | Dtype::Bf16 | Dtype::F16 => unreachable!("{} has no blocks", dtype.name()),
    }
}

/// Runs `read` with the block of every group, and the group's index in it.
#[inline(always)]
fn each<const BYTES: usize, const GROUPS: usize>(
    row: &[u8],
    groups: Range<usize>,
    to: &mut [[f32; GROUP]],
    read: impl Fn(&[u8; BYTES], usize, &mut [f32; GROUP]),
) {
    let blocks = row.as_chunks::<BYTES>().0;
    for (group, to) in groups.zip(to) {
        read(&blocks[group / GROUPS], group % GROUPS, to);
    }
}

/// A fixed part of a block.
#[inline(always)]
fn part<const N: usize>(block: &[u8], start: usize) -> &[u8; N] {
    block[start..].first_chunk().unwrap_or(&[0; N])
}

#[inline(always)]
fn q8_0(block: &[u8; 34], to: &mut [f32; GROUP]) {
    let d = half(*part(block, 0));
    for (to, &q) in to.iter_mut().zip(part::<GROUP>(block, 2)) {
        *to = d * f32::from(q.cast_signed());
    }
}

#[inline(always)]
fn q5_0(block: &[u8; 22], to: &mut [f32; GROUP]) {
    let d = half(*part(block, 0));
    let high = u32::from_le_bytes(*part(block, 2));
    let q = part::<16>(block, 6);
    for (i, to) in to.iter_mut().enumerate() {
        let low = u32::from(q[i % 16]) >> (i / 16 * 4) & 15;
        *to = d * ((low | (high >> i & 1) << 4).cast_signed() - 16) as f32;
    }
}

#[inline(always)]
fn q4_0(block: &[u8; 18], to: &mut [f32; GROUP]) {
    let d = half(*part(block, 0));
    let (low, high) = to.split_at_mut(16);
    let q = part::<16>(block, 2);
    for (to, &q) in low.iter_mut().zip(q) {
        *to = d * (i32::from(q & 15) - 8) as f32;
    }
    for (to, &q) in high.iter_mut().zip(q) {
        *to = d * (i32::from(q >> 4) - 8) as f32;
    }
}

/// Scale and minimum of group `group`, six bits each: the upper two bits of the last four lie with the first four.
#[inline(always)]
fn six_bits(packed: &[u8; 12], group: usize) -> (f32, f32) {
    let (scale, min) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let (low, at) = (packed[group + 4], group - 4);
        (low & 15 | packed[at] >> 6 << 4, low >> 4 | packed[at + 4] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

#[inline(always)]
fn q4_k(block: &[u8; 144], group: usize, to: &mut [f32; GROUP]) {
    let (scale, min) = six_bits(part(block, 4), group);
    let (d, m) = (half(*part(block, 0)) * scale, half(*part(block, 2)) * min);
    let (q, shift) = (part::<GROUP>(block, 16 + group / 2 * GROUP), group % 2 * 4);
    for (to, &q) in to.iter_mut().zip(q) {
        *to = d * (u32::from(q) >> shift & 15) as f32 - m;
    }
}

#[inline(always)]
fn q5_k(block: &[u8; 176], group: usize, to: &mut [f32; GROUP]) {
    let (scale, min) = six_bits(part(block, 4), group);
    let (d, m) = (half(*part(block, 0)) * scale, half(*part(block, 2)) * min);
    let (high, low) = (part::<GROUP>(block, 16), part::<GROUP>(block, 48 + group / 2 * GROUP));
    let shift = group % 2 * 4;
    for ((to, &low), &high) in to.iter_mut().zip(low).zip(high) {
        let q = u32::from(low) >> shift & 15 | (u32::from(high) >> group & 1) << 4;
        *to = d * q as f32 - m;
    }
}

#[inline(always)]
fn q6_k(block: &[u8; 210], group: usize, to: &mut [f32; GROUP]) {
    let (half_block, quarter) = (group / 4, group % 4);
    let low = part::<GROUP>(block, half_block * 64 + quarter % 2 * GROUP);
    let high = part::<GROUP>(block, 128 + half_block * GROUP);
    let (low_shift, high_shift) = (quarter / 2 * 4, quarter * 2);
    let scale = |i: usize| half(*part(block, 208)) * f32::from(block[192 + group * 2 + i].cast_signed());
    for (i, to) in to.chunks_exact_mut(16).enumerate() {
        let d = scale(i);
        for ((to, &low), &high) in to.iter_mut().zip(&low[i * 16..]).zip(&high[i * 16..]) {
            let q = u32::from(low) >> low_shift & 15 | (u32::from(high) >> high_shift & 3) << 4;
            *to = d * (q.cast_signed() - 32) as f32;
        }
    }
}

#[inline(always)]
fn q5_1(block: &[u8; 24], to: &mut [f32; GROUP]) {
    let (d, m) = (half(*part(block, 0)), half(*part(block, 2)));
    let high = u32::from_le_bytes(*part(block, 4));
    let q = part::<16>(block, 8);
    for (i, to) in to.iter_mut().enumerate() {
        let low = u32::from(q[i % 16]) >> (i / 16 * 4) & 15;
        *to = d * (low | (high >> i & 1) << 4) as f32 + m;
    }
}

#[inline(always)]
fn q4_1(block: &[u8; 20], to: &mut [f32; GROUP]) {
    let (d, m) = (half(*part(block, 0)), half(*part(block, 2)));
    let (low, high) = to.split_at_mut(16);
    let q = part::<16>(block, 4);
    for (to, &q) in low.iter_mut().zip(q) {
        *to = d * f32::from(q & 15) + m;
    }
    for (to, &q) in high.iter_mut().zip(q) {
        *to = d * f32::from(q >> 4) + m;
    }
}

/// The steps of `iq4_nl` and `iq4_xs`: close around zero, wide apart at the ends.
const UNEVEN: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Floating-point numbers of four bits (E2M1), doubled.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Two halves of a group in the low and the high four bits, each an index into `steps`.
#[inline(always)]
fn by_steps(d: f32, steps: &[i8; 16], q: &[u8; 16], to: &mut [f32; GROUP]) {
    let (low, high) = to.split_at_mut(16);
    for (to, &q) in low.iter_mut().zip(q) {
        *to = d * f32::from(steps[usize::from(q & 15)]);
    }
    for (to, &q) in high.iter_mut().zip(q) {
        *to = d * f32::from(steps[usize::from(q >> 4)]);
    }
}

#[inline(always)]
fn iq4_nl(block: &[u8; 18], to: &mut [f32; GROUP]) {
    by_steps(half(*part(block, 0)), &UNEVEN, part(block, 2), to);
}

#[inline(always)]
fn iq4_xs(block: &[u8; 136], group: usize, to: &mut [f32; GROUP]) {
    let high = u16::from_le_bytes(*part(block, 2)) >> (2 * group) & 3;
    let scale = block[4 + group / 2] >> (group % 2 * 4) & 15 | (high as u8) << 4;
    let d = half(*part(block, 0)) * f32::from(scale.cast_signed() - 32);
    by_steps(d, &UNEVEN, part(block, 8 + group * 16), to);
}

#[inline(always)]
fn mxfp4(block: &[u8; 17], to: &mut [f32; GROUP]) {
    // Half of 2^(e − 127), since the steps are doubled. The smallest two are subnormal.
    let e = u32::from(block[0]);
    let d = f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 });
    by_steps(d, &E2M1, part(block, 1), to);
}

#[inline(always)]
fn q3_k(block: &[u8; 110], group: usize, to: &mut [f32; GROUP]) {
    let (high, low) = (part::<GROUP>(block, 0), part::<GROUP>(block, 32 + group / 4 * GROUP));
    let packed = part::<12>(block, 96);
    let d = half(*part(block, 108));
    let low_shift = group % 4 * 2;
    for (half_group, to) in to.chunks_exact_mut(16).enumerate() {
        // Six bits: four in the first eight bytes, the upper two in the last four.
        let i = group * 2 + half_group;
        let scale = packed[i % 8] >> (i / 8 * 4) & 15 | (packed[8 + i % 4] >> (i / 4 * 2) & 3) << 4;
        let d = d * f32::from(scale.cast_signed() - 32);
        let (low, high) = (&low[half_group * 16..], &high[half_group * 16..]);
        for ((to, &low), &high) in to.iter_mut().zip(low).zip(high) {
            // Where the high bit is not set, 4 is subtracted.
            let q = i32::from(low >> low_shift & 3) + i32::from(high >> group & 1) * 4 - 4;
            *to = d * q as f32;
        }
    }
}

#[inline(always)]
fn q2_k(block: &[u8; 84], group: usize, to: &mut [f32; GROUP]) {
    let q = part::<GROUP>(block, 16 + group / 4 * GROUP);
    let (d, m) = (half(*part(block, 80)), half(*part(block, 82)));
    let shift = group % 4 * 2;
    for (half_group, to) in to.chunks_exact_mut(16).enumerate() {
        let scales = block[group * 2 + half_group];
        let (d, m) = (d * f32::from(scales & 15), m * f32::from(scales >> 4));
        for (to, &q) in to.iter_mut().zip(&q[half_group * 16..]) {
            *to = d * f32::from(q >> shift & 3) - m;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_widened_as_the_library_widens_it() {
        for bits in 0..=u16::MAX {
            let (expected, got) = (half::f16::from_bits(bits).to_f32(), half(bits.to_le_bytes()));
            assert!(expected.to_bits() == got.to_bits() || expected.is_nan() && got.is_nan(), "{bits:#x}");
        }
    }
}
