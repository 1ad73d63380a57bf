//! The guide in docs/ says what the program does: its keys, flags, fields and commands.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::scene::{Scene, model, root, sentences};

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// Fails unless the page of formats names each as `name`, or in `name.other`.
#[track_caller]
fn told(names: &BTreeSet<String>) {
    let page = page("file-formats.md");
    let mut words = BTreeSet::new();
    for quoted in page.split('`').skip(1).step_by(2) {
        words.extend(quoted.split_whitespace().flat_map(|word| word.split('.').chain([word])));
    }
    assert!(names.len() > 3, "{names:?}");
    let missing: Vec<&String> = names.iter().filter(|name| !words.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/file-formats.md does not name {missing:?}");
}

/// The keys of all objects in a value, but for those whose keys are somebody's names.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    const OF_NAMES: [&str; 12] = [
        "spec",
        "labels",
        "label_names",
        "fields",
        "metrics",
        "data",
        "probabilities",
        "log_likelihoods",
        "confusion",
        "label_cosines",
        "offsets",
        "per_label",
    ];
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                found.insert(key.clone());
                if !OF_NAMES.contains(&key.as_str()) {
                    keys(value, found);
                } else if let Value::Object(named) = value {
                    // What is below the names is named here again, unless it is a label's, or the architecture's.
                    let below = ["metrics", "data", "per_label"].contains(&key.as_str());
                    named.values().filter(|_| below).for_each(|value| keys(value, found));
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_key_of_a_task_file_is_told() {
    let scene = Scene::new();
    let mut names = BTreeSet::new();
    for table in ["", "[data]\n", "[task]\n", "[prompt]\n", "[train]\n"] {
        scene.file("task.toml", format!("{table}nonsense = 1\n"));
        // The reader lists the keys that there are.
        let message = scene.run(&["train", "task.toml"]).stderr;
        let (_, listed) = message.split_once("unknown field `nonsense`, expected one of ").unwrap();
        names.extend(listed.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    // Tables are told with their brackets.
    for table in ["data", "task", "prompt"] {
        assert!(names.remove(table), "{names:?}");
        assert!(page("file-formats.md").contains(&format!("**`[{table}]`**")));
    }
    assert!(names.contains("seed") && names.contains("text_field"));
    told(&names);
}

#[test]
fn every_flag_of_train_is_told() {
    let help = Scene::new().run(&["train", "--help"]).stdout;
    let (options, _) = help.split_once("Examples:").unwrap();
    let words = options.lines().filter(|line| line.starts_with("  ")).flat_map(|line| line.split([' ', ',']));
    let flag = |word: &str| word.len() > 3 && word.starts_with("--") && !word.contains('.');
    // A value that may be left out stands in brackets: --no-header[=<true|false>].
    let bare = |word: &str| word.split('[').next().unwrap_or(word).to_owned();
    let mut names: BTreeSet<String> = words.filter(|word| flag(word)).map(bare).collect();
    assert!(names.remove("--help") && names.len() > 25, "{names:?}");
    told(&names);
}

#[test]
fn every_field_of_a_passport_and_of_an_answer_is_told() {
    let scene = Scene::new();
    let (sentences, llama) = (sentences(), model("llama-tiny"));
    let trained = scene.train("p", "2", &["--test", &sentences, "--json"]);
    scene.copy(&scene.path("p"), "q");
    let of_prompt = ["--prompt", "p", "--model", &llama, "--json"];
    let calibrated = ["--calibrate", "batch", "--save-calibration"];
    let answers = [
        trained.stdout,
        scene
            .run(
                &[&["eval", "--data", &sentences, "--abstain-below", "0.6"][..], &calibrated, &of_prompt]
                    .concat(),
            )
            .stdout,
        scene.run(&[&["classify", "A fine film."][..], &of_prompt].concat()).stdout,
        scene.run(&[&["explain", "A fine film."][..], &of_prompt].concat()).stdout,
        scene.run(&["inspect", "p", "--model", &llama, "--json"]).stdout,
        scene
            .run(&[&["compare", "--train", &sentences, "--test", &sentences][..], &of_prompt].concat())
            .stdout,
        scene.run(&["similar", "p", "q", "nowhere", "--json"]).stdout,
        scene.run(&["models", "--json"]).stdout,
        fs::read_to_string(scene.path("p/foreword.json")).unwrap().replace('\n', ""),
    ];
    for answer in &answers {
        let mut names = BTreeSet::new();
        for line in answer.lines() {
            keys(&serde_json::from_str(line).unwrap(), &mut names);
        }
        told(&names);
    }
    let file = scene.path("p/adapter_config.json");
    assert!(file.exists() && page("file-formats.md").contains("`adapter_config.json`"));
}

/// A line as a shell takes it apart, up to a comment, a pipe or a redirection.
fn arguments(line: &str) -> Vec<String> {
    let (mut found, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => found.extend(word.take()),
            (None, '#' | '|' | '>' | '<') if word.is_none() => break,
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    found.extend(word);
    found
}

#[test]
fn every_command_in_the_guide_is_one() {
    let scene = Scene::new();
    // With --help the flags before it are read, and nothing is done.
    let reads = |args: &[String]| {
        let args: Vec<&str> = args.iter().map(String::as_str).chain(["--help"]).collect();
        scene.run(&args).code == 0
    };
    let words = |line: &str| arguments(line).into_iter().skip(1).collect::<Vec<_>>();
    assert!(reads(&words("foreword train 'a b.csv' --steps 3 # and so on")));
    assert!(!reads(&words("foreword train --steps 0")) && !reads(&words("foreword train --nope 1")));
    let mut n = 0;
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for path in docs.chain([root().join("README.md")]) {
        let text = fs::read_to_string(&path).unwrap().replace("\\\n", " ");
        let mut in_code = false;
        for line in text.lines() {
            in_code ^= line.starts_with("```");
            let mut commands = Vec::new();
            let line = line.trim_start_matches("$ ");
            if in_code {
                commands.extend(line.starts_with("foreword ").then_some(line));
            } else {
                let quoted = line.split('`').skip(1).step_by(2);
                commands.extend(quoted.filter(|quoted| quoted.starts_with("foreword ")));
            }
            for command in
                commands.into_iter().filter(|command| !command.contains('…') && !command.contains("VERB"))
            {
                let args = words(command);
                assert!(reads(&args), "{}: {command}", path.display());
                n += 1;
            }
        }
    }
    assert!(n > 15, "only {n} commands were found");
}

#[test]
fn the_tutorial_does_what_it_says() {
    let scene = Scene::new();
    for name in ["reviews.csv", "held-out.csv", "new.csv"] {
        scene.file(name, fs::read(root().join("examples/reviews").join(name)).unwrap());
    }
    // Numbers differ between processors, and this is a shorter run: lines are compared by how they begin.
    let beginning = |line: &str| {
        let word = line
            .split("  ")
            .next()
            .unwrap_or(line)
            .trim_start_matches(|c: char| c.is_ascii_digit() || c == ',');
        word.split(|c: char| c.is_ascii_digit()).next().unwrap_or(word).trim().to_owned()
    };
    let varies =
        ["step", "made all", "ended", "stopped", "…", "On", "It", "The prompt was chosen", "No step", "."];
    let text = page("tutorial.md");
    let mut n = 0;
    for block in text.split("```").skip(1).step_by(2).filter(|block| block.starts_with("\n$ ")) {
        let (command, shown) = block[3..].split_once('\n').unwrap();
        let (input, command) = match command.strip_prefix("printf '") {
            Some(piped) => {
                let (input, command) = piped.split_once("' | ").unwrap();
                (input.replace("\\n", "\n"), command)
            }
            None => (String::new(), command),
        };
        let mut args: Vec<String> = arguments(command).into_iter().skip(1).collect();
        if args[0] == "train" {
            args.extend(["--steps", "8"].map(str::to_owned));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let ran = scene.run_with(&args, input.as_bytes());
        assert_eq!(ran.code, 0, "{command}: {}", ran.stderr);
        let said = ran.stdout.clone() + &ran.stderr.replace(env!("CARGO_BIN_EXE_foreword"), "foreword");
        let found: BTreeSet<String> = said.lines().map(beginning).collect();
        for line in shown.lines().map(beginning) {
            let is_fixed = !varies.iter().any(|word| line.starts_with(word));
            assert!(!is_fixed || found.contains(&line), "{command} does not say {line:?}:\n{said}");
        }
        n += 1;
    }
    assert_eq!(n, 4);
    let labelled = fs::read_to_string(scene.path("labelled.csv")).unwrap();
    assert!(text.contains(labelled.lines().next().unwrap()), "{labelled}");
}
