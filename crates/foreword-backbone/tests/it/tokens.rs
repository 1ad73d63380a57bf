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
        let tokenizer = Tokenizer::of(&files.tokenizer).unwrap();
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

#[derive(Deserialize)]
struct VocabFiles {
    texts: Vec<String>,
    cases: Vec<VocabCase>,
}

#[derive(Deserialize)]
struct VocabCase {
    name: String,
    model_type: String,
    config: Option<Value>,
    special_tokens_map: Option<Value>,
    added_tokens: Option<Value>,
    rendered: String,
    ids: Vec<Vec<u32>>,
}

/// A directory with the vocabulary and the merges of `testdata/chat/byte-level.json`, and no `tokenizer.json`.
fn older_directory(model_type: &str, files: [(&str, Option<&Value>); 3]) -> tempfile::TempDir {
    let dir = directory("byte-level", files);
    let path = |name: &str| dir.path().join(name);
    let file: Value = serde_json::from_slice(&fs::read(path("tokenizer.json")).unwrap()).unwrap();
    fs::remove_file(path("tokenizer.json")).unwrap();
    let mut vocab = file["model"]["vocab"].clone();
    for token in file["added_tokens"].as_array().unwrap() {
        vocab[token["content"].as_str().unwrap()] = token["id"].clone();
    }
    fs::write(path("vocab.json"), vocab.to_string()).unwrap();
    let line = |merge: &Value| match merge {
        Value::String(line) => line.clone(),
        pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
    };
    let merges: Vec<String> = file["model"]["merges"].as_array().unwrap().iter().map(line).collect();
    fs::write(path("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(path("config.json")).unwrap()).unwrap();
    config["model_type"] = model_type.into();
    fs::write(path("config.json"), config.to_string()).unwrap();
    dir
}

#[test]
fn vocabularies_with_merges_give_the_tokens_of_transformers() {
    let bytes = fs::read(testdata().join("tokens/vocab_files.json")).unwrap();
    let VocabFiles { texts, cases } = serde_json::from_slice(&bytes).unwrap();
    assert!(cases.len() > 15);
    for case in &cases {
        let files = [
            ("tokenizer_config.json", case.config.as_ref()),
            ("special_tokens_map.json", case.special_tokens_map.as_ref()),
            ("added_tokens.json", case.added_tokens.as_ref()),
        ];
        let dir = older_directory(&case.model_type, files);
        let files = ModelFiles::directory(dir.path()).unwrap();
        let tokenizer = Tokenizer::of(&files.tokenizer).unwrap();
        let config: Value = serde_json::from_slice(files.chat.tokenizer_config.as_deref().unwrap()).unwrap();
        let named = |name: &str| {
            let token = config.get(name).filter(|token| !token.is_null());
            token
                .map_or("", |token| token.as_str().unwrap_or_else(|| token["content"].as_str().unwrap()))
                .to_owned()
        };
        let (bos, eos) = (named("bos_token"), named("eos_token"));
        assert_eq!(format!("{bos}[x]{eos}"), case.rendered, "{}", case.name);
        // A context keeps no special token that would close it.
        let closes = config["add_eos_token"] == true;
        for (text, ids) in texts.iter().zip(&case.ids) {
            let ids = if closes { &ids[..ids.len() - 1] } else { ids };
            assert_eq!(tokenizer.encode_context(text).unwrap(), ids, "{}: {text:?}", case.name);
        }
    }
}

#[test]
fn a_vocabulary_that_no_class_cuts_for_is_refused() {
    let none = ("special_tokens_map.json", None);
    let refused = |model_type: &str, config: Option<Value>, damage: &dyn Fn(&Path)| {
        let dir = older_directory(model_type, [("tokenizer_config.json", config.as_ref()), none, none]);
        damage(dir.path());
        ModelFiles::directory(dir.path()).unwrap_err().to_string()
    };
    let whole = |_: &Path| {};
    let message = refused("gpt2", Some(json!({ "tokenizer_class": "RobertaTokenizer" })), &whole);
    assert!(
        message.starts_with("tokenizer_config.json: `tokenizer_class` is \"RobertaTokenizer\""),
        "{message}"
    );
    assert!(message.contains("GPT2Tokenizer, CodeGenTokenizer, Qwen2Tokenizer are read"), "{message}");
    let message = refused("llama", None, &whole);
    assert!(
        message.starts_with("config.json: model_type `llama` does not say how texts are cut"),
        "{message}"
    );
    let written =
        |name: &'static str, text: &'static str| move |dir: &Path| fs::write(dir.join(name), text).unwrap();
    let message = refused("gpt2", None, &written("merges.txt", "#version: 0.2\n\na b\n"));
    assert!(message.starts_with("merges.txt: line 3 merges \"a\" and \"b\", but"), "{message}");
    let message = refused("gpt2", None, &written("merges.txt", "a\n"));
    assert!(message.starts_with("merges.txt: line 1 is \"a\", two tokens"), "{message}");
    let message = refused("gpt2", None, &written("vocab.json", "{\"a\": -1}"));
    assert!(message.starts_with("vocab.json: the token \"a\" has the id -1"), "{message}");
    let message = refused("gpt2", None, &written("vocab.json", "["));
    assert!(message.starts_with("vocab.json is not a JSON object"), "{message}");
    let message = refused("gpt2", None, &|dir| fs::remove_file(dir.join("merges.txt")).unwrap());
    assert!(
        message.contains("it has no tokenizer.json") && message.contains("merges.txt will do"),
        "{message}"
    );
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
    assert_eq!(*files.tokenizer.json(), fs::read(dir.path().join("tokenizer.json")).unwrap());
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
fn a_pad_beyond_the_rows_is_no_fault_of_texts_without_it() {
    // The tiny model embeds 401 tokens, and the tokenizer has 352.
    let token = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true })
    };
    let edited = |edit: &dyn Fn(&mut Value)| {
        let none = ("x", None);
        let dir = directory("byte-level", [none, none, none]);
        let path = dir.path().join("tokenizer.json");
        let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut file);
        fs::write(path, file.to_string()).unwrap();
        dir
    };
    let pad = json!({ "pad_token": "[PAD]" });
    let last = json!({ "[PAD]": 401 });
    let filled = |file: &mut Value| {
        let added = file["added_tokens"].as_array_mut().unwrap();
        added.extend((352..401).map(|id| token(id, &format!("[{id}]"))));
    };
    let in_vocabulary = |file: &mut Value| {
        file["model"]["vocab"]["[PAD]"] = 401.into();
        file["added_tokens"].as_array_mut().unwrap().push(token(401, "[PAD]"));
    };
    let far = |file: &mut Value| file["model"]["vocab"]["[PAD]"] = 128_004.into();
    for (what, dir) in [
        ("its configuration", {
            let dir = edited(&filled);
            fs::write(dir.path().join("tokenizer_config.json"), pad.to_string()).unwrap();
            dir
        }),
        ("added_tokens.json", {
            let dir = edited(&filled);
            fs::write(dir.path().join("added_tokens.json"), last.to_string()).unwrap();
            dir
        }),
        ("the vocabulary too", edited(&in_vocabulary)),
        ("another id than the next", {
            let dir = edited(&far);
            fs::write(dir.path().join("special_tokens_map.json"), pad.to_string()).unwrap();
            dir
        }),
    ] {
        let info = ModelInfo::directory(dir.path());
        assert!(info.refused.is_none(), "{what}: {:?}", info.refused);
        let files = ModelFiles::directory(dir.path()).unwrap();
        let model = Model::load(&files, Cpu::new(1).unwrap()).unwrap();
        assert!(model.tokenizer.encode_context("a b, [5] c").is_ok(), "{what}");
        let message = model.tokenizer.encode_context("a [PAD] b").unwrap_err().to_string();
        assert!(message.contains("has the token \"[PAD]\" with number"), "{what}: {message}");
    }
}

#[test]
fn gguf_files_give_the_tokens_of_llama_cpp() {
    for File { file, texts, ids } in &golden().files {
        let files = ModelFiles::gguf(&testdata().join("tokens").join(file)).unwrap();
        let tokenizer = Tokenizer::of(&files.tokenizer).unwrap();
        for (text, ids) in texts.iter().zip(ids) {
            assert_eq!(&tokenizer.encode_context(text).unwrap(), ids, "{file}: {text:?}");
        }
        let written = Tokenizer::from_bytes(&files.tokenizer.json()).unwrap();
        assert_eq!(tokenizer.digest(), written.digest(), "{file}");
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
