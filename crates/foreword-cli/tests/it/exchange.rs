//! Prompts of other tools, and for them.

use std::fs;

use crate::scene::{Scene, model, root, sentences};
use crate::schema::{Classified, Exported, Imported};

fn foreign(name: &str) -> String {
    root().join("testdata/foreign").join(name).display().to_string()
}

const LABELS: &str = "negative= negative,positive= positive";

#[test]
fn a_prompt_goes_out_as_npy_and_comes_back_to_answer_alike() {
    let scene = Scene::new();
    let (model, data) = (model("llama-tiny"), sentences());
    let trained = ["train", &data, "--model", &model, "--out", "p", "--steps", "2", "--virtual-tokens", "3"];
    assert_eq!(scene.run(&trained).code, 0);
    let exported = scene.run(&["export", "p", "--to", "npy", "p.npy", "--json"]).line::<Exported>();
    assert_eq!(
        (exported.path.as_str(), exported.to.as_str(), exported.virtual_tokens, exported.width),
        ("p.npy", "npy", 3, 32)
    );
    let imported =
        scene.run(&["import", "p.npy", "--model", &model, "--labels", LABELS, "--out", "q", "--json"]);
    let imported = imported.line::<Imported>();
    assert_eq!((imported.format.as_str(), imported.passport, imported.virtual_tokens), ("npy", true, 3));
    let scores = |prompt: &str| {
        let ran =
            scene.run(&["classify", "--prompt", prompt, "--model", &model, "--json", "A joy.", "A bore."]);
        ran.lines::<Classified>().into_iter().map(|line| line.log_likelihoods).collect::<Vec<_>>()
    };
    assert_eq!(scores("p"), scores("q"));
    assert_eq!(
        fs::read(scene.path("p").join("adapter_model.safetensors")).unwrap(),
        fs::read(scene.path("q").join("adapter_model.safetensors")).unwrap()
    );
    // How it was trained is not known, and not guessed.
    let inspected = scene.run(&["inspect", "q", "--model", &model]).stdout;
    assert!(inspected.contains("steps     not known: it was imported from npy"), "{inspected}");
    assert!(
        inspected.contains("task      classification\n") && !inspected.contains("No step was better"),
        "{inspected}"
    );
    // Without the passport, it is what PEFT reads.
    assert_eq!(scene.run(&["export", "p", "--to", "peft", "r"]).code, 0);
    assert!(!scene.path("r").join("foreword.json").exists());
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        assert_eq!(
            fs::read(scene.path("p").join(file)).unwrap(),
            fs::read(scene.path("r").join(file)).unwrap()
        );
    }
}

#[test]
fn what_peft_and_torch_wrote_becomes_a_prompt() {
    let scene = Scene::new();
    let model = model("llama-tiny");
    for (from, task) in
        [("cpt", None), ("mpt", Some("1")), ("tensor.pt", None), ("state_dict.pt", None), ("nested.pt", None)]
    {
        let path = foreign(from);
        let mut args = vec!["import", &path, "--out", from, "--json"];
        args.extend(task.iter().flat_map(|task| ["--task", task]));
        let imported = scene.run(&args).line::<Imported>();
        assert_eq!((imported.virtual_tokens, imported.width, imported.passport), (3, 32, false), "{from}");
        assert_eq!(imported.out, from);
        let classify =
            ["classify", "--prompt", from, "--model", &model, "--labels", LABELS, "--json", "A joy."];
        assert_eq!(scene.run(&classify).lines::<Classified>().len(), 1, "{from}");
    }
    let left_out = scene.run(&["import", &foreign("state_dict.pt"), "--out", "again"]);
    assert!(left_out.stderr.contains("left out: steps [1]"), "{}", left_out.stderr);
}

#[test]
fn what_can_not_be_imported_or_exported_says_why() {
    let scene = Scene::new();
    let error = |args: &[&str]| {
        let ran = scene.run(args);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        ran.stderr
    };
    let import = |from: &str, more: &[&str]| {
        let path = foreign(from);
        let mut args = vec!["import", &path, "--out", "x"];
        args.extend(more);
        error(&args)
    };
    assert!(import("module.pt", &[]).contains("asks for torch.nn.modules.module.Module"));
    assert!(import("legacy.pt", &[]).contains("is a bare pickle"));
    assert!(import("mpt", &[]).contains("is a prompt of 2 tasks: choose one with --task 0 to --task 1"));
    let width = import("rows.npy", &["--model", "foreword-tiny"]);
    assert!(width.contains("has rows of width 32, but those of foreword-tiny have width 192"), "{width}");
    assert!(
        import("rows.npy", &["--labels", LABELS]).contains("kept in a passport, which belongs to a model")
    );
    assert!(!scene.path("x").exists());

    // An encoder-decoder's prompt has rows, which no decoder understands.
    let seq2seq = scene.path("seq2seq");
    fs::create_dir(&seq2seq).unwrap();
    fs::copy(foreign("state_dict.pt"), seq2seq.join("adapter_model.bin")).unwrap();
    let config = r#"{"peft_type": "PROMPT_TUNING_LORA", "task_type": "SEQ_2_SEQ_LM", "base_model_name_or_path": "t5-base"}"#;
    fs::write(seq2seq.join("adapter_config.json"), config).unwrap();
    let kept = scene.run(&["import", "seq2seq", "--out", "kept"]);
    assert_eq!(kept.code, 0, "{}", kept.stderr);
    assert!(
        kept.stderr.contains("made for an encoder-decoder model, t5-base, which Foreword does not run"),
        "{}",
        kept.stderr
    );
    let config = fs::read_to_string(scene.path("kept").join("adapter_config.json")).unwrap();
    assert!(
        config.contains(r#""task_type": "SEQ_2_SEQ_LM""#)
            && config.contains(r#""base_model_name_or_path": "t5-base""#)
    );
    let used = error(&["import", "seq2seq", "--model", &model("llama-tiny"), "--out", "y"]);
    assert!(
        used.contains("made for an encoder-decoder model, t5-base, and llama-tiny is a decoder"),
        "{used}"
    );

    let (data, model) = (sentences(), model("llama-tiny"));
    let train = [
        "train",
        &data,
        "--model",
        &model,
        "--out",
        "s",
        "--steps",
        "1",
        "--virtual-tokens",
        "2",
        "--placement",
        "suffix",
    ];
    assert_eq!(scene.run(&train).code, 0);
    assert!(
        error(&["export", "s", "--to", "peft", "t"])
            .contains("has the placement suffix, and PEFT puts every prompt at the front")
    );
    assert_eq!(scene.run(&["export", "s", "--to", "npy", "s.npy"]).code, 0);
    assert!(error(&["export", "s", "--to", "npy", "s.npy"]).contains("it already exists"));
    assert_eq!(scene.run(&["export", "s", "--to", "npy", "s.npy", "--force"]).code, 0);
}
