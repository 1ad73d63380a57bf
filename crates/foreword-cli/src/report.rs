//! What a run came to, for people: the table against the baselines, what it cost, and whether it was worth it.

use foreword::Evaluation;

use crate::learn::{Compared, Learned};
use crate::printer::Table;
use crate::resolve::run::Plan;
use crate::words::{count, interval, loss, percent, quoted, quoted_path, seconds};

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
    lines.extend(verdict(tuned, &baselines));
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
fn verdict(tuned: &Evaluation, baselines: &[(&str, &Evaluation)]) -> Option<String> {
    let best = baselines.iter().map(|(_, evaluation)| evaluation.accuracy()).max_by(f64::total_cmp)?;
    if tuned.accuracy() <= best {
        return Some(
            "The tuned prompt is no better than the best row above it: as it stands, this run was not worth it. More \
             examples, more steps, another template or a larger model may change that."
                .to_owned(),
        );
    }
    let close = baselines.iter().filter(|(_, evaluation)| tuned.interval().0 <= evaluation.accuracy());
    let close: Vec<String> = close.map(|(name, _)| format!("{name:?}")).collect();
    let n = count(tuned.n());
    (!close.is_empty()).then(|| {
        format!("On {n} examples, the tuned prompt's lead over {} may be chance.", close.join(" and "))
    })
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
