//! `foreword train --shots`: the same run on few examples of each label, drawn by several seeds, since one draw says little.

use anyhow::Result;
use foreword::{StopReason, TaskFile};

use crate::args::TrainArgs;
use crate::exit::{Diverged, Exit, Given};
use crate::interrupt;
use crate::learn::{Learned, Log, learn};
use crate::printer::{Printer, Table};
use crate::report;
use crate::resolve::run::{Place, Plan};
use crate::resolve::splits::Splits;
use crate::wire::{FewShot, Line};
use crate::words::{count, loss, mean_and_deviation, percent};

/// The seeds of Gao et al. 2021, which others use too.
const SEEDS: [u64; 5] = [13, 21, 42, 87, 100];

/// Runs once for each seed, and tells what they come to together.
pub(super) fn run(
    args: &TrainArgs,
    file: &TaskFile,
    place: &Place,
    mut log: Option<Log>,
    printer: &mut Printer,
) -> Result<Exit> {
    if place.resume {
        return Err(Given::wrong("runs on few examples are short, and are not resumed")
            .hint("begin anew with --force")
            .into());
    }
    let shots = file.data.shots.unwrap_or(1);
    let seeds = file.train.seed.map_or_else(|| SEEDS.to_vec(), |seed| vec![seed]);
    let mut runs: Vec<(u64, Learned)> = Vec::new();
    for &seed in &seeds {
        printer.say(&format!("seed {seed}, {shots} examples of each label"));
        let mut file = file.clone();
        file.train.seed = Some(seed);
        let place = Place { out: place.out.join(format!("seed-{seed}")), ..place.clone() };
        let plan = Plan::new(&file, Splits::read(&file)?, place, &args.machine, printer)?;
        let mut learned = learn(&plan, log.take(), printer)?;
        log = learned.log.take();
        if let Some(error) = learned.unwritten.take() {
            return Err(error.into());
        }
        if interrupt::asked() {
            return Ok(Exit::Interrupted);
        }
        if let StopReason::Diverged { step } = learned.outcome.ended {
            return Err(Diverged { step }.into());
        }
        runs.push((seed, learned));
    }
    tell(shots, &runs, log, printer)?;
    printer.say(&format!("The prompts are in {}, one for each seed.", place.out.display()));
    Ok(Exit::Done)
}

fn tell(shots: usize, runs: &[(u64, Learned)], log: Option<Log>, printer: &mut Printer) -> Result<()> {
    let reported: Vec<_> = runs.iter().filter_map(|(_, learned)| report::reported(learned)).collect();
    let Some((split, first)) = reported.first() else { return Ok(()) };
    let n = first.tuned.as_ref().map_or(0, |evaluation| evaluation.n);
    let mut table = Table::new([
        &format!("{} {split} examples", count(n)),
        "majority class",
        "bare model",
        "tuned",
        "loss",
    ]);
    let accuracy = |of: &Option<foreword::Evaluation>| of.as_ref().and_then(foreword::Evaluation::accuracy);
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
    let all = |pick: fn(&crate::learn::Compared) -> &Option<foreword::Evaluation>| -> Vec<f64> {
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
    let line = Line::FewShot(FewShot::of(
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
