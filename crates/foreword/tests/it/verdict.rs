//! Whether a recorded prompt is worth it.

use foreword::Confusion;
use foreword::compare::{Comparison, Kind, Row};
use foreword::explain::Costs;
use foreword::verdict::Verdict;
use std::collections::BTreeMap;

/// What metrics of this many examples come to; the baselines with their tests.
fn told(split: &str, n: f64, tuned: f64, baselines: &[(&str, f64, Option<f64>)]) -> String {
    let scores = |accuracy, p_value: Option<f64>| {
        let p_value = p_value.map(|p_value| ("p_value".to_owned(), p_value));
        let always = [("accuracy".to_owned(), accuracy), ("n".to_owned(), n)];
        always.into_iter().chain(p_value).collect::<BTreeMap<_, _>>()
    };
    let baselines = baselines
        .iter()
        .map(|&(name, accuracy, p_value)| (format!("{split}.{name}"), scores(accuracy, p_value)));
    let metrics = baselines.chain([(split.to_owned(), scores(tuned, None))]).collect();
    Verdict::of(&metrics).map_or_else(String::new, |verdict| verdict.to_string())
}

#[test]
fn a_prompt_is_praised_only_where_it_is_better_and_not_by_chance() {
    let bare = |n, tuned, bare, p_value| told("test", n, tuned, &[("bare", bare, p_value)]);
    assert!(bare(200.0, 0.5, 0.5, Some(1.0)).contains("no better than the bare model"));
    assert!(bare(200.0, 0.81, 0.77, Some(0.2)).contains("by 4.0 points, which on so few may be chance"));
    assert!(bare(200.0, 0.81, 0.77, Some(0.04)).contains("more than chance gives"));
    // Without a test, by both intervals.
    assert!(bare(200.0, 0.81, 0.75, None).contains("may be chance"));
    assert!(bare(12.0, 0.5, 0.25, None).contains("may be chance"));
    assert!(bare(2000.0, 0.81, 0.75, None).contains("more than chance gives"));
    assert!(
        told("dev", 2000.0, 0.81, &[("bare", 0.7, None)]).starts_with("On the 2,000 dev examples it beats")
    );
    assert_eq!(told("train", 10.0, 1.0, &[("bare", 0.0, None)]), "");
}

#[test]
fn a_prompt_is_held_against_the_better_baseline() {
    let told =
        |tuned| told("test", 500.0, tuned, &[("bare", 0.72, Some(1e-6)), ("majority", 0.84, Some(0.3))]);
    assert!(told(0.81).contains("no better than always giving the most frequent label"), "{}", told(0.81));
    assert!(
        told(0.85).contains("beats always giving the most frequent label by 1.0 points, which on so few")
    );
}

#[test]
fn a_prompt_that_writes_is_praised_for_a_lower_loss() {
    let told = |tuned, bare| {
        let scores = |loss| BTreeMap::from([("loss".to_owned(), loss), ("n".to_owned(), 50.0)]);
        let metrics = [("test".to_owned(), scores(tuned)), ("test.bare".to_owned(), scores(bare))];
        Verdict::of(&metrics.into()).unwrap().to_string()
    };
    assert!(told(1.0, 2.0).contains("1.000 against 2.000 nats a token (perplexity 2.72 against 7.39)"));
    assert!(told(2.0, 1.0).contains("no better than the bare model"));
}

/// What a prompt comes to that has so many of a hundred right, beside a bare model that has `bare` right.
fn compared(bare: usize, tuned: usize) -> String {
    let row = |kind, n_right: usize| {
        let given: Vec<usize> = (0..100).map(|i| usize::from(i >= n_right)).collect();
        Row {
            kind,
            method: None,
            name: "a row".to_owned(),
            labels: Confusion::new(2, given.iter().map(|&given| (0, given))),
            given,
            loss: Some(0.5),
            scores: Vec::new(),
            n_learned: 0,
            bytes: 0,
            n_before: 0,
            n_cut: 0,
            milliseconds_per_text: None,
        }
    };
    let comparison = Comparison {
        rows: vec![row(Kind::Majority, 10), row(Kind::Bare, bare), row(Kind::Prompt, tuned)],
        reference: Some(2),
        corrected: Vec::new(),
        spoiled: Vec::new(),
        costs: Costs {
            n_learned: 0,
            n_frozen: 0,
            prompt_bytes: 0,
            model_bytes: 0,
            prompt_optimizer_bytes: 0,
            model_optimizer_bytes: 0,
        },
    };
    comparison.verdict(&[0; 100])
}

#[test]
fn a_comparison_praises_only_what_chance_seldom_gives() {
    assert!(
        compared(50, 60).starts_with("It helped: on these 100 examples the prompt is 10.0 points better")
    );
    assert!(compared(50, 60).contains("(p 0.002, 95 % interval "), "{}", compared(50, 60));
    assert!(
        compared(50, 54).starts_with("It may have helped") && compared(50, 54).contains("(p 0.125, 95 %")
    );
    assert!(
        compared(50, 50).contains("It did not help")
            && compared(50, 50).contains("is no better than \"a row\" (50.0 %)")
    );
    assert!(
        compared(50, 45).contains("5.0 points behind")
            && compared(50, 45).contains("losses are 0.500 and 0.500.")
    );
    assert!(
        compared(5, 8).contains("2.0 points behind"),
        "the majority class counts too: {}",
        compared(5, 8)
    );
}
