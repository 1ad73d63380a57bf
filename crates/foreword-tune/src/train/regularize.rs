//! Regularisation against overfitting. Everything is off by default.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::engine::example::MaskedSpan;
use crate::init::normal;
use crate::state::CandidateState;
use crate::train::TrainError;

/// Streams of a seed's random numbers, besides those of the epochs.
const NOISE: u64 = 1 << 63;
const DROPOUT: u64 = 1 << 62;

/// The regularisation of a soft prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Regularizers {
    /// The probability of dropping each virtual token in a step.
    pub token_dropout: f64,
    /// Standard deviation of the noise added to the rows in each step, as a share of their scale.
    pub noise: f64,
    /// The decay of the exponential moving average of the rows, which is what is evaluated; 0: no average.
    pub ema_decay: f64,
    /// Maximum distance of a row from its init, as the root mean square over its numbers and a share of their scale; 0: no
    /// limit.
    pub trust_region: f64,
}

/// The rows that the model sees in a step.
pub(crate) struct StepRows {
    /// `[P, W]`, without dropped rows.
    pub(crate) values: Vec<f32>,
    /// The indices of the remaining rows; `None`: all.
    kept: Option<Vec<usize>>,
}

impl StepRows {
    /// The position of masked rows among the remaining ones.
    pub(crate) fn masked(&self, masked: MaskedSpan) -> MaskedSpan {
        let Some(kept) = &self.kept else { return masked };
        let below = |row| kept.partition_point(|&kept| kept < row);
        let first = below(masked.first);
        MaskedSpan { first, n: below(masked.first + masked.n) - first }
    }

    /// The gradient of all `n` numbers, with zeros for dropped rows.
    pub(crate) fn whole(&self, gradient: Vec<f32>, width: usize, n: usize) -> Vec<f32> {
        let Some(kept) = &self.kept else { return gradient };
        let mut whole = vec![0.0; n];
        for (from, &row) in gradient.chunks_exact(width).zip(kept) {
            whole[row * width..(row + 1) * width].copy_from_slice(from);
        }
        whole
    }
}

impl Regularizers {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        let setting = |setting, expected| Err(TrainError::Setting { setting, expected });
        if !(0.0..1.0).contains(&self.token_dropout) {
            return setting("token_dropout", "a share from 0 to below 1");
        }
        if !(0.0..1.0).contains(&self.ema_decay) {
            return setting("ema_decay", "a share from 0 to below 1");
        }
        if !(self.noise >= 0.0 && self.noise.is_finite()) {
            return setting("noise", "0 or a positive number");
        }
        if !(self.trust_region >= 0.0 && self.trust_region.is_finite()) {
            return setting("trust_region", "0 or a positive number");
        }
        Ok(())
    }

    /// The rows of `width` numbers of a candidate that the model sees in step `step`.
    pub(crate) fn seen(&self, run: &CandidateState, width: usize, seed: u64, step: u64) -> StepRows {
        let rng = |stream: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(stream | step);
            rng
        };
        let mut values = run.values.clone();
        if self.noise > 0.0 {
            let (mut rng, deviation) = (rng(NOISE), (self.noise * run.scale()) as f32);
            values.iter_mut().for_each(|value| *value += deviation * normal(&mut rng));
        }
        let n_rows = values.len() / width;
        if self.token_dropout == 0.0 {
            return StepRows { values, kept: None };
        }
        let mut rng = rng(DROPOUT);
        let mut stays = |_: &usize| (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 >= self.token_dropout;
        let mut kept: Vec<usize> = (0..n_rows).filter(&mut stays).collect();
        if kept.is_empty() {
            kept.push((step % n_rows as u64) as usize);
        }
        let values = kept.iter().flat_map(|&row| &values[row * width..(row + 1) * width]).copied().collect();
        StepRows { values, kept: Some(kept) }
    }

    /// Finishes an update: limits the distance from the init, and updates the average.
    pub(crate) fn after_update(&self, run: &mut CandidateState, width: usize, step: u64) {
        if self.trust_region > 0.0
            && let Some(init) = &run.init
        {
            let most = self.trust_region * run.scale.unwrap_or(1.0) * (width as f64).sqrt();
            for (row, init) in run.values.chunks_exact_mut(width).zip(init.chunks_exact(width)) {
                let way: f64 =
                    row.iter().zip(init).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
                if way > most {
                    let share = (most / way) as f32;
                    row.iter_mut()
                        .zip(init)
                        .for_each(|(value, &init)| *value = init + share * (*value - init));
                }
            }
        }
        if self.ema_decay > 0.0 {
            // At the beginning, the average would be little else than the init.
            let stays = self.ema_decay.min((1 + step) as f64 / (10 + step) as f64) as f32;
            let average = run.average.get_or_insert_with(|| run.values.clone());
            average.iter_mut().zip(&run.values).for_each(|(a, &v)| *a = stays * *a + (1.0 - stays) * v);
        }
    }
}
