//! What real files are like: configurations that leave out what transformers fills in, a model with a part for images, files in
//! several parts and formats. The numbers are those of transformers.

use std::fs;

use foreword_backbone::{Backbone, BackboneError, Input, Model, ModelFiles, ModelInfo, Notice, Save};
use foreword_kernels::{Bytes, Cpu, Dtype, Forest, Parent};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as Stored, TensorView};
use serde_json::Value;

use crate::golden::root;

fn tiny(name: &str) -> ModelFiles {
    ModelFiles::directory(&root().join("testdata/models").join(name)).unwrap()
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(root().join("testdata").join(path)).unwrap()).unwrap()
}

/// The last logits of a text.
fn last_logits(files: &ModelFiles, ids: &Value) -> Vec<f32> {
    let ids: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
    let backbone = Backbone::load(files, Cpu::new(2).unwrap()).unwrap_or_else(|error| panic!("{error}"));
    let mut forest = Forest::new();
    forest.push(Parent::Root, ids.len());
    let rows = backbone.embed(&ids);
    let last = [ids.len() - 1];
    let input = Input { rows, forest: &forest, context: &[], output_rows: &last, save: Save::None };
    backbone.logits(&backbone.forward(input).unwrap().hidden)
}

/// The largest difference, as a share of the largest number.
fn apart(got: &[f32], expected: &Value) -> f32 {
    let expected: Vec<f32> = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(0f32, |max, v| max.max(v.abs()));
    got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max) / largest
}

/// The same tensors under other names, and others of this shape.
fn renamed(files: &ModelFiles, names: &Value) -> Bytes {
    let file = SafeTensors::deserialize(&files.weights[0].1).unwrap();
    let zeros = vec![0u8; 1 << 20];
    let views = names.as_object().unwrap().iter().map(|(name, from)| match from {
        Value::String(own) => (name.as_str(), file.tensor(own).unwrap()),
        shape => {
            let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
            let n: usize = shape.iter().product();
            (name.as_str(), TensorView::new(Stored::F32, shape, &zeros[..4 * n]).unwrap())
        }
    });
    Bytes::from(safetensors::serialize(views, None).unwrap())
}

#[test]
fn what_a_configuration_leaves_out_is_what_transformers_fills_in() {
    let variants = json("golden/variants.json");
    for (name, variant) in variants.as_object().unwrap() {
        let mut files = tiny(variant["model"].as_str().unwrap());
        let own = last_logits(&files, &variant["ids"]);
        files.config = variant["config"].to_string().into_bytes();
        if let Some(names) = variant.get("tensors") {
            files.weights = vec![("model.safetensors".to_owned(), renamed(&files, names))];
        } else {
            assert!(apart(&own, &variant["logits"]) > 1e-2, "{name}: it makes no difference");
        }
        let far = apart(&last_logits(&files, &variant["ids"]), &variant["logits"]);
        assert!(far < 1e-4, "{name}: {far:e}");
    }
    assert_eq!(variants.as_object().unwrap().len(), 5);
}

#[test]
fn the_text_part_of_a_model_with_images_is_the_model_of_texts() {
    let variant = &json("golden/variants.json")["the text part of a model that sees images"];
    let mut files = tiny("gemma3-tiny");
    let text = Model::load(&files, Cpu::new(1).unwrap()).unwrap();
    files.config = variant["config"].to_string().into_bytes();
    files.weights = vec![("model.safetensors".to_owned(), renamed(&files, &variant["tensors"]))];
    let part = Model::load(&files, Cpu::new(1).unwrap()).unwrap();
    assert_eq!(part.backbone.spec(), text.backbone.spec());
    // Its own end token is in the inner object.
    assert_eq!((&part.end_tokens, part.notices.len()), (&text.end_tokens, 0));
    // As transformers 5 has the names in memory.
    let names = variant["tensors"].to_string();
    let names = names
        .replace("language_model.model.", "model.language_model.")
        .replace("vision_tower", "model.vision_tower");
    files.weights[0].1 = renamed(&tiny("gemma3-tiny"), &serde_json::from_str(&names).unwrap());
    assert!(ModelInfo::of(&files).refused.is_none());
    let mut config = variant["config"].clone();
    config["text_config"]["attention_sinks"] = true.into();
    files.config = config.to_string().into_bytes();
    let refused = ModelInfo::of(&files).refused.unwrap().to_string();
    assert!(refused.contains("`text_config.attention_sinks` is not understood"), "{refused}");
}

#[test]
fn a_model_in_parts_and_in_every_format_that_is_only_read_is_that_of_transformers() {
    let directory = root().join("testdata/quantised");
    let golden = json("quantised/golden.json");
    let part = |i: usize| directory.join(format!("tiny-0000{i}-of-00003.gguf"));
    for i in 1..=3 {
        let files = ModelFiles::open(&part(i)).unwrap();
        assert_eq!((files.name.as_str(), files.weights.len()), ("tiny", 3));
        let far = apart(&last_logits(&files, &golden["ids"]), &golden["logits"]);
        assert!(far < 1e-4, "{far:e}");
        let info = ModelInfo::gguf(&part(i));
        assert!(info.refused.is_none(), "{:?}", info.refused);
        let bytes: u64 = (1..=3).map(|i| part(i).metadata().unwrap().len()).sum();
        assert_eq!(info.bytes, bytes);
    }
    let model = Model::load(&ModelFiles::gguf(&part(1)).unwrap(), Cpu::new(1).unwrap()).unwrap();
    assert_eq!(model.backbone.embeddings().table().dtype(), Dtype::Q2K);
}

#[test]
fn parts_that_are_missing_or_mixed_up_are_named() {
    let directory = root().join("testdata/quantised");
    let dir = tempfile::tempdir().unwrap();
    let part = |i: usize| dir.path().join(format!("tiny-0000{i}-of-00003.gguf"));
    let copy = |from: usize, to: usize| {
        fs::copy(directory.join(format!("tiny-0000{from}-of-00003.gguf")), part(to)).unwrap();
    };
    let says = |expected: &str| {
        let message = ModelFiles::gguf(&part(1)).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} does not say {expected:?}");
    };
    copy(1, 1);
    copy(2, 2);
    says("tiny-00003-of-00003.gguf");
    copy(2, 3);
    says("tiny-00003-of-00003.gguf: it is part 2 of 3 of a model, but by its name it is part 3 of 3");
    copy(3, 3);
    assert!(ModelFiles::gguf(&part(1)).is_ok());
    fs::rename(part(1), dir.path().join("first.gguf")).unwrap();
    let message = ModelFiles::gguf(&dir.path().join("first.gguf")).unwrap_err().to_string();
    assert!(
        message.contains("give the file with the name that llama.cpp gave it (`NAME-00001-of-00003.gguf`)"),
        "{message}"
    );
}

/// A copy of the plain tensors of a tiny model with others.
fn with_tensors(model: &str, others: &[(&str, &[usize])], without: &[&str]) -> ModelFiles {
    let mut files = tiny(model);
    let file = SafeTensors::deserialize(&files.weights[0].1).unwrap();
    let zeros = vec![0u8; 1 << 16];
    let mut views: Vec<(String, TensorView<'_>)> = file
        .iter()
        .filter(|(name, _)| !without.contains(name))
        .map(|(name, view)| (name.to_owned(), view))
        .collect();
    for (name, shape) in others {
        let n: usize = shape.iter().product();
        views.push((
            (*name).to_owned(),
            TensorView::new(Stored::F32, shape.to_vec(), &zeros[..4 * n]).unwrap(),
        ));
    }
    files.weights =
        vec![("model.safetensors".to_owned(), Bytes::from(safetensors::serialize(views, None).unwrap()))];
    files
}

#[test]
fn heads_for_other_purposes_are_left_out_with_a_notice() {
    let scales: [(&str, &[usize]); 2] =
        [("model.layers.0.self_attn.k_scale", &[1]), ("model.layers.0.self_attn.v_scale", &[1])];
    let others: [&[(&str, &[usize])]; 3] = [
        &[("score.weight", &[2, 32])],
        &[("v_head.summary.weight", &[1, 32]), ("v_head.summary.bias", &[1])],
        &scales,
    ];
    for others in others {
        let files = with_tensors("llama-tiny", others, &[]);
        let model = Model::load(&files, Cpu::new(1).unwrap()).unwrap();
        let [Notice::ExtraTensors { n, example }] = &model.notices[..] else { panic!("{:?}", model.notices) };
        assert_eq!(*n, others.len());
        assert!(others.iter().any(|(name, _)| name.ends_with(example.as_str())), "{example}");
        assert_eq!(ModelInfo::of(&files).notices, model.notices);
    }
    // In place of the language model's head it is another model.
    let classifier = with_tensors("llama-tiny", &[("score.weight", &[2, 32])], &["lm_head.weight"]);
    let error = Backbone::load(&classifier, Cpu::new(1).unwrap()).unwrap_err();
    assert!(matches!(error, BackboneError::NoLanguageHead { .. }), "{error}");
    // Anything else might belong to the model.
    let other = with_tensors("llama-tiny", &[("model.layers.0.self_attn.sinks", &[4])], &[]);
    let error = Backbone::load(&other, Cpu::new(1).unwrap()).unwrap_err().to_string();
    assert!(error.contains("has no place for, such as `layers.0.self_attn.sinks`"), "{error}");
}

#[test]
fn the_index_decides_between_two_tensors_of_a_name() {
    let mut files = tiny("llama-plain");
    let own = last_logits(&files, &vec![5, 6, 7].into());
    assert!(files.tensor_files.len() > 20 && files.weights.len() == 2);
    let name = files.tensor_files.iter().find(|(_, file)| file.starts_with("model-00002")).unwrap().0.clone();
    let [(first, one), (_, two)] = &files.weights[..] else { panic!("two shards") };
    let (one, two) = (SafeTensors::deserialize(one).unwrap(), SafeTensors::deserialize(two).unwrap());
    let right = two.tensor(&name).unwrap();
    // The first shard gets a copy with other numbers.
    let wrong: Vec<u8> = right.data().iter().map(|byte| byte ^ 0x0f).collect();
    let copy = TensorView::new(right.dtype(), right.shape().to_vec(), &wrong).unwrap();
    let views: Vec<_> =
        one.iter().map(|(name, view)| (name.to_owned(), view)).chain([(name.clone(), copy)]).collect();
    let (first, bytes) = (first.clone(), Bytes::from(safetensors::serialize(views, None).unwrap()));
    files.weights[0].1 = bytes;
    assert!(last_logits(&files, &vec![5, 6, 7].into()) == own);
    // In any order.
    files.weights.reverse();
    assert!(last_logits(&files, &vec![5, 6, 7].into()) == own);
    files.tensor_files.insert(name.clone(), first);
    assert!(last_logits(&files, &vec![5, 6, 7].into()) != own);
    files.tensor_files.remove(&name);
    let error = Backbone::load(&files, Cpu::new(1).unwrap()).unwrap_err();
    assert!(matches!(error, BackboneError::DuplicateTensor { .. }), "{error}");
}
