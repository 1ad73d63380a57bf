//! The information about a model that is not loaded agrees with loading.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use foreword_backbone::{Model, ModelFiles, ModelInfo, Quantisation, write_gguf};
use foreword_kernels::{Bytes, Cpu};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::golden::root;

fn copy(model: &str) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(root().join("testdata/models").join(model)).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, to.path().join(from.file_name().unwrap())).unwrap();
    }
    to
}

fn loaded(files: Result<ModelFiles, foreword_backbone::BackboneError>) -> Option<String> {
    files.and_then(|files| Model::load(&files, Cpu::new(1).unwrap())).err().map(|error| error.to_string())
}

/// The survey refuses a spoiled model in the words of loading.
#[track_caller]
fn check(model: &str, spoil: impl FnOnce(&Path), expected: &str) {
    let dir = copy(model);
    spoil(dir.path());
    let said = ModelInfo::directory(dir.path()).refused.map(|error| error.to_string());
    assert_eq!(said, loaded(ModelFiles::directory(dir.path())));
    let said = said.unwrap_or_else(|| panic!("it is called good; expected {expected:?}"));
    assert!(said.contains(expected), "{said:?} does not say {expected:?}");
}

/// Changes a JSON file.
fn edit(file: &'static str, change: impl FnOnce(&mut Value)) -> impl FnOnce(&Path) {
    move |dir| {
        let path = dir.join(file);
        let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, value.to_string()).unwrap();
    }
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Changes the tensors of a file.
fn tensors(change: impl FnOnce(&mut Tensors)) -> impl FnOnce(&Path) {
    move |dir| {
        let path = dir.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let own = |view: &TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        let mut tensors = file.iter().map(|(name, view)| (name.to_owned(), own(&view))).collect();
        change(&mut tensors);
        let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }
}

#[test]
fn a_directory_is_refused_in_the_words_of_loading() {
    check(
        "llama-tiny",
        edit("config.json", |config| config["clip_qkv"] = json!(8)),
        "`clip_qkv` is not understood",
    );
    let yarn = edit("config.json", |config| {
        config["rope_parameters"] = json!({ "rope_type": "yarn" });
    });
    check("llama-tiny", yarn, "`rope_parameters.factor` is missing");
    check("llama-tiny", edit("config.json", |config| config["num_hidden_layers"] = 3.into()), "`layers.2.");
    check("llama-tiny", edit("config.json", |config| config["hidden_act"] = "mish".into()), "`hidden_act`");
    check(
        "llama-tiny",
        edit("config.json", |config| config["eos_token_id"] = "</s>".into()),
        "`eos_token_id`",
    );
    let name = "model.layers.1.mlp.down_proj.weight";
    check("llama-tiny", tensors(|all| drop(all.remove(name))), "is missing from the weights");
    let sinks = |all: &mut Tensors| drop(all.insert("sinks".into(), (Dtype::F32, vec![1], vec![0; 4])));
    check("llama-tiny", tensors(sinks), "has no place for, such as `sinks`");
    let turned = |all: &mut Tensors| all.get_mut(name).unwrap().1.reverse();
    check("llama-tiny", tensors(turned), "but config.json asks for");
    let integers = |all: &mut Tensors| all.get_mut(name).unwrap().0 = Dtype::I32;
    check("llama-tiny", tensors(integers), "is stored as I32");
    let cut = |dir: &Path| {
        let path = dir.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    };
    check("llama-tiny", cut, "not a whole safetensors file");
    check("llama-tiny", |dir| fs::write(dir.join("tokenizer.json"), "{}").unwrap(), "not a tokenizer.json");
    let larger = edit("tokenizer.json", |tokenizer| tokenizer["model"]["vocab"]["zzz"] = 60_000.into());
    check("llama-tiny", larger, "has tokens up to number 60000");
    check(
        "llama-tiny",
        |dir| fs::write(dir.join("tokenizer_config.json"), "[").unwrap(),
        "tokenizer_config.json is not",
    );
    let twice = |dir: &Path| {
        let [one, other] = ["1", "2"].map(|i| dir.join(format!("model-0000{i}-of-00002.safetensors")));
        fs::copy(one, other).unwrap();
    };
    check("llama-plain", twice, "is missing from the weights");
}

#[test]
fn a_gguf_file_is_refused_in_the_words_of_loading() {
    let mut whole = Vec::new();
    let files = ModelFiles::directory(&root().join("testdata/models/llama-tiny")).unwrap();
    write_gguf(&files, Quantisation::Q8_0, &mut whole, |_| true).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let said = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let said = ModelInfo::gguf(&path).refused.map(|error| error.to_string());
        assert_eq!(said, loaded(ModelFiles::gguf(&path)));
        said
    };
    assert_eq!(said(&whole), None);
    assert!(ModelInfo::of(&ModelFiles::gguf(&path).unwrap()).refused.is_none());
    let find = |text: &str| whole.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    let changed = |at: usize, with: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        said(&bytes).unwrap()
    };
    let tensor = find("blk.1.ffn_up.weight");
    // Its format, behind its name and shape.
    let format = changed(tensor + 19 + 20, &16u32.to_le_bytes());
    assert!(format.contains("is stored as IQ2_XXS, which is not read; F32"), "{format}");
    let name = changed(tensor, b"blk.1.ffn_xx.weight");
    assert!(name.contains("is missing from the weights"), "{name}");
    for n in [whole.len() / 2, 100, 3] {
        assert!(said(&whole[..n]).is_some());
    }
}

#[test]
fn a_part_of_a_gguf_file_says_so() {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(2u64.to_le_bytes());
    for (key, value) in [("split.no", 1u16), ("split.count", 3)] {
        bytes.extend((key.len() as u64).to_le_bytes());
        bytes.extend(key.as_bytes());
        bytes.extend(2u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    let files = ModelFiles::from_gguf("x".to_owned(), "x-00002-of-00003.gguf".to_owned(), Bytes::from(bytes));
    let message = files.unwrap_err().to_string();
    assert!(message.starts_with("x-00002-of-00003.gguf: it is part 2 of 3 of a model"), "{message}");
}
