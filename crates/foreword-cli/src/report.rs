//! What a run came to, for people: the table against the baselines, what it cost, and whether it was worth it.

use std::collections::BTreeMap;

use foreword::metrics::wilson;
use foreword::{Evaluation, Passport};

use crate::learn::{Compared, Learned};
use crate::printer::Table;
use crate::resolve::run::Plan;
use crate::words::{count, interval, loss, percent, quoted, quoted_path, seconds};

/// What nearest tokens are not; it stands wherever they are shown.
pub(crate) const WAYWARD: &str = "Nearest tokens are no explanation: prompts trained with cross-entropy can drift far beyond the \
    norms of the vocabulary, and a prompt within 2 % of the best can sit next to any text.";

/// The splits of a passport, in the order in which they are told.
const SPLITS: [&str; 2] = ["dev", "test"];

/// A row of scores.
pub(crate) fn scores_row(name: &str, evaluation: &Evaluation) -> [String; 4] {
    let loss = if evaluation.loss.is_nan() { String::new() } else { loss(evaluation.loss) };
    [name.to_owned(), percent(evaluation.accuracy()), interval(evaluation.interval()), loss]
}

/// A table of scores on `n` examples, of which there is a word.
pub(crate) fn scores_table(examples: &str, n: u64) -> Table {
    Table::new([format!("{} {examples}", count(n)), "accuracy".into(), "95 % interval".into(), "loss".into()])
}

/// The split to report on: the test set, or else dev, on which the prompt was chosen.
pub(crate) fn reported(learned: &Learned) -> Option<(&'static str, &Compared)> {
    if learned.test.tuned.is_some() {
        Some(("test", &learned.test))
    } else if learned.dev.tuned.is_some() {
        Some(("dev", &learned.dev))
    } else {
        None
    }
}

/// The prompt against its baselines, with `more` baselines in between.
pub(crate) fn comparison(learned: &Learned, more: &[(&str, &Evaluation)]) -> Vec<String> {
    let Some((split, compared)) = reported(learned) else { return Vec::new() };
    let Some(tuned) = &compared.tuned else { return Vec::new() };
    let mut baselines: Vec<(&str, &Evaluation)> = Vec::new();
    baselines.extend(compared.majority.as_ref().map(|evaluation| ("majority class", evaluation)));
    baselines.extend(compared.bare.as_ref().map(|evaluation| ("bare model, same template", evaluation)));
    baselines.extend(more);
    let mut table = scores_table(&format!("{split} examples"), tuned.n());
    for (name, evaluation) in &baselines {
        table.row(scores_row(name, evaluation));
    }
    table.row(scores_row("tuned soft prompt", tuned));
    let mut lines = vec![table.to_string()];
    lines.extend(verdict(tuned, &baselines).map(str::to_owned));
    if learned.outcome.best_step == 0 {
        lines
            .push("No step was better than the init, so the prompt is its init: nothing was learned.".into());
    }
    if split == "dev" {
        lines.push(
            "The prompt was chosen on these examples, so expect a little less on others; --test FILE tells."
                .into(),
        );
    }
    lines
}

/// What the table does not show at once: that the prompt is no better, or not surely so.
fn verdict(tuned: &Evaluation, baselines: &[(&str, &Evaluation)]) -> Option<&'static str> {
    let best = baselines.iter().map(|(_, evaluation)| evaluation.accuracy()).max_by(f64::total_cmp)?;
    if tuned.accuracy() <= best {
        return Some(
            "The tuned prompt is no better than the best row above it: as it stands, this run was not worth it. More \
             examples, more steps, another template or a larger model may change that.",
        );
    }
    (tuned.interval().0 <= best).then_some(
        "The tuned prompt is better than the rows above it, but on so few examples that may be chance.",
    )
}

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

/// What was learned and what it took.
pub(crate) fn costs(plan: &Plan, learned: &Learned) -> String {
    format!(
        "{} numbers learned, {} frozen; {} bytes on disk; {}",
        count(plan.n_learned() as u64),
        count(plan.model.backbone.spec().n_parameters() as u64),
        count(learned.bytes),
        seconds(learned.seconds)
    )
}

/// The flags that name the prompt and, where it is needed, its model.
pub(crate) fn flags_of(plan: &Plan) -> String {
    let prompt = format!("--prompt {}", quoted_path(&plan.place.out));
    if plan.model_name == foreword_tiny::NAME {
        prompt
    } else {
        format!("{prompt} --model {}", quoted(&plan.model_name))
    }
}
