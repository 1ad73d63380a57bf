//! The rows that a prompt begins with.

use foreword_backbone::kernels::Cpu;
use foreword_backbone::{Model, ModelFiles};
use foreword_tune::init::Sources;
use foreword_tune::settings::Init;
use serde_json::{Value, json};

use crate::golden::root;

#[test]
fn tokens_without_a_row_are_not_drawn() {
    let mut files = ModelFiles::directory(&root().join("testdata/models/llama-tiny")).unwrap();
    let mut tokenizer: Value = serde_json::from_slice(&files.tokenizer.json()).unwrap();
    // So many that a draw from all of them would soon take one.
    let added = (0..2000).map(|id| {
        json!({ "id": 60_000 + id, "content": format!("[{id}]"), "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    });
    tokenizer["added_tokens"].as_array_mut().unwrap().extend(added);
    files.tokenizer = tokenizer.to_string().into_bytes().into();
    let model = Model::load(&files, Cpu::new(1).unwrap()).unwrap();
    assert!(model.tokenizer.vocab_size() > 2000 && model.backbone.spec().vocab < 2000);
    for seed in 0..4 {
        let prompt = Sources::of(&model, None).soft_prompt(&Init::Vocab, 50, seed).unwrap();
        assert_eq!((prompt.n_virtual(), prompt.width()), (50, model.backbone.spec().hidden));
    }
}
