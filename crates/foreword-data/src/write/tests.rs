//! What is written is read back.

use super::*;
use crate::Dataset;
use proptest::prelude::*;

fn fields() -> Vec<String> {
    ["text", "stars", "share", "sure", "tags", "note"].map(Into::into).into()
}

fn rows() -> Vec<Vec<Cell>> {
    let tags = Cell::nested("an array", Some("[\"a\", {\"b\": 1.50}]"));
    vec![
        vec!["plain".into(), 5_i64.into(), 0.5.into(), true.into(), tags, Cell::Null],
        vec!["a, \"b\"\nc\té".into(), Cell::Null, 2.0.into(), false.into(), Cell::Null, "n".into()],
        vec!["".into(), (-7_i64).into(), Cell::Null, Cell::Null, Cell::Null, Cell::Null],
    ]
}

fn write(path: &Path, fields: &[String], rows: &[Vec<Cell>]) {
    let mut writer = TableWriter::create(path, fields).unwrap();
    rows.iter().for_each(|row| writer.write(row).unwrap());
    writer.finish().unwrap();
}

fn read(path: &Path) -> (Vec<String>, Vec<Vec<Cell>>) {
    let data = Dataset::read(path).unwrap();
    let cells = |row| data.cells(row).into_iter().cloned().collect();
    (data.fields().to_vec(), (0..data.n()).map(cells).collect())
}

#[test]
fn types_that_a_format_has_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["d.jsonl", "d.jsonl.gz", "d.ndjson"] {
        let path = folder.path().join(name);
        write(&path, &fields(), &rows());
        assert_eq!(read(&path), (fields(), rows()), "{name}");
    }
    let path = folder.path().join("d.parquet");
    write(&path, &fields(), &rows());
    let mut expected = rows();
    // No column of Parquet has values of all shapes: they are JSON.
    expected[0][4] = "[\"a\", {\"b\": 1.50}]".into();
    assert_eq!(read(&path), (fields(), expected));
}

#[test]
fn tables_of_texts_have_the_literals() {
    let folder = tempfile::tempdir().unwrap();
    let texts: Vec<Vec<Cell>> =
        rows().iter().map(|row| row.iter().map(|cell| cell.to_string().into()).collect()).collect();
    for name in ["d.csv", "d.tsv", "d.csv.gz"] {
        let path = folder.path().join(name);
        write(&path, &fields(), &rows());
        assert_eq!(read(&path), (fields(), texts.clone()), "{name}");
    }
    let written = std::fs::read_to_string(folder.path().join("d.csv")).unwrap();
    let first = "text,stars,share,sure,tags,note\nplain,5,0.5,true,\"[\"\"a\"\", {\"\"b\"\": 1.50}]\",\n";
    assert!(written.starts_with(first), "{written}");
}

#[test]
fn one_empty_cell_is_a_row() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["d.csv", "d.tsv", "d.jsonl", "d.parquet"] {
        let path = folder.path().join(name);
        write(&path, &["text".to_owned()], &[vec!["".into()], vec!["a".into()]]);
        assert_eq!(read(&path).1, [[Cell::from("")], [Cell::from("a")]], "{name}");
    }
}

#[test]
fn a_column_has_the_narrowest_type_that_keeps_its_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.parquet");
    let column = |cells: &[Cell]| {
        let rows: Vec<Vec<Cell>> = cells.iter().map(|cell| vec![cell.clone()]).collect();
        write(&path, &["x".to_owned()], &rows);
        read(&path).1.into_iter().flatten().collect::<Vec<_>>()
    };
    let whole = |value: i64| Cell::from(value);
    for kept in [
        vec![whole(1), Cell::Null, whole(i64::MAX)],
        vec![0.5.into(), Cell::Null, 1.0.into()],
        vec![true.into(), false.into()],
        vec![Cell::Null, Cell::Null],
    ] {
        assert_eq!(column(&kept), kept);
    }
    assert_eq!(column(&[whole(1), 0.5.into()]), [1.0.into(), 0.5.into()]);
    for (as_text, expected) in [
        (vec![whole(1), "a".into()], ["1", "a"]),
        (vec![true.into(), whole(0)], ["true", "0"]),
        // Double precision has no 2⁵³ + 1.
        (vec![whole((1 << 53) + 1), 0.5.into()], ["9007199254740993", "0.5"]),
        (vec![Cell::number("18446744073709551615"), whole(1)], ["18446744073709551615", "1"]),
    ] {
        assert_eq!(column(&as_text), expected.map(Cell::from));
    }
}

#[test]
fn rows_of_several_groups_keep_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.parquet");
    let rows: Vec<Vec<Cell>> = (0..(1 << 16) + 3).map(|i: i64| vec![i.into()]).collect();
    write(&path, &["x".to_owned()], &rows);
    assert_eq!(read(&path).1, rows);
}

#[test]
fn what_is_flushed_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["d.csv", "d.tsv", "d.jsonl"] {
        let path = folder.path().join(name);
        let mut writer = TableWriter::create(&path, &["text".to_owned()]).unwrap();
        writer.write(&["a".into()]).unwrap();
        writer.flush().unwrap();
        assert_eq!(read(&path).1, [[Cell::from("a")]], "{name}");
        drop(writer);
    }
}

#[test]
fn what_can_not_be_written_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let error = |name: &str, fields: &[&str]| {
        let fields: Vec<String> = fields.iter().map(|&field| field.to_owned()).collect();
        TableWriter::create(&folder.path().join(name), &fields).unwrap_err()
    };
    for name in ["d.xlsx", "d", "csv", ".csv", "d.gz", "d.parquet.gz"] {
        assert!(matches!(error(name, &["a"]), WriteError::UnknownEnding { .. }), "{name}");
    }
    assert!(error("d.csv", &["a", "a"]).to_string().contains("two fields would have the name \"a\""));
    for name in ["no/d.csv", "no/d.parquet"] {
        assert!(matches!(error(name, &["a"]), WriteError::Io { .. }), "{name}");
    }
    let mut writer = TableWriter::create(&folder.path().join("d.csv"), &["a".to_owned()]).unwrap();
    let ragged = writer.write(&[Cell::Null, Cell::Null]).unwrap_err();
    assert_eq!(ragged.to_string(), "a row of 2 cells for a table of 1 fields");
}

proptest! {
    #[test]
    fn any_text_is_read_back(texts in proptest::collection::vec("[a\",;\t\r\n\\\\é ]{0,6}", 2..12)) {
        let folder = tempfile::tempdir().unwrap();
        let rows: Vec<Vec<Cell>> = texts.chunks_exact(2).map(|pair| pair.iter().cloned().map(Cell::Text).collect()).collect();
        for name in ["d.csv", "d.jsonl", "d.parquet"] {
            let path = folder.path().join(name);
            write(&path, &["a".to_owned(), "b".to_owned()], &rows);
            prop_assert_eq!(&read(&path).1, &rows);
        }
    }
}
