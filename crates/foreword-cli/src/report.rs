//! The result of a run for people: the table against the baselines, the costs, and whether it was worth it.

mod labels;

use foreword::{Evaluation, Passport, RunPlan, RunResult, StopReason};

use crate::command_line::{quoted, quoted_path};
use crate::printer::Table;
use foreword::display::{self, count, in_a_line, interval, loss, percent, perplexity, seconds};
use foreword::source::is_enough;
use foreword::verdict::{BARE_NAME, MAJORITY_NAME, SPLITS, Verdict, after_table, are_few, imported_from};

pub(crate) use labels::{confusion, given, labels_table};

/// A table of evaluations on the same examples, named by `examples`: with accuracies and macro F1 for classification, and
/// the perplexity per token for generation.
pub(crate) fn scores_table(examples: &str, rows: &[(&str, &Evaluation)]) -> Table {
    let n = rows.first().map_or(0, |(_, evaluation)| evaluation.n);
    let examples = format!("{} {examples}", count(n));
    let is_labelled = rows.iter().any(|(_, evaluation)| evaluation.labels.is_some());
    let mut table = if is_labelled {
        Table::new([&examples, "accuracy", "95 % interval", "macro F1", "loss"])
    } else {
        Table::new([&examples, "loss", "perplexity"])
    };
    for (name, evaluation) in rows {
        let said = if evaluation.loss.is_nan() { String::new() } else { loss(evaluation.loss) };
        match &evaluation.labels {
            Some(labels) => {
                table.row([
                    (*name).to_owned(),
                    percent(labels.accuracy()),
                    interval(labels.interval()),
                    format!("{:.3}", labels.macro_f1()),
                    said,
                ]);
            }
            None => table.row([(*name).to_owned(), said, perplexity(evaluation.loss)]),
        }
    }
    table
}

/// The prompt against its baselines, with `more` baselines in between.
pub(crate) fn comparison(plan: &RunPlan, result: &RunResult, more: &[(&str, &Evaluation)]) -> Vec<String> {
    let Some((split, compared)) = result.reported() else { return Vec::new() };
    let Some(tuned) = &compared.tuned else { return Vec::new() };
    let mut baselines: Vec<(&str, &Evaluation)> = Vec::new();
    baselines.extend(compared.majority.as_ref().map(|evaluation| (MAJORITY_NAME, evaluation)));
    baselines.extend(compared.bare.as_ref().map(|evaluation| (BARE_NAME, evaluation)));
    baselines.extend(more);
    let verdict = after_table(tuned, &baselines, plan.may_use_suffix());
    let tuned_name = format!("tuned {}", display::learned(plan.task.method));
    baselines.push((&tuned_name, tuned));
    let ensemble = format!("ensemble of {}", count(result.members as u64));
    baselines.extend(compared.ensemble.as_ref().map(|evaluation| (ensemble.as_str(), evaluation)));
    let mut lines = vec![scores_table(&format!("{split} examples"), &baselines).to_string()];
    lines.extend(verdict);
    if result.outcome.best_step == 0 {
        lines
            .push("No step was better than the init, so the prompt is its init: nothing was learned.".into());
    }
    if split == "dev" && result.is_chosen {
        let (these, less) = if are_few(tuned.n) { ("few ", "less") } else { ("", "a little less") };
        lines.push(format!(
            "The prompt was chosen on these {these}examples, so expect {less} on others; --test FILE tells."
        ));
    }
    lines
}

/// The candidates of a run, where there were several: how each was set, how far it came, and its best loss on dev.
pub(crate) fn candidates(plan: &RunPlan, result: &RunResult) -> Option<Table> {
    if plan.candidates.len() < 2 {
        return None;
    }
    let mut table =
        Table::new(["candidate", "learning rate", "init", "virtual tokens", "seed", "steps", "dev loss"]);
    for (i, (planned, outcome)) in plan.candidates.iter().zip(&result.population.outcomes).enumerate() {
        let place = result.population.survivors.iter().position(|&survivor| survivor == i);
        let mark = match (place, outcome.ended) {
            (Some(0), _) => " (best)",
            (Some(_), _) => " (member)",
            (None, StopReason::Diverged { .. }) => " (diverged)",
            (None, _) => "",
        };
        let how = &planned.how;
        table.row([
            format!("{}{mark}", i + 1),
            how.learning_rate.to_string(),
            in_a_line(&how.init.to_string()),
            count(how.n_virtual as u64),
            how.seed.to_string(),
            count(outcome.steps),
            outcome.dev_loss.map_or_else(String::new, loss),
        ]);
    }
    Some(table)
}

/// The labels: the number of training examples of each, and its scores with the prompt.
pub(crate) fn labels(plan: &RunPlan, result: &RunResult) -> Option<String> {
    let (split, compared) = result.reported()?;
    let (given, labels) = (compared.tuned.as_ref()?.labels.as_ref()?, plan.task.verbalizer()?);
    Some(format!("\n{}\n", labels_table(labels, Some((plan.train.labels(), split)), &[("", given)])))
}

/// What was learned, and its cost.
pub(crate) fn costs(plan: &RunPlan, result: &RunResult) -> String {
    let passes = plan.passes(result.outcome.steps);
    format!(
        "{passes:.1} passes over the training examples; {} numbers learned, {} frozen; {} bytes on disk; {}",
        count(result.n_learned),
        count(plan.model.backbone.spec().n_parameters() as u64),
        count(result.bytes),
        seconds(result.seconds)
    )
}

/// The flags for the prompt and, if needed, for its model.
pub(crate) fn flags_of(plan: &RunPlan) -> String {
    let prompt = format!("--prompt {}", quoted_path(&plan.output.out));
    if is_enough(plan.model.backbone.name()) {
        prompt
    } else {
        format!("{prompt} --model {}", quoted(plan.model.name()))
    }
}

/// The scores in a passport: the table with the baselines, and the verdict.
pub(crate) fn recorded(passport: &Passport) -> String {
    let is_labelled = passport.metrics.values().any(|metrics| metrics.contains_key("accuracy"));
    let headings = ["", "examples", "loss", "accuracy", "macro F1"];
    let mut table = Table::new(headings.into_iter().take(if is_labelled { 5 } else { 3 }));
    let this = format!("this {}", display::learned(passport.training.method));
    let kinds = [(".majority", MAJORITY_NAME), (".bare", BARE_NAME), ("", &this)];
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
    if passport.training.best_step == 0 && imported_from(passport).is_none() {
        lines.push(
            "No step was better than the init, so the prompt is its init: nothing was learned.".to_owned(),
        );
    }
    lines.join("\n")
}
