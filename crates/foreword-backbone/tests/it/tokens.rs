//! The same tokens as transformers, where files beside `tokenizer.json` say more, and as llama.cpp, of GGUF files.

use std::fs;
use std::path::{Path, PathBuf};

use foreword_backbone::{Model, ModelFiles, ModelInfo, Notice, Tokenizer};

use foreword_kernels::Cpu;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::golden::root;

#[derive(Deserialize)]
struct Golden {
    texts: Vec<String>,
    directories: Vec<Directory>,
    files: Vec<File>,
}

#[derive(Deserialize)]
struct Directory {
    name: String,
    tokenizer: String,
    config: Value,
    special_tokens_map: Option<Value>,
    added_tokens: Option<Value>,
    ids: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
struct File {
    file: String,
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
}

fn testdata() -> PathBuf {
    root().join("testdata")
}

fn golden() -> Golden {
    serde_json::from_slice(&fs::read(testdata().join("tokens/golden.json")).unwrap()).unwrap()
}

/// A directory with a tiny model, a tokenizer of `testdata/chat`, and the files beside it.
fn directory(tokenizer: &str, files: [(&str, Option<&Value>); 3]) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    let copy = |from: &Path, name: &str| fs::copy(from, to.path().join(name)).unwrap();
    for name in ["config.json", "model.safetensors"] {
        copy(&testdata().join("models/llama-tiny").join(name), name);
    }
    copy(&testdata().join("chat").join(format!("{tokenizer}.json")), "tokenizer.json");
    for (name, content) in files {
        if let Some(content) = content {
            fs::write(to.path().join(name), content.to_string()).unwrap();
        }
    }
    to
}

fn with_config(config: &Value) -> tempfile::TempDir {
    let none = [("special_tokens_map.json", None), ("added_tokens.json", None)];
    directory("byte-level", [("tokenizer_config.json", Some(config)), none[0], none[1]])
}

fn refusal(config: &Value) -> String {
    ModelFiles::directory(with_config(config).path()).unwrap_err().to_string()
}

#[test]
fn directories_give_the_tokens_of_transformers() {
    let Golden { texts, directories, .. } = golden();
    assert!(directories.len() > 20);
    let mut n_changed = 0;
    for case in &directories {
        let dir = directory(
            &case.tokenizer,
            [
                ("tokenizer_config.json", Some(&case.config)),
                ("special_tokens_map.json", case.special_tokens_map.as_ref()),
                ("added_tokens.json", case.added_tokens.as_ref()),
            ],
        );
        let files = ModelFiles::directory(dir.path()).unwrap();
        let tokenizer = Tokenizer::from_bytes(&files.tokenizer).unwrap();
        for (text, ids) in texts.iter().zip(&case.ids) {
            assert_eq!(&tokenizer.encode_context(text).unwrap(), ids, "{}: {text:?}", case.name);
        }
        // Where nothing is added, the file and its digest stay what they were.
        let own = fs::read(dir.path().join("tokenizer.json")).unwrap();
        let own = Tokenizer::from_bytes(&own).unwrap();
        let is_same = texts
            .iter()
            .all(|text| own.encode_context(text).unwrap() == tokenizer.encode_context(text).unwrap());
        if own.digest() != tokenizer.digest() {
            n_changed += 1;
            assert!(!is_same || own.vocab_size() < tokenizer.vocab_size(), "{}", case.name);
        } else {
            assert!(is_same, "{}", case.name);
        }
        let of_other_id = ["decoder", "decoder-several"].contains(&case.name.as_str());
        assert_eq!(
            !files.notices.is_empty(),
            of_other_id && case.name == "decoder",
            "{}: {:?}",
            case.name,
            files.notices
        );
    }
    assert!(n_changed > 10 && n_changed < directories.len());
}

#[test]
fn an_id_that_is_not_the_stated_one_is_told() {
    let token = json!({ "content": "[ASPECT]", "special": true });
    let dir = with_config(&json!({ "added_tokens_decoder": { "5": token } }));
    let [notice] = &ModelFiles::directory(dir.path()).unwrap().notices[..] else { panic!("one notice") };
    let expected = "give the token \"[ASPECT]\" the id 5, but it has the id 352, here as in transformers";
    assert!(notice.to_string().contains(expected), "{notice}");
    // The same of a token that tokenizer.json has.
    let token = json!({ "content": "<|im_end|>", "special": true, "normalized": false });
    let dir = with_config(&json!({ "added_tokens_decoder": { "5": token } }));
    let files = ModelFiles::directory(dir.path()).unwrap();
    assert!(
        matches!(&files.notices[..], [Notice::OtherId { stated: 5, id: 342, .. }]),
        "{:?}",
        files.notices
    );
    assert_eq!(files.tokenizer, fs::read(dir.path().join("tokenizer.json")).unwrap());
}

#[test]
fn what_is_no_token_is_refused() {
    for (config, expected) in [
        (
            json!({ "added_tokens_decoder": { "352": "[ASPECT]" } }),
            "`added_tokens_decoder.352` is \"[ASPECT]\", an object",
        ),
        (json!({ "added_tokens_decoder": { "x": { "content": "a" } } }), "its key is no token id"),
        (json!({ "added_tokens_decoder": [] }), "`added_tokens_decoder` is no object"),
        (json!({ "added_tokens_decoder": { "1": { "content": 3 } } }), "has no text `content`"),
        (
            json!({ "added_tokens_decoder": { "1": { "content": "a", "rstrip": 1 } } }),
            "`rstrip` of `added_tokens_decoder.1` is 1",
        ),
        (json!({ "extra_special_tokens": 3 }), "`extra_special_tokens` is no list"),
        (json!({ "extra_special_tokens": [3] }), "`extra_special_tokens` is no token"),
        (json!([]), "tokenizer_config.json is not a JSON object"),
    ] {
        let message = refusal(&config);
        assert!(
            message.starts_with("tokenizer_config.json") && message.contains(expected),
            "{config}: {message}"
        );
    }
    let files =
        [("added_tokens.json", Some(json!({ "a": "b" }))), ("special_tokens_map.json", Some(json!(3)))];
    for (name, content) in files {
        let dir = directory("byte-level", [(name, content.as_ref()), ("x", None), ("y", None)]);
        let message = ModelFiles::directory(dir.path()).unwrap_err().to_string();
        assert!(message.starts_with(name), "{message}");
    }
}

#[test]
fn a_token_without_an_embedding_is_refused_where_a_text_has_it() {
    // The tiny model's own tokenizer and one token more than rows.
    let source = testdata().join("models/llama-tiny");
    let vocab = ModelFiles::directory(&source).unwrap().config;
    let vocab = serde_json::from_slice::<Value>(&vocab).unwrap()["vocab_size"].as_u64().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(source.join(name), dir.path().join(name)).unwrap();
    }
    let mut tokenizer: Value =
        serde_json::from_slice(&fs::read(source.join("tokenizer.json")).unwrap()).unwrap();
    let pad = json!({ "id": vocab, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true });
    let n = Tokenizer::from_bytes(tokenizer.to_string().as_bytes()).unwrap().vocab_size() as u64;
    // All rows up to the last have a token.
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    for id in n..vocab {
        added.push(json!({ "id": id, "content": format!("[{id}]"), "single_word": false, "lstrip": false, "rstrip": false,
                           "normalized": false, "special": true }));
    }
    added.push(pad);
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let files = ModelFiles::directory(dir.path()).unwrap();
    assert!(ModelInfo::directory(dir.path()).refused.is_none());
    let model = Model::load(&files, Cpu::new(1).unwrap()).unwrap();
    assert!(model.tokenizer.encode_context("a b").is_ok());
    let message = model.tokenizer.encode_context("a [PAD] b").unwrap_err().to_string();
    let expected =
        format!("has the token \"[PAD]\" with number {vocab}, but the model embeds only {vocab}, from 0");
    assert!(message.contains(&expected), "{message}");
}

#[test]
fn gguf_files_give_the_tokens_of_llama_cpp() {
    for File { file, texts, ids } in &golden().files {
        let files = ModelFiles::gguf(&testdata().join("tokens").join(file)).unwrap();
        let tokenizer = Tokenizer::from_bytes(&files.tokenizer).unwrap();
        for (text, ids) in texts.iter().zip(ids) {
            assert_eq!(&tokenizer.encode_context(text).unwrap(), ids, "{file}: {text:?}");
        }
        let told: Vec<String> = files.notices.iter().map(ToString::to_string).collect();
        match (file.as_str(), &told[..]) {
            ("phi3.gguf", []) => {}
            ("phi3-unnamed.gguf", [told]) => {
                assert!(told.contains("is a Phi-3 model named \"Phi 3 Mini\": llama.cpp knows"), "{told}");
            }
            ("unnamed-cuts.gguf", [told]) => {
                assert!(told.contains("unnamed-cuts.gguf has no `tokenizer.ggml.pre`"), "{told}");
            }
            other => panic!("{other:?}"),
        }
        let model = Model::load(&files, Cpu::new(1).unwrap()).unwrap();
        assert_eq!(model.notices, files.notices);
        assert!(ModelInfo::of(&files).refused.is_none());
    }
}
