//! What a run came to, for people: the table against the baselines, what it cost, and whether it was worth it.

use foreword::{Confusion, Evaluation, StopReason, Verbalizer};

use crate::learn::{Compared, Learned};
use crate::printer::Table;
use crate::resolve::named::is_enough;
use crate::resolve::run::Plan;
use crate::words::{
    self, count, in_a_line, interval, loss, percent, perplexity, quoted, quoted_path, seconds,
};

/// A table of evaluations of the same `examples`, of which there is a word: with accuracies where there are labels, and
/// the perplexity of a token where texts are generated.
pub(crate) fn scores_table(examples: &str, rows: &[(&str, &Evaluation)]) -> Table {
    let n = rows.first().map_or(0, |(_, evaluation)| evaluation.n);
    let examples = format!("{} {examples}", count(n));
    let is_labelled = rows.iter().any(|(_, evaluation)| evaluation.labels.is_some());
    let mut table = if is_labelled {
        Table::new([&examples, "accuracy", "95 % interval", "loss"])
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
                    said,
                ]);
            }
            None => table.row([(*name).to_owned(), said, perplexity(evaluation.loss)]),
        }
    }
    table
}

/// Each label's precision, recall and F1, once for each of these classifiers of the same examples.
pub(crate) fn labels_table(labels: &Verbalizer, rows: &[(&str, &Confusion)]) -> Table {
    let of =
        |what: &str, name: &str| if name.is_empty() { what.to_owned() } else { format!("{what} {name}") };
    let headings =
        rows.iter().flat_map(|(name, _)| [of("precision", name), of("recall", name), of("F1", name)]);
    let mut table = Table::new(["label", "examples"].map(str::to_owned).into_iter().chain(headings));
    let cell = |score: Option<f64>| score.map_or_else(|| "–".to_owned(), |score| format!("{score:.3}"));
    for (label, name) in labels.names().iter().enumerate() {
        let n = rows.first().map_or(0, |(_, given)| given.label(label).n);
        let mut cells = vec![name.clone(), count(n)];
        for (_, given) in rows {
            let counts = given.label(label);
            cells.extend([counts.precision(), counts.recall(), counts.f1()].map(cell));
        }
        table.row(cells);
    }
    table
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
    let verdict = verdict(tuned, &baselines, learned.could_stand_behind());
    let tuned_name = format!("tuned {}", words::learned(learned.method));
    baselines.push((&tuned_name, tuned));
    let ensemble = format!("ensemble of {}", count(learned.members as u64));
    baselines.extend(compared.ensemble.as_ref().map(|evaluation| (ensemble.as_str(), evaluation)));
    let mut lines = vec![scores_table(&format!("{split} examples"), &baselines).to_string()];
    lines.extend(verdict);
    if learned.outcome.best_step == 0 {
        lines
            .push("No step was better than the init, so the prompt is its init: nothing was learned.".into());
    }
    if split == "dev" && learned.is_chosen {
        lines.push(
            "The prompt was chosen on these examples, so expect a little less on others; --test FILE tells."
                .into(),
        );
    }
    lines
}

/// What the table does not show at once: that the prompt is no better, or not surely so.
fn verdict(
    tuned: &Evaluation,
    baselines: &[(&str, &Evaluation)],
    could_stand_behind: bool,
) -> Option<String> {
    let better = |a: f64, b: f64| a.partial_cmp(&b) == Some(std::cmp::Ordering::Greater);
    let beaten = match tuned.accuracy() {
        Some(accuracy) => {
            baselines.iter().all(|(_, other)| other.accuracy().is_none_or(|of| better(accuracy, of)))
        }
        None => baselines.iter().all(|(_, other)| better(other.loss, tuned.loss)),
    };
    if !beaten {
        let suffix = if could_stand_behind { " --placement suffix," } else { "" };
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

/// The candidates of a run, where there were several: how each was set, how far it came, and its best loss on dev.
pub(crate) fn candidates(plan: &Plan, learned: &Learned) -> Option<Table> {
    if plan.tried.is_empty() {
        return None;
    }
    let mut table =
        Table::new(["candidate", "learning rate", "init", "virtual tokens", "seed", "steps", "dev loss"]);
    for (i, (tried, outcome)) in plan.tried.iter().zip(&learned.population.outcomes).enumerate() {
        let place = learned.population.survivors.iter().position(|&survivor| survivor == i);
        let mark = match (place, outcome.ended) {
            (Some(0), _) => " (best)",
            (Some(_), _) => " (member)",
            (None, StopReason::Diverged { .. }) => " (diverged)",
            (None, _) => "",
        };
        let how = &tried.how;
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

/// What was learned and what it took.
pub(crate) fn costs(plan: &Plan, learned: &Learned) -> String {
    format!(
        "{} numbers learned, {} frozen; {} bytes on disk; {}",
        count(learned.n_learned),
        count(plan.model.backbone.spec().n_parameters() as u64),
        count(learned.bytes),
        seconds(learned.seconds)
    )
}

/// The flags that name the prompt and, where it is needed, its model.
pub(crate) fn flags_of(plan: &Plan) -> String {
    let prompt = format!("--prompt {}", quoted_path(&plan.place.out));
    if is_enough(&plan.model.backbone.identity().name) {
        prompt
    } else {
        format!("{prompt} --model {}", quoted(&plan.model_name))
    }
}
