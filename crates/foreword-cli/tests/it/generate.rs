//! Tasks whose texts are generated: trained, measured, used, and what is wrong with them.

use std::fs;

use crate::scene::{Ran, Scene, model, sentences};
use crate::schema::{Classified, TextReport, WriterLine, Written};

const ROWS: &str = r#"{"input": "name: Eagle", "output": "The Eagle is a pub."}
{"input": "name: Mill", "output": "The Mill is a cafe."}
{"input": "name: Punter", "output": "The Punter is a bar."}
{"input": "name: Wrestlers", "output": "The Wrestlers is an inn."}
"#;

fn scene() -> Scene {
    let scene = Scene::new();
    scene.file("places.jsonl", ROWS);
    scene
}

fn train(scene: &Scene, more: &[&str]) -> Ran {
    let llama = model("llama-tiny");
    let args = ["train", "places.jsonl", "--dev", "places.jsonl", "--model", &llama, "--steps", "4"];
    scene.run(&[&args[..], &["--batch-size", "2", "--virtual-tokens", "4"], more].concat())
}

#[test]
fn a_prompt_that_writes_is_trained_measured_and_used() {
    let scene = scene();
    let llama = model("llama-tiny");
    let ran =
        train(&scene, &["--target-field", "output", "--test", "places.jsonl", "--eval-every", "2", "--json"]);
    let lines: Vec<WriterLine> = ran.lines();
    let mut kinds = String::new();
    for line in &lines {
        match line {
            WriterLine::Step { step, loss, learning_rate, grad_norm, examples_per_second } => {
                kinds += &format!("s{step} ");
                let numbers = [*loss, *learning_rate, *grad_norm, *examples_per_second];
                assert!(numbers.iter().all(|&number| number.is_finite() && number > 0.0), "{line:?}");
            }
            WriterLine::Eval { step, split, loss } => {
                kinds += &format!("e{step} ");
                assert!(split == "dev" && loss.is_finite());
            }
            WriterLine::Done(_) => kinds += "done",
        }
    }
    assert_eq!(kinds, "e0 s1 s2 e2 s3 s4 e4 done");
    assert!(ran.stderr.contains("generate --prompt places-prompt"), "{}", ran.stderr);
    let Some(WriterLine::Done(done)) = lines.last() else { unreachable!("the last line is done") };
    let test = done.test.clone().unwrap();
    assert!(
        ran.stderr.contains("text \"input\" (guessed; override with --text-field), target \"output\""),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("text:Read the input and write the output."), "{}", ran.stderr);

    let passport: serde_json::Value =
        serde_json::from_slice(&fs::read(scene.path("places-prompt/foreword.json")).unwrap()).unwrap();
    assert_eq!(passport["task"]["kind"], "generation");
    assert_eq!(passport["task"]["target_field"], "output");
    assert_eq!(passport["task"]["template"], "{text}\nOutput:");
    let splits: Vec<&String> = passport["metrics"].as_object().unwrap().keys().collect();
    assert_eq!(splits, ["dev", "dev.bare", "test", "test.bare"]);

    let prompt = ["--prompt", "places-prompt", "--model", &llama];
    let eval = ["eval", "--data", "places.jsonl", "--max-new-tokens", "12", "--json"];
    let report: TextReport = scene.run(&[&eval[..], &prompt].concat()).line();
    assert_eq!((report.n, report.loss), (4, test.loss));
    assert!(report.exact_match == 0.0 && (0.0..=1.0).contains(&report.rouge_l) && report.bleu >= 0.0);

    // For people, all three have one scale.
    let told = scene.run(&[&eval[..eval.len() - 1], &prompt].concat());
    let scores = format!(
        "exact match {:.1}, ROUGE-L {:.1}, BLEU {:.1} (each from 0 to 100)",
        100.0 * report.exact_match,
        100.0 * report.rouge_l,
        report.bleu
    );
    assert!(told.stdout.contains(&scores), "{scores}\n{}", told.stdout);

    let generate = ["generate", "--data", "places.jsonl", "--max-new-tokens", "12", "--json"];
    let written: Vec<Written> = scene.run(&[&generate[..], &prompt].concat()).lines();
    assert_eq!(
        written.iter().map(|written| written.text.as_str()).collect::<Vec<_>>(),
        ["name: Eagle", "name: Mill", "name: Punter", "name: Wrestlers"]
    );
    assert!(written.iter().all(|written| written.tokens <= 12));
    assert!(written.iter().any(|written| written.finish_reason == "length" && written.tokens == 12));
    // One text alone, from the command line: the same as among the others.
    let alone = ["generate", "name: Mill", "--max-new-tokens", "12", "--json"];
    assert_eq!(scene.run(&[&alone[..], &prompt].concat()).line::<Written>(), written[1]);
    // For people: the texts alone, in their order, a line each.
    let ran = scene.run(&[&generate[..generate.len() - 1], &prompt, &["--limit", "2"]].concat());
    assert_eq!((ran.code, ran.stdout.lines().count()), (0, 2), "{}", ran.stderr);
    let ran = scene.run(&["inspect", "places-prompt", "--model", &llama]);
    assert!(ran.stdout.contains("generation; text in \"input\", target in \"output\""), "{}", ran.stdout);
    assert!(ran.stdout.contains("the target and its end against all texts"));
    assert!(ran.stdout.contains("nats a token") || ran.stdout.contains("no better than"), "{}", ran.stdout);
}

#[test]
fn threads_and_micro_batches_change_no_byte_of_a_prompt_that_writes() {
    let scene = scene();
    let flags = ["--target-field", "output"];
    assert_eq!(train(&scene, &[&flags[..], &["--out", "whole"]].concat()).code, 0);
    let bytes = |out: &str| fs::read(scene.path(out).join("adapter_model.safetensors")).unwrap();
    let threads = ["--threads", "1", "--micro-batch-tokens", "30", "--out", "again"];
    assert_eq!(train(&scene, &[&flags[..], &threads].concat()).code, 0);
    assert_eq!(bytes("whole"), bytes("again"));
}

#[test]
fn the_bare_model_writes_too_and_chance_has_a_seed() {
    let scene = scene();
    let llama = model("llama-tiny");
    let write = |more: &[&str]| -> Written {
        let args = ["generate", "--prompt", "none", "--model", &llama, "--template", "{text}", "--json"];
        scene.run(&[&args[..], &["--max-new-tokens", "20", "Once upon a time"], more].concat()).line()
    };
    assert_eq!(write(&[]), write(&["--temperature", "0"]));
    let drawn = write(&["--temperature", "1.5", "--seed", "1"]);
    assert_eq!(drawn, write(&["--temperature", "1.5", "--seed", "1"]));
    assert_ne!(drawn, write(&["--temperature", "1.5", "--seed", "2"]));
    assert_eq!(write(&["--temperature", "1", "--top-k", "1"]), write(&[]));
    let whole = write(&[]).output;
    let middle: String = whole.chars().skip(whole.chars().count() / 2).take(2).collect();
    let stopped = write(&["--stop", &middle.replace('\\', r"\\")]);
    assert_eq!(stopped.finish_reason, "stop");
    assert_eq!(stopped.output, whole[..whole.find(&middle).unwrap()]);
}

#[test]
fn labels_and_targets_are_not_taken_for_each_other() {
    let scene = scene();
    let llama = model("llama-tiny");
    let error = |ran: Ran| {
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        ran.stderr[ran.stderr.find("error:").unwrap()..].to_owned()
    };
    insta::assert_snapshot!(error(train(&scene, &["--kind", "classification", "--target-field", "output"])), @r"
    error: a classification has a label, not a target_field
    hint: name the field with --label-field, or ask for --kind generation
    ");
    insta::assert_snapshot!(error(train(&scene, &["--kind", "generation", "--label-field", "output"])), @r"
    error: a generation has a target, not labels or a label_field
    hint: name the field with --target-field, or ask for --kind classification
    ");
    insta::assert_snapshot!(error(train(&scene, &["--kind", "generation", "--objective", "label"])), @r"
    error: a generation has no labels to choose among, so its objective can't be label
    hint: leave the objective out: it is lm
    ");
    assert_eq!(train(&scene, &["--kind", "generation", "--out", "p"]).code, 0);
    let prompt = ["--prompt", "p", "--model", &llama];
    insta::assert_snapshot!(error(scene.run(&[&["classify", "name: Eagle"][..], &prompt].concat())), @r"
    error: the prompt p was trained to write texts, and has no labels
    hint: `foreword generate` has it write; --labels names labels to choose from all the same
    ");
    let labelled = ["classify", "name: Eagle", "--labels", "a= a,b= b", "--json"];
    let answer: Classified = scene.run(&[&labelled[..], &prompt].concat()).line();
    assert_eq!(answer.text, "name: Eagle");
    insta::assert_snapshot!(error(scene.run(&[&["generate"][..], &prompt].concat())), @r"
    error: there is no text to write after
    hint: give texts, --data FILE, or - to read texts from standard input, one a line
    ");
    insta::assert_snapshot!(error(scene.run(&[&["generate", "x", "--top-p", "0"][..], &prompt].concat())), @r"
    error: invalid value '0' for '--top-p <SHARE>': must be greater than 0 and at most 1

    For more information, try '--help'.
    ");

    // A prompt that chooses may be made to write, with a warning.
    assert_eq!(scene.train("c", "1", &[]).code, 0);
    let ran = scene.run(&["generate", "x", "--prompt", "c", "--model", &llama, "--max-new-tokens", "3"]);
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.contains("warning: the prompt c was trained to choose labels"), "{}", ran.stderr);
    let data = sentences();
    let eval = ["eval", "--prompt", "p", "--model", &llama, "--data", &data];
    let ran = scene.run(&[&eval[..], &["--target-field", "nothing"]].concat());
    insta::assert_snapshot!(error(ran).replace(&data, "[DATA]"), @r#"
    error: [DATA] has no field "input", its fields are: "text", "label"
    hint: name the fields with --text-field, and --label-field or --target-field, or those that --template asks for
    "#);
}

#[test]
fn a_model_without_an_end_token_cannot_learn_to_end() {
    let scene = scene();
    let dir = scene.copy(std::path::Path::new(&model("llama-tiny")), "model");
    let config = fs::read_to_string(dir.join("config.json")).unwrap();
    fs::write(dir.join("config.json"), config.replace("\"eos_token_id\": 1", "\"eos_token_id\": null"))
        .unwrap();
    let train = |scene: &Scene| {
        scene.run(&["train", "places.jsonl", "--model", "model", "--target-field", "output", "--steps", "1"])
    };
    let ran = train(&scene);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("error: the model names no end token (eos_token_id in config.json)"),
        "{}",
        ran.stderr
    );
    // Where generation_config.json names one, that is it.
    fs::write(dir.join("generation_config.json"), r#"{"eos_token_id": [1], "temperature": 0.6}"#).unwrap();
    assert_eq!(train(&scene).code, 0);
}
