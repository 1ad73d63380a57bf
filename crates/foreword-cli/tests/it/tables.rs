//! Tables of predictions: the columns of the data, and what was predicted beside them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use foreword::Dataset;

use crate::scene::{Scene, model};
use crate::schema::{Classified, Report, Written};

const DATA: &str = "id,text,label,stars\n1,\"good, very good\",yes,4.5\n2,,no,\n3,\"two\nlines\",yes,1\n";

fn classify<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = ["classify", "--prompt", "none", "--model", model, "--labels", "no= no,yes= yes"];
    [&args[..], more].concat()
}

/// The texts in a field of a file; nothing for a missing value.
fn column(path: &Path, field: &str) -> Vec<String> {
    let data = Dataset::read(path).unwrap();
    let field = data.require(field).unwrap();
    (0..data.n()).map(|row| data.cell(row, field).text().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_file_comes_back_with_its_own_columns_and_the_labels() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    scene.file("in.csv", DATA);
    let answers: Vec<Classified> = scene.run(&classify(&llama, &["--data", "in.csv", "--json"])).lines();
    let labels: Vec<String> = answers.iter().map(|answer| answer.label.clone().unwrap()).collect();
    for name in ["out.csv", "out.tsv", "out.jsonl", "out.parquet", "out.csv.gz"] {
        let ran = scene.run(&classify(&llama, &["--data", "in.csv", "--out", name]));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stderr.contains("the column is called \"predicted_label\""), "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("3 texts are in {name}, with labels")), "{}", ran.stderr);
        assert!(ran.stdout.starts_with("label  texts"), "{}", ran.stdout);
        let out = scene.path(name);
        let fields = ["id", "text", "label", "stars", "predicted_label", "probability", "probability_no"];
        let expected = [&fields[..], &["probability_yes"]].concat();
        assert_eq!(Dataset::read(&out).unwrap().fields(), expected);
        for field in ["id", "text", "label", "stars"] {
            assert_eq!(column(&out, field), column(&scene.path("in.csv"), field), "{name}: {field}");
        }
        assert_eq!(column(&out, "predicted_label"), labels, "{name}");
        for (row, answer) in answers.iter().enumerate() {
            for (label, &probability) in &answer.probabilities {
                let written: f64 = column(&out, &format!("probability_{label}"))[row].parse().unwrap();
                assert!((written - probability).abs() < 1e-12, "{name}: {written} {probability}");
            }
        }
    }
    // A column has its type where the file has types.
    let line = std::fs::read_to_string(scene.path("out.jsonl")).unwrap();
    assert!(line.starts_with("{\"id\": \"1\", \"text\": \"good, very good\""), "{line}");
    scene.file("in.jsonl", "{\"text\": \"x\", \"n\": 1.50, \"ok\": true, \"of\": [1, {\"a\": null}]}\n");
    assert_eq!(scene.run(&classify(&llama, &["--data", "in.jsonl", "--out", "typed.jsonl"])).code, 0);
    let line = std::fs::read_to_string(scene.path("typed.jsonl")).unwrap();
    assert!(
        line.starts_with(r#"{"text": "x", "n": 1.50, "ok": true, "of": [1, {"a": null}], "label": ""#),
        "{line}"
    );

    let refused = scene.run(&classify(&llama, &["--data", "in.csv", "--out", "out.csv"]));
    assert!(refused.code == 1 && refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(scene.run(&classify(&llama, &["--data", "in.csv", "--out", "out.csv", "--force"])).code, 0);
    let same = scene.run(&classify(&llama, &["--data", "in.csv", "--out", "./in.csv", "--force"]));
    assert!(same.code == 1 && same.stderr.contains("is the file that is read"), "{}", same.stderr);
    for (name, said) in
        [("out.xlsx", "use .csv, .tsv, .jsonl or .parquet"), ("no/out.csv", "no is not a directory")]
    {
        let refused = scene.run(&classify(&llama, &["--data", "in.csv", "--out", name]));
        assert!(refused.code == 1 && refused.stderr.contains(said), "{}", refused.stderr);
    }
}

#[test]
fn withheld_labels_are_empty_and_counted() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    scene.file("in.csv", DATA);
    let ran = scene.run(&classify(&llama, &["--data", "in.csv", "--out", "out.csv", "--abstain-below", "1"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("abstained      3  100.0 %"), "{}", ran.stdout);
    assert_eq!(column(&scene.path("out.csv"), "predicted_label"), ["", "", ""]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_and_bad_lines_lose_nothing_that_was_computed() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    for name in ["out.jsonl", "out.parquet"] {
        let mut command = scene.command(&classify(&llama, &["-", "--out", name, "--json"]));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"one\ntwo\n").unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next().is_some() && lines.next().is_some());
        let kill = ["-c", "kill -INT \"$0\"", &child.id().to_string()];
        assert!(Command::new("sh").args(kill).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130), "{name}");
        let partial = scene.path(&format!("partial-{name}"));
        assert_eq!(column(&partial, "text"), ["one", "two"], "{name}");
        assert!(!scene.path(name).exists());

        let args = classify(&llama, &["-", "--out", name]);
        let ran = scene.run_with(&args, b"a\nb\nc\n\xff\n");
        assert!(
            ran.code == 1 && ran.stderr.contains("it ended early: 3 texts are in partial-"),
            "{}",
            ran.stderr
        );
        assert_eq!(column(&partial, "text"), ["a", "b", "c"], "{name}");
        assert_eq!(scene.run_with(&args, b"a\n").code, 0);
        assert!(scene.path(name).exists() && !partial.exists());
    }
}

#[test]
fn an_evaluation_says_what_it_predicted() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    scene.file("in.csv", "text,label\ngood,yes\nbad,no\nfine,yes\n");
    let asked =
        ["eval", "--prompt", "none", "--model", &llama, "--labels", "no= no,yes= yes", "--data", "in.csv"];
    let with = |more: &[&str]| scene.run(&[&asked[..], more].concat());
    let report: Report = with(&["--predictions", "p.csv", "--json"]).line();
    let data = Dataset::read(&scene.path("p.csv")).unwrap();
    let fields = ["text", "label", "truth", "answer", "probability", "probability_no", "probability_yes"];
    assert_eq!(data.fields(), fields);
    assert_eq!(column(&scene.path("p.csv"), "text"), ["good", "bad", "fine"]);
    assert_eq!(column(&scene.path("p.csv"), "truth"), ["yes", "no", "yes"]);
    let (truths, answers) = (column(&scene.path("p.csv"), "truth"), column(&scene.path("p.csv"), "answer"));
    let right = truths.iter().zip(&answers).filter(|(truth, answer)| truth == answer).count();
    assert!((report.accuracy - right as f64 / 3.0).abs() < 1e-12);
    let refused = with(&["--predictions", "p.csv"]);
    assert!(refused.code == 1 && refused.stderr.contains("--force"), "{}", refused.stderr);

    // Pairs have their fields, and generated texts theirs.
    scene.file("pairs.csv", "premise,hypothesis,label\nIt rains.,It is wet.,yes\nIt rains.,It is dry.,no\n");
    let pairs = ["eval", "--prompt", "none", "--model", &llama, "--labels", "no= no,yes= yes"];
    let ran = scene.run(&[&pairs[..], &["--data", "pairs.csv", "--predictions", "pairs.jsonl"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(column(&scene.path("pairs.jsonl"), "hypothesis"), ["It is wet.", "It is dry."]);
    let texts = ["--prompt", "none", "--model", &llama, "--max-new-tokens", "3"];
    let eval = [&["eval"][..], &texts, &["--data", "in.csv", "--target-field", "label"]].concat();
    let ran = scene.run(&[&eval[..], &["--predictions", "texts.csv"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let answers = column(&scene.path("texts.csv"), "answer");
    assert_eq!(answers.len(), 3);
}

#[test]
fn a_table_of_predictions_can_be_classified_again() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    scene.file("in.csv", DATA);
    let new_columns = |from: &str, to: &str, more: &[&str]| {
        let ran = scene.run(&classify(&llama, &[&["--data", from, "--out", to][..], more].concat()));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let before = Dataset::read(&scene.path(from)).unwrap().fields().len();
        (Dataset::read(&scene.path(to)).unwrap().fields()[before..].to_vec(), ran.stderr)
    };
    let (first, _) = new_columns("in.csv", "one.csv", &[]);
    assert_eq!(first, ["predicted_label", "probability", "probability_no", "probability_yes"]);
    // All columns of a run have the same number.
    let numbered = |n: u32| {
        ["label", "probability", "probability_no", "probability_yes"]
            .map(|name| format!("predicted_{name}_{n}"))
    };
    let (second, said) = new_columns("one.csv", "two.csv", &["--text-field", "text"]);
    assert_eq!(second, numbered(2));
    let told =
        "\"label\" is called \"predicted_label_2\", \"probability\" \"predicted_probability_2\" and 2 more";
    assert!(said.contains(told), "{said}");
    assert_eq!(new_columns("two.csv", "three.csv", &["--text-field", "text"]).0, numbered(3));
    assert_eq!(
        column(&scene.path("three.csv"), "predicted_label"),
        column(&scene.path("one.csv"), "predicted_label")
    );
    // Without a label of its own, the second run has the prefix.
    scene.file("bare.csv", "text\ngood\nbad\n");
    assert_eq!(new_columns("bare.csv", "four.csv", &[]).0[0], "label");
    assert_eq!(
        new_columns("four.csv", "five.csv", &["--text-field", "text"]).0[..2],
        ["predicted_label", "predicted_probability"]
    );
}

fn generate<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args =
        ["generate", "--prompt", "none", "--model", model, "--template", "{text}:", "--max-new-tokens", "3"];
    [&args[..], more].concat()
}

#[test]
fn a_file_comes_back_with_what_was_generated() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    scene.file("in.csv", "id,text,output\n7,\"good, very good\",old\n8,\"two\nlines\",\n9,bad,x\n");
    let written: Vec<Written> = scene.run(&generate(&llama, &["--data", "in.csv", "--json"])).lines();
    for name in ["out.csv", "out.tsv", "out.jsonl", "out.parquet", "out.csv.gz"] {
        let ran = scene.run(&generate(&llama, &["--data", "in.csv", "--out", name]));
        assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.stderr);
        assert!(ran.stderr.contains("the column is called \"predicted_output\""), "{}", ran.stderr);
        assert!(
            ran.stderr.contains(&format!("3 texts are in {name}, with what was generated")),
            "{}",
            ran.stderr
        );
        let out = scene.path(name);
        let fields = ["id", "text", "output", "predicted_output", "finish_reason"];
        assert_eq!(Dataset::read(&out).unwrap().fields(), fields);
        for field in ["id", "text", "output"] {
            assert_eq!(column(&out, field), column(&scene.path("in.csv"), field), "{name}: {field}");
        }
        // Texts that finish before others are in their places.
        for (row, written) in written.iter().enumerate() {
            assert_eq!(column(&out, "predicted_output")[row], written.output, "{name}");
            assert_eq!(column(&out, "finish_reason")[row], written.finish_reason, "{name}");
        }
    }
    let one = scene.run(&generate(&llama, &["a text", "--out", "one.csv", "--json"]));
    assert_eq!(one.line::<Written>().output, column(&scene.path("one.csv"), "output")[0]);
    let refused = scene.run(&generate(&llama, &["--data", "in.csv", "--out", "out.csv"]));
    assert!(refused.code == 1 && refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(scene.run(&generate(&llama, &["--data", "in.csv", "--out", "out.csv", "--force"])).code, 0);
    let same = scene.run(&generate(&llama, &["--data", "in.csv", "--out", "in.csv", "--force"]));
    assert!(same.code == 1 && same.stderr.contains("is the file that is read"), "{}", same.stderr);
    let other = scene.run(&generate(&llama, &["--data", "in.csv", "--out", "out.xlsx"]));
    assert!(
        other.code == 1 && other.stderr.contains("use .csv, .tsv, .jsonl or .parquet"),
        "{}",
        other.stderr
    );
}

#[cfg(unix)]
#[test]
fn what_was_generated_before_ctrl_c_or_a_bad_line_is_kept() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    let mut command = scene.command(&generate(&llama, &["-", "--out", "out.csv", "--json"]));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().is_some() && lines.next().is_some());
    let kill = ["-c", "kill -INT \"$0\"", &child.id().to_string()];
    assert!(Command::new("sh").args(kill).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("stopping; what was computed is kept; Ctrl-C again stops immediately"), "{said}");
    assert_eq!(column(&scene.path("partial-out.csv"), "text"), ["one", "two"]);
    assert!(!scene.path("out.csv").exists());
    let ran = scene.run_with(&generate(&llama, &["-", "--out", "out.csv"]), b"a\nb\n\xff\n");
    assert!(
        ran.code == 1 && ran.stderr.contains("it ended early: 2 texts are in partial-"),
        "{}",
        ran.stderr
    );
    assert_eq!(column(&scene.path("partial-out.csv"), "text"), ["a", "b"]);
    drop(stdin);
}
