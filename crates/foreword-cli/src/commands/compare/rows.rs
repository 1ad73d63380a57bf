//! The rows of a comparison, measured one after another.

use std::time::Instant;

use anyhow::Result;
use foreword::calibration::{Calibration, content_free_examples};
use foreword::demonstrations::{demonstrated, instructed};
use foreword::score::{best, choice_loss, ensemble};
use foreword::settings::{CalibrationMethod, Method};
use foreword::{Confusion, Examples, SoftPrompt, Task};

use super::arena::{Arena, Prompt};
use super::pace::Pace;
use super::{Kind, Row};
use crate::args::CompareArgs;
use crate::exit::Given;
use crate::printer::Printer;
use crate::words::count;

/// All rows, in the order in which they are shown.
pub(super) fn all(arena: &Arena, args: &CompareArgs, printer: &mut Printer) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    rows.extend(majority(arena)?);
    let bare = Contender::new(Kind::Bare, "bare model, template alone", &arena.task);
    let (bare, examples) = bare.measure(arena, printer)?;
    rows.push(bare);

    let task = instructed(&arena.task, &arena.instruction);
    let n_before = arena.model.tokenizer.encode_plain(&format!("{}\n", arena.instruction))?.len();
    let instruction =
        Contender { n_before, ..Contender::new(Kind::Instruction, "instruction in words", &task) };
    rows.push(instruction.measure(arena, printer)?.0);
    printer.say(&format!("instruction: {:?}", arena.instruction));
    rows.extend(demonstrations(arena, args, &examples, printer)?);

    let mut pace = Pace::new(arena);
    let mut alone = Vec::with_capacity(arena.prompts.len());
    for prompt in &arena.prompts {
        let seconds = pace.training_seconds(prompt, printer)?;
        alone.push(rows.len());
        rows.push(Contender::learned(prompt, 1, &seconds).measure(arena, printer)?.0);
        let n = prompt.members.len();
        if n > 1 {
            rows.push(Contender::learned(prompt, n, &seconds).measure(arena, printer)?.0);
        }
    }
    if alone.len() > 1 {
        let alone: Vec<&Row> = alone.into_iter().map(|at| &rows[at]).collect();
        let together = together(arena, &alone)?;
        rows.push(together);
    }
    Ok(rows)
}

/// Always the most frequent label of the training data; the first of equals.
fn majority(arena: &Arena) -> Result<Option<Row>> {
    let Some(train) = &arena.train else { return Ok(None) };
    let labels = arena.labels()?;
    let mut counts = vec![0_u64; labels.n()];
    for label in labels.label_indices(train, train.require(&arena.fields.truth)?)? {
        counts[label] += 1;
    }
    let given = (0..counts.len()).rev().max_by_key(|&label| counts[label]).unwrap_or(0);
    let name = format!("majority class ({})", labels.names()[given]);
    Ok(Some(row(arena, Kind::Majority, name, vec![given; arena.truths.len()])?))
}

/// A row with its labels and nothing else.
fn row(arena: &Arena, kind: Kind, name: String, given: Vec<usize>) -> Result<Row> {
    let labels = Confusion::new(arena.labels()?.n(), arena.truths.iter().copied().zip(given.iter().copied()));
    Ok(Row {
        kind,
        method: None,
        name,
        given,
        labels,
        loss: None,
        scores: Vec::new(),
        n_learned: 0,
        bytes: 0,
        n_before: 0,
        n_cut: 0,
        training_seconds: Some(0.0),
        milliseconds_per_text: None,
    })
}

/// As many examples in context as are asked for and fit.
fn demonstrations(
    arena: &Arena,
    args: &CompareArgs,
    bare: &Examples,
    printer: &mut Printer,
) -> Result<Option<Row>> {
    let Some(train) = arena.train.as_ref().filter(|_| args.shots > 0) else { return Ok(None) };
    let labels = arena.labels()?;
    let longest = bare.contexts.iter().map(Vec::len).max().unwrap_or(0) + labels.n_tokens_max();
    let shown = (train, train.require(&arena.fields.truth)?);
    let drawn = demonstrated(&arena.task, &arena.model, shown, args.shots, arena.seed, longest)?;
    let Some(drawn) = drawn else {
        printer.warn(
            "not even one demonstration of each label fits into the model's context beside the longest text",
        );
        return Ok(None);
    };
    if drawn.per_label < args.shots {
        let (fit, asked) = (drawn.per_label, args.shots);
        printer.say(&format!("{fit} of {asked} demonstrations of each label fit or are there"));
    }
    let name = format!("{} examples in context", count(drawn.n as u64));
    let contender =
        Contender { n_before: drawn.n_tokens, ..Contender::new(Kind::Demonstrations, &name, &drawn.task) };
    Ok(Some(contender.measure(arena, printer)?.0))
}

/// All prompts, each by itself and then the mean of what they say.
fn together(arena: &Arena, members: &[&Row]) -> Result<Row> {
    let scores: Vec<&[Vec<f64>]> = members.iter().map(|row| row.scores.as_slice()).collect();
    let scores = ensemble(&scores);
    let name = format!("the {} prompts together", members.len());
    let mut methods = members.iter().map(|row| row.method);
    let first = methods.next().flatten();
    Ok(Row {
        method: first.filter(|_| methods.all(|method| method == first)),
        n_learned: members.iter().map(|row| row.n_learned).sum(),
        bytes: members.iter().map(|row| row.bytes).sum(),
        n_before: members.iter().map(|row| row.n_before).sum(),
        n_cut: members.iter().map(|row| row.n_cut).max().unwrap_or(0),
        training_seconds: members.iter().map(|row| row.training_seconds).sum(),
        milliseconds_per_text: members.iter().map(|row| row.milliseconds_per_text).sum(),
        ..scored(arena, Kind::Ensemble, name, scores)?
    })
}

/// A row whose labels are the likeliest.
fn scored(arena: &Arena, kind: Kind, name: String, scores: Vec<Vec<f64>>) -> Result<Row> {
    let given: Vec<usize> = scores.iter().map(|scores| best(scores)).collect();
    let loss = choice_loss(&scores, &arena.truths);
    Ok(Row { loss: Some(loss), scores, ..row(arena, kind, name, given)? })
}

/// What is about to be measured.
struct Contender<'a> {
    kind: Kind,
    method: Option<Method>,
    name: String,
    task: &'a Task,
    /// What was learned of each that answers; none: the bare model.
    prompts: Vec<&'a SoftPrompt>,
    n_learned: u64,
    bytes: u64,
    n_before: usize,
    training_seconds: Option<f64>,
    /// The correction that is stored with it.
    calibration: Option<&'a Calibration>,
}

impl<'a> Contender<'a> {
    /// Nothing was learned for it.
    fn new(kind: Kind, name: &str, task: &'a Task) -> Self {
        Self {
            kind,
            method: None,
            name: name.to_owned(),
            task,
            prompts: Vec::new(),
            n_learned: 0,
            bytes: 0,
            n_before: 0,
            training_seconds: Some(0.0),
            calibration: None,
        }
    }

    /// A prompt, or the first `n` of the ensemble that it leads; `seconds` is what each took to train.
    fn learned(prompt: &'a Prompt, n: usize, seconds: &[Option<f64>]) -> Self {
        let (task, members) = (&prompt.task, &prompt.members[..n]);
        let what = match task.method {
            Method::Prompt => "prompt",
            Method::Prefix => "KV prefix",
        };
        let path = prompt.path.display();
        let (kind, name) = match n {
            1 => (Kind::Prompt, format!("{what} {path}")),
            n => (Kind::Ensemble, format!("{what} {path}, {n} together")),
        };
        let prompts: Vec<&SoftPrompt> = members.iter().map(|member| &member.rows).collect();
        let n_learned: usize = prompts.iter().map(|prompt| prompt.values().len()).sum();
        Self {
            kind,
            method: Some(task.method),
            name,
            task,
            prompts,
            n_learned: n_learned as u64,
            bytes: members.iter().map(|member| member.bytes).sum(),
            n_before: members.iter().map(|member| member.rows.n_virtual()).sum(),
            training_seconds: seconds.iter().take(n).copied().sum(),
            // It was fitted to the one prompt.
            calibration: prompt.calibration.as_ref().filter(|_| n == 1),
        }
    }

    fn measure(self, arena: &Arena, printer: &mut Printer) -> Result<(Row, Examples)> {
        let n_virtual = self.prompts.iter().map(|prompt| prompt.n_virtual()).max().unwrap_or(0);
        let label = arena.label_field()?;
        let examples = self.task.examples(&arena.model, n_virtual, &arena.test, Some(label))?;
        printer.begin_bar((self.prompts.len().max(1) * examples.n()) as u64, "scoring");
        let mut progress = |n: usize| printer.move_bar(n as u64, || self.name.clone());
        let started = Instant::now();
        let scores = self.task.scores(&arena.model, &self.prompts, &examples, arena.budget, &mut progress)?;
        let seconds = started.elapsed().as_secs_f64() + examples.seconds;
        printer.end_bar();
        let scores = self.corrected(arena, scores)?;
        if examples.n_cut > 0 {
            let (n_cut, n) = (count(examples.n_cut as u64), count(examples.n() as u64));
            printer.warn(&format!("{}: {n_cut} of {n} texts were cut to fit", self.name));
        }
        let row = Row {
            method: self.method,
            n_learned: self.n_learned,
            bytes: self.bytes,
            n_before: self.n_before,
            n_cut: examples.n_cut,
            training_seconds: self.training_seconds,
            milliseconds_per_text: Some(1e3 * seconds / examples.n().max(1) as f64),
            ..scored(arena, self.kind, self.name, scores)?
        };
        Ok((row, examples))
    }

    /// The scores as they are, or corrected: as is stored with a prompt, or where nothing was learned, as is asked for.
    fn corrected(&self, arena: &Arena, scores: Vec<Vec<f64>>) -> Result<Vec<Vec<f64>>> {
        let fitted = match arena.calibrate.filter(|_| !self.kind.is_tuned()) {
            Some(CalibrationMethod::ContentFree) => {
                let examples = content_free_examples(self.task, &arena.model, 0)?;
                let free =
                    self.task.scores(&arena.model, &self.prompts, &examples, arena.budget, &mut |_| {})?;
                Some(Calibration::content_free(&free))
            }
            Some(CalibrationMethod::Batch) => Some(Calibration::batch(&scores)),
            Some(CalibrationMethod::Temperature) | None => None,
        };
        let fitted = fitted.transpose().map_err(|error| Given::wrong(error.to_string()))?;
        Ok(match self.calibration.or(fitted.as_ref()) {
            Some(calibration) => scores.iter().map(|scores| calibration.apply(scores)).collect(),
            None => scores,
        })
    }
}
