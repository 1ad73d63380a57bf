//! The table of families in docs/models.md says what the tests compare, and the tests make it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use foreword_kernels::{Cpu, RowBlock as _};
use serde_json::Value;

use crate::golden::{Files as _, Golden, root, tiny_models};

/// What `Spec::canonical` says of every decoder; the rest is what few have.
const USUAL: [&str; 17] = [
    "hidden",
    "layers",
    "vocab",
    "context",
    "query_heads",
    "kv_heads",
    "head_width",
    "qkv_bias",
    "output_bias",
    "intermediate",
    "function",
    "gated",
    "mlp_bias",
    "norm",
    "norm_eps",
    "positions",
    "tied_head",
];
/// Top logits closer than this may change places.
const TIE: f64 = 1e-4;

/// What a model has that few have, in the words of its Spec.
fn special(canonical: &Value) -> Vec<String> {
    let object = canonical.as_object().unwrap();
    let rest = object.iter().filter(|(key, _)| !USUAL.contains(&key.as_str()));
    let mut words: Vec<String> = rest
        .map(|(key, value)| match value.as_str() {
            Some(kind) => format!("{} {kind}", key.replace('_', " ")),
            None => key.replace('_', " "),
        })
        .collect();
    let positions = &canonical["positions"];
    words.extend(
        positions["kind"].as_str().filter(|kind| *kind != "rotary").map(|kind| format!("{kind} positions")),
    );
    words.extend(positions["scaling"].as_str().map(|scaling| format!("{scaling} scaling")));
    words.extend(positions.get("width").map(|_| "part of a head rotated".to_owned()));
    words.extend(positions.get("pairing").map(|_| "neighbours rotated".to_owned()));
    words.extend(positions.get("of_layers").map(|_| "rotations by layer".to_owned()));
    words
}

/// Greedy tokens that the golden numbers hold up to a tie.
fn n_greedy(golden: &Value) -> usize {
    let margins: Vec<Vec<f64>> = serde_json::from_value(golden["generation"]["margins"].clone()).unwrap();
    margins.iter().map(|margins| margins.iter().take_while(|&&margin| margin > TIE).count()).sum()
}

fn table() -> String {
    let mut families: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in tiny_models() {
        let golden = Golden::read(&name);
        let files = golden.files().unwrap();
        let config: Value = serde_json::from_slice(&files.config).unwrap();
        let backbone = golden.backbone(Cpu::new(1).unwrap()).unwrap();
        let (_, shape) = golden.array("soft_prompt");
        assert_eq!(backbone.embed(&[0]).width(), shape[1]);
        let words = special(&backbone.spec().canonical());
        let words = if words.is_empty() { "—".to_owned() } else { words.join(", ") };
        let parity = root().join("testdata/parity").join(&name).join("golden.json");
        let run = if parity.exists() { "ten steps" } else { "—" };
        let n = n_greedy(&golden.json);
        let row = format!("`{name}`: {words} | {n} | {run} |");
        families.entry(config["model_type"].as_str().unwrap().to_owned()).or_default().push(row);
    }
    let mut table = String::from(
        "| family | random model that proves it: what it has that few have | greedy tokens | run of PEFT |\n|---|---|---|---|\n",
    );
    for (family, rows) in families {
        for row in rows {
            writeln!(table, "| `{family}` | {row}").unwrap();
        }
    }
    table
}

#[test]
fn the_table_of_families_in_the_docs_is_true() {
    let docs = std::fs::read_to_string(root().join("docs/models.md")).unwrap();
    let table = table();
    assert!(docs.contains(&table), "docs/models.md should hold this table:\n\n{table}");
}
