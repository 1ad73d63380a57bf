//! Real data sets that lie beside the workspace: every one is read, encoded and split. Skipped where they are absent.

use crate::tiny_tokenizer;
use foreword_testkit::shared;
use foreword_tune::data::Dataset;
use foreword_tune::data::fields::{label_field, slot_fields, target_field, text_field};
use foreword_tune::data::split::{default_dev_share, stratified_split};
use foreword_tune::encode::{Encoder, n_cut};
use foreword_tune::joint::Joiner;
use foreword_tune::settings::Joining;
use foreword_tune::template::Template;
use foreword_tune::verbalizer::{Verbalizer, label_names};

#[test]
fn classification_sets_are_read_as_they_are() {
    let tokenizer = tiny_tokenizer();
    let template = Template::parse(Template::DEFAULT).unwrap();
    for (name, n, n_labels) in [
        ("sst2_sentences/train.jsonl", 6920, 2),
        ("sst2_sentences/dev.jsonl", 872, 2),
        ("sst2_sentences/test.jsonl", 1821, 2),
        ("ag_news/dev.jsonl", 8000, 4),
        ("ag_news/test.jsonl", 7600, 4),
        ("imdb_sample/train.jsonl", 2000, 2),
        ("imdb_sample/test.jsonl", 1000, 2),
        ("cola/train.jsonl", 0, 2),
        ("cola/val.jsonl", 0, 2),
        ("sms_spam/all.jsonl", 0, 2),
    ] {
        let Some(path) = shared(&format!("data/{name}")) else { continue };
        let data = Dataset::read(&path).unwrap();
        assert!(data.n() == n || n == 0, "{name}: {}", data.n());
        let label = label_field(&data, None, &[]).unwrap();
        assert_eq!(text_field(&data, None, &[&label.name]).unwrap().name, "text");
        let names = label_names(&data, label.idx).unwrap();
        let verbalizer = Verbalizer::new(&Verbalizer::default_strings(&names), &tokenizer).unwrap();
        assert_eq!(verbalizer.n(), n_labels, "{name}");
        let labels = verbalizer.label_indices(&data, label.idx).unwrap();
        let split = stratified_split(&labels, default_dev_share(data.n()), 0);
        assert_eq!(split.train.len() + split.dev.len(), data.n());
        assert!(split.dev.len().abs_diff((data.n() / 10).min(1000)) <= 1);
        let joiner = Joiner { tokenizer: &tokenizer, chat: None, joining: Joining::Whole };
        let encoder =
            Encoder { joiner, template: &template, text_field: None, max_length: 256, opens: false };
        let began = std::time::Instant::now();
        let encoded = encoder.encode(&data, |_| verbalizer.n_tokens_max()).unwrap();
        assert!(encoded.iter().all(|text| text.tokens.len() + verbalizer.n_tokens_max() <= 256));
        eprintln!(
            "{name}: {} examples, {} cut, {:.1} s",
            data.n(),
            n_cut(&encoded),
            began.elapsed().as_secs_f64()
        );
    }
}

#[test]
fn generation_sets_have_an_input_and_an_output() {
    for (name, n) in [("e2e_clean/dev.jsonl", 4299), ("e2e_clean/test.jsonl", 4693)] {
        let Some(path) = shared(&format!("data/{name}")) else { continue };
        let data = Dataset::read(&path).unwrap();
        assert_eq!(data.n(), n);
        let slots = slot_fields(&Template::parse(Template::DEFAULT).unwrap(), &data, None).unwrap();
        assert_eq!(slots.guessed.as_deref(), Some("input"));
        assert_eq!(target_field(&data, None, &["input"]).unwrap().name, "output");
    }
}
