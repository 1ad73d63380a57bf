//! Several ways to learn at once, KV prefixes, and what is compiled into them.

use std::collections::BTreeMap;
use std::fs;

use foreword::PromptDirectory;
use foreword::settings::Method;
use serde::Deserialize;

use crate::scene::{Scene, model, sentences};
use crate::schema::{Classified, Scores};

/// A line of a run of several candidates.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Step {
        candidate: usize,
        step: u64,
        loss: f64,
        learning_rate: f64,
        grad_norm: f64,
        examples_per_second: f64,
    },
    Eval {
        candidate: usize,
        step: u64,
        split: String,
        loss: f64,
        accuracy: f64,
    },
    Left {
        candidate: usize,
        step: u64,
        reason: String,
    },
    Done(Done),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Done {
    out: String,
    candidate: usize,
    steps: u64,
    best_step: u64,
    dev: Option<Scores>,
    test: Option<Scores>,
    seconds: f64,
    peak_memory_bytes: Option<u64>,
}

/// What `classify --json` says of two texts.
fn classified(scene: &Scene, prompt: &str) -> Vec<Classified> {
    let llama = model("llama-tiny");
    scene.run(&["classify", "--prompt", prompt, "--model", &llama, "--json", "A fine film.", "Dull."]).lines()
}

#[test]
fn candidates_leave_by_halves_and_the_best_is_written() {
    let scene = Scene::new();
    let run =
        scene.train("p", "16", &["--test", &sentences(), "--candidates", "4", "--patience", "0", "--json"]);
    let lines: Vec<Line> = run.lines();
    let mut n_updates = BTreeMap::new();
    let mut left = Vec::new();
    let mut best = (f64::INFINITY, 0);
    for line in &lines {
        match line {
            Line::Step { candidate, loss, learning_rate, grad_norm, examples_per_second, step } => {
                *n_updates.entry(*candidate).or_insert(0) += 1;
                assert!(
                    loss.is_finite()
                        && *learning_rate > 0.0
                        && *grad_norm > 0.0
                        && *examples_per_second > 0.0
                );
                assert!((1..=16).contains(step));
            }
            Line::Eval { candidate, step, loss, split, accuracy } => {
                assert!(split == "dev" && step % 2 == 0 && (0.0..=1.0).contains(accuracy));
                if *loss < best.0 && !left.iter().any(|(gone, _)| gone == candidate) {
                    best = (*loss, *candidate);
                }
            }
            Line::Left { candidate, step, reason } => {
                assert_eq!(reason, "dropped");
                left.push((*candidate, *step));
            }
            Line::Done(_) => {}
        }
    }
    // Sixteen steps, an evaluation every second: half of four leave after four, half of two after eight.
    assert_eq!(left.iter().map(|&(_, step)| step).collect::<Vec<_>>(), [4, 4, 8]);
    assert_eq!(n_updates.values().sum::<u64>(), 4 * 4 + 2 * 4 + 8);
    let Some(Line::Done(done)) = lines.last() else { panic!("{lines:?}") };
    assert!(left.iter().all(|&(candidate, _)| candidate != done.candidate));
    assert_eq!((done.out.as_str(), done.steps), ("p", 16));
    assert!(done.best_step <= 16 && done.dev.is_some() && done.test.is_some());
    assert!(done.seconds > 0.0 && done.peak_memory_bytes.is_none_or(|bytes| bytes > 0));
    let passport = fs::read_to_string(scene.path("p/foreword.json")).unwrap();
    assert!(passport.contains("\"candidates\": [") && passport.contains("learning rate 15%"), "{passport}");

    // For people: a table that says which was best.
    let told = scene.train("q", "16", &["--candidates", "4", "--patience", "0"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    assert!(told.stdout.contains("(best)") && told.stdout.contains("dev loss"), "{}", told.stdout);
    assert!(told.stderr.contains("4 candidates at once"), "{}", told.stderr);
    assert_eq!(
        PromptDirectory::read(&scene.path("p")).unwrap().rows,
        PromptDirectory::read(&scene.path("q")).unwrap().rows
    );
}

#[test]
fn an_ensemble_has_its_members_below_it_and_a_smaller_one_forgets_them() {
    let scene = Scene::new();
    let run = scene.train("p", "8", &["--test", &sentences(), "--candidates", "4", "--ensemble", "3"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("ensemble of 3"), "{}", run.stdout);
    // What is told counts all three, and how to ask them.
    let dirs = ["p", "p/member-2", "p/member-3"];
    let written = dirs.map(|dir| PromptDirectory::read(&scene.path(dir)).unwrap().rows.values().len());
    let files = ["adapter_config.json", "adapter_model.safetensors", "foreword.json"];
    let size =
        |dir| files.map(|file| fs::metadata(scene.path(dir).join(file)).unwrap().len()).iter().sum::<u64>();
    let (numbers, bytes) = (written.iter().sum::<usize>(), dirs.map(size).iter().sum::<u64>());
    let told = run.stdout.replace(',', "");
    assert!(told.contains(&format!("{numbers} numbers learned")), "{numbers}: {}", run.stdout);
    assert!(told.contains(&format!("{bytes} bytes on disk")), "{bytes}: {}", run.stdout);
    assert!(
        run.stderr.contains("--ensemble --data") && run.stderr.contains("--ensemble asks all"),
        "{}",
        run.stderr
    );
    let rows = |dir: &str| PromptDirectory::read(&scene.path(dir)).unwrap().rows;
    assert!(rows("p") != rows("p/member-2") && rows("p/member-2") != rows("p/member-3"));
    assert!(!scene.path("p/member-4").exists());
    let passport = fs::read_to_string(scene.path("p/foreword.json")).unwrap();
    assert!(passport.contains("\"test.ensemble\""), "{passport}");
    assert_eq!(classified(&scene, "p/member-3").len(), 2);

    // Together they give the mean of what each gives.
    let llama = model("llama-tiny");
    let asked =
        ["classify", "--prompt", "p", "--ensemble", "--model", &llama, "--json", "A fine film.", "Dull."];
    let together: Vec<Classified> = scene.run(&asked).lines();
    let alone = ["p", "p/member-2", "p/member-3"].map(|dir| classified(&scene, dir));
    for (text, line) in together.iter().enumerate() {
        for (label, mean) in &line.log_likelihoods {
            let sum: f64 = alone.iter().map(|member| member[text].log_likelihoods[label]).sum();
            assert!((mean - sum / 3.0).abs() < 1e-9, "{label}: {mean} instead of {}", sum / 3.0);
        }
    }
    let measured =
        scene.run(&["eval", "--prompt", "p", "--ensemble", "--model", &llama, "--data", &sentences()]);
    assert!(measured.stdout.contains("ensemble of 3"), "{}{}", measured.stdout, measured.stderr);
    let single = scene.run(&["classify", "--prompt", "p/member-2", "--ensemble", "--model", &llama, "Dull."]);
    assert_eq!(single.code, 1);
    assert!(single.stderr.contains("p/member-2 does not lead an ensemble"), "{}", single.stderr);

    // A correction is of one prompt.
    let ensemble =
        ["eval", "--prompt", "p", "--ensemble", "--model", &llama, "--data", &sentences()].map(str::to_owned);
    let ensemble: Vec<&str> = ensemble.iter().map(String::as_str).collect();
    let refused = scene.run(&[&ensemble[..], &["--calibrate", "batch", "--save-calibration"]].concat());
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("hint: leave out --ensemble, or --save-calibration"),
        "{}",
        refused.stderr
    );
    let one = ["eval", "--prompt", "p", "--model", &llama, "--data", &sentences(), "--calibrate", "batch"]
        .map(str::to_owned);
    let one: Vec<&str> = one.iter().map(String::as_str).chain(["--save-calibration"]).collect();
    assert_eq!(scene.run(&one).code, 0);
    let left_out = scene.run(&ensemble);
    assert!(
        left_out.stderr.contains("was fitted to the prompt alone, and is left out"),
        "{}",
        left_out.stderr
    );
    assert_eq!(left_out.stdout, measured.stdout);

    let smaller = scene.train("p", "8", &["--candidates", "3", "--ensemble", "2", "--force"]);
    assert_eq!(smaller.code, 0, "{}", smaller.stderr);
    assert!(scene.path("p/member-2").exists() && !scene.path("p/member-3").exists());

    let more = scene.train("x", "8", &["--candidates", "3", "--ensemble", "4"]);
    assert_eq!(more.code, 1);
    assert!(more.stderr.contains("an ensemble of 4 can't be found among 3 candidates"), "{}", more.stderr);
    let one = scene.train("x", "8", &["--ensemble", "4"]);
    assert!(one.code == 1 && one.stderr.contains("hint: ask for more --candidates"), "{}", one.stderr);
    let writing = scene.train("x", "8", &["--candidates", "3", "--ensemble", "2", "--target-field", "label"]);
    assert!(writing.code == 1 && writing.stderr.contains("hint: leave --ensemble out"), "{}", writing.stderr);
    assert!(!scene.path("x").exists());
}

#[test]
fn a_kv_prefix_is_learned_and_used_like_a_soft_prompt() {
    let scene = Scene::new();
    let run = scene.train("p", "4", &["--method", "prefix", "--test", &sentences()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("tuned KV prefix"), "{}", run.stdout);
    let directory = PromptDirectory::read(&scene.path("p")).unwrap();
    assert_eq!((directory.method(), directory.rows.width()), (Method::Prefix, 2 * 2 * 24));
    let adapter = fs::read_to_string(scene.path("p/adapter_config.json")).unwrap();
    assert!(adapter.contains("\"peft_type\": \"PREFIX_TUNING\""), "{adapter}");
    assert_eq!(classified(&scene, "p").len(), 2);
    let llama = model("llama-tiny");
    let inspected = scene.run(&["inspect", "p", "--model", &llama]);
    assert!(
        inspected.stdout.contains("a KV prefix of 4 virtual tokens × 96 numbers"),
        "{}",
        inspected.stdout
    );
    let explained = scene.run(&["explain", "--prompt", "p", "--model", &llama]);
    assert_eq!(explained.code, 1);
    assert!(explained.stderr.contains("the prompt is a KV prefix"), "{}", explained.stderr);

    let at_end = scene.train("x", "4", &["--method", "prefix", "--placement", "suffix"]);
    assert_eq!(at_end.code, 1);
    assert!(at_end.stderr.contains("a KV prefix has no row"), "{}", at_end.stderr);
}

#[test]
fn a_compiled_prompt_gives_the_same_answers_to_the_bit() {
    for placement in ["front", "after-bos"] {
        let scene = Scene::new();
        let llama = model("llama-tiny");
        assert_eq!(scene.train("p", "4", &["--placement", placement]).code, 0);
        let compiled = scene.run(&["compile", "p", "--model", &llama]);
        assert_eq!(compiled.code, 0, "{}", compiled.stderr);
        let numbers = |prompt: &str| -> Vec<_> {
            classified(&scene, prompt).into_iter().map(|line| (line.label, line.log_likelihoods)).collect()
        };
        assert_eq!(numbers("p"), numbers("p-prefix"), "{placement}");
        let similar = scene.run(&["similar", "p", "p-prefix"]);
        assert!(similar.stdout.contains("it is a KV prefix, and the other is not"), "{}", similar.stdout);
        assert_eq!(scene.path("p-prefix/adapter_config.json").exists(), placement == "front");

        for (args, message) in [
            (&["compile", "p-prefix"][..], "is a KV prefix already"),
            (&["compile", "p", "--out", "p", "--force"], "the soft prompt's own directory"),
            (&["compile", "p"], "already has"),
            (&["compile", "nowhere"], "there is no prompt directory"),
        ] {
            let refused = scene.run(&[args, &["--model", &llama]].concat());
            assert_eq!(refused.code, 1, "{args:?}");
            assert!(refused.stderr.contains(message), "{args:?}: {}", refused.stderr);
        }
    }
    let scene = Scene::new();
    assert_eq!(scene.train("p", "2", &["--placement", "suffix"]).code, 0);
    let refused = scene.run(&["compile", "p", "--model", &model("llama-tiny")]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("placement suffix stands below each text"), "{}", refused.stderr);
    assert!(!scene.path("p-prefix").exists());
}

#[test]
fn few_examples_are_drawn_by_several_seeds_and_told_together() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct FewShot {
        event: String,
        shots: usize,
        split: String,
        seeds: Vec<u64>,
        accuracy: Vec<f64>,
        mean: f64,
        deviation: Option<f64>,
        majority: f64,
        bare: f64,
    }
    let scene = Scene::new();
    let few = ["--shots", "3", "--test", &sentences(), "--threads", "1", "--json", "--log", "l.jsonl"];
    let run = scene.train("p", "2", &few);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let last: FewShot = serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((last.event.as_str(), last.shots, last.split.as_str()), ("few-shot", 3, "test"));
    assert_eq!(last.seeds, [13, 21, 42, 87, 100]);
    let mean = last.accuracy.iter().sum::<f64>() / 5.0;
    let squares: f64 = last.accuracy.iter().map(|a| (a - mean).powi(2)).sum();
    assert!(
        (last.mean - mean).abs() < 1e-12 && (last.deviation.unwrap() - (squares / 4.0).sqrt()).abs() < 1e-12
    );
    assert_eq!(last.majority, 0.5);
    assert!((0.0..=1.0).contains(&last.bare));
    // The log has the lines of all five.
    assert_eq!(fs::read_to_string(scene.path("l.jsonl")).unwrap(), run.stdout);
    for seed in last.seeds {
        let passport = fs::read_to_string(scene.path(&format!("p/seed-{seed}/foreword.json"))).unwrap();
        let passport: serde_json::Value = serde_json::from_str(&passport).unwrap();
        let examples = |split: &str| passport["training"]["data"][split]["examples"].clone();
        assert_eq!((examples("train"), examples("dev")), (6.into(), 6.into()));
    }

    let told = scene.train("q", "2", &["--shots", "3", "--seed", "5", "--test", &sentences()]);
    assert!(told.stdout.contains("mean ± deviation") && told.stdout.contains("seed 5"), "{}", told.stdout);
    assert!(scene.path("q/seed-5").exists() && !scene.path("q/seed-13").exists());
    let again = scene.train("q", "2", &["--shots", "3", "--seed", "5"]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("already has"), "{}", again.stderr);
}

#[test]
fn a_batch_is_a_quarter_of_few_examples_unless_it_is_stated() {
    let scene = Scene::new();
    let (model, data) = (model("llama-tiny"), sentences());
    let batch_size = |out: &str, more: &[&str]| {
        let args = ["train", &data, "--model", &model, "--steps", "1", "--virtual-tokens", "2", "--out", out];
        let ran = scene.run(&[&args[..], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let passport = fs::read_to_string(scene.path(out).join("foreword.json")).unwrap();
        let passport: serde_json::Value = serde_json::from_str(&passport).unwrap();
        passport["training"]["settings"]["batch_size"].as_u64().unwrap()
    };
    // 24 examples, of which two are dev.
    assert_eq!(batch_size("all", &[]), 8);
    assert_eq!(batch_size("few", &["--limit", "6"]), 6);
    assert_eq!(batch_size("stated", &["--batch-size", "32"]), 32);
}

#[test]
fn a_prompt_can_begin_as_demonstrations() {
    let scene = Scene::new();
    let data = sentences();
    let llama = model("llama-tiny");
    let train = |method: &str, most: &str, out: &str, more: &[&str]| {
        let args = ["train", &data, "--model", &llama, "--steps", "3", "--method", method];
        let init = ["--init", "demonstrations", "--virtual-tokens", most, "--out", out];
        scene.run(&[&args[..], &init, more].concat())
    };
    for method in ["prefix", "prompt"] {
        let run = train(method, "120", method, &[]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let rows = PromptDirectory::read(&scene.path(method)).unwrap().rows;
        assert!((60..=120).contains(&rows.n_virtual()), "{}", rows.n_virtual());
        assert_eq!(classified(&scene, method).len(), 2);
    }
    let few = ["--limit", "2"];
    for (method, most, more, message) in [
        ("prefix", "3", &[][..], "not even one training example with its label fits"),
        ("prompt", "120", &few[..], "every training example is a demonstration"),
    ] {
        let refused = train(method, most, "x", more);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        assert!(refused.stderr.contains(message), "{}", refused.stderr);
        assert!(!scene.path("x").exists());
    }
}
