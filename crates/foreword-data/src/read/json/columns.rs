//! The values of each field together, as pandas and polars write them: `{"text": ["a", "b"], "label": [0, 1]}`, and with
//! the rows' names, or split into names and rows.

use super::{Builder, Entry, cell, scan};
use crate::read::Table;
use crate::read::source::Source;
use crate::{Cell, DataError, Unit};
use std::collections::HashMap;

/// Reads an object as columns; `None` if it is something else.
pub(super) fn parse(entries: &[Entry<'_>], source: &mut Source<'_>) -> Result<Option<Table>, DataError> {
    let all = |mark: char| !entries.is_empty() && entries.iter().all(|entry| entry.text.starts_with(mark));
    let has = |key: &str| entries.iter().any(|entry| entry.key == key);
    let (table, form) = if all('[') && entries.len() <= 3 && has("columns") && has("data") {
        (split(entries, source)?, "names of fields and rows")
    } else if all('[') {
        (arrays(entries, source)?, "an array for each field")
    } else if all('{') {
        objects(entries, source)?
    } else {
        return Ok(None);
    };
    source.say(format!("{}: read as {form}", source.name()));
    Ok(Some(table))
}

/// `{"text": ["a", "b"], "label": [0, 1]}`
fn arrays(entries: &[Entry<'_>], source: &Source<'_>) -> Result<Table, DataError> {
    let columns: Vec<Vec<&str>> = entries.iter().map(|entry| scan::elements(entry.text)).collect();
    let n_rows = columns.first().map_or(0, Vec::len);
    check_even(entries, &columns.iter().map(Vec::len).collect::<Vec<_>>(), source)?;
    let mut table = Builder { unit: Unit::Row, ..Builder::default() };
    for row in 0..n_rows {
        let cells =
            entries.iter().zip(&columns).map(|(entry, column)| (entry.key.clone(), cell(column[row])));
        table.add_cells(cells.collect(), row as u64 + 1, source)?;
    }
    Ok(table.finish())
}

fn check_even(entries: &[Entry<'_>], lengths: &[usize], source: &Source<'_>) -> Result<(), DataError> {
    let (Some(first), Some(&expected)) = (entries.first(), lengths.first()) else { return Ok(()) };
    let uneven = entries.iter().zip(lengths).find(|(_, length)| **length != expected);
    uneven.map_or(Ok(()), |(entry, &found)| {
        let (field, first) = (entry.key.as_str().into(), first.key.as_str().into());
        Err(DataError::UnevenColumns { location: source.location(entry.line), field, found, first, expected })
    })
}

/// `{"text": {"0": "a", "1": "b"}, "label": {"0": 0, "1": 1}}`, or with numbers outside, which are the rows.
fn objects(entries: &[Entry<'_>], source: &Source<'_>) -> Result<(Table, &'static str), DataError> {
    let is_number = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit());
    let mut table = Builder { unit: Unit::Row, ..Builder::default() };
    let inner: Vec<Vec<(String, &str)>> = entries.iter().map(|entry| scan::entries(entry.text)).collect();
    let numbered = entries.iter().all(|entry| is_number(&entry.key));
    if numbered && !inner.iter().flatten().all(|(key, _)| is_number(key)) {
        for (row, values) in (1..).zip(inner) {
            let cells = values.into_iter().map(|(key, value)| (key, cell(value))).collect();
            table.add_cells(cells, row, source)?;
        }
        return Ok((table.finish(), "an object for each row"));
    }
    check_even(entries, &inner.iter().map(Vec::len).collect::<Vec<_>>(), source)?;
    let names: Vec<String> = inner.first().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let mut columns: Vec<HashMap<String, &str>> =
        inner.into_iter().map(|column| column.into_iter().collect()).collect();
    for (row, name) in (1..).zip(&names) {
        let value = |column: &mut HashMap<String, &str>| column.remove(name).map_or(Cell::Null, cell);
        let cells =
            entries.iter().zip(&mut columns).map(|(entry, column)| (entry.key.clone(), value(column)));
        table.add_cells(cells.collect(), row, source)?;
    }
    // A value of a row that the first column does not have would be lost.
    if let Some((entry, other)) = entries.iter().zip(&columns).find(|(_, column)| !column.is_empty()) {
        let (field, first) = (entry.key.as_str().into(), entries[0].key.as_str().into());
        let (found, expected) = (names.len() - other.len(), names.len());
        return Err(DataError::UnevenColumns {
            location: source.location(entry.line),
            field,
            found,
            first,
            expected,
        });
    }
    Ok((table.finish(), "an object for each field"))
}

/// `{"columns": ["text", "label"], "index": [0, 1], "data": [["a", 0], ["b", 1]]}`
fn split(entries: &[Entry<'_>], source: &Source<'_>) -> Result<Table, DataError> {
    let of = |key: &str| {
        let entry = entries.iter().find(|entry| entry.key == key);
        entry.map(|entry| scan::elements(entry.text)).unwrap_or_default()
    };
    let names: Vec<String> =
        of("columns").into_iter().map(|name| cell(name).text().unwrap_or_default().to_owned()).collect();
    let mut table = Builder { unit: Unit::Row, ..Builder::default() };
    for (row, values) in (1..).zip(of("data")) {
        let values = scan::elements(values);
        if values.len() != names.len() {
            let location = crate::Location { unit: Unit::Row, ..source.location(row) };
            return Err(DataError::Ragged { location, found: values.len(), expected: names.len() });
        }
        table.add_cells(names.iter().cloned().zip(values.into_iter().map(cell)).collect(), row, source)?;
    }
    Ok(table.finish())
}
