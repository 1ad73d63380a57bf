//! A directory straight from PEFT gives the numbers that PEFT gave.

use std::collections::BTreeMap;
use std::fs;

use crate::scene::{Scene, model, root, sentences};
use crate::schema::{Classified, Report};

#[test]
fn log_likelihoods_are_those_of_peft() {
    let scene = Scene::new();
    for name in ["llama-tiny", "qwen2-tiny", "gpt2-tiny", "gemma3-tiny", "bloom-tiny"] {
        let parity = root().join("testdata/parity").join(name);
        let golden: serde_json::Value =
            serde_json::from_slice(&fs::read(parity.join("golden.json")).unwrap()).unwrap();
        let (prompt, model, sentences) = (parity.join("end").display().to_string(), model(name), sentences());
        let labels = "negative= negative,positive= positive";
        // As PEFT computed them: with `auto`, a processor that multiplies bf16 by itself rounds what it multiplies.
        let single = ["--dtype", "f32"];
        let args =
            ["classify", "--prompt", &prompt, "--model", &model, "--labels", labels, "--data", &sentences];
        let ran = scene.run(&[&args[..], &single, &["--json"]].concat());
        assert!(ran.stderr.contains("warning: the prompt has no foreword.json"), "{}", ran.stderr);
        let answers: Vec<Classified> = ran.lines();
        let mut n_compared = 0;
        for (answer, expected) in answers.iter().zip(golden["end"].as_array().unwrap()) {
            let expected: BTreeMap<String, f64> =
                serde_json::from_value(expected["log_likelihoods"].clone()).unwrap();
            for (label, expected) in expected {
                let given = answer.log_likelihoods[&label];
                assert!((given - expected).abs() <= 1e-4 * expected.abs(), "{name}: {given} for {expected}");
                n_compared += 1;
            }
        }
        assert_eq!(n_compared, 16);
        // Labels are in the data where eval needs them.
        let report: Report = scene
            .run(&["eval", "--prompt", &prompt, "--model", &model, "--data", &sentences, "--json"])
            .line();
        assert_eq!(report.n, 24);
    }
}
