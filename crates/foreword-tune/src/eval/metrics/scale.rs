//! Labels on a scale, such as one to five stars: the expected value, and its distance from the true one.

use crate::likelihood::best;
use crate::verbalizer::{Verbalizer, numbers};

/// Maximum number of labels on a scale, as from 0 to 10. More numbers are rather the names of classes.
const MOST: usize = 11;

/// Labels whose names are numbers at equal distances.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    values: Vec<f64>,
}

/// The distance from the true values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleErrors {
    /// Mean absolute error of the expected value, Σ p(label) · value.
    pub expected: f64,
    /// Mean absolute error of the most likely label.
    pub predicted: f64,
}

impl Scale {
    /// The scale of labels that look like one: three to eleven numbers at equal distances.
    #[must_use]
    pub fn of(labels: &Verbalizer) -> Option<Self> {
        Self::of_names(labels.names())
    }

    fn of_names(names: &[String]) -> Option<Self> {
        let values = numbers(names).filter(|values| (3..=MOST).contains(&values.len()))?;
        let step = (values[values.len() - 1] - values[0]) / (values.len() - 1) as f64;
        let is_even = values.windows(2).all(|pair| ((pair[1] - pair[0]) / step - 1.0).abs() < 1e-9);
        (step > 0.0 && is_even).then_some(Self { values })
    }

    /// The first and the last value.
    #[must_use]
    pub fn ends(&self) -> (f64, f64) {
        (self.values[0], self.values[self.values.len() - 1])
    }

    /// The expected value under these label probabilities.
    #[must_use]
    pub fn expected(&self, probabilities: &[f64]) -> f64 {
        self.values.iter().zip(probabilities).map(|(value, p)| value * p).sum()
    }

    /// The errors on examples, from their label probabilities and true labels. 0 without examples.
    #[must_use]
    pub fn errors(&self, probabilities: &[Vec<f64>], truths: &[usize]) -> ScaleErrors {
        let mean = |distance: &dyn Fn(&[f64], f64) -> f64| {
            let distances =
                probabilities.iter().zip(truths).map(|(p, &truth)| distance(p, self.values[truth]));
            distances.sum::<f64>() / truths.len().max(1) as f64
        };
        ScaleErrors {
            expected: mean(&|p, truth| (self.expected(p) - truth).abs()),
            predicted: mean(&|p, truth| (self.values[best(p)] - truth).abs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(names: &[&str]) -> Option<Scale> {
        Scale::of_names(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn numbers_at_equal_distances_are_a_scale() {
        assert_eq!(scale(&["1", "2", "3", "4", "5"]).unwrap().ends(), (1.0, 5.0));
        assert_eq!(scale(&["0", "0.5", "1"]).unwrap().ends(), (0.0, 1.0));
        assert_eq!(scale(&["-1", "0", "1"]).unwrap().ends(), (-1.0, 1.0));
        for none in [&["0", "1"][..], &["1", "2", "4"], &["1", "2", "three"], &["1", "1.0", "1.00"]] {
            assert_eq!(scale(none), None, "{none:?}");
        }
        let ids: Vec<String> = (0..12).map(|id| id.to_string()).collect();
        assert_eq!(Scale::of_names(&ids), None);
    }

    #[test]
    fn errors_are_distances_of_values() {
        let stars = scale(&["1", "2", "3"]).unwrap();
        let probabilities = [vec![0.5, 0.25, 0.25], vec![0.0, 0.0, 1.0]];
        assert_eq!(stars.expected(&probabilities[0]), 1.75);
        // |1.75 − 3| and |3 − 2|; |1 − 3| and |3 − 2|.
        let errors = stars.errors(&probabilities, &[2, 1]);
        assert_eq!(errors, ScaleErrors { expected: 1.125, predicted: 1.5 });
        assert_eq!(stars.errors(&[], &[]), ScaleErrors { expected: 0.0, predicted: 0.0 });
    }
}
