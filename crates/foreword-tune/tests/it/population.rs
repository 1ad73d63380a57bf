//! Candidates that learn at once: each as if alone, the worse half leaving, and all of it resumable; and what regularizes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use foreword_backbone::Model;
use foreword_backbone::kernels::Cpu;
use foreword_tune::data::Dataset;
use foreword_tune::frozen_texts::CacheBudget;
use foreword_tune::init;
use foreword_tune::regularize::Regularizers;
use foreword_tune::settings::{Init, Keep, LearningRate, Method, Placement};
use foreword_tune::train::scale;
use foreword_tune::{
    Candidate, Event, Examples, Length, Outcome, Population, StopReason, Task, TrainConfig, TrainError,
    TrainState, checkpoint, train, train_all,
};

use crate::golden::{load, root};
use crate::laws::task;

/// A small task, its training examples and its dev examples.
fn setting(placement: Placement, method: Method) -> (Model<Cpu>, Task, Examples, Examples) {
    let model = load("testdata/models/llama-tiny", Cpu::new(2).unwrap());
    let task = Task { method, ..task(&model, placement) };
    let data = Dataset::read(&root().join("examples/sentiment/dev.jsonl")).unwrap();
    let label = Some(data.require("label").unwrap());
    let part = |rows: std::ops::Range<usize>| {
        task.examples(&model, 5, &data.take(&rows.collect::<Vec<_>>()), label).unwrap()
    };
    let (examples, dev) = (part(0..37), part(40..60));
    (model, task, examples, dev)
}

/// Candidates that differ in everything in which they can.
fn candidates(model: &Model<Cpu>, task: &Task) -> Vec<Candidate> {
    let candidate = |init: &Init, n_virtual: usize, learning_rate: LearningRate, seed: u64| Candidate {
        start: init::start(model, task, init, n_virtual, seed).unwrap(),
        learning_rate,
        seed,
    };
    let text = Init::Text("Tell whether it is good.".to_owned());
    vec![
        candidate(&text, 3, LearningRate::Auto, 0),
        candidate(&Init::Labels, 5, LearningRate::Share(0.2), 1),
        candidate(&Init::Vocab, 2, LearningRate::Value(0.01), 2),
        candidate(&Init::Random, 3, LearningRate::Share(2.0), 0),
        candidate(&text, 4, LearningRate::Share(0.05), 3),
    ]
}

fn config() -> TrainConfig {
    TrainConfig {
        length: Length::Steps(16),
        batch_size: 8,
        eval_every: Some(2),
        patience: 3,
        ..TrainConfig::default()
    }
}

fn go_on(_: Event<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

type Summary = (Vec<f32>, u64, u64, StopReason, Option<f64>);

fn summary(outcome: &Outcome) -> Summary {
    let Outcome { soft_prompt, steps, best_step, ended, dev_loss } = outcome;
    (soft_prompt.values().to_vec(), *steps, *best_step, *ended, *dev_loss)
}

fn summaries(population: &Population) -> Vec<Summary> {
    population.outcomes.iter().map(summary).collect()
}

#[test]
fn each_candidate_learns_what_it_would_learn_alone() {
    let settings = [
        (Placement::Front, Method::Prompt),
        (Placement::Suffix, Method::Prompt),
        (Placement::AfterBos, Method::Prefix),
    ];
    for (placement, method) in settings {
        let (model, task, examples, dev) = setting(placement, method);
        let candidates = candidates(&model, &task);
        let data = (&examples, Some(&dev));
        let config = TrainConfig { survivors: candidates.len(), ..config() };
        let population = train_all(&model, &task, data, candidates.clone(), &config, &mut go_on).unwrap();
        for (i, (candidate, together)) in candidates.into_iter().zip(&population.outcomes).enumerate() {
            let Candidate { start, learning_rate, seed } = candidate;
            let config = TrainConfig { learning_rate, seed, ..config.clone() };
            let alone = train(&model, &task, data, start, &config, &mut go_on).unwrap();
            assert_eq!(summary(together), summary(&alone), "{placement} {method}, candidate {i}");
        }
        let losses: Vec<f64> =
            population.survivors.iter().map(|&i| population.outcomes[i].dev_loss.unwrap()).collect();
        assert!(losses.is_sorted() && losses.len() == 5, "{losses:?}");
    }
}

#[test]
fn the_worse_half_leaves_and_the_rest_do_not_notice() {
    let (model, task, examples, dev) = setting(Placement::Front, Method::Prompt);
    let candidates = candidates(&model, &task);
    let data = (&examples, Some(&dev));
    let mut config = TrainConfig { patience: 0, ..config() };
    let mut left = Vec::new();
    let mut n_updates = 0;
    let population = train_all(&model, &task, data, candidates.clone(), &config, &mut |event| {
        match event {
            Event::Left { candidate, step, ended } => left.push((candidate, step, ended)),
            Event::Step { .. } => n_updates += 1,
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    // Five candidates and sixteen steps: 3 stay after 2 steps, 2 after 4, 1 after 8.
    assert_eq!(left.iter().map(|&(_, step, _)| step).collect::<Vec<_>>(), [2, 2, 4, 8]);
    assert!(left.iter().all(|&(_, _, ended)| ended == StopReason::Dropped));
    assert_eq!(n_updates, 5 * 2 + 3 * 2 + 2 * 4 + 8);
    let &[winner] = &population.survivors[..] else { panic!("{:?}", population.survivors) };
    assert!(left.iter().all(|&(candidate, ..)| candidate != winner));
    for (i, candidate) in candidates.into_iter().enumerate() {
        let steps = left.iter().find(|&&(left, ..)| left == i).map(|&(_, step, _)| step);
        (config.learning_rate, config.seed) = (candidate.learning_rate, candidate.seed);
        let mut last = None;
        let alone = train(&model, &task, data, candidate.start, &config, &mut |event| {
            if let Event::Eval { step, state, .. } = event
                && Some(step) == steps
            {
                last = Some(state.values(0).to_vec());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        let (alone, together) = (alone.unwrap(), &population.outcomes[i]);
        assert_eq!(alone.soft_prompt, together.soft_prompt, "candidate {i}");
        assert_eq!((alone.steps, alone.dev_loss), (together.steps, together.dev_loss), "candidate {i}");
    }
    let all = (0..5).filter_map(|i| Some((i, population.outcomes[i].dev_loss?)));
    let best = all.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i);
    assert!(best == Some(winner) || left.iter().any(|&(candidate, ..)| Some(candidate) == best));
}

#[test]
fn as_many_stay_as_are_asked_for() {
    let (model, task, examples, dev) = setting(Placement::Front, Method::Prompt);
    for survivors in 1..=5 {
        let config = TrainConfig { survivors, patience: 0, ..config() };
        let candidates = candidates(&model, &task);
        let data = (&examples, Some(&dev));
        let population = train_all(&model, &task, data, candidates, &config, &mut go_on).unwrap();
        assert_eq!(population.survivors.len(), survivors);
        let finished = |&i: &usize| population.outcomes[i].ended == StopReason::Finished;
        assert!(population.survivors.iter().all(finished));
        assert_eq!((0..5).filter(|i| finished(i)).count(), survivors);
    }
}

#[test]
fn several_candidates_need_something_to_be_chosen_by() {
    let (model, task, examples, _) = setting(Placement::Front, Method::Prompt);
    let candidates = candidates(&model, &task);
    let error = train_all(&model, &task, (&examples, None), candidates, &config(), &mut go_on).unwrap_err();
    assert!(matches!(error, TrainError::NoDev { candidates: 5 }), "{error}");
}

/// Stops a run after each of its steps and evaluations, goes on from the checkpoint, and compares.
fn check_resuming(start: &TrainState, config: &TrainConfig, placement: Placement) {
    let (model, task, examples, dev) = setting(placement, Method::Prompt);
    let data = (&examples, Some(&dev));
    let settings = BTreeMap::from([("steps".to_owned(), 16.into())]);
    let mut n_events = 0;
    let unbroken = train_all(&model, &task, data, start.clone(), config, &mut |event| {
        n_events += usize::from(!matches!(event, Event::Left { .. }));
        ControlFlow::Continue(())
    })
    .unwrap();
    for stop in 0..n_events {
        let (mut saved, mut n) = (None, 0);
        let _ = train_all(&model, &task, data, start.clone(), config, &mut |event| {
            let (Event::Step { state, .. } | Event::Eval { state, .. }) = event else {
                return ControlFlow::Continue(());
            };
            n += 1;
            if n <= stop {
                return ControlFlow::Continue(());
            }
            saved.get_or_insert_with(|| checkpoint::encode(state, &settings).unwrap());
            ControlFlow::Break(())
        });
        let state = checkpoint::decode(&saved.unwrap(), &settings).unwrap();
        let resumed = train_all(&model, &task, data, state, config, &mut go_on).unwrap();
        assert_eq!(summaries(&resumed), summaries(&unbroken), "stopped at event {stop}");
        assert_eq!(resumed.survivors, unbroken.survivors);
    }
}

#[test]
fn a_population_that_stopped_and_was_resumed_is_the_one_that_never_stopped() {
    let (model, task, ..) = setting(Placement::Front, Method::Prompt);
    let start = TrainState::from(candidates(&model, &task));
    check_resuming(&start, &config(), Placement::Front);
}

#[test]
fn regularized_runs_can_be_resumed_too() {
    let (model, task, ..) = setting(Placement::Suffix, Method::Prompt);
    let start = init::start(&model, &task, &Init::Vocab, 5, 3).unwrap();
    let all = Regularizers { token_dropout: 0.3, noise: 0.1, ema_decay: 0.9, trust_region: 0.5 };
    check_resuming(&start.into(), &TrainConfig { regularizers: all, ..config() }, Placement::Suffix);
}

/// What a run of sixteen steps with these regularizers comes to, and where it began.
fn regularized(regularizers: Regularizers) -> (Vec<f32>, Vec<f32>, f64) {
    let (model, task, examples, _) = setting(Placement::Front, Method::Prompt);
    let start = init::start(&model, &task, &Init::Vocab, 5, 3).unwrap();
    let config = TrainConfig { regularizers, keep: Keep::Last, ..config() };
    let scale = scale(&model, Method::Prompt, start.values());
    let outcome = train(&model, &task, (&examples, None), start.clone(), &config, &mut go_on).unwrap();
    (outcome.soft_prompt.into_values(), start.into_values(), scale)
}

/// Root mean square of the way of each row.
fn ways(values: &[f32], init: &[f32]) -> Vec<f64> {
    let rows = values.chunks_exact(32).zip(init.chunks_exact(32));
    let way = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    rows.map(|row| (way(row) / 32.0).sqrt()).collect()
}

#[test]
fn each_regularizer_does_what_it_says() {
    let none = Regularizers::default();
    let (plain, init, scale) = regularized(none);
    let furthest = |ways: Vec<f64>| ways.into_iter().fold(0.0, f64::max);
    let far = furthest(ways(&plain, &init));

    // Within the region, and not by standing still.
    let (near, ..) = regularized(Regularizers { trust_region: 0.05, ..none });
    let nearest = furthest(ways(&near, &init));
    assert!(
        far > 0.06 * scale && nearest <= 0.0501 * scale && nearest > 0.045 * scale,
        "{far} {nearest} {scale}"
    );
    // A wide region changes nothing.
    assert_eq!(regularized(Regularizers { trust_region: 100.0, ..none }).0, plain);

    // The average lags behind the last rows.
    let (averaged, ..) = regularized(Regularizers { ema_decay: 0.99, ..none });
    let behind = furthest(ways(&averaged, &init));
    assert!(behind > 0.1 * far && behind < far, "{behind} {far}");

    // Both change the run, in the same way each time.
    for random in [Regularizers { noise: 0.1, ..none }, Regularizers { token_dropout: 0.3, ..none }] {
        let (one, other) = (regularized(random).0, regularized(random).0);
        assert!(one == other && one != plain);
    }
    for wrong in [
        Regularizers { token_dropout: 1.0, ..none },
        Regularizers { ema_decay: -0.1, ..none },
        Regularizers { noise: f64::NAN, ..none },
        Regularizers { trust_region: f64::INFINITY, ..none },
    ] {
        let (model, task, examples, _) = setting(Placement::Front, Method::Prompt);
        let start = init::start(&model, &task, &Init::Vocab, 5, 3).unwrap();
        let config = TrainConfig { regularizers: wrong, ..config() };
        let error = train(&model, &task, (&examples, None), start, &config, &mut go_on).unwrap_err();
        assert!(matches!(error, TrainError::Setting { .. }), "{error}");
    }
}

#[test]
fn a_row_that_is_left_out_does_not_learn_in_that_step() {
    let (model, task, examples, _) = setting(Placement::Front, Method::Prompt);
    let start = init::start(&model, &task, &Init::Vocab, 5, 3).unwrap();
    let regularizers = Regularizers { token_dropout: 0.5, ..Regularizers::default() };
    let config = TrainConfig { regularizers, length: Length::Steps(1), keep: Keep::Last, ..config() };
    let outcome = train(&model, &task, (&examples, None), start.clone(), &config, &mut go_on).unwrap();
    let still = ways(outcome.soft_prompt.values(), start.values()).iter().filter(|way| **way == 0.0).count();
    assert!((1..5).contains(&still), "{still} of 5 rows did not move");
}

#[test]
fn kept_contexts_change_no_bit() {
    let (model, task, examples, dev) = setting(Placement::Suffix, Method::Prompt);
    let dir = tempfile::tempdir().unwrap();
    let run = |memory: u64, dir: Option<&std::path::Path>, batch_size: usize| {
        let cache_budget = CacheBudget { memory, dir: dir.map(std::path::Path::to_owned) };
        let config =
            TrainConfig { cache_budget, batch_size, micro_batch_tokens: 300, patience: 0, ..config() };
        let candidates = candidates(&model, &task);
        let data = (&examples, Some(&dev));
        summaries(&train_all(&model, &task, data, candidates, &config, &mut go_on).unwrap())
    };
    let none = run(0, None, 8);
    assert_eq!(run(u64::MAX, None, 8), none, "in memory");
    assert_eq!(run(60_000, None, 8), none, "some in memory");
    assert_eq!(run(0, Some(dir.path()), 8), none, "on disk");
    assert_eq!(run(60_000, Some(dir.path()), 8), none, "in both");
    // Among 37 examples a batch of 30 meets each again soon.
    assert_eq!(run(u64::MAX, None, 30), run(0, None, 30));
    let wrong = CacheBudget { memory: 0, dir: Some(dir.path().join("nowhere")) };
    let config = TrainConfig { cache_budget: wrong, ..config() };
    let start = init::start(&model, &task, &Init::Vocab, 2, 0).unwrap();
    let error = train(&model, &task, (&examples, Some(&dev)), start, &config, &mut go_on).unwrap_err();
    assert!(matches!(error, TrainError::Contexts { .. }), "{error}");
}
