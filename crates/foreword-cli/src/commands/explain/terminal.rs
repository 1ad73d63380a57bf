//! Prints the walk-through to a terminal.

use foreword::explain::Prediction;

use super::story::{Step, Story, subscript};
use crate::printer::Table;
use foreword::display::{bytes, count, number, percent, visible};

/// Width of the longest bar.
const BAR: f64 = 30.0;
/// Width of a line of prose.
const WIDTH: usize = 96;
/// The indentation of all lines but titles.
const INDENT: &str = "   ";
/// The space between two formulas.
const BETWEEN: &str = "      ";

/// The nine steps, separated by blank lines.
pub(super) fn steps(story: &Story<'_>) -> [String; 9] {
    let shown = [
        Some(tokens(story)),
        None,
        None,
        Some(output(story)),
        None,
        Some(gradient(story)),
        None,
        Some(run(story)),
        Some(costs(story)),
    ];
    let last = shown.len();
    let mut shown = shown.into_iter().enumerate();
    story.steps().map(|step| {
        let (i, shown) = shown.next().unwrap_or((0, None));
        let mut text = told(i + 1, &step, shown.as_deref());
        if i + 1 == last {
            text.truncate(text.trim_end().len());
        }
        text
    })
}

fn told(n: usize, step: &Step, shown: Option<&str>) -> String {
    let mut text = format!("{n}  {}\n{INDENT}{}\n", step.title, step.formulas.join(BETWEEN));
    for line in shown.iter().flat_map(|shown| shown.lines()) {
        text.push_str(format!("{INDENT}{line}").trim_end());
        text.push('\n');
    }
    for line in wrapped(&step.sentences.join(" ")) {
        text.push_str(&format!("{INDENT}{line}\n"));
    }
    text
}

/// Wraps prose. A word longer than a line gets a line of its own.
fn wrapped(prose: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in prose.split(' ') {
        let line = lines.last().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(last) if line == 0 || line + 1 + word.chars().count() + INDENT.len() <= WIDTH => {
                if line > 0 {
                    last.push(' ');
                }
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn tokens(story: &Story<'_>) -> String {
    let shown: Vec<String> = story.told.tokens.iter().map(|(_, text)| visible(text)).collect();
    shown.join("|")
}

fn output(story: &Story<'_>) -> String {
    let (without, with) = (&story.told.without, &story.told.with);
    let mut table = Table::new(["".to_owned(), "f(E(x); θ)".into(), format!("f({}; θ)", story.read())]);
    let next = |prediction: &Prediction, i: usize| {
        let (token, p) = &prediction.next[i];
        format!("{} {:>6}", visible(token), percent(*p))
    };
    for i in 0..without.next.len() {
        table.row([format!("next token, {}", i + 1), next(without, i), next(with, i)]);
    }
    for (i, name) in story.labels().iter().enumerate() {
        let p = |prediction: &Prediction| percent(prediction.probabilities[i]);
        table.row([format!("p({})", visible(name)), p(without), p(with)]);
    }
    table.to_string()
}

fn gradient(story: &Story<'_>) -> String {
    let norms = &story.told.gradient_norms;
    let longest = norms.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let digits = norms.len().to_string().len();
    let mut text = String::new();
    for (i, &norm) in norms.iter().enumerate() {
        let bar = "█".repeat((BAR * norm / longest).round() as usize);
        let pad = digits - (i + 1).to_string().len();
        text.push_str(&format!("‖∂L/∂p{}‖ {:pad$}{:<7} {bar}\n", subscript(i + 1), "", number(norm)));
    }
    text
}

fn run(story: &Story<'_>) -> String {
    let mut table = Table::new(["updates", "L(p)", "p(y)", "‖p − p₀‖"]);
    for row in &story.told.run {
        let (loss, distance) = (format!("{:.4}", row.loss), format!("{:.3}", row.distance));
        table.row([row.step.to_string(), loss, percent(row.probability), distance]);
    }
    table.to_string()
}

fn costs(story: &Story<'_>) -> String {
    let costs = &story.told.costs;
    let mut table = Table::new(["", "prompt tuning", "fine-tuning"]);
    table.row(["numbers that are learned".into(), count(costs.n_learned), count(costs.n_frozen)]);
    table.row(["stored for each task".into(), bytes(costs.prompt_bytes), bytes(costs.model_bytes)]);
    table.row([
        "memory of gradient and optimizer".into(),
        bytes(costs.prompt_optimizer_bytes),
        bytes(costs.model_optimizer_bytes),
    ]);
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_broken_between_words() {
        let long = "x".repeat(200);
        let lines = wrapped(&format!("a {long} {}", "word ".repeat(40).trim_end()));
        assert_eq!((lines[0].as_str(), lines[1].as_str()), ("a", long.as_str()));
        assert!(lines[2..].iter().all(|line| line.len() + INDENT.len() <= WIDTH && !line.ends_with(' ')));
        assert_eq!(lines[2..].join(" "), "word ".repeat(40).trim_end());
    }
}
