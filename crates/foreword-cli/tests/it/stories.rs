//! What works: a prompt is trained, measured and used, and each step agrees with the others.

use std::fs;
use std::process::Stdio;

use crate::scene::{Scene, model, root, sentences};
use crate::schema::{Classified, Done, Line, Report, Scores};

fn done(lines: &[Line]) -> Done {
    match lines.last() {
        Some(Line::Done(done)) => done.clone(),
        other => unreachable!("the last line is {other:?}"),
    }
}

#[test]
fn a_run_tells_its_steps_evaluations_and_end() {
    let scene = Scene::new();
    let sentences = sentences();
    let ran =
        scene.train("p", "6", &["--test", &sentences, "--eval-every", "3", "--json", "--log", "log.jsonl"]);
    let lines: Vec<Line> = ran.lines();
    let mut kinds = String::new();
    for line in &lines {
        match line {
            Line::Step { step, loss, learning_rate, grad_norm, examples_per_second } => {
                kinds += &format!("s{step} ");
                let numbers = [*loss, *learning_rate, *grad_norm, *examples_per_second];
                assert!(numbers.iter().all(|&number| number.is_finite() && number > 0.0), "{line:?}");
            }
            Line::Eval { step, split, loss, accuracy } => {
                kinds += &format!("e{step} ");
                assert_eq!(split, "dev");
                assert!(loss.is_finite() && (0.0..=1.0).contains(accuracy));
            }
            Line::Done(_) => kinds += "done",
        }
    }
    assert_eq!(kinds, "e0 s1 s2 s3 e3 s4 s5 s6 e6 done");
    let done = done(&lines);
    assert_eq!((done.out.as_str(), done.steps), ("p", 6));
    assert!(done.best_step <= 6 && done.seconds > 0.0);
    assert_eq!(done.peak_memory_bytes.is_some(), fs::exists("/proc/self/status").unwrap());
    assert_eq!((done.dev.unwrap().n, done.test.unwrap().n), (2, 24));
    assert_eq!(fs::read_to_string(scene.path("log.jsonl")).unwrap(), ran.stdout);
    assert_eq!(scene.names(), ["log.jsonl", "p"]);
}

#[test]
fn train_eval_and_classify_agree() {
    let scene = Scene::new();
    let (sentences, llama) = (sentences(), model("llama-tiny"));
    let ran = scene.train("p", "6", &["--test", &sentences, "--json"]);
    let test = done(&ran.lines::<Line>()).test.unwrap();

    let report: Report =
        scene.run(&["eval", "--prompt", "p", "--model", &llama, "--data", &sentences, "--json"]).line();
    let Report { n, accuracy, macro_f1, loss, confusion, .. } = report;
    assert_eq!(Scores { n, accuracy, macro_f1, loss }, test);
    let labels: Vec<&String> = confusion.keys().collect();
    assert_eq!(labels, ["negative", "positive"]);
    assert_eq!(confusion.values().flat_map(|row| row.values()).sum::<u64>(), 24);

    let ran = scene.run(&["classify", "--prompt", "p", "--model", &llama, "--data", &sentences, "--json"]);
    let answers: Vec<Classified> = ran.lines();
    let truths = fs::read_to_string(&sentences).unwrap();
    let mut n_right = 0;
    for (answer, truth) in answers.iter().zip(truths.lines()) {
        let truth: serde_json::Value = serde_json::from_str(truth).unwrap();
        assert_eq!(answer.text, truth["text"].as_str().unwrap());
        n_right += u64::from(answer.label.as_deref() == truth["label"].as_str());
        assert!((answer.probabilities.values().sum::<f64>() - 1.0).abs() < 1e-9);
        let likeliest = answer.log_likelihoods.iter().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        assert_eq!(answer.label.as_ref(), Some(likeliest.0));
    }
    assert_eq!(n_right as f64 / 24.0, accuracy);

    // One text alone, and the same from standard input: the same bits as among the others.
    let text = answers[1].text.as_str();
    let alone: Classified =
        scene.run(&["classify", "--prompt", "p", "--model", &llama, text, "--json"]).line();
    let read: Classified = scene
        .run_with(
            &["classify", "--prompt", "p", "--model", &llama, "-", "--json"],
            format!("{text}\n").as_bytes(),
        )
        .line();
    for other in [alone, read] {
        assert_eq!((&other.text, &other.log_likelihoods), (&answers[1].text, &answers[1].log_likelihoods));
    }
}

#[test]
fn the_passport_holds_the_metrics_and_their_baselines() {
    let scene = Scene::new();
    let (sentences, llama) = (sentences(), model("llama-tiny"));
    assert_eq!(scene.train("p", "4", &["--test", &sentences, "--seed", "3"]).code, 0);
    let passport: serde_json::Value =
        serde_json::from_slice(&fs::read(scene.path("p/foreword.json")).unwrap()).unwrap();
    let splits: Vec<&String> = passport["metrics"].as_object().unwrap().keys().collect();
    assert_eq!(splits, ["dev", "dev.bare", "dev.majority", "test", "test.bare", "test.majority"]);
    assert_eq!(passport["metrics"]["test.majority"]["accuracy"], 0.5);
    assert_eq!(passport["training"]["data"]["train"]["examples"], 22);
    assert_eq!(passport["training"]["init"], "text:Classify the text as negative or positive.");
    assert_eq!(passport["training"]["seed"], 3);
    assert_eq!(passport["base_model"]["name"], "llama-tiny");

    let bare: Report =
        scene.run(&["eval", "--prompt", "none", "--model", &llama, "--data", &sentences, "--json"]).line();
    assert_eq!(passport["metrics"]["test.bare"]["accuracy"], bare.accuracy);
    assert_eq!(passport["metrics"]["test.bare"]["loss"], bare.loss);
}

#[test]
fn the_same_run_writes_the_same_bytes_on_any_number_of_threads() {
    let scene = Scene::new();
    for (out, more) in
        [("a", &["--threads", "1"][..]), ("b", &["--threads", "2", "--micro-batch-tokens", "40"])]
    {
        assert_eq!(scene.train(out, "5", more).code, 0);
    }
    for file in ["adapter_model.safetensors", "adapter_config.json", "foreword.json"] {
        let bytes = |out: &str| fs::read(scene.path(out).join(file)).unwrap();
        assert_eq!(bytes("a"), bytes("b"), "{file}");
    }
}

#[test]
fn a_run_stays_within_its_memory_and_gives_the_same_bytes() {
    let scene = Scene::new();
    let bytes = |out: &str| fs::read(scene.path(out).join("adapter_model.safetensors")).unwrap();
    assert_eq!(scene.train("whole", "4", &[]).code, 0);
    // The program alone counts 60 MB, and this model next to nothing.
    let ran = scene.train("tight", "4", &["--memory", "60.6MB"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("recomputed in the backward pass"), "{}", ran.stderr);
    assert_eq!(bytes("whole"), bytes("tight"));
    let ran = scene.train("none", "4", &["--memory", "1MB"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("error: --memory 1.0 MB is too little: this run needs about 60."),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_task_file_says_it_all_and_flags_win() {
    let scene = Scene::new();
    let task = root().join("examples/sentiment/task.toml").display().to_string();
    let ran =
        scene.run(&["train", &task, "--steps", "2", "--batch-size", "4", "--eval-every", "0", "--json"]);
    let done = done(&ran.lines::<Line>());
    assert_eq!((done.out.as_str(), done.steps), ("task-prompt", 2));
    assert_eq!((done.dev.unwrap().n, done.test.unwrap().n), (100, 800));
    // The prompt knows its model, so that nothing else need be said.
    let answer: Classified =
        scene.run(&["classify", "--prompt", "task-prompt", "The movie was fantastic.", "--json"]).line();
    assert_eq!(answer.text, "The movie was fantastic.");
    // Nothing but the answer, where nothing else is wanted.
    let ran = scene.run(&["classify", "--prompt", "task-prompt", "-q", "The movie was fantastic."]);
    assert_eq!((ran.stdout.lines().count(), ran.stderr.as_str()), (1, ""));
}

#[test]
fn other_placements_have_no_peft_file_and_are_remembered() {
    let scene = Scene::new();
    let (sentences, llama) = (sentences(), model("llama-tiny"));
    for placement in ["after-bos", "suffix"] {
        let ran = scene.train(placement, "2", &["--placement", placement, "--test", &sentences, "--json"]);
        let test = done(&ran.lines::<Line>()).test.unwrap();
        assert!(!scene.path(placement).join("adapter_config.json").exists());
        let report: Report = scene
            .run(&["eval", "--prompt", placement, "--model", &llama, "--data", &sentences, "--json"])
            .line();
        assert_eq!((report.loss, report.macro_f1), (test.loss, test.macro_f1));
    }
}

#[test]
fn fields_are_guessed_and_remembered() {
    let scene = Scene::new();
    let rows = "Review,Sentiment\ngood film,up\nbad film,down\nfine work,up\npoor work,down\n";
    scene.file("reviews.csv", rows);
    let llama = model("llama-tiny");
    let args = ["train", "reviews.csv", "--model", &llama, "--steps", "2", "--batch-size", "2"];
    let ran = scene.run(&args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("text \"Review\", label \"Sentiment\" (guessed"), "{}", ran.stderr);
    assert!(ran.stderr.contains("text:Classify the Review as down or up."), "{}", ran.stderr);
    let prompt = ["--prompt", "reviews-prompt", "--model", &llama];
    let eval = scene.run(&[&["eval", "--data", "reviews.csv", "--json"][..], &prompt].concat());
    assert_eq!(eval.line::<Report>().n, 4);
    // A bare text has no field "Review", and needs none.
    let classified = scene.run(&[&["classify", "good film", "--json"][..], &prompt].concat());
    assert_eq!(classified.line::<Classified>().text, "good film");
}

#[test]
fn init_from_a_prompt_takes_its_rows() {
    let scene = Scene::new();
    assert_eq!(scene.train("a", "1", &[]).code, 0);
    let (sentences, llama) = (sentences(), model("llama-tiny"));
    let ran = scene.run(&[
        "train",
        &sentences,
        "--model",
        &llama,
        "--steps",
        "1",
        "--init",
        "from:a",
        "--virtual-tokens",
        "9",
        "--out",
        "b",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("has 4 virtual tokens, which are taken instead of the 9"), "{}", ran.stderr);
}

#[test]
fn force_replaces_a_prompt() {
    let scene = Scene::new();
    assert_eq!(scene.train("p", "1", &[]).code, 0);
    let before = fs::read(scene.path("p/foreword.json")).unwrap();
    assert_eq!(scene.train("p", "1", &["--seed", "1", "--force"]).code, 0);
    assert_ne!(fs::read(scene.path("p/foreword.json")).unwrap(), before);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let scene = Scene::new();
    let sentences = sentences();
    let args = ["classify", "--prompt", "none", "--labels", "a= a,b= b", "--data", &sentences, "--json"];
    let mut child = scene.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_run_that_was_not_worth_it_says_what_to_try() {
    let scene = Scene::new();
    // Nothing in the texts says which label they have.
    let rows: Vec<String> = (0..24).map(|i| format!("the same {i},{}", ["up", "down"][i % 2])).collect();
    scene.file("train.csv", format!("text,label\n{}\n", rows.join("\n")));
    let llama = model("llama-tiny");
    let said = |more: &[&str]| {
        let args = [
            "train",
            "train.csv",
            "--model",
            &llama,
            "--steps",
            "1",
            "--learning-rate",
            "1e-9",
            "--out",
            "p",
        ];
        let ran = scene.run(&[&args[..], &["--virtual-tokens", "2", "--force"], more].concat());
        assert!(
            ran.stdout.contains("this run was not worthwhile")
                && ran.stdout.contains(". More examples, more steps,"),
            "{}",
            ran.stdout
        );
        ran.stdout.contains("--placement suffix")
    };
    assert!(said(&[]));
    assert!(!said(&["--placement", "suffix"]) && !said(&["--method", "prefix"]));
}
