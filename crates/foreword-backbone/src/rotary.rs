//! Angles of rotary positions (Su et al. 2021), with the frequencies in single precision as transformers computes them.

use foreword_kernels::RotaryAngles;

use crate::spec::{Positions, RopeScaling, Spec};

/// The frequency of each rotated pair.
#[derive(Debug)]
pub(crate) struct Rotary {
    frequencies: Vec<f32>,
}

impl Rotary {
    /// `None` where positions are learned.
    pub(crate) fn of(spec: &Spec) -> Option<Self> {
        let Positions::Rotary { theta, ref scaling } = spec.positions else { return None };
        let width = spec.attention.head_width;
        let plain = (0..width / 2).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / width as f32));
        Some(Self { frequencies: plain.map(|frequency| scaled(frequency, scaling)).collect() })
    }

    /// cos and sin at each position.
    pub(crate) fn angles(&self, positions: &[usize]) -> RotaryAngles {
        let angle = |&position: &usize| {
            self.frequencies.iter().map(move |&frequency| f64::from(position as f32 * frequency).sin_cos())
        };
        let (sin, cos) = positions.iter().flat_map(angle).map(|(sin, cos)| (sin as f32, cos as f32)).unzip();
        RotaryAngles { cos, sin, half: self.frequencies.len() }
    }
}

/// By what the scaling divides each frequency of a head of this width.
pub(crate) fn llama3_divisors(theta: f64, width: usize, scaling: &RopeScaling) -> Vec<f32> {
    let plain = (0..width / 2).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / width as f32));
    plain.map(|frequency| frequency / scaled(frequency, scaling)).collect()
}

fn scaled(frequency: f32, scaling: &RopeScaling) -> f32 {
    match *scaling {
        RopeScaling::None => frequency,
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
    }
}
