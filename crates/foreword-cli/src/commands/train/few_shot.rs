//! `foreword train --shots`: the same run on a few examples of each label, sampled with several seeds, since one sample
//! says little.

use foreword::display::{count, loss, mean_and_deviation, percent};
use foreword::error::Diverged;
use foreword::events::FewShot;
use foreword::verdict::{BARE_NAME, MAJORITY_NAME};
use foreword::{
    Error, Evaluation, Event, OutputDir, Result, RunPlan, RunResult, SplitScores, StopReason, TaskFile,
    UserError,
};

use crate::args::TrainArgs;
use crate::exit::Exit;
use crate::printer::{Printer, Table};
use crate::run::{Ended, Log, run_plan};

/// The seeds of Gao et al. 2021, which are common in other work.
const SEEDS: [u64; 5] = [13, 21, 42, 87, 100];

/// Runs once for each seed, and prints the combined result.
pub(super) fn run(
    args: &TrainArgs,
    file: &TaskFile,
    output: &OutputDir,
    mut log: Option<Log>,
    printer: &Printer,
) -> Result<Exit> {
    if output.resume {
        return Err(UserError::new("runs on few examples are short, and are not resumed")
            .hint("start over with --force")
            .into());
    }
    let shots = file.data.shots.unwrap_or(1);
    let seeds = file.train.seed.map_or_else(|| SEEDS.to_vec(), |seed| vec![seed]);
    let mut runs: Vec<(u64, RunResult)> = Vec::new();
    for &seed in &seeds {
        printer.say(&format!("seed {seed}, {shots} examples of each label"));
        let mut file = file.clone();
        file.train.seed = Some(seed);
        let output = output.below(&format!("seed-{seed}"));
        let plan = RunPlan::with(&file, output, &args.machine.resources(), printer)?;
        let Ended { result, failed, unwritten, .. } = run_plan(plan, &mut log, printer)?;
        if let Some(error) = unwritten.or(failed.map(Error::from)) {
            return Err(error);
        }
        if result.is_cancelled {
            printer.say(
                "interrupted; runs on few examples are short, and are not resumed: start over with --force",
            );
            return Ok(Exit::Interrupted);
        }
        if let StopReason::Diverged { step } = result.outcome.ended {
            return Err(Diverged { step }.into());
        }
        runs.push((seed, result));
    }
    tell(shots, &runs, log, printer)?;
    printer.say(&format!("The prompts are in {}, one for each seed.", output.out.display()));
    Ok(Exit::Done)
}

fn tell(shots: usize, runs: &[(u64, RunResult)], log: Option<Log>, printer: &Printer) -> Result<()> {
    let reported: Vec<_> = runs.iter().filter_map(|(_, result)| result.reported()).collect();
    let Some((split, first)) = reported.first() else { return Ok(()) };
    let n = first.tuned.as_ref().map_or(0, |evaluation| evaluation.n);
    let mut table =
        Table::new([&format!("{} {split} examples", count(n)), MAJORITY_NAME, BARE_NAME, "tuned", "loss"]);
    let accuracy = |of: &Option<Evaluation>| of.as_ref().and_then(Evaluation::accuracy);
    for ((seed, _), (_, compared)) in runs.iter().zip(&reported) {
        let cell = |of| accuracy(of).map_or_else(String::new, percent);
        table.row([
            format!("seed {seed}"),
            cell(&compared.majority),
            cell(&compared.bare),
            cell(&compared.tuned),
            compared.tuned.as_ref().map_or_else(String::new, |evaluation| loss(evaluation.loss)),
        ]);
    }
    let all = |pick: fn(&SplitScores) -> &Option<Evaluation>| -> Vec<f64> {
        reported.iter().filter_map(|(_, compared)| accuracy(pick(compared))).collect()
    };
    let (majority, bare, tuned) =
        (all(|compared| &compared.majority), all(|compared| &compared.bare), all(|compared| &compared.tuned));
    table.row([
        "mean ± deviation".to_owned(),
        mean_and_deviation(&majority),
        mean_and_deviation(&bare),
        mean_and_deviation(&tuned),
        String::new(),
    ]);
    let line = Event::FewShot(FewShot::of(
        shots,
        split,
        runs.iter().map(|(seed, _)| *seed).collect(),
        [&majority, &bare, &tuned],
    ));
    printer.json(&line)?;
    if let Some(mut log) = log {
        log.write(&line)?;
    }
    printer.answer(&table.to_string())?;
    Ok(())
}
