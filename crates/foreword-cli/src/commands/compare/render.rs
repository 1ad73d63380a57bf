//! Prints a comparison for people.

use foreword::Result;
use foreword::metrics::paired::Paired;

use crate::args::CompareArgs;
use crate::command_line::{program, quoted, quoted_path, this_command};
use crate::printer::Table;
use crate::report::labels_table;
use foreword::compare::{Comparison, ComparisonSetup, Kind, Row};
use foreword::display::{bytes, count, in_a_line, interval, loss, p_value, percent, points, shortened};
use foreword::prompt::calibration::in_words;

/// Everything but the verdict.
pub(super) fn parts(setup: &ComparisonSetup, comparison: &Comparison, flips: usize) -> Result<Vec<String>> {
    let mut parts = vec![String::new(), table(comparison, &setup.truths).to_string()];
    parts.extend(notes(setup, comparison)?);
    parts.push(format!("\n{}", per_label(setup, comparison)?));
    parts.push(String::new());
    if comparison.reference.is_some() {
        let prompt = comparison.reference_in_words();
        let corrected = format!("right with {prompt}, wrong with the bare model");
        let spoiled = format!("wrong with {prompt}, right with the bare model");
        for (what, examples) in [(corrected, &comparison.corrected), (spoiled, &comparison.spoiled)] {
            parts.push(flipped(setup, comparison, (&what, examples), flips)?);
        }
    }
    parts.push(format!("\n{}", fine_tuning(comparison)));
    Ok(parts)
}

fn table(comparison: &Comparison, truths: &[usize]) -> Table {
    let mut headings = vec![format!("{} test examples", count(truths.len() as u64))];
    let shared = ["accuracy", "95 % interval", "macro F1", "loss", "learned", "on disk"];
    headings.extend(shared.map(str::to_owned));
    headings.push("ms/text".to_owned());
    if comparison.reference.is_some() {
        let prompt = comparison.reference_in_words().trim_start_matches("the ");
        headings.extend([format!("{prompt}'s lead"), "p".to_owned()]);
    }
    let mut table = Table::new(headings);
    for (at, row) in comparison.rows.iter().enumerate() {
        let mut cells =
            vec![row.name.clone(), percent(row.labels.accuracy()), interval(row.labels.interval())];
        cells.push(format!("{:.3}", row.labels.macro_f1()));
        cells.push(row.loss.map_or_else(String::new, loss));
        cells.push(count(row.n_learned));
        cells.push(bytes(row.bytes));
        cells.push(row.milliseconds_per_text.map_or_else(String::new, |ms| format!("{ms:.1}")));
        if let Some(paired) = comparison.against(at, truths) {
            cells.extend([lead(&paired), p_value(paired.p_value())]);
        }
        table.row(cells);
    }
    table
}

/// The lead in points, with its interval.
fn lead(paired: &Paired) -> String {
    let (low, high) = paired.interval();
    format!("{} ({} to {})", points(paired.difference()), points(low), points(high))
}

fn notes(setup: &ComparisonSetup, comparison: &Comparison) -> Result<Vec<String>> {
    let mut notes = vec![
        "loss: cross-entropy of the choice among the labels, in nats. ms/text: measured on this run, and noisy.".to_owned(),
    ];
    if comparison.reference.is_some() {
        notes.push(
            "lead: points of accuracy over the row, on the same examples, with its 95 % interval (Newcombe 1998, method 10); \
             p: exact McNemar test, which alone decides what may be chance (0.05 or more)."
                .to_owned(),
        );
    }
    if let Some(method) = setup.calibrate {
        notes.push(format!("the rows without tuning are corrected by {method} calibration."));
    }
    for prompt in &setup.prompts {
        if let Some(calibration) = &prompt.calibration {
            let (path, how) = (prompt.path.display(), in_words(calibration, setup.labels()?.names()));
            notes.push(format!("the prompt {path} is corrected as its foreword.json says, {how}."));
        }
    }
    let before = |row: &&Row| row.n_before > 0;
    let tokens = comparison
        .rows
        .iter()
        .filter(before)
        .map(|row| format!("{} {}", row.name, count(row.n_before as u64)));
    let tokens: Vec<String> = tokens.collect();
    if !tokens.is_empty() {
        notes.push(format!("tokens before each text: {}.", tokens.join(", ")));
    }
    Ok(notes)
}

/// Scores per label: of the bare model and of the first prompt.
fn per_label(setup: &ComparisonSetup, comparison: &Comparison) -> Result<String> {
    let bare = comparison.rows.iter().find(|row| row.kind == Kind::Bare);
    let tuned = comparison.reference.map(|at| &comparison.rows[at]);
    let rows = [("bare", bare), ("prompt", tuned)];
    let rows: Vec<_> = rows.into_iter().filter_map(|(name, row)| Some((name, &row?.labels))).collect();
    Ok(labels_table(setup.labels()?, None, &rows))
}

/// A few examples whose prediction flipped in one direction.
fn flipped(
    setup: &ComparisonSetup,
    comparison: &Comparison,
    (what, examples): (&str, &[usize]),
    flips: usize,
) -> Result<String> {
    let mut lines = vec![format!(
        "{} {what}{}",
        count(examples.len() as u64),
        if examples.is_empty() || flips == 0 { "" } else { ", for example" }
    )];
    let names = setup.labels()?.names();
    let bare = comparison.rows.iter().find(|row| row.kind == Kind::Bare);
    let tuned = comparison.reference.map(|at| &comparison.rows[at]);
    for &example in examples.iter().take(flips) {
        let truth = setup.truths[example];
        let given = [bare, tuned].into_iter().flatten().map(|row| row.given[example]);
        let wrong = given.filter(|&given| given != truth).map(|given| names[given].as_str());
        let wrong = wrong.collect::<Vec<_>>().join(", ");
        lines.push(format!(
            "  {}, not {}: {}",
            in_a_line(&names[truth]),
            in_a_line(&wrong),
            shortened(setup.text(example)?)
        ));
    }
    Ok(lines.join("\n"))
}

fn fine_tuning(comparison: &Comparison) -> String {
    let costs = &comparison.costs;
    let learned = match comparison.reference {
        Some(_) => format!(
            "; {} learned {} and holds {}",
            comparison.reference_in_words(),
            count(costs.n_learned),
            bytes(costs.prompt_bytes + costs.prompt_optimizer_bytes)
        ),
        None => String::new(),
    };
    format!(
        "Full fine-tuning (computed, not run) would train {} numbers and hold {} of weights, gradient and Adam's two moments, \
         plus activations{learned}.",
        count(costs.n_frozen),
        bytes(costs.fine_tuning_bytes())
    )
}

/// The command that makes a prompt to compare.
pub(super) fn how_to_train(args: &CompareArgs, setup: &ComparisonSetup) -> Vec<String> {
    let program = program();
    let data = match (&args.input, &args.train) {
        (Some(path), _) | (None, Some(path)) => quoted_path(path),
        (None, None) => "train.jsonl".to_owned(),
    };
    let model = if setup.model_name == foreword::BUNDLED_MODEL {
        String::new()
    } else {
        format!(" --model {}", quoted(&setup.model_name))
    };
    vec![
        "No prompt was given, and compare does not train one. To train one and compare again:".to_owned(),
        format!("  {program} train {data}{model}{} --out tuned-prompt", args.shared_with_train()),
        format!("  {} --prompt tuned-prompt", this_command()),
    ]
}
