//! Reliability of probabilities, and the effect of abstaining below a threshold.

use crate::likelihood::best;

/// Number of equal-width bins of the calibration error (Guo et al. 2017).
const BINS: usize = 15;

/// The agreement of probabilities and true labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reliability {
    /// Expected calibration error (Naeini et al. 2015): examples are divided into fifteen bins of equal width by the
    /// probability of their prediction; it is the mean distance between a bin's accuracy and its mean probability, weighted
    /// by the number of examples.
    pub ece: f64,
    /// Brier score (1950): the mean of Σ (p(label) − [label is true])² over the labels, from 0 to 2.
    pub brier: f64,
}

impl Reliability {
    /// Computes it from each example's label probabilities and its true label. 0 without examples.
    #[must_use]
    pub fn of(probabilities: &[Vec<f64>], truths: &[usize]) -> Self {
        let n = truths.len().max(1) as f64;
        // Per bin: Σ (answer is right) − Σ (its probability).
        let mut gaps = [0.0; BINS];
        let mut brier = 0.0;
        for (p, &truth) in probabilities.iter().zip(truths) {
            let answer = best(p);
            gaps[bin(p[answer])] += f64::from(u8::from(answer == truth)) - p[answer];
            let is = |label| f64::from(u8::from(label == truth));
            brier += p.iter().enumerate().map(|(label, p)| (p - is(label)).powi(2)).sum::<f64>();
        }
        Self { ece: gaps.iter().map(|gap: &f64| gap.abs()).sum::<f64>() / n, brier: brier / n }
    }
}

/// The bin of a probability: bin i covers (i / 15, (i + 1) / 15].
fn bin(probability: f64) -> usize {
    ((probability * BINS as f64).ceil() as usize).clamp(1, BINS) - 1
}

/// The examples answered when uncertain ones are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Number of examples.
    pub n: u64,
    /// Number of answered examples.
    pub n_answered: u64,
    /// Number of correct answers.
    pub n_right: u64,
}

impl Answered {
    /// Answers only if the probability of the prediction is at least `least`.
    #[must_use]
    pub fn of(probabilities: &[Vec<f64>], truths: &[usize], least: f64) -> Self {
        let mut answered = Self { n: truths.len() as u64, n_answered: 0, n_right: 0 };
        for (p, &truth) in probabilities.iter().zip(truths) {
            if let Some(answer) = sure(p, Some(least)) {
                answered.n_answered += 1;
                answered.n_right += u64::from(answer == truth);
            }
        }
        answered
    }

    /// Share of answered examples; 0 without examples.
    #[must_use]
    pub fn coverage(&self) -> f64 {
        self.n_answered as f64 / self.n.max(1) as f64
    }

    /// Share of correct answers, if there are any answers.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        (self.n_answered > 0).then(|| self.n_right as f64 / self.n_answered as f64)
    }
}

/// The most likely label, unless its probability is below `least`.
#[must_use]
pub fn sure(probabilities: &[f64], least: Option<f64>) -> Option<usize> {
    let answer = best(probabilities);
    least.is_none_or(|least| probabilities[answer] >= least).then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_weighed_by_their_bins() {
        // Two examples in the bin of 0.9, one of them right: |0.5 − 0.91|; one in that of 0.6, right: |1 − 0.6|.
        let p = [[0.92, 0.08], [0.10, 0.90], [0.6, 0.4]].map(Vec::from);
        let found = Reliability::of(&p, &[0, 0, 0]);
        assert!((found.ece - (2.0 / 3.0 * 0.41 + 1.0 / 3.0 * 0.4)).abs() < 1e-12, "{found:?}");
        let brier = (2.0 * 0.08_f64.powi(2) + 2.0 * 0.9_f64.powi(2) + 2.0 * 0.4_f64.powi(2)) / 3.0;
        assert!((found.brier - brier).abs() < 1e-12, "{found:?}");
        assert_eq!(Reliability::of(&[], &[]), Reliability { ece: 0.0, brier: 0.0 });
    }

    #[test]
    fn surely_right_is_no_error_and_surely_wrong_is_all_of_it() {
        let sure = vec![vec![1.0, 0.0]; 7];
        assert_eq!(Reliability::of(&sure, &[0; 7]), Reliability { ece: 0.0, brier: 0.0 });
        assert_eq!(Reliability::of(&sure, &[1; 7]), Reliability { ece: 1.0, brier: 2.0 });
    }

    #[test]
    fn a_probability_on_a_border_belongs_below() {
        assert_eq!([0.0, 1e-9, 1.0 / 15.0, 0.5, 14.0 / 15.0, 0.94, 1.0].map(bin), [0, 0, 0, 7, 13, 14, 14]);
    }

    #[test]
    fn the_unsure_are_left_out() {
        let p = [[0.9, 0.1], [0.3, 0.7], [0.55, 0.45]].map(Vec::from);
        let at = |least| Answered::of(&p, &[0, 0, 1], least);
        assert_eq!(at(0.7), Answered { n: 3, n_answered: 2, n_right: 1 });
        assert_eq!((at(0.7).coverage(), at(0.7).accuracy()), (2.0 / 3.0, Some(0.5)));
        assert_eq!((at(0.95).coverage(), at(0.95).accuracy()), (0.0, None));
        assert_eq!(at(0.5).n_answered, 3);
        assert_eq!(
            (sure(&p[2], None), sure(&p[2], Some(0.55)), sure(&p[2], Some(0.56))),
            (Some(0), Some(0), None)
        );
    }
}
