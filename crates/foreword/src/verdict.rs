//! The verdict of a passport: its metrics and baselines, and whether the prompt was worth training.

use std::collections::BTreeMap;

use crate::metrics::paired::is_chance;
use crate::metrics::wilson;
use crate::record::IMPORTED_FROM;
use crate::{Evaluation, Passport};

use crate::display::{count, interval, loss, p_value, percent, perplexity};

/// The splits of a passport, in display order.
pub const SPLITS: [&str; 2] = ["dev", "test"];
/// The row of the frozen model with the template and nothing else.
pub const BARE_NAME: &str = "bare model, same template";
/// The row of always giving the most frequent label.
pub const MAJORITY_NAME: &str = "majority class";
/// Maximum number of examples that are few: an accuracy on them is uncertain by more than ten points to each side.
const FEW: u64 = 30;

/// Whether so few examples say little of the accuracy on others.
#[must_use]
pub fn are_few(n: u64) -> bool {
    n <= FEW
}

/// The baselines of a prompt: their names in the metrics and in messages.
const BASELINES: [(&str, &str); 2] = [
    ("bare", "the bare model with the same template"),
    ("majority", "always giving the most frequent label"),
];

/// A recorded prompt against the best untrained baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The test set, or else dev, on which the prompt was selected.
    pub split: &'static str,
    /// Number of its examples.
    pub n: u64,
    /// The best of the baselines, by its name in the metrics.
    pub baseline: &'static str,
    /// The measure of the comparison.
    pub by: Measure,
}

/// The measure of a verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// The accuracy of a classification, with its 95 % interval and the p-value of the difference.
    Accuracy {
        /// With the prompt.
        tuned: f64,
        /// Its 95 % interval.
        interval: (f64, f64),
        /// The baseline.
        baseline: f64,
        /// The p-value of a paired test, if recorded.
        p_value: Option<f64>,
    },
    /// The loss per target token.
    Loss {
        /// With the prompt.
        tuned: f64,
        /// The baseline.
        baseline: f64,
    },
}

impl Verdict {
    /// Computes it from the metrics of a passport, if they include the prompt and the bare model.
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
            // The first one on a tie.
            let best = baselines.reduce(|best, other| if other.1 > best.1 { other } else { best });
            let (baseline, of_baseline, p_value) = best?;
            let interval = wilson((accuracy * n as f64).round() as u64, n);
            let by = Measure::Accuracy { tuned: accuracy, interval, baseline: of_baseline, p_value };
            Some(Self { split, n, baseline, by })
        })
    }

    /// Whether the prompt beats the best baseline.
    pub fn beats_baseline(&self) -> bool {
        match self.by {
            Measure::Accuracy { tuned, baseline, .. } => tuned > baseline,
            Measure::Loss { tuned, baseline } => tuned < baseline,
        }
    }

    /// Whether a lead in accuracy may be due to chance; without a recorded test, whether the two intervals overlap. A loss
    /// is a mean over many tokens and has no such interval.
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
        let surely = match self.by {
            Measure::Accuracy { tuned, interval, .. } if are_few(self.n) => format!(
                ", as far as so few can tell (its accuracy {}, 95 % interval {})",
                percent(tuned),
                self::interval(interval)
            ),
            _ => String::new(),
        };
        if !self.beats_baseline() {
            return write!(
                f,
                "On the {n} {split} examples it is no better than {than}: training was not worthwhile{surely}."
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
        let test = match self.by {
            Measure::Accuracy { p_value: Some(p), .. } => format!("p {}, ", p_value(p)),
            _ => String::new(),
        };
        if self.may_be_chance() {
            write!(f, ", which on so few may be chance ({test}95 % interval of its accuracy: {own}).")
        } else {
            write!(f, ", more than chance gives ({test}95 % interval of its accuracy: {own}).")
        }
    }
}

/// The format that a prompt was imported from; nothing is known of its training.
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
        let surely = match tuned.n {
            n if are_few(n) => format!(", as far as {} examples can tell", count(n)),
            _ => String::new(),
        };
        return Some(format!(
            "The tuned prompt is no better than the best row above it: this run was not worthwhile{surely}. More \
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
