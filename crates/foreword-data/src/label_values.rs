//! Whether the values of a field can be labels, by how often they repeat.

use crate::labels::canonical;
use crate::{Dataset, FieldIdx};
use std::collections::HashMap;

/// A field with at most this many different values may hold labels, however few examples there are.
const MOST_FREE: usize = 20;

/// The values of a field, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelValues {
    /// Number of examples with a value.
    pub n: usize,
    /// Number of different values.
    pub n_different: usize,
    /// Number of values that only one example has.
    pub n_single: usize,
    /// Whether all values are numbers, and some have decimals.
    pub are_decimals: bool,
}

impl LabelValues {
    /// Counts the values of a field, in the canonical spelling of labels.
    #[must_use]
    pub fn of(dataset: &Dataset, field: FieldIdx) -> Self {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let texts = (0..dataset.n()).filter_map(|row| dataset.cell(row, field).text());
        for text in texts.map(canonical).filter(|text| !text.is_empty()) {
            *counts.entry(text).or_default() += 1;
        }
        let number = |text: &&str| text.parse::<f64>().ok();
        let are_numbers = counts.keys().all(|text| number(text).is_some());
        Self {
            n: counts.values().sum(),
            n_different: counts.len(),
            n_single: counts.values().filter(|&&n| n == 1).count(),
            are_decimals: are_numbers
                && counts.keys().any(|text| number(text).is_some_and(|n| n.fract() != 0.0)),
        }
    }

    /// Why the values are evidently no labels, if they are not: there are many, and most examples have one that no other
    /// example has, as ids and texts do; or they are numbers of a continuous quantity. A few examples of each of hundreds of
    /// labels are labels: even of a sample with as many examples as labels, two in three share theirs.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        if self.n_different <= MOST_FREE {
            None
        } else if 2 * self.n_single > self.n {
            Some(format!("{} of which have one that no other example has", self.n_single))
        } else {
            self.are_decimals.then(|| "all numbers, with decimals".to_owned())
        }
    }

    /// Whether they look like labels: two or more values, most of them in several examples.
    fn look_like_labels(&self) -> bool {
        self.n_different >= 2 && 2 * self.n_different <= self.n && self.doubt().is_none()
    }
}

/// The fields whose values look like labels in most examples, except `used` ones, with the number of different values: the
/// fewest first.
#[must_use]
pub fn candidates<'d>(dataset: &'d Dataset, used: &[&str]) -> Vec<(&'d str, usize)> {
    let fields = dataset.own_fields().into_iter().filter(|&field| !used.contains(&dataset.field_name(field)));
    let mut found: Vec<(&str, usize)> = fields
        .filter_map(|field| {
            let values = LabelValues::of(dataset, field);
            let is_likely = values.look_like_labels() && 2 * values.n >= dataset.n();
            is_likely.then(|| (dataset.field_name(field), values.n_different))
        })
        .collect();
    found.sort_by_key(|&(_, n_different)| n_different);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A file with a field of these values, and one that alternates.
    fn data(values: impl IntoIterator<Item = String>) -> Dataset {
        let rows = values.into_iter().enumerate().map(|(row, value)| format!("{value},{}\n", row % 2));
        let text = format!("value,other\n{}", rows.collect::<String>());
        Dataset::from_bytes(text.as_bytes(), Path::new("d.csv")).unwrap()
    }

    fn doubt(values: impl IntoIterator<Item = String>) -> Option<String> {
        let data = data(values);
        LabelValues::of(&data, data.require("value").unwrap()).doubt()
    }

    #[test]
    fn ids_texts_and_measurements_are_no_labels() {
        assert_eq!(
            doubt((0..150).map(|i| format!("id {}", i % 129))).unwrap(),
            "108 of which have one that no other example has"
        );
        assert!(doubt((0..30).map(|i| format!("a sentence of its own, {i}").replace(',', ""))).is_some());
        assert!(doubt((0..21).map(|i| i.to_string())).is_some());
        assert_eq!(
            doubt((0..500).map(|i| format!("{:.1}", f64::from(i % 50) / 10.0))).unwrap(),
            "all numbers, with decimals"
        );
    }

    #[test]
    fn many_labels_with_few_examples_each_are_labels() {
        for (n_labels, n) in [(77, 150), (77, 154), (150, 300), (150, 250), (2, 4), (20, 20), (300, 900)] {
            assert_eq!(doubt((0..n).map(|i| format!("intent {}", i % n_labels))), None, "{n_labels} {n}");
        }
        // A random sample, without the regularity: by a linear congruence.
        let mut state = 7_u64;
        let mut draw = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for (n_labels, n) in [(77, 150), (77, 100), (150, 150)] {
            let values: Vec<String> = (0..n).map(|_| format!("intent {}", draw(n_labels))).collect();
            assert_eq!(doubt(values), None, "{n_labels} {n}");
        }
        assert_eq!(doubt((0..100).map(|i| format!("{}", f64::from(i % 9) / 2.0 + 1.0))), None, "half stars");
        assert_eq!(doubt((0..300).map(|i| (i % 60).to_string())), None, "whole numbers that repeat");
    }

    #[test]
    fn fields_that_look_like_labels_are_found() {
        let data = data((0..60).map(|i| format!("id {i}")));
        assert_eq!(candidates(&data, &["value"]), [("other", 2)]);
        assert_eq!(candidates(&data, &["other"]), []);
    }
}
