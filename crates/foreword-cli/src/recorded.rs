//! What a passport says of how good its prompt is: the metrics with their baselines, and whether it was worth it.

use std::collections::BTreeMap;

use foreword::Passport;
use foreword::metrics::wilson;

use crate::printer::Table;
use crate::words::{count, interval, loss, percent, perplexity};

/// The splits of a passport, in the order in which they are told.
const SPLITS: [&str; 2] = ["dev", "test"];

/// A recorded prompt against the bare model with the same template.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// The test set, or else dev, on which the prompt was chosen.
    pub(crate) split: &'static str,
    pub(crate) n: u64,
    pub(crate) by: Measure,
}

/// What a verdict goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Measure {
    /// The accuracy of a classification, with its 95 % interval.
    Accuracy { tuned: f64, interval: (f64, f64), bare: f64 },
    /// The loss of a token of a target.
    Loss { tuned: f64, bare: f64 },
}

impl Verdict {
    /// From the metrics of a passport, where they have both.
    pub(crate) fn of(metrics: &BTreeMap<String, BTreeMap<String, f64>>) -> Option<Self> {
        SPLITS.into_iter().rev().find_map(|split| {
            let (tuned, bare) = (metrics.get(split)?, metrics.get(&format!("{split}.bare"))?);
            let n = tuned.get("n")?.round() as u64;
            let by = match (tuned.get("accuracy"), bare.get("accuracy")) {
                (Some(&tuned), Some(&bare)) => {
                    let interval = wilson((tuned * n as f64).round() as u64, n);
                    Measure::Accuracy { tuned, interval, bare }
                }
                _ => Measure::Loss { tuned: *tuned.get("loss")?, bare: *bare.get("loss")? },
            };
            Some(Self { split, n, by })
        })
    }

    pub(crate) fn beats_bare(&self) -> bool {
        match self.by {
            Measure::Accuracy { tuned, bare, .. } => tuned > bare,
            Measure::Loss { tuned, bare } => tuned < bare,
        }
    }

    /// Whether a lead in accuracy may be chance. A loss is a mean over many tokens, which has no such interval.
    pub(crate) fn may_be_chance(&self) -> bool {
        match self.by {
            Measure::Accuracy { interval, bare, .. } => interval.0 <= bare,
            Measure::Loss { .. } => false,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (n, split) = (count(self.n), self.split);
        if !self.beats_bare() {
            return write!(
                f,
                "On the {n} {split} examples it is no better than the bare model with the same template: as it stands, it \
                 was not worth it."
            );
        }
        let (points, own) = match self.by {
            Measure::Accuracy { tuned, interval, bare } => (100.0 * (tuned - bare), self::interval(interval)),
            Measure::Loss { tuned, bare } => {
                return write!(
                    f,
                    "On the {n} {split} examples it makes the targets likelier than the bare model with the same template \
                     does: {} against {} nats a token (perplexity {} against {}).",
                    loss(tuned),
                    loss(bare),
                    perplexity(tuned),
                    perplexity(bare)
                );
            }
        };
        write!(
            f,
            "On the {n} {split} examples it beats the bare model with the same template by {points:.1} points"
        )?;
        if self.may_be_chance() {
            write!(f, ", which on so few may be chance (95 % interval of its accuracy: {own}).")
        } else {
            write!(f, ", more than chance gives (95 % interval of its accuracy: {own}).")
        }
    }
}

/// What a passport says of how good the prompt is: the table with its baselines, and what it comes to.
pub(crate) fn recorded(passport: &Passport) -> String {
    let is_labelled = passport.metrics.values().any(|metrics| metrics.contains_key("accuracy"));
    let headings = ["", "examples", "loss", "accuracy", "macro F1"];
    let mut table = Table::new(headings.into_iter().take(if is_labelled { 5 } else { 3 }));
    let kinds =
        [(".majority", "majority class"), (".bare", "bare model, same template"), ("", "this soft prompt")];
    for split in SPLITS {
        for (suffix, name) in kinds {
            let Some(metrics) = passport.metrics.get(&format!("{split}{suffix}")) else { continue };
            let cell = |metric, write: fn(f64) -> String| {
                metrics.get(metric).copied().map_or_else(String::new, write)
            };
            table.row([
                format!("{split}: {name}"),
                cell("n", |n| count(n.round() as u64)),
                cell("loss", loss),
                cell("accuracy", percent),
                cell("macro_f1", |f1| format!("{f1:.3}")),
            ]);
        }
    }
    let mut lines = Vec::new();
    if !passport.metrics.is_empty() {
        lines.push(table.to_string());
    }
    lines.push(String::new());
    match Verdict::of(&passport.metrics) {
        Some(verdict) => {
            lines.push(verdict.to_string());
            if verdict.split == "dev" {
                lines.push("It was chosen on these examples, so expect a little less on others.".to_owned());
            }
        }
        None => {
            lines.push("Whether it beats the bare model is not recorded; `foreword eval` tells.".to_owned());
        }
    }
    if passport.training.best_step == 0 {
        lines.push(
            "No step was better than the init, so the prompt is its init: nothing was learned.".to_owned(),
        );
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What metrics of this many examples come to.
    fn told(split: &str, n: f64, tuned: f64, bare: f64) -> String {
        let scores = |accuracy| BTreeMap::from([("accuracy".to_owned(), accuracy), ("n".to_owned(), n)]);
        let metrics = [(split.to_owned(), scores(tuned)), (format!("{split}.bare"), scores(bare))];
        Verdict::of(&metrics.into()).map_or_else(String::new, |verdict| verdict.to_string())
    }

    #[test]
    fn a_prompt_is_praised_only_where_it_is_better_and_not_by_chance() {
        assert!(told("test", 200.0, 0.5, 0.5).contains("no better than the bare model"));
        assert!(told("test", 200.0, 0.81, 0.77).contains("by 4.0 points, which on so few may be chance"));
        assert!(told("dev", 2000.0, 0.81, 0.77).starts_with("On the 2,000 dev examples it beats"));
        assert!(told("dev", 2000.0, 0.81, 0.77).contains("more than chance gives"));
        assert_eq!(told("train", 10.0, 1.0, 0.0), "");
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
