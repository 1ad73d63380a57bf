//! What must hold for every model, placement and cut into micro-batches.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Mutex;

use foreword_backbone::kernels::{Backend, Cpu, Element, Reference, Token};
use foreword_backbone::kernels::{Forest, Parent, RowBlock};
use foreword_backbone::{Gradient, Input, Model, Save};
use foreword_format::SoftPrompt;
use foreword_tune::engine::loss::{self, Loss};
use foreword_tune::engine::pass::{Budget, Example, MaskedSpan, Pass, loss_and_gradient};
use foreword_tune::engine::prefix::SharedPrefix;
use foreword_tune::engine::reduce::{PartialSum, Reduce};
use foreword_tune::settings::{Joining, LearningRate, Method, Objective, Placement};
use foreword_tune::template::Template;
use foreword_tune::train::train_across;
use foreword_tune::verbalizer::Verbalizer;
use foreword_tune::{
    Classification, Event, Examples, Goal, GroundTruth, Length, Outcome, StopReason, Task, TrainConfig,
    TrainState, checkpoint, train,
};

use crate::golden::{distance, load, root, tiny_models};

const CONTEXTS: [&[Token]; 4] =
    [&[0, 9, 8, 31, 5], &[0, 9, 8, 7], &[0, 9, 8, 40, 41, 42, 43, 44], &[0, 9, 8, 31, 5]];
const LABELS: [&[Token]; 3] = [&[50], &[60, 61], &[50, 62, 63]];
const TRUTHS: [usize; 4] = [2, 0, 1, 1];

/// Soft prompts of 2 and 3 rows.
pub(crate) fn soft_prompts<B: Backend>(model: &Model<B>) -> [Vec<f32>; 2] {
    let rows = |tokens: &[Token]| {
        let embedded = model.backbone.backend().values(&model.backbone.embed(tokens));
        embedded.iter().enumerate().map(|(i, v)| v.as_f32() + 0.05 * (i as f32).sin()).collect()
    };
    [rows(&[100, 101]), rows(&[110, 111, 112])]
}

/// Loss and gradient as everyone else computes them: a copy of the soft prompt in each row, one call per continuation.
fn naive<B: Backend>(
    model: &Model<B>,
    placement: Placement,
    soft: &[f32],
    examples: &[(&[Token], usize)],
    objective: Objective,
) -> (f64, Vec<f64>) {
    let h = model.backbone.spec().hidden;
    let n_virtual = soft.len() / h;
    let mut loss = 0.0;
    let mut gradient = vec![0.0; soft.len()];
    let n_label_tokens: usize = examples.iter().map(|&(_, truth)| LABELS[truth].len()).sum();
    for &(context, truth) in examples {
        let at = match placement {
            Placement::Front => 0,
            Placement::AfterBos => 1,
            Placement::System => 2,
            Placement::Suffix => context.len(),
        };
        let score = |label: &[Token]| score_one(model, context, at, soft, label);
        let scored: Vec<(f64, Vec<f64>)> = LABELS.iter().map(|label| score(label)).collect();
        let weights: Vec<f64> = match objective {
            Objective::Lm => {
                let n = n_label_tokens as f64;
                loss -= scored[truth].0 / n;
                (0..3).map(|i| if i == truth { -1.0 / n } else { 0.0 }).collect()
            }
            Objective::Label => {
                let n = examples.len() as f64;
                let sum: f64 = scored.iter().map(|(score, _)| score.exp()).sum();
                loss -= (scored[truth].0 - sum.ln()) / n;
                let p = |i: usize| scored[i].0.exp() / sum;
                (0..3).map(|i| (p(i) - f64::from(u8::from(i == truth))) / n).collect()
            }
        };
        for (weight, (_, d)) in weights.iter().zip(&scored) {
            gradient.iter_mut().zip(d).for_each(|(sum, d)| *sum += weight * d);
        }
    }
    assert_eq!(gradient.len(), n_virtual * h);
    (loss, gradient)
}

/// log f(label | context with the soft prompt at `at`), and its gradient with respect to the soft prompt.
fn score_one<B: Backend>(
    model: &Model<B>,
    context: &[Token],
    at: usize,
    soft: &[f32],
    label: &[Token],
) -> (f64, Vec<f64>) {
    let (backbone, backend, h) = (&model.backbone, model.backbone.backend(), model.backbone.spec().hidden);
    let n_virtual = soft.len() / h;
    let mut rows = backend.values(&backbone.embed(&context[..at]));
    rows.extend(soft.iter().map(|&v| B::Element::of_f32(v)));
    rows.extend(backend.values(&backbone.embed(&[&context[at..], &label[..label.len() - 1]].concat())));
    let mut forest = Forest::new();
    forest.push(Parent::Root, rows.len() / h);
    let first = context.len() + n_virtual - 1;
    let wanted: Vec<usize> = (first..first + label.len()).collect();
    let rows = backend.rows(rows, h);
    let input = Input { rows, forest: &forest, context: &[], output_rows: &wanted, save: Save::All };
    let output = backbone.forward(input).unwrap();
    let head = backbone.head();
    let pairs: Vec<(usize, Token)> = label.iter().enumerate().map(|(i, &token)| (i, token)).collect();
    let logits = backend.logits_at(&output.hidden, head, &pairs);
    let log_sums = backend.log_sum_exp(&output.hidden, head);
    let score = logits.iter().zip(&log_sums).map(|(l, s)| l.as_f64() - s.as_f64()).sum();
    let mut d_hidden = backend.zeros(wanted.len(), h);
    let ones = vec![B::Element::of_f64(1.0); label.len()];
    let minus = vec![B::Element::of_f64(-1.0); label.len()];
    backend.logits_at_gradient(head, &pairs, &logits, &ones, &mut d_hidden);
    backend.log_sum_exp_gradient(&output.hidden, head, &log_sums, &minus, &mut d_hidden);
    let learned: Vec<usize> = (at..at + n_virtual).collect();
    let gradient = Gradient {
        forest: &forest,
        context: &[],
        key_values: &output.key_values,
        d_hidden: Some(d_hidden),
        d_key_values: None,
        d_context: Vec::new(),
        gradient_rows: &learned,
    };
    let d = backbone.backward(&output.tape.unwrap(), gradient);
    assert_eq!(d.n_rows(), n_virtual);
    (score, backend.values(&d).iter().map(|v| v.as_f64()).collect())
}

fn shared_prefix<B: Backend>(model: &Model<B>, placement: Placement) -> SharedPrefix<'_, B> {
    let n_leading = if placement == Placement::System { 2 } else { 1 };
    SharedPrefix::new(&model.backbone, (Method::Prompt, placement), n_leading, CONTEXTS).unwrap()
}

/// Which soft prompt each example stands below: all below one, or two below each of two.
const ROOTS: [[usize; 4]; 2] = [[0, 0, 0, 0], [0, 1, 1, 0]];

fn forest_equals_copies<B: Backend>(path: &str, backend: B, tolerance: f64) {
    let model = load(path, backend);
    let soft = soft_prompts(&model);
    for &placement in Placement::ALL {
        let shared_prefix = shared_prefix(&model, placement);
        for objective in [Objective::Label, Objective::Lm] {
            for roots in ROOTS {
                let n_roots = roots.iter().max().unwrap() + 1;
                let prefilled: Vec<&[f32]> = soft[..n_roots].iter().map(Vec::as_slice).collect();
                let query = |i: usize| Example {
                    masked: MaskedSpan::NONE,
                    prompt: roots[i],
                    context: CONTEXTS[i],
                    continuations: &LABELS,
                    extended: &[],
                    truth: 0,
                };
                let examples: Vec<Example<'_>> =
                    (0..4).map(|i| Example { truth: TRUTHS[i], ..query(i) }).collect();
                for budget in [1, 9, 1000] {
                    let steps =
                        loss_and_gradient(&shared_prefix, &prefilled, &examples, objective, budget).unwrap();
                    for (root, step) in steps.iter().enumerate() {
                        let own = (0..4).filter(|&i| roots[i] == root).map(|i| (CONTEXTS[i], TRUTHS[i]));
                        let own: Vec<(&[Token], usize)> = own.collect();
                        let (loss, gradient) = naive(&model, placement, &soft[root], &own, objective);
                        let off = distance(step.gradient.iter().map(|v| v.as_f64()), gradient);
                        let loss_off = (step.loss - loss).abs() / loss;
                        let what =
                            format!("{path} {placement} {objective} {roots:?} root {root} budget {budget}");
                        assert!(
                            off < tolerance && loss_off < tolerance,
                            "{what}: {off:e}, loss {loss_off:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_forest_equals_copies_in_double_precision() {
    for name in tiny_models() {
        forest_equals_copies(&format!("testdata/models/{name}"), Reference::<f64>::new(), 1e-10);
    }
}

#[test]
fn the_forest_equals_copies_in_single_precision() {
    for name in tiny_models() {
        forest_equals_copies(&format!("testdata/models/{name}"), Cpu::new(2).unwrap(), 3e-5);
    }
}

#[cfg(feature = "candle")]
#[test]
fn the_forest_equals_copies_through_candle() {
    for name in tiny_models() {
        let candle = foreword_backbone::kernels::Candle::cpu();
        forest_equals_copies(&format!("testdata/models/{name}"), candle, 3e-5);
    }
}

#[test]
fn budgets_threads_and_company_change_no_bit_of_a_step() {
    let run = |n_threads: usize, budget: Budget, placement: Placement, roots: [usize; 4]| {
        let model = load("testdata/models/llama-tiny", Cpu::new(n_threads).unwrap());
        let soft = soft_prompts(&model);
        let shared_prefix = shared_prefix(&model, placement);
        let query = |i: usize| Example {
            masked: MaskedSpan::NONE,
            prompt: roots[i],
            context: CONTEXTS[i],
            continuations: &LABELS,
            extended: &[],
            truth: 0,
        };
        let examples: Vec<Example<'_>> = (0..4).map(|i| Example { truth: TRUTHS[i], ..query(i) }).collect();
        let prefilled = [&soft[0][..], &soft[1][..]];
        loss_and_gradient(&shared_prefix, &prefilled, &examples, Objective::Label, budget).unwrap()
    };
    for placement in [Placement::Front, Placement::AfterBos, Placement::Suffix] {
        let whole = run(1, 1000.into(), placement, [0; 4]);
        for (n_threads, budget) in [(1, 1), (2, 1), (2, 1000), (2, 9)] {
            for save in [Save::All, Save::Checkpoint] {
                let other = run(n_threads, Budget { tokens: budget, save }, placement, [0; 4]);
                assert_eq!(whole, other, "{placement}, {n_threads} threads, budget {budget}, {save:?}");
            }
        }
    }
}

/// 41 examples, all below one prompt, or below two by turns of three: several groups of each, the last not full.
fn many_examples(n_roots: usize) -> Vec<Example<'static>> {
    let query = |i: usize| Example {
        masked: MaskedSpan::NONE,
        prompt: i / 3 % n_roots,
        context: CONTEXTS[i * i % 4],
        continuations: &LABELS,
        extended: &[],
        truth: 0,
    };
    (0..41).map(|i| Example { truth: TRUTHS[i % 4], ..query(i) }).collect()
}

fn with_losses<'a>(examples: &[Example<'a>]) -> Vec<(Example<'a>, Box<dyn Loss + 'a>)> {
    examples.iter().map(|example| (*example, loss::of(Objective::Label, example))).collect()
}

/// What a machine computes and what all of them computed.
struct Part<'a> {
    machine: usize,
    n_machines: usize,
    meet: &'a Meeting,
}

/// Where machines exchange their sums.
struct Meeting {
    barrier: std::sync::Barrier,
    sums: Mutex<BTreeMap<usize, Vec<PartialSum<Cpu>>>>,
}

impl Meeting {
    fn of(n_machines: usize) -> Self {
        Self { barrier: std::sync::Barrier::new(n_machines), sums: Mutex::default() }
    }
}

impl Reduce<Cpu> for Part<'_> {
    fn groups(&self, n: usize) -> std::ops::Range<usize> {
        self.machine * n / self.n_machines..(self.machine + 1) * n / self.n_machines
    }

    fn exchange(&self, partial: Vec<PartialSum<Cpu>>) -> std::io::Result<Vec<PartialSum<Cpu>>> {
        self.meet.sums.lock().unwrap().insert(self.machine, partial);
        self.meet.barrier.wait();
        let copy = |&PartialSum { level, index, ref sums }: &PartialSum<Cpu>| PartialSum {
            level,
            index,
            sums: sums.clone(),
        };
        let all = self.meet.sums.lock().unwrap().values().flatten().map(copy).collect();
        self.meet.barrier.wait();
        Ok(all)
    }
}

/// A step, or what is made of one, on so many machines.
fn on_machines<T: Send>(n: usize, run: impl Fn(&Part<'_>) -> T + Sync) -> Vec<T> {
    let meet = Meeting::of(n);
    let (run, meet) = (&run, &meet);
    std::thread::scope(|scope| {
        let start = |machine| scope.spawn(move || run(&Part { machine, n_machines: n, meet }));
        let running: Vec<_> = (0..n).map(start).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn budgets_threads_and_machines_change_no_bit_of_a_sum_over_groups() {
    for (method, placement) in [
        (Method::Prompt, Placement::Front),
        (Method::Prompt, Placement::AfterBos),
        (Method::Prompt, Placement::Suffix),
        (Method::Prefix, Placement::AfterBos),
    ] {
        let run = |n_threads: usize, budget: usize, n_roots: usize, part: &Part<'_>| {
            let model = load("testdata/models/llama-tiny", Cpu::new(n_threads).unwrap());
            let width = if method == Method::Prefix { model.backbone.spec().cache_width() } else { 32 };
            let value = |i: usize| (i as f32 * 0.7).sin() * 0.3;
            let soft = [2, 3].map(|n| (0..n * width).map(value).collect::<Vec<f32>>());
            let shared_prefix = SharedPrefix::new(&model.backbone, (method, placement), 1, CONTEXTS).unwrap();
            let roots: Vec<&[f32]> = soft[..n_roots].iter().map(Vec::as_slice).collect();
            let how = (Budget::from(budget), part as &dyn Reduce<Cpu>);
            let mut pass =
                Pass::new(&shared_prefix, &roots, &with_losses(&many_examples(n_roots)), how).unwrap();
            let all = part.exchange(pass.take_partial()).unwrap();
            pass.finish(Some(all))
        };
        for n_roots in [1, 2] {
            let whole = on_machines(1, |part| run(1, 10_000, n_roots, part)).remove(0);
            assert!(whole.iter().all(|step| step.gradient.iter().any(|d| *d != 0.0)));
            for (n_machines, n_threads, budget) in
                [(1, 2, 1), (1, 1, 60), (1, 2, 150), (2, 1, 10_000), (3, 2, 60), (7, 1, 60)]
            {
                for other in on_machines(n_machines, |part| run(n_threads, budget, n_roots, part)) {
                    let what = format!(
                        "{method} {placement}, {n_machines} machines, {n_threads} threads, budget {budget}"
                    );
                    assert_eq!(whole, other, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_run_on_several_machines_is_the_run_on_one() {
    let run = |part: &Part<'_>| {
        let model = load("testdata/models/llama-tiny", Cpu::new(1).unwrap());
        let task = task(&model, Placement::Front);
        let data = foreword_tune::data::Dataset::read(&root().join("examples/sentiment/dev.jsonl")).unwrap();
        let label = Some(data.require("label").unwrap());
        let part_of = |rows: std::ops::Range<usize>| {
            task.examples(&model, 3, &data.take(&rows.collect::<Vec<_>>()), label).unwrap()
        };
        let (examples, dev) = (part_of(0..37), part_of(40..50));
        let start = SoftPrompt::new(soft_prompts(&model)[1].clone(), 3, 32).unwrap();
        let config = TrainConfig { length: Length::Steps(4), batch_size: 30, ..TrainConfig::default() };
        let data = (&examples, Some(&dev));
        let go_on = &mut |_: Event<'_>| ControlFlow::Continue(());
        let mut population = train_across(part, (&model, &task), data, start, &config, go_on).unwrap();
        let Outcome { soft_prompt, dev_loss, .. } = population.outcomes.remove(0);
        (soft_prompt, dev_loss)
    };
    let alone = on_machines(1, run).remove(0);
    for n in [2, 3] {
        on_machines(n, run).into_iter().for_each(|other| assert_eq!(alone, other, "{n} machines"));
    }
}

#[test]
fn a_text_scores_alone_as_in_any_company() {
    let model = load("crates/foreword-tiny", Cpu::new(2).unwrap());
    let data = foreword_tune::data::Dataset::read(&root().join("examples/sentiment/train.jsonl")).unwrap();
    let task = task(&model, Placement::Front);
    let examples = task.examples(&model, 3, &data.take(&(0..100).collect::<Vec<_>>()), None).unwrap();
    let soft = SoftPrompt::new(soft_prompts(&model)[1].clone(), 3, model.backbone.spec().hidden).unwrap();
    let score = |examples: &Examples, budget| {
        task.log_likelihoods(&model, &[&soft], examples, budget, &mut |_| {}).unwrap()
    };
    let together = score(&examples, 4096);
    let of = |contexts: Vec<Vec<Token>>| Examples {
        contexts,
        truths: GroundTruth::Unknown,
        unusual: BTreeMap::new(),
        n_cut: 0,
        seconds: 0.0,
    };
    let shuffled: Vec<usize> = (0..100).map(|i| (i * 37 + 11) % 100).collect();
    let mixed = score(&of(shuffled.iter().map(|&i| examples.contexts[i].clone()).collect()), 333);
    for (&i, mixed) in shuffled.iter().zip(&mixed) {
        assert_eq!(mixed, &together[i], "text {i} shuffled");
        assert_eq!(&score(&of(vec![examples.contexts[i].clone()]), 4096)[0], &together[i], "text {i} alone");
    }
}

pub(crate) fn task<B: Backend>(model: &Model<B>, placement: Placement) -> Task {
    let labels = [("negative", " negative"), ("positive", " positive")];
    let labels = labels.map(|(name, string)| (name.to_owned(), string.to_owned())).into();
    Task {
        template: Template::parse("{text}").unwrap(),
        chat: None,
        text_field: None,
        goal: Goal::Classification(Classification {
            verbalizer: Verbalizer::new(&labels, &model.tokenizer).unwrap(),
            objective: Objective::Label,
        }),
        joining: Joining::Whole,
        method: Method::Prompt,
        placement,
        max_length: 200,
    }
}

#[test]
fn one_batch_can_be_learned_by_heart_and_nothing_but_the_soft_prompt_changes() {
    for placement in [Placement::Front, Placement::AfterBos, Placement::Suffix] {
        let model = load("crates/foreword-tiny", Cpu::new(2).unwrap());
        let weights = std::fs::read(root().join("crates/foreword-tiny/model.safetensors")).unwrap();
        let digest =
            |model: &Model<Cpu>| foreword_format::digest::sha256(model.backbone.embeddings().table().bytes());
        let before = (digest(&model), foreword_format::digest::sha256(&weights));
        let data =
            foreword_tune::data::Dataset::read(&root().join("examples/sentiment/train.jsonl")).unwrap();
        let data = data.take(&(0..8).collect::<Vec<_>>());
        let task = task(&model, placement);
        let examples = task.examples(&model, 3, &data, Some(data.require("label").unwrap())).unwrap();
        let h = model.backbone.spec().hidden;
        let start = SoftPrompt::new(soft_prompts(&model)[1].clone(), 3, h).unwrap();
        let config = TrainConfig {
            length: Length::Steps(120),
            batch_size: 8,
            learning_rate: LearningRate::Value(0.02),
            ..TrainConfig::default()
        };
        let outcome =
            train(&model, &task, (&examples, None), start, &config, &mut |_| ControlFlow::Continue(()))
                .unwrap();
        let evaluation =
            task.evaluate(&model, &[&outcome.soft_prompt], &examples, 4096, &mut |_| {}).unwrap();
        assert_eq!(evaluation.accuracy(), Some(1.0), "{placement}: {evaluation:?}");
        let weights = std::fs::read(root().join("crates/foreword-tiny/model.safetensors")).unwrap();
        assert_eq!(before, (digest(&model), foreword_format::digest::sha256(&weights)));
    }
}

#[test]
fn an_empty_soft_prompt_is_the_bare_model_in_every_placement() {
    let model = load("crates/foreword-tiny", Cpu::new(1).unwrap());
    let contexts = CONTEXTS.iter().map(|context| context.to_vec()).collect();
    let examples =
        Examples { contexts, truths: GroundTruth::Unknown, unusual: BTreeMap::new(), n_cut: 0, seconds: 0.0 };
    let score = |placement| {
        task(&model, placement).log_likelihoods(&model, &[], &examples, 100, &mut |_| {}).unwrap()
    };
    assert_eq!(score(Placement::Front), score(Placement::AfterBos));
    assert_eq!(score(Placement::Front), score(Placement::Suffix));
}

#[test]
fn a_run_that_stopped_and_was_resumed_is_the_run_that_never_stopped() {
    let model = load("testdata/models/llama-tiny", Cpu::new(2).unwrap());
    let task = task(&model, Placement::AfterBos);
    let data = foreword_tune::data::Dataset::read(&root().join("examples/sentiment/dev.jsonl")).unwrap();
    let label = Some(data.require("label").unwrap());
    let part = |rows: std::ops::Range<usize>| {
        task.examples(&model, 3, &data.take(&rows.collect::<Vec<_>>()), label).unwrap()
    };
    let (examples, dev) = (part(0..37), part(40..60));
    let h = model.backbone.spec().hidden;
    let start = SoftPrompt::new(soft_prompts(&model)[1].clone(), 3, h).unwrap();
    // 37 examples in batches of 8: epochs end within batches.
    let config = TrainConfig {
        length: Length::Steps(23),
        batch_size: 8,
        eval_every: Some(3),
        patience: 6,
        ..TrainConfig::default()
    };
    let settings = BTreeMap::from([("steps".to_owned(), 23.into())]);
    let unbroken = train(&model, &task, (&examples, Some(&dev)), start.clone(), &config, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    for stop in 0..23 {
        let mut saved = None;
        let stopped =
            train(&model, &task, (&examples, Some(&dev)), start.clone(), &config, &mut |event| match event {
                Event::Step { state, .. } | Event::Eval { state, .. } if state.step() == stop => {
                    saved = Some(checkpoint::encode(state, &settings).unwrap());
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            })
            .unwrap();
        assert_eq!((stopped.ended, stopped.steps), (StopReason::Cancelled, stop));
        let state = checkpoint::decode(&saved.unwrap(), &settings).unwrap();
        let resumed =
            train(&model, &task, (&examples, Some(&dev)), state, &config, &mut |_| ControlFlow::Continue(()))
                .unwrap();
        let summary = |o: &Outcome| (o.soft_prompt.values().to_vec(), o.steps, o.best_step, o.ended);
        assert_eq!(summary(&resumed), summary(&unbroken), "stopped after {stop}");
    }
}

#[test]
fn checkpoints_of_other_settings_and_damaged_ones_are_refused() {
    let state: TrainState = SoftPrompt::new(vec![0.5; 6], 2, 3).unwrap().into();
    let settings = |steps: u64| BTreeMap::from([("steps".to_owned(), steps.into())]);
    let bytes = checkpoint::encode(&state, &settings(400)).unwrap();
    assert_eq!(checkpoint::decode(&bytes, &settings(400)).unwrap(), state);
    let other = checkpoint::decode(&bytes, &settings(800)).unwrap_err().to_string();
    assert!(other.contains("steps 400 instead of 800"), "{other}");
    for at in 0..bytes.len() {
        assert!(checkpoint::decode(&bytes[..at], &settings(400)).is_err(), "cut at {at}");
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        let _ = checkpoint::decode(&damaged, &settings(400));
    }
}
