//! Where examples come from, and how many are taken: packed files, standard input, --limit.

use std::fs;
use std::io::Write as _;

use crate::scene::{Scene, model, sentences};
use crate::schema::{Classified, Report};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn plain_packed_and_piped_data_give_the_same_answers() {
    let scene = Scene::new();
    let (plain, llama) = (fs::read(sentences()).unwrap(), model("llama-tiny"));
    let packed = gzip(&plain);
    scene.file("d.jsonl.gz", &packed).file("cut.jsonl.gz", &packed[..packed.len() / 2]);
    let eval = ["eval", "--prompt", "none", "--model", &llama, "--json", "--data"];
    let path = sentences();
    let with = |data| [&eval[..], &[data]].concat();
    let report: Report = scene.run(&with(&path)).line();
    assert_eq!(scene.run(&with("d.jsonl.gz")).line::<Report>(), report);
    assert_eq!(scene.run_with(&with("-"), &plain).line::<Report>(), report);
    assert_eq!(scene.run_with(&with("-"), &packed).line::<Report>(), report);

    let cut = scene.run(&with("cut.jsonl.gz"));
    assert_eq!(cut.code, 1);
    assert!(cut.stderr.starts_with("error: cut.jsonl.gz: cannot be unpacked as gzip ("), "{}", cut.stderr);
    let wrong = scene.run_with(&with("-"), b"text,label\na\n");
    insta::assert_snapshot!(scene.told(&wrong), @r"
    exit 1
    error: standard input, line 2: 1 cells where there are 2 fields
    ");

    let classify = ["classify", "--prompt", "none", "--model", &llama, "--labels", "a= a,b= b", "--json"];
    let ran = scene.run_with(&[&classify[..], &["--data", "-"]].concat(), b"id,text\n1,good\n2,bad\n");
    let texts: Vec<String> = ran.lines::<Classified>().into_iter().map(|answer| answer.text).collect();
    assert_eq!(texts, ["good", "bad"]);
}

#[test]
fn a_run_may_learn_from_standard_input() {
    let scene = Scene::new();
    let (plain, llama) = (fs::read(sentences()).unwrap(), model("llama-tiny"));
    let train = ["train", "-", "--model", &llama, "--steps", "1", "--virtual-tokens", "2"];
    let ran = scene.run_with(&train, &plain);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(scene.names(), ["stdin-prompt"]);
    let twice = scene.run_with(&[&train[..], &["--dev", "-", "--out", "p"]].concat(), &plain);
    insta::assert_snapshot!(scene.told(&twice), @r"
    exit 1
    error: standard input (-) is named for more than one of --train, --dev and --test
    hint: it can be read only once: give files for the others
    ");
}

#[test]
fn a_limit_takes_the_first_to_measure_and_some_of_each_label_to_learn() {
    let scene = Scene::new();
    let (sentences, llama) = (sentences(), model("llama-tiny"));
    let eval =
        ["eval", "--prompt", "none", "--model", &llama, "--data", &sentences, "--limit", "5", "--json"];
    let ran = scene.run(&eval);
    assert_eq!(ran.line::<Report>().n, 5);
    assert!(ran.stderr.contains("--limit: the first 5 of 24 examples"), "{}", ran.stderr);

    // The whole file is sorted by label; the ten that are drawn are not of one label.
    let of = |label: &str| (0..30).map(|i| format!("{label} text {i},{label}\n")).collect::<String>();
    scene.file("sorted.csv", format!("text,label\n{}{}", of("up"), of("down")));
    let train = ["train", "sorted.csv", "--model", &llama, "--steps", "1", "--virtual-tokens", "2"];
    let ran = scene.run(&[&train[..], &["--limit", "10", "--out", "p"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("--limit: 10 of 54 training examples, drawn by label (seed 0)"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("10 to train on, 6 dev, 0 test"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("few training examples"), "{}", ran.stderr);
}
