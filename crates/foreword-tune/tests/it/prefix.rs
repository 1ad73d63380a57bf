//! A KV prefix is what its soft prompt was, its gradient is the loss's, and nothing else changes a bit of it.

use std::ops::ControlFlow;

use foreword_backbone::kernels::{Backend as _, Cpu, Reference, Token};
use foreword_backbone::{Model, Save};
use foreword_format::SoftPrompt;
use foreword_tune::context_tuning::{Demonstration, demonstrations, masked};
use foreword_tune::engine::pass::{Budget, Example, MaskedSpan, Scorer, loss_and_gradient};
use foreword_tune::engine::prefix::SharedPrefix;
use foreword_tune::init::{self, InitError};
use foreword_tune::prefix::{CompileError, compile};
use foreword_tune::regularize::Regularizers;
use foreword_tune::settings::{Init, Method, Objective, Placement};
use foreword_tune::{Examples, GroundTruth, Length, Task, TaskError, TrainConfig, train};

use crate::golden::{load, root, tiny_models};
use crate::laws::task;

const CONTEXTS: [&[Token]; 4] =
    [&[0, 9, 8, 31, 5], &[0, 9, 8, 7], &[0, 9, 8, 40, 41, 42, 43, 44], &[0, 9, 8, 31, 5]];
const LABELS: [&[Token]; 3] = [&[50], &[60, 61], &[50, 62, 63]];
const TRUTHS: [usize; 4] = [2, 0, 1, 1];
const PLACEMENTS: [Placement; 2] = [Placement::Front, Placement::AfterBos];

fn queries(root: [usize; 4]) -> Vec<Example<'static>> {
    (0..4)
        .map(|i| Example {
            masked: MaskedSpan::NONE,
            prompt: root[i],
            context: CONTEXTS[i],
            continuations: &LABELS,
            extended: &[],
            truth: 0,
        })
        .collect()
}

fn examples(root: [usize; 4]) -> Vec<Example<'static>> {
    queries(root).into_iter().zip(TRUTHS).map(|(query, truth)| Example { truth, ..query }).collect()
}

fn rows(model: &Model<Cpu>, tokens: &[Token]) -> SoftPrompt {
    let h = model.backbone.spec().hidden;
    let values = model.backbone.backend().values(&model.backbone.embed(tokens));
    SoftPrompt::new(values, tokens.len(), h).unwrap()
}

#[test]
fn a_compiled_soft_prompt_scores_with_the_same_bits() {
    for name in tiny_models() {
        let model = load(&format!("testdata/models/{name}"), Cpu::new(2).unwrap());
        let soft = rows(&model, &[110, 111, 112]);
        for placement in PLACEMENTS {
            // The tokenizers of two models put nothing in front.
            let n_leading = model.tokenizer.leading().len();
            let compiled = compile(&model, placement, &soft).unwrap();
            let score = |method, root: &SoftPrompt| {
                let shared_prefix =
                    SharedPrefix::new(&model.backbone, (method, placement), n_leading, CONTEXTS).unwrap();
                Scorer::new(&shared_prefix, &[root.values()], 9)
                    .unwrap()
                    .log_likelihoods(&queries([0; 4]))
                    .unwrap()
            };
            assert_eq!(score(Method::Prompt, &soft), score(Method::Prefix, &compiled), "{name}, {placement}");
        }
    }
}

#[test]
fn what_can_not_be_compiled_is_refused() {
    let model = load("testdata/models/llama-tiny", Cpu::new(1).unwrap());
    let soft = rows(&model, &[110, 111]);
    assert!(matches!(compile(&model, Placement::Suffix, &soft), Err(CompileError::Suffix)));
    let narrow = SoftPrompt::new(vec![0.5; 6], 2, 3).unwrap();
    assert!(matches!(
        compile(&model, Placement::Front, &narrow),
        Err(CompileError::Width { found: 3, expected: 32 })
    ));
    let long = rows(&model, &vec![110; 513]);
    assert!(matches!(compile(&model, Placement::Front, &long), Err(CompileError::Backbone(_))));
}

/// The slope of the loss along a direction, by differences and by the gradient. All steps are exact in single precision.
#[test]
fn the_gradient_is_that_of_the_loss() {
    const STEP: f32 = 1.0 / 512.0;
    for name in ["llama-tiny", "gpt2-tiny", "gemma2-tiny", "bloom-tiny", "mixtral-tiny"] {
        let model = load(&format!("testdata/models/{name}"), Reference::<f64>::new());
        let width = model.backbone.spec().cache_width();
        let value = |i: usize| ((i as f32 * 0.7).sin() * 256.0).round() / 512.0;
        let prefixes =
            [(0..2 * width).map(value).collect::<Vec<f32>>(), (5..5 + 3 * width).map(value).collect()];
        for placement in PLACEMENTS {
            let shared_prefix =
                SharedPrefix::new(&model.backbone, (Method::Prefix, placement), 1, CONTEXTS).unwrap();
            for objective in [Objective::Label, Objective::Lm] {
                for roots in [[0; 4], [0, 1, 1, 0]] {
                    let step = |prefixes: &[Vec<f32>; 2]| {
                        let prefilled = prefixes.each_ref().map(|prefix| &prefix[..]);
                        loss_and_gradient(&shared_prefix, &prefilled, &examples(roots), objective, 9).unwrap()
                    };
                    let at = step(&prefixes);
                    for root in 0..=*roots.iter().max().unwrap() {
                        let sign = |i: usize| if (i * i + i / 3).is_multiple_of(2) { STEP } else { -STEP };
                        let moved = |by: f32| {
                            let mut moved = prefixes.clone();
                            moved[root].iter_mut().enumerate().for_each(|(i, v)| *v += by * sign(i));
                            step(&moved)[root].loss
                        };
                        let gradient = at[root].gradient.iter().enumerate();
                        let slope: f64 = gradient.map(|(i, d)| d * f64::from(sign(i) / STEP)).sum();
                        // Fourth order: (8 (f(1) − f(−1)) − (f(2) − f(−2))) / 12.
                        let differences = 8.0 * (moved(1.0) - moved(-1.0)) - (moved(2.0) - moved(-2.0));
                        let found = differences / (12.0 * f64::from(STEP));
                        assert!(
                            (found - slope).abs() < 1e-6 * slope.abs().max(0.1),
                            "{name}, {placement}, {objective}, root {root}: {found} by differences, {slope}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn budgets_threads_and_company_change_no_bit() {
    let run = |n_threads: usize, budget: Budget, placement: Placement, roots: [usize; 4]| {
        let model = load("testdata/models/llama-tiny", Cpu::new(n_threads).unwrap());
        let prefixes = [&[110, 111][..], &[7, 8, 9]]
            .map(|tokens| compile(&model, placement, &rows(&model, tokens)).unwrap());
        let shared_prefix =
            SharedPrefix::new(&model.backbone, (Method::Prefix, placement), 1, CONTEXTS).unwrap();
        let prefilled = prefixes.each_ref().map(SoftPrompt::values);
        loss_and_gradient(&shared_prefix, &prefilled, &examples(roots), Objective::Label, budget).unwrap()
    };
    for placement in PLACEMENTS {
        let whole = run(1, 1000.into(), placement, [0; 4]);
        assert!(whole[0].gradient.iter().any(|d| *d != 0.0));
        for (n_threads, budget) in [(1, 1), (2, 1), (2, 1000), (2, 9)] {
            for save in [Save::All, Save::Checkpoint] {
                let other = run(n_threads, Budget { tokens: budget, save }, placement, [0; 4]);
                assert_eq!(whole, other, "{placement}, {n_threads} threads, budget {budget}, {save:?}");
            }
        }
    }
}

#[test]
fn a_kv_prefix_begins_with_what_the_model_makes_of_a_text_and_learns() {
    let model = load("crates/foreword-tiny", Cpu::new(2).unwrap());
    for placement in PLACEMENTS {
        let task = Task { method: Method::Prefix, ..task(&model, placement) };
        let init = Init::Text("Classify the sentiment.".to_owned());
        let start = init::start(&model, &task, &init, 4, 0).unwrap();
        assert_eq!((start.n_virtual(), start.width()), (4, task.row_width(&model)));
        let contexts: Vec<Vec<Token>> = CONTEXTS.iter().map(|context| context.to_vec()).collect();
        let truths = GroundTruth::Labels(vec![0, 1, 0, 0]);
        let examples =
            Examples { contexts, truths, unusual: std::collections::BTreeMap::new(), n_cut: 0, seconds: 0.0 };
        let before = task.evaluate(&model, &[&start], &examples, 99, &mut |_| {}).unwrap();
        let config = TrainConfig { length: Length::Steps(60), batch_size: 4, ..TrainConfig::default() };
        let none = &mut |_: foreword_tune::Event<'_>| ControlFlow::Continue(());
        let outcome = train(&model, &task, (&examples, None), start, &config, none).unwrap();
        let after = task.evaluate(&model, &[&outcome.soft_prompt], &examples, 99, &mut |_| {}).unwrap();
        assert!(after.loss < 0.1 * before.loss && after.accuracy() == Some(1.0), "{before:?} {after:?}");
    }
}

#[test]
fn a_kv_prefix_stands_above_every_text_or_nowhere() {
    let model = load("crates/foreword-tiny", Cpu::new(1).unwrap());
    let examples = |contexts: Vec<Vec<Token>>| Examples {
        contexts,
        truths: GroundTruth::Unknown,
        unusual: std::collections::BTreeMap::new(),
        n_cut: 0,
        seconds: 0.0,
    };
    let prefix = |placement| Task { method: Method::Prefix, ..task(&model, placement) };
    let suffix = prefix(Placement::Suffix).shared_prefix(&model, &examples(vec![vec![0, 5]]), 2).err();
    assert!(matches!(suffix, Some(TaskError::PrefixAtEnd)));
    let empty =
        prefix(Placement::AfterBos).shared_prefix(&model, &examples(vec![vec![0], vec![0, 5]]), 2).err();
    assert!(matches!(empty, Some(TaskError::NothingBelow)));
    assert!(prefix(Placement::Front).shared_prefix(&model, &examples(vec![vec![0], vec![0, 5]]), 2).is_ok());

    let dir = tempfile::tempdir().unwrap();
    let task_of = prefix(Placement::Front);
    let start = init::start(&model, &task_of, &Init::Vocab, 2, 1).unwrap();
    let adapter = foreword_tune::record::adapter(&model, (Method::Prefix, Placement::Front), 2).unwrap();
    let directory = foreword_format::PromptDirectory { rows: start, adapter, passport: None };
    directory.write(&dir.path().join("p"), foreword_format::Overwrite::Refuse).unwrap();
    let from = Init::From(dir.path().join("p"));
    assert_eq!(init::start(&model, &task_of, &from, 9, 0).unwrap(), directory.rows);
    let as_rows = init::start(&model, &task(&model, Placement::Front), &from, 9, 0).unwrap_err();
    assert!(matches!(as_rows, InitError::OtherMethod { .. }), "{as_rows}");
}

/// Gradient and loss of the four examples, of which some do not see two positions of the prefix.
fn with_hidden(prefix: &[f32], hidden: [MaskedSpan; 4], placement: Placement) -> (Vec<f32>, Vec<Vec<f64>>) {
    let model = load("testdata/models/llama-tiny", Cpu::new(2).unwrap());
    let shared_prefix = SharedPrefix::new(&model.backbone, (Method::Prefix, placement), 1, CONTEXTS).unwrap();
    let mut examples = examples([0; 4]);
    examples.iter_mut().zip(hidden).for_each(|(example, hidden)| example.masked = hidden);
    let step =
        loss_and_gradient(&shared_prefix, &[prefix], &examples, Objective::Label, 9).unwrap().remove(0);
    let scores = Scorer::new(&shared_prefix, &[prefix], 9).unwrap().log_likelihoods(&examples).unwrap();
    (step.gradient, scores)
}

#[test]
fn what_an_example_does_not_see_means_nothing_to_it() {
    let model = load("testdata/models/llama-tiny", Cpu::new(1).unwrap());
    let width = model.backbone.spec().cache_width();
    let own = MaskedSpan { first: 1, n: 2 };
    for placement in PLACEMENTS {
        let prefix = compile(&model, placement, &rows(&model, &[110, 111, 112, 113])).unwrap().into_values();
        let mut other = prefix.clone();
        other[width..3 * width].iter_mut().for_each(|value| *value = 3.0 - *value);

        // The first and the last see all, the others not their own.
        let hidden = [MaskedSpan::NONE, own, own, MaskedSpan::NONE];
        let (_, before) = with_hidden(&prefix, hidden, placement);
        let (_, after) = with_hidden(&other, hidden, placement);
        let (_, open) = with_hidden(&prefix, [MaskedSpan::NONE; 4], placement);
        assert_eq!(before[1..3], after[1..3], "{placement}");
        assert!(before[0] != after[0] && before[3] != after[3]);
        assert_eq!((&before[0], &before[3]), (&open[0], &open[3]), "{placement}");
        assert!(before[1] != open[1]);

        // If nobody sees them, nobody moves them.
        let (gradient, _) = with_hidden(&prefix, [own; 4], placement);
        assert!(gradient[width..3 * width].iter().all(|d| *d == 0.0), "{placement}");
        assert!(
            gradient[..width].iter().any(|d| *d != 0.0) && gradient[3 * width..].iter().any(|d| *d != 0.0)
        );

        // The others stay where they are: hiding the last positions is having fewer of them, further away.
        let last = MaskedSpan { first: 2, n: 2 };
        let (_, hidden) = with_hidden(&prefix, [last; 4], placement);
        let (_, shorter) = with_hidden(&prefix[..2 * width], [MaskedSpan::NONE; 4], placement);
        assert!(hidden != shorter, "the text moved to the place of what is hidden");
    }
}

#[test]
fn demonstrations_are_read_apart_and_each_is_where_it_says() {
    let model = load("crates/foreword-tiny", Cpu::new(2).unwrap());
    let data = foreword_tune::data::Dataset::read(&root().join("examples/sentiment/dev.jsonl")).unwrap();
    let data = data.take(&(0..12).collect::<Vec<_>>());
    let label = Some(data.require("label").unwrap());
    for placement in PLACEMENTS {
        let rows_task = task(&model, placement);
        let task = Task { method: Method::Prefix, ..task(&model, placement) };
        let examples = task.examples(&model, 100, &data, label).unwrap();
        let shown = demonstrations(&model, &task, &examples, 100, 3).unwrap();
        let (leading, width) = (model.tokenizer.leading(), task.row_width(&model));
        let n_first = if placement == Placement::Front { leading.len() } else { 0 };
        assert_eq!(shown.start.width(), width);
        let mut next = n_first;
        for (i, demonstration) in shown.demonstrations.iter().enumerate() {
            assert_eq!(demonstration.rows.start, next);
            next = demonstration.rows.end;
            // The labels take turns while both have examples left that fit.
            if i < 2 {
                let label = examples.labels()[demonstration.example];
                assert_eq!(label != examples.labels()[shown.demonstrations[0].example], i == 1);
            }
            let own = masked(&shown.demonstrations, demonstration.example);
            assert_eq!((own.first, own.first + own.n), (demonstration.rows.start, demonstration.rows.end));
        }
        assert!(shown.demonstrations.len() >= 2 && next == shown.start.n_virtual() && next <= 100);
        let others = (0..12).find(|i| shown.demonstrations.iter().all(|shown| shown.example != *i));
        assert!(others.is_none_or(|other| masked(&shown.demonstrations, other) == MaskedSpan::NONE));

        // The same tokens as rows; the first demonstration alone is made into the same keys and values.
        let as_rows = demonstrations(&model, &rows_task, &examples, 100, 3).unwrap();
        assert_eq!(as_rows.demonstrations, shown.demonstrations);
        let first = shown.demonstrations[0].rows.end;
        let h = model.backbone.spec().hidden;
        let alone = SoftPrompt::new(as_rows.start.values()[..first * h].to_vec(), first, h).unwrap();
        let alone = compile(&model, placement, &alone).unwrap();
        assert_eq!(alone.values(), &shown.start.values()[..first * width], "{placement}");
        // The second has not seen the first.
        let all = compile(&model, placement, &as_rows.start).unwrap();
        assert!(all.values()[first * width..] != shown.start.values()[first * width..]);

        let none = demonstrations(&model, &task, &examples, 3, 3).unwrap_err();
        assert!(matches!(none, InitError::NoDemonstration { most: 3 }), "{none}");
    }
}

#[test]
fn context_tuning_learns_from_what_each_example_does_not_see() {
    let model = load("crates/foreword-tiny", Cpu::new(2).unwrap());
    let data = foreword_tune::data::Dataset::read(&root().join("examples/sentiment/dev.jsonl")).unwrap();
    let data = data.take(&(0..8).collect::<Vec<_>>());
    let task = Task { method: Method::Prefix, ..task(&model, Placement::Front) };
    let examples = task.examples(&model, 300, &data, Some(data.require("label").unwrap())).unwrap();
    let shown = demonstrations(&model, &task, &examples, 300, 0).unwrap();
    assert!(shown.demonstrations.len() >= 6);
    let regularizers = Regularizers { token_dropout: 0.1, ..Regularizers::default() };
    let of = |demonstrations: &[Demonstration]| {
        let demonstrations = demonstrations.to_vec();
        let config = TrainConfig {
            length: Length::Steps(12),
            batch_size: 8,
            regularizers,
            demonstrations,
            ..TrainConfig::default()
        };
        let mut losses = Vec::new();
        let outcome = train(&model, &task, (&examples, None), shown.start.clone(), &config, &mut |event| {
            if let foreword_tune::Event::Step { made, .. } = event {
                losses.push(made.loss);
            }
            ControlFlow::Continue(())
        });
        (losses, outcome.unwrap().soft_prompt)
    };
    let (left_out, apart) = of(&shown.demonstrations);
    let (seen, together) = of(&[]);
    assert!(left_out != seen && apart != together);
    assert!(left_out[11] < left_out[0], "{left_out:?}");
}
