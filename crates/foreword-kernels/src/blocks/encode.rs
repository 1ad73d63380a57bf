//! Encodes numbers in the stored formats. Scales of block formats are chosen as in ggml: the smallest weighted error among a
//! few candidates near the full range.

use half::{bf16, f16};
use rayon::prelude::*;

use super::{GROUP, half};
use crate::dtype::Dtype;

/// Numbers of the larger blocks.
const SUPER: usize = 256;
/// A group with no larger number counts as zero.
const ZERO_GROUP: f32 = 1e-15;

impl Dtype {
    /// Whether [`Self::encode`] writes this format. The others are only read.
    #[must_use]
    pub const fn is_written(self) -> bool {
        !matches!(
            self,
            Self::Q5_1 | Self::Q4_1 | Self::Iq4Nl | Self::Iq4Xs | Self::Q3K | Self::Q2K | Self::Mxfp4
        )
    }

    /// `values` in this format; `None` if they are not a whole number of blocks, or the format is only read.
    #[must_use]
    pub fn encode(self, values: &[f32]) -> Option<Vec<u8>> {
        if !self.is_written() {
            return None;
        }
        let (numbers, size) = self.block();
        let mut bytes = vec![0; self.bytes(values.len())?];
        let blocks = values.par_chunks_exact(numbers).zip(bytes.par_chunks_exact_mut(size));
        blocks.with_min_len(4096 / numbers).for_each(|(from, to)| match self {
            Self::F32 => to.copy_from_slice(&from[0].to_le_bytes()),
            Self::Bf16 => to.copy_from_slice(&bf16::from_f32(from[0]).to_le_bytes()),
            Self::F16 => to.copy_from_slice(&f16::from_f32(from[0]).to_le_bytes()),
            Self::Q8_0 => q8_0(from, to),
            Self::Q5_0 => q5_0(from, to),
            Self::Q4_0 => q4_0(from, to),
            Self::Q4K => with_minima(from, to, &FOUR_BITS),
            Self::Q5K => with_minima(from, to, &FIVE_BITS),
            Self::Q6K => q6_k(from, to),
            Self::Q5_1 | Self::Q4_1 | Self::Iq4Nl | Self::Iq4Xs | Self::Q3K | Self::Q2K | Self::Mxfp4 => {}
        });
        Some(bytes)
    }
}

/// Writes `value` in half precision and returns the rounded value.
fn write_half(value: f32, to: &mut [u8]) -> f32 {
    let bytes = f16::from_f32(value).to_le_bytes();
    to.copy_from_slice(&bytes);
    half(bytes)
}

/// 1 / `value`, or 0.
fn inverse(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { 1.0 / value }
}

fn q8_0(from: &[f32], to: &mut [u8]) {
    let d = from.iter().fold(0.0f32, |most, v| most.max(v.abs())) / 127.0;
    write_half(d, &mut to[..2]);
    let steps = inverse(d);
    for (to, from) in to[2..].iter_mut().zip(from) {
        *to = ((from * steps).round() as i8).cast_unsigned();
    }
}

/// The number that is farthest from zero, the first of several.
fn farthest(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |most, &v| if v.abs() > most.abs() { v } else { most })
}

fn q4_0(from: &[f32], to: &mut [u8]) {
    let d = farthest(from) / -8.0;
    write_half(d, &mut to[..2]);
    let steps = inverse(d);
    let q = |value: f32| (value * steps + 8.5).clamp(0.0, 15.0) as u8;
    for (i, to) in to[2..].iter_mut().enumerate() {
        *to = q(from[i]) | q(from[i + 16]) << 4;
    }
}

fn q5_0(from: &[f32], to: &mut [u8]) {
    let d = farthest(from) / -16.0;
    write_half(d, &mut to[..2]);
    let steps = inverse(d);
    let q = |i: usize| (from[i] * steps + 16.5).clamp(0.0, 31.0) as u8;
    let high = (0..GROUP).fold(0u32, |bits, i| bits | u32::from(q(i) >> 4) << i);
    to[2..6].copy_from_slice(&high.to_le_bytes());
    for (i, to) in to[6..].iter_mut().enumerate() {
        *to = q(i) & 15 | (q(i + 16) & 15) << 4;
    }
}

/// A format of groups of 32, each with a scale and a minimum, and the candidates for the scale.
struct WithMinima {
    /// The largest quotient.
    max: f32,
    /// Candidates divide the range by `max + first`, `max + first + 0.1`, …
    first: f32,
    /// Number of candidates.
    tries: usize,
}

const FOUR_BITS: WithMinima = WithMinima { max: 15.0, first: -1.0, tries: 21 };
const FIVE_BITS: WithMinima = WithMinima { max: 31.0, first: -0.5, tries: 16 };

/// A line through quotients: `scale · q + low`.
#[derive(Clone, Copy)]
struct Line {
    scale: f32,
    low: f32,
}

impl Line {
    /// The sum of weighted squares by which it misses.
    fn error(self, values: &[f32], weight: impl Fn(f32) -> f32, quotient: impl Fn(f32) -> f32) -> f32 {
        let one = |&v: &f32| {
            let off = self.scale * quotient(v) + self.low - v;
            weight(v) * off * off
        };
        values.iter().map(one).sum()
    }
}

impl WithMinima {
    fn quotient(&self, value: f32) -> f32 {
        value.round_ties_even().clamp(0.0, self.max)
    }

    /// The line of least weighted error; numbers that are larger weigh more. Its low end is at most zero.
    fn search(&self, values: &[f32]) -> Line {
        let mean_square = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        let usual = mean_square.sqrt();
        let weight = |v: f32| usual + v.abs();
        let (low, high) =
            values.iter().fold((0.0f32, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
        if high <= low {
            return Line { scale: 0.0, low };
        }
        let plain = self.max / (high - low);
        let mut best = Line { scale: 1.0 / plain, low };
        let mut least = best.error(values, weight, |v| self.quotient(plain * (v - low)));
        for i in 0..self.tries {
            // From the best line's low end, which moves the range.
            let low = best.low;
            let steps = (self.first + 0.1 * i as f32 + self.max) / (high - low);
            let quotient = |v: f32| self.quotient(steps * (v - low));
            if let Some(line) = fit(values, weight, quotient) {
                let error = line.error(values, weight, quotient);
                if error < least {
                    (best, least) = (line, error);
                }
            }
        }
        best
    }
}

/// The line of least weighted squares through quotients.
fn fit(values: &[f32], weight: impl Fn(f32) -> f32, quotient: impl Fn(f32) -> f32) -> Option<Line> {
    let (mut w, mut x, mut l, mut ll, mut xl) = (0.0f32, 0.0f32, 0.0f32, 0.0f32, 0.0f32);
    for &value in values {
        let (weight, q) = (weight(value), quotient(value));
        w += weight;
        x += weight * value;
        l += weight * q;
        ll += weight * q * q;
        xl += weight * value * q;
    }
    let determinant = w * ll - l * l;
    if determinant <= 0.0 {
        return None;
    }
    let low = (ll * x - l * xl) / determinant;
    // The low end can't be positive: then the line goes through zero.
    Some(if low > 0.0 {
        Line { scale: xl / ll, low: 0.0 }
    } else {
        Line { scale: (w * xl - x * l) / determinant, low }
    })
}

/// Scales and minima of eight groups in six bits each.
fn pack_six_bits(scales: [u8; 8], minima: [u8; 8], to: &mut [u8]) {
    for i in 0..4 {
        to[i] = scales[i] | scales[i + 4] >> 4 << 6;
        to[i + 4] = minima[i] | minima[i + 4] >> 4 << 6;
        to[i + 8] = scales[i + 4] & 15 | (minima[i + 4] & 15) << 4;
    }
}

fn with_minima(from: &[f32], to: &mut [u8], format: &WithMinima) {
    let groups = from.as_chunks::<GROUP>().0;
    let mut lines = [Line { scale: 0.0, low: 0.0 }; SUPER / GROUP];
    for (line, group) in lines.iter_mut().zip(groups) {
        *line = format.search(group);
    }
    let most = |of: fn(&Line) -> f32| lines.iter().map(of).fold(0.0f32, f32::max);
    let (scale, depth) = (most(|line| line.scale), most(|line| -line.low));
    let sixty_third =
        |value: f32, most: f32| (63.0 * inverse(most) * value).round_ties_even().clamp(0.0, 63.0) as u8;
    let scales = lines.map(|line| sixty_third(line.scale, scale));
    let minima = lines.map(|line| sixty_third(-line.low, depth));
    let (head, rest) = to.split_at_mut(16);
    let d = write_half(scale / 63.0, &mut head[..2]);
    let m = write_half(depth / 63.0, &mut head[2..4]);
    pack_six_bits(scales, minima, &mut head[4..]);
    rest.fill(0);
    let (fifth_bits, low_bits) = rest.split_at_mut(if format.max > 15.0 { GROUP } else { 0 });
    for (i, group) in groups.iter().enumerate() {
        let (steps, min) = (inverse(d * f32::from(scales[i])), m * f32::from(minima[i]));
        for (j, &value) in group.iter().enumerate() {
            let q = format.quotient((value + min) * steps) as u8;
            low_bits[i / 2 * GROUP + j] |= (q & 15) << (i % 2 * 4);
            if let Some(high) = fifth_bits.get_mut(j) {
                *high |= q >> 4 << i;
            }
        }
    }
}

/// The scale of least error, weighted by squares, for quotients from −32 to 31.
fn search_scale(values: &[f32]) -> f32 {
    let most = farthest(values);
    if most.abs() < ZERO_GROUP {
        return 0.0;
    }
    let (mut scale, mut best) = (0.0, 0.0);
    // The plain range first: another must be better.
    for i in [0, -9, -8, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
        let steps = -(32.0 + 0.1 * i as f32) / most;
        let (mut xl, mut ll) = (0.0f32, 0.0f32);
        for &value in values {
            let q = (steps * value).round_ties_even().clamp(-32.0, 31.0);
            xl += value * value * value * q;
            ll += value * value * q * q;
        }
        if ll > 0.0 && (i == 0 || xl * xl > best * ll) {
            scale = xl / ll;
            best = scale * xl;
        }
    }
    scale
}

fn q6_k(from: &[f32], to: &mut [u8]) {
    to.fill(0);
    let groups = from.as_chunks::<16>().0;
    let mut found = [0.0; SUPER / 16];
    for (scale, group) in found.iter_mut().zip(groups) {
        *scale = search_scale(group);
    }
    let most = farthest(&found);
    if most.abs() < ZERO_GROUP {
        return;
    }
    let d = write_half(most / -128.0, &mut to[208..]);
    for (i, (&scale, group)) in found.iter().zip(groups).enumerate() {
        let rounded = (-128.0 / most * scale).round_ties_even().clamp(-128.0, 127.0);
        to[192 + i] = (rounded as i8).cast_unsigned();
        let steps = inverse(d * rounded);
        for (j, &value) in group.iter().enumerate() {
            let q = ((value * steps).round_ties_even().clamp(-32.0, 31.0) as i8 + 32).cast_unsigned();
            let (half_block, at) = (i / 8, i % 8 * 16 + j);
            let (quarter, l) = (at / GROUP, at % GROUP);
            to[half_block * 64 + quarter % 2 * GROUP + l] |= (q & 15) << (quarter / 2 * 4);
            to[128 + half_block * GROUP + l] |= q >> 4 << (quarter * 2);
        }
    }
}
