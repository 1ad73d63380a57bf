//! Executes a run, from its plan to its prompt directory: trains, evaluates the result and its baselines, and writes the
//! files.

pub mod checkpoints;
pub mod members;

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use self::checkpoints::CheckpointWriter;
use self::members::{forget_members, member_dir};
use crate::display::{self, count};
use crate::error::{Error, NothingLearned, Result};
use crate::events::{Event, Scores};
use crate::notice::Observer;
use crate::plan::RunPlan;
use crate::plan::candidates::PlannedCandidate;
use crate::record;
use crate::settings::{Init, Keep, Method, Placement};
use crate::system::{page_faults, peak_bytes};
use crate::train::{Cause, Event as TrainEvent, Length};
use crate::verdict::are_few;
use crate::{
    Evaluation, Examples, Outcome, Population, SoftPrompt, StepStats, StopReason, TrainConfig, TrainState,
};

/// Cancels a run between two steps, from any thread. Clones belong to the same run.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Cancels the run.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the run was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A run of a plan.
///
/// A cancelled run stops after its current step, writes its best prompt so far, and leaves a checkpoint. A plan whose
/// [`OutputDir`](crate::OutputDir) has `resume` set continues from there, and produces the same bytes as an uninterrupted run.
#[derive(Debug)]
pub struct Run {
    plan: RunPlan,
    cancel: Cancel,
}

/// The result of a run.
#[derive(Debug)]
pub struct RunResult {
    /// The outcome of the best candidate.
    pub outcome: Outcome,
    /// All candidates.
    pub population: Population,
    /// Number of candidates written.
    pub members: usize,
    /// Whether the written prompt was selected on dev.
    pub is_chosen: bool,
    /// The prompt and its baselines on dev.
    pub dev: SplitScores,
    /// The prompt and its baselines on the test examples.
    pub test: SplitScores,
    /// Seconds of the whole run, evaluations included.
    pub seconds: f64,
    /// Number of learned numbers written, over all members.
    pub n_learned: u64,
    /// Size of the prompt directory and of the other members' directories.
    pub bytes: u64,
    /// Whether the run was cancelled; its checkpoint is then kept.
    pub is_cancelled: bool,
}

/// A run whose prompt could not be written. Its last checkpoint, if it could write one, is kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the prompt: {source}")]
pub struct Unwritten {
    /// The result.
    pub result: Box<RunResult>,
    /// Why it could not be written.
    pub source: Error,
}

impl RunResult {
    /// The split to report on: test, or else dev, on which the prompt was selected.
    #[must_use]
    pub fn reported(&self) -> Option<(&'static str, &SplitScores)> {
        if self.test.tuned.is_some() {
            Some(("test", &self.test))
        } else if self.dev.tuned.is_some() {
            Some(("dev", &self.dev))
        } else {
            None
        }
    }
}

/// The evaluations of a split, if the split exists and time permits.
#[derive(Clone, Debug, Default)]
pub struct SplitScores {
    /// With the soft prompt.
    pub tuned: Option<Evaluation>,
    /// With all members of an ensemble.
    pub ensemble: Option<Evaluation>,
    /// The same template without it.
    pub bare: Option<Evaluation>,
    /// The most frequent label of the training data for every example; `None` for generation.
    pub majority: Option<Evaluation>,
}

impl Run {
    /// A run that has not started.
    #[must_use]
    pub fn new(plan: RunPlan) -> Self {
        Self { plan, cancel: Cancel::default() }
    }

    /// A handle that cancels the run.
    #[must_use]
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &RunPlan {
        &self.plan
    }

    /// Takes the plan out.
    #[must_use]
    pub fn into_plan(self) -> RunPlan {
        self.plan
    }

    /// Trains, evaluates and writes the prompt directory. A diverged or cancelled run writes its best prompt too.
    ///
    /// # Errors
    /// If it was cancelled before the first step, or a computation fails. If only a write fails, the error has the result:
    /// see [`Unwritten`].
    pub fn start(&self, on_event: &mut dyn FnMut(&Event)) -> Result<RunResult> {
        self.start_with(on_event, &())
    }

    /// As [`Run::start`], with an observer of notices.
    ///
    /// # Errors
    /// As [`Run::start`].
    pub fn start_with(&self, on_event: &mut dyn FnMut(&Event), observer: &dyn Observer) -> Result<RunResult> {
        self.plan.output.hold()?;
        let result = self.run(on_event, observer);
        self.plan.output.release();
        result
    }

    fn run(&self, on_event: &mut dyn FnMut(&Event), observer: &dyn Observer) -> Result<RunResult> {
        let plan = &self.plan;
        let (checkpoints, state) = begin(plan, observer)?;
        let mut reporter = TrainReporter {
            observer,
            on_event,
            evaluations: BTreeMap::new(),
            n_candidates: plan.candidates.len(),
            checkpoints,
            cancel: &self.cancel,
            faults_warm: None,
        };
        let data = (&plan.train, plan.dev.as_ref());
        let on_event = &mut |event: TrainEvent<'_>| reporter.event(&event);
        let config = TrainConfig { length: self.length_from_now(), ..plan.config.clone() };
        let population = crate::train_all(&plan.model, &plan.task, data, state, &config, on_event)?;
        let winner = population.survivors[0];
        let outcome = population.outcomes[winner].clone();
        let written = population.survivors.iter().take(plan.config.survivors);
        let members: Vec<&Outcome> = written.map(|&candidate| &population.outcomes[candidate]).collect();
        observer.detail(|| Result::Ok(memory_in_words(reporter.faults_warm, &outcome)))?;
        if self.cancel.is_cancelled() && outcome.steps == 0 {
            reporter.checkpoints.remove(observer);
            return Err(NothingLearned.into());
        }
        let known = reporter.evaluations.remove(&(winner, outcome.best_step));
        (reporter.on_event)(&Event::Trained { ending: ending(plan, &outcome, known.as_ref()) });
        let test = self.compare(&members, plan.test.as_ref(), None)?;
        let dev = self.compare(&members, plan.dev.as_ref(), known)?;
        (reporter.on_event)(&Event::Writing);
        let is_cancelled = self.cancel.is_cancelled();
        let written = write(plan, &population, &members, &dev, &test).and_then(|bytes| {
            if is_cancelled {
                reporter.checkpoints.mark_own(&plan.output.out)?;
            } else {
                reporter.checkpoints.remove(observer);
            }
            Ok(bytes)
        });
        let seconds = plan.started.elapsed().as_secs_f64();
        let candidate = reporter.number(winner);
        if written.is_ok() {
            (reporter.on_event)(&Event::Done {
                out: plan.output.out.display().to_string(),
                candidate,
                steps: outcome.steps,
                best_step: outcome.best_step,
                dev: dev.tuned.as_ref().map(Scores::of),
                test: test.tuned.as_ref().map(Scores::of),
                seconds,
                peak_memory_bytes: peak_bytes(),
            });
        }
        let n_learned: usize = members.iter().map(|outcome| outcome.soft_prompt.values().len()).sum();
        let members = members.len();
        let is_chosen = plan.config.keep == Keep::Best || population.outcomes.len() > 1;
        let (bytes, failed) = match written {
            Ok(bytes) => (bytes, None),
            Err(error) => (0, Some(error)),
        };
        let result = RunResult {
            outcome,
            population,
            members,
            is_chosen,
            dev,
            test,
            seconds,
            n_learned: n_learned as u64,
            bytes,
            is_cancelled,
        };
        match failed {
            None => Ok(result),
            Some(source) => Err(Unwritten { result: Box::new(result), source }.into()),
        }
    }

    /// How long to train: a limited time began with the plan.
    fn length_from_now(&self) -> Length {
        match self.plan.config.length {
            Length::Time { seconds, evaluations_after } => {
                // Too little is one step.
                let seconds = (seconds - self.plan.started.elapsed().as_secs_f64()).max(f64::MIN_POSITIVE);
                Length::Time { seconds, evaluations_after }
            }
            length => length,
        }
    }

    /// Evaluates the prompt, its ensemble and its baselines on a split; a cancelled run skips the slow parts.
    fn compare(
        &self,
        members: &[&Outcome],
        examples: Option<&Examples>,
        known: Option<Evaluation>,
    ) -> Result<SplitScores> {
        let (plan, cancel) = (&self.plan, &self.cancel);
        let Some(examples) = examples else { return Ok(SplitScores::default()) };
        let mut scores = SplitScores { tuned: known, ..SplitScores::default() };
        let prompts: Vec<&SoftPrompt> = members.iter().map(|outcome| &outcome.soft_prompt).collect();
        let evaluate = |prompts: &[&SoftPrompt]| {
            let budget = plan.config.micro_batch_tokens;
            plan.task.evaluate(&plan.model, prompts, examples, budget, &mut |_| {})
        };
        if scores.tuned.is_none() && !cancel.is_cancelled() {
            scores.tuned = Some(evaluate(&prompts[..1])?);
        }
        if prompts.len() > 1 && !cancel.is_cancelled() {
            scores.ensemble = Some(evaluate(&prompts)?);
        }
        if !cancel.is_cancelled() {
            scores.bare = Some(evaluate(&[])?);
            scores.majority = plan
                .task
                .verbalizer()
                .map(|labels| Evaluation::of_majority(labels.n(), plan.train.labels(), examples.labels()));
        }
        Ok(scores)
    }
}

impl RunPlan {
    /// Whether the prompt precedes the text but could follow it, where it could attend to the text.
    #[must_use]
    pub fn may_use_suffix(&self) -> bool {
        self.task.method == Method::Prompt
            && matches!(self.task.placement, Placement::Front | Placement::AfterBos)
    }
}

impl RunPlan {
    /// What a choice by few dev examples is worth; empty where they are many, or nothing was chosen by them.
    fn uncertainty(&self, dev: Option<&Evaluation>) -> String {
        let n = self.dev.as_ref().map_or(0, Examples::n) as u64;
        if n == 0 || !are_few(n) || (self.config.keep == Keep::Last && self.candidates.len() < 2) {
            return String::new();
        }
        let labels = dev.and_then(|evaluation| evaluation.labels.as_ref());
        let accuracy = labels.map_or_else(String::new, |labels| {
            let (accuracy, interval) = (labels.accuracy(), labels.interval());
            format!(
                ": the accuracy there is {}, with a 95 % interval of {}",
                display::percent(accuracy),
                display::interval(interval)
            )
        });
        format!(" (chosen on only {n} dev examples{accuracy})")
    }
}

/// Turns training events into run events, and writes checkpoints.
struct TrainReporter<'a> {
    observer: &'a dyn Observer,
    on_event: &'a mut dyn FnMut(&Event),
    /// Evaluations on dev, by candidate and step.
    evaluations: BTreeMap<(usize, u64), Evaluation>,
    n_candidates: usize,
    checkpoints: CheckpointWriter,
    cancel: &'a Cancel,
    /// Page faults after the first steps; later steps reuse their buffers.
    faults_warm: Option<u64>,
}

/// Steps after which memory use should no longer grow.
const WARM_STEPS: u64 = 3;

impl TrainReporter<'_> {
    /// The number of a candidate, from 1, if there are several.
    fn number(&self, candidate: usize) -> Option<usize> {
        (self.n_candidates > 1).then_some(candidate + 1)
    }

    fn event(&mut self, event: &TrainEvent<'_>) -> ControlFlow<()> {
        match *event {
            TrainEvent::Step { candidate, made, state } => {
                let StepStats { step, loss, learning_rate, grad_norm, examples_per_second } = made;
                if step == WARM_STEPS {
                    self.faults_warm = page_faults();
                }
                self.checkpoints.keep(state, self.cancel.is_cancelled(), self.observer);
                let candidate = self.number(candidate);
                let event =
                    Event::Step { candidate, step, loss, learning_rate, grad_norm, examples_per_second };
                (self.on_event)(&event);
            }
            TrainEvent::Eval { candidate, step, evaluation, best, state } => {
                self.checkpoints.keep(state, true, self.observer);
                let number = self.number(candidate);
                (self.on_event)(&Event::Eval {
                    candidate: number,
                    step,
                    split: "dev",
                    loss: evaluation.loss,
                    accuracy: evaluation.accuracy(),
                    best,
                });
                self.evaluations.insert((candidate, step), evaluation.clone());
            }
            TrainEvent::Decay { decay } => (self.on_event)(&Event::Decay {
                step: decay.from,
                until: decay.until,
                reason: match decay.cause {
                    Cause::Plateau => "plateau",
                    Cause::Limit => "limit",
                },
            }),
            TrainEvent::Left { candidate, step, ended } => {
                if let Some(candidate) = self.number(candidate) {
                    let reason = match ended {
                        StopReason::Dropped => "dropped",
                        StopReason::EarlyStopped => "early-stopped",
                        _ => "diverged",
                    };
                    (self.on_event)(&Event::Left { candidate, step, reason });
                }
            }
            _ => {}
        }
        if self.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Describes the memory use of the run.
fn memory_in_words(faults_warm: Option<u64>, outcome: &Outcome) -> Vec<(&'static str, String)> {
    let peak = peak_bytes().map(|peak| format!("at most {} resident", display::bytes(peak)));
    let faults = faults_warm.zip(page_faults()).map(|(warm, now)| {
        let steps = count(outcome.steps.saturating_sub(WARM_STEPS));
        format!(
            "{} page faults in the last {steps} steps and their evaluations",
            count(now.saturating_sub(warm))
        )
    });
    let told: Vec<String> = peak.into_iter().chain(faults).collect();
    if told.is_empty() { Vec::new() } else { vec![("memory", told.join(", "))] }
}

/// The checkpoint writer of the run, and its initial state.
fn begin(plan: &RunPlan, observer: &dyn Observer) -> Result<(CheckpointWriter, TrainState)> {
    let run = record_of(plan, &plan.config, plan.init(), BTreeMap::new());
    let settings = record::determinants(&plan.model, &run, plan.start().n_virtual());
    let checkpoints = CheckpointWriter::new(&plan.output.out, settings);
    if !plan.output.resume {
        checkpoints.remove(observer);
        return Ok((checkpoints, plan.state()));
    }
    let progress = checkpoints.read()?;
    let of = plan.config.length.most_steps().map(|most| format!(" of {}", count(most)));
    observer.tell("resumed", format!("after {}{} steps", count(progress.step()), of.unwrap_or_default()));
    Ok((checkpoints, progress))
}

fn record_of<'p>(
    plan: &'p RunPlan,
    config: &'p TrainConfig,
    init: &'p Init,
    metrics: BTreeMap<String, BTreeMap<String, f64>>,
) -> record::RunRecord<'p> {
    record::RunRecord {
        task: &plan.task,
        truth_field: &plan.fields.truth,
        label_names: plan.label_names.clone(),
        config,
        init,
        scale: plan.scale(),
        candidates: candidates_in_words(plan),
        data: plan.data.clone(),
        metrics,
    }
}

/// Describes the candidates, if there are several.
fn candidates_in_words(plan: &RunPlan) -> Vec<String> {
    match &plan.candidates[..] {
        [_] => Vec::new(),
        several => several.iter().map(PlannedCandidate::describe).collect(),
    }
}

/// Describes how the run ended, and the prompt that was kept. `dev`: its evaluation on dev, if there is one.
fn ending(plan: &RunPlan, outcome: &Outcome, dev: Option<&Evaluation>) -> String {
    let steps = count(outcome.steps);
    let of = plan.config.length.most_steps().map(|most| format!(" of {}", count(most))).unwrap_or_default();
    let kept = match outcome.best_step {
        0 => "no step improved on the initial prompt; kept it".to_owned(),
        step => format!("kept the prompt of step {}", count(step)),
    };
    let kept = format!("{kept}{}", plan.uncertainty(dev));
    match (outcome.ended, plan.config.length) {
        (StopReason::Finished, Length::Steps(_)) => format!("made all {steps} steps; {kept}"),
        (StopReason::Finished, Length::Plateau { .. }) => {
            format!("made the most steps, {steps} (--max-steps); {kept}")
        }
        (StopReason::Finished, Length::Time { .. }) => format!("made {steps} steps in the time; {kept}"),
        (StopReason::EarlyStopped, Length::Steps(_)) => format!(
            "stopped after {steps}{of} steps: {} evaluations without a better one (--patience); {kept}",
            plan.config.patience
        ),
        (StopReason::EarlyStopped, _) => format!("ended after {steps} steps: dev no longer improved; {kept}"),
        (StopReason::Diverged { step }, _) => {
            format!("step {step} gave a loss or gradient that is not a number; {kept}")
        }
        _ => format!("interrupted after {steps}{of} steps; {kept}"),
    }
}

/// Writes the prompt directory, and those of the other ensemble members below it; returns their size in bytes.
fn write(
    plan: &RunPlan,
    population: &Population,
    members: &[&Outcome],
    dev: &SplitScores,
    test: &SplitScores,
) -> Result<u64> {
    let mut metrics = BTreeMap::new();
    for (split, scores) in [("dev", dev), ("test", test)] {
        let named = [
            ("", &scores.tuned),
            (".ensemble", &scores.ensemble),
            (".bare", &scores.bare),
            (".majority", &scores.majority),
        ];
        for (suffix, evaluation) in named {
            if let Some(evaluation) = evaluation {
                let mut numbers = numbers(evaluation);
                let paired = scores.tuned.as_ref().and_then(|tuned| tuned.against(evaluation));
                if let Some(paired) = paired.filter(|_| !suffix.is_empty()) {
                    numbers.insert("p_value".to_owned(), paired.p_value());
                }
                metrics.insert(format!("{split}{suffix}"), numbers);
            }
        }
    }
    let (output, mut metrics) = (&plan.output, Some(metrics));
    for (member, (outcome, &candidate)) in members.iter().zip(&population.survivors).enumerate() {
        let how = &plan.candidates[candidate].how;
        let config = TrainConfig { learning_rate: how.learning_rate, seed: how.seed, ..plan.config.clone() };
        // The first one was measured; alone, it stands for all.
        let run = record_of(plan, &config, &how.init, metrics.take().unwrap_or_default());
        let out = member_dir(&output.out, member);
        record::directory(&plan.model, &run, outcome)?.write(&out, output.overwrite)?;
    }
    forget_members(&output.out, members.len())?;
    let dirs = (0..members.len()).map(|member| member_dir(&output.out, member));
    let sizes = dirs.map(|dir| size(&dir).with_context(|| format!("cannot read {} again", dir.display())));
    Ok(sizes.sum::<anyhow::Result<u64>>()?)
}

/// The metrics for the passport: those that are numbers.
fn numbers(evaluation: &Evaluation) -> BTreeMap<String, f64> {
    let scores = Scores::of(evaluation);
    let named = [
        ("accuracy", scores.accuracy),
        ("loss", Some(scores.loss)),
        ("macro_f1", scores.macro_f1),
        ("n", Some(scores.n as f64)),
    ];
    let finite =
        |(name, value): (&str, Option<f64>)| Some((name.to_owned(), value.filter(|v| v.is_finite())?));
    named.into_iter().filter_map(finite).collect()
}

/// The size of a prompt directory in bytes.
///
/// # Errors
/// If it can't be read.
pub fn size(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for file in [crate::format::ADAPTER_FILE, crate::format::TENSORS_FILE, crate::format::PASSPORT_FILE] {
        match std::fs::metadata(dir.join(file)) {
            Ok(metadata) => bytes += metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}
