//! Foreword as a library: train, save, open and classify; cancel a run from another thread and resume it; show notices.
//!
//! `cargo run --release -- ../sentiment/train.jsonl`

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use foreword::{Event, LoadedPrompt, Notices, OutputDir, Resources, Result, Run, RunPlan, TaskFile};

fn main() -> Result<()> {
    let data = std::env::args().nth(1).unwrap_or_else(|| "../sentiment/train.jsonl".to_owned());
    let out = std::env::temp_dir().join(format!("foreword-library-example-{}", std::process::id()));
    train_and_classify(Path::new(&data), &out.join("first"))?;
    cancel_and_resume(Path::new(&data), &out.join("second"))
}

/// Trains a prompt of the bundled model with the defaults of the program, and uses it.
pub(crate) fn train_and_classify(data: &Path, out: &Path) -> Result<()> {
    let mut settings = TaskFile::default();
    settings.data.train = Some(data.to_owned());
    settings.train.steps = Some(40);
    let run = Run::new(RunPlan::new(&settings, OutputDir::new(out)?)?);
    for notice in &run.plan().notices {
        println!("{notice}");
    }
    let result = run.start(&mut |_| {})?;
    println!(
        "best step {}, dev {:?}",
        result.outcome.best_step,
        result.dev.tuned.and_then(|dev| dev.accuracy())
    );

    let prompt = LoadedPrompt::open(out)?;
    for prediction in prompt.classify(&["The movie was fantastic.", "I want my two hours back."])? {
        println!("{} ({:.3})", prediction.label.unwrap_or_default(), prediction.probability);
    }
    Ok(())
}

/// Another thread cancels the run after its fifth step; a second run goes on from there.
pub(crate) fn cancel_and_resume(data: &Path, out: &Path) -> Result<()> {
    let mut settings = TaskFile::default();
    settings.data.train = Some(data.to_owned());
    settings.train.steps = Some(20);

    let run = Run::new(RunPlan::new(&settings, OutputDir::new(out)?)?);
    let (steps, received) = mpsc::channel();
    let cancel = run.cancel();
    let watcher = thread::spawn(move || {
        if received.iter().any(|step| step == 5) {
            cancel.cancel();
        }
    });
    let result = run.start(&mut |event| {
        if let Event::Step { step, .. } = event {
            steps.send(*step).ok();
            // Steps are short: give the other thread time to cancel.
            thread::sleep(std::time::Duration::from_millis(if *step == 5 { 500 } else { 0 }));
        }
    })?;
    drop(steps);
    watcher.join().ok();
    println!("cancelled: {}, after step {}", result.is_cancelled, result.outcome.steps);
    assert!(result.is_cancelled && result.outcome.steps < 20);

    let notices = Notices::default();
    let output = OutputDir::resume(out)?;
    let run = Run::new(RunPlan::with(&settings, output, &Resources::default(), &notices)?);
    let result = run.start_with(&mut |_| {}, &notices)?;
    for notice in notices.take() {
        println!("{notice}");
    }
    assert!(!result.is_cancelled && result.outcome.steps == 20);
    Ok(())
}
