//! How long a run lasts, and what that means for its learning rate and its evaluations.

use crate::optimizer::{decayed, warm};
use crate::settings::{Schedule, Warmup};

/// Number of evaluations in a run of a fixed number of updates.
const EVALUATIONS: u64 = 10;
/// Fewest updates between two evaluations of a run without a fixed number of them.
const MIN_SPACING: u64 = 10;
/// The share of the updates so far that lies between two evaluations of such a run, as a divisor.
const SPACING: u64 = 8;
/// The share of the updates so far in which the learning rate decays, as a divisor.
const DECAY: u64 = 4;
/// Fewest updates of a decay.
const MIN_DECAY: u64 = 8;
/// The number of updates to which a relative warm-up refers if the number is not known.
const UNKNOWN: u64 = 200;
/// The number of dev examples from which on noise does not count.
const ENOUGH_DEV: f64 = 100.0;

/// How long a run lasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// This many updates, with a learning rate that decays from the warm-up to the last one; fewer if dev stops improving.
    Steps(u64),
    /// Until dev stops improving: the learning rate keeps its peak as long, and then decays within a quarter of the updates
    /// so far.
    Plateau {
        /// Most updates in all.
        most: u64,
    },
    /// As `Plateau`, but no longer than this.
    Time {
        /// The time for the updates and the evaluations on dev, and for what follows.
        seconds: f64,
        /// What follows, in evaluations on dev.
        evaluations_after: f64,
    },
}

impl Length {
    /// Most updates, if there is such a number.
    #[must_use]
    pub fn most_steps(self) -> Option<u64> {
        match self {
            Self::Steps(most) | Self::Plateau { most } => Some(most),
            Self::Time { .. } => None,
        }
    }

    /// The update after which the run ends at the latest, if it is known.
    pub(crate) fn end(self, decay: Option<Decay>) -> Option<u64> {
        match self {
            Self::Steps(steps) => Some(steps),
            Self::Plateau { most } => Some(decay.map_or(most, |decay| decay.until)),
            Self::Time { .. } => decay.map(|decay| decay.until),
        }
    }

    /// The learning rate of update `step` (from 1), as a share of its peak.
    pub(crate) fn rate(self, step: u64, decay: Option<Decay>, (warmup, schedule): (Warmup, Schedule)) -> f64 {
        let warm_up = warmup.steps(self.fixed().unwrap_or(UNKNOWN));
        match (self, decay) {
            (_, None) if step <= warm_up => warm(step, warm_up),
            (Self::Steps(steps), _) => {
                let rest = steps.saturating_sub(warm_up + 1).max(1);
                decayed((step - warm_up - 1) as f64 / rest as f64, schedule)
            }
            (_, None) => 1.0,
            (_, Some(decay)) => decayed(decay.progress(step), schedule),
        }
    }

    /// Whether to evaluate dev after `step` updates, `every` so many if that is set: at the beginning, since the run must beat
    /// the init, at the end, and between.
    pub(crate) fn evaluates(self, step: u64, decay: Option<Decay>, every: Option<u64>) -> bool {
        if step == 0 || self.end(decay) == Some(step) {
            return true;
        }
        match (every, self, decay) {
            (Some(every), ..) => every > 0 && step.is_multiple_of(every),
            (None, Self::Steps(steps), _) => step.is_multiple_of(steps.div_ceil(EVALUATIONS)),
            (None, _, Some(decay)) => {
                (step - decay.from).is_multiple_of((decay.until - decay.from).div_ceil(4))
            }
            (None, _, None) => is_spaced(step),
        }
    }

    /// The decay that must begin after `step` updates for the run to end within its most updates; `None` if it need not yet.
    pub(crate) fn decay_at_limit(self, step: u64) -> Option<Decay> {
        let Self::Plateau { most } = self else { return None };
        (step + most.div_ceil(DECAY + 1) >= most).then_some(Decay {
            from: step,
            until: most,
            cause: Cause::Limit,
        })
    }

    fn fixed(self) -> Option<u64> {
        match self {
            Self::Steps(steps) => Some(steps),
            Self::Plateau { .. } | Self::Time { .. } => None,
        }
    }
}

/// The last part of a run, in which the learning rate decays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decay {
    /// The update after which it begins.
    pub from: u64,
    /// The last update.
    pub until: u64,
    /// Why it began.
    pub cause: Cause,
}

impl Decay {
    /// The decay after `step` updates, since dev no longer improves.
    pub(crate) fn at_plateau(step: u64, most: Option<u64>) -> Self {
        let until = step + (step / DECAY).max(MIN_DECAY);
        Self { from: step, until: most.map_or(until, |most| until.min(most)), cause: Cause::Plateau }
    }

    fn progress(self, step: u64) -> f64 {
        (step.saturating_sub(self.from)) as f64 / (self.until - self.from).max(1) as f64
    }
}

/// Why the learning rate began to decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Dev no longer improved.
    Plateau,
    /// The most updates, or the time, were nearly reached.
    Limit,
}

/// The number of evaluations without progress after which dev counts as no longer improving. Where it has fewer than 100
/// examples, noise hides a slow improvement, and it is more.
#[must_use]
pub fn patience(patience: u64, n_dev: usize) -> u64 {
    let noise = (ENOUGH_DEV / n_dev.max(1) as f64).sqrt().max(1.0);
    (patience as f64 * noise).ceil() as u64
}

/// Whether a step is one of those at growing distances.
fn is_spaced(step: u64) -> bool {
    let mut at = 0;
    while at < step {
        at += (at / SPACING).max(MIN_SPACING);
    }
    at == step
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: (Warmup, Schedule) = (Warmup::Share(0.05), Schedule::Cosine);

    #[test]
    fn schedules_rise_to_the_peak_and_end_where_they_say() {
        for (schedule, end) in [(Schedule::Constant, 1.0), (Schedule::Linear, 0.1), (Schedule::Cosine, 0.1)] {
            let at = |step| Length::Steps(100).rate(step, None, (Warmup::Share(0.05), schedule));
            assert!((1..6).all(|step| at(step) < at(step + 1)), "{schedule}");
            assert_eq!(at(6), 1.0);
            assert!((at(100) - end).abs() < 1e-12);
            assert!((7..100).all(|step| at(step) >= at(step + 1)));
        }
        assert_eq!(Length::Steps(1).rate(1, None, (Warmup::Steps(0), Schedule::Cosine)), 1.0);
    }

    #[test]
    fn the_rate_stays_at_its_peak_until_dev_stops_improving() {
        let length = Length::Plateau { most: 1000 };
        let rate = |step, decay| length.rate(step, decay, HOW);
        assert!((1..11).all(|step| rate(step, None) < rate(step + 1, None)));
        assert_eq!([11, 500].map(|step| rate(step, None)), [1.0, 1.0]);
        let decay = Decay::at_plateau(100, length.most_steps());
        assert_eq!((decay.from, decay.until), (100, 125));
        assert!((101..125).all(|step| rate(step, Some(decay)) > rate(step + 1, Some(decay))));
        assert!(rate(101, Some(decay)) < 1.0 && (rate(125, Some(decay)) - 0.1).abs() < 1e-12);
        assert_eq!([length.end(None), length.end(Some(decay))], [Some(1000), Some(125)]);
    }

    #[test]
    fn it_decays_in_time_for_the_last_step() {
        let length = Length::Plateau { most: 1000 };
        assert_eq!(length.decay_at_limit(799), None);
        let decay = length.decay_at_limit(800).unwrap();
        assert_eq!((decay.from, decay.until, decay.cause), (800, 1000, Cause::Limit));
        assert_eq!(Decay::at_plateau(990, Some(1000)).until, 1000);
        assert_eq!(Decay::at_plateau(3, None).until, 11);
        assert_eq!(Length::Plateau { most: 1 }.decay_at_limit(0).unwrap().until, 1);
        assert_eq!(Length::Steps(10).decay_at_limit(9), None);
    }

    #[test]
    fn evaluations_become_rarer() {
        let length = Length::Plateau { most: 5000 };
        let at: Vec<u64> = (0..300).filter(|&step| length.evaluates(step, None, None)).collect();
        assert_eq!(
            at,
            [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 101, 113, 127, 142, 159, 178, 200, 225, 253, 284]
        );
        let decay = Some(Decay::at_plateau(100, None));
        let at: Vec<u64> = (101..=125).filter(|&step| length.evaluates(step, decay, None)).collect();
        assert_eq!(at, [107, 114, 121, 125]);
        let at: Vec<u64> = (0..=30).filter(|&step| length.evaluates(step, None, Some(15))).collect();
        assert_eq!(at, [0, 15, 30]);
        let at: Vec<u64> = (0..=25).filter(|&step| Length::Steps(25).evaluates(step, None, None)).collect();
        assert_eq!(at, [0, 3, 6, 9, 12, 15, 18, 21, 24, 25]);
    }

    #[test]
    fn few_dev_examples_need_more_patience() {
        assert_eq!([1000, 100, 30, 10].map(|n_dev| patience(5, n_dev)), [5, 5, 10, 16]);
        assert_eq!(patience(0, 30), 0);
    }
}
