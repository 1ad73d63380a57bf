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
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::{FileDecoder, StreamDecoder, read_footer_length};
use arrow_ipc::{Block, root_as_footer};
use arrow_schema::{ArrowError, DataType, Schema};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// The beginning of a file.
const MAGIC: &[u8] = b"ARROW1";
/// The end of a file: the length of its footer, and the magic number again.
const TRAILER: usize = 10;
/// Before a message.
const CONTINUATION: &[u8] = b"\xff\xff\xff\xff";
/// Maximum depth of lists and structures.
const MOST_DEPTH: usize = 32;

/// Whether the bytes begin as a file or a stream of Arrow.
pub(super) fn is_arrow(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC) || bytes.starts_with(CONTINUATION)
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
    let mut rows = Rows { table: Table::new(Vec::new(), Vec::new()), n_bytes: 0, path, most };
    if bytes.starts_with(MAGIC) {
        file(bytes, &mut rows)?;
    } else {
        stream(bytes, &mut rows)?;
    }
    Ok(rows.table)
}

/// A stream: the schema, then dictionaries and batches, one after another.
fn stream(bytes: &[u8], rows: &mut Rows<'_>) -> Result<(), DataError> {
    let mut buffer = Buffer::from(bytes);
    let mut decoder = StreamDecoder::new();
    while let Some(batch) = decoder.decode(&mut buffer).map_err(|error| rows.wrong(&error))? {
        rows.add(&batch)?;
    }
    decoder.finish().map_err(|error| rows.wrong(&error))
}

/// A file: its end says where dictionaries and batches are.
fn file(bytes: &[u8], rows: &mut Rows<'_>) -> Result<(), DataError> {
    let cut_off = || damaged(rows.path, "it is cut off".to_owned());
    let (rest, trailer) = bytes.split_last_chunk::<TRAILER>().ok_or_else(cut_off)?;
    let length = read_footer_length(*trailer).map_err(|error| rows.wrong(&error))?;
    let footer = rest.len().checked_sub(length).and_then(|from| rest.get(from..)).ok_or_else(cut_off)?;
    let footer = root_as_footer(footer).map_err(|error| damaged(rows.path, error.to_string()))?;
    let schema = footer.schema().ok_or_else(cut_off)?;
    let schema = try_fb_to_schema(schema).map_err(|error| rows.wrong(&error))?;
    let mut decoder = FileDecoder::new(Arc::new(schema), footer.version());
    let whole = Buffer::from(bytes);
    let part = |block: &Block| {
        let from = usize::try_from(block.offset()).ok()?;
        let n_of_head = usize::try_from(block.metaDataLength()).ok()?;
        let n = usize::try_from(block.bodyLength()).ok()?.checked_add(n_of_head)?;
        (from.checked_add(n)? <= whole.len()).then(|| whole.slice_with_length(from, n))
    };
    for block in footer.dictionaries().iter().flatten() {
        let data = part(block).ok_or_else(|| damaged(rows.path, "it is cut off".to_owned()))?;
        decoder.read_dictionary(block, &data).map_err(|error| rows.wrong(&error))?;
    }
    for block in footer.recordBatches().iter().flatten() {
        let data = part(block).ok_or_else(|| damaged(rows.path, "it is cut off".to_owned()))?;
        if let Some(batch) = decoder.read_record_batch(block, &data).map_err(|error| rows.wrong(&error))? {
            rows.add(&batch)?;
        }
    }
    Ok(())
}

/// The rows read so far.
struct Rows<'a> {
    table: Table,
    n_bytes: u64,
    path: &'a Path,
    most: u64,
}

impl Rows<'_> {
    fn wrong(&self, error: &ArrowError) -> DataError {
        let reason = error.to_string().trim_end_matches('.').to_owned();
        // The crate's words for a compression that it is built without.
        if reason.contains("IPC decompression requires") {
            let what = "a compressed Arrow file";
            let how = "write it without compression, as DataFrame.to_feather(FILE, compression=\"uncompressed\") does, or as \
                       Parquet";
            return DataError::Foreign { path: self.path.to_owned(), what, how };
        }
        damaged(self.path, reason)
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<(), DataError> {
        if self.table.fields.is_empty() {
            self.table = empty(&batch.schema(), self.path)?;
        }
        for row in 0..batch.num_rows() {
            let columns = batch.columns().iter().enumerate();
            let cells: Vec<(FieldIdx, Cell)> =
                columns.map(|(column, values)| (FieldIdx(column), cell(values.as_ref(), row, 0))).collect();
            let sizes = cells.iter().map(|(_, cell)| size_of::<(FieldIdx, Cell)>() + cell.n_bytes());
            self.n_bytes += (size_of::<Row>() + sizes.sum::<usize>()) as u64;
            if self.n_bytes > self.most {
                return Err(DataError::TooLarge { path: self.path.to_owned(), most: self.most });
            }
            self.table.rows.push(Row::new(self.table.rows.len() as u64 + 1, cells));
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use crate::Dataset;
    use proptest::prelude::*;
    use std::path::Path;

    fn fixture(name: &str) -> Vec<u8> {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/data/files");
        std::fs::read(files.join(name)).unwrap()
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error_or_has_fewer_rows() {
        for (name, is_stream) in [("kinds.feather", false), ("stream.arrow", true)] {
            let whole = fixture(name);
            for n in (8..whole.len()).step_by(7) {
                match Dataset::from_bytes(&whole[..n], Path::new("d.arrow")) {
                    Ok(data) => assert!(is_stream && data.n() <= 4, "{name} cut to {n}"),
                    Err(error) => assert!(error.to_string().starts_with("d.arrow"), "{error}"),
                }
            }
        }
    }

    #[test]
    fn a_compressed_file_says_how_to_write_it() {
        let error = Dataset::from_bytes(&fixture("lz4.feather"), Path::new("d.feather")).unwrap_err();
        assert!(
            error.to_string().starts_with("d.feather: this is a compressed Arrow file: write it without"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn no_damage_makes_more_than_an_error(at in 0.0..1.0_f64, byte: u8, length in 1_usize..8, is_file: bool) {
            let mut bytes = fixture(if is_file { "kinds.feather" } else { "stream.arrow" });
            let at = (at * bytes.len() as f64) as usize;
            for byte_there in bytes.iter_mut().skip(at).take(length) {
                *byte_there = byte_there.wrapping_add(byte);
            }
            let _ = Dataset::from_bytes(&bytes, Path::new("d.arrow"));
        }
    }
}
