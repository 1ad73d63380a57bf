//! Compares tuned prompts with untrained baselines on the same examples.

pub mod rows;
pub mod setup;

use crate::Confusion;
use crate::display;
use crate::error::Result;
use crate::explain::Costs;
use crate::metrics::paired::Paired;
use crate::notice::Observer;
use crate::settings::Method;

pub use setup::{CompareRequest, ComparisonSetup};

/// What a row evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Always the most frequent label of the training data.
    Majority,
    /// The bare model with the template.
    Bare,
    /// An instruction before the template.
    Instruction,
    /// In-context examples before the template.
    Demonstrations,
    /// A tuned prompt.
    Prompt,
    /// Several tuned prompts together: a trained ensemble, or all prompts of the comparison.
    Ensemble,
}

impl Kind {
    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Majority => "majority",
            Self::Bare => "bare",
            Self::Instruction => "instruction",
            Self::Demonstrations => "demonstrations",
            Self::Prompt => "prompt",
            Self::Ensemble => "ensemble",
        }
    }

    /// Whether it was trained.
    pub fn is_tuned(self) -> bool {
        matches!(self, Self::Prompt | Self::Ensemble)
    }
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// What the row evaluates.
    pub kind: Kind,
    /// What was learned: a soft prompt or a KV prefix; `None` for baselines and for mixed ensembles.
    pub method: Option<Method>,
    /// Its name.
    pub name: String,
    /// The predicted label of each example.
    pub given: Vec<usize>,
    /// The confusion matrix of predicted and true labels.
    pub labels: Confusion,
    /// Mean cross-entropy over the labels, if there are probabilities.
    pub loss: Option<f64>,
    /// Each example's log-likelihoods up to a constant, if there are any.
    pub scores: Vec<Vec<f64>>,
    /// Number of learned numbers.
    pub n_learned: u64,
    /// Size on disk, without the model.
    pub bytes: u64,
    /// Tokens before every text: virtual tokens, an instruction or in-context examples.
    pub n_before: usize,
    /// Number of truncated texts.
    pub n_cut: usize,
    /// Time per text, from text to label, measured in this run.
    pub milliseconds_per_text: Option<f64>,
}

/// All rows and their results.
#[derive(Debug)]
pub struct Comparison {
    /// The rows, in display order.
    pub rows: Vec<Row>,
    /// The index of the first prompt's row, against which the others are tested.
    pub reference: Option<usize>,
    /// Examples that the first prompt gets right and the bare model wrong.
    pub corrected: Vec<usize>,
    /// Examples that the first prompt gets wrong and the bare model right.
    pub spoiled: Vec<usize>,
    /// The computed costs of full fine-tuning.
    pub costs: Costs,
}

impl Comparison {
    /// Computes a comparison from its rows.
    pub fn of(setup: &ComparisonSetup, rows: Vec<Row>) -> Self {
        let reference = rows.iter().position(|row| row.kind == Kind::Prompt);
        let bare = rows.iter().find(|row| row.kind == Kind::Bare);
        let flipped = |to_right: bool| -> Vec<usize> {
            let (Some(tuned), Some(bare)) = (reference.map(|at| &rows[at]), bare) else { return Vec::new() };
            let is = |row: &Row, example: usize| row.given[example] == setup.truths[example];
            let flips = |&example: &usize| is(tuned, example) == to_right && is(bare, example) != to_right;
            (0..setup.truths.len()).filter(flips).collect()
        };
        let (corrected, spoiled) = (flipped(true), flipped(false));
        let n_learned = reference.map_or(0, |at| rows[at].n_learned);
        let costs = Costs::of(&setup.model, n_learned as usize);
        Self { rows, reference, corrected, spoiled, costs }
    }

    /// Paired counts of the first prompt against a row, with the prompt first. `None` without a prompt, or if the row is
    /// the prompt.
    pub fn against(&self, row: usize, truths: &[usize]) -> Option<Paired> {
        let reference = self.reference.filter(|&reference| reference != row)?;
        let (tuned, row) = (&self.rows[reference].given, &self.rows[row].given);
        let examples = truths.iter().enumerate();
        Some(Paired::of(examples.map(|(i, &truth)| (tuned[i] == truth, row[i] == truth))))
    }

    /// The prompt that the rows are tested against, in words.
    #[must_use]
    pub fn reference_in_words(&self) -> &'static str {
        let n = self.rows.iter().filter(|row| row.kind == Kind::Prompt).count();
        if n > 1 { "the first prompt" } else { "the prompt" }
    }

    /// Whether the first prompt was worth it, in a sentence. What may be chance is decided by the paired test alone.
    #[must_use]
    pub fn verdict(&self, truths: &[usize]) -> String {
        let Some(best) = self.best_untuned() else { return String::new() };
        let name = &self.rows[best].name;
        let accuracy = display::percent(self.rows[best].labels.accuracy());
        let Some(paired) = self.against(best, truths) else {
            return format!(
                "Without tuning, \"{name}\" is best, with {accuracy}: that is what a prompt has to beat."
            );
        };
        let (points, p) = (100.0 * paired.difference(), display::p_value(paired.p_value()));
        let (low, high) = paired.interval();
        let (low, high) = (display::points(low), display::points(high));
        let (examples, prompt) = (display::count(paired.n()), self.reference_in_words());
        if paired.difference() <= 0.0 {
            let behind = match paired.only_second - paired.only_first {
                0 => "no better than".to_owned(),
                _ => format!("{:.1} points behind", -points),
            };
            let test = match paired.difference() < 0.0 {
                true if paired.may_be_chance() => format!(", which may be chance (p {p})"),
                true => format!(" (p {p})"),
                false => String::new(),
            };
            let losses = [self.reference, Some(best)].map(|at| self.rows.get(at?)?.loss);
            let losses = match losses {
                [Some(tuned), Some(untuned)] => {
                    format!("; their losses are {} and {}", display::loss(tuned), display::loss(untuned))
                }
                _ => String::new(),
            };
            return format!(
                "It did not help: on these {examples} examples {prompt} is {behind} \"{name}\" ({accuracy}), for which \
                 nothing was learned{test}{losses}."
            );
        }
        if !paired.may_be_chance() {
            format!(
                "It helped: on these {examples} examples {prompt} is {points:.1} points better than \"{name}\", the best \
                 row without tuning (p {p}, 95 % interval {low} to {high})."
            )
        } else {
            format!(
                "It may have helped: on these {examples} examples {prompt} is {points:.1} points better than \"{name}\", \
                 the best row without tuning, which may be chance (p {p}, 95 % interval {low} to {high})."
            )
        }
    }

    /// The best untrained row; the first one on a tie.
    fn best_untuned(&self) -> Option<usize> {
        let untuned = (0..self.rows.len()).filter(|&row| !self.rows[row].kind.is_tuned());
        untuned.reduce(|best, row| {
            let better = self.rows[row].labels.n_right() > self.rows[best].labels.n_right();
            if better { row } else { best }
        })
    }
}

/// Evaluates all rows.
///
/// # Errors
/// If a computation fails.
pub fn compare(setup: &ComparisonSetup, observer: &dyn Observer) -> Result<Comparison> {
    Ok(Comparison::of(setup, rows::all(setup, observer)?))
}
