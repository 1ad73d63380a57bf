//! AdamW for the rows of one soft prompt, with gradient clipping and the shapes of the learning rate.

use crate::settings::Schedule;

/// Decay of the first moment.
const BETA_1: f64 = 0.9;
/// Decay of the second moment.
const BETA_2: f64 = 0.999;
/// Added to the root of the second moment.
const EPSILON: f64 = 1e-8;
/// The share of the peak at which a decaying schedule ends.
const FLOOR: f64 = 0.1;

/// AdamW (Loshchilov & Hutter 2019), with moments in single precision.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// First moments.
    pub(crate) first: Vec<f32>,
    /// Second moments.
    pub(crate) second: Vec<f32>,
    /// Number of updates.
    pub(crate) n_updates: u64,
}

impl AdamW {
    /// The state for `n` numbers.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { first: vec![0.0; n], second: vec![0.0; n], n_updates: 0 }
    }

    /// One update of `values` with `gradient`. Weight decay is decoupled: it subtracts `learning_rate · weight_decay` of
    /// each number.
    pub fn update(&mut self, values: &mut [f32], gradient: &[f32], learning_rate: f64, weight_decay: f64) {
        assert_eq!(values.len(), gradient.len(), "as many values as gradients");
        self.n_updates += 1;
        let n = self.n_updates as f64;
        let (bias_1, bias_2) = (1.0 - BETA_1.powf(n), 1.0 - BETA_2.powf(n));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((value, &d), (first, second)) in values.iter_mut().zip(gradient).zip(moments) {
            let (m, v, d) = (f64::from(*first), f64::from(*second), f64::from(d));
            let (m, v) = (BETA_1 * m + (1.0 - BETA_1) * d, BETA_2 * v + (1.0 - BETA_2) * d * d);
            (*first, *second) = (m as f32, v as f32);
            let decayed = f64::from(*value) * (1.0 - learning_rate * weight_decay);
            *value = (decayed - learning_rate * (m / bias_1) / ((v / bias_2).sqrt() + EPSILON)) as f32;
        }
    }
}

/// Clips the norm of `gradient` to `max` (0: no clipping) and returns its norm before clipping.
pub fn clip(gradient: &mut [f32], max: f64) -> f64 {
    let norm = gradient.iter().map(|&d| f64::from(d) * f64::from(d)).sum::<f64>().sqrt();
    if max > 0.0 && norm > max {
        let scale = (max / norm) as f32;
        gradient.iter_mut().for_each(|d| *d *= scale);
    }
    norm
}

/// The learning rate of update `step` (from 1) of a warm-up of `steps` updates, as a share of its peak.
pub(crate) fn warm(step: u64, steps: u64) -> f64 {
    step as f64 / (steps + 1) as f64
}

/// The learning rate after this share of a decay, as a share of its peak.
pub(crate) fn decayed(progress: f64, schedule: Schedule) -> f64 {
    match schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => 1.0 - (1.0 - FLOOR) * progress,
        Schedule::Cosine => FLOOR + (1.0 - FLOOR) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_update_is_the_learning_rate_along_the_sign() {
        let mut values = [1.0, -1.0, 0.5];
        AdamW::new(3).update(&mut values, &[2.0, -0.01, 0.0], 0.1, 0.0);
        for (value, expected) in values.into_iter().zip([0.9, -0.9, 0.5]) {
            assert!((value - expected).abs() < 1e-5, "{value} {expected}");
        }
    }

    #[test]
    fn decay_pulls_towards_zero_without_a_gradient() {
        let mut values = [1.0];
        AdamW::new(1).update(&mut values, &[0.0], 0.1, 0.5);
        assert!((values[0] - 0.95).abs() < 1e-7);
    }

    #[test]
    fn clipping_keeps_the_direction() {
        let mut gradient = [3.0, 4.0];
        assert_eq!(clip(&mut gradient, 0.0), 5.0);
        assert_eq!(gradient, [3.0, 4.0]);
        assert_eq!(clip(&mut gradient, 1.0), 5.0);
        assert!((gradient[0] - 0.6).abs() < 1e-6 && (gradient[1] - 0.8).abs() < 1e-6);
    }
}
