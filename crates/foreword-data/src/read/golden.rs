//! Files in the forms that people have, and what other programs read from them: testdata/make_data_files.py.

use crate::{Cell, Dataset, ReadOptions};
use serde_json::Value;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/data")
}

fn read(name: &str, options: &ReadOptions) -> Result<Dataset, String> {
    Dataset::read_with(&folder().join("files").join(name), options).map_err(|error| error.to_string())
}

fn notices(data: &Dataset) -> String {
    data.notices().iter().map(|notice| notice.text.as_str()).collect::<Vec<_>>().join("\n")
}

/// Whether a cell has this value. A number has one spelling; a nested value is compared as JSON.
fn is_same(cell: &Cell, expected: &Value) -> bool {
    match (cell, expected) {
        (Cell::Null, Value::Null) => true,
        (Cell::Nested(nested), Value::String(json)) => {
            let parsed = |json: &str| serde_json::from_str::<Value>(json).unwrap();
            nested.json().is_some_and(|own| parsed(own) == parsed(json))
        }
        (Cell::Text(text), Value::String(expected)) => text == expected,
        (Cell::Bool(value), Value::Bool(expected)) => value == expected,
        (Cell::Number(number), Value::Number(expected)) => {
            let (own, expected) = (number.literal().parse::<f64>().unwrap(), expected.as_f64().unwrap());
            // Python has no single precision: 0.1 is 0.10000000149 there.
            own == expected || f64::from(own as f32) == expected
        }
        _ => false,
    }
}

#[test]
fn files_of_every_kind_are_read_as_other_programs_read_them() {
    let golden = std::fs::read_to_string(folder().join("files.json")).unwrap();
    let golden: serde_json::Map<String, Value> = serde_json::from_str(&golden).unwrap();
    assert!(golden.len() > 70);
    let mut wrong = Vec::new();
    for (name, expected) in &golden {
        let stated = |key: &str| expected.get("options").and_then(|options| options.get(key));
        let options = ReadOptions {
            encoding: stated("encoding").map(|name| name.as_str().unwrap().parse().unwrap()),
            delimiter: stated("delimiter").map(|mark| mark.as_str().unwrap().parse().unwrap()),
            no_header: stated("no_header").and_then(Value::as_bool),
            skip_bad: false,
        };
        let data = match read(name, &options) {
            Ok(data) => data,
            Err(error) => {
                wrong.push(error);
                continue;
            }
        };
        let fields: Vec<Value> = data.fields().iter().map(|field| field.as_str().into()).collect();
        if fields != *expected["fields"].as_array().unwrap() {
            wrong.push(format!("{name}: the fields are {fields:?}"));
            continue;
        }
        let rows = expected["rows"].as_array().unwrap();
        for (row, cells) in rows.iter().enumerate() {
            for (field, expected) in data.fields().iter().zip(cells.as_array().unwrap()) {
                let cell = data.cell(row, data.field(field).unwrap());
                if !is_same(cell, expected) {
                    wrong.push(format!("{name}, row {row}, {field}: {cell:?}, not {expected}"));
                }
            }
        }
        if data.n() != rows.len() {
            wrong.push(format!("{name}: {} rows, not {}", data.n(), rows.len()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_detected_is_said() {
    for (name, said) in [
        ("kaggle.csv", "not UTF-8, read as windows-1252 (\"m,Meet me at the café at nine,,,\""),
        ("kaggle.csv", "the columns 3, 4, 5 have no name; their numbers are their names"),
        ("index.csv", "the column 1 has no name; its number is its name"),
        ("russian.csv", "read as windows-1251"),
        ("utf16.csv", "read as UTF-16LE, as its byte order mark says"),
        ("utf16be.csv", "read as UTF-16BE, without a byte order mark"),
        ("german.csv", "cells are separated by semicolons, not commas"),
        ("commas.tsv", "cells are separated by commas, not tabs"),
        ("sep_pipe.csv", "cells are separated by '|', as its first line says"),
        (
            "cola.tsv",
            "the first line is read as an example, not as the names of the fields, for its cell 1 is \"gj04\"",
        ),
        ("sms.txt", "for its cell 1 is \"ham\""),
        ("sms.txt", "read as cells separated by tabs"),
        ("lines.json", "read as one object per line"),
        ("array.jsonl", "read as one array, not as one object per line"),
        ("lists.json", "read as an array for each field"),
        ("columns.json", "read as an object for each field"),
        ("index.json", "read as an object for each row"),
        ("split.json", "read as names of fields and rows"),
        ("wrapped.json", "the examples are the array \"examples\""),
        ("texts.json", "an array of texts"),
        ("imdb", "a folder for each label: neg (2), pos (2)"),
        ("imdb", "the folder unsup is not read, for its 1 texts have no label"),
        ("imdb", "the files beside the folders are not read: urls_pos.txt"),
        ("texts.txt", "read as one text per line, in the field \"text\""),
        ("fasttext.txt", "read as fastText's format"),
        (
            "messages.jsonl",
            "the conversations in the field \"messages\" are read as the fields \"system\", \"user\", \"assistant\"",
        ),
        ("messages.jsonl", "1 of 2 conversations have several turns"),
        ("messages.parquet", "the conversations in the field \"messages\" are read as the fields"),
        (
            "sharegpt.parquet",
            "1 of 2 conversations have a system message, in the field \"system\": only a template that",
        ),
        ("waiting.jsonl", "1 of 2 conversations do not end with an answer, and have no \"assistant\""),
        ("image.parquet", "bytes and other values that are not read are null in the nested field \"image\""),
        ("image.feather", "bytes and other values that are not read are null in the nested field \"image\""),
        ("prose", "read as one text per line, in the field \"text\" (--delimiter CHARACTER: as cells)"),
        ("even.dat", "read as one text per line"),
        ("one_split.json", "the examples are the array \"train\", the others are empty"),
        ("utf32.csv", "read as UTF-32LE"),
        ("utf32be.csv", "read as UTF-32BE"),
        ("mail.csv", "read as ISO-2022-JP"),
    ] {
        let told = notices(&read(name, &ReadOptions::default()).unwrap());
        assert!(told.contains(said), "{name}: {told}");
    }
    for quiet in [
        "pretty.jsonl",
        "records.json",
        "polars.ndjson",
        "zstd_1.parquet",
        "utf8_bom.csv",
        "alpaca.json",
        "stream.arrow",
        "lz4.feather",
        "zstd.arrows",
        "times.parquet",
        "times.feather",
        "nested.parquet",
        "nested_polars.arrow",
    ] {
        assert_eq!(notices(&read(quiet, &ReadOptions::default()).unwrap()), "", "{quiet}");
    }
}

#[test]
fn long_columns_of_every_compression_are_whole() {
    for name in [
        "zstd_long.parquet",
        "lz4_long.parquet",
        "brotli_long.parquet",
        "zstd_long.feather",
        "lz4_long.feather",
    ] {
        let data = read(name, &ReadOptions::default()).unwrap();
        let (text, label) = (data.require("text").unwrap(), data.require("label").unwrap());
        assert_eq!(data.n(), 300);
        for row in 0..300 {
            let expected = format!("the text number {row} of many, which are all alike");
            assert_eq!(data.text(row, text).unwrap(), expected, "{name}");
            assert_eq!(data.text(row, label).unwrap(), (row % 3).to_string(), "{name}");
        }
    }
}

#[test]
fn a_saved_data_set_names_its_classes_and_locations() {
    let data = read("saved", &ReadOptions::default()).unwrap();
    let names = crate::labels::own_names(&data, data.require("label").unwrap()).unwrap().names;
    assert_eq!(names.into_values().collect::<Vec<_>>(), ["negative", "positive"]);
    let location = data.location(3).to_string();
    assert!(location.ends_with("data-00001-of-00002.arrow, row 2"), "{location}");
    let data = read("imdb", &ReadOptions::default()).unwrap();
    assert!(data.location(1).to_string().ends_with("imdb/neg/1_6.txt"), "{}", data.location(1));
}

#[test]
fn directories_that_are_several_data_sets_name_them() {
    let error = read("saved_splits", &ReadOptions::default()).unwrap_err();
    assert!(error.ends_with("this directory holds the splits test, train: give one of them"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let error = |name: &str| Dataset::read(&folder.path().join(name)).unwrap_err().to_string();
    make("a/train/pos/0.txt", "x");
    make("a/test/pos/0.txt", "x");
    assert!(error("a").contains("holds the splits test, train: give one of them"));
    make("b/train.csv", "text\nx\n");
    make("b/test.csv", "text\ny\n");
    assert!(error("b").contains("holds several data files: give one of test.csv, train.csv"));
    make("c/picture.png", "x");
    assert!(error("c").contains("holds no data"));
    std::fs::create_dir(folder.path().join("d")).unwrap();
    assert!(error("d").contains("holds no data"));
}

#[test]
fn parts_of_one_data_set_are_read_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("train-00000-of-00002.csv", "text,label\na,x\nb,y\n");
    write("train-00001-of-00002.csv", "text,label\nc,x\n");
    let data = Dataset::read(folder.path()).unwrap();
    let text = data.require("text").unwrap();
    assert_eq!((data.n(), data.text(2, text).unwrap()), (3, "c"));
    assert!(data.location(2).to_string().ends_with("train-00001-of-00002.csv, line 2"));
    let digest = data.digest().to_owned();
    write("train-00001-of-00002.csv", "text,label\nd,x\n");
    assert_ne!(Dataset::read(folder.path()).unwrap().digest(), digest);
    write("train-00001-of-00002.csv", "text,class\nc,x\n");
    assert!(Dataset::read(folder.path()).unwrap_err().to_string().contains("parts with different fields"));
    std::fs::remove_file(folder.path().join("train-00001-of-00002.csv")).unwrap();
    write("train-00002-of-00003.csv", "text,label\nc,x\n");
    assert!(
        Dataset::read(folder.path()).unwrap_err().to_string().contains("several data files"),
        "one is missing"
    );
}

#[test]
fn standard_input_may_be_of_every_kind_that_shows_in_its_first_bytes() {
    for name in [
        "kaggle.csv",
        "german.csv",
        "tabs.csv",
        "commas.tsv",
        "pipe.csv",
        "sep.csv",
        "utf16.csv",
        "utf16le.csv",
        "utf16.jsonl",
        "cola.tsv",
        "news.csv",
        "lines.json",
        "pretty.json",
        "lists.json",
        "columns.json",
        "values.json",
        "messages.jsonl",
        "fasttext.txt",
        "zstd_1.parquet",
        "brotli_2.parquet",
        "kinds.feather",
        "stream.arrow",
        "kinds_zstd.feather",
        "lz4.arrows",
        "messages.parquet",
        "prose",
        "utf32.jsonl",
    ] {
        let file = read(name, &ReadOptions::default()).unwrap();
        let bytes = std::fs::read(folder().join("files").join(name)).unwrap();
        let piped = Dataset::from_stream(&bytes, "standard input").unwrap();
        assert_eq!((piped.n(), piped.fields()), (file.n(), file.fields()), "{name}");
        for row in 0..file.n() {
            assert_eq!(piped.cells(row), file.cells(row), "{name}");
        }
        assert_eq!(piped.digest(), file.digest());
    }
}

#[test]
fn parts_of_json_lines_may_have_different_fields() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("d-0-of-2.jsonl", "{\"text\": \"a\", \"label\": 0}\n");
    write("d-1-of-2.jsonl", "{\"label\": 1, \"id\": 7, \"text\": \"b\"}\n");
    let data = Dataset::read(folder.path()).unwrap();
    assert_eq!(data.fields(), ["text", "label", "id"]);
    let row = |row| data.cells(row).into_iter().map(Cell::to_string).collect::<Vec<_>>();
    assert_eq!(
        (row(0), row(1)),
        (vec!["a".into(), "0".into(), String::new()], vec!["b".into(), "1".into(), "7".into()])
    );
}
