//! Texts that are written: as transformers writes them, the same in any company, and learned.

use std::ops::ControlFlow;

use foreword_backbone::Model;
use foreword_backbone::kernels::{Backend, Cpu, Reference, Token};
use foreword_format::SoftPrompt;
use foreword_tune::data::Dataset;
use foreword_tune::engine::pass::{Example, MaskedSpan, Scorer};
use foreword_tune::engine::prefix::SharedPrefix;
use foreword_tune::generate::{Event, FinishReason, GenerateConfig, Generated, Sampling};
use foreword_tune::init::Sources;
use foreword_tune::likelihood::best;
use foreword_tune::settings::{Init, Joining, LearningRate, Method, Placement};
use foreword_tune::template::Template;
use foreword_tune::{Examples, Generation, Goal, GroundTruth, Length, Task, TrainConfig, train};

use crate::golden::{Files as _, Golden, load, models};

fn task<B: Backend>(model: &Model<B>, placement: Placement) -> Task {
    Task {
        template: Template::parse("{text}:").unwrap(),
        chat: None,
        text_field: None,
        goal: Goal::Generation(Generation::of(model, None).unwrap()),
        joining: Joining::Whole,
        method: Method::Prompt,
        placement,
        max_length: 200,
    }
}

fn contexts(contexts: Vec<Vec<Token>>) -> Examples {
    Examples {
        contexts,
        truths: GroundTruth::Unknown,
        unusual: std::collections::BTreeMap::new(),
        n_cut: 0,
        seconds: 0.0,
    }
}

fn write<B: Backend>(
    (model, placement): (&Model<B>, Placement),
    soft: Option<&SoftPrompt>,
    of: &Examples,
    most: usize,
    config: &GenerateConfig,
) -> Vec<Generated> {
    let go_on = &mut |_: Event<'_>| ControlFlow::Continue(());
    task(model, placement).generate(model, soft, (of, most), config, 50, go_on).unwrap()
}

fn as_transformers_does<B: Backend>(name: &str, backend: impl Fn() -> B) {
    let golden = Golden::read(name);
    let Some(mut model) = golden.model(backend()) else { return };
    // The golden texts go on after an end token.
    let generation = &golden.json["generation"];
    let texts: Vec<usize> = serde_json::from_value(generation["texts"].clone()).unwrap();
    let ids: Vec<Vec<Token>> = serde_json::from_value(generation["ids"].clone()).unwrap();
    let margins: Vec<Vec<f64>> = serde_json::from_value(generation["margins"].clone()).unwrap();
    let all = golden.contexts();
    let of = contexts(texts.iter().map(|&text| all[text].clone()).collect());
    let mut goal = task(&model, Placement::Front).goal;
    model.end_tokens.clear();
    if let Goal::Generation(to) = &mut goal {
        to.end = Token::MAX;
    }
    let task = Task { goal, ..task(&golden.model(backend()).unwrap(), Placement::Front) };
    let config = GenerateConfig::default();
    let go_on = &mut |_: Event<'_>| ControlFlow::Continue(());
    let values = golden.tensor("soft_prompt");
    let h = model.backbone.spec().hidden;
    let soft = SoftPrompt::new(values.clone(), values.len() / h, h).unwrap();
    let written = task.generate(&model, Some(&soft), (&of, ids[0].len()), &config, 4096, go_on).unwrap();
    for ((written, ids), margins) in written.iter().zip(&ids).zip(&margins) {
        assert_eq!(written.finish_reason, FinishReason::Length);
        let pairs = written.tokens.iter().zip(ids).zip(margins);
        for (step, ((token, expected), margin)) in pairs.enumerate() {
            if token != expected {
                assert!(*margin < 1e-4, "{name}, step {step}: {token}, not {expected}, by {margin}");
                // From here on both are right, and differ.
                break;
            }
        }
    }
    assert_eq!(written.len(), texts.len());
}

#[test]
fn greedy_texts_are_those_of_transformers() {
    for name in models() {
        as_transformers_does(&name, || Cpu::new(2).unwrap());
    }
    as_transformers_does("llama-tiny", Reference::<f32>::new);
}

#[cfg(feature = "candle")]
#[test]
fn so_they_are_through_candle() {
    for name in models() {
        as_transformers_does(&name, foreword_backbone::kernels::Candle::cpu);
    }
}

fn soft_prompt<B: Backend>(model: &Model<B>) -> SoftPrompt {
    Sources::of(model, None).soft_prompt(&Init::Vocab, 3, 5).unwrap()
}

const TEXTS: [&[Token]; 5] =
    [&[0, 9, 8, 31, 5], &[0, 9, 8, 7], &[0, 9], &[0, 40, 41, 42, 43, 44, 45], &[0, 9, 8, 7]];

#[test]
fn a_token_is_the_likeliest_after_all_that_stands_before_it_computed_anew() {
    for name in ["llama-tiny", "gpt2-tiny", "qwen2-tiny", "gemma2-tiny", "bloom-tiny"] {
        let model = load(&format!("testdata/models/{name}"), Cpu::new(2).unwrap());
        let soft = soft_prompt(&model);
        let placements = [Placement::Front, Placement::AfterBos, Placement::Suffix];
        let has_bos = model.tokenizer.bos().is_some();
        for placement in
            placements.into_iter().filter(|&placement| placement != Placement::AfterBos || has_bos)
        {
            let of = contexts(TEXTS.map(<[Token]>::to_vec).to_vec());
            // More tokens than the cache holds in one piece.
            let written = write((&model, placement), Some(&soft), &of, 40, &GenerateConfig::default());
            assert!(written.iter().any(|text| text.tokens.len() > 35), "{written:?}");
            let shared_prefix =
                SharedPrefix::new(&model.backbone, (Method::Prompt, placement), 1, TEXTS).unwrap();
            let scorer = Scorer::new(&shared_prefix, &[soft.values()], 1000).unwrap();
            for (context, text) in TEXTS.iter().zip(&written) {
                let n = model.backbone.spec().vocab as Token;
                for step in [0, 1, 2, 31, 32, 33].into_iter().filter(|&step| step < text.tokens.len()) {
                    let continuations: Vec<Vec<Token>> =
                        (0..n).map(|token| [&text.tokens[..step], &[token]].concat()).collect();
                    let continuations: Vec<&[Token]> = continuations.iter().map(Vec::as_slice).collect();
                    let query = Example {
                        masked: MaskedSpan::NONE,
                        prompt: 0,
                        context,
                        continuations: &continuations,
                        extended: &[],
                        truth: 0,
                    };
                    let scores = &scorer.log_likelihoods(&[query]).unwrap()[0];
                    let (likeliest, taken) = (best(scores), text.tokens[step] as usize);
                    assert!(scores[likeliest] - scores[taken] < 1e-5, "{name} {placement} step {step}");
                }
            }
        }
    }
}

#[test]
fn a_text_is_the_same_in_any_company_and_on_any_number_of_threads() {
    let drawn = GenerateConfig {
        sampling: Sampling { temperature: 0.9, top_p: 0.95, repetition_penalty: 1.1, ..Sampling::default() },
        ..GenerateConfig::default()
    };
    for config in [GenerateConfig::default(), drawn] {
        let run = |n_threads: usize, placement: Placement, n: usize| {
            let model = load("testdata/models/llama-tiny", Cpu::new(n_threads).unwrap());
            let of = contexts(TEXTS[..n].iter().map(|text| text.to_vec()).collect());
            write((&model, placement), Some(&soft_prompt(&model)), &of, 40, &config)
        };
        for placement in [Placement::Front, Placement::AfterBos, Placement::Suffix] {
            let together = run(2, placement, 5);
            assert_eq!(together, run(1, placement, 5));
            for n in 1..5 {
                assert_eq!(run(2, placement, n), together[..n], "{placement}, {n} of 5");
            }
        }
    }
}

#[test]
fn seeds_and_places_decide_what_is_drawn() {
    let model = load("testdata/models/llama-tiny", Cpu::new(1).unwrap());
    let of = contexts(TEXTS.map(<[Token]>::to_vec).to_vec());
    let run = |seed| {
        let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
        let config = GenerateConfig { sampling, ..GenerateConfig::default() };
        write((&model, Placement::Front), None, &of, 20, &config)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    // Texts 1 and 4 are the same, but not their draws.
    assert_ne!(run(1)[1], run(1)[4]);
}

#[test]
fn texts_end_by_their_length_an_end_token_or_a_stop_string() {
    let mut model = load("testdata/models/llama-tiny", Cpu::new(1).unwrap());
    let of = contexts(TEXTS.map(<[Token]>::to_vec).to_vec());
    let default = GenerateConfig::default();
    let front = Placement::Front;
    let whole = write((&model, front), None, &of, 12, &default);
    let text = whole.iter().find(|text| text.tokens.len() == 12).unwrap();
    let at = whole.iter().position(|other| other == text).unwrap();
    assert_eq!(text.finish_reason, FinishReason::Length);

    let stop = text.text.char_indices().nth(text.text.chars().count() / 2).unwrap().0;
    let stop = text.text[stop..].chars().take(3).collect::<String>();
    let config =
        GenerateConfig { stop: vec![String::new(), stop.clone(), "never".into()], ..default.clone() };
    let stopped = &write((&model, front), None, &of, 12, &config)[at];
    assert_eq!(stopped.finish_reason, FinishReason::Stop);
    assert_eq!(stopped.text, text.text[..text.text.find(&stop).unwrap()]);

    let end = text.tokens[5];
    model.end_tokens = vec![end];
    let ended = &write((&model, front), None, &of, 12, &default)[at];
    let n = text.tokens.iter().position(|&token| token == end).unwrap();
    assert_eq!((ended.finish_reason, &ended.tokens[..]), (FinishReason::Stop, &text.tokens[..n]));
}

#[test]
fn pieces_make_up_the_text() {
    let model = load("crates/foreword-tiny", Cpu::new(2).unwrap());
    let task = task(&model, Placement::Front);
    let data = Dataset::from_texts(vec!["The movie was fantastic".into(), "Très".into()]).unwrap();
    let config = GenerateConfig {
        sampling: Sampling { temperature: 1.0, seed: 3, ..Sampling::default() },
        stop: vec![". The".into()],
        stream: true,
        ..GenerateConfig::default()
    };
    let (of, most) = task.openings(&model, 0, &data, &config).unwrap();
    let (mut pieces, mut n_pieces) = (vec![String::new(); 2], 0);
    let written = task
        .generate(&model, None, (&of, most), &config, 4096, &mut |event| {
            if let Event::More { example, text } = event {
                pieces[example] += text;
                n_pieces += 1;
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(n_pieces > 10);
    for (written, pieces) in written.iter().zip(&pieces) {
        assert_eq!(&written.text, pieces);
    }
}

#[test]
fn room_is_left_for_new_tokens() {
    let model = load("testdata/models/gpt2-tiny", Cpu::new(1).unwrap());
    let task = Task { max_length: 1000, ..task(&model, Placement::Front) };
    let data = Dataset::from_texts(vec!["a b c d e ".repeat(100)]).unwrap();
    let context = model.backbone.spec().context;
    // Half of what 8 virtual tokens leave is less than the default.
    let (of, most) = task.openings(&model, 8, &data, &GenerateConfig::default()).unwrap();
    assert_eq!((most, of.n_cut), ((context - 8) / 2, 1));
    assert!(of.contexts[0].len() <= context - 8 - most);
    let config = GenerateConfig { max_new_tokens: Some(context - 12), ..GenerateConfig::default() };
    let (of, most) = task.openings(&model, 8, &data, &config).unwrap();
    assert!(of.contexts[0].len() <= 4 && most == context - 12);
    let config = GenerateConfig { max_new_tokens: Some(context), ..GenerateConfig::default() };
    let error = task.openings(&model, 8, &data, &config).unwrap_err().to_string();
    assert!(error.contains("the label or target after it"), "{error}");
}

#[test]
fn targets_are_learned_by_heart_with_their_end() {
    let model = load("crates/foreword-tiny", Cpu::new(2).unwrap());
    let rows = [("name: Eagle", "The Eagle is a pub."), ("name: Mill", "The Mill is a cafe.")];
    let rows = rows.map(|(text, target)| vec![text.to_owned(), target.to_owned()]).to_vec();
    let data = Dataset::from_rows(vec!["text".into(), "target".into()], rows).unwrap();
    for placement in [Placement::Front, Placement::Suffix] {
        let task = task(&model, placement);
        let start = Sources::of(&model, None)
            .soft_prompt(&Init::Text("Write a sentence about the place.".into()), 8, 0)
            .unwrap();
        let target = data.require("target").unwrap();
        let examples = task.examples(&model, 8, &data, Some(target)).unwrap();
        let GroundTruth::Targets(targets) = &examples.truths else { unreachable!("targets were asked for") };
        assert!(targets.iter().all(|target| target.last() == model.end_tokens.first()));
        let config = TrainConfig {
            length: Length::Steps(250),
            batch_size: 2,
            learning_rate: LearningRate::Value(0.03),
            ..TrainConfig::default()
        };
        let before = task.evaluate(&model, &[&start], &examples, 4096, &mut |_| {}).unwrap();
        let outcome =
            train(&model, &task, (&examples, None), start, &config, &mut |_| ControlFlow::Continue(()))
                .unwrap();
        let tuned = &outcome.soft_prompt;
        let after = task.evaluate(&model, &[tuned], &examples, 4096, &mut |_| {}).unwrap();
        assert!(after.loss < 0.2 * before.loss, "{placement}: {} to {}", before.loss, after.loss);
        let (of, most) = task.openings(&model, 8, &data, &GenerateConfig::default()).unwrap();
        let go_on = &mut |_: Event<'_>| ControlFlow::Continue(());
        let written =
            task.generate(&model, Some(tuned), (&of, most), &GenerateConfig::default(), 4096, go_on).unwrap();
        for (row, written) in written.iter().enumerate() {
            assert_eq!(written.text, data.text(row, target).unwrap(), "{placement}");
            assert_eq!(written.finish_reason, FinishReason::Stop);
        }
    }
}
