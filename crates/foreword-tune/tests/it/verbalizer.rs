//! Labels and the strings that stand for them.

use crate::{shared_tokenizer, tiny_tokenizer};
use foreword_tune::data::Dataset;
use foreword_tune::verbalizer::{Verbalizer, label_names};
use std::collections::BTreeMap;
use std::path::Path;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, string)| ((*name).to_owned(), (*string).to_owned())).collect()
}

fn message(pairs: &[(&str, &str)]) -> String {
    Verbalizer::new(&labels(pairs), &tiny_tokenizer()).unwrap_err().to_string()
}

#[test]
fn labels_are_in_the_order_of_their_names() {
    let tokenizer = tiny_tokenizer();
    let verbalizer =
        Verbalizer::new(&labels(&[("pos", " positive"), ("neg", " negative")]), &tokenizer).unwrap();
    assert_eq!(
        (verbalizer.n(), verbalizer.names(), verbalizer.strings()),
        (
            2,
            ["neg".to_owned(), "pos".to_owned()].as_slice(),
            [" negative".to_owned(), " positive".to_owned()].as_slice(),
        )
    );
    assert_eq!((verbalizer.index("pos"), verbalizer.index("positive")), (Some(1), None));
    assert_eq!(tokenizer.decode(verbalizer.tokens(1)).unwrap(), " positive");
    assert_eq!((verbalizer.n_tokens_max(), verbalizer.tokens(2)), (1, [].as_slice()));
}

#[test]
fn labels_that_cannot_be_told_apart_are_refused() {
    assert_eq!(message(&[]), "no labels, a classification needs at least two labels");
    assert_eq!(message(&[("a", " a")]), "one class only, \"a\", a classification needs at least two labels");
    assert!(
        message(&[("a", ""), ("b", " b")]).starts_with("the string \"\" of the label \"a\" gives no tokens")
    );
    assert!(
        message(&[("a", " x"), ("b", " y"), ("c", " x")])
            .starts_with("the labels \"a\" and \"c\" are the same tokens")
    );
}

#[test]
fn a_label_may_begin_with_another() {
    assert!(Verbalizer::new(&labels(&[("a", " yes"), ("b", " yes indeed")]), &tiny_tokenizer()).is_ok());
}

#[test]
fn strings_with_and_without_a_space_are_two_labels_to_a_prefix_space_tokenizer() {
    let Some(tokenizer) = shared_tokenizer("models/stories260K/tokenizer.json") else { return };
    let verbalizer = Verbalizer::new(&labels(&[("a", " day"), ("b", "day")]), &tokenizer).unwrap();
    let whole = |text: &str| tokenizer.encode_context(text).unwrap();
    for (label, text) in [(0, "a day"), (1, "aday")] {
        assert_eq!([&whole("a")[..], verbalizer.tokens(label)].concat(), whole(text));
    }
}

#[test]
fn labels_in_data_are_found_and_unknown_ones_named() {
    let text = b"text,label\na, positive\nb,negative\nc,positiv\n";
    let data = Dataset::from_bytes(text, Path::new("d.csv")).unwrap();
    let field = data.require("label").unwrap();
    let names = ["negative", "neutral", "positive"];
    let verbalizer = Verbalizer::new(&Verbalizer::default_strings(names), &tiny_tokenizer()).unwrap();
    assert_eq!(verbalizer.strings()[2], " positive");
    assert_eq!(verbalizer.label_indices(&data.take(&[0, 1]), field).unwrap(), [2, 0]);
    assert_eq!(
        verbalizer.label_indices(&data, field).unwrap_err().to_string(),
        "d.csv, line 4, field \"label\": unknown label \"positiv\" (did you mean \"positive\"?), \
         the labels are: \"negative\", \"neutral\", \"positive\""
    );
}

#[test]
fn an_empty_label_is_named_by_line() {
    let data = Dataset::from_bytes(b"text,label\na,x\nb, \n", Path::new("d.csv")).unwrap();
    let error = label_names(&data, data.require("label").unwrap()).unwrap_err();
    assert!(error.to_string().starts_with("d.csv, line 3: the label field \"label\" is empty"));
}

#[test]
fn integer_labels_are_their_digits() {
    let data = Dataset::from_bytes(
        b"{\"text\":\"a\",\"label\":1}\n{\"text\":\"b\",\"label\":0}\n",
        Path::new("d.jsonl"),
    )
    .unwrap();
    let field = data.require("label").unwrap();
    let strings = Verbalizer::default_strings(label_names(&data, field).unwrap());
    assert_eq!(strings, labels(&[("0", " 0"), ("1", " 1")]));
    let verbalizer = Verbalizer::new(&strings, &tiny_tokenizer()).unwrap();
    assert_eq!(verbalizer.label_indices(&data, field).unwrap(), [1, 0]);
}
