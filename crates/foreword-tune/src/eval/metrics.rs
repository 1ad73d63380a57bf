//! Metrics: loss; for classification accuracy with its interval, macro F1 and the confusion matrix; for generation see
//! [`text`].

pub mod paired;
pub mod reliability;
pub mod scale;
pub mod text;

use paired::Paired;

/// Two-sided 95 % quantile of the normal distribution.
const Z_95: f64 = 1.959_963_984_540_054;

/// The evaluation of a task on a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Number of examples.
    pub n: u64,
    /// Mean loss under the task's objective, in nats: per example under `label`, per token under `lm`. NaN if there is
    /// none.
    pub loss: f64,
    /// The confusion matrix; `None` for generation.
    pub labels: Option<Confusion>,
    /// For each example whether its prediction is correct; empty for generation.
    pub right: Vec<bool>,
}

impl Evaluation {
    /// Share of correct labels, for classification.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        self.labels.as_ref().map(Confusion::accuracy)
    }

    /// Pairs it with another evaluation on the same examples; `None` for generation.
    #[must_use]
    pub fn against(&self, other: &Self) -> Option<Paired> {
        let of = || self.right.iter().copied().zip(other.right.iter().copied());
        (self.labels.is_some() && other.labels.is_some()).then(|| Paired::of(of()))
    }
}

impl Evaluation {
    /// The evaluation of always predicting the most frequent label of the training data, which has no loss.
    #[must_use]
    pub fn of_majority(n_labels: usize, train: &[usize], truths: &[usize]) -> Self {
        let given = majority(n_labels, train);
        let labels = Confusion::new(n_labels, truths.iter().map(|&truth| (truth, given)));
        let right = truths.iter().map(|&truth| truth == given).collect();
        Self { n: labels.n(), loss: f64::NAN, labels: Some(labels), right }
    }
}

/// The most frequent label; the first one on a tie.
#[must_use]
pub fn majority(n_labels: usize, labels: &[usize]) -> usize {
    let mut counts = vec![0_usize; n_labels];
    labels.iter().for_each(|&label| counts[label] += 1);
    (0..n_labels).rev().max_by_key(|&label| counts[label]).unwrap_or(0)
}

/// Sample standard deviation; `None` for fewer than two values.
#[must_use]
pub fn sample_deviation(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt())
}

/// The confusion matrix of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// `[true label][predicted label]`, number of examples.
    pub counts: Vec<Vec<u64>>,
}

impl Confusion {
    /// Counts pairs of (true label, predicted label) of `n_labels` labels.
    #[must_use]
    pub fn new(n_labels: usize, pairs: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut counts = vec![vec![0; n_labels]; n_labels];
        for (truth, given) in pairs {
            counts[truth][given] += 1;
        }
        Self { counts }
    }

    /// Number of examples.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Number of correct examples.
    #[must_use]
    pub fn n_right(&self) -> u64 {
        self.counts.iter().enumerate().map(|(i, row)| row[i]).sum()
    }

    /// Share of correct labels; 0 without examples.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.n_right() as f64 / self.n().max(1) as f64
    }

    /// 95 % interval of the accuracy (Wilson 1927).
    #[must_use]
    pub fn interval(&self) -> (f64, f64) {
        wilson(self.n_right(), self.n())
    }

    /// Mean over the labels that occur, as true or predicted labels, of the harmonic mean of precision and recall.
    #[must_use]
    pub fn macro_f1(&self) -> f64 {
        let scores: Vec<f64> = (0..self.counts.len()).filter_map(|label| self.label(label).f1()).collect();
        scores.iter().sum::<f64>() / scores.len().max(1) as f64
    }

    /// The counts of one label.
    #[must_use]
    pub fn label(&self, label: usize) -> LabelCounts {
        LabelCounts {
            n: self.counts[label].iter().sum(),
            n_given: self.counts.iter().map(|row| row[label]).sum(),
            n_right: self.counts[label][label],
        }
    }
}

/// The counts of one label against all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelCounts {
    /// Examples with this label.
    pub n: u64,
    /// Examples predicted to have it.
    pub n_given: u64,
    /// Examples for which both hold.
    pub n_right: u64,
}

impl LabelCounts {
    /// Share of correct ones among the examples predicted to have it, if there are any.
    #[must_use]
    pub fn precision(&self) -> Option<f64> {
        (self.n_given > 0).then(|| self.n_right as f64 / self.n_given as f64)
    }

    /// Share of correct ones among the examples with this label, if there are any.
    #[must_use]
    pub fn recall(&self) -> Option<f64> {
        (self.n > 0).then(|| self.n_right as f64 / self.n as f64)
    }

    /// The harmonic mean of precision and recall, if the label occurs as a true or predicted label.
    #[must_use]
    pub fn f1(&self) -> Option<f64> {
        let total = self.n + self.n_given;
        (total > 0).then(|| 2.0 * self.n_right as f64 / total as f64)
    }
}

/// 95 % interval of the share `n_right` of `n` (Wilson 1927).
#[must_use]
pub fn wilson(n_right: u64, n: u64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (n as f64, n_right as f64 / n as f64);
    let z2 = Z_95 * Z_95;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z_95 / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_become_scores() {
        let pairs = [(0, 0), (0, 0), (0, 1), (1, 1), (1, 0)];
        let confusion = Confusion::new(3, pairs);
        assert_eq!((confusion.n(), confusion.n_right(), confusion.accuracy()), (5, 3, 0.6));
        // F1 of label 0: 2·2/(3+3), of label 1: 2·1/(2+2); label 2 never occurs.
        assert!((confusion.macro_f1() - (4.0 / 6.0 + 0.5) / 2.0).abs() < 1e-12);
        let label = confusion.label(0);
        assert_eq!(label, LabelCounts { n: 3, n_given: 3, n_right: 2 });
        assert_eq!((label.precision(), label.recall()), (Some(2.0 / 3.0), Some(2.0 / 3.0)));
        let never = confusion.label(2);
        assert_eq!((never.precision(), never.recall(), never.f1()), (None, None, None));
    }

    #[test]
    fn wilson_agrees_with_the_published_example() {
        // 81 of 263, Newcombe 1998, table I: 0.2553 to 0.3662.
        let (low, high) = wilson(81, 263);
        assert!((low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5, "{low} {high}");
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }
}
