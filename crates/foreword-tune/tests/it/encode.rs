//! Examples to tokens: the template around the fields, and the law of cutting.

use crate::{shared_tokenizer, tiny_tokenizer};
use foreword_backbone::tokenizer::Tokenizer;
use foreword_tune::data::Dataset;
use foreword_tune::encode::{EncodedText, Encoder, n_cut};
use foreword_tune::joint::Joiner;
use foreword_tune::settings::Joining;
use foreword_tune::template::Template;
use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

static TINY: LazyLock<Tokenizer> = LazyLock::new(tiny_tokenizer);

fn encoder<'a>(tokenizer: &'a Tokenizer, template: &'a Template, max_length: usize) -> Encoder<'a> {
    let joiner = Joiner { tokenizer, chat: None, joining: Joining::Whole };
    Encoder { joiner, template, text_field: None, max_length, opens: false }
}

fn encode(
    data: &Dataset,
    template: &str,
    max_length: usize,
    reserve: usize,
) -> Result<Vec<EncodedText>, String> {
    let template = Template::parse(template).unwrap();
    let encoder = encoder(&TINY, &template, max_length);
    encoder.encode(data, |_| reserve).map_err(|error| error.to_string())
}

fn texts(texts: &[&str]) -> Dataset {
    Dataset::from_texts(texts.iter().map(|text| (*text).to_owned()).collect()).unwrap()
}

#[test]
fn contexts_are_the_rendered_template_tokenised_whole() {
    let encoded = encode(&texts(&["good film", ""]), "{text}\nSentiment:", 512, 1).unwrap();
    assert_eq!(encoded[0].tokens, TINY.encode_context("good film\nSentiment:").unwrap());
    assert_eq!(encoded[1].tokens, TINY.encode_context("\nSentiment:").unwrap());
    assert_eq!(n_cut(&encoded), 0);
}

#[test]
fn only_rows_that_are_too_long_are_cut_and_to_the_last_character_that_fits() {
    let long = "a very long sentence that goes on and on, ".repeat(50);
    let encoded = encode(&texts(&["short", &long]), "{text}\nLabel:", 64, 3).unwrap();
    assert_eq!((encoded[0].cut, encoded[1].cut, n_cut(&encoded)), (false, true, 1));
    assert!((50..=61).contains(&encoded[1].tokens.len()), "{}", encoded[1].tokens.len());
    assert!(TINY.decode(&encoded[1].tokens).unwrap().ends_with("\nLabel:"));
}

#[test]
fn the_longest_field_goes_first_and_then_the_next() {
    let text = format!("{{\"a\":\"{}\",\"b\":\"{}\"}}", "word ".repeat(40), "two ".repeat(30));
    let data = Dataset::from_bytes(text.as_bytes(), Path::new("d.jsonl")).unwrap();
    let decoded = |max_length| {
        let encoded = encode(&data, "A: {a} B: {b} C:", max_length, 1).unwrap();
        TINY.decode(&encoded[0].tokens).unwrap()
    };
    let one_cut = decoded(60);
    assert!(one_cut.contains(&"two ".repeat(30)) && one_cut.starts_with("A: word word"), "{one_cut}");
    let both_cut = decoded(20);
    assert!(both_cut.starts_with("A:  B: two") && both_cut.ends_with(" C:"), "{both_cut}");
}

#[test]
fn a_template_that_does_not_fit_is_an_error_with_the_numbers() {
    let template = "{text}\nIs this review positive or negative in its sentiment?";
    let n = TINY.encode_context("\nIs this review positive or negative in its sentiment?").unwrap().len();
    let data = texts(&["short", "also short"]);
    let message = encode(&data, template, n + 1, 2).unwrap_err();
    let expected = format!(
        "example 1: the template alone takes {n} tokens and the label or target after it 2, more than the {} there \
         is room for: give a larger --max-length or a shorter template",
        n + 1
    );
    assert_eq!(message, expected);
    assert_eq!(encode(&data, template, n + 2, 2).unwrap()[0].tokens.len(), n);
    assert!(encode(&data, template, 0, 5).is_err());
}

#[test]
fn each_row_may_have_its_own_reserve() {
    let template = Template::parse(Template::DEFAULT).unwrap();
    let encoder = encoder(&TINY, &template, 40);
    let data = texts(&["so it goes ".repeat(20).as_str(), "so it goes ".repeat(20).as_str()]);
    let encoded = encoder.encode(&data, |row| [5, 25][row]).unwrap();
    assert!(encoded[0].tokens.len() > encoded[1].tokens.len() && encoded[1].tokens.len() <= 15);
}

#[test]
fn errors_of_the_data_come_through() {
    let data = Dataset::from_bytes(b"{\"text\":\"a\"}\n{\"text\":null}\n", Path::new("d.jsonl")).unwrap();
    assert!(encode(&data, "{text}", 64, 1).unwrap_err().starts_with("d.jsonl, line 2: missing value"));
    assert!(encode(&data, "{texts}", 64, 1).unwrap_err().contains("did you mean \"text\""));
}

#[test]
fn no_tokens_at_all_is_an_error() {
    let Some(tokenizer) = shared_tokenizer("tokenizers/t5/tokenizer.json") else { return };
    let template = Template::parse("{text}").unwrap();
    let encoder = encoder(&tokenizer, &template, 64);
    let message = encoder.encode(&texts(&["a", ""]), |_| 1).unwrap_err().to_string();
    assert!(message.starts_with("example 2: no tokens at all"), "{message}");
    assert!(encode(&texts(&[""]), "{text}", 64, 1).is_ok(), "a BOS is enough");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_cut_text_is_the_longest_prefix_found_that_fits(
        words in proptest::collection::vec("(the|good|unbelievable|é|好|🙂|x{1,9}|\n|, )", 1..80),
        max_length in 13_usize..60, reserve in 0_usize..3,
    ) {
        let text = words.join(" ");
        let data = texts(&[&text]);
        let render = |kept: &str| TINY.encode_context(&format!("Text: {kept}\nLabel:")).unwrap();
        let encoded = encode(&data, "Text: {text}\nLabel:", max_length, reserve).unwrap().remove(0);
        let room = max_length - reserve;
        prop_assert!(encoded.tokens.len() <= room);
        prop_assert_eq!(encoded.cut, render(&text).len() > room);
        let mut ends: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        ends.push(text.len());
        let is_maximal = ends.windows(2).any(|pair| {
            render(&text[..pair[0]]) == encoded.tokens && render(&text[..pair[1]]).len() > room
        });
        let is_right = if encoded.cut { is_maximal } else { render(&text) == encoded.tokens };
        prop_assert!(is_right);
    }
}
