//! Angles of rotary positions (Su et al. 2021), with the frequencies in single precision as transformers computes them.

use std::f64::consts::PI;

use foreword_kernels::{Pairing, RotaryAngles};

use crate::spec::{Rope, RopeScaling, Spec};

/// The distinct rotations of a model's layers.
#[derive(Debug)]
pub(crate) struct Rotary {
    ropes: Vec<Frequencies>,
    /// Index of each layer's rotation.
    of_layers: Vec<Option<usize>>,
}

/// The frequency of each rotated pair.
#[derive(Debug)]
struct Frequencies {
    frequencies: Vec<f32>,
    /// On cosines and sines.
    factor: f32,
    pairing: Pairing,
}

/// Angles of the same rows, for each of a model's rotations.
#[derive(Debug)]
pub(crate) struct Angles(Vec<RotaryAngles>);

impl Rotary {
    pub(crate) fn of(spec: &Spec) -> Self {
        let mut distinct: Vec<&Rope> = Vec::new();
        let of_layers = spec.pattern.iter().map(|kind| {
            let rope = kind.rope.as_ref()?;
            Some(distinct.iter().position(|other| *other == rope).unwrap_or_else(|| {
                distinct.push(rope);
                distinct.len() - 1
            }))
        });
        let of_layers = of_layers.collect();
        Self { ropes: distinct.into_iter().map(Frequencies::of).collect(), of_layers }
    }

    /// cos and sin at each position.
    pub(crate) fn angles(&self, positions: &[usize]) -> Angles {
        Angles(self.ropes.iter().map(|rope| rope.angles(positions)).collect())
    }

    /// Those of a layer; `None`: it has no rotation.
    pub(crate) fn layer<'a>(&self, angles: &'a Angles, layer: usize) -> Option<&'a RotaryAngles> {
        self.of_layers[layer].map(|i| &angles.0[i])
    }
}

impl Frequencies {
    fn of(rope: &Rope) -> Self {
        let n = rope.width / 2;
        let wavelength = |i: usize| (rope.theta as f32).powf((2 * i) as f32 / rope.width as f32);
        let frequencies: Vec<f32> = match &rope.scaling {
            RopeScaling::Yarn { .. } => yarn(rope, wavelength),
            RopeScaling::Long { factors, .. } => {
                (0..n).map(|i| 1.0 / (factors[i] as f32 * wavelength(i))).collect()
            }
            scaling => (0..n).map(|i| scaled(1.0 / wavelength(i), scaling)).collect(),
        };
        let factor = match rope.scaling {
            RopeScaling::Yarn { attention_factor, .. } | RopeScaling::Long { attention_factor, .. } => {
                attention_factor
            }
            RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } => 1.0,
        };
        Self { frequencies, factor: factor as f32, pairing: rope.pairing }
    }

    fn angles(&self, positions: &[usize]) -> RotaryAngles {
        let angle = |&position: &usize| {
            self.frequencies.iter().map(move |&frequency| f64::from(position as f32 * frequency).sin_cos())
        };
        let rounded = |(sin, cos): (f64, f64)| (sin as f32 * self.factor, cos as f32 * self.factor);
        let (sin, cos) = positions.iter().flat_map(angle).map(rounded).unzip();
        RotaryAngles { cos, sin, half: self.frequencies.len(), pairing: self.pairing }
    }
}

/// The divisor of each frequency, for a scaling that treats frequencies independently.
pub(crate) fn divisors(rope: &Rope) -> Vec<f32> {
    let plain = Frequencies::of(&Rope { scaling: RopeScaling::None, ..rope.clone() });
    let scaled = Frequencies::of(rope);
    plain.frequencies.iter().zip(scaled.frequencies).map(|(plain, scaled)| plain / scaled).collect()
}

/// The scaled frequency, for a scaling that treats frequencies independently.
fn scaled(frequency: f32, scaling: &RopeScaling) -> f32 {
    match *scaling {
        RopeScaling::Linear { factor } => frequency / factor as f32,
        RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context } => {
            let (low, high) = (low_frequency_factor as f32, high_frequency_factor as f32);
            let wavelength = 2.0 * std::f32::consts::PI / frequency;
            let context = original_context as f32;
            if wavelength < context / high {
                frequency
            } else if wavelength > context / low {
                frequency / factor as f32
            } else {
                let smooth = (context / wavelength - low) / (high - low);
                (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
            }
        }
        RopeScaling::None | RopeScaling::Yarn { .. } | RopeScaling::Long { .. } => frequency,
    }
}

/// Frequencies between the stretched and the kept ones lie on a ramp over the pairs (Peng et al. 2023, section 3.2).
fn yarn(rope: &Rope, wavelength: impl Fn(usize) -> f32) -> Vec<f32> {
    let RopeScaling::Yarn { factor, beta_fast, beta_slow, original_context, truncate, .. } = rope.scaling
    else {
        return Vec::new();
    };
    let width = rope.width as f64;
    // The pair with this many rotations within the original context.
    let pair = |rotations: f64| {
        width * (original_context as f64 / (rotations * 2.0 * PI)).ln() / (2.0 * rope.theta.ln())
    };
    let (low, high) = (pair(beta_fast), pair(beta_slow));
    let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, mut high) = (low.max(0.0), high.min(width - 1.0));
    if low == high {
        high += 0.001;
    }
    let frequency = |i: usize| {
        let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let (kept, stretched) = (1.0 / wavelength(i), 1.0 / (factor as f32 * wavelength(i)));
        stretched * ramp + kept * (1.0 - ramp)
    };
    (0..rope.width / 2).map(frequency).collect()
}

/// ALiBi's slope of each head (Press et al. 2022): a geometric sequence, and if the number of heads is not a power of two
/// then every other member of a denser one.
pub(crate) fn alibi_slopes(heads: usize) -> Vec<f32> {
    let whole = 1 << heads.ilog2();
    let member = |n: usize, i: usize| 2_f64.powf(-8.0 / n as f64).powi(i as i32) as f32;
    let first = (1..=whole).map(|i| member(whole, i));
    let others = (0..heads - whole).map(|i| member(2 * whole, 2 * i + 1));
    first.chain(others).collect()
}
