//! What `inspect` tells of prompts from here and from PEFT, with their model and without.

use std::fs;

use crate::scene::{Scene, model, root};
use crate::schema::Inspected;

#[test]
fn a_prompt_is_told_with_its_rows_where_the_model_is_given() {
    let scene = Scene::new();
    assert_eq!(scene.train("p", "4", &["--test", &crate::scene::sentences(), "--seed", "3"]).code, 0);
    let llama = model("llama-tiny");

    let alone: Inspected = scene.run(&["inspect", "p", "--json"]).line();
    assert!(alone.rows.is_none());
    let beside: Inspected = scene.run(&["inspect", "p", "--model", &llama, "--top", "2", "--json"]).line();
    assert_eq!((beside.prompt.as_str(), beside.virtual_tokens, beside.hidden), ("p", 4, 32));
    assert_eq!(beside.method, "prompt");
    let peft = beside.peft.unwrap();
    assert_eq!((peft.peft_type.as_str(), peft.task_type.as_deref()), ("PROMPT_TUNING", Some("CAUSAL_LM")));
    assert_eq!(peft.base_model.as_deref(), Some("llama-tiny"));

    // The passport is told as it is written.
    let passport = beside.passport.unwrap();
    let written: serde_json::Value =
        serde_json::from_slice(&fs::read(scene.path("p/foreword.json")).unwrap()).unwrap();
    let task = &written["task"];
    let told = [
        ("foreword_version", &passport.foreword_version),
        ("kind", &passport.kind),
        ("template", &passport.template),
        ("joining", &passport.joining),
        ("placement", &passport.placement),
        ("objective", &passport.objective),
        ("init", &passport.init),
    ];
    for (name, told) in told {
        let found = [&written, task, &written["training"]].into_iter().find_map(|place| place.get(name));
        assert_eq!(found.unwrap(), told.as_str(), "{name}");
    }
    assert_eq!(passport.model, "llama-tiny");
    assert_eq!(serde_json::to_value(&passport.labels).unwrap(), task["labels"]);
    assert_eq!(serde_json::to_value(&passport.settings).unwrap(), written["training"]["settings"]);
    assert_eq!(serde_json::to_value(&passport.metrics).unwrap(), written["metrics"]);
    assert_eq!((passport.seed, passport.steps, passport.max_length), (3, 4, 512));
    assert!(passport.best_step <= 4);
    assert_eq!(
        (passport.text_field.as_deref(), passport.label_field.as_deref()),
        (Some("text"), Some("label"))
    );
    assert_eq!((passport.target_field, passport.data["test"]), (None, 24));
    let verdict = passport.verdict.unwrap();
    assert_eq!((verdict.split.as_str(), verdict.accuracy), ("test", passport.metrics["test"]["accuracy"]));
    let [bare, majority] = ["test.bare", "test.majority"].map(|name| passport.metrics[name]["accuracy"]);
    assert_eq!(verdict.baseline_accuracy, bare.max(majority));
    assert_eq!(verdict.baseline, if majority > bare { "majority" } else { "bare" });
    assert_eq!(verdict.beats_baseline, verdict.accuracy > verdict.baseline_accuracy);
    let of_baseline = &passport.metrics[&format!("test.{}", verdict.baseline)];
    assert_eq!(verdict.p_value, Some(of_baseline["p_value"]));
    assert_eq!(verdict.may_be_chance, of_baseline["p_value"] >= 0.05);
    assert!(verdict.interval.0 <= verdict.accuracy && verdict.accuracy <= verdict.interval.1);

    let rows = beside.rows.unwrap();
    assert_eq!((rows.model.as_str(), rows.tokens.len()), ("llama-tiny", 4));
    assert!(rows.warning.contains("no explanation") && rows.mean_cosine.is_some());
    for row in &rows.tokens {
        assert!((row.norm / rows.table_norm - row.relative_norm).abs() < 1e-12);
        assert_eq!(row.label_cosines.keys().collect::<Vec<_>>(), ["negative", "positive"]);
        assert_eq!(row.nearest.len(), 2);
        assert!(row.nearest[0].cosine >= row.nearest[1].cosine);
        // Four steps do not lead far from the sentence that the rows began as.
        let drift = row.drift.as_ref().unwrap();
        assert!(drift.nearest_is_init && drift.cosine > 0.9, "{row:?}");
        assert!((drift.cosine - row.nearest[0].cosine).abs() < 1e-9);
        assert!(drift.distance < 0.5 * row.norm && !row.nearest[0].token.is_empty());
    }
    let first_of_the_init = rows.tokens[0].nearest[0].token_id;
    let ran = scene.run(&["inspect", "p", "--model", &llama, "--top", "0"]);
    assert!(!ran.stdout.contains("Nearest tokens"), "{} {first_of_the_init}", ran.stdout);
}

#[test]
fn the_bundled_model_is_at_hand_and_nearest_tokens_come_with_a_warning() {
    let scene = Scene::new();
    let task = root().join("examples/sentiment/task.toml").display().to_string();
    let args = ["train", &task, "--steps", "2", "--batch-size", "4", "--eval-every", "0", "--out", "p"];
    assert_eq!(scene.run(&args).code, 0);
    let told = scene.run(&["inspect", "p"]);
    assert_eq!((told.code, told.stderr.as_str()), (0, ""));
    for part in [
        "p: a soft prompt of 20 virtual tokens × 192 numbers",
        "model     foreword-tiny: 6 layers, 192 wide, 8,192 tokens in the vocabulary, stored as bf16",
        "labels    negative → \" negative\", positive → \" positive\"",
        "PEFT      loads it with PeftModel.from_pretrained(model, \"p\")",
        "test: bare model, same template       800",
        "On the 800 test examples it ",
        "cos negative  cos positive",
        "mean cosine between two rows:",
        "Nearest tokens are no explanation",
    ] {
        assert!(told.stdout.contains(part), "{part}\n{}", told.stdout);
    }
    // Another model of that name is not taken for it.
    let of_another = fs::read_to_string(scene.path("p/foreword.json")).unwrap();
    scene.file("p/foreword.json", of_another.replace("\"context\": 2048", "\"context\": 1024"));
    let told = scene.run(&["inspect", "p"]);
    assert_eq!(told.code, 0);
    assert!(told.stdout.contains("The model is not at hand"), "{}", told.stdout);
    let told = scene.run(&["inspect", "p", "--model", "foreword-tiny"]);
    assert_eq!(told.code, 1);
    assert!(told.stderr.contains("context 2048 instead of 1024"), "{}", told.stderr);
}

#[test]
fn other_placements_are_not_for_peft() {
    let scene = Scene::new();
    assert_eq!(scene.train("p", "1", &["--placement", "suffix"]).code, 0);
    let told = scene.run(&["inspect", "p"]);
    assert!(
        told.stdout.contains("PEFT      does not load it: it has no placement suffix"),
        "{}",
        told.stdout
    );
    assert!(told.stdout.contains("It was chosen on these examples"), "{}", told.stdout);
    assert!(scene.run(&["inspect", "p", "--json"]).line::<Inspected>().peft.is_none());
}

#[test]
fn a_directory_from_peft_has_rows_and_no_passport() {
    let scene = Scene::new();
    scene.copy(&root().join("testdata/parity/llama-tiny/end"), "from-peft");
    insta::assert_snapshot!(scene.told(&scene.run(&["inspect", "from-peft"])), @r#"
    exit 0
    from-peft: a soft prompt of 6 virtual tokens × 32 numbers

    model     llama-tiny
    task      CAUSAL_LM
    PEFT      PROMPT_TUNING; loads it as it is

    There is no foreword.json, so nothing says which template and labels it was trained with, or how good it is;
    `foreword eval --prompt from-peft --model DIR --template TEXT --data FILE` measures it.

    The model is not at hand; with --model DIR, its rows are set beside the model's vocabulary.
    "#);
    let ran = scene.run(&["inspect", "from-peft", "--model", &model("llama-tiny"), "--json"]);
    let told: Inspected = ran.line();
    assert_eq!(ran.stderr, "");
    assert!(told.passport.is_none());
    let rows = told.rows.unwrap();
    assert_eq!(rows.tokens.len(), told.virtual_tokens);
    assert!(rows.tokens.iter().all(|row| row.drift.is_none() && row.label_cosines.is_empty()));
}

#[test]
fn what_is_no_prompt_is_refused() {
    let scene = Scene::new();
    insta::assert_snapshot!(scene.told(&scene.run(&["inspect", "nothing"])), @r#"
    exit 1
    error: there is no prompt directory nothing
    hint: `foreword quickstart` and `foreword train` make one
    "#);
    scene.copy(&root().join("testdata/parity/llama-tiny/end"), "p");
    let ran = scene.run(&["inspect", "p", "--model", "foreword-tiny"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("made for another model (llama-tiny)"), "{}", ran.stderr);
}
