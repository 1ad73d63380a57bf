//! Texts from a pipe are answered as they come.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use crate::scene::{Ran, Scene, model};
use crate::schema::{Classified, Written};

/// More than any answer takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes the texts one by one, each only after the answer to the one before it; the answers.
#[track_caller]
fn converse(scene: &Scene, args: &[&str], texts: &[&str]) -> Vec<String> {
    let mut command = scene.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let (sender, answers) = mpsc::channel();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut stdin = child.stdin.take().unwrap();
    let mut answered = Vec::new();
    for text in texts {
        writeln!(stdin, "{text}").unwrap();
        answered.push(answers.recv_timeout(PATIENCE).expect("an answer while the pipe is open"));
    }
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(answers.recv().is_err(), "one answer for each text");
    answered
}

fn classify(model: &str) -> [&str; 8] {
    ["classify", "--prompt", "none", "--model", model, "--labels", "a= a,b= b", "--json"]
}

fn generate(model: &str) -> [&str; 8] {
    ["generate", "--prompt", "none", "--model", model, "--max-new-tokens", "5", "--json"]
}

#[test]
fn each_line_is_answered_before_the_next_one_comes() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    let texts = ["a dog", "", "two cats and a bird"];
    let (classify, generate) = (classify(&llama), generate(&llama));
    for (args, is_generate) in [(&classify, false), (&generate, true)] {
        let answered = converse(&scene, &[&args[..], &["-"]].concat(), &texts);
        // All at once: the same bits.
        let at_once =
            scene.run_with(&[&args[..], &["-"]].concat(), format!("{}\n", texts.join("\n")).as_bytes());
        assert_eq!(at_once.stdout.lines().collect::<Vec<_>>(), answered);
        let given: Vec<String> = if is_generate {
            at_once.lines::<Written>().into_iter().map(|line| line.text).collect()
        } else {
            at_once.lines::<Classified>().into_iter().map(|line| line.text).collect()
        };
        assert_eq!(given, texts);
        assert!(at_once.stderr.contains("1 of 3 texts is empty (example 2)"), "{}", at_once.stderr);
    }
    let objects = [r#"{"text": "a dog"}"#, r#"{"text": "two cats and a bird", "label": 1}"#];
    let answered = converse(&scene, &[&classify[..], &["-"]].concat(), &objects);
    let blank = scene.run_with(
        &[&classify[..], &["-"]].concat(),
        format!("{}\n\n{}\n", objects[0], objects[1]).as_bytes(),
    );
    assert_eq!(blank.stdout.lines().collect::<Vec<_>>(), answered, "{}", blank.stderr);
    let plain = scene.run(&[&classify[..], &["a dog", "two cats and a bird"]].concat());
    assert_eq!(plain.stdout.lines().collect::<Vec<_>>(), answered);
}

#[test]
fn a_line_that_can_not_be_read_costs_none_of_the_lines_before_it() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    let (classify, generate) = (classify(&llama), generate(&llama));
    let run = |args: &[&str], input: &[u8]| scene.run_with(&[args, &["-"]].concat(), input);
    let refused = |ran: Ran, said: &str| {
        assert_eq!((ran.code, ran.stdout.lines().count()), (1, 2), "{}", ran.stderr);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    };
    for args in [&classify[..], &generate[..]] {
        refused(
            run(args, b"one\ntwo\n\xff\nfour\n"),
            "standard input, line 3: stream did not contain valid UTF-8",
        );
        refused(
            run(args, b"{\"text\": \"one\"}\n{\"text\": \"two\"}\nthree\n"),
            "standard input, line 3: the first text is a JSON object with the template's field, and the text \"three\" \
             is not",
        );
    }
    let nothing = run(&classify, b"");
    assert!(
        nothing.code == 1 && nothing.stderr.contains("standard input has no lines"),
        "{}",
        nothing.stderr
    );
}

#[test]
fn as_many_lines_as_wanted_are_read() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    let args = [&classify(&llama)[..], &["--limit", "2", "-"]].concat();
    let answers: Vec<Classified> = scene.run_with(&args, b"one\ntwo\nthree\n").lines();
    assert_eq!(answers.into_iter().map(|answer| answer.text).collect::<Vec<_>>(), ["one", "two"]);
    // A byte order mark is no part of the first text.
    let args = [&classify(&llama)[..], &["-"]].concat();
    assert_eq!(scene.run_with(&args, b"\xef\xbb\xbfone\n").line::<Classified>().text, "one");
}

#[test]
fn a_calibration_by_all_texts_waits_for_all() {
    let (scene, llama) = (Scene::new(), model("llama-tiny"));
    let args = [&classify(&llama)[..], &["--calibrate", "batch"]].concat();
    let piped = scene.run_with(&[&args[..], &["-"]].concat(), b"one\ntwo\nthree\n");
    assert_eq!(piped.lines::<Classified>().len(), 3);
    assert_eq!(piped.stdout, scene.run(&[&args[..], &["one", "two", "three"]].concat()).stdout);
}
