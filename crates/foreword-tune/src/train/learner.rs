//! The steps of a run: each draws its batches, runs forward and backward, exchanges sums with the other machines, applies
//! the gradients and emits events.

use std::ops::ControlFlow;
use std::time::Instant;

use foreword_backbone::kernels::{Backend, Element};

use super::length::patience;
use super::{Cause, Decay, Event, Length, StepStats, StopReason, TrainConfig, TrainError, peak};
use crate::context_tuning::masked;
use crate::engine::continuation_set::ContinuationSet;
use crate::engine::example::Example;
use crate::engine::loss::{self, Loss};
use crate::engine::pass::{LossAndGradient, Pass};
use crate::engine::prefix::SharedPrefix;
use crate::engine::reduce::Reduce;
use crate::optimizer::clip;
use crate::order::Order;
use crate::regularize::StepRows;
use crate::settings::{KeepBy, Objective};
use crate::state::{CandidateState, DevScore, TrainState};
use crate::task::{Examples, Task, TaskError};

/// The state shared by all steps of a run.
pub(super) struct Learner<'a, B: Backend> {
    pub(super) reduce: &'a dyn Reduce<B>,
    pub(super) shared_prefix: &'a SharedPrefix<'a, B>,
    pub(super) task: &'a Task,
    pub(super) train: &'a Examples,
    pub(super) candidates: ContinuationSet<'a>,
    /// The weight of each label in the loss; empty: 1.
    pub(super) weights: Vec<f64>,
    pub(super) config: &'a TrainConfig,
    pub(super) batch_size: usize,
    pub(super) seeds: Vec<u64>,
}

impl<B: Backend> Learner<'_, B> {
    /// Runs steps until all are done, no candidate is active or the event handler stops; returns why the active candidates
    /// ended.
    pub(super) fn run(
        &self,
        state: &mut TrainState,
        mut orders: Vec<Order>,
        dev: Option<&Dev<'_, B>>,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<StopReason, TrainError> {
        let config = self.config;
        let mut flow = ControlFlow::Continue(());
        let mut clock = Clock::at(state.seconds);
        loop {
            let evaluates = config.length.evaluates(state.step, state.decay, config.eval_every);
            if let (Some(dev), true) = (dev, flow.is_continue() && evaluates) {
                let before = clock.seconds();
                flow = dev.evaluate_all(state, on_event)?;
                clock.evaluation = clock.evaluation.max(clock.seconds() - before);
                for candidate in state.halve(config) {
                    flow = or_break(flow, state.leave(candidate, StopReason::Dropped, on_event));
                }
            }
            if config.length.end(state.decay) == Some(state.step) {
                let at_plateau = state.decay.is_some_and(|decay| decay.cause == Cause::Plateau);
                return Ok(if at_plateau { StopReason::EarlyStopped } else { StopReason::Finished });
            }
            if flow.is_break() {
                return Ok(StopReason::Cancelled);
            }
            match config.length {
                Length::Steps(_) => {
                    for candidate in state.active() {
                        if config.patience > 0 && state.runs[candidate].since_best >= config.patience {
                            flow = or_break(flow, state.leave(candidate, StopReason::EarlyStopped, on_event));
                        }
                    }
                }
                Length::Plateau { .. } | Length::Time { .. } => {
                    flow = or_break(flow, self.decay(state, dev, &clock, on_event));
                }
            }
            if state.active().is_empty() {
                return Ok(StopReason::Finished);
            }
            flow = or_break(flow, self.step(state, &mut orders, on_event)?);
            state.seconds = clock.seconds();
        }
    }

    /// Begins the decay of the learning rate if dev no longer improves or the run nears its end.
    fn decay(
        &self,
        state: &mut TrainState,
        dev: Option<&Dev<'_, B>>,
        clock: &Clock,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (config, step) = (self.config, state.step);
        if state.decay.is_some() || step == 0 {
            return ControlFlow::Continue(());
        }
        let (window, n_dev) = (config.patience, dev.map_or(0, |dev| dev.examples.n()));
        let patience = patience(window, n_dev) as usize;
        let is_plateau =
            patience > 0 && state.runs.iter().all(|run| run.is_stalled(window as usize, patience));
        let decay = match config.length {
            _ if is_plateau => Some(Decay::at_plateau(step, config.length.most_steps())),
            Length::Time { seconds, evaluations_after } => {
                clock.decay(step, seconds - evaluations_after * clock.evaluation)
            }
            length => length.decay_at_limit(step),
        };
        let Some(decay) = decay else { return ControlFlow::Continue(()) };
        state.decay = Some(decay);
        if is_plateau {
            state.runs.iter_mut().for_each(CandidateState::return_to_best);
        }
        on_event(Event::Decay { decay })
    }

    /// One update of every active candidate.
    fn step(
        &self,
        state: &mut TrainState,
        orders: &mut [Order],
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TrainError> {
        let started = Instant::now();
        let drawn = self.draw(state, orders);
        let roots: Vec<&[f32]> = drawn.seen.iter().map(|seen| &seen.values[..]).collect();
        let how = (self.config.budget(), self.reduce);
        let mut pass = Pass::new(self.shared_prefix, &roots, &drawn.examples, how)?;
        let partial = self.reduce.exchange(pass.take_partial());
        let passes = pass.finish(Some(partial.map_err(|source| TrainError::Exchange { source })?));
        let applied = self.apply(state, &drawn, &passes);
        Ok(self.emit(state, &applied, (started, drawn.examples.len()), on_event))
    }

    /// Draws the batches of the next step.
    fn draw(&self, state: &TrainState, orders: &mut [Order]) -> Drawn<'_> {
        let (step, config, active) = (state.step + 1, self.config, state.active());
        let mut examples = Vec::with_capacity(active.len() * self.batch_size);
        let mut seen = Vec::with_capacity(active.len());
        for (prompt, &candidate) in active.iter().enumerate() {
            let run = &state.runs[candidate];
            let rows = config.regularizers.seen(run, state.width, self.seeds[candidate], step);
            for example in orders[candidate].next_batch(self.batch_size) {
                let masked = rows.masked(masked(&config.demonstrations, example));
                let example = self.candidates.example(self.train, example);
                let loss = loss::of(self.task.objective(), &example);
                let loss = match self.weights.get(example.truth) {
                    Some(&weight) => loss::weighted(loss, weight),
                    None => loss,
                };
                examples.push((Example { prompt, masked, ..example }, loss));
            }
            seen.push(rows);
        }
        Drawn { active, examples, seen }
    }

    /// Updates the candidates' rows, if the numbers are finite.
    fn apply<E: Element>(
        &self,
        state: &mut TrainState,
        drawn: &Drawn<'_>,
        passes: &[LossAndGradient<E>],
    ) -> Vec<(usize, Option<StepStats>)> {
        let (step, config) = (state.step + 1, self.config);
        let share = config.length.rate(step, state.decay, (config.warmup, config.schedule));
        let mut applied = Vec::with_capacity(drawn.active.len());
        for ((&candidate, pass), seen) in drawn.active.iter().zip(passes).zip(&drawn.seen) {
            let run = &mut state.runs[candidate];
            let rate = run.learning_rate.unwrap_or(config.learning_rate);
            let learning_rate = share * peak(rate, self.task.method, run.scale());
            let gradient: Vec<f32> = pass.gradient.iter().map(|d| d.as_f32()).collect();
            let mut gradient = seen.whole(gradient, state.width, run.values.len());
            let grad_norm = clip(&mut gradient, config.max_grad_norm);
            let mut values = run.values.clone();
            run.optimizer.update(&mut values, &gradient, learning_rate, config.weight_decay);
            let finite =
                pass.loss.is_finite() && grad_norm.is_finite() && values.iter().all(|v| v.is_finite());
            if finite {
                run.values = values;
                config.regularizers.after_update(run, state.width, step);
            }
            let examples_per_second = 0.0;
            let stats = StepStats { step, loss: pass.loss, learning_rate, grad_norm, examples_per_second };
            applied.push((candidate, finite.then_some(stats)));
        }
        applied
    }

    /// Reports the step; stops candidates that diverged.
    fn emit(
        &self,
        state: &mut TrainState,
        applied: &[(usize, Option<StepStats>)],
        (started, n_examples): (Instant, usize),
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let step = state.step + 1;
        let mut flow = ControlFlow::Continue(());
        for &(candidate, _) in applied.iter().filter(|(_, stats)| stats.is_none()) {
            flow = or_break(flow, state.leave(candidate, StopReason::Diverged { step }, on_event));
        }
        state.step = step;
        let tokenising = self.train.seconds * n_examples as f64 / self.train.n() as f64;
        // A clock that does not advance must not make it infinite.
        let seconds = (started.elapsed().as_secs_f64() + tokenising).max(1e-9);
        let examples_per_second = n_examples as f64 / seconds;
        for &(candidate, stats) in applied {
            if let Some(stats) = stats {
                let made = StepStats { examples_per_second, ..stats };
                flow = or_break(flow, on_event(Event::Step { candidate, made, state }));
            }
        }
        flow
    }
}

/// The time that a run takes.
struct Clock {
    /// Seconds before it was resumed.
    before: f64,
    started: Instant,
    /// Seconds of an evaluation on dev.
    evaluation: f64,
}

impl Clock {
    fn at(before: f64) -> Self {
        Self { before, started: Instant::now(), evaluation: 0.0 }
    }

    /// Seconds of the whole run.
    fn seconds(&self) -> f64 {
        self.before + self.started.elapsed().as_secs_f64()
    }

    /// The decay that must begin after `step` updates to end in time.
    fn decay(&self, step: u64, in_seconds: f64) -> Option<Decay> {
        let seconds = self.seconds();
        if seconds < in_seconds * (1.0 - SHARE_OF_DECAY) {
            return None;
        }
        let steps = ((in_seconds - seconds) / seconds * step as f64).floor().max(1.0);
        Some(Decay { from: step, until: step + steps as u64, cause: Cause::Limit })
    }
}

/// The share of a limited time in which the learning rate decays.
const SHARE_OF_DECAY: f64 = 0.2;

/// The batches of a step.
struct Drawn<'a> {
    /// The active candidates.
    active: Vec<usize>,
    /// The batches of all candidates.
    examples: Vec<(Example<'a>, Box<dyn Loss + 'a>)>,
    /// The rows that the model sees of each candidate.
    seen: Vec<StepRows>,
}

/// Breaks if one of them breaks.
fn or_break(a: ControlFlow<()>, b: ControlFlow<()>) -> ControlFlow<()> {
    if a.is_break() { a } else { b }
}

/// The development examples, which select the best rows.
pub(super) struct Dev<'a, B: Backend> {
    pub(super) shared_prefix: SharedPrefix<'a, B>,
    pub(super) task: &'a Task,
    pub(super) examples: &'a Examples,
    pub(super) keep_by: KeepBy,
    pub(super) budget: usize,
}

impl<B: Backend> Dev<'_, B> {
    /// Evaluates the active candidates that have not been evaluated at this step.
    fn evaluate_all(
        &self,
        state: &mut TrainState,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TrainError> {
        let mut flow = ControlFlow::Continue(());
        for candidate in state.active() {
            if state.runs[candidate].evaluated.is_some_and(|(step, _)| step == state.step) {
                continue;
            }
            let step = state.step;
            flow = match self.evaluate(candidate, state, on_event) {
                // The rows are finite, but the model's output is not.
                Err(TrainError::Task(TaskError::NotFinite { .. })) if step > 0 => {
                    state.leave(candidate, StopReason::Diverged { step }, on_event)
                }
                flow => flow?,
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(flow)
    }

    /// Evaluates a candidate's current rows and stores them if they are its best so far.
    fn evaluate(
        &self,
        candidate: usize,
        state: &mut TrainState,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TrainError> {
        let step = state.step;
        let run = &mut state.runs[candidate];
        let how = (self.budget, self.task.objective() == Objective::Lm);
        let scores = self.task.score_below(&self.shared_prefix, run.shown(), self.examples, how)?;
        let evaluation = self.task.judge(&scores, self.examples);
        let best = run.evaluated_to(step, DevScore::of(&evaluation, self.keep_by));
        Ok(on_event(Event::Eval { candidate, step, evaluation: &evaluation, best, state }))
    }
}
