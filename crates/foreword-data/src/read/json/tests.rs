//! JSON in all its forms, and what is wrong with it.

use super::*;
use crate::Dataset;
use std::path::Path;

fn data(text: &str, name: &str) -> Dataset {
    Dataset::from_bytes(text.as_bytes(), Path::new(name)).unwrap()
}

fn message(text: &str, name: &str) -> String {
    Dataset::from_bytes(text.as_bytes(), Path::new(name)).unwrap_err().to_string()
}

#[test]
fn lines_keep_their_numbers_over_blanks_and_crlf() {
    let data = data("\u{feff}{\"text\":\"a\"}\r\n\r\n{\"text\":\"b\\n\"}\n", "d.jsonl");
    let text = data.require("text").unwrap();
    assert_eq!((data.n(), data.location(1).line, data.text(1, text).unwrap()), (2, 3, "b\n"));
}

#[test]
fn numbers_and_booleans_become_their_text() {
    let text =
        r#"{"a":1,"b":-2,"c":0.5,"d":true,"e":18446744073709551615,"f":1.0,"g":-0.0,"h":2e3,"i":1e-9}"#;
    let data = data(text, "d.jsonl");
    let texts: Vec<_> = data.fields().iter().map(|f| data.text(0, data.field(f).unwrap()).unwrap()).collect();
    assert_eq!(texts, ["1", "-2", "0.5", "true", "18446744073709551615", "1", "0", "2000", "1e-9"]);
}

#[test]
fn lines_may_end_with_carriage_returns_alone() {
    let data = data("{\"text\":\"a\"}\r\r{\"text\":\"b\"}\r", "d.jsonl");
    assert_eq!((data.n(), data.location(1).line), (2, 3));
}

#[test]
fn an_object_with_splits_is_refused_and_says_how_to_get_one() {
    for text in [
        r#"{"train": [{"text": "a"}], "test": [{"text": "b"}, {"text": "c"}]}"#,
        r#"{"version": "1", "train": [{"text": "a"}], "validation": [{"text": "b"}]}"#,
        r#"{"train": {"text": ["a"], "label": [0]}, "test": {"text": ["b"], "label": [1]}}"#,
        r#"{"oos_train": [["a", "oos"]], "val": [["b", "x"]]}"#,
        r#"{"books": [{"text": "a"}], "films": [{"text": "b"}]}"#,
    ] {
        let error = message(text, "d.json");
        let first = text
            .split('"')
            .map(str::to_owned)
            .find(|key| ["train", "oos_train", "books"].contains(&key.as_str()));
        let how = format!("as jq '.[{0:?}]' d.json > {0}.json writes it", first.unwrap());
        assert!(
            error.starts_with("d.json: an object with several data sets, ") && error.ends_with(&how),
            "{error}"
        );
    }
    for (text, n) in [
        (r#"{"train": [], "test": [{"text": "b"}, {"text": "c"}]}"#, 2),
        (r#"{"train": [{"text": "b"}]}"#, 1),
        (r#"{"text": ["a", "b"], "test": ["c", "d"]}"#, 2),
        (r#"{"test": ["a", "b"], "train": ["c", "d"]}"#, 2),
        (r#"{"text": ["a", "b"], "about": [{"n": 1}, {"n": 2}]}"#, 2),
    ] {
        assert_eq!(data(text, "d.json").n(), n, "{text}");
    }
}

#[test]
fn a_text_before_objects_is_named() {
    let text = "These are the reviews, as of today:\n{\"text\": \"a\"}\n{\"text\": \"b\"}\n";
    for name in ["d.txt", "d", "d.dat"] {
        let error = message(text, name);
        let expected =
            format!("{name}, line 1: a text, and the lines after it are JSON objects: take it out");
        assert_eq!(error, expected);
        let options = crate::ReadOptions { skip_bad: true, ..crate::ReadOptions::default() };
        let read = Dataset::from_bytes_with(text.as_bytes(), Path::new(name), &options).unwrap();
        assert_eq!((read.n(), read.skipped().len()), (2, 1), "{name}");
    }
    assert!(message(text, "d.jsonl").starts_with("d.jsonl, line 1, column 1: "));
    assert_eq!(data("one\n{\"text\": \"a\"}\ntwo\n", "d.txt").n(), 3);
}

#[test]
fn what_python_writes_and_json_has_not_is_named() {
    for (text, word, at) in [
        ("{\"x\":1}\n{\"x\": NaN}\n", "NaN", "line 2, column 7"),
        ("{\"x\": None}", "None", "line 1, column 7"),
        ("{\"x\":True}", "True", "line 1, column 6"),
        ("{\"x\":-Infinity}", "-Infinity", "line 1, column 7"),
    ] {
        let error = message(text, "d.jsonl");
        assert!(error.starts_with(&format!("d.jsonl, {at}: {word} is not JSON")), "{error}");
        let error = message(&format!("[\n{}]", text.trim().replace('\n', ",\n")), "d.json");
        assert!(error.contains(&format!(": {word} is not JSON")), "{error}");
    }
    assert!(message("{\"x\":oops}", "d.jsonl").ends_with("column 6: expected value"));
}

#[test]
fn only_a_field_that_is_used_must_have_a_value() {
    let data = data("{\"text\":\"a\",\"x\":[1,{}]}\n{\"text\":null,\"x\":{}}\n{\"y\":1}\n", "d.jsonl");
    let field = |name| data.require(name).unwrap();
    assert_eq!(data.text(0, field("text")).unwrap(), "a");
    let error = |row, name| data.text(row, field(name)).unwrap_err().to_string();
    let missing = "d.jsonl, line 2: missing value in the field \"text\", give it one or take the example out";
    assert_eq!(error(1, "text"), missing);
    assert!(error(0, "x").starts_with("d.jsonl, line 1: the field \"x\" holds an array"));
    assert!(error(1, "x").contains("holds an object"));
    assert_eq!(error(2, "text"), "d.jsonl, line 3: no field \"text\", the fields of this example are: \"y\"");
    assert!(data.text(3, field("y")).is_err());
}

#[test]
fn broken_lines_are_named_by_line_and_column() {
    let text = "{\"text\":\"a\"}\n{\"text\":}\n";
    assert_eq!(message(text, "d.jsonl"), "d.jsonl, line 2, column 9: expected value");
    assert!(message("[1]", "d.jsonl").contains("expected an object with the fields of one example"));
    assert!(message("{\"a\":1,\"b\":2,\"a\":3}", "d.jsonl").contains("line 1: the field \"a\" occurs twice"));
    assert!(message("{\"text\":\"\\ud800\"}", "d.jsonl").starts_with("d.jsonl, line 1, column"));
    assert!(message(&format!("{{\"a\":{}}}", "[".repeat(1 << 16)), "d.jsonl").starts_with("d.jsonl, line 1"));
}

#[test]
fn an_array_may_stand_alone_or_under_data() {
    let array = "[\n {\"text\": \"a\",\n  \"n\": 1},\n\n {\"text\": \"b\"}\n]\n";
    for text in [array.to_owned(), format!("{{\"data\" : {array}}}")] {
        let data = data(&text, "d.json");
        assert_eq!((data.n(), data.location(0).line, data.location(1).line), (2, 2, 5));
    }
    for wrong in ["{\"data\":[],\"x\":1}", "{\"x\":{},\"y\":1}", "{}", "\"a\"", "[] []", "{", "[{}"] {
        let error = message(wrong, "d.json");
        assert!(
            error.contains("expected an array of objects") && error.contains(".jsonl"),
            "{wrong}: {error}"
        );
    }
    assert!(
        message("[{\"a\":1},\n  {\"a\":oops}]", "d.json").starts_with("d.json, line 2, column 8: expected")
    );
    assert!(message("[1]", "d.json").contains("invalid type"));
    assert!(message("[{\"a\":1},]", "d.json").starts_with("d.json, line 1"));
}

#[test]
fn columns_of_different_lengths_are_named() {
    let uneven = message("{\"text\": [\"a\", \"b\"],\n \"label\": [1]}", "d.json");
    assert_eq!(uneven, "d.json, line 2: the field \"label\" has 1 values where \"text\" has 2");
    let uneven =
        message("{\"text\": {\"0\": \"a\", \"1\": \"b\"}, \"label\": {\"0\": 1, \"7\": 1}}", "d.json");
    assert!(uneven.contains("\"label\" has"), "{uneven}");
    assert!(
        message("{\"columns\":[\"a\"],\"data\":[[1,2]]}", "d.json")
            .contains("row 1: 2 cells, but there is 1 field")
    );
    assert!(message("[[\"a\",1],[\"b\"]]", "d.json").contains("1 cell, but there are 2 fields"));
}

#[test]
fn values_keep_how_they_are_written() {
    let data =
        data("{\"a\":1.50,\"b\":{ \"c\" : [1,\t2]},\"c\":true,\"d\":12345678901234567890123}", "d.jsonl");
    let written: Vec<String> = data.cells(0).into_iter().map(Cell::to_string).collect();
    assert_eq!(written, ["1.50", "{\"c\": [1, 2]}", "true", "12345678901234567890123"]);
}

#[test]
fn conversations_that_can_not_be_read_say_why() {
    let row = |messages: &str| {
        message(
            &format!(
                "{{\"messages\": [{{\"role\":\"user\",\"content\":\"a\"}}]}}\n{{\"messages\": {messages}}}\n"
            ),
            "d.jsonl",
        )
    };
    for (messages, reason) in [
        ("[{\"role\":\"wizard\",\"content\":\"a\"}]", "the role \"wizard\" is unknown"),
        ("[{\"content\":\"a\"}]", "a message has no role"),
        ("[{\"role\":\"assistant\",\"content\":\"a\"}]", "there is no message before the answer"),
        (
            "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]",
            "has the type \"image_url\", and only text can be read",
        ),
        ("\"a\"", "it is no list of messages"),
        ("[{\"role\":\"user\",\"content\":7}]", "the content of a message is no text"),
    ] {
        let error = row(messages);
        assert!(
            error.starts_with("d.jsonl, line 2: the conversation in the field \"messages\" can't be read: "),
            "{error}"
        );
        assert!(error.contains(reason), "{error}");
    }
    let own = data("{\"user\":\"me\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "d.jsonl");
    assert_eq!(own.fields(), ["user", "messages", "messages.user"]);
    assert_eq!(own.own_fields().len(), 2);
}

#[test]
fn conversations_of_other_shapes_have_the_same_turns() {
    let turns = |line: &str| {
        let data = data(line, "d.jsonl");
        let text = |name| data.field(name).map(|field| data.cell(0, field).to_string());
        [text("system"), text("user"), text("assistant")]
    };
    let some = |text: &str| Some(text.to_owned());
    let roles =
        r#"{"conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    assert_eq!(turns(roles), [None, some("a"), some("b")]);
    let share = r#"{"conversation": [{"from": "system", "value": "s"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#;
    assert_eq!(turns(share), [some("s"), some("a"), some("b")]);
    let tool = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null},
        {"role": "tool", "content": "7"}, {"role": "assistant", "content": "b"}]}"#
        .replace('\n', "");
    assert_eq!(turns(&tool), [None, some("user: a\nassistant: \ntool: 7"), some("b")]);
    let open = r#"{"messages": [{"role": "user", "content": "a"}]}"#;
    assert_eq!(turns(open), [None, some("a"), None]);
}
