//! What a passport says of how good its prompt is: the metrics with their baselines, and whether it was worth it.

use std::collections::BTreeMap;

use crate::{Evaluation, Passport};
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

/// What the table of a run does not show at once: that the prompt is no better, or not surely so.
#[must_use]
pub fn after_table(
    tuned: &Evaluation,
    baselines: &[(&str, &Evaluation)],
    may_use_suffix: bool,
) -> Option<String> {
    let better = |a: f64, b: f64| a.partial_cmp(&b) == Some(std::cmp::Ordering::Greater);
    let beaten = match tuned.accuracy() {
        Some(accuracy) => {
            baselines.iter().all(|(_, other)| other.accuracy().is_none_or(|of| better(accuracy, of)))
        }
        None => baselines.iter().all(|(_, other)| better(other.loss, tuned.loss)),
    };
    if !beaten {
        let suffix = if may_use_suffix { " --placement suffix," } else { "" };
        return Some(format!(
            "The tuned prompt is no better than the best row above it: as it stands, this run was not worth it. More \
             examples, more steps,{suffix} another template or a larger model may change that."
        ));
    }
    let is_close = |other| tuned.against(other).is_some_and(|paired| paired.may_be_chance());
    let close = baselines.iter().filter(|(_, other)| is_close(other));
    let close: Vec<String> = close.map(|(name, _)| format!("{name:?}")).collect();
    let n = count(tuned.n);
    (!close.is_empty()).then(|| {
        format!("On {n} examples, the tuned prompt's lead over {} may be chance.", close.join(" and "))
    })
}
