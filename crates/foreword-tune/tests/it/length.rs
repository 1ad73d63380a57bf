//! Runs without a fixed number of steps: they end when dev stops improving, or in time, and can be resumed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use foreword_format::SoftPrompt;
use foreword_tune::data::Dataset;
use foreword_tune::settings::{LearningRate, Placement};
use foreword_tune::train::{Cause, Decay};
use foreword_tune::{
    Event, Examples, Length, Outcome, StopReason, TrainConfig, TrainState, checkpoint, train,
};

use crate::golden::{load, root};
use crate::laws::{soft_prompts, task};
use foreword_backbone::Model;
use foreword_backbone::kernels::Cpu;
use foreword_tune::Task;

struct Scene {
    model: Model<Cpu>,
    task: Task,
    train: Examples,
    dev: Examples,
    start: SoftPrompt,
}

/// What happened in a run.
struct Told {
    outcome: Outcome,
    decays: Vec<Decay>,
    rates: Vec<f64>,
    evaluated: Vec<u64>,
}

impl Scene {
    fn new() -> Self {
        let model = load("testdata/models/llama-tiny", Cpu::new(2).unwrap());
        let task = task(&model, Placement::Front);
        let data = Dataset::read(&root().join("examples/sentiment/dev.jsonl")).unwrap();
        let label = Some(data.require("label").unwrap());
        let part = |rows: std::ops::Range<usize>| {
            task.examples(&model, 3, &data.take(&rows.collect::<Vec<_>>()), label).unwrap()
        };
        let (train, dev) = (part(0..37), part(40..60));
        let start =
            SoftPrompt::new(soft_prompts(&model)[1].clone(), 3, model.backbone.spec().hidden).unwrap();
        Self { model, task, train, dev, start }
    }

    fn run(&self, config: &TrainConfig) -> Told {
        let (mut decays, mut rates, mut evaluated) = (Vec::new(), Vec::new(), Vec::new());
        let outcome = self.train(self.start.clone(), config, &mut |event| {
            match event {
                Event::Decay { decay } => decays.push(decay),
                Event::Step { made, .. } => rates.push(made.learning_rate),
                Event::Eval { step, .. } => evaluated.push(step),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        Told { outcome, decays, rates, evaluated }
    }

    fn train(
        &self,
        start: impl Into<TrainState>,
        config: &TrainConfig,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Outcome {
        train(&self.model, &self.task, (&self.train, Some(&self.dev)), start, config, on_event).unwrap()
    }
}

/// A rate at which this random model soon stops learning.
fn config(length: Length) -> TrainConfig {
    TrainConfig {
        length,
        batch_size: 8,
        eval_every: Some(2),
        patience: 2,
        learning_rate: LearningRate::Share(0.3),
        ..TrainConfig::default()
    }
}

#[test]
fn it_ends_soon_after_dev_stops_improving() {
    let scene = Scene::new();
    let Told { outcome, decays, rates, evaluated } = scene.run(&config(Length::Plateau { most: 1000 }));
    let [decay] = decays[..] else { panic!("{decays:?}") };
    assert_eq!(
        (decay.cause, outcome.ended, outcome.steps),
        (Cause::Plateau, StopReason::EarlyStopped, decay.until)
    );
    assert!(decay.until < 1000 && outcome.best_step <= decay.until);
    let (peak, last) = (rates[decay.from as usize - 1], rates[decay.until as usize - 1]);
    assert!((last / peak - 0.1).abs() < 1e-9, "{last} {peak}");
    assert_eq!(evaluated.last(), Some(&decay.until));
    // Where it is allowed to go on, it goes on.
    let patient = scene.run(&TrainConfig { patience: 0, ..config(Length::Plateau { most: 50 }) });
    assert_eq!((patient.outcome.ended, patient.outcome.steps), (StopReason::Finished, 50));
    assert_eq!(patient.decays, [Decay { from: 40, until: 50, cause: Cause::Limit }]);
}

#[test]
fn a_run_may_be_one_step_long() {
    let scene = Scene::new();
    for most in 1..4 {
        let ran = scene.run(&config(Length::Plateau { most }));
        assert_eq!((ran.outcome.ended, ran.outcome.steps), (StopReason::Finished, most));
        assert_eq!(ran.evaluated.last(), Some(&most));
    }
}

#[test]
fn the_decay_begins_at_the_best_rows() {
    let scene = Scene::new();
    let config = config(Length::Plateau { most: 1000 });
    let (mut best, mut at_decay, mut is_next) = (Vec::new(), None, false);
    scene.train(scene.start.clone(), &config, &mut |event| {
        match event {
            Event::Eval { best: true, state, .. } if at_decay.is_none() => best = state.values(0).to_vec(),
            Event::Decay { .. } => is_next = true,
            Event::Step { state, made, .. } if is_next => {
                at_decay = Some((state.values(0).to_vec(), made.learning_rate));
                is_next = false;
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let (after, rate) = at_decay.unwrap();
    // One step of AdamW moves a number by little more than the learning rate.
    let moved = best.iter().zip(&after).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    assert!(moved > 0.0 && moved < 1.5 * rate, "{moved} {rate}");
}

#[test]
fn it_can_be_resumed_before_and_in_its_decay() {
    let scene = Scene::new();
    let config = config(Length::Plateau { most: 1000 });
    let unbroken = scene.run(&config);
    let decay = unbroken.decays[0];
    assert_eq!(decay.cause, Cause::Plateau);
    let settings = BTreeMap::new();
    let summary = |o: &Outcome| (o.soft_prompt.values().to_vec(), o.steps, o.best_step, o.ended);
    for stop in [decay.from - 1, decay.from, decay.from + 1, decay.until - 1] {
        let mut saved = None;
        let stopped = scene.train(scene.start.clone(), &config, &mut |event| match event {
            Event::Step { state, .. } | Event::Eval { state, .. } if state.step() == stop => {
                saved = Some(checkpoint::encode(state, &settings).unwrap());
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        });
        assert_eq!((stopped.ended, stopped.steps), (StopReason::Cancelled, stop));
        let state = checkpoint::decode(&saved.unwrap(), &settings).unwrap();
        let resumed = scene.train(state, &config, &mut |_| ControlFlow::Continue(()));
        assert_eq!(summary(&resumed), summary(&unbroken.outcome), "stopped after {stop}");
    }
}

#[test]
fn a_limited_time_ends_in_a_decay() {
    let scene = Scene::new();
    let time = |seconds| Length::Time { seconds, evaluations_after: 0.0 };
    // No time at all is one step, and the least decay.
    let hurried = scene.run(&config(time(f64::MIN_POSITIVE)));
    assert_eq!((hurried.outcome.ended, hurried.outcome.steps), (StopReason::Finished, 2));
    assert_eq!(hurried.decays, [Decay { from: 1, until: 2, cause: Cause::Limit }]);
    // More time than it needs is not used.
    let long = scene.run(&config(time(1e9)));
    let same = scene.run(&config(Length::Plateau { most: u64::MAX }));
    assert_eq!(long.outcome.soft_prompt, same.outcome.soft_prompt);
    assert_eq!((long.outcome.ended, long.outcome.steps), (StopReason::EarlyStopped, same.outcome.steps));
}

#[test]
fn lengths_that_nothing_decides_are_refused() {
    let scene = Scene::new();
    let refused =
        |data: (&Examples, Option<&Examples>), length| {
            let start = scene.start.clone();
            let run = train(&scene.model, &scene.task, data, start, &config(length), &mut |_| {
                ControlFlow::Continue(())
            });
            run.unwrap_err().to_string()
        };
    let both = (&scene.train, Some(&scene.dev));
    assert_eq!(refused(both, Length::Plateau { most: 0 }), "steps must be at least 1");
    assert_eq!(refused(both, Length::Steps(0)), "steps must be at least 1");
    assert_eq!(
        refused((&scene.train, None), Length::Plateau { most: 9 }),
        "length must be a number of steps, without dev examples"
    );
    for seconds in [0.0, -1.0, f64::NAN] {
        let time = Length::Time { seconds, evaluations_after: 0.0 };
        assert_eq!(refused(both, time), "seconds must be greater than 0");
    }
}
