//! What labels are called: names for numbers, one spelling, and what is said of doubtful ones.

use std::fs;

use crate::scene::{Scene, model, root};
use crate::schema::{Inspected, Report};

fn parquet(name: &str) -> String {
    root().join("testdata/data").join(name).display().to_string()
}

/// The texts of the Parquet files with these two labels.
fn csv(labels: [&str; 2]) -> String {
    let good = [
        "warm",
        "bright",
        "charming",
        "a fine film",
        "lovely",
        "good fun",
        "tender",
        "a joy",
        "witty",
        "great",
    ];
    let bad =
        ["dull", "flat", "loud", "a poor film", "grim", "no fun", "tiresome", "a bore", "stale", "weak"];
    let pair = |(good, bad)| format!("{good},{}\n{bad},{}\n", labels[1], labels[0]);
    format!("text,label\n{}", good.into_iter().zip(bad).map(pair).collect::<String>())
}

fn train<'a>(data: &'a str, model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args =
        ["train", data, "--model", model, "--steps", "2", "--virtual-tokens", "2", "--force", "--out", "p"];
    [&args[..], more].concat()
}

#[test]
fn a_class_label_has_its_names() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    let (named, turned) = (parquet("class_label.parquet"), parquet("class_label_turned.parquet"));
    let ran = scene.run(&train(&named, &llama, &["--labels", "negative= bad,positive= good"]));
    assert!(ran.stderr.contains("label     0 is \"negative\", 1 is \"positive\" (by the ClassLabel of the file; --label-names gives others)"), "{}", ran.stderr);
    assert!(ran.stderr.contains("Classify the text as bad or good."), "{}", ran.stderr);
    let passport = fs::read_to_string(scene.path("p/foreword.json")).unwrap();
    let passport: serde_json::Value = serde_json::from_str(&passport).unwrap();
    assert_eq!(passport["task"]["label_names"], serde_json::json!({"0": "negative", "1": "positive"}));
    assert_eq!(passport["task"]["labels"], serde_json::json!({"negative": " bad", "positive": " good"}));

    let inspected: Inspected = scene.run(&["inspect", "p", "--json"]).line();
    assert_eq!(inspected.passport.unwrap().label_names["1"], "positive");

    // The same examples, whatever their labels are called in the file.
    scene.file("numbers.csv", csv(["0", "1"])).file("decimals.csv", csv(["0.0", "1.0"]));
    scene
        .file("words.csv", csv(["negative", "positive"]))
        .file("spaces.csv", csv([" negative", "positive "]));
    let eval =
        |data: &str| scene.run(&["eval", "--prompt", "p", "--model", &llama, "--data", data, "--json"]);
    // A row of Parquet has the line before that of CSV, which has a header.
    let report_on = |data: &str| {
        let mut report: Report = eval(data).line();
        report.mistakes.iter_mut().for_each(|mistake| mistake.line = 0);
        report
    };
    let report = report_on(&named);
    assert_eq!(report.n, 20);
    for data in [turned.as_str(), "numbers.csv", "decimals.csv", "words.csv", "spaces.csv"] {
        assert_eq!(report_on(data), report, "{data}");
    }
    assert!(
        eval("spaces.csv")
            .stderr
            .contains("space around a label does not count: \"positive \" is \"positive\"")
    );
    let compare = [
        "compare",
        "--prompt",
        "p",
        "--model",
        &llama,
        "--shots",
        "1",
        "--train",
        &turned,
        "--test",
        "numbers.csv",
    ];
    let compared = scene.run(&compare);
    assert_eq!(compared.code, 0, "{}", compared.stderr);
    let calibrate = ["--calibrate", "temperature", "--calibrate-on", "numbers.csv"];
    let ran = scene.run(
        &[&["eval", "--prompt", "p", "--model", &llama, "--data", "words.csv"][..], &calibrate].concat(),
    );
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    // Labels that are stated for the numbers are theirs; a prompt that was trained so has no names.
    let ran = scene.run(&train(&named, &llama, &["--labels", "0= negative,1= positive"]));
    assert!(ran.code == 0 && !ran.stderr.contains("ClassLabel"), "{}", ran.stderr);
    assert!(ran.stderr.contains("Classify the text as negative or positive."), "{}", ran.stderr);
    assert!(!fs::read_to_string(scene.path("p/foreword.json")).unwrap().contains("label_names"));
    let numbers = report_on("numbers.csv");
    assert_eq!(report_on(&named), numbers);
    assert!(numbers.confusion.contains_key("0"));
}

#[test]
fn numbers_without_names_are_doubtful_and_get_them_by_a_flag_or_a_field() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    scene.file("numbers.csv", csv(["0", "1"]));
    let bare = scene.run(&train("numbers.csv", &llama, &[]));
    assert!(
        bare.stderr.contains("warning: the labels are \"0\", \"1\", which tells the model nothing"),
        "{}",
        bare.stderr
    );
    let names = ["--label-names", "0=negative,1=positive"];
    let named = scene.run(&train("numbers.csv", &llama, &names));
    assert!(named.code == 0 && !named.stderr.contains("the labels are"), "{}", named.stderr);
    let passport = |scene: &Scene| fs::read(scene.path("p/foreword.json")).unwrap();
    let by_flag = passport(&scene);

    let lines = csv(["0", "1"]).lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let with_names = lines
        .iter()
        .map(|line| format!("{line},{}\n", if line.ends_with('0') { "negative" } else { "positive" }));
    scene.file("both.csv", format!("text,label,label_text\n{}", with_names.collect::<String>()));
    let ran = scene.run(&train("both.csv", &llama, &[]));
    assert!(
        ran.stderr.contains("0 is \"negative\", 1 is \"positive\" (by the field \"label_text\";"),
        "{}",
        ran.stderr
    );
    let by_field = String::from_utf8(passport(&scene)).unwrap();
    let drop_file =
        |text: &str| text.lines().filter(|line| !line.contains("file_digest")).collect::<Vec<_>>().join("\n");
    assert_eq!(drop_file(&by_field), drop_file(&String::from_utf8(by_flag.clone()).unwrap()));

    scene.file(
        "task.toml",
        "[data]\ntrain = \"numbers.csv\"\nlabel_names = { 0 = \"negative\", 1 = \"positive\" }\n",
    );
    assert_eq!(scene.run(&train("task.toml", &llama, &[])).code, 0);
    assert_eq!(passport(&scene), by_flag);

    let wrong = scene.run(&train("numbers.csv", &llama, &["--label-names", "0=negative,2=positive"]));
    insta::assert_snapshot!(scene.told(&wrong), @r#"
    exit 1
    error: --label-names names "2", which stands nowhere in the field "label"
    hint: the labels there are: "0", "1"
    "#);
    let wrong = scene.run(&train("numbers.csv", &llama, &["--label-names", "0=1,1=0"]));
    assert!(
        wrong.code == 1 && wrong.stderr.contains("which stands in the data for another label"),
        "{}",
        wrong.stderr
    );
    let wrong = scene.run(&train("numbers.csv", &llama, &["--label-names", "0=bad,1= bad "]));
    insta::assert_snapshot!(scene.told(&wrong), @r#"
    exit 1
    error: --label-names calls both "0" and "1" "bad", which would make them one label
    hint: give each a name of its own; for one label, write them alike in the data
    "#);
    for flag in ["--label-names", "--labels"] {
        let wrong = scene.run(&train("numbers.csv", &llama, &[flag, "0=negative,1=…"]));
        assert_eq!(wrong.code, 1, "{}", wrong.stderr);
        assert!(
            wrong.stderr.contains("\"1=…\": the dots stand for what is to be filled in"),
            "{}",
            wrong.stderr
        );
    }
    let wrong =
        scene.run(&train("numbers.csv", &llama, &["--target-field", "label", "--label-names", "0=a,1=b"]));
    assert_eq!(wrong.code, 1);
}

#[test]
fn labels_that_are_nearly_the_same_are_told() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    scene.file("d.csv", csv(["negative", "positive"]).replace("dull,negative", "dull,Negative"));
    let ran = scene.run(&train("d.csv", &llama, &[]));
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.contains("\"Negative\" (1), \"negative\" (8)"), "{}", ran.stderr);
    let (_, flag) = ran.stderr.split_once("--label-names '").unwrap();
    let (names, _) = flag.split_once('\'').unwrap();
    let merged = scene.run(&train("d.csv", &llama, &["--label-names", names]));
    assert_eq!((merged.code, names), (0, "Negative=negative"), "{}", merged.stderr);
    let said = "--label-names makes \"Negative\" and \"negative\" one label, \"negative\"";
    assert!(merged.stderr.contains(said), "{}", merged.stderr);
}

#[test]
fn numbers_are_read_alike_from_every_file() {
    let scene = Scene::new();
    let llama = model("llama-tiny");
    let numbers = parquet("numbers.parquet");
    let labels =
        ["--labels", "0= bad,1= good", "--prompt", "none", "--model", &llama, "--template", "{text}:{share}"];
    let missing = scene.run(&[&["eval", "--data", &numbers][..], &labels].concat());
    assert!(
        missing.code == 1 && missing.stderr.contains("row 4: missing value in the field \"share\""),
        "{}",
        missing.stderr
    );
    let shown = [&["classify", "--data", &numbers, "--limit", "3", "--json"][..], &labels].concat();
    let ran = scene.run(&shown);
    let shares: Vec<String> = ran
        .lines::<crate::schema::Classified>()
        .into_iter()
        .map(|answer| answer.fields.unwrap()["share"].clone())
        .collect();
    assert_eq!(shares, ["0.1", "1e-9", "1e20"]);
    let missing = scene.run(&["eval", "--data", &numbers, "--prompt", "none", "--model", &llama]);
    assert!(
        missing.code == 1 && missing.stderr.contains("row 20: missing value in the field \"text\""),
        "{}",
        missing.stderr
    );
}
