//! The correction of labels' probabilities that is asked for, fitted.

use std::path::Path;

use anyhow::{Context as _, Result};
use foreword::calibration::{Calibration, CalibrationError, FEW_TEXTS, content_free_examples};
use foreword::settings::{CalibrationMethod, TaskKind};
use foreword::{Examples, Overwrite, Task, Verbalizer};

use super::naming::Naming;
use super::prompt::{self, Ready};
use super::{Fields, data};
use crate::args::{Calibrate, CalibrationArgs};
use crate::exit::Given;
use crate::printer::Printer;
use crate::words::count;

/// The correction: fitted if that is asked for, or else what is stored with the prompt. `scores`: those of the texts that
/// are given; `measured`: the file whose labels it will be measured by.
pub(crate) fn resolve(
    args: &CalibrationArgs,
    ready: &Ready,
    scores: &[Vec<f64>],
    measured: Option<&Path>,
    printer: &mut Printer,
) -> Result<Option<Calibration>> {
    let fitted = match (args.calibrate, &args.calibrate_on) {
        (None, _) => {
            if let Some(stored) = &ready.calibration {
                printer.say(&format!(
                    "calibrated by {} (stored with the prompt; --calibrate none leaves it out)",
                    stored.method
                ));
            }
            return Ok(ready.calibration.clone());
        }
        (Some(Calibrate(None)), None) => return Ok(None),
        (Some(Calibrate(None)), Some(_)) => return Err(needless("none").into()),
        (Some(Calibrate(Some(method @ CalibrationMethod::ContentFree))), Some(_)) => {
            return Err(needless(method.as_str()).into());
        }
        (Some(Calibrate(Some(CalibrationMethod::ContentFree))), None) => {
            let examples = content_free_examples(&ready.task, &ready.model, ready.n_virtual())?;
            Calibration::content_free(&score(ready, &examples, printer)?)
        }
        (Some(Calibrate(Some(CalibrationMethod::Temperature))), None) => {
            return Err(Given::wrong("a temperature is fitted on labelled examples, and nothing says which")
                .hint("give some that are not measured, such as the dev set, with --calibrate-on FILE")
                .into());
        }
        (Some(Calibrate(Some(CalibrationMethod::Temperature))), Some(path)) => {
            if measured.is_some_and(|measured| is_same(measured, path)) {
                printer.warn(
                    "the temperature is fitted on the examples that it is measured by, which flatters it; --calibrate-on \
                     takes others",
                );
            }
            let examples = examples(ready, path, true, printer)?;
            Calibration::temperature(&score(ready, &examples, printer)?, examples.labels())
        }
        (Some(Calibrate(Some(CalibrationMethod::Batch))), on) => {
            let of_file = match on {
                Some(path) => Some(score(ready, &examples(ready, path, false, printer)?, printer)?),
                None => None,
            };
            let scores = of_file.as_deref().unwrap_or(scores);
            if (2..FEW_TEXTS).contains(&scores.len()) {
                let n = scores.len();
                printer.warn(&format!(
                    "a batch of {n} texts says little of how likely each label is; --calibrate-on FILE takes more"
                ));
            }
            Calibration::batch(scores)
        }
    };
    let fitted = fitted.map_err(|error| match error {
        CalibrationError::OneText => {
            Given::wrong(error.to_string()).hint("give more with --calibrate-on FILE")
        }
        error => Given::wrong(error.to_string()),
    })?;
    printer
        .say(&format!("calibrated {}", in_words(&fitted, ready.task.classification()?.verbalizer.names())));
    Ok(Some(fitted))
}

/// A correction in words.
pub(crate) fn in_words(calibration: &Calibration, labels: &[String]) -> String {
    match calibration.method {
        CalibrationMethod::Temperature => format!("by temperature {:.3}", calibration.temperature),
        CalibrationMethod::ContentFree | CalibrationMethod::Batch => {
            let offsets = labels.iter().zip(&calibration.offsets);
            let offsets = offsets.map(|(name, offset)| format!("{name} {offset:+.3}"));
            format!("by {}: {} nats", calibration.method, offsets.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Whether a correction can be stored with this prompt: checked before any work is done.
pub(crate) fn check_save(ready: &Ready, dir: &Path) -> Result<()> {
    if ready.prompts.is_empty() {
        return Err(Given::wrong("the bare model has no prompt to store a calibration with")
            .hint("give --prompt DIR, or leave --save-calibration out")
            .into());
    }
    if ready.prompts.len() > 1 {
        return Err(Given::wrong(
            "a calibration is stored with one prompt, and this one is fitted to the ensemble that it leads",
        )
        .hint("leave out --ensemble, or --save-calibration")
        .into());
    }
    let directory = prompt::read(dir)?;
    let Some(passport) = &directory.passport else {
        return Err(Given::wrong(format!(
            "the prompt {} has no foreword.json to store a calibration in",
            dir.display()
        ))
        .hint("only prompts that Foreword trained have one")
        .into());
    };
    if !prompt::is_asked_as(&ready.task, &passport.task) {
        return Err(Given::wrong(
            "a calibration is stored for the template, labels and placement that the prompt was trained with, and others are \
             given",
        )
        .hint("leave out --template, --labels and --placement, or --save-calibration")
        .into());
    }
    Ok(())
}

/// Stores a correction, or the lack of one, in the passport of a prompt. Its other files stay as they are.
pub(crate) fn save(
    calibration: Option<&Calibration>,
    task: &Task,
    dir: &Path,
    printer: &Printer,
) -> Result<()> {
    let mut directory = prompt::read(dir)?;
    let labels = &task.classification()?.verbalizer;
    if let Some(passport) = &mut directory.passport {
        passport.calibration = calibration.map(|calibration| calibration.record(labels));
    }
    directory
        .write(dir, Overwrite::Replace)
        .with_context(|| format!("cannot store the calibration in {}", dir.display()))?;
    let what = if calibration.is_some() { "stored in" } else { "taken out of" };
    printer.say(&format!("the calibration was {what} {}", dir.display()));
    Ok(())
}

fn needless(method: &str) -> Given {
    Given::wrong(format!("--calibrate {method} is fitted on no file")).hint("leave --calibrate-on out")
}

fn is_same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(a) == real(b)
}

/// The texts of a file, with their labels where those are wanted.
fn examples(ready: &Ready, path: &Path, labelled: bool, printer: &Printer) -> Result<Examples> {
    let data = data::read(path)?;
    let task = &ready.task;
    // A text of the command line has no field; the prompt knows the one that it was trained with.
    let text_field = task.text_field.as_deref().or(ready.text_field.as_deref());
    let (data, truth) = if labelled {
        let truth = (TaskKind::Classification, ready.truth_field.as_deref());
        let truth = Fields::find(&data, &task.template, text_field, truth)?.truth;
        let (recorded, labels) = (Some(&ready.label_names), task.verbalizer().map(Verbalizer::names));
        let data = Naming { stated: None, recorded, labels }.named(data, &truth)?.dataset;
        let truth = data.require(&truth)?;
        (data, Some(truth))
    } else {
        (data, None)
    };
    let task = Task { text_field: text_field.map(str::to_owned), ..task.clone() };
    let examples = task.examples(&ready.model, ready.n_virtual(), &data, truth)?;
    printer.say(&format!("calibration on {} texts of {}", count(examples.n() as u64), path.display()));
    Ok(examples)
}

fn score(ready: &Ready, examples: &Examples, printer: &mut Printer) -> Result<Vec<Vec<f64>>> {
    printer.begin_bar((ready.n_members() * examples.n()) as u64, "calibrating");
    let mut progress = |n: usize| printer.move_bar(n as u64, String::new);
    let (task, prompts) = (&ready.task, ready.prompts());
    let scores = task.scores(&ready.model, &prompts, examples, ready.budget, &mut progress)?;
    printer.end_bar();
    Ok(scores)
}
