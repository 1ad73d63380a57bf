//! `foreword compare`: tuned prompts beside what costs no training, on the same examples.

mod arena;
mod pace;
mod rows;
mod told;

use anyhow::Result;
use foreword::Confusion;
use foreword::explain::Costs;
use foreword::metrics::paired::Paired;
use foreword::settings::Method;

use crate::args::CompareArgs;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::wire::Compared;

pub(crate) use arena::Arena;

/// What gives the labels of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Always the most frequent label of the training data.
    Majority,
    /// The model with the template.
    Bare,
    /// An instruction in words before the template.
    Instruction,
    /// Labelled examples before the template.
    Demonstrations,
    /// A tuned prompt.
    Prompt,
    /// Several tuned prompts together: an ensemble that was trained, or all prompts of the comparison.
    Ensemble,
}

impl Kind {
    /// Its name for programs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Majority => "majority",
            Self::Bare => "bare",
            Self::Instruction => "instruction",
            Self::Demonstrations => "demonstrations",
            Self::Prompt => "prompt",
            Self::Ensemble => "ensemble",
        }
    }

    /// Whether anything was learned for it.
    fn is_tuned(self) -> bool {
        matches!(self, Self::Prompt | Self::Ensemble)
    }
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    /// What was learned for it; nothing where nothing was, or not the same for all.
    pub(crate) method: Option<Method>,
    pub(crate) name: String,
    /// The label given to each example.
    pub(crate) given: Vec<usize>,
    pub(crate) labels: Confusion,
    /// Mean cross-entropy of the choice among the labels, where there are probabilities.
    pub(crate) loss: Option<f64>,
    /// Each example's log-likelihoods up to a constant, where there are any.
    pub(crate) scores: Vec<Vec<f64>>,
    /// Numbers that were learned for it.
    pub(crate) n_learned: u64,
    /// What it takes on disk beside the model.
    pub(crate) bytes: u64,
    /// Tokens that stand before every text: virtual ones, or those of an instruction or of demonstrations.
    pub(crate) n_before: usize,
    /// Texts that had to be cut.
    pub(crate) n_cut: usize,
    /// Updates made × what one takes here; nothing where that is not known.
    pub(crate) training_seconds: Option<f64>,
    /// From text to label, measured on this run.
    pub(crate) milliseconds_per_text: Option<f64>,
}

/// All rows, and what they come to.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) rows: Vec<Row>,
    /// The first prompt's row, which the others are tested against.
    pub(crate) reference: Option<usize>,
    /// Examples that the first prompt has right and the bare model wrong, and the other way round.
    pub(crate) corrected: Vec<usize>,
    pub(crate) spoiled: Vec<usize>,
    /// What full fine-tuning would take, computed.
    pub(crate) costs: Costs,
}

impl Comparison {
    fn of(arena: &Arena, rows: Vec<Row>) -> Self {
        let reference = rows.iter().position(|row| row.kind == Kind::Prompt);
        let bare = rows.iter().find(|row| row.kind == Kind::Bare);
        let flipped = |to_right: bool| -> Vec<usize> {
            let (Some(tuned), Some(bare)) = (reference.map(|at| &rows[at]), bare) else { return Vec::new() };
            let is = |row: &Row, example: usize| row.given[example] == arena.truths[example];
            let flips = |&example: &usize| is(tuned, example) == to_right && is(bare, example) != to_right;
            (0..arena.truths.len()).filter(flips).collect()
        };
        let (corrected, spoiled) = (flipped(true), flipped(false));
        let n_learned = reference.map_or(0, |at| rows[at].n_learned);
        let costs = Costs::of(&arena.model, n_learned as usize);
        Self { rows, reference, corrected, spoiled, costs }
    }

    /// The first prompt against a row: the first of the pair is the prompt. Nothing where there is none, or it is the row.
    pub(crate) fn against(&self, row: usize, truths: &[usize]) -> Option<Paired> {
        let reference = self.reference.filter(|&reference| reference != row)?;
        let (tuned, row) = (&self.rows[reference].given, &self.rows[row].given);
        let examples = truths.iter().enumerate();
        Some(Paired::of(examples.map(|(i, &truth)| (tuned[i] == truth, row[i] == truth))))
    }

    /// The best of the rows for which nothing was learned; the first of equals.
    fn best_untuned(&self) -> Option<usize> {
        let untuned = (0..self.rows.len()).filter(|&row| !self.rows[row].kind.is_tuned());
        untuned.reduce(|best, row| {
            let better = self.rows[row].labels.n_right() > self.rows[best].labels.n_right();
            if better { row } else { best }
        })
    }
}

/// Runs the verb.
pub(crate) fn run(args: &CompareArgs, printer: &mut Printer) -> Result<Exit> {
    let arena = Arena::resolve(args, printer)?;
    arena.tell(printer);
    let rows = rows::all(&arena, args, printer)?;
    let comparison = Comparison::of(&arena, rows);
    let verdict = told::verdict(&comparison, &arena.truths);
    printer.json(&Compared::of(&arena, &comparison, args.flips, &verdict)?)?;
    for part in told::parts(&arena, &comparison, args.flips)? {
        printer.answer(&part)?;
    }
    printer.answer(&format!("\n{verdict}"))?;
    if comparison.reference.is_none() {
        for line in told::how_to_train(args, &arena) {
            printer.say(&line);
        }
    }
    Ok(Exit::Done)
}
