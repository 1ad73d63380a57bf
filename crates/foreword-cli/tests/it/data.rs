//! Where examples come from, and how many are taken: packed files, standard input, --limit.

use std::fs;
use std::io::Write as _;

use crate::scene::{Ran, Scene, model, root, sentences};
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
    error: standard input, line 2: 1 cell, but there are 2 fields
    hint: correct the row, name the character between cells with --delimiter, or leave such rows out with --skip-bad
    ");

    let classify = ["classify", "--prompt", "none", "--model", &llama, "--labels", "a= a,b= b", "--json"];
    let ran = scene.run_with(&[&classify[..], &["--data", "-"]].concat(), b"id,text\n1,good\n2,bad\n");
    let texts: Vec<String> = ran.lines::<Classified>().into_iter().map(|answer| answer.text).collect();
    assert_eq!(texts, ["good", "bad"]);
}

#[test]
fn data_in_other_forms_is_read_and_how_is_said() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    let files = root().join("testdata/data/files");
    let eval = |name: &str, more: &[&str]| {
        let path = files.join(name).display().to_string();
        let eval = ["eval", "--prompt", "none", "--model", &llama, "--json", "--data", &path];
        let ran = scene.run(&[&eval[..], more].concat());
        (ran.line::<Report>().n, ran.stderr)
    };
    let (n, said) = eval("german.csv", &["--label-field", "Bewertung", "--text-field", "Text"]);
    assert_eq!(n, 2);
    assert!(
        said.contains("read as windows-1252") && said.contains("separated by semicolons, not commas"),
        "{said}"
    );
    let (n, said) =
        eval("cola.tsv", &["--text-field", "4", "--label-field", "2", "--label-names", "0=bad,1=good"]);
    assert_eq!(n, 3);
    assert!(said.contains("the first line is read as an example"), "{said}");
    let (n, said) = eval("imdb", &[]);
    assert_eq!(n, 4);
    assert!(said.contains("a folder for each label: neg (2), pos (2)"), "{said}");
    assert_eq!(eval("bare.csv", &["--no-header", "--text-field", "1", "--label-field", "2"]).0, 2);
    assert_eq!(eval("colon.csv", &["--delimiter", ":"]).0, 2);
    assert_eq!(eval("polish.csv", &["--encoding", "iso-8859-2"]).0, 2);
    assert_eq!(eval("zstd_1.parquet", &[]).0, 4);
    assert_eq!(eval("saved", &[]).0, 4);
    assert_eq!(eval("reviews.train", &[]).0, 2);

    scene.file("ragged.csv", "text,label\ngood,up\nwhat, no\nbad,down\nfine, really,up\n");
    let eval = ["eval", "--prompt", "none", "--model", &llama, "--json", "--data", "ragged.csv"];
    assert_eq!(scene.run(&eval).code, 1);
    let ran = scene.run(&[&eval[..], &["--skip-bad", "--labels", "up= up,down= down, no= no"]].concat());
    let left_out = "ragged.csv: 1 of 4 rows were left out: line 5 (3 cells, but there are 2 fields)";
    assert!(ran.code == 0 && ran.stderr.contains(left_out), "{}", ran.stderr);

    scene.file("gaps.jsonl", "{\"text\": \"good\", \"label\": \"up\"}\n{\"text\": null, \"label\": \"up\"}\n{\"text\": \"bad\", \"label\": \"down\"}\n{\"text\": \"x\", \"label\": \" \"}\n");
    let eval = ["eval", "--prompt", "none", "--model", &llama, "--json", "--data", "gaps.jsonl"];
    assert_eq!(scene.run(&eval).code, 1);
    let ran = scene.run(&[&eval[..], &["--skip-bad"]].concat());
    assert_eq!(ran.line::<Report>().n, 2, "{}", ran.stderr);
    let lacking =
        "gaps.jsonl: 2 of 4 examples lack a value and were left out: line 2 (no value in \"text\"), line 4";
    assert!(
        ran.stderr.contains(lacking) && ran.stderr.contains("line 4 (no label or target)"),
        "{}",
        ran.stderr
    );
    let out = [
        "train",
        "gaps.jsonl",
        "--model",
        &llama,
        "--steps",
        "1",
        "--virtual-tokens",
        "2",
        "--skip-bad",
        "--out",
        "p",
    ];
    let ran = scene.run(&out);
    assert!(ran.code == 0 && ran.stderr.contains(lacking), "{}", ran.stderr);
}

#[test]
fn texts_without_a_value_are_left_out_if_that_is_wanted() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    scene.file(
        "gaps.jsonl",
        "{\"text\": \"good\"}\n{\"text\": null}\n{\"text\": \"\"}\n{\"id\": 1}\n{\"text\": \"bad\"}\n",
    );
    scene.file("gaps.csv", "text,id\ngood,1\n,2\nbad,3\n").file("none.csv", "text,id\n,1\n ,2\n");
    let classify =
        ["classify", "--prompt", "none", "--model", &llama, "--labels", "a= a,b= b", "--json", "--data"];
    let with = |more: &[&str]| scene.run(&[&classify[..], more].concat());
    insta::assert_snapshot!(scene.told(&with(&["gaps.jsonl"])), @r#"
    exit 1
    error: gaps.jsonl, line 2: missing value in the field "text", give it one or take the example out
    hint: leave such examples out with --skip-bad
    "#);
    let texts =
        |ran: &Ran| ran.lines::<Classified>().into_iter().map(|answer| answer.text).collect::<Vec<_>>();
    let ran = with(&["gaps.jsonl", "--skip-bad", "--out", "out.csv"]);
    assert_eq!(texts(&ran), ["good", "bad"]);
    let left_out = "gaps.jsonl: 3 of 5 examples lack a value and were left out: line 2 (no value in \"text\"), line 3 (no text \
                    in \"text\"), line 4 (no value in \"text\")";
    assert!(ran.stderr.contains(left_out), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(scene.path("out.csv")).unwrap().lines().count(), 3);
    let ran = with(&["gaps.csv", "--skip-bad"]);
    assert_eq!(texts(&ran), ["good", "bad"]);
    assert!(ran.stderr.contains("1 of 3 examples lack a value and were left out: line 3"), "{}", ran.stderr);
    let ran = with(&["none.csv", "--skip-bad"]);
    assert!(ran.code == 1 && ran.stderr.contains("none.csv: all 2 examples lack a value"), "{}", ran.stderr);
}

#[test]
fn what_a_packed_or_nested_file_holds_is_kept_in_tables() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    let files = root().join("testdata/data/files");
    let classify = |name: &str, out: &str| {
        let path = files.join(name).display().to_string();
        let classify = [
            "classify",
            "--prompt",
            "none",
            "--model",
            &llama,
            "--labels",
            "a= a,b= b",
            "--force",
            "--data",
            &path,
        ];
        let ran = scene
            .run(&[&classify[..], &["--text-field", "text", "--template", "{text}", "--out", out]].concat());
        assert!(ran.code == 0 && !ran.stderr.contains("missing in the table"), "{}", ran.stderr);
        fs::read_to_string(scene.path(out)).unwrap()
    };
    for name in ["nested.parquet", "nested_2.parquet", "nested.feather"] {
        let lines = classify(name, "out.jsonl");
        let rows: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows[0]["tags"], serde_json::json!(["a", "b \"c\""]), "{name}");
        assert_eq!(rows[0]["about"]["who"], serde_json::json!({"name": "A", "born": "2024-05-17"}));
        assert_eq!(rows[1]["when"], serde_json::json!(["2024-05-17 09:30:00.500000", null]));
        assert_eq!(rows[1]["tags"], serde_json::json!([]));
        assert!(rows[2]["tags"].is_null() && rows[0]["map"]["a"] == 1, "{lines}");
        let table = classify(name, "out.csv");
        assert!(table.contains("\"[\"\"x\"\", \"\"y\"\"]\"") && table.contains("09:30:00"), "{table}");
    }
}

#[test]
fn truth_values_are_labels_whatever_their_capitals() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    scene.file("d.csv", "text,label\ngood,True\nbad,False\nfine,True\npoor,False\n");
    scene.file("d.jsonl", "{\"text\": \"good\", \"label\": true}\n{\"text\": \"bad\", \"label\": false}\n");
    let train = ["train", "d.csv", "--model", &llama, "--steps", "1", "--virtual-tokens", "2", "--out"];
    let ran = scene.run(&[&train[..], &["p"]].concat());
    assert!(ran.code == 0, "{}", ran.stderr);
    let named = scene.run(&[&train[..], &["q", "--label-names", "True=yes,False=no"]].concat());
    assert!(named.code == 0, "{}", named.stderr);
    let files = root().join("testdata/data/files");
    let parquet = files.join("zstd_1.parquet").display().to_string();
    for prompt in ["p", "q"] {
        let eval = ["eval", "--prompt", prompt, "--model", &llama, "--json", "--data"];
        assert_eq!(scene.run(&[&eval[..], &["d.jsonl"]].concat()).line::<Report>().n, 2);
        let ran = scene.run(&[&eval[..], &[&parquet, "--label-field", "sure", "--skip-bad"]].concat());
        assert_eq!(ran.line::<Report>().n, 3, "{}", ran.stderr);
    }
}

#[test]
fn instructions_with_answers_are_a_generation() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    for name in [
        "alpaca.json",
        "prompt_completion.jsonl",
        "messages.jsonl",
        "sharegpt.json",
        "messages.parquet",
        "messages_old.parquet",
        "sharegpt.feather",
    ] {
        let path = root().join("testdata/data/files").join(name).display().to_string();
        let train = [
            "train",
            &path,
            "--dev",
            &path,
            "--model",
            &llama,
            "--steps",
            "1",
            "--virtual-tokens",
            "2",
            "--force",
            "--out",
            "p",
        ];
        let ran = scene.run(&train);
        assert_eq!(ran.code, 0, "{name}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("are generated (--kind classification takes them as labels)"),
            "{}",
            ran.stderr
        );
        assert_eq!(recorded(&scene, "p", "/task/kind"), "generation", "{name}");
    }
    assert_eq!(recorded(&scene, "p", "/task/target_field"), "assistant");
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

/// Thirty texts of one label, and then thirty of another.
fn sorted() -> String {
    let of = |label: &str| (0..30).map(|i| format!("{label} text {i},{label}\n")).collect::<String>();
    format!("text,label\n{}{}", of("up"), of("down"))
}

#[test]
fn a_limit_draws_by_label_where_something_is_measured_or_learned() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    scene.file("sorted.csv", sorted());
    let eval = ["eval", "--prompt", "none", "--model", &llama, "--data", "sorted.csv", "--json"];
    let limited = |more: &[&str]| scene.run(&[&eval[..], more].concat());
    let ran = limited(&["--limit", "6"]);
    let report: Report = ran.line();
    let true_ones: Vec<u64> = report.confusion.values().map(|row| row.values().sum()).collect();
    assert_eq!((report.n, true_ones), (6, vec![3, 3]));
    assert!(ran.stderr.contains("--limit: 6 of 60 examples, drawn by label (seed 0)"), "{}", ran.stderr);
    assert_eq!(limited(&["--limit", "6"]).line::<Report>(), report);
    let other = limited(&["--limit", "6", "--seed", "1"]);
    assert!(other.stderr.contains("drawn by label (seed 1)"), "{}", other.stderr);
    assert_ne!(other.line::<Report>().loss, report.loss);
    assert_eq!(limited(&["--limit", "60"]).line::<Report>(), limited(&[]).line::<Report>());
    let targets = limited(&["--limit", "6", "--target-field", "label", "--max-new-tokens", "1"]);
    assert!(targets.stderr.contains("6 of 60 examples, drawn by chance (seed 0)"), "{}", targets.stderr);

    let compare =
        ["compare", "--train", "sorted.csv", "--test", "sorted.csv", "--model", &llama, "--limit", "10"];
    let ran = scene.run(&[&compare[..], &["--shots", "0"]].concat());
    let majority = ran.stdout.lines().find(|line| line.starts_with("majority class")).unwrap();
    assert!(majority.contains("50.0 %"), "{majority}");
    assert!(
        ran.stderr.contains("--limit: 10 of 60 test examples, drawn by label (seed 0)"),
        "{}",
        ran.stderr
    );

    // What is only answered is answered in its order.
    let classify = ["classify", "--prompt", "none", "--model", &llama, "--labels", "a= a,b= b", "--json"];
    let ran = scene.run(&[&classify[..], &["--data", "sorted.csv", "--limit", "3"]].concat());
    let texts: Vec<String> = ran.lines::<Classified>().into_iter().map(|answer| answer.text).collect();
    assert_eq!(texts, ["up text 0", "up text 1", "up text 2"]);
    assert!(ran.stderr.contains("--limit: the first 3 of 60 texts"), "{}", ran.stderr);

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

/// What the passport in a directory says under a JSON pointer.
fn recorded(scene: &Scene, dir: &str, pointer: &str) -> serde_json::Value {
    let text = fs::read_to_string(scene.path(dir).join("foreword.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap().pointer(pointer).unwrap().clone()
}

#[test]
fn digests_are_of_the_examples_that_are_used() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    let lines: Vec<String> = sorted().lines().skip(1).map(str::to_owned).collect();
    let json = lines.iter().map(|line| line.split_once(',').unwrap());
    let json =
        json.map(|(text, label)| format!("{{\"id\": 1, \"label\": \"{label}\", \"text\": \"{text}\"}}\n"));
    scene.file("sorted.csv", sorted()).file("same.jsonl", json.collect::<String>());
    let train = |data: &str, out: &str, more: &[&str]| {
        let args = ["train", data, "--model", &llama, "--steps", "1", "--virtual-tokens", "2", "--out", out];
        let ran = scene.run(&[&args[..], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ["train", "dev"].map(|split| recorded(&scene, out, &format!("/training/data/{split}/digest")))
    };
    let [all, dev] = train("sorted.csv", "a", &[]);
    assert_ne!(all, dev);
    assert_eq!(
        train("same.jsonl", "same", &[]),
        [all.clone(), dev.clone()],
        "the same examples in another file"
    );
    let [other, other_dev] = train("sorted.csv", "b", &["--seed", "1"]);
    assert!(other != all && other_dev != dev);
    let [limited, limited_dev] = train("sorted.csv", "c", &["--limit", "20"]);
    assert!(limited != all && limited_dev == dev);
    let file = |dir, split| recorded(&scene, dir, &format!("/training/data/{split}/file_digest"));
    assert_eq!(file("a", "train"), file("a", "dev"));
    assert_ne!(file("a", "train"), file("same", "train"));
}

#[test]
fn a_prompt_of_an_earlier_version_still_loads() {
    let scene = Scene::new();
    assert_eq!(scene.train("p", "1", &[]).code, 0);
    let path = scene.path("p/foreword.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"file_digest\"") && !text.contains("label_names"));
    let without: Vec<&str> = text.lines().filter(|line| !line.contains("\"file_digest\"")).collect();
    fs::write(&path, without.join("\n")).unwrap();
    let ran = scene.run(&["classify", "--prompt", "p", "--model", &model("llama-tiny"), "x", "--json"]);
    assert_eq!(ran.line::<Classified>().text, "x");
}

#[test]
fn what_holds_for_several_files_is_said_once() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    let rows = |n: usize| {
        let row = |i: usize| format!("text {n} {i};{}\n", ["good", "bad"][i % 2]);
        format!("text;label\n{}", (0..12).map(row).collect::<String>())
    };
    scene.file("a.csv", rows(1)).file("b.csv", rows(2)).file("c.csv", rows(3).replace(';', ","));
    let train = |more: &[&str]| {
        let args =
            ["train", "a.csv", "--model", &llama, "--steps", "1", "--virtual-tokens", "2", "--out", "p"];
        scene.run(&[&args[..], &["--force"], more].concat())
    };
    let ran = train(&["--dev", "b.csv", "--test", "c.csv"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let said: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("separated by")).collect();
    assert_eq!(said.len(), 1, "{}", ran.stderr);
    assert!(
        said[0].starts_with("a.csv, b.csv: cells are separated by semicolons, not commas"),
        "{}",
        said[0]
    );
    let ran = train(&["--dev", "c.csv"]);
    assert!(
        ran.stderr.contains("\na.csv: cells are separated")
            || ran.stderr.starts_with("a.csv: cells are separated"),
        "{}",
        ran.stderr
    );
    // What was said of the files before one that can't be read is said all the same.
    let ran = train(&["--dev", "nowhere.csv"]);
    assert!(ran.code == 1 && ran.stderr.contains("a.csv: cells are separated"), "{}", ran.stderr);
    let ran =
        scene.run(&["compare", "--train", "a.csv", "--test", "b.csv", "--model", &llama, "--shots", "0"]);
    assert_eq!((ran.code, ran.stderr.matches("separated by").count()), (0, 1), "{}", ran.stderr);
}

#[test]
fn only_what_was_guessed_is_called_guessed() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    let rows = (0..12).map(|i| format!("text {i},{}\n", ["good", "bad"][i % 2]));
    scene.file("d.csv", format!("review,sentiment\n{}", rows.collect::<String>()));
    let fields = |more: &[&str]| {
        let args =
            ["train", "d.csv", "--model", &llama, "--steps", "1", "--virtual-tokens", "2", "--out", "p"];
        let ran = scene.run(&[&args[..], &["--force"], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stderr.lines().find_map(|line| line.strip_prefix("fields    ")).unwrap().to_owned()
    };
    let (text, label) = (["--text-field", "review"], ["--label-field", "sentiment"]);
    assert_eq!(
        fields(&[]),
        "text \"review\", label \"sentiment\" (guessed; override with --text-field and --label-field)"
    );
    assert_eq!(fields(&text), "text \"review\", label \"sentiment\" (guessed; override with --label-field)");
    assert_eq!(fields(&label), "text \"review\" (guessed; override with --text-field), label \"sentiment\"");
    assert_eq!(fields(&[text, label].concat()), "text \"review\", label \"sentiment\"");
}
