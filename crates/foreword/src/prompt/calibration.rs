//! Fits the requested calibration of label probabilities.

use std::path::Path;

use crate::calibration::{Calibration, CalibrationError, FEW_TEXTS, content_free_examples};
use crate::error::Result;
use crate::settings::{CalibrationMethod, TaskKind};
use crate::{Examples, Overwrite, Task, Verbalizer};
use anyhow::Context as _;

use super::LoadedPrompt;
use crate::data::ReadOptions;
use crate::display::count;
use crate::error::UserError;
use crate::fields::Fields;
use crate::notice::Observer;
use crate::plan::data;
use crate::plan::output::is_same;
use crate::prompt as prompts;
use crate::prompt::naming::Naming;

/// A requested calibration, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calibrate(pub Option<CalibrationMethod>);

/// A request to calibrate label probabilities.
#[derive(Clone, Copy, Debug, Default)]
pub struct CalibrationRequest<'a> {
    /// The method; `None`: the calibration stored with the prompt.
    pub calibrate: Option<Calibrate>,
    /// The file to fit the calibration on.
    pub on: Option<&'a Path>,
    /// How that file is read; `None`: as it says itself.
    pub read: Option<&'a ReadOptions>,
}

impl CalibrationRequest<'_> {
    /// Whether it is fitted to the very texts that it is applied to, so that all of these must be known first.
    #[must_use]
    pub fn needs_scores(&self) -> bool {
        self.calibrate == Some(Calibrate(Some(CalibrationMethod::Batch))) && self.on.is_none()
    }
}

/// The calibration: fitted if requested, otherwise the one stored with the prompt. `scores`: the scores of the given texts, if
/// it [needs](CalibrationRequest::needs_scores) them; `measured`: the file to evaluate on.
pub fn resolve(
    request: CalibrationRequest<'_>,
    prompt: &LoadedPrompt,
    scores: &[Vec<f64>],
    measured: Option<&Path>,
    observer: &dyn Observer,
) -> Result<Option<Calibration>> {
    let fitted = match (request.calibrate, request.on) {
        (None, _) => {
            if let Some(stored) = &prompt.calibration {
                observer.say(&format!(
                    "calibrated by {} (stored with the prompt; --calibrate none leaves it out)",
                    stored.method
                ));
            }
            return Ok(prompt.calibration.clone());
        }
        (Some(Calibrate(None)), None) => return Ok(None),
        (Some(Calibrate(None)), Some(_)) => return Err(needless("none").into()),
        (Some(Calibrate(Some(method @ CalibrationMethod::ContentFree))), Some(_)) => {
            return Err(needless(method.as_str()).into());
        }
        (Some(Calibrate(Some(CalibrationMethod::ContentFree))), None) => {
            let examples = content_free_examples(&prompt.task, &prompt.model, prompt.n_virtual())?;
            Calibration::content_free(&score(prompt, &examples, observer)?)
        }
        (Some(Calibrate(Some(CalibrationMethod::Temperature))), None) => {
            return Err(UserError::new(
                "a temperature is fitted on labelled examples, and nothing says which",
            )
            .hint("give some that are not measured, such as the dev set, with --calibrate-on FILE")
            .into());
        }
        (Some(Calibrate(Some(CalibrationMethod::Temperature))), Some(path)) => {
            if measured.is_some_and(|measured| is_same(measured, path)) {
                observer.warn(
                    "the temperature is fitted on the examples that it is measured by, which flatters it; --calibrate-on \
                     takes others",
                );
            }
            let examples = examples(prompt, (path, request.read), true, observer)?;
            Calibration::temperature(&score(prompt, &examples, observer)?, examples.labels())
        }
        (Some(Calibrate(Some(CalibrationMethod::Batch))), on) => {
            let of_file = match on {
                Some(path) => {
                    Some(score(prompt, &examples(prompt, (path, request.read), false, observer)?, observer)?)
                }
                None => None,
            };
            let scores = of_file.as_deref().unwrap_or(scores);
            if (2..FEW_TEXTS).contains(&scores.len()) {
                let n = scores.len();
                observer.warn(&format!(
                    "a batch of {n} texts says little of how likely each label is; --calibrate-on FILE takes more"
                ));
            }
            Calibration::batch(scores)
        }
    };
    let fitted = fitted.map_err(|error| match error {
        CalibrationError::OneText => {
            UserError::new(error.to_string()).hint("give more with --calibrate-on FILE")
        }
        error => UserError::new(error.to_string()),
    })?;
    observer
        .say(&format!("calibrated {}", in_words(&fitted, prompt.task.classification()?.verbalizer.names())));
    Ok(Some(fitted))
}

/// Describes a calibration.
pub fn in_words(calibration: &Calibration, labels: &[String]) -> String {
    match calibration.method {
        CalibrationMethod::Temperature => format!("by temperature {:.3}", calibration.temperature),
        CalibrationMethod::ContentFree | CalibrationMethod::Batch => {
            let offsets = labels.iter().zip(&calibration.offsets);
            let offsets = offsets.map(|(name, offset)| format!("{name} {offset:+.3}"));
            format!("by {}: {} nats", calibration.method, offsets.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Checks, before any work, that a calibration can be stored with this prompt.
pub fn check_save(prompt: &LoadedPrompt, dir: &Path) -> Result<()> {
    if prompt.prompts.is_empty() {
        return Err(UserError::new("the bare model has no prompt to store a calibration with")
            .hint("give --prompt DIR, or leave --save-calibration out")
            .into());
    }
    if prompt.prompts.len() > 1 {
        return Err(UserError::new(
            "a calibration is stored with one prompt, and this one is fitted to the ensemble that it leads",
        )
        .hint("leave out --ensemble, or --save-calibration")
        .into());
    }
    let directory = prompts::read(dir)?;
    let Some(passport) = &directory.passport else {
        return Err(UserError::new(format!(
            "the prompt {} has no foreword.json to store a calibration in",
            dir.display()
        ))
        .hint("only prompts that Foreword trained have one")
        .into());
    };
    if !prompts::open::matches_record(&prompt.task, &passport.task) {
        return Err(UserError::new(
            "a calibration is stored for the template, labels and placement that the prompt was trained with, and others are \
             given",
        )
        .hint("leave out --template, --labels and --placement, or --save-calibration")
        .into());
    }
    Ok(())
}

/// Stores a calibration in the passport of a prompt, or removes it. Other files do not change.
pub fn save(
    calibration: Option<&Calibration>,
    task: &Task,
    dir: &Path,
    observer: &dyn Observer,
) -> Result<()> {
    let mut directory = prompts::read(dir)?;
    let labels = &task.classification()?.verbalizer;
    if let Some(passport) = &mut directory.passport {
        passport.calibration = calibration.map(|calibration| calibration.record(labels));
    }
    directory
        .write(dir, Overwrite::Replace)
        .with_context(|| format!("cannot store the calibration in {}", dir.display()))?;
    let what = if calibration.is_some() { "stored in" } else { "taken out of" };
    observer.say(&format!("the calibration was {what} {}", dir.display()));
    Ok(())
}

fn needless(method: &str) -> UserError {
    UserError::new(format!("--calibrate {method} does not use a file")).hint("leave --calibrate-on out")
}

/// The texts of a file, with labels if required.
fn examples(
    prompt: &LoadedPrompt,
    (path, options): (&Path, Option<&ReadOptions>),
    labelled: bool,
    observer: &dyn Observer,
) -> Result<Examples> {
    let data = data::read(path, options.unwrap_or(&ReadOptions::default()), observer)?;
    let task = &prompt.task;
    // A text on the command line has no field; the prompt knows the one that it was trained with.
    let text_field = task.text_field.as_deref().or(prompt.text_field.as_deref());
    let (data, truth) = if labelled {
        let truth = (TaskKind::Classification, prompt.truth_field.as_deref());
        let truth = Fields::find(&data, &task.template, text_field, truth)?.truth;
        let (recorded, labels) = (Some(&prompt.label_names), task.verbalizer().map(Verbalizer::names));
        let data = Naming { stated: None, recorded, labels }.named(data, &truth)?.dataset;
        let truth = data.require(&truth)?;
        (data, Some(truth))
    } else {
        (data, None)
    };
    let task = Task { text_field: text_field.map(str::to_owned), ..task.clone() };
    let examples = task.examples(&prompt.model, prompt.n_virtual(), &data, truth)?;
    observer.say(&format!("calibration on {} texts of {}", count(examples.n() as u64), path.display()));
    Ok(examples)
}

fn score(prompt: &LoadedPrompt, examples: &Examples, observer: &dyn Observer) -> Result<Vec<Vec<f64>>> {
    observer.begin((prompt.n_members() * examples.n()) as u64, "calibrating");
    let scores = prompt.scores(examples, &mut |n| observer.advance(n as u64, ""))?;
    observer.end();
    Ok(scores)
}
