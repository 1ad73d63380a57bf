//! The seam between a text and its label: the tokens and the likelihoods of both as one text, whatever the tokenizer.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use foreword_backbone::Model;
use foreword_backbone::kernels::{Cpu, Token};
use foreword_backbone::tokenizer::Tokenizer;
use foreword_tune::continuations::Continuations;
use foreword_tune::data::Dataset;
use foreword_tune::encode::EncodeError;
use foreword_tune::engine::pass::{Example, MaskedSpan, Scorer, loss_and_gradient};
use foreword_tune::init;
use foreword_tune::joint::{Joiner, joint};
use foreword_tune::likelihood::best;
use foreword_tune::settings::{Init, Joining, Method, Objective, Placement};
use foreword_tune::template::Template;
use foreword_tune::verbalizer::{Verbalizer, VerbalizerError};
use foreword_tune::{
    Classification, Examples, Generation, Goal, GroundTruth, Length, Task, TaskError, TrainConfig, train,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::golden::{json, load, root};

/// A task of labels behind a template, `text` where it is nothing but the text.
fn labelled(
    model: &Model<Cpu>,
    template: &str,
    labels: &[String],
    objective: Objective,
) -> Result<Task, VerbalizerError> {
    // Names in the order of the labels.
    let labels: BTreeMap<String, String> =
        labels.iter().enumerate().map(|(i, label)| (format!("{i:03}"), label.clone())).collect();
    let template = Template::parse(template).unwrap();
    let joiner = Joiner { tokenizer: &model.tokenizer, chat: None, joining: Joining::Whole };
    let verbalizer = Verbalizer::after(&labels, &template, &joiner)?;
    Ok(Task {
        template,
        chat: None,
        text_field: None,
        goal: Goal::Classification(Classification { verbalizer, objective }),
        joining: Joining::Whole,
        method: Method::Prompt,
        placement: Placement::Front,
        max_length: 200,
    })
}

fn texts(texts: &[&str]) -> Dataset {
    Dataset::from_texts(texts.iter().map(|text| (*text).to_owned()).collect()).unwrap()
}

/// The candidates' tokens behind example 0.
fn answers(task: &Task, examples: &Examples) -> Vec<Vec<Token>> {
    let usual = task.verbalizer().unwrap().usual();
    examples.unusual.get(&0).unwrap_or(usual).candidates().to_vec()
}

fn strings(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn texts_and_labels_have_the_tokens_that_they_have_together() {
    let mut n = 0;
    // Only its tokenizer changes.
    let mut model = load("testdata/models/llama-tiny", Cpu::new(1).unwrap());
    for case in json("testdata/golden/joints.json")["tokens"].as_array().unwrap() {
        let name = case["model"].as_str().unwrap();
        let path = if name.ends_with(".json") { name.to_owned() } else { format!("{name}/tokenizer.json") };
        let Ok(bytes) = std::fs::read(root().join(&path)) else {
            eprintln!("skipped: {path} is not here");
            continue;
        };
        model.tokenizer = Tokenizer::from_bytes(&bytes).unwrap();
        let (text, labels) = (case["text"].as_str().unwrap(), strings(&case["labels"]));
        let task = labelled(&model, "{text}", &labels, Objective::Label).unwrap();
        let examples = task.examples(&model, 0, &texts(&[text]), None).unwrap();
        let context: Vec<Token> = serde_json::from_value(case["context"].clone()).unwrap();
        let expected: Vec<Vec<Token>> = serde_json::from_value(case["answers"].clone()).unwrap();
        assert_eq!((&examples.contexts[0], answers(&task, &examples)), (&context, expected), "{case}");
        n += 1;
    }
    assert!(n > 60, "{n} cases");
}

#[test]
fn log_likelihoods_are_those_of_transformers_on_the_whole_text() {
    for case in json("testdata/golden/joints.json")["scores"].as_array().unwrap() {
        let path = case["model"].as_str().unwrap();
        if !root().join(path).exists() {
            eprintln!("skipped: {path} is not here");
            continue;
        }
        let model = load(path, Cpu::new(1).unwrap());
        let (text, labels) = (case["text"].as_str().unwrap(), strings(&case["labels"]));
        let expected: Vec<f64> = serde_json::from_value(case["log_likelihoods"].clone()).unwrap();
        let task = labelled(&model, "{text}", &labels, Objective::Label).unwrap();
        let examples = task.examples(&model, 0, &texts(&[text]), None).unwrap();
        let found = task.log_likelihoods(&model, &[], &examples, 4096, &mut |_| {}).unwrap().remove(0);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 2e-4 * expected.abs(), "{case}: {found}");
        }
    }
}

/// The space at a template's end, or the lack of one at a label's beginning, costs nothing.
#[test]
fn how_the_space_is_written_changes_no_score() {
    let model = load("crates/foreword-tiny", Cpu::new(1).unwrap());
    let score = |template: &str, labels: [&str; 2]| {
        let task = labelled(&model, template, &labels.map(str::to_owned), Objective::Label).unwrap();
        let examples = task.examples(&model, 0, &texts(&["A fine film.", "Dull."]), None).unwrap();
        task.log_likelihoods(&model, &[], &examples, 4096, &mut |_| {}).unwrap()
    };
    let right = score("{text}\nSentiment:", [" negative", " positive"]);
    assert_eq!(score("{text}\nSentiment: ", [" negative", " positive"]), right);
    assert_eq!(score("{text}\nSentiment: ", ["negative", "positive"]), right);
}

#[test]
fn a_target_is_joined_as_in_running_text_and_a_space_before_it_is_learned() {
    let model = load("crates/foreword-tiny", Cpu::new(1).unwrap());
    let task = |template: &str| Task {
        template: Template::parse(template).unwrap(),
        chat: None,
        text_field: None,
        goal: Goal::Generation(Generation { end: 0 }),
        joining: Joining::Whole,
        method: Method::Prompt,
        placement: Placement::Front,
        max_length: 30,
    };
    let rows = vec![vec!["Hello".to_owned(), "A fine day.".to_owned()]];
    let data = Dataset::from_rows(vec!["text".to_owned(), "target".to_owned()], rows).unwrap();
    let target = Some(data.require("target").unwrap());
    let whole = model.tokenizer.encode_context("Hello\nOutput: A fine day.").unwrap();
    let opening = model.tokenizer.encode_context("Hello\nOutput:").unwrap();
    for template in ["{text}\nOutput:", "{text}\nOutput: "] {
        let examples = task(template).examples(&model, 0, &data, target).unwrap();
        let GroundTruth::Targets(targets) = &examples.truths else { panic!("no targets") };
        assert_eq!([&examples.contexts[0][..], &targets[0]].concat(), [&whole[..], &[0]].concat());
        assert_eq!(examples.contexts[0], opening);
        // What the model goes on with is what it learned to go on with.
        assert_eq!(task(template).opened(&model, 0, &data, 5).unwrap().contexts[0], opening);
    }
}

#[test]
fn what_follows_a_text_fits_beside_it() {
    let model = load("crates/foreword-tiny", Cpu::new(1).unwrap());
    let labels = [" good".to_owned(), " unbelievably good and long".to_owned()];
    let mut task = labelled(&model, "{text}", &labels, Objective::Label).unwrap();
    task.max_length = 20;
    // Without a space at the cut, labels have other tokens than usually.
    let long = "incomprehensibilities".repeat(12);
    let examples = task.examples(&model, 0, &texts(&[&long, "short"]), None).unwrap();
    assert_eq!(examples.n_cut, 1);
    let longest = answers(&task, &examples).iter().map(Vec::len).max().unwrap();
    assert!(examples.contexts[0].len() + longest <= 20, "{} + {longest}", examples.contexts[0].len());
}

#[test]
fn what_cannot_be_parted_is_an_error() {
    // Without a BOS, and with one token for a text and a label.
    let vocab = json!({ "a": 0, "b": 1, "c": 2, "ab": 3, "ac": 4 });
    let mut model = load("testdata/models/llama-tiny", Cpu::new(1).unwrap());
    model.tokenizer = tokenizer(&json!({ "vocab": vocab, "merges": ["a b", "a c"] }), &json!({}));
    let labels = ["b".to_owned(), "c".to_owned()];
    let task = labelled(&model, "{text}.", &labels, Objective::Label);
    assert!(task.is_ok(), "{task:?}");
    let task = labelled(&model, "{text}", &labels, Objective::Label).unwrap();
    let error = task.examples(&model, 0, &texts(&["a"]), None).unwrap_err();
    assert!(matches!(error, TaskError::Encode(EncodeError::NoSeam { .. })), "{error}");
    assert!(task.examples(&model, 0, &texts(&["ca"]), None).is_ok());
}

/// Labels of which one begins the other are learned as well as others.
#[test]
fn a_label_that_begins_another_can_be_learned() {
    let model = load("crates/foreword-tiny", Cpu::new(2).unwrap());
    let rows = (0..100).map(|i| match i % 2 {
        0 => vec![format!("please refund order {i}"), "000".to_owned()],
        _ => vec![format!("I lost my card, number {i}"), "001".to_owned()],
    });
    let data = Dataset::from_rows(vec!["text".to_owned(), "label".to_owned()], rows.collect()).unwrap();
    let labels = [" 3".to_owned(), " 33".to_owned()];
    let task = labelled(&model, "{text}\nLabel:", &labels, Objective::Label).unwrap();
    let examples = task.examples(&model, 20, &data, Some(data.require("label").unwrap())).unwrap();
    let init = Init::Text("Classify the text as 3 or 33.".to_owned());
    let start = init::start(&model, &task, &init, 20, 0).unwrap();
    let config = TrainConfig { length: Length::Steps(100), batch_size: 25, ..TrainConfig::default() };
    let quiet = &mut |_: foreword_tune::Event<'_>| ControlFlow::Continue(());
    let right = |prompt: &foreword_format::SoftPrompt| {
        let evaluation = task.evaluate(&model, &[prompt], &examples, 4096, &mut |_| {}).unwrap();
        evaluation.right.iter().filter(|right| **right).count()
    };
    assert_eq!(right(&start), 50, "one label always");
    let outcome = train(&model, &task, (&examples, None), start, &config, quiet).unwrap();
    let after = right(&outcome.soft_prompt);
    assert!(after >= 95, "{after} of 100");
}

/// The gradient of ended scores is the slope of the loss.
#[test]
fn the_gradient_of_ended_labels_is_the_slope_of_their_loss() {
    let model = load("testdata/models/llama-tiny", foreword_backbone::kernels::Reference::<f64>::new());
    let context: &[Token] = &[0, 5, 9, 30];
    let ended = Continuations::ended(vec![vec![7], vec![7, 8], vec![7, 8, 9], vec![3]]);
    let tokens: Vec<&[Token]> = ended.tokens().iter().map(Vec::as_slice).collect();
    let query = Example {
        masked: MaskedSpan::NONE,
        prompt: 0,
        context,
        continuations: &tokens,
        extended: ended.extended(),
        truth: 0,
    };
    let bare = (Method::Prompt, Placement::Front);
    let shared_prefix =
        foreword_tune::engine::prefix::SharedPrefix::new(&model.backbone, bare, 1, [context]).unwrap();
    let width = model.backbone.spec().hidden;
    let soft: Vec<f32> = (0..2 * width).map(|i| ((i as f32 * 0.7).sin() * 100.0).round() / 1024.0).collect();
    for objective in [Objective::Label, Objective::Lm] {
        for truth in 0..4 {
            let example = Example { truth, ..query };
            let of = |soft: &[f32]| {
                loss_and_gradient(&shared_prefix, &[soft], &[example], objective, 4096).unwrap().remove(0)
            };
            let step = of(&soft);
            for i in [0, 5, width + 3] {
                // Exact in single precision, and of fourth order.
                let moved = |by: f32| {
                    let mut soft = soft.clone();
                    soft[i] += by / 1024.0;
                    of(&soft).loss
                };
                let differences = 8.0 * (moved(1.0) - moved(-1.0)) - (moved(2.0) - moved(-2.0));
                let slope = differences * 1024.0 / 12.0;
                assert!(
                    (step.gradient[i] - slope).abs() < 1e-6 * slope.abs().max(0.1),
                    "{objective} {truth} {i}: {} {slope}",
                    step.gradient[i]
                );
            }
        }
    }
    // Scores of the engine are those of events that exclude each other.
    let scorer = Scorer::new(&shared_prefix, &[&soft], 4096).unwrap();
    let scores = scorer.log_likelihoods(&[query]).unwrap().remove(0);
    let open = Example { continuations: &tokens[..4], extended: &[], ..query };
    let open = scorer.log_likelihoods(&[open]).unwrap().remove(0);
    let p: Vec<f64> = open.iter().map(|score| score.exp()).collect();
    for (found, expected) in scores.iter().zip([p[0] - p[1], p[1] - p[2], p[2], p[3]]) {
        assert!((found.exp() - expected).abs() < 1e-9, "{found} {expected}");
    }
    assert_eq!(best(&scores), best(&[p[0] - p[1], p[1] - p[2], p[2], p[3]]));
}

/// A byte-pair model in a tokenizer with these parts.
fn tokenizer(model: &Value, parts: &Value) -> Tokenizer {
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false }
    });
    for (key, value) in model.as_object().unwrap() {
        file["model"][key] = value.clone();
    }
    for (key, value) in parts.as_object().unwrap() {
        file[key] = value.clone();
    }
    Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap()
}

/// What parts a text before its merges, with the character that stands for a space.
fn kinds() -> Vec<(&'static str, char, Value)> {
    let bytes = |prefix: bool| {
        json!({ "pre_tokenizer":
            { "type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true } })
    };
    let metaspace = |scheme: &str| {
        json!({ "pre_tokenizer":
            { "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true } })
    };
    let replaced = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
    let prepended = json!({ "type": "Prepend", "prepend": "▁" });
    vec![
        ("byte-level", 'Ġ', bytes(false)),
        ("byte-level with a prefix space", 'Ġ', bytes(true)),
        ("Metaspace always", '▁', metaspace("always")),
        ("Metaspace first", '▁', metaspace("first")),
        ("Metaspace never", '▁', metaspace("never")),
        (
            "prepending, in one piece",
            '▁',
            json!({ "normalizer": { "type": "Sequence", "normalizers": [prepended, replaced.clone()] } }),
        ),
        ("in one piece", '▁', json!({ "normalizer": replaced })),
    ]
}

const LETTERS: &str = "abc:.\n é";

/// A tokenizer of this kind over [`LETTERS`] with random merges; what its vocabulary lacks falls back to bytes.
fn random_tokenizer(kind: usize, merges: &[(usize, usize)]) -> Tokenizer {
    let (_, space, parts) = kinds().swap_remove(kind);
    let is_byte_level = space == 'Ġ';
    let mut vocab: Vec<String> = if is_byte_level {
        "abc:.ĊĠÃ©".chars().map(String::from).collect()
    } else {
        // The accented letter is left to the bytes.
        let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
        "abc:.\n▁".chars().map(String::from).chain(bytes).collect()
    };
    let mut written = Vec::new();
    for &(one, other) in merges {
        let letters = vocab.iter().filter(|token| !token.starts_with("<0x")).cloned().collect::<Vec<_>>();
        let (one, other) = (&letters[one % letters.len()], &letters[other % letters.len()]);
        let both = format!("{one}{other}");
        if !vocab.contains(&both) && both.chars().count() < 6 {
            written.push(format!("{one} {other}"));
            vocab.push(both);
        }
    }
    // A merge is written with a space, which no token of these has, or as a pair where one is a line's end.
    let merges: Vec<Value> = written
        .iter()
        .map(|merge| merge.split_once(' ').map_or(Value::Null, |(one, other)| json!([one, other])))
        .collect();
    let vocab: serde_json::Map<String, Value> =
        vocab.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    tokenizer(&json!({ "vocab": vocab, "merges": merges, "byte_fallback": !is_byte_level }), &parts)
}

fn words() -> impl Strategy<Value = String> {
    let letters: Vec<char> = LETTERS.chars().collect();
    proptest::collection::vec(proptest::sample::select(letters), 1..7)
        .prop_map(|letters| letters.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_score_of_a_label_is_that_of_the_whole_text_behind_the_context(
        kind in 0..7_usize,
        merges in proptest::collection::vec((0..40_usize, 0..40_usize), 0..30),
        (text, end) in (words(), words()),
        labels in proptest::collection::btree_set(words(), 2..4),
    ) {
        let mut model = load("testdata/models/llama-tiny", Cpu::new(1).unwrap());
        model.tokenizer = random_tokenizer(kind, &merges);
        let labels: Vec<String> = labels.into_iter().collect();
        let template = format!("x{{text}}{end}");
        let task = match labelled(&model, &template, &labels, Objective::Label) {
            Ok(task) => task,
            // " a" and "a" after a space, for one.
            Err(VerbalizerError::SameTokens { .. } | VerbalizerError::NoTokens { .. }) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let examples = match task.examples(&model, 0, &texts(&[&text]), None) {
            Ok(examples) => examples,
            Err(TaskError::Encode(EncodeError::NoSeam { .. } | EncodeError::NoLabelTokens { .. })) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let context = &examples.contexts[0];
        let rendered = format!("x{text}{end}");
        let alone = model.tokenizer.encode_context(&rendered).unwrap();
        prop_assert!(alone.starts_with(context));
        let answers = answers(&task, &examples);
        let wholes: Vec<Vec<Token>> = labels
            .iter()
            .map(|label| model.tokenizer.encode_context(&joint(&rendered, label)).unwrap())
            .collect();
        for (whole, answer) in wholes.iter().zip(&answers) {
            prop_assert_eq!(whole, &[&context[..], answer].concat());
        }
        // No more of the text could have stayed.
        let n = context.len();
        prop_assert!(n == alone.len() || wholes.iter().any(|whole| whole.get(n) != alone.get(n)));

        // The likelihood, token by token, of whole texts that no label's end is part of.
        let found = task.log_likelihoods(&model, &[], &examples, 4096, &mut |_| {}).unwrap().remove(0);
        let bare = (Method::Prompt, Placement::Front);
        for (i, whole) in wholes.iter().enumerate() {
            if answers.iter().enumerate().any(|(other, tokens)| other != i && tokens.starts_with(&answers[i])) {
                continue;
            }
            let prefixes: Vec<&[Token]> = (n..whole.len()).map(|end| &whole[..end]).collect();
            let shared_prefix =
                foreword_tune::engine::prefix::SharedPrefix::new(&model.backbone, bare, 0, prefixes.iter().copied()).unwrap();
            let scorer = Scorer::new(&shared_prefix, &[&[]], 4096).unwrap();
            let query = |context| Example::of(0, context);
            let queries: Vec<Example<'_>> = prefixes.iter().map(|prefix| query(*prefix)).collect();
            let logits = scorer.next_token_logits(&queries).unwrap();
            let expected: f64 = logits
                .iter()
                .zip(&whole[n..])
                .map(|(logits, &token)| {
                    let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
                    f64::from(logits[token as usize]) - sum.ln()
                })
                .sum();
            prop_assert!((found[i] - expected).abs() < 1e-3, "{} {}", found[i], expected);
        }
    }
}
