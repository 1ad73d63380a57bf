//! Arrow's IPC formats: files (Feather 2) and streams, as Hugging Face `save_to_disk` writes them.

mod compressed;

use super::super::{About, Cell, DataError, FieldIdx, READER_THREAD, ReadNotice, Row, Unit};
use super::Table;
use super::values::{Json, MOST_DEPTH, TooLong, bytes, date, decimal, lossy, shortest, time, timestamp};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType,
    Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::{FileDecoder, StreamDecoder, read_footer_length};
use arrow_ipc::{Block, root_as_footer};
use arrow_schema::{ArrowError, DataType, Schema, TimeUnit};
use compressed::Plain;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

/// The beginning of a file.
const MAGIC: &[u8] = b"ARROW1";
/// The end of a file: the length of its footer, and the magic number again.
const TRAILER: usize = 10;
/// Before a message.
const CONTINUATION: &[u8] = b"\xff\xff\xff\xff";
const MILLIS_PER_DAY: i64 = 86_400_000;

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
    let table = Table::new(Vec::new(), Vec::new());
    let mut rows = Rows { table, n_bytes: 0, lossy: BTreeSet::new(), path, most };
    if bytes.starts_with(MAGIC) {
        file(bytes, &mut rows)?;
    } else {
        stream(bytes, &mut rows)?;
    }
    let Rows { mut table, lossy: fields, .. } = rows;
    let fields = fields.into_iter().map(|field| table.fields[field].as_str());
    let notice = lossy(&path.display().to_string(), fields);
    table.about.notices.extend(notice.map(|text| ReadNotice { text, is_warning: true }));
    Ok(table)
}

/// A stream: the schema, then dictionaries and batches, one after another.
fn stream(bytes: &[u8], rows: &mut Rows<'_>) -> Result<(), DataError> {
    let plain = compressed::plain_stream(bytes, &mut rows.most.clone());
    let mut buffer = Buffer::from(plain.map_err(|reason| damaged(rows.path, reason))?.into_owned());
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
    let mut left = rows.most;
    for block in footer.dictionaries().iter().flatten() {
        let (block, data) =
            message(&whole, *block, &mut left).map_err(|reason| damaged(rows.path, reason))?;
        decoder.read_dictionary(&block, &data).map_err(|error| rows.wrong(&error))?;
    }
    for block in footer.recordBatches().iter().flatten() {
        let (block, data) =
            message(&whole, *block, &mut left).map_err(|reason| damaged(rows.path, reason))?;
        if let Some(batch) = decoder.read_record_batch(&block, &data).map_err(|error| rows.wrong(&error))? {
            rows.add(&batch)?;
        }
    }
    Ok(())
}

/// A message of a file without compression, and where its body is. `left`: maximum number of bytes after decompression.
fn message(whole: &Buffer, block: Block, left: &mut u64) -> Result<(Block, Buffer), String> {
    let n_of_head = usize::try_from(block.metaDataLength()).ok();
    let part = n_of_head.and_then(|n_of_head| {
        let from = usize::try_from(block.offset()).ok()?;
        let n = usize::try_from(block.bodyLength()).ok()?.checked_add(n_of_head)?;
        (from.checked_add(n)? <= whole.len()).then(|| (n_of_head, whole.slice_with_length(from, n)))
    });
    let (n_of_head, data) = part.ok_or("it is cut off")?;
    let Some(Plain { head, body }) = compressed::plain_message(&data, n_of_head, left)? else {
        return Ok((block, data));
    };
    let n_of_head = i32::try_from(head.len()).map_err(|_| "a message is too large")?;
    let block = Block::new(0, n_of_head, body.len() as i64);
    Ok((block, Buffer::from([head, body].concat())))
}

/// The rows read so far.
struct Rows<'a> {
    table: Table,
    n_bytes: u64,
    /// The fields with nested values of which parts are missing.
    lossy: BTreeSet<usize>,
    path: &'a Path,
    most: u64,
}

impl Rows<'_> {
    fn wrong(&self, error: &ArrowError) -> DataError {
        let reason = error.to_string().trim_end_matches('.').to_owned();
        damaged(self.path, reason)
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<(), DataError> {
        if self.table.fields.is_empty() {
            self.table = empty(&batch.schema(), self.path)?;
        }
        for row in 0..batch.num_rows() {
            let cells = self.cells(batch, row)?;
            self.table.rows.push(Row::new(self.table.rows.len() as u64 + 1, cells));
        }
        Ok(())
    }

    fn cells(&mut self, batch: &RecordBatch, row: usize) -> Result<Vec<(FieldIdx, Cell)>, DataError> {
        let too_large = || DataError::TooLarge { path: self.path.to_owned(), most: self.most };
        self.n_bytes += size_of::<Row>() as u64;
        let mut cells = Vec::with_capacity(batch.num_columns());
        for (column, values) in batch.columns().iter().enumerate() {
            let left = self.most.checked_sub(self.n_bytes).ok_or_else(too_large)?;
            let (cell, is_lossy) = cell(values.as_ref(), row, left).map_err(|TooLong| too_large())?;
            self.n_bytes += (size_of::<(FieldIdx, Cell)>() + cell.n_bytes()) as u64;
            if is_lossy {
                self.lossy.insert(column);
            }
            cells.push((FieldIdx(column), cell));
        }
        if self.n_bytes > self.most { Err(too_large()) } else { Ok(cells) }
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

/// One value of a column, and whether a part of it is missing. `most`: maximum number of bytes.
fn cell(values: &dyn Array, row: usize, most: u64) -> Result<(Cell, bool), TooLong> {
    let found = match values.data_type() {
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "an array",
        DataType::Struct(_) | DataType::Map(..) => "an object",
        DataType::Dictionary(..) => match in_dictionary(values, row) {
            Some((values, row)) => return cell(values, row, most),
            None => return Ok((Cell::Null, false)),
        },
        _ => return Ok((single(values, row), false)),
    };
    if row >= values.len() || values.is_null(row) {
        return Ok((Cell::Null, false));
    }
    let mut json = Json::new(most);
    write(values, row, 0, &mut json)?;
    Ok(json.finish(found))
}

/// Where a dictionary has a value.
fn in_dictionary(values: &dyn Array, row: usize) -> Option<(&dyn Array, usize)> {
    let dictionary = values.as_any_dictionary_opt()?;
    let key = single(dictionary.keys(), row);
    Some((dictionary.values().as_ref(), key.text()?.parse().ok()?))
}

/// A value that is not nested.
fn single(values: &dyn Array, row: usize) -> Cell {
    if row >= values.len() || values.is_null(row) {
        return Cell::Null;
    }
    match values.data_type() {
        DataType::Null => Cell::Null,
        DataType::Utf8 => values.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => values.as_string::<i64>().value(row).into(),
        DataType::Utf8View => values.as_string_view().value(row).into(),
        DataType::Binary => bytes(values.as_binary::<i32>().value(row)),
        DataType::LargeBinary => bytes(values.as_binary::<i64>().value(row)),
        DataType::BinaryView => bytes(values.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => bytes(values.as_fixed_size_binary().value(row)),
        DataType::Boolean => values.as_boolean().value(row).into(),
        DataType::Int8 => i64::from(values.as_primitive::<Int8Type>().value(row)).into(),
        DataType::Int16 => i64::from(values.as_primitive::<Int16Type>().value(row)).into(),
        DataType::Int32 => i64::from(values.as_primitive::<Int32Type>().value(row)).into(),
        DataType::Int64 => values.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => u64::from(values.as_primitive::<UInt8Type>().value(row)).into(),
        DataType::UInt16 => u64::from(values.as_primitive::<UInt16Type>().value(row)).into(),
        DataType::UInt32 => u64::from(values.as_primitive::<UInt32Type>().value(row)).into(),
        DataType::UInt64 => values.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float16 => shortest(&values.as_primitive::<Float16Type>().value(row).to_string()),
        DataType::Float32 => shortest(&values.as_primitive::<Float32Type>().value(row).to_string()),
        DataType::Float64 => values.as_primitive::<Float64Type>().value(row).into(),
        DataType::Decimal32(..) => decimal(&values.as_primitive::<Decimal32Type>().value_as_string(row)),
        DataType::Decimal64(..) => decimal(&values.as_primitive::<Decimal64Type>().value_as_string(row)),
        DataType::Decimal128(..) => decimal(&values.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Decimal256(..) => decimal(&values.as_primitive::<Decimal256Type>().value_as_string(row)),
        kind => moment(kind, values, row),
    }
}

/// A date or time as text; other types are named.
fn moment(kind: &DataType, values: &dyn Array, row: usize) -> Cell {
    match kind {
        DataType::Date32 => date(values.as_primitive::<Date32Type>().value(row).into()),
        DataType::Date64 => date(values.as_primitive::<Date64Type>().value(row).div_euclid(MILLIS_PER_DAY)),
        DataType::Time32(TimeUnit::Second) => {
            time(values.as_primitive::<Time32SecondType>().value(row).into(), 1)
        }
        DataType::Time32(_) => time(values.as_primitive::<Time32MillisecondType>().value(row).into(), 1000),
        DataType::Time64(TimeUnit::Microsecond) => {
            time(values.as_primitive::<Time64MicrosecondType>().value(row), 1_000_000)
        }
        DataType::Time64(_) => time(values.as_primitive::<Time64NanosecondType>().value(row), 1_000_000_000),
        DataType::Timestamp(unit, zone) => {
            let (n, per_second) = match unit {
                TimeUnit::Second => (values.as_primitive::<TimestampSecondType>().value(row), 1),
                TimeUnit::Millisecond => (values.as_primitive::<TimestampMillisecondType>().value(row), 1000),
                TimeUnit::Microsecond => {
                    (values.as_primitive::<TimestampMicrosecondType>().value(row), 1_000_000)
                }
                TimeUnit::Nanosecond => {
                    (values.as_primitive::<TimestampNanosecondType>().value(row), 1_000_000_000)
                }
            };
            timestamp(n, per_second, zone.is_some())
        }
        _ => Cell::nested("a value of another type", None),
    }
}

/// Writes a value as JSON.
fn write(values: &dyn Array, row: usize, depth: usize, json: &mut Json) -> Result<(), TooLong> {
    if row >= values.len() || values.is_null(row) {
        return json.value(&Cell::Null);
    }
    if depth > MOST_DEPTH {
        return json.value(&Cell::nested("a value nested too deep", None));
    }
    let list = |json: &mut Json, elements: &dyn Array| {
        json.list(0..elements.len(), |json, i| write(elements, i, depth + 1, json))
    };
    match values.data_type() {
        DataType::List(_) => list(json, &values.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(json, &values.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => list(json, &values.as_fixed_size_list().value(row)),
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(values.as_struct().columns());
            json.object(columns.map(|(field, column)| (field.name().as_str(), column)), |json, column| {
                write(column.as_ref(), row, depth + 1, json)
            })
        }
        DataType::Map(..) => {
            let entries = values.as_map().value(row);
            let [names, values] = [0, 1].map(|part| entries.column(part));
            let name = |i: usize| single(names.as_ref(), i).text().unwrap_or_default().to_owned();
            json.object((0..entries.len()).map(|i| (name(i), i)), |json, i| {
                write(values.as_ref(), i, depth + 1, json)
            })
        }
        DataType::Dictionary(..) => match in_dictionary(values, row) {
            Some((values, row)) => write(values, row, depth + 1, json),
            None => json.value(&Cell::Null),
        },
        _ => json.value(&single(values, row)),
    }
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
        for (name, is_stream) in [
            ("kinds.feather", false),
            ("stream.arrow", true),
            ("kinds_lz4.feather", false),
            ("zstd.arrows", true),
        ] {
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
    fn a_buffer_that_claims_too_much_or_too_little_is_not_believed() {
        for name in ["lz4.feather", "zstd_long.feather", "lz4.arrows"] {
            let whole = fixture(name);
            let n_rows = Dataset::from_bytes(&whole, Path::new("d.arrow")).unwrap().n();
            let mut n_refused = 0;
            // Wherever the length of a buffer may be.
            for at in (0..whole.len() - 8).step_by(8) {
                for claimed in [i64::MAX, 1 << 40, 5, 0, -1, -2] {
                    let mut bytes = whole.clone();
                    bytes[at..at + 8].copy_from_slice(&claimed.to_le_bytes());
                    match Dataset::from_bytes(&bytes, Path::new("d.arrow")) {
                        Ok(data) => assert!(data.n() <= n_rows),
                        Err(error) => {
                            n_refused += usize::from(error.to_string().contains("claims"));
                        }
                    }
                }
            }
            assert!(n_refused > 0, "{name}");
        }
    }

    #[test]
    fn a_list_of_more_than_fits_is_refused() {
        use arrow_array::{ArrayRef, FixedSizeListArray, NullArray, RecordBatch};
        use arrow_schema::{DataType, Field, Schema};
        use std::sync::Arc;
        let n = 1 << 28;
        let element = Arc::new(Field::new("item", DataType::Null, true));
        let list =
            FixedSizeListArray::try_new(Arc::clone(&element), n, Arc::new(NullArray::new(n as usize)), None);
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::FixedSizeList(element, n), true)]));
        let batch =
            RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(list.unwrap()) as ArrayRef]).unwrap();
        let mut bytes = Vec::new();
        let mut writer = arrow_ipc::writer::StreamWriter::try_new(&mut bytes, &schema).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let error = Dataset::from_bytes(&bytes, Path::new("d.arrow")).unwrap_err();
        assert!(matches!(error, crate::DataError::TooLarge { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn no_damage_makes_more_than_an_error(at in 0.0..1.0_f64, byte: u8, length in 1_usize..8, which in 0..6_usize) {
            const NAMES: [&str; 6] = [
                "kinds.feather", "stream.arrow", "kinds_lz4.feather", "kinds_zstd.feather", "lz4.arrows", "nested.feather",
            ];
            let mut bytes = fixture(NAMES[which]);
            let at = (at * bytes.len() as f64) as usize;
            for byte_there in bytes.iter_mut().skip(at).take(length) {
                *byte_there = byte_there.wrapping_add(byte);
            }
            let _ = Dataset::from_bytes(&bytes, Path::new("d.arrow"));
        }
    }
}
