//! A run in the terminal: prints its events as lines and a progress bar, writes the log, and cancels on Ctrl-C.

use std::fs::File;
use std::io::{LineWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use foreword::display::{count, loss, percent, rough_time};
use foreword::error::{Diverged, WriteError, unwritable};
use foreword::plan::output::has_checkpoint;
use foreword::run::Unwritten;
use foreword::train::Length;
use foreword::{Error, Event, Result, Run, RunPlan, RunResult, StopReason, UserError};

use crate::command_line::this_command;
use crate::exit::Exit;
use crate::interrupt;
use crate::printer::{Printer, to_json};

/// Steps after which the speed of a run is known.
const FIRST_STEPS: u64 = 3;
/// Seconds that are worth a word.
const LONG: f64 = 60.0;

/// The log file of `--log`.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: LineWriter<File>,
}

impl Log {
    /// Creates the file, or appends to it if the run is resumed.
    pub(crate) fn create(path: &Path, resume: bool) -> Result<Self> {
        let file =
            File::options().create(true).write(true).append(resume).truncate(!resume).open(path).map_err(
                |error| {
                    let what = format!("--log {}", path.display());
                    unwritable(what.clone(), error, |why| {
                        UserError::new(format!("cannot write {what}: {why}"))
                    })
                },
            )?;
        Ok(Self { path: path.to_owned(), file: LineWriter::new(file) })
    }

    /// Writes a line.
    pub(crate) fn write(&mut self, event: &Event) -> Result<(), WriteError> {
        let written = to_json(event).and_then(|line| writeln!(self.file, "{line}"));
        written.map_err(|source| WriteError { what: self.path.display().to_string(), source })
    }
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) plan: RunPlan,
    pub(crate) result: RunResult,
    /// The first line of the output or the log that could not be written.
    pub(crate) failed: Option<WriteError>,
    /// Why the prompt could not be written.
    pub(crate) unwritten: Option<Error>,
}

/// Executes a plan and prints its events.
pub(crate) fn run_plan(plan: RunPlan, log: &mut Option<Log>, printer: &Printer) -> Result<Ended> {
    let run = Run::new(plan);
    let watched = interrupt::watch(run.cancel(), "stopping after this step");
    watched.map_err(|error| Error::other(error).context("cannot listen for Ctrl-C"))?;
    let length = run.plan().config.length;
    let steps = length.most_steps();
    printer.begin_bar(steps.unwrap_or(0), "learning");
    let mut reporter = TerminalReporter {
        printer,
        log,
        failed: None,
        length,
        batch_size: run.plan().config.batch_size,
        started: Instant::now(),
        steps,
        dev: None,
    };
    let result = run.start_with(&mut |event| reporter.event(event), printer);
    let failed = reporter.failed;
    interrupt::unwatch();
    // What was computed is shown even if it could not be written.
    let (result, unwritten) = match result {
        Ok(result) => (result, None),
        Err(error) => {
            let Unwritten { result, source } = error.downcast()?;
            if has_checkpoint(&run.plan().output.out) {
                printer.say(&format!("once it can be written: {} --resume", this_command()));
            }
            (*result, Some(source))
        }
    };
    Ok(Ended { plan: run.into_plan(), result, failed, unwritten })
}

/// Passes the events of a run to the printer and the log.
struct TerminalReporter<'a> {
    printer: &'a Printer,
    log: &'a mut Option<Log>,
    failed: Option<WriteError>,
    length: Length,
    batch_size: usize,
    started: Instant,
    /// The last step, as far as it is known.
    steps: Option<u64>,
    /// The latest evaluation in short: the accuracy, or else the loss.
    dev: Option<String>,
}

impl TerminalReporter<'_> {
    /// Writes the line of an event to the output and the log. If that fails, the run continues and the failure is reported
    /// at the end.
    fn line(&mut self, event: &Event) {
        let mut written = self.printer.json(event);
        if let (Ok(()), Some(log)) = (&written, &mut self.log) {
            written = log.write(event);
        }
        if let (Err(error), None) = (written, &self.failed) {
            self.printer.warn(&format!("{error}: {}; the run continues", error.source));
            self.failed = Some(error);
            *self.log = None;
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Trained { ending } => {
                self.printer.end_bar();
                return self.printer.say(ending);
            }
            // From here on Ctrl-C ends the program.
            Event::Writing => return interrupt::unwatch(),
            _ => self.line(event),
        }
        let of = self.steps.map(|steps| format!("/{}", count(steps))).unwrap_or_default();
        match *event {
            Event::Step { step, loss: now, examples_per_second, .. } => {
                self.estimate(step, examples_per_second);
                let dev = self.dev.as_deref();
                self.printer.move_bar(step, || match dev {
                    Some(dev) => format!("loss {}  dev {dev}", loss(now)),
                    None => format!("loss {}", loss(now)),
                });
            }
            Event::Eval { candidate, step, loss: dev_loss, accuracy, best, .. } => {
                let best = if best { "  best so far" } else { "" };
                let dev_loss = loss(dev_loss);
                let scores = match accuracy {
                    Some(accuracy) => format!("accuracy {:>7}  loss {dev_loss}", percent(accuracy)),
                    None => format!("loss {dev_loss}"),
                };
                let who = candidate.map_or_else(String::new, |number| format!("  #{number:<2}"));
                self.printer.say_without_bar(&format!("step {step:>4}{of}{who}  dev {scores}{best}"));
                self.dev = Some(accuracy.map_or(dev_loss, percent));
            }
            Event::Decay { step, until, reason } => {
                let why = match reason {
                    "plateau" => "dev no longer improves",
                    _ => "the end is near",
                };
                self.printer.say_without_bar(&format!(
                    "step {step:>4}{of}  {why}: the learning rate decays until step {}",
                    count(until)
                ));
                self.steps = Some(until);
                self.printer.set_bar_length(until);
            }
            Event::Left { candidate, step, reason } => {
                let why = match reason {
                    "dropped" => "it was in the worse half",
                    "early-stopped" => "it no longer improved",
                    _ => "its loss or gradient was not a number",
                };
                self.printer.say_without_bar(&format!("step {step:>4}{of}  #{candidate:<2}  leaves: {why}"));
            }
            _ => {}
        }
    }
}

impl TerminalReporter<'_> {
    /// Says how long the run may take, if that is long and its end is not known; adapts the bar to a limited time.
    fn estimate(&self, step: u64, examples_per_second: f64) {
        match self.length {
            Length::Plateau { most } if step == FIRST_STEPS => {
                let left = (most - step.min(most)) as f64 * self.batch_size as f64 / examples_per_second;
                if left > LONG {
                    self.printer.say(&format!(
                        "it ends when dev no longer improves; all {} steps would take about {}",
                        count(most),
                        rough_time(left)
                    ));
                }
            }
            Length::Time { seconds, .. } if self.steps.is_none() => {
                let elapsed = self.started.elapsed().as_secs_f64();
                let about = (step as f64 * seconds / elapsed.max(1e-3)) as u64;
                self.printer.set_bar_length(about.max(step));
            }
            _ => {}
        }
    }
}

impl Ended {
    /// Says how to continue a run that was cancelled.
    pub(crate) fn offer_resume(&self, printer: &Printer) {
        if self.result.is_cancelled {
            printer.say(&format!("to continue: {} --resume", this_command()));
        }
    }

    /// The exit code. An unfinished run writes its best prompt, but does not count as success.
    pub(crate) fn exit(self) -> Result<Exit> {
        if let Some(error) = self.unwritten {
            return Err(error);
        }
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        if self.result.is_cancelled {
            return Ok(Exit::Interrupted);
        }
        match self.result.outcome.ended {
            StopReason::Finished | StopReason::EarlyStopped => Ok(Exit::Done),
            StopReason::Diverged { step } => Err(Error::from(Diverged { step })),
            _ => Ok(Exit::Interrupted),
        }
    }
}
