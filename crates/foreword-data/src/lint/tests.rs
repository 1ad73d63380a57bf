//! Tests of each finding: what it counts, what it ignores, and its message.

use super::*;
use std::path::Path;

const NAMES: [&str; 2] = ["down", "up"];

fn names() -> Vec<String> {
    NAMES.map(str::to_owned).to_vec()
}

fn csv(name: &str, text: &str) -> (Dataset, GroundTruth) {
    let data = Dataset::from_bytes(text.as_bytes(), Path::new(name)).unwrap();
    let label = data.require("label").unwrap();
    let labels = (0..data.n())
        .map(|row| NAMES.iter().position(|name| *name == data.text(row, label).unwrap()).unwrap())
        .collect();
    (data, GroundTruth::Labels(labels))
}

fn part<'a>(name: &'static str, (data, truths): &'a (Dataset, GroundTruth)) -> Part<'a> {
    Part::new(name, data, &Template::parse("{text}").unwrap(), None, truths).unwrap()
}

fn told(finding: Option<Finding>) -> String {
    finding.map_or_else(String::new, |finding| finding.to_string())
}

#[test]
fn duplicates_are_counted_beyond_the_first_and_space_around_them_does_not_count() {
    let data = csv("d.csv", "text,label,id\na,up,1\n a ,up,2\nb,up,3\na,up,4\nA,up,5\n");
    let said = told(duplicates(&part("training", &data), "label"));
    let begin = "2 of 5 training examples repeat the text and label of an earlier one \
                 (d.csv, line 3 repeats line 2; d.csv, line 5 repeats line 2): ";
    assert!(said.starts_with(begin), "{said}");
    assert!(said.ends_with("keep one of each"));
    let data = csv("d.csv", "text,label\na,up\na,down\nb,up\n");
    assert_eq!(duplicates(&part("training", &data), "label"), None);
}

#[test]
fn only_the_fields_of_the_template_are_compared() {
    let (data, labels) = csv("d.csv", "premise,so,other,label\na,b,1,up\na,b,2,up\na,c,1,up\n");
    let template = Template::parse("{premise} {so}").unwrap();
    let part = Part::new("training", &data, &template, None, &labels).unwrap();
    assert!(matches!(duplicates(&part, "label"), Some(Finding::Duplicates { n: 1, of: 3, .. })));
}

#[test]
fn a_text_with_two_labels_is_one_contradiction() {
    let data = csv("d.csv", "text,label\na,up\nb,up\na,down\na,up\na,down\n");
    assert_eq!(
        told(contradictions(&part("training", &data))),
        "1 training text has more than one label (d.csv, line 2 against line 4): correct the labels, or take these \
         examples out"
    );
    let data = csv("d.csv", "text,label\na,up\na,up\nb,down\n");
    assert_eq!(contradictions(&part("training", &data)), None);
}

#[test]
fn texts_to_measure_by_that_are_learned_from_are_an_overlap() {
    let train = csv("train.csv", "text,label\na,up\nb,down\nc,up\nd,up\n");
    let test = csv("test.csv", "text,label\nd,up\ne,up\n b,up\nc,up\na,up\n");
    let said = told(overlap(&part("training", &train), &part("test", &test)));
    let begin = "4 of 5 test examples are also in the training data (test.csv, line 2 is train.csv, line 5; \
                 test.csv, line 4 is train.csv, line 3; test.csv, line 5 is train.csv, line 4; and 1 more): ";
    assert!(said.starts_with(begin), "{said}");
    assert!(said.contains("the test scores will look better than they are"));
    let other = csv("test.csv", "text,label\ne,up\n");
    assert_eq!(overlap(&part("training", &train), &part("test", &other)), None);
}

#[test]
fn a_label_is_rare_by_its_share_or_by_its_number() {
    let of = |n_up: usize, n_down: usize| {
        let rows = "a,up\n".repeat(n_up) + &"b,down\n".repeat(n_down);
        let data = csv("d.csv", &format!("text,label\n{rows}"));
        rare(&part("training", &data), &names())
    };
    assert_eq!(of(5, 5), None);
    assert_eq!(of(90, 10), None);
    assert_eq!(of(91, 9), Some(Finding::Rare { labels: vec![("down".into(), 9)], of: 100 }));
    let said = told(of(6, 0));
    assert!(said.starts_with("few training examples of \"down\" (0), of 6 in all: "), "{said}");
    assert_eq!(told(of(4, 4)).matches("(4)").count(), 2);
}

#[test]
fn with_many_labels_a_tenth_is_no_measure() {
    let names: Vec<String> = (0..20).map(|label| format!("label {label:02}")).collect();
    let data = Dataset::from_texts(vec!["a".to_owned(); 400]).unwrap();
    let template = Template::parse("{text}").unwrap();
    let mut labels: Vec<usize> = (0..400).map(|row| row % 20).collect();
    let truths = GroundTruth::Labels(labels.clone());
    assert_eq!(rare(&Part::new("training", &data, &template, None, &truths).unwrap(), &names), None);
    for row in 0..12 {
        labels[row * 20] = 1;
    }
    let truths = GroundTruth::Labels(labels);
    let found = rare(&Part::new("training", &data, &template, None, &truths).unwrap(), &names);
    assert_eq!(found, Some(Finding::Rare { labels: vec![("label 00".into(), 8)], of: 400 }));
}

#[test]
fn labels_that_training_never_shows_are_told_where_they_are_asked_for() {
    let train = csv("train.csv", "text,label\na,up\n");
    let dev = csv("dev.csv", "text,label\nb,up\nc,down\n");
    let (train, dev) = (part("training", &train), part("dev", &dev));
    assert_eq!(
        told(never_learned(&train, &dev, &names())),
        "1 of 2 dev examples has a label that no training example has, \"down\" (dev.csv, line 3): give training \
         examples of it, or take these out"
    );
    assert_eq!(never_learned(&dev, &train, &names()), None);
}

#[test]
fn cuts_are_told_with_their_share() {
    let said = told(cut("training", 3, 24, 20));
    assert!(said.starts_with("3 of 24 training texts (12.5 %) were cut to fit into 20 tokens: "), "{said}");
    assert_eq!(cut("dev", 0, 24, 20), None);
}

#[test]
fn labels_are_looked_at_as_tokens() {
    let names = ["a", "b", "c", "d"].map(str::to_owned);
    let strings = [" so good", " so bad", " no", " far off"].map(str::to_owned);
    let tokens: [&[u32]; 4] = [&[1, 2], &[1, 3], &[4], &[5, 6, 7]];
    let said = told(several_tokens(&names, &strings, &tokens));
    let begin = "labels of several tokens, \"a\" as \" so good\" (2), \"b\" as \" so bad\" (2), \"d\" as \" far off\" (3): ";
    assert!(said.starts_with(begin), "{said}");
    let said = told(shared_first_token(&names, &tokens));
    assert!(said.starts_with("labels that begin with the same token, \"a\", \"b\": "), "{said}");
    assert_eq!(several_tokens(&names[..1], &strings, &[&[1]]), None);
    assert_eq!(shared_first_token(&names, &[&[1], &[2], &[3], &[4]]), None);
}

#[test]
fn a_text_may_have_several_targets_but_the_same_one_twice_is_a_duplicate() {
    let data = Dataset::from_bytes(b"text,target\na,x\na,y\na,x\nb,x\n", Path::new("d.csv")).unwrap();
    let template = Template::parse("{text}").unwrap();
    let truths = GroundTruth::Targets(vec![vec![7], vec![8], vec![7], vec![7]]);
    let part = Part::new("training", &data, &template, None, &truths).unwrap();
    let findings = lint(&part, &[], None);
    assert_eq!(findings.len(), 1, "{findings:?}");
    let said = findings[0].to_string();
    assert!(
        said.starts_with("1 of 4 training examples repeats the text and target of an earlier one"),
        "{said}"
    );
    assert!(said.contains("line 4 repeats line 2"), "{said}");
}

#[test]
fn empty_texts_are_counted_and_are_no_duplicates() {
    let data = csv("d.csv", "text,label\n,up\na,up\n  ,down\n\"\n\",up\n\t,down\nb,down\n");
    let all = lint(&part("training", &data), &[], None);
    assert_eq!(
        all.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "4 of 6 training texts are empty (d.csv, line 2; d.csv, line 4; d.csv, line 5; and 1 more): they teach labels \
          without a text; fill in the text, or leave the example out"
        ]
    );
    let one = csv("d.csv", "text,label\n,up\n");
    let said = told(empty(&part("dev", &one)));
    assert!(said.starts_with("1 of 1 dev texts is empty (d.csv, line 2): it measures nothing"), "{said}");
    let said = told(empty(&part("", &one)));
    assert!(
        said.starts_with("1 of 1 texts is empty (d.csv, line 2): the answer to it says nothing"),
        "{said}"
    );
    // One of two fields is enough, unless it may be empty.
    let (data, labels) = csv("d.csv", "a,b,label\nx,,up\n,y,up\nx,y,up\n");
    let of = |template: &str| {
        let template = Template::parse(template).unwrap();
        let part = Part::new("test", &data, &template, None, &labels).unwrap();
        empty(&part).map(|finding| matches!(finding, Finding::Empty { n: 2, .. }))
    };
    assert_eq!((of("{a}{b}"), of("{a}{?b}")), (Some(true), Some(false)));
}

#[test]
fn labels_that_a_person_takes_for_one_are_named_with_their_counts() {
    let names = ["Negative", "negative", "not spam", "not_spam", "other"].map(str::to_owned);
    let data = Dataset::from_bytes(b"text,label\na,x\nb,x\nc,x\n", Path::new("d.csv")).unwrap();
    let truths = GroundTruth::Labels(vec![0, 0, 1]);
    let template = Template::parse("{text}").unwrap();
    let part = Part::new("training", &data, &template, None, &truths).unwrap();
    let said = told(alike_labels(&part, &names));
    let begin = "labels that differ only in capitals or in the marks between words, \"Negative\" (2), \"negative\" (1), \
                 \"not spam\" (0), \"not_spam\" (0): ";
    assert!(said.starts_with(begin), "{said}");
    assert!(said.contains("--label-names 'negative=Negative' makes them one"), "{said}");
    assert_eq!(alike_labels(&part, &names[..1]), None);
}

#[test]
fn labels_without_a_meaning_are_named() {
    let of = |strings: &[&str]| {
        let strings: Vec<String> = strings.iter().map(|string| (*string).to_owned()).collect();
        let names: Vec<String> = strings.iter().map(|string| string.trim().to_owned()).collect();
        bare_labels(&names, &strings)
    };
    for bare in
        [&[" 0", " 1"][..], &["LABEL_0", "LABEL_1"], &[" class 1", " class 2"], &["-1", "1"], &["C0", "c1"]]
    {
        assert!(of(bare).is_some(), "{bare:?}");
    }
    for named in
        [&[" 0", " positive"][..], &["label", "class"], &["route 66", "route 1"], &[" negative", " positive"]]
    {
        assert!(of(named).is_none(), "{named:?}");
    }
    assert!(told(of(&[" 0", " 1", " 2"])).contains("the labels are \"0\", \"1\", \"2\""));
    assert!(told(of(&[" 0", " 1", " 2"])).contains("--labels '0=WORD,1=WORD,…'"));
    let [names, strings] = [["bad", "good"], [" 3", " 33"]].map(|all| all.map(str::to_owned));
    assert!(told(bare_labels(&names, &strings)).contains("--labels 'bad=WORD,good=WORD,…'"));
}

#[test]
fn labels_that_stand_for_none_are_named() {
    let data = csv("d.csv", "text,label\na,up\nb,down\n");
    let names = ["NaN", "none"].map(str::to_owned);
    let said = told(missing_labels(&part("training", &data), &names));
    assert!(said.starts_with("labels that look like a missing value, \"NaN\" (1): "), "{said}");
}
