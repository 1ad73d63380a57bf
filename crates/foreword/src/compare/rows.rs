//! The rows of a comparison, evaluated one after another.

use std::time::Instant;

use crate::calibration::{Calibration, content_free_examples};
use crate::demonstrations::{demonstrated, instructed};
use crate::error::Result;
use crate::likelihood::{best, choice_loss, ensemble};
use crate::metrics::majority as majority_label;
use crate::settings::{CalibrationMethod, Method};
use crate::{Confusion, Examples, SoftPrompt, Task};

use super::setup::{ComparisonSetup, Prompt};
use super::{Kind, Row};
use crate::display::count;
use crate::error::UserError;
use crate::notice::Observer;
use crate::verdict::{BARE_NAME, MAJORITY_NAME};

/// All rows, in display order.
pub(super) fn all(setup: &ComparisonSetup, observer: &dyn Observer) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    rows.push(majority(setup)?);
    let bare = Entry::new(Kind::Bare, BARE_NAME, &setup.task);
    let (bare, examples) = bare.measure(setup, observer)?;
    rows.push(bare);

    let task = instructed(&setup.task, &setup.instruction);
    let n_before = setup.model.tokenizer.encode_plain(&format!("{}\n", setup.instruction))?.len();
    let instruction = Entry { n_before, ..Entry::new(Kind::Instruction, "instruction in words", &task) };
    rows.push(instruction.measure(setup, observer)?.0);
    observer.say(&format!("instruction: {:?}", setup.instruction));
    rows.extend(demonstrations(setup, &examples, observer)?);

    let mut alone = Vec::with_capacity(setup.prompts.len());
    for prompt in &setup.prompts {
        alone.push(rows.len());
        rows.push(Entry::learned(prompt, 1).measure(setup, observer)?.0);
        let n = prompt.members.len();
        if n > 1 {
            rows.push(Entry::learned(prompt, n).measure(setup, observer)?.0);
        }
    }
    if alone.len() > 1 {
        let alone: Vec<&Row> = alone.into_iter().map(|at| &rows[at]).collect();
        let together = together(setup, &alone)?;
        rows.push(together);
    }
    Ok(rows)
}

/// Always the most frequent label of the training data, or without any of the test examples; the first one on a tie.
fn majority(setup: &ComparisonSetup) -> Result<Row> {
    let labels = setup.labels()?;
    let (given, of) = match &setup.train {
        Some(train) => {
            let truths = labels.label_indices(train, train.require(&setup.fields.truth)?)?;
            (majority_label(labels.n(), &truths), "")
        }
        None => (majority_label(labels.n(), &setup.truths), " of the test examples"),
    };
    let name = format!("{MAJORITY_NAME}{of} ({})", labels.names()[given]);
    row(setup, Kind::Majority, name, vec![given; setup.truths.len()])
}

/// A row with only its predicted labels.
fn row(setup: &ComparisonSetup, kind: Kind, name: String, given: Vec<usize>) -> Result<Row> {
    let labels = Confusion::new(setup.labels()?.n(), setup.truths.iter().copied().zip(given.iter().copied()));
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
        milliseconds_per_text: None,
    })
}

/// As many in-context examples as requested and as fit.
fn demonstrations(setup: &ComparisonSetup, bare: &Examples, observer: &dyn Observer) -> Result<Option<Row>> {
    let Some(train) = setup.train.as_ref().filter(|_| setup.shots > 0) else { return Ok(None) };
    let labels = setup.labels()?;
    let longest = bare.contexts.iter().map(Vec::len).max().unwrap_or(0) + labels.n_tokens_max();
    let shown = (train, train.require(&setup.fields.truth)?);
    let drawn = demonstrated(&setup.task, &setup.model, shown, setup.shots, setup.seed, longest)?;
    let Some(drawn) = drawn else {
        observer.warn(
            "not even one demonstration of each label fits into the model's context beside the longest text",
        );
        return Ok(None);
    };
    let asked = setup.shots * labels.n();
    if drawn.n < asked {
        let mut there = vec![0; labels.n()];
        labels.label_indices(shown.0, shown.1)?.into_iter().for_each(|label| there[label] += 1);
        let available: usize = there.into_iter().map(|n| setup.shots.min(n)).sum();
        let why = if drawn.n < available {
            "more do not fit into the model's context beside the longest text"
        } else {
            "there are no more of some labels in the training data"
        };
        observer.say(&format!(
            "--shots {}: {} examples in context are used, not {}: {why}",
            setup.shots,
            count(drawn.n as u64),
            count(asked as u64)
        ));
    }
    let name = format!("{} examples in context", count(drawn.n as u64));
    let entry = Entry { n_before: drawn.n_tokens, ..Entry::new(Kind::Demonstrations, &name, &drawn.task) };
    Ok(Some(entry.measure(setup, observer)?.0))
}

/// All prompts: each on its own, then the mean of their log-likelihoods.
fn together(setup: &ComparisonSetup, members: &[&Row]) -> Result<Row> {
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
        milliseconds_per_text: members.iter().map(|row| row.milliseconds_per_text).sum(),
        ..scored(setup, Kind::Ensemble, name, scores)?
    })
}

/// A row that predicts the most likely labels.
fn scored(setup: &ComparisonSetup, kind: Kind, name: String, scores: Vec<Vec<f64>>) -> Result<Row> {
    let given: Vec<usize> = scores.iter().map(|scores| best(scores)).collect();
    let loss = choice_loss(&scores, &setup.truths);
    Ok(Row { loss: Some(loss), scores, ..row(setup, kind, name, given)? })
}

/// A row to evaluate.
struct Entry<'a> {
    kind: Kind,
    method: Option<Method>,
    name: String,
    task: &'a Task,
    /// The prompts to evaluate; empty for the bare model.
    prompts: Vec<&'a SoftPrompt>,
    n_learned: u64,
    bytes: u64,
    n_before: usize,
    /// The calibration stored with it.
    calibration: Option<&'a Calibration>,
}

impl<'a> Entry<'a> {
    /// An untrained row.
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
            calibration: None,
        }
    }

    /// A prompt, or the first `n` members of the ensemble that it leads.
    fn learned(prompt: &'a Prompt, n: usize) -> Self {
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
            // It was fitted to the single prompt.
            calibration: prompt.calibration.as_ref().filter(|_| n == 1),
        }
    }

    fn measure(self, setup: &ComparisonSetup, observer: &dyn Observer) -> Result<(Row, Examples)> {
        let n_virtual = self.prompts.iter().map(|prompt| prompt.n_virtual()).max().unwrap_or(0);
        let label = setup.label_field()?;
        let examples = self.task.examples(&setup.model, n_virtual, &setup.test, Some(label))?;
        observer.begin((self.prompts.len().max(1) * examples.n()) as u64, "scoring");
        let mut progress = |n: usize| observer.advance(n as u64, &self.name);
        let started = Instant::now();
        let scores = self.task.scores(&setup.model, &self.prompts, &examples, setup.budget, &mut progress)?;
        let seconds = started.elapsed().as_secs_f64() + examples.seconds;
        observer.end();
        let scores = self.corrected(setup, scores)?;
        if examples.n_cut > 0 {
            let (n_cut, n) = (count(examples.n_cut as u64), count(examples.n() as u64));
            observer.warn(&format!("{}: {n_cut} of {n} texts were cut to fit", self.name));
        }
        let row = Row {
            method: self.method,
            n_learned: self.n_learned,
            bytes: self.bytes,
            n_before: self.n_before,
            n_cut: examples.n_cut,
            milliseconds_per_text: Some(1e3 * seconds / examples.n().max(1) as f64),
            ..scored(setup, self.kind, self.name, scores)?
        };
        Ok((row, examples))
    }

    /// The scores, calibrated if a calibration is stored with the prompt, or requested for untrained rows.
    fn corrected(&self, setup: &ComparisonSetup, scores: Vec<Vec<f64>>) -> Result<Vec<Vec<f64>>> {
        let fitted = match setup.calibrate.filter(|_| !self.kind.is_tuned()) {
            Some(CalibrationMethod::ContentFree) => {
                let examples = content_free_examples(self.task, &setup.model, 0)?;
                let free =
                    self.task.scores(&setup.model, &self.prompts, &examples, setup.budget, &mut |_| {})?;
                Some(Calibration::content_free(&free))
            }
            Some(CalibrationMethod::Batch) => Some(Calibration::batch(&scores)),
            Some(CalibrationMethod::Temperature) | None => None,
        };
        let fitted = fitted.transpose().map_err(|error| UserError::new(error.to_string()))?;
        Ok(match self.calibration.or(fitted.as_ref()) {
            Some(calibration) => scores.iter().map(|scores| calibration.apply(scores)).collect(),
            None => scores,
        })
    }
}
