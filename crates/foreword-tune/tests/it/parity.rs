//! Log-likelihoods, losses and gradients agree with transformers, and whole runs with PEFT.

use std::ops::ControlFlow;
use std::path::Path;

use foreword_backbone::Model;
use foreword_backbone::kernels::{Backend, Cpu, Element, Reference, Token};
use foreword_format::PromptDirectory;
use foreword_tune::data::Dataset;
use foreword_tune::engine::pass::{Example, Scorer, loss_and_gradient};
use foreword_tune::engine::prefix::SharedPrefix;
use foreword_tune::init;
use foreword_tune::settings::{
    Init, Joining, Keep, LearningRate, Method, Objective, Placement, Schedule, Warmup,
};
use foreword_tune::template::Template;
use foreword_tune::verbalizer::Verbalizer;
use foreword_tune::{Classification, Event, Examples, Goal, Length, Task, TrainConfig, train};
use serde_json::Value;

use crate::golden::{Files as _, Golden, distance, json, load, models, root, tiny_models};

fn placements(golden: &Golden) -> Vec<Placement> {
    let names = golden.json["placements"].as_array().unwrap();
    names.iter().map(|name| name.as_str().unwrap().parse().unwrap()).collect()
}

fn shared_prefix<'m, B: Backend>(
    model: &'m Model<B>,
    placement: Placement,
    contexts: &[Vec<Token>],
) -> SharedPrefix<'m, B> {
    let n_leading = model.tokenizer.leading().len();
    SharedPrefix::new(
        &model.backbone,
        (Method::Prompt, placement),
        n_leading,
        contexts.iter().map(Vec::as_slice),
    )
    .unwrap()
}

/// Every golden log-likelihood, loss and gradient of a model.
fn check<B: Backend>(name: &str, backend: B) {
    let golden = Golden::read(name);
    let Some(model) = golden.model(backend) else { return };
    let (contexts, labels, soft) = (golden.contexts(), golden.labels(), golden.tensor("soft_prompt"));
    let labels: Vec<&[Token]> = labels.iter().map(Vec::as_slice).collect();
    let query = |context| Example { continuations: &labels, ..Example::of(0, context) };
    let queries: Vec<Example<'_>> = contexts.iter().map(|context| query(context.as_slice())).collect();

    let mut bare_and_placed = vec![("bare", Placement::Front, &[][..])];
    bare_and_placed.extend(placements(&golden).into_iter().map(|p| (p.as_str(), p, &soft[..])));
    for (case, placement, root) in bare_and_placed {
        let shared_prefix = shared_prefix(&model, placement, &contexts);
        let scorer = Scorer::new(&shared_prefix, &[root], 50).unwrap();
        let got = scorer.log_likelihoods(&queries).unwrap().concat();
        let expected = golden.tensor(&format!("log_likelihoods.{case}"));
        let off = distance(got.iter().copied(), expected.iter().map(|&v| f64::from(v)));
        assert!(off < 1e-4, "{name}, log-likelihoods, {case}: {off:e}");
    }

    let texts: Vec<usize> = serde_json::from_value(golden.json["batch"]["texts"].clone()).unwrap();
    let truths: Vec<usize> = serde_json::from_value(golden.json["batch"]["true"].clone()).unwrap();
    let examples: Vec<Example<'_>> =
        texts.iter().zip(truths).map(|(&text, truth)| Example { truth, ..queries[text] }).collect();
    for placement in placements(&golden) {
        for objective in [Objective::Lm, Objective::Label] {
            let shared_prefix = shared_prefix(&model, placement, &contexts);
            let step = &loss_and_gradient(&shared_prefix, &[&soft], &examples, objective, 30).unwrap()[0];
            let loss = golden.json["losses"][placement.as_str()][objective.as_str()].as_f64().unwrap();
            let what = format!("{name}, {placement}, {objective}");
            assert!(
                (step.loss - loss).abs() < 1e-4 * loss.abs(),
                "{what}: loss {} instead of {loss}",
                step.loss
            );
            let expected = golden.tensor(&format!("gradient.{placement}.{objective}"));
            let off =
                distance(step.gradient.iter().map(|v| v.as_f64()), expected.iter().map(|&v| f64::from(v)));
            assert!(off < 1e-4, "{what}: gradient off by {off:e}");
        }
    }
}

#[test]
fn log_likelihoods_losses_and_gradients_are_those_of_transformers() {
    for name in models() {
        check(&name, Cpu::new(2).unwrap());
    }
}

#[test]
fn so_they_are_on_the_reference() {
    for name in tiny_models() {
        check(&name, Reference::<f32>::new());
    }
}

#[cfg(feature = "candle")]
#[test]
fn so_they_are_through_candle() {
    for name in models() {
        check(&name, foreword_backbone::kernels::Candle::cpu());
    }
}

fn peft_task<B: Backend>(model: &Model<B>) -> Task {
    let labels = [("negative", " negative"), ("positive", " positive")];
    let labels = labels.map(|(name, string)| (name.to_owned(), string.to_owned())).into();
    Task {
        template: Template::parse("{text}\nLabel:").unwrap(),
        chat: None,
        text_field: None,
        goal: Goal::Classification(Classification {
            verbalizer: Verbalizer::new(&labels, &model.tokenizer).unwrap(),
            objective: Objective::Lm,
        }),
        joining: Joining::Whole,
        method: Method::Prompt,
        placement: Placement::Front,
        max_length: 100,
    }
}

fn peft_examples<B: Backend>(model: &Model<B>, task: &Task) -> Examples {
    let data = Dataset::read(&root().join("testdata/parity/train.jsonl")).unwrap();
    let label = data.require("label").unwrap();
    task.examples(model, 6, &data, Some(label)).unwrap()
}

fn rows(path: &Path) -> Vec<f32> {
    PromptDirectory::read(path).unwrap().rows.into_values()
}

/// Log-likelihoods of the first texts under the prompt of `dir`, against those that PEFT computed.
fn check_scores(model: &Model<Cpu>, method: Method, dir: &str, expected: &Value) {
    let task = Task { method, ..peft_task(model) };
    let examples = peft_examples(model, &task);
    let prompt = PromptDirectory::read(&root().join(dir)).unwrap().rows;
    let got = task.log_likelihoods(model, &[&prompt], &examples, 4096, &mut |_| {}).unwrap();
    for (got, expected) in got.iter().zip(expected.as_array().unwrap()) {
        let expected =
            ["negative", "positive"].map(|label| expected["log_likelihoods"][label].as_f64().unwrap());
        let off = distance(got.iter().copied(), expected);
        assert!(off < 1e-4, "{dir}: {got:?} instead of {expected:?}");
    }
}

/// The models of testdata/parity, of every family.
fn trained_with_peft() -> Vec<String> {
    let names = tiny_models();
    let trained = |name: &String| root().join("testdata/parity").join(name).exists();
    let names: Vec<String> = names.into_iter().filter(trained).collect();
    assert!(names.len() > 20, "of every family");
    names
}

/// Those with which PEFT has trained a KV prefix, too.
const WITH_PREFIX: [&str; 3] = ["llama-tiny", "gpt2-tiny", "qwen2-tiny"];

#[test]
fn peft_directories_score_as_in_peft() {
    for name in trained_with_peft() {
        let model = load(&format!("testdata/models/{name}"), Cpu::new(2).unwrap());
        let golden = json(&format!("testdata/parity/{name}/golden.json"));
        let dir = |prompt: &str| format!("testdata/parity/{name}/{prompt}");
        check_scores(&model, Method::Prompt, &dir("end"), &golden["end"]);
        if WITH_PREFIX.contains(&name.as_str()) {
            check_scores(&model, Method::Prefix, &dir("prefix-end"), &golden["prefix"]["end"]);
        }
        if name == "llama-tiny" {
            check_scores(&model, Method::Prompt, &dir("p-tuning"), &golden["p_tuning"]);
            check_scores(&model, Method::Prefix, &dir("prefix-tuning"), &golden["prefix_tuning"]);
        }
    }
}

#[test]
fn a_run_is_the_run_that_peft_makes() {
    let prompts = trained_with_peft().into_iter().map(|name| (name, Method::Prompt));
    let prefixes = WITH_PREFIX.map(|name| (name.to_owned(), Method::Prefix));
    for (name, method) in prompts.chain(prefixes) {
        let model = load(&format!("testdata/models/{name}"), Cpu::new(2).unwrap());
        let golden = json(&format!("testdata/parity/{name}/golden.json"));
        let (golden_losses, start, end) = match method {
            Method::Prompt => (&golden["losses"], "start", "end"),
            Method::Prefix => (&golden["prefix"]["losses"], "prefix-start", "prefix-end"),
        };
        let task = Task { method, ..peft_task(&model) };
        let examples = peft_examples(&model, &task);
        let contexts: Vec<Vec<Token>> = serde_json::from_value(golden["context_ids"].clone()).unwrap();
        assert_eq!(examples.contexts, contexts, "{name}: tokens");

        let dir = root().join(format!("testdata/parity/{name}"));
        let start = init::start(&model, &task, &Init::From(dir.join(start)), 1, 0).unwrap();
        let config = TrainConfig {
            length: Length::Steps(10),
            batch_size: 4,
            learning_rate: LearningRate::Value(0.02),
            schedule: Schedule::Constant,
            warmup: Warmup::Steps(0),
            max_grad_norm: 0.0,
            shuffle: false,
            keep: Keep::Last,
            micro_batch_tokens: 60,
            ..TrainConfig::default()
        };
        let mut losses = Vec::new();
        let outcome = train(&model, &task, (&examples, None), start, &config, &mut |event| {
            if let Event::Step { made, .. } = event {
                losses.push(made.loss);
            }
            ControlFlow::Continue(())
        });
        let expected: Vec<f64> = serde_json::from_value(golden_losses.clone()).unwrap();
        for (loss, expected) in losses.iter().zip(&expected) {
            assert!((loss - expected).abs() < 1e-4 * expected, "{name}: {losses:?} instead of {expected:?}");
        }
        assert_eq!(losses.len(), 10);
        let wide = |values: Vec<f32>| values.into_iter().map(f64::from);
        let off = distance(wide(outcome.unwrap().soft_prompt.into_values()), wide(rows(&dir.join(end))));
        assert!(off < 1e-3, "{name}: the final {method} is off by {off:e}");
    }
}
