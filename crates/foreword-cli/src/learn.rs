//! A run from its plan to its prompt directory: learns, evaluates beside the baselines, and writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, LineWriter, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use foreword::record::{self, Run};
use foreword::settings::{Init, Keep, Method, Placement};
use foreword::{
    Confusion, Evaluation, Event, Examples, Outcome, Population, SoftPrompt, StepStats, StopReason,
    TrainConfig, TrainState,
};

use crate::checkpoints::Keeper;
use crate::exit::{Given, NothingLearned, Unwritten, unwritable};
use crate::interrupt;
use crate::members::{forget_members, member_dir};
use crate::memory::{page_faults, peak_bytes};
use crate::printer::{Printer, to_json};
use crate::resolve::begin::Tried;
use crate::resolve::run::Plan;
use crate::wire::{Line, Scores};
use crate::words::{self, count, loss, percent};

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Learned {
    /// The best candidate's.
    pub(crate) outcome: Outcome,
    /// All candidates'.
    pub(crate) population: Population,
    /// How many of them were written.
    pub(crate) members: usize,
    /// Whether what is written was chosen by dev.
    pub(crate) is_chosen: bool,
    pub(crate) method: Method,
    pub(crate) placement: Placement,
    pub(crate) dev: Compared,
    pub(crate) test: Compared,
    /// Of the whole run, evaluations included.
    pub(crate) seconds: f64,
    /// Numbers that were learned and written, of all members.
    pub(crate) n_learned: u64,
    /// Of the prompt directory, and of the other members'.
    pub(crate) bytes: u64,
    /// Where the lines go, for more of them.
    pub(crate) log: Option<Log>,
    /// A line of the answer or the log that could not be written.
    pub(crate) unwritten: Option<Unwritten>,
}

impl Learned {
    /// Whether the prompt stands before the text and might as well stand behind it, from where it could look at it.
    pub(crate) fn could_stand_behind(&self) -> bool {
        self.method == Method::Prompt && matches!(self.placement, Placement::Front | Placement::AfterBos)
    }
}

/// A split's evaluations, where there was a split and time for them.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// With the soft prompt.
    pub(crate) tuned: Option<Evaluation>,
    /// With all members of an ensemble together.
    pub(crate) ensemble: Option<Evaluation>,
    /// The same template without it.
    pub(crate) bare: Option<Evaluation>,
    /// The most frequent label of the training data, always; nothing where there are no labels.
    pub(crate) majority: Option<Evaluation>,
}

/// Where the lines of `--log` go.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: LineWriter<File>,
}

impl Log {
    /// Makes the file, or goes on with it where a run is resumed.
    pub(crate) fn create(path: &Path, resume: bool) -> Result<Self> {
        let file =
            File::options().create(true).write(true).append(resume).truncate(!resume).open(path).map_err(
                |error| {
                    let what = format!("--log {}", path.display());
                    unwritable(what.clone(), error, |why| Given::wrong(format!("cannot write {what}: {why}")))
                },
            )?;
        Ok(Self { path: path.to_owned(), file: LineWriter::new(file) })
    }

    /// Writes a line.
    pub(crate) fn write(&mut self, line: &Line<'_>) -> Result<(), Unwritten> {
        let written = to_json(line).and_then(|line| writeln!(self.file, "{line}"));
        written.map_err(|source| Unwritten { what: self.path.display().to_string(), source })
    }
}

/// Takes the events of a run to the printer and the log.
struct Teller<'a> {
    printer: &'a mut Printer,
    log: Option<Log>,
    /// The first line that could not be written. The run goes on; the end tells.
    unwritten: Option<Unwritten>,
    /// Evaluations of dev, by candidate and step.
    evaluations: BTreeMap<(usize, u64), Evaluation>,
    steps: u64,
    /// How many candidates there are.
    n_candidates: usize,
    /// The newest evaluation in a word: the accuracy, or where there is none the loss.
    dev: Option<String>,
    keeper: Keeper,
    /// Page faults after the first steps, which take the buffers that all others use again.
    faults_warm: Option<u64>,
}

/// Steps after which no more memory should be needed.
const WARM_STEPS: u64 = 3;

impl Teller<'_> {
    fn line(&mut self, line: &Line<'_>) {
        let mut written = self.printer.json(line);
        if let (Ok(()), Some(log)) = (&written, &mut self.log) {
            written = log.write(line);
        }
        if let (Err(error), None) = (written, &self.unwritten) {
            self.printer.warn(&format!("{error}: {}; the run goes on", error.source));
            self.unwritten = Some(error);
            self.log = None;
        }
    }

    /// A candidate's number, from 1, where there are several.
    fn number(&self, candidate: usize) -> Option<usize> {
        (self.n_candidates > 1).then_some(candidate + 1)
    }

    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        match event {
            &Event::Step { candidate, made, progress } => {
                let StepStats { step, loss: now, learning_rate, grad_norm, examples_per_second } = made;
                if step == WARM_STEPS {
                    self.faults_warm = page_faults();
                }
                self.keeper.keep(progress, interrupt::asked(), self.printer);
                let number = self.number(candidate);
                self.line(&Line::Step {
                    candidate: number,
                    step,
                    loss: now,
                    learning_rate,
                    grad_norm,
                    examples_per_second,
                });
                let dev = self.dev.as_deref();
                self.printer.move_bar(step, || match dev {
                    Some(dev) => format!("loss {}  dev {dev}", loss(now)),
                    None => format!("loss {}", loss(now)),
                });
            }
            Event::Eval { candidate, step, evaluation, best, progress } => {
                self.keeper.keep(progress, true, self.printer);
                let (accuracy, dev_loss) = (evaluation.accuracy(), evaluation.loss);
                let candidate = *candidate;
                let number = self.number(candidate);
                self.line(&Line::Eval {
                    candidate: number,
                    step: *step,
                    split: "dev",
                    loss: dev_loss,
                    accuracy,
                });
                let best = if *best { "  best so far" } else { "" };
                let (steps, dev_loss) = (count(self.steps), loss(dev_loss));
                let scores = match accuracy {
                    Some(accuracy) => format!("accuracy {:>7}  loss {dev_loss}", percent(accuracy)),
                    None => format!("loss {dev_loss}"),
                };
                let who = number.map_or_else(String::new, |number| format!("  #{number:<2}"));
                self.printer.say_without_bar(&format!("step {step:>4}/{steps}{who}  dev {scores}{best}"));
                self.dev = Some(accuracy.map_or(dev_loss, percent));
                self.evaluations.insert((candidate, *step), (*evaluation).clone());
            }
            &Event::Stopped { candidate, step, ended } => {
                let Some(number) = self.number(candidate) else { return ControlFlow::Continue(()) };
                let (reason, in_words) = match ended {
                    StopReason::Dropped => ("dropped", "the better half goes on without it"),
                    StopReason::EarlyStopped => ("early-stopped", "it was no longer getting better"),
                    _ => ("diverged", "its loss or gradient was not a number"),
                };
                self.line(&Line::Left { candidate: number, step, reason });
                let steps = count(self.steps);
                self.printer
                    .say_without_bar(&format!("step {step:>4}/{steps}  #{number:<2}  leaves: {in_words}"));
            }
            _ => {}
        }
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Learns, evaluates and writes the directory. A run that diverged or was interrupted has its best prompt written too.
pub(crate) fn learn(plan: &Plan, log: Option<Log>, printer: &mut Printer) -> Result<Learned> {
    interrupt::watch().context("cannot listen for Ctrl-C")?;
    printer.begin_bar(plan.config.steps, "learning");
    let steps = plan.config.steps;
    let (keeper, start) = begin(plan, printer)?;
    let mut teller = Teller {
        printer,
        log,
        unwritten: None,
        evaluations: BTreeMap::new(),
        steps,
        n_candidates: plan.tried.len().max(1),
        dev: None,
        keeper,
        faults_warm: None,
    };
    let population = foreword::train_all(
        &plan.model,
        &plan.task,
        (&plan.train, plan.dev.as_ref()),
        start,
        &plan.config,
        &mut |event| teller.event(&event),
    );
    teller.printer.end_bar();
    let population = population?;
    let winner = population.survivors[0];
    let outcome = population.outcomes[winner].clone();
    let members: Vec<&Outcome> =
        population.survivors.iter().take(plan.config.survivors).map(|&i| &population.outcomes[i]).collect();
    teller.printer.detail(|| anyhow::Ok(memory_in_words(teller.faults_warm, &outcome)))?;
    if interrupt::asked() && outcome.steps == 0 {
        teller.keeper.remove(teller.printer);
        return Err(NothingLearned.into());
    }
    teller.printer.say(&ending(plan, &outcome));

    let known = teller.evaluations.remove(&(winner, outcome.best_step));
    let test = compare(plan, &members, plan.test.as_ref(), None)?;
    let dev = compare(plan, &members, plan.dev.as_ref(), known)?;
    interrupt::unwatch();
    let bytes = write(plan, &population, &members, &dev, &test)?;
    if interrupt::asked() {
        teller.printer.say(&format!("go on with: {} --resume", words::this_command()));
    } else {
        teller.keeper.remove(teller.printer);
    }
    let seconds = plan.started.elapsed().as_secs_f64();
    teller.line(&Line::Done {
        out: plan.place.out.display().to_string(),
        candidate: teller.number(winner),
        steps: outcome.steps,
        best_step: outcome.best_step,
        dev: dev.tuned.as_ref().map(Scores::of),
        test: test.tuned.as_ref().map(Scores::of),
        seconds,
        peak_memory_bytes: peak_bytes(),
    });
    let n_learned: usize = members.iter().map(|outcome| outcome.soft_prompt.values().len()).sum();
    let (members, log, unwritten) = (members.len(), teller.log, teller.unwritten);
    let is_chosen = plan.config.keep == Keep::Best || population.outcomes.len() > 1;
    Ok(Learned {
        outcome,
        population,
        members,
        is_chosen,
        method: plan.task.method,
        placement: plan.task.placement,
        dev,
        test,
        seconds,
        n_learned: n_learned as u64,
        bytes,
        log,
        unwritten,
    })
}

/// What the run took of the machine's memory.
fn memory_in_words(faults_warm: Option<u64>, outcome: &Outcome) -> Vec<(&'static str, String)> {
    let peak = peak_bytes().map(|peak| format!("at most {} resident", words::bytes(peak)));
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

/// The keeper of the run's checkpoints, and where the run begins.
fn begin(plan: &Plan, printer: &Printer) -> Result<(Keeper, TrainState)> {
    let run = run_of(plan, &plan.config, &plan.init, BTreeMap::new());
    let settings = record::determinants(&plan.model, &run, plan.start.n_virtual());
    let keeper = Keeper::new(&plan.place.out, settings);
    if !plan.place.resume {
        keeper.remove(printer);
        return Ok((keeper, plan.progress()));
    }
    let progress = keeper.read()?;
    printer.say(&format!("resumed   after {} of {} steps", count(progress.step()), count(plan.config.steps)));
    Ok((keeper, progress))
}

fn run_of<'p>(
    plan: &'p Plan,
    config: &'p TrainConfig,
    init: &'p Init,
    metrics: BTreeMap<String, BTreeMap<String, f64>>,
) -> Run<'p> {
    Run {
        task: &plan.task,
        truth_field: &plan.fields.truth,
        label_names: plan.label_names.clone(),
        config,
        init,
        scale: plan.scale(),
        candidates: plan.tried.iter().map(Tried::in_words).collect(),
        data: plan.data.clone(),
        metrics,
    }
}

fn ending(plan: &Plan, outcome: &Outcome) -> String {
    let (steps, asked) = (count(outcome.steps), count(plan.config.steps));
    let kept = match outcome.best_step {
        0 => "kept the init, than which no step was better".to_owned(),
        step => format!("kept the prompt of step {}", count(step)),
    };
    match outcome.ended {
        StopReason::Finished => format!("made all {steps} steps; {kept}"),
        StopReason::EarlyStopped => format!(
            "stopped after {steps} of {asked} steps: {} evaluations without a better one (--patience); {kept}",
            plan.config.patience
        ),
        StopReason::Diverged { step } => {
            format!("step {step} gave a loss or gradient that is not a number; {kept}")
        }
        _ => format!("interrupted after {steps} of {asked} steps; {kept}"),
    }
}

/// The prompt, the ensemble that it leads, and its baselines on a split; what an interruption leaves no time for is left out.
fn compare(
    plan: &Plan,
    members: &[&Outcome],
    examples: Option<&Examples>,
    known: Option<Evaluation>,
) -> Result<Compared> {
    let Some(examples) = examples else { return Ok(Compared::default()) };
    let mut compared = Compared { tuned: known, ..Compared::default() };
    let prompts: Vec<&SoftPrompt> = members.iter().map(|outcome| &outcome.soft_prompt).collect();
    let evaluate = |prompts: &[&SoftPrompt]| {
        let budget = plan.config.micro_batch_tokens;
        plan.task.evaluate(&plan.model, prompts, examples, budget, &mut |_| {})
    };
    if compared.tuned.is_none() && !interrupt::asked() {
        compared.tuned = Some(evaluate(&prompts[..1])?);
    }
    if prompts.len() > 1 && !interrupt::asked() {
        compared.ensemble = Some(evaluate(&prompts)?);
    }
    if !interrupt::asked() {
        compared.bare = Some(evaluate(&[])?);
        compared.majority = majority(plan, examples);
    }
    Ok(compared)
}

/// What always giving the most frequent label of the training data comes to. It has no loss.
fn majority(plan: &Plan, examples: &Examples) -> Option<Evaluation> {
    let n_labels = plan.task.verbalizer()?.n();
    let mut counts = vec![0_usize; n_labels];
    for &label in plan.train.labels() {
        counts[label] += 1;
    }
    // The first of equals.
    let given = (0..n_labels).rev().max_by_key(|&label| counts[label]).unwrap_or(0);
    let labels = Confusion::new(n_labels, examples.labels().iter().map(|&truth| (truth, given)));
    let right = examples.labels().iter().map(|&truth| truth == given).collect();
    Some(Evaluation { n: labels.n(), loss: f64::NAN, labels: Some(labels), right })
}

/// Writes the prompt directory, and those of the ensemble's other members below it: their size in bytes.
fn write(
    plan: &Plan,
    population: &Population,
    members: &[&Outcome],
    dev: &Compared,
    test: &Compared,
) -> Result<u64> {
    let mut metrics = BTreeMap::new();
    for (split, compared) in [("dev", dev), ("test", test)] {
        let named = [
            ("", &compared.tuned),
            (".ensemble", &compared.ensemble),
            (".bare", &compared.bare),
            (".majority", &compared.majority),
        ];
        for (suffix, evaluation) in named {
            if let Some(evaluation) = evaluation {
                let mut numbers = numbers(evaluation);
                let paired = compared.tuned.as_ref().and_then(|tuned| tuned.against(evaluation));
                if let Some(paired) = paired.filter(|_| !suffix.is_empty()) {
                    numbers.insert("p_value".to_owned(), paired.p_value());
                }
                metrics.insert(format!("{split}{suffix}"), numbers);
            }
        }
    }
    let (place, mut metrics) = (&plan.place, Some(metrics));
    for (member, (outcome, &candidate)) in members.iter().zip(&population.survivors).enumerate() {
        let mut config = plan.config.clone();
        let mut init = &plan.init;
        if let Some(tried) = plan.tried.get(candidate) {
            (config.learning_rate, config.seed) = (tried.how.learning_rate, tried.how.seed);
            init = &tried.how.init;
        }
        // The measured one is the first, which stands for all where it stands alone.
        let run = run_of(plan, &config, init, metrics.take().unwrap_or_default());
        let out = member_dir(&place.out, member);
        record::directory(&plan.model, &run, outcome)?.write(&out, place.overwrite)?;
    }
    forget_members(&place.out, members.len())?;
    let dirs = (0..members.len()).map(|member| member_dir(&place.out, member));
    dirs.map(|dir| size(&dir).with_context(|| format!("cannot read {} again", dir.display()))).sum()
}

/// The metrics of the passport: those that are numbers.
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

/// The bytes of a prompt directory.
pub(crate) fn size(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for file in
        [foreword::format::ADAPTER_FILE, foreword::format::TENSORS_FILE, foreword::format::PASSPORT_FILE]
    {
        match std::fs::metadata(dir.join(file)) {
            Ok(metadata) => bytes += metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}
