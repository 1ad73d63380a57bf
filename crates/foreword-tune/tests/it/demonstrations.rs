//! Instructions and demonstrations are text before the template, and several classifiers speak as one.

use foreword_backbone::kernels::Cpu;
use foreword_tune::data::Dataset;
use foreword_tune::demonstrations::{demonstrated, instructed};
use foreword_tune::likelihood::{choice_loss, ensemble};
use foreword_tune::settings::{Objective, Placement};
use foreword_tune::template::Template;
use foreword_tune::verbalizer::Verbalizer;
use foreword_tune::{Classification, Goal, Task};

use crate::golden::{load, root};

fn task(model: &foreword_backbone::Model<Cpu>) -> Task {
    let labels = Verbalizer::default_strings(["negative", "positive"]);
    let verbalizer = Verbalizer::new(&labels, &model.tokenizer).unwrap();
    Task {
        template: Template::parse("{text}\nSentiment:").unwrap(),
        chat: None,
        text_field: None,
        goal: Goal::Classification(Classification { verbalizer, objective: Objective::Label }),
        joining: foreword_tune::settings::Joining::Whole,
        method: foreword_tune::settings::Method::Prompt,
        placement: Placement::Front,
        max_length: 100,
    }
}

#[test]
fn demonstrations_are_a_shared_beginning_of_every_context() {
    let model = load("crates/foreword-tiny", Cpu::new(1).unwrap());
    let data = Dataset::read(&root().join("examples/sentiment/train.jsonl")).unwrap();
    let label = data.require("label").unwrap();
    let task = task(&model);
    let test = Dataset::from_texts(vec!["A fine film.".into(), "{Dull}.".into(), "So long, so bad.".into()])
        .unwrap();
    let bare = task.examples(&model, 0, &test, None).unwrap();
    let shown = demonstrated(&task, &model, (&data, label), 3, 7, 60).unwrap().unwrap();
    assert_eq!((shown.per_label, shown.n), (3, 6));
    assert_eq!(shown.task.template.source().matches("\nSentiment: negative\n\n").count(), 3);
    assert_eq!(shown.task.template.source().matches("\nSentiment: positive\n\n").count(), 3);
    let with = shown.task.examples(&model, 0, &test, None).unwrap();
    let n_bos = model.tokenizer.leading().len();
    for (bare, with) in bare.contexts.iter().zip(&with.contexts) {
        assert_eq!(with.len(), bare.len() + shown.n_tokens);
        // What is asked is the same; before it stand the BOS, once, and the demonstrations.
        assert_eq!(with[n_bos + shown.n_tokens..], bare[n_bos..]);
        assert_eq!(with[..n_bos], bare[..n_bos]);
    }
    let shared_prefix = shown.task.shared_prefix(&model, &with, 0).unwrap();
    assert!(shared_prefix.n_shared() >= n_bos + shown.n_tokens, "computed once for all texts");
    assert_eq!(shown.task.max_length, task.max_length + shown.n_tokens, "texts may be as long as before");

    // Fewer of the same seed are the first of them; other seeds draw others.
    let two = demonstrated(&task, &model, (&data, label), 2, 7, 60).unwrap().unwrap();
    let beginning = two.task.template.source().strip_suffix("{text}\nSentiment:").unwrap();
    assert!(shown.task.template.source().starts_with(beginning));
    let other = demonstrated(&task, &model, (&data, label), 2, 8, 60).unwrap().unwrap();
    assert_ne!(other.task.template.source(), two.task.template.source());
}

#[test]
fn as_many_are_shown_as_fit() {
    let model = load("crates/foreword-tiny", Cpu::new(1).unwrap());
    let data = Dataset::read(&root().join("examples/sentiment/train.jsonl")).unwrap();
    let (task, label) = (task(&model), data.require("label").unwrap());
    let context = model.backbone.spec().context;
    let fit = |longest| demonstrated(&task, &model, (&data, label), 100, 0, longest).unwrap();
    let (wide, narrow) = (fit(100).unwrap(), fit(context - 200).unwrap());
    assert!(narrow.per_label >= 1 && narrow.per_label < wide.per_label && wide.per_label < 100);
    assert!(wide.n_tokens <= context - 100 && narrow.n_tokens <= 200);
    assert!(fit(context - 5).is_none());
    assert!(demonstrated(&task, &model, (&data, label), 0, 0, 10).unwrap().is_none());
}

#[test]
fn an_instruction_is_a_line_before_the_template() {
    let model = load("crates/foreword-tiny", Cpu::new(1).unwrap());
    let instructed = instructed(&task(&model), "Is it {good}?");
    assert_eq!(instructed.template.source(), "Is it {{good}}?\n{text}\nSentiment:");
    assert_eq!(instructed.template.render(|_| "A"), "Is it {good}?\nA\nSentiment:");
}

#[test]
fn an_ensemble_of_one_is_that_one_and_of_two_their_mean() {
    let (a, b) = (vec![vec![0.1, -3.7], vec![2.0, 1.0]], vec![vec![1.1, 0.3], vec![-2.0, 1.0]]);
    assert_eq!(ensemble(&[&a]), a);
    assert_eq!(ensemble(&[&a, &a]), a);
    assert_eq!(ensemble(&[&a, &b])[1], [0.0, 1.0]);
    assert_eq!(ensemble(&[]), Vec::<Vec<f64>>::new());
    assert!(
        (choice_loss(&a, &[0, 0]) - (-3.8_f64).exp().ln_1p() / 2.0 - (-1.0_f64).exp().ln_1p() / 2.0).abs()
            < 1e-12
    );
}
