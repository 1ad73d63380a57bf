//! What prompts took to train. Their directories hold no times, so that the same run writes the same bytes: the updates that
//! were made are counted there, and what one takes is measured here.

use anyhow::Result;
use foreword::data::split::stratified_sample;
use foreword::format::TaskRecord;
use foreword::settings::{LearningRate, Method};
use foreword::step_time::{STEPS, n_examples, step_seconds};
use foreword::{Classification, Dataset, Goal, Passport, Task, TrainConfig, record};

use super::arena::{Arena, Member, Prompt};
use crate::printer::Printer;
use crate::resolve::memory;
use crate::words::number;

/// What decides how long a step takes. Prompts that have it in common are timed once.
#[derive(Debug, PartialEq)]
struct Sort {
    task: TaskRecord,
    method: Method,
    n_virtual: usize,
    n_examples: usize,
    config: TrainConfig,
}

/// The steps that were timed.
pub(super) struct Pace<'a> {
    arena: &'a Arena,
    known: Vec<(Sort, Option<f64>)>,
}

impl<'a> Pace<'a> {
    /// None yet.
    pub(super) fn new(arena: &'a Arena) -> Self {
        Self { arena, known: Vec::new() }
    }

    /// What each of a prompt's members took, evaluations apart. Nothing where there are no training data, or no passport that
    /// says how it learned, or where a step can't be made here.
    pub(super) fn training_seconds(
        &mut self,
        prompt: &Prompt,
        printer: &mut Printer,
    ) -> Result<Vec<Option<f64>>> {
        prompt.members.iter().map(|member| self.of(prompt, member, printer)).collect()
    }

    fn of(&mut self, prompt: &Prompt, member: &Member, printer: &mut Printer) -> Result<Option<f64>> {
        let (Some(train), Some(passport)) = (&self.arena.train, &member.passport) else { return Ok(None) };
        let Some(mut config) = record::recorded_config(&passport.training) else { return Ok(None) };
        let recorded = passport.training.data.get("train").map(|data| data.examples);
        let n_train = recorded.and_then(|n| usize::try_from(n).ok()).unwrap_or(train.n());
        config.batch_size = config.batch_size.min(n_train);
        let n_examples = n_examples(&prompt.task, &config, n_train);
        let sort = Sort {
            task: passport.task.clone(),
            method: passport.training.method,
            n_virtual: member.rows.n_virtual(),
            n_examples,
            // Neither how many there are decides it, nor the rate, nor the draws.
            config: TrainConfig { steps: 0, learning_rate: LearningRate::Auto, seed: 0, ..config.clone() },
        };
        let steps = passport.training.steps as f64;
        if let Some((_, seconds)) = self.known.iter().find(|(known, _)| *known == sort) {
            return Ok(seconds.map(|seconds| steps * seconds));
        }
        let name = prompt.path.display().to_string();
        printer.begin_bar(STEPS as u64, "timing steps");
        let on_step = &mut |n: usize| printer.move_bar(n as u64, || name.clone());
        let seconds = self.timed(train, (&prompt.task, passport), member, (config, n_examples), on_step);
        printer.end_bar();
        if let Some(seconds) = seconds {
            let told = format!("a step of {name} takes {} s", number(seconds));
            printer.detail(|| anyhow::Ok(vec![("timing", told)]))?;
        }
        self.known.push((sort, seconds));
        Ok(seconds.map(|seconds| steps * seconds))
    }

    /// Seconds of a step. What goes wrong is no reason not to compare: then they are not known.
    fn timed(
        &self,
        train: &Dataset,
        (task, passport): (&Task, &Passport),
        member: &Member,
        (mut config, n_examples): (TrainConfig, usize),
        on_step: &mut dyn FnMut(usize),
    ) -> Option<f64> {
        let (arena, model) = (self.arena, &self.arena.model);
        let choice = task.classification().ok()?.clone();
        // Answers are compared as choices among the labels, and may have been learned otherwise.
        let choice = Classification { objective: passport.task.objective, ..choice };
        let truth = train.require(&arena.fields.truth).ok()?;
        let labels = choice.verbalizer.label_indices(train, truth).ok()?;
        let task = Task { goal: Goal::Classification(choice), ..task.clone() };
        let sample = train.take(&stratified_sample(&labels, n_examples, config.seed));
        let examples = task.examples(model, member.rows.n_virtual(), &sample, Some(truth)).ok()?;
        let rows = &member.rows;
        let sizes = memory::sizes(&task, (&examples, None), &[rows], config.batch_size, model).ok()?;
        let (estimate, limit) = memory::fitted(&mut config, &arena.room, sizes, model);
        if estimate.peak() > limit {
            return None;
        }
        step_seconds(model, &task, &examples, rows.clone(), &config, on_step).ok().flatten()
    }
}
