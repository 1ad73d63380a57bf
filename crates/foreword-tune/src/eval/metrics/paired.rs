//! Compares two classifiers on the same examples: the size of the difference, and its significance.

use super::wilson;

/// Differences with a p-value of at least this may be due to chance.
const LEVEL: f64 = 0.05;

/// The counts of correct predictions of two classifiers on the same examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paired {
    /// Both are correct.
    pub both: u64,
    /// Only the first is correct.
    pub only_first: u64,
    /// Only the second is correct.
    pub only_second: u64,
    /// Neither is correct.
    pub neither: u64,
}

impl Paired {
    /// Counts pairs of (first is correct, second is correct), one per example.
    #[must_use]
    pub fn of(pairs: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut paired = Self::default();
        for pair in pairs {
            *match pair {
                (true, true) => &mut paired.both,
                (true, false) => &mut paired.only_first,
                (false, true) => &mut paired.only_second,
                (false, false) => &mut paired.neither,
            } += 1;
        }
        paired
    }

    /// Number of examples.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.both + self.only_first + self.only_second + self.neither
    }

    /// Accuracy of the first minus that of the second; 0 without examples.
    #[must_use]
    pub fn difference(&self) -> f64 {
        (self.only_first as f64 - self.only_second as f64) / self.n().max(1) as f64
    }

    /// 95 % interval of the difference: Wilson's intervals of the two accuracies, combined by their correlation (Newcombe
    /// 1998, "Improved confidence intervals for the difference between binomial proportions based on paired data", method
    /// 10).
    #[must_use]
    pub fn interval(&self) -> (f64, f64) {
        let n = self.n();
        if n == 0 {
            return (-1.0, 1.0);
        }
        let (first, second) = (self.both + self.only_first, self.both + self.only_second);
        let share = |right: u64| right as f64 / n as f64;
        let reach = |right: u64| {
            let (low, high) = wilson(right, n);
            (share(right) - low, high - share(right))
        };
        let ((below_1, above_1), (below_2, above_2)) = (reach(first), reach(second));
        let phi = self.correlation();
        let joined = |a: f64, b: f64| (a * a - 2.0 * phi * a * b + b * b).max(0.0).sqrt();
        let difference = self.difference();
        (difference - joined(below_1, above_2), difference + joined(above_1, below_2))
    }

    /// φ, with a continuity correction if it is positive.
    fn correlation(&self) -> f64 {
        let [e, f, g, h] = [self.both, self.only_first, self.only_second, self.neither].map(|n| n as f64);
        let margins = (e + f) * (g + h) * (e + g) * (f + h);
        if margins == 0.0 {
            return 0.0;
        }
        let excess = e * h - f * g;
        let corrected = if excess > 0.0 { (excess - (e + f + g + h) / 2.0).max(0.0) } else { excess };
        corrected / margins.sqrt()
    }

    /// The exact two-sided McNemar test: the probability of a split at least this uneven among the examples on which
    /// exactly one is correct, if a coin decided each (McNemar 1947).
    #[must_use]
    pub fn p_value(&self) -> f64 {
        let (less, n) = (self.only_first.min(self.only_second), self.only_first + self.only_second);
        // P(X = less) for X ~ Bin(n, ½), by logarithms: the factors alone would overflow.
        let ln_choose: f64 = (1..=less).map(|k| ((n - less + k) as f64 / k as f64).ln()).sum();
        let mut term = (ln_choose - n as f64 * std::f64::consts::LN_2).exp();
        let mut tail = 0.0;
        for k in (0..=less).rev() {
            tail += term;
            term *= k as f64 / (n - k + 1) as f64;
        }
        (2.0 * tail).min(1.0)
    }

    /// Whether the difference may be due to chance: [`is_chance`] of [`Paired::p_value`].
    #[must_use]
    pub fn may_be_chance(&self) -> bool {
        is_chance(self.p_value())
    }
}

/// Whether a p-value counts as chance: 1 in 20 or more.
#[must_use]
pub fn is_chance(p_value: f64) -> bool {
    p_value >= LEVEL
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn paired([both, only_first, only_second, neither]: [u64; 4]) -> Paired {
        Paired { both, only_first, only_second, neither }
    }

    #[test]
    fn intervals_agree_with_the_published_ones() {
        // Newcombe 1998, table III, the rows of method 10.
        let published = [
            ([36, 12, 2, 0], (0.0569, 0.3404)),
            ([20, 12, 2, 16], (0.0562, 0.3292)),
            ([18, 12, 2, 18], (0.0562, 0.3290)),
            ([36, 14, 0, 0], (0.1528, 0.4167)),
            ([35, 14, 0, 1], (0.1461, 0.4175)),
            ([18, 14, 0, 18], (0.1441, 0.3963)),
            // 41 patients: Altman et al. 2000, "Statistics with confidence", table 6.2.
            ([14, 5, 0, 22], (0.0115, 0.2265)),
        ];
        for (counts, (low, high)) in published {
            let found = paired(counts).interval();
            assert!((found.0 - low).abs() < 6e-5 && (found.1 - high).abs() < 6e-5, "{counts:?}: {found:?}");
        }
        assert_eq!(paired([0; 4]).interval(), (-1.0, 1.0));
    }

    #[test]
    fn p_values_agree_with_statsmodels() {
        // statsmodels.stats.contingency_tables.mcnemar(table, exact=True).pvalue
        let known = [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (10, 2, 0.038_574_218_75),
            (3, 3, 1.0),
            (4, 9, 0.266_845_703_125),
            (121, 59, 4.434_449_263_755_164_5e-6),
            (30, 15, 0.035_697_803_555_194_696),
            (1000, 900, 0.023_108_845_108_901_193),
            (3000, 2000, 1.300_231_000_520_532_6e-45),
        ];
        for (only_first, only_second, expected) in known {
            let found = paired([7, only_first, only_second, 5]).p_value();
            assert!((found / expected - 1.0).abs() < 1e-9, "{only_first}, {only_second}: {found:e}");
        }
    }

    #[test]
    fn pairs_are_counted() {
        let pairs = [(true, true), (true, false), (true, false), (false, true), (false, false)];
        let found = Paired::of(pairs);
        assert_eq!((found, found.n(), found.difference()), (paired([1, 2, 1, 1]), 5, 0.2));
    }

    proptest! {
        #[test]
        fn who_is_first_changes_the_sign_and_nothing_else(
            both in 0_u64..400, only_first in 0_u64..400, only_second in 0_u64..400, neither in 0_u64..400,
        ) {
            let one = paired([both, only_first, only_second, neither]);
            let other = paired([both, only_second, only_first, neither]);
            prop_assert_eq!(one.p_value(), other.p_value());
            prop_assert!(one.p_value() > 0.0 && one.p_value() <= 1.0);
            if one.n() > 0 {
                let ((low, high), (other_low, other_high)) = (one.interval(), other.interval());
                prop_assert!((low + other_high).abs() < 1e-12 && (high + other_low).abs() < 1e-12);
                prop_assert!(low <= one.difference() && one.difference() <= high && low >= -1.0 && high <= 1.0);
            }
            prop_assert!(only_first != only_second || one.p_value() == 1.0);
        }
    }
}
