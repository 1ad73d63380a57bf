//! Arrow's IPC formats: files (Feather 2) and streams, as Hugging Face `save_to_disk` writes them.

use super::super::{About, Cell, DataError, FieldIdx, READER_THREAD, Row, Unit};
use super::Table;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::{ArrowError, DataType, Schema};
use std::collections::HashSet;
use std::path::Path;

/// Before the messages of a file, which are those of a stream.
const MAGIC: &[u8] = b"ARROW1\0\0";
/// Before a message.
const CONTINUATION: &[u8] = b"\xff\xff\xff\xff";
/// Maximum depth of lists and structures.
const MOST_DEPTH: usize = 32;

/// Whether the bytes begin as a file or a stream of Arrow.
pub(super) fn is_arrow(bytes: &[u8]) -> bool {
    bytes.starts_with(b"ARROW1") || bytes.starts_with(CONTINUATION)
}

/// Reads all rows. A row's line is its number, from 1. `most`: maximum number of bytes of the rows.
///
/// The arrow crates panic on some damaged files: on a thread of its own, that becomes an error too.
pub(super) fn parse(bytes: &[u8], path: &Path, most: u64) -> Result<Table, DataError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(READER_THREAD.to_owned());
        let reader = thread
            .spawn_scoped(scope, || parse_trusting(bytes, path, most))
            .map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        reader.join().unwrap_or_else(|_| Err(damaged(path, "its parts contradict each other".to_owned())))
    })
}

fn damaged(path: &Path, reason: String) -> DataError {
    DataError::Damaged { path: path.to_owned(), packing: "Arrow", reason }
}

fn parse_trusting(bytes: &[u8], path: &Path, most: u64) -> Result<Table, DataError> {
    let wrong = |error: ArrowError| {
        let reason = error.to_string().trim_end_matches('.').to_owned();
        // The crate's words for a compression that it is built without.
        if reason.contains("IPC decompression requires") {
            let (what, how) = (
                "a compressed Arrow file",
                "write it without compression, as DataFrame.to_feather(FILE, compression=\"uncompressed\") does, or as Parquet",
            );
            return DataError::Foreign { path: path.to_owned(), what, how };
        }
        damaged(path, reason)
    };
    let messages = messages(bytes).ok_or_else(|| damaged(path, "it is cut off".to_owned()))?;
    let mut buffer = Buffer::from(messages);
    let mut decoder = StreamDecoder::new();
    let mut table = Table::new(Vec::new(), Vec::new());
    let mut n_bytes = 0;
    while let Some(batch) = decoder.decode(&mut buffer).map_err(wrong)? {
        if table.fields.is_empty() {
            table = empty(&batch.schema(), path)?;
        }
        n_bytes = add(&batch, &mut table.rows, (n_bytes, most))
            .ok_or_else(|| DataError::TooLarge { path: path.to_owned(), most })?;
    }
    decoder.finish().map_err(wrong)?;
    Ok(table)
}

/// The messages of a stream, or of a file: those end before the footer, whose length and a magic number end the file.
fn messages(bytes: &[u8]) -> Option<&[u8]> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else { return Some(bytes) };
    let (rest, length) = rest.strip_suffix(&MAGIC[..6])?.split_last_chunk::<4>()?;
    rest.get(..rest.len().checked_sub(u32::from_le_bytes(*length) as usize)?)
}

/// A table of these fields.
fn empty(schema: &Schema, path: &Path) -> Result<Table, DataError> {
    let fields: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut seen = HashSet::new();
    if let Some(field) = fields.iter().find(|field| !seen.insert(*field)) {
        return Err(DataError::DuplicateField { location: super::location(path, 1), field: field.clone() });
    }
    let class_names =
        schema.metadata().get("huggingface").map(|written| super::class_names(written, &fields));
    let about = About { class_names: class_names.unwrap_or_default(), unit: Unit::Row, ..About::default() };
    Ok(Table { fields, rows: Vec::new(), about })
}

/// Adds the rows of a batch, and returns the number of bytes so far; `None` if they are more than `most`.
fn add(batch: &RecordBatch, rows: &mut Vec<Row>, (mut n_bytes, most): (u64, u64)) -> Option<u64> {
    for row in 0..batch.num_rows() {
        let cells: Vec<(FieldIdx, Cell)> = batch
            .columns()
            .iter()
            .enumerate()
            .map(|(column, values)| (FieldIdx(column), cell(values.as_ref(), row, 0)))
            .collect();
        let n_of_cells: usize =
            cells.iter().map(|(_, cell)| size_of::<(FieldIdx, Cell)>() + cell.n_bytes()).sum();
        n_bytes += (size_of::<Row>() + n_of_cells) as u64;
        if n_bytes > most {
            return None;
        }
        rows.push(Row::new(rows.len() as u64 + 1, cells));
    }
    Some(n_bytes)
}

/// One value of a column.
fn cell(values: &dyn Array, row: usize, depth: usize) -> Cell {
    if row >= values.len() || values.is_null(row) {
        return Cell::Null;
    }
    match values.data_type() {
        DataType::Null => Cell::Null,
        DataType::Utf8 => values.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => values.as_string::<i64>().value(row).into(),
        DataType::Utf8View => values.as_string_view().value(row).into(),
        DataType::Boolean => values.as_boolean().value(row).into(),
        DataType::Int8 => i64::from(values.as_primitive::<Int8Type>().value(row)).into(),
        DataType::Int16 => i64::from(values.as_primitive::<Int16Type>().value(row)).into(),
        DataType::Int32 => i64::from(values.as_primitive::<Int32Type>().value(row)).into(),
        DataType::Int64 => values.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => u64::from(values.as_primitive::<UInt8Type>().value(row)).into(),
        DataType::UInt16 => u64::from(values.as_primitive::<UInt16Type>().value(row)).into(),
        DataType::UInt32 => u64::from(values.as_primitive::<UInt32Type>().value(row)).into(),
        DataType::UInt64 => values.as_primitive::<UInt64Type>().value(row).into(),
        // In their shortest form, so that 0.1 in single precision stays 0.1.
        DataType::Float16 => shortest(&values.as_primitive::<Float16Type>().value(row).to_string()),
        DataType::Float32 => shortest(&values.as_primitive::<Float32Type>().value(row).to_string()),
        DataType::Float64 => values.as_primitive::<Float64Type>().value(row).into(),
        DataType::Dictionary(..) => {
            let dictionary = values.as_any_dictionary();
            let key = cell(dictionary.keys(), row, depth + 1);
            let key = key.text().and_then(|key| key.parse().ok());
            key.map_or(Cell::Null, |key| cell(dictionary.values().as_ref(), key, depth + 1))
        }
        _ if depth >= MOST_DEPTH => Cell::nested("a value nested too deep", None),
        _ => nested(values, row, depth),
    }
}

fn shortest(written: &str) -> Cell {
    written.parse::<f64>().map_or(Cell::Null, Cell::from)
}

/// A list or a structure as JSON; other types are named.
fn nested(values: &dyn Array, row: usize, depth: usize) -> Cell {
    let elements = match values.data_type() {
        DataType::List(_) => values.as_list::<i32>().value(row),
        DataType::LargeList(_) => values.as_list::<i64>().value(row),
        DataType::FixedSizeList(..) => values.as_fixed_size_list().value(row),
        DataType::Struct(fields) => {
            let columns = values.as_struct().columns();
            let entries = fields.iter().zip(columns).map(|(field, column)| {
                let name = serde_json::Value::from(field.name().as_str());
                format!("{name}: {}", cell(column.as_ref(), row, depth + 1).to_json())
            });
            return Cell::nested(
                "an object",
                Some(&format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))),
            );
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            return Cell::nested("bytes", None);
        }
        DataType::Date32
        | DataType::Date64
        | DataType::Timestamp(..)
        | DataType::Time32(_)
        | DataType::Time64(_) => {
            return Cell::nested("a date or time, which must be a text first", None);
        }
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => {
            return Cell::nested("a decimal number of fixed precision, which must be a float64 first", None);
        }
        _ => return Cell::nested("a value of another type", None),
    };
    let elements = (0..elements.len()).map(|i| cell(elements.as_ref(), i, depth + 1).to_json());
    Cell::nested("an array", Some(&format!("[{}]", elements.collect::<Vec<_>>().join(", "))))
}
