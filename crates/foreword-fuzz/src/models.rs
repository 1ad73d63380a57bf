//! Models: the configuration, the weights, the index of shards.

use std::cell::OnceCell;
use std::fs;

use foreword_backbone::{Backbone, ChatFiles, Input, ModelFiles, Quantisation, Save, write_gguf};
use foreword_kernels::{Backend, Bytes, Cpu, Forest, Parent, Reference};
use tempfile::TempDir;

use crate::tiny;

fn files(config: &[u8], weights: &[u8]) -> ModelFiles {
    let weights = vec![("model.safetensors".to_owned(), Bytes::copy_from_slice(weights))];
    ModelFiles {
        name: "tiny".to_owned(),
        config: config.to_vec(),
        generation_config: None,
        tokenizer: Vec::new().into(),
        chat: ChatFiles::default(),
        weights,
        tensor_files: std::collections::BTreeMap::new(),
        ignored_config_keys: Vec::new(),
        notices: Vec::new(),
    }
}

/// Reads a model, and runs the one that was read: what it came to.
fn load<B: Backend>(files: &ModelFiles, backend: B) -> Vec<B::Element> {
    match Backbone::load(files, backend) {
        Ok(backbone) => {
            let rows = backbone.embed(&[0, 1]);
            let mut forest = Forest::new();
            forest.push(Parent::Root, 2);
            let input = Input { rows, forest: &forest, context: &[], output_rows: &[1], save: Save::None };
            assert!(backbone.spec().n_parameters() > 0);
            let output = backbone.forward(input);
            output.map_or_else(|_| Vec::new(), |output| backbone.logits(&output.hidden))
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            Vec::new()
        }
    }
}

/// The first byte chooses the family, the rest is the file of its weights.
pub(crate) fn weights(bytes: &[u8]) {
    let Some((&first, weights)) = bytes.split_first() else { return };
    let family = tiny::FAMILIES[usize::from(first) % tiny::FAMILIES.len()];
    load(&files(&tiny::config(family), weights), Cpu::new(1).expect("a thread is started"));
}

/// A configuration over the weights of each family: with these, whatever it says, all numbers stay finite.
pub(crate) fn config(bytes: &[u8]) {
    for family in tiny::FAMILIES {
        let logits = load(&files(bytes, &tiny::weights(family)), Reference::<f32>::new());
        assert!(logits.iter().all(|logit| logit.is_finite()), "{logits:?}");
    }
}

/// A GGUF file: its configuration and tokenizer are made, the model runs, and is written again.
pub(crate) fn gguf(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(files) = ModelFiles::from_gguf("tiny".to_owned(), "tiny.gguf".to_owned(), bytes) else { return };
    crate::tokenizers::tokenizer(&files.tokenizer.json());
    load(&files, Cpu::new(1).expect("a thread is started"));
    let mut again = Vec::new();
    if write_gguf(&files, Quantisation::F32, &mut again, |_| true).is_ok() {
        let again = ModelFiles::from_gguf("tiny".to_owned(), "again.gguf".to_owned(), Bytes::from(again));
        again.expect("what was written can be read");
    }
}

/// An index beside one shard.
pub(crate) fn shard_index(bytes: &[u8]) {
    thread_local!(static MODEL: OnceCell<TempDir> = const { OnceCell::new() });
    MODEL.with(|model| {
        let model = model.get_or_init(|| {
            let dir = tempfile::tempdir().expect("a scratch directory is made");
            let files = [
                ("config.json", tiny::config("llama")),
                ("tokenizer.json", Vec::new()),
                ("shard", tiny::weights("llama")),
            ];
            for (name, bytes) in files {
                fs::write(dir.path().join(name), bytes).expect("a scratch file is written");
            }
            dir
        });
        fs::write(model.path().join("model.safetensors.index.json"), bytes)
            .expect("a scratch file is written");
        if let Ok(files) = ModelFiles::directory(model.path()) {
            assert!(files.weights.iter().all(|(name, _)| model.path().join(name).is_file()));
            load(&files, Reference::<f32>::new());
        }
    });
}
