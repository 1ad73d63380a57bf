//! How long a step takes: timed with a recorded run's own settings, and without a trace.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use foreword_backbone::Model;
use foreword_backbone::kernels::Cpu;
use foreword_format::{DataRecord, TrainingRecord};
use foreword_tune::data::Dataset;
use foreword_tune::init;
use foreword_tune::record::{self, Run, recorded_config};
use foreword_tune::regularize::Regularizers;
use foreword_tune::settings::{Init, LearningRate, Method, Placement};
use foreword_tune::step_time::{STEPS, n_examples, step_seconds};
use foreword_tune::train::scale;
use foreword_tune::{Examples, Task, TrainConfig, train};

use crate::golden::{load, root};
use crate::laws::task;

fn setting(placement: Placement, method: Method) -> (Model<Cpu>, Task, Examples) {
    let model = load("testdata/models/llama-tiny", Cpu::new(1).unwrap());
    let task = Task { method, ..task(&model, placement) };
    let data = Dataset::read(&root().join("examples/sentiment/dev.jsonl")).unwrap();
    let data = data.take(&(0..24).collect::<Vec<_>>());
    let examples = task.examples(&model, 3, &data, Some(data.require("label").unwrap())).unwrap();
    (model, task, examples)
}

#[test]
fn a_few_steps_are_timed_for_all_that_is_learned_and_wherever_it_stands() {
    for (placement, method) in [
        (Placement::Front, Method::Prompt),
        (Placement::Suffix, Method::Prompt),
        (Placement::Front, Method::Prefix),
    ] {
        let (model, task, examples) = setting(placement, method);
        let rows = init::start(&model, &task, &Init::Vocab, 3, 0).unwrap();
        let config = TrainConfig { steps: 1, batch_size: 8, ..TrainConfig::default() };
        let mut heard = Vec::new();
        let seconds =
            step_seconds(&model, &task, &examples, rows, &config, &mut |n| heard.push(n)).unwrap().unwrap();
        assert!(seconds > 0.0 && seconds < 5.0, "{seconds}");
        assert_eq!(heard, (1..=STEPS).collect::<Vec<_>>());
    }
}

#[test]
fn as_many_examples_are_taken_as_the_steps_see() {
    let (_, front, _) = setting(Placement::Front, Method::Prompt);
    let suffix = Task { placement: Placement::Suffix, ..front.clone() };
    let config = |steps, batch_size| TrainConfig { steps, batch_size, ..TrainConfig::default() };
    assert_eq!(n_examples(&front, &config(400, 32), 900), STEPS * 32);
    assert_eq!(n_examples(&front, &config(400, 32), 40), 40);
    assert_eq!(n_examples(&front, &config(400, 1000), 40), 40);
    assert_eq!(n_examples(&front, &config(400, usize::MAX), usize::MAX), usize::MAX);
    // Texts before a suffix are computed once a run: fourteen epochs see them again and again, one does not.
    assert_eq!(n_examples(&suffix, &config(400, 32), 900), 32);
    assert_eq!(n_examples(&suffix, &config(28, 32), 900), STEPS * 32);
    assert_eq!(n_examples(&suffix, &config(400, 32), 0), 0);
}

/// What the passport of a run with these settings says.
fn recorded(config: &TrainConfig) -> TrainingRecord {
    let (model, task, examples) = setting(Placement::Front, Method::Prompt);
    let start = init::start(&model, &task, &Init::Vocab, 3, 0).unwrap();
    let run = Run {
        task: &task,
        truth_field: "label",
        label_names: BTreeMap::new(),
        config,
        init: &Init::Vocab,
        scale: scale(&model, task.method, start.values()),
        candidates: Vec::new(),
        data: BTreeMap::from([(
            "train".to_owned(),
            DataRecord { digest: "sha256:0".to_owned(), file_digest: None, examples: 24 },
        )]),
        metrics: BTreeMap::new(),
    };
    let outcome =
        train(&model, &task, (&examples, None), start, config, &mut |_| ControlFlow::Continue(())).unwrap();
    record::directory(&model, &run, &outcome).unwrap().passport.unwrap().training
}

#[test]
fn a_record_says_how_it_was_learned() {
    let config = TrainConfig {
        steps: 2,
        batch_size: 5,
        learning_rate: LearningRate::Value(0.25),
        max_grad_norm: 0.5,
        weight_decay: 0.125,
        seed: 7,
        regularizers: Regularizers { token_dropout: 0.25, noise: 0.5, ema_decay: 0.75, trust_region: 2.0 },
        ..TrainConfig::default()
    };
    let mut record = recorded(&config);
    assert_eq!(recorded_config(&record), Some(config));
    let imported = TrainingRecord { steps: 0, ..record.clone() };
    assert_eq!(recorded_config(&imported), None);
    record.settings.insert("batch_size".to_owned(), 0.into());
    assert_eq!(recorded_config(&record), None);
    record.settings.insert("batch_size".to_owned(), 5.into());
    assert!(recorded_config(&record).is_some());
    record.settings.insert(record::COMPILED_FROM.to_owned(), "sha256:0".into());
    assert_eq!(recorded_config(&record), None);
}
