//! What a passport says of how good its prompt is: the metrics with their baselines, and whether it was worth it.

use std::collections::BTreeMap;

use foreword::Passport;
use foreword::metrics::wilson;

use crate::printer::Table;
use crate::words::{count, interval, loss, percent};

/// The splits of a passport, in the order in which they are told.
const SPLITS: [&str; 2] = ["dev", "test"];

/// A recorded prompt against the bare model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// The test set, or else dev, on which the prompt was chosen.
    pub(crate) split: &'static str,
    pub(crate) n: u64,
    pub(crate) accuracy: f64,
    /// 95 % interval of the accuracy.
    pub(crate) interval: (f64, f64),
    /// The bare model's accuracy, with the same template.
    pub(crate) bare: f64,
}

impl Verdict {
    /// From the metrics of a passport, where they have both.
    pub(crate) fn of(metrics: &BTreeMap<String, BTreeMap<String, f64>>) -> Option<Self> {
        SPLITS.into_iter().rev().find_map(|split| {
            let tuned = metrics.get(split)?;
            let (&accuracy, n) = (tuned.get("accuracy")?, tuned.get("n")?.round() as u64);
            let &bare = metrics.get(&format!("{split}.bare"))?.get("accuracy")?;
            let interval = wilson((accuracy * n as f64).round() as u64, n);
            Some(Self { split, n, accuracy, interval, bare })
        })
    }

    pub(crate) fn beats_bare(&self) -> bool {
        self.accuracy > self.bare
    }

    pub(crate) fn may_be_chance(&self) -> bool {
        self.interval.0 <= self.bare
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (n, split, points) = (count(self.n), self.split, 100.0 * (self.accuracy - self.bare));
        let own = interval(self.interval);
        if !self.beats_bare() {
            return write!(
                f,
                "On the {n} {split} examples it is no better than the bare model with the same template: as it stands, it \
                 was not worth it."
            );
        }
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
    let mut table = Table::new(["", "examples", "accuracy", "macro F1", "loss"]);
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
                cell("accuracy", percent),
                cell("macro_f1", |f1| format!("{f1:.3}")),
                cell("loss", loss),
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
}
