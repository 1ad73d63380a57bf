//! What a passport says of how good its prompt is: the metrics with their baselines, and whether it was worth it.

use std::collections::BTreeMap;

use crate::Passport;
use crate::metrics::paired::is_chance;
use crate::metrics::wilson;
use crate::record::IMPORTED_FROM;

use crate::display::{count, interval, loss, perplexity};

/// The splits of a passport, in the order in which they are told.
pub const SPLITS: [&str; 2] = ["dev", "test"];
/// What a prompt is held against: the name in the metrics, and in words.
const BASELINES: [(&str, &str); 2] = [
    ("bare", "the bare model with the same template"),
    ("majority", "always giving the most frequent label"),
];

/// A recorded prompt against the best of what costs no training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The test set, or else dev, on which the prompt was chosen.
    pub split: &'static str,
    /// Examples of it.
    pub n: u64,
    /// The best of [`BASELINES`], by its name in the metrics.
    pub baseline: &'static str,
    /// By what they are compared.
    pub by: Measure,
}

/// What a verdict goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// The accuracy of a classification, with its 95 % interval and how often chance gives such a difference.
    Accuracy {
        /// With the prompt.
        tuned: f64,
        /// Its 95 % interval.
        interval: (f64, f64),
        /// Of the baseline.
        baseline: f64,
        /// Of a paired test, where it is recorded.
        p_value: Option<f64>,
    },
    /// The loss of a token of a target.
    Loss {
        /// With the prompt.
        tuned: f64,
        /// Of the baseline.
        baseline: f64,
    },
}

impl Verdict {
    /// From the metrics of a passport, where they have both a prompt's and the bare model's.
    pub fn of(metrics: &BTreeMap<String, BTreeMap<String, f64>>) -> Option<Self> {
        SPLITS.into_iter().rev().find_map(|split| {
            let (tuned, bare) = (metrics.get(split)?, metrics.get(&format!("{split}.bare"))?);
            let n = tuned.get("n")?.round() as u64;
            let (Some(&accuracy), Some(_)) = (tuned.get("accuracy"), bare.get("accuracy")) else {
                let by = Measure::Loss { tuned: *tuned.get("loss")?, baseline: *bare.get("loss")? };
                return Some(Self { split, n, baseline: BASELINES[0].0, by });
            };
            let baselines = BASELINES.into_iter().filter_map(|(name, _)| {
                let metrics = metrics.get(&format!("{split}.{name}"))?;
                Some((name, *metrics.get("accuracy")?, metrics.get("p_value").copied()))
            });
            // The first of equals.
            let best = baselines.reduce(|best, other| if other.1 > best.1 { other } else { best });
            let (baseline, of_baseline, p_value) = best?;
            let interval = wilson((accuracy * n as f64).round() as u64, n);
            let by = Measure::Accuracy { tuned: accuracy, interval, baseline: of_baseline, p_value };
            Some(Self { split, n, baseline, by })
        })
    }

    /// Whether it is better than the best baseline.
    pub fn beats_baseline(&self) -> bool {
        match self.by {
            Measure::Accuracy { tuned, baseline, .. } => tuned > baseline,
            Measure::Loss { tuned, baseline } => tuned < baseline,
        }
    }

    /// Whether a lead in accuracy may be chance; where no test is recorded, whether the intervals of the two overlap. A loss
    /// is a mean over many tokens, which has no such interval.
    pub fn may_be_chance(&self) -> bool {
        match self.by {
            Measure::Accuracy { p_value: Some(p_value), .. } => is_chance(p_value),
            Measure::Accuracy { interval, baseline, .. } => {
                interval.0 <= wilson((baseline * self.n as f64).round() as u64, self.n).1
            }
            Measure::Loss { .. } => false,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (n, split) = (count(self.n), self.split);
        let named = BASELINES.into_iter().find(|(name, _)| *name == self.baseline);
        let than = named.map_or("", |(_, in_words)| in_words);
        if !self.beats_baseline() {
            return write!(
                f,
                "On the {n} {split} examples it is no better than {than}: as it stands, it was not worth it."
            );
        }
        let (points, own) = match self.by {
            Measure::Accuracy { tuned, interval, baseline, .. } => {
                (100.0 * (tuned - baseline), self::interval(interval))
            }
            Measure::Loss { tuned, baseline } => {
                return write!(
                    f,
                    "On the {n} {split} examples it makes the targets likelier than {than} does: {} against {} nats a token \
                     (perplexity {} against {}).",
                    loss(tuned),
                    loss(baseline),
                    perplexity(tuned),
                    perplexity(baseline)
                );
            }
        };
        write!(f, "On the {n} {split} examples it beats {than} by {points:.1} points")?;
        if self.may_be_chance() {
            write!(f, ", which on so few may be chance (95 % interval of its accuracy: {own}).")
        } else {
            write!(f, ", more than chance gives (95 % interval of its accuracy: {own}).")
        }
    }
}

/// The format that a prompt was imported from, of whose training nothing is known.
pub fn imported_from(passport: &Passport) -> Option<&str> {
    passport.training.settings.get(IMPORTED_FROM)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What metrics of this many examples come to; the baselines with their tests.
    fn told(split: &str, n: f64, tuned: f64, baselines: &[(&str, f64, Option<f64>)]) -> String {
        let scores = |accuracy, p_value: Option<f64>| {
            let p_value = p_value.map(|p_value| ("p_value".to_owned(), p_value));
            let always = [("accuracy".to_owned(), accuracy), ("n".to_owned(), n)];
            always.into_iter().chain(p_value).collect::<BTreeMap<_, _>>()
        };
        let baselines = baselines
            .iter()
            .map(|&(name, accuracy, p_value)| (format!("{split}.{name}"), scores(accuracy, p_value)));
        let metrics = baselines.chain([(split.to_owned(), scores(tuned, None))]).collect();
        Verdict::of(&metrics).map_or_else(String::new, |verdict| verdict.to_string())
    }

    #[test]
    fn a_prompt_is_praised_only_where_it_is_better_and_not_by_chance() {
        let bare = |n, tuned, bare, p_value| told("test", n, tuned, &[("bare", bare, p_value)]);
        assert!(bare(200.0, 0.5, 0.5, Some(1.0)).contains("no better than the bare model"));
        assert!(bare(200.0, 0.81, 0.77, Some(0.2)).contains("by 4.0 points, which on so few may be chance"));
        assert!(bare(200.0, 0.81, 0.77, Some(0.04)).contains("more than chance gives"));
        // Without a test, by both intervals.
        assert!(bare(200.0, 0.81, 0.75, None).contains("may be chance"));
        assert!(bare(12.0, 0.5, 0.25, None).contains("may be chance"));
        assert!(bare(2000.0, 0.81, 0.75, None).contains("more than chance gives"));
        assert!(
            told("dev", 2000.0, 0.81, &[("bare", 0.7, None)])
                .starts_with("On the 2,000 dev examples it beats")
        );
        assert_eq!(told("train", 10.0, 1.0, &[("bare", 0.0, None)]), "");
    }

    #[test]
    fn a_prompt_is_held_against_the_better_baseline() {
        let told =
            |tuned| told("test", 500.0, tuned, &[("bare", 0.72, Some(1e-6)), ("majority", 0.84, Some(0.3))]);
        assert!(
            told(0.81).contains("no better than always giving the most frequent label"),
            "{}",
            told(0.81)
        );
        assert!(
            told(0.85).contains("beats always giving the most frequent label by 1.0 points, which on so few")
        );
    }

    #[test]
    fn a_prompt_that_writes_is_praised_for_a_lower_loss() {
        let told = |tuned, bare| {
            let scores = |loss| BTreeMap::from([("loss".to_owned(), loss), ("n".to_owned(), 50.0)]);
            let metrics = [("test".to_owned(), scores(tuned)), ("test.bare".to_owned(), scores(bare))];
            Verdict::of(&metrics.into()).unwrap().to_string()
        };
        assert!(told(1.0, 2.0).contains("1.000 against 2.000 nats a token (perplexity 2.72 against 7.39)"));
        assert!(told(2.0, 1.0).contains("no better than the bare model"));
    }
}
