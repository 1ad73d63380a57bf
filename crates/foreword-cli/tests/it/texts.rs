//! What a text is: not the name of a file, not one field of several, not nothing.

use crate::scene::{Scene, model};
use crate::schema::{Classified, Report, Written};

const PAIRS: &str = "premise,hypothesis,label\nIt rains.,It is wet.,yes\nIt rains.,It is dry.,no\nShe sings.,She is loud.,yes\n\
                     She sings.,She is mute.,no\nHe runs.,He moves.,yes\nHe runs.,He sleeps.,no\n";

fn classify<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["classify", "--prompt", "none", "--model", model, "--labels", "a= a,b= b", "--json"][..], more]
        .concat()
}

#[test]
fn the_name_of_a_file_is_no_text() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    scene.file("reviews.csv", "text\ngood\n").file("two words.txt", "good\nbad\n").file("plain", "good\n");
    let refused = |args: &[&str]| {
        let ran = scene.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{args:?}: {}", ran.stderr);
        ran.stderr
    };
    let said = refused(&classify(&llama, &["reviews.csv"]));
    assert!(
        said.starts_with("error: \"reviews.csv\" is a file, and a text is wanted\nhint: to read it: "),
        "{said}"
    );
    assert!(
        said.contains(
            " --json --data reviews.csv; to take the name itself as a text: --field 'text=reviews.csv'"
        ),
        "{said}"
    );
    let said = refused(&classify(&llama, &["good", "two words.txt"]));
    assert!(said.contains("a text a line: ") && said.contains(" - < 'two words.txt'; "), "{said}");
    assert!(refused(&classify(&llama, &["plain"])).contains("\"plain\" is a file"));
    let said = refused(&classify(&llama, &["revews.csv"]));
    assert!(said.contains("\"revews.csv\" looks like a file, and there is none of that name"), "{said}");
    assert!(said.contains("--field 'text=revews.csv'"), "{said}");
    let generate = ["generate", "--prompt", "none", "--model", &llama, "--max-new-tokens", "1"];
    assert!(refused(&[&generate[..], &["reviews.csv"]].concat()).contains("is a file"));

    let texts = |more: &[&str]| -> Vec<String> {
        scene
            .run(&classify(&llama, more))
            .lines::<Classified>()
            .into_iter()
            .map(|answer| answer.text)
            .collect()
    };
    assert_eq!(texts(&["--field", "text=reviews.csv"]), ["reviews.csv"]);
    assert_eq!(texts(&["--template", "{review}:", "--field", "text=reviews.csv"]), ["reviews.csv"]);
    assert_eq!(texts(&["--data", "reviews.csv"]), ["good"]);
    assert_eq!(texts(&["I read reviews.csv", "nor csv"]), ["I read reviews.csv", "nor csv"]);
    scene.train("p", "1", &[]);
    let explain = ["explain", "--prompt", "p", "--model", &llama];
    assert!(refused(&[&explain[..], &["reviews.csv"]].concat()).contains("is a file"));
}

#[test]
fn fields_that_belong_together_are_read_together() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    scene.file("pairs.csv", PAIRS);
    let train =
        ["train", "pairs.csv", "--model", &llama, "--steps", "1", "--virtual-tokens", "2", "--out", "p"];
    let ran = scene.run(&train);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains(
            "text \"premise\" and \"hypothesis\", label \"label\" (guessed; override with --template and"
        ),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains(r#"template  "{premise}\n{hypothesis}\nLabel:""#), "{}", ran.stderr);
    assert!(ran.stderr.contains("Classify the premise and hypothesis as no or yes."), "{}", ran.stderr);
    assert!(ran.stderr.contains(r#"classify --prompt p --model "#), "{}", ran.stderr);

    let asked = ["--prompt", "p", "--model", &llama, "--json"];
    let answers = |more: &[&str]| scene.run(&[&["classify"][..], &asked, more].concat());
    let of_file: Vec<Classified> = answers(&["--data", "pairs.csv", "--limit", "1"]).lines();
    let fields = of_file[0].fields.clone().unwrap();
    assert_eq!(
        (of_file[0].text.as_str(), fields["premise"].as_str(), fields["hypothesis"].as_str()),
        ("It rains.", "It rains.", "It is wet.")
    );
    let object = r#"{"hypothesis": "It is wet.", "premise": "It rains."}"#;
    assert_eq!(answers(&[object]).lines::<Classified>(), of_file);
    assert_eq!(
        answers(&["--field", "hypothesis=It is wet.", "--field", "premise=It rains."]).lines::<Classified>(),
        of_file
    );
    let piped = scene.run_with(&[&["classify"][..], &asked, &["-"]].concat(), object.as_bytes());
    assert_eq!(piped.lines::<Classified>(), of_file);

    let refused = answers(&["It rains."]);
    insta::assert_snapshot!(scene.told(&refused), @r#"
    exit 1
    error: the template has several fields (premise, hypothesis), and the text "It rains." is no JSON object with them
    hint: write '{"premise": "…", "hypothesis": "…"}', or --field premise=… --field hypothesis=…, or give --data FILE
    "#);
    let missing = answers(&["--field", "premise=It rains."]);
    assert!(
        missing.code == 1 && missing.stderr.contains("field \"hypothesis\" is missing"),
        "{}",
        missing.stderr
    );
    let unknown = answers(&["--field", "text=It rains."]);
    assert!(
        unknown.code == 1 && unknown.stderr.contains("its fields are premise, hypothesis"),
        "{}",
        unknown.stderr
    );
    let twice = answers(&[r#"{"premise": "a", "premise": "b", "hypothesis": "c"}"#]);
    assert!(twice.code == 1 && twice.stderr.contains("\"premise\" occurs twice"), "{}", twice.stderr);
    let explained = scene.run(&["explain", "--prompt", "p", "--model", &llama, object, "--json"]);
    assert_eq!(explained.code, 0, "{}", explained.stderr);
    assert!(explained.stdout.contains("\"text\":\"It rains. | It is wet.\""), "{}", explained.stdout);
    let by_field = ["--field", "premise=It rains.", "--field", "hypothesis=It is wet."];
    let explain = ["explain", "--prompt", "p", "--model", &llama, "--json"];
    assert_eq!(scene.run(&[&explain[..], &by_field].concat()).stdout, explained.stdout);

    // The bare model reads what training would.
    let bare = scene.run(&["eval", "--prompt", "none", "--model", &llama, "--data", "pairs.csv", "--json"]);
    assert!(
        bare.stderr.contains(r#"template  "{premise}\n{hypothesis}\nLabel:" (guessed from the fields"#),
        "{}",
        bare.stderr
    );
    assert_eq!(bare.line::<Report>().n, 6);
    let compared = scene.run(&[
        "compare",
        "--train",
        "pairs.csv",
        "--test",
        "pairs.csv",
        "--model",
        &llama,
        "--shots",
        "1",
    ]);
    assert!(compared.stderr.contains("text \"premise\" and \"hypothesis\""), "{}", compared.stderr);
}

#[test]
fn an_instruction_goes_with_its_input() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    let row = |instruction: &str, input: &str, output: &str| {
        format!("{{\"instruction\": \"{instruction}\", {input}\"output\": \"{output}\"}}\n")
    };
    let rows = [
        row("Name the capital of France.", "\"input\": \"\", ", "Paris."),
        row("Name a colour.", "", "Blue."),
        row("Translate.", "\"input\": \"Hallo\", ", "Hello."),
    ];
    scene.file("alpaca.jsonl", rows.concat());
    let train = ["train", "alpaca.jsonl", "--target-field", "output", "--model", &llama, "--steps", "1"];
    let ran = scene.run(&[&train[..], &["--virtual-tokens", "2", "--out", "p"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains(r#"template  "{instruction}\n{?input}\nOutput:""#), "{}", ran.stderr);
    assert!(
        ran.stderr.contains(
            "text \"instruction\" and \"input\" (guessed; override with --template), target \"output\""
        ),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("warning") && !ran.stderr.contains("not used"), "{}", ran.stderr);
    let generate = ["generate", "--prompt", "p", "--model", &llama, "--max-new-tokens", "1", "--json"];
    let of = |more: &[&str]| scene.run(&[&generate[..], more].concat()).lines::<Written>();
    let of_file = of(&["--data", "alpaca.jsonl"]);
    assert_eq!(of_file[2].fields.clone().unwrap()["input"], "Hallo");
    // An instruction alone may stand as it is.
    assert_eq!(of(&["Name a colour."])[0].output, of_file[1].output);
    assert_eq!(of(&[r#"{"instruction": "Translate.", "input": "Hallo"}"#])[0].output, of_file[2].output);
}

#[test]
fn fields_that_are_not_read_are_named() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    let rows = (0..8)
        .map(|i| format!("Title number {i},text {i} of some,{}\n", if i % 2 == 0 { "up" } else { "down" }));
    scene.file("titled.csv", format!("title,text,label\n{}", rows.collect::<String>()));
    let said =
        "the field \"title\" is not used (--template takes several, as in '{title}\\n{text}\\nLabel:')";
    let train =
        ["train", "titled.csv", "--model", &llama, "--steps", "1", "--virtual-tokens", "2", "--out", "p"];
    for args in [
        &train[..],
        &["eval", "--prompt", "none", "--model", &llama, "--data", "titled.csv"],
        &["classify", "--prompt", "none", "--model", &llama, "--labels", "a= a,b= b", "--data", "titled.csv"],
        &["generate", "--prompt", "p", "--model", &llama, "--data", "titled.csv", "--max-new-tokens", "1"],
        &["compare", "--test", "titled.csv", "--model", &llama, "--shots", "0"],
    ] {
        let ran = scene.run(args);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
    }
    let both = scene.run(&[&train[..], &["--template", "{title}\\n{text}\\nLabel:", "--force"]].concat());
    assert!(both.code == 0 && !both.stderr.contains("not used"), "{}", both.stderr);
    scene.file("unknown.csv", "headline,story,label\nIt rains,All day long,up\nSun,All week long,down\n");
    let unknown = scene.run(&["train", "unknown.csv", "--model", &llama]);
    assert!(
        unknown.stderr.contains("or use several with --template '{headline}\\n{story}\\nAnswer:'"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn empty_texts_are_told_of_everywhere() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    let label = |i: usize| if i.is_multiple_of(2) { "up" } else { "down" };
    let rows = (0..12)
        .map(|i| format!("{},{}\n", if i < 2 { " ".repeat(i) } else { format!("text {i}") }, label(i)));
    scene.file("holes.csv", format!("text,label\n{}", rows.collect::<String>()));
    let warned = |args: &[&str], said: &str| {
        let ran = scene.run(args);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
        ran.code
    };
    let train = [
        "train",
        "holes.csv",
        "--dev",
        "holes.csv",
        "--model",
        &llama,
        "--steps",
        "1",
        "--virtual-tokens",
        "2",
    ];
    let said = "warning: 2 of 12 training texts are empty (holes.csv, line 2; holes.csv, line 3): they teach labels without a text";
    assert_eq!(warned(&[&train[..], &["--out", "p"]].concat(), said), 0);
    assert_eq!(warned(&[&train[..], &["--out", "q", "--strict"]].concat(), said), 1);
    let said = "warning: 2 of 12 texts are empty (holes.csv, line 2; holes.csv, line 3): the answer to them says nothing";
    for args in [
        &["eval", "--prompt", "p", "--model", &llama, "--data", "holes.csv"][..],
        &["classify", "--prompt", "p", "--model", &llama, "--data", "holes.csv"],
        &[
            "generate",
            "--prompt",
            "p",
            "--model",
            &llama,
            "--data",
            "holes.csv",
            "--max-new-tokens",
            "1",
            "--quiet",
        ],
    ] {
        assert_eq!(warned(args, said), 0);
    }
    assert_eq!(
        warned(
            &["compare", "--test", "holes.csv", "--model", &llama, "--shots", "0"],
            "2 of 12 test texts are empty"
        ),
        0
    );
    let piped = scene.run_with(&classify(&llama, &["-"]), b"good\n\nbad\n");
    assert!(piped.stderr.contains("1 of 3 texts is empty (example 2)"), "{}", piped.stderr);
}

#[test]
fn what_is_no_text_is_said() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    std::fs::create_dir(scene.path("folder")).unwrap();
    let ran = scene.run(&classify(&llama, &["folder"]));
    assert!(ran.code == 1 && ran.stderr.contains("\"folder\" is a directory"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--data folder"), "{}", ran.stderr);
    let ran = scene.run_with(&classify(&llama, &["-", "--encoding", "latin-1"]), b"x\n");
    assert!(ran.code == 1 && ran.stderr.contains("--encoding"), "{}", ran.stderr);
    let broken = r#"{"text": "a dog""#;
    let ran = scene.run(&classify(&llama, &[broken]));
    assert_eq!(ran.line::<Classified>().text, broken);
    assert!(ran.stderr.contains("looks like JSON, but is not valid"), "{}", ran.stderr);
    assert!(!scene.run(&classify(&llama, &["{a} dog"])).stderr.contains("JSON"));
}

#[test]
fn scores_on_what_was_learned_are_said_to_be_too_good() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    assert_eq!(scene.train("p", "1", &[]).code, 0);
    let sentences = crate::scene::sentences();
    let warned = |data: &str| {
        let ran = scene.run(&["eval", "--prompt", "p", "--model", &llama, "--data", data]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stderr.contains("the prompt was trained on this file")
    };
    assert!(warned(&sentences));
    scene.file("other.jsonl", std::fs::read_to_string(&sentences).unwrap().replace("the", "a"));
    assert!(!warned("other.jsonl"));
}
