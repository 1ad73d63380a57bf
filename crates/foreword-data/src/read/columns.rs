//! Parquet: columns of texts, numbers, booleans and times, and nested ones as JSON; those that can't be read are an error only
//! if they are used.

mod codecs;
mod nested;
mod pages;

use super::super::{About, Cell, DataError, FieldIdx, READER_THREAD, ReadNotice, Row, Unit};
use super::Table;
use super::values::{Json, TooLong, bytes, date, decimal, lossy, shortest, time, timestamp};
use bytes::Bytes;
use nested::Form;
use parquet::basic::{LogicalType, TimeUnit, TimestampType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// Reads all rows. A row's line is its number, from 1. `most`: maximum number of bytes of the rows.
///
/// The parquet crate panics on some damaged files (one changed byte in a page header can be enough), and on some nested columns
/// of old programs: on a thread of its own, that becomes an error too, and nested columns do not keep the others from being read.
pub(super) fn parse(bytes: &[u8], path: &Path, most: u64) -> Result<Table, DataError> {
    let whole = on_thread(path, || parse_trusting(bytes, path, most, true));
    let Err(DataError::Damaged { reason, .. }) = &whole else { return whole };
    let mut table = on_thread(path, || parse_trusting(bytes, path, most, false))?;
    let text = format!("{}: the nested fields can't be read ({reason})", path.display());
    table.about.notices.push(ReadNotice { text, is_warning: true });
    Ok(table)
}

fn on_thread(
    path: &Path,
    read: impl FnOnce() -> Result<Table, DataError> + Send,
) -> Result<Table, DataError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(READER_THREAD.to_owned());
        let reader = thread
            .spawn_scoped(scope, read)
            .map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        reader.join().unwrap_or_else(|_| {
            Err(DataError::Damaged {
                path: path.to_owned(),
                packing: "Parquet",
                reason: "its pages contradict each other".to_owned(),
            })
        })
    })
}

fn parse_trusting(bytes: &[u8], path: &Path, most: u64, with_nested: bool) -> Result<Table, DataError> {
    let damaged = |error: ParquetError| DataError::Damaged {
        path: path.to_owned(),
        packing: "Parquet",
        reason: error.to_string().trim_end_matches('.').to_owned(),
    };
    pages::check_schema(bytes).map_err(damaged)?;
    let whole = Bytes::copy_from_slice(bytes);
    let reader = SerializedFileReader::new(whole.clone()).map_err(damaged)?;
    let sizes = reader.metadata().row_groups().iter().map(|group| group.total_byte_size().max(0) as u64);
    if sizes.fold(0, u64::saturating_add) > most {
        return Err(DataError::TooLarge { path: path.to_owned(), most });
    }
    let schema = reader.metadata().file_metadata().schema();
    let fields: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let mut seen = HashSet::new();
    if let Some(field) = fields.iter().find(|field| !seen.insert(*field)) {
        return Err(DataError::DuplicateField { location: super::location(path, 1), field: field.clone() });
    }
    let file = codecs::File { reader: &reader, bytes: &whole, most };
    let n_values = pages::check(bytes, file, most).map_err(damaged)?;
    let is_read = nested::readable(file, &n_values, most, with_nested).map_err(damaged)?;
    let mut rows = Rows::new(schema, &is_read, most);
    for row in file.rows(nested::projection(schema, &is_read).map_err(damaged)?) {
        rows.add(row.map_err(damaged)?)
            .map_err(|TooLong| DataError::TooLarge { path: path.to_owned(), most })?;
    }
    let Rows { rows, lossy: incomplete, .. } = rows;
    let notice = lossy(&path.display().to_string(), incomplete.iter().map(|&field| fields[field].as_str()));
    let notices = notice.map(|text| ReadNotice { text, is_warning: true }).into_iter().collect();
    let about =
        About { class_names: class_names(&reader, &fields), unit: Unit::Row, notices, ..About::default() };
    Ok(Table { fields, rows, about })
}

/// The class names that Hugging Face `datasets` stores next to the columns, under the key "huggingface".
fn class_names(reader: &SerializedFileReader<Bytes>, fields: &[String]) -> BTreeMap<FieldIdx, Vec<String>> {
    let metadata = reader.metadata().file_metadata().key_value_metadata();
    let value = metadata.into_iter().flatten().find(|entry| entry.key == "huggingface");
    value
        .and_then(|entry| entry.value.as_deref())
        .map_or_else(BTreeMap::new, |value| super::class_names(value, fields))
}

/// The rows read so far.
struct Rows<'s> {
    rows: Vec<Row>,
    /// A row without values.
    empty: Vec<(FieldIdx, Cell)>,
    /// The columns that are read: their positions in a row, and their types.
    columns: Vec<(usize, &'s Type)>,
    /// The fields with nested values of which parts are missing.
    lossy: BTreeSet<usize>,
    n_bytes: u64,
    most: u64,
}

impl<'s> Rows<'s> {
    fn new(schema: &'s Type, is_read: &[bool], most: u64) -> Self {
        let fields = || schema.get_fields().iter().zip(is_read).enumerate();
        let unread = |field: &Type, is_read: bool| {
            if is_read { Cell::Null } else { Cell::nested(Form::of(field).found(), None) }
        };
        let empty = fields().map(|(idx, (field, is_read))| (FieldIdx(idx), unread(field, *is_read)));
        let columns = fields().filter(|(_, (_, is_read))| **is_read);
        Self {
            rows: Vec::new(),
            empty: empty.collect(),
            columns: columns.map(|(idx, (field, _))| (idx, field.as_ref())).collect(),
            lossy: BTreeSet::new(),
            n_bytes: 0,
            most,
        }
    }

    fn add(&mut self, row: parquet::record::Row) -> Result<(), TooLong> {
        let mut cells = self.empty.clone();
        for (&(at, kind), (_, field)) in self.columns.iter().zip(row.into_columns()) {
            let (cell, is_lossy) = cell(field, kind, self.most.saturating_sub(self.n_bytes))?;
            cells[at].1 = cell;
            if is_lossy {
                self.lossy.insert(at);
            }
        }
        self.n_bytes += size_of::<Row>() as u64 + cells.iter().map(|(_, cell)| n_bytes_of(cell)).sum::<u64>();
        if self.n_bytes > self.most {
            return Err(TooLong);
        }
        self.rows.push(Row::new(self.rows.len() as u64 + 1, cells));
        Ok(())
    }
}

/// The memory of a cell. A cell without text counts too: a few bytes of a file can represent millions of nulls.
fn n_bytes_of(cell: &Cell) -> u64 {
    (size_of::<(FieldIdx, Cell)>() + cell.n_bytes()) as u64
}

/// A value of a column of this type, and whether a part of it is missing. `most`: maximum number of bytes.
fn cell(field: Field, kind: &Type, most: u64) -> Result<(Cell, bool), TooLong> {
    let found = match field {
        Field::Str(text) => return Ok((Cell::Text(text), false)),
        Field::ListInternal(_) => Form::List.found(),
        Field::Group(_) | Field::MapInternal(_) => Form::Object.found(),
        field => return Ok((single(&field, kind), false)),
    };
    let mut json = Json::new(most);
    write(&field, kind, &mut json)?;
    Ok(json.finish(found))
}

/// Writes a value of this type as JSON.
fn write(field: &Field, kind: &Type, json: &mut Json) -> Result<(), TooLong> {
    match field {
        Field::Group(row) => {
            let values = row.get_column_iter().zip(kind.get_fields());
            json.object(
                values.map(|((name, value), kind)| (name.as_str(), (value, kind))),
                |json, (value, kind)| write(value, kind, json),
            )
        }
        Field::ListInternal(list) => {
            let kind = nested::part(kind, 0);
            json.list(list.elements(), |json, value| write(value, kind, json))
        }
        Field::MapInternal(map) => {
            let kind_of = |part| nested::part(kind, part);
            let names: Vec<Cell> = map.entries().iter().map(|(name, _)| single(name, kind_of(0))).collect();
            let names = names.iter().map(|name| name.text().unwrap_or_default());
            let values = map.entries().iter().map(|(_, value)| value);
            json.object(names.zip(values), |json, value| write(value, kind_of(1), json))
        }
        field => json.value(&single(field, kind)),
    }
}

/// A value that is not nested.
fn single(field: &Field, kind: &Type) -> Cell {
    let logical = kind.get_basic_info().logical_type_ref();
    let is_utc = matches!(logical, Some(LogicalType::Timestamp(kind)) if kind.is_adjusted_to_u_t_c);
    let is_nanos = |kind: &TimestampType| kind.unit == TimeUnit::NANOS;
    match (field, logical) {
        (Field::Null, _) => Cell::Null,
        (Field::Str(text), _) => Cell::Text(text.clone()),
        (Field::Bytes(value), _) => bytes(value.data()),
        (Field::Bool(value), _) => (*value).into(),
        (Field::Float16(value), _) => shortest(&value.to_string()),
        (Field::Float(value), _) => shortest(&value.to_string()),
        (Field::Double(value), _) => (*value).into(),
        (Field::Decimal(_), _) => decimal(&field.to_string()),
        (Field::Date(days), _) => date((*days).into()),
        (Field::TimeMillis(n), _) => time((*n).into(), 1000),
        (Field::TimeMicros(n), _) => time(*n, 1_000_000),
        (Field::TimestampMillis(n), _) => timestamp(*n, 1000, is_utc),
        (Field::TimestampMicros(n), _) => timestamp(*n, 1_000_000, is_utc),
        (Field::Long(n), Some(LogicalType::Timestamp(kind))) if is_nanos(kind) => {
            timestamp(*n, 1_000_000_000, is_utc)
        }
        (Field::Long(n), Some(LogicalType::Time(kind))) if is_nanos(kind) => time(*n, 1_000_000_000),
        (Field::Group(_) | Field::MapInternal(_) | Field::ListInternal(_), _) => {
            Cell::nested(Form::of(kind).found(), None)
        }
        (whole, _) => Cell::number(&whole.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Dataset;
    use super::*;
    use parquet::basic::{Compression, Encoding, GzipLevel};
    use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type};
    use parquet::file::properties::{WriterProperties, WriterVersion};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// Two rows: (a good one, 1, 0.5, true) and (nothing, 0, 2, false).
    fn file(compression: Compression) -> Vec<u8> {
        let schema = "message m { OPTIONAL BYTE_ARRAY text (UTF8); REQUIRED INT64 label; REQUIRED DOUBLE share; \
                      REQUIRED BOOLEAN sure; }";
        let properties = WriterProperties::builder().set_compression(compression).build();
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let texts = [ByteArray::from("a good one")];
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&[1, 0]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[1, 0], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&[0.5, 2.0], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<BoolType>().write_batch(&[true, false], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.into_inner().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Dataset, DataError> {
        Dataset::from_bytes(bytes, Path::new("d.parquet"))
    }

    #[test]
    fn columns_become_fields_and_their_values_texts() {
        for compression in
            [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::GZIP(GzipLevel::default())]
        {
            let data = read(&file(compression)).unwrap();
            assert_eq!(data.fields(), ["text", "label", "share", "sure"]);
            let of = |row| {
                let text = |name| data.text(row, data.require(name).unwrap()).unwrap().to_owned();
                [text("label"), text("share"), text("sure")]
            };
            assert_eq!(
                (of(0), of(1)),
                (["1", "0.5", "true"].map(Into::into), ["0", "2", "false"].map(Into::into))
            );
            let text = data.require("text").unwrap();
            assert_eq!(data.text(0, text).unwrap(), "a good one");
            let missing = data.text(1, text).unwrap_err().to_string();
            assert!(
                missing.starts_with("d.parquet, row 2: missing value in the field \"text\""),
                "{missing}"
            );
        }
    }

    #[test]
    fn a_file_that_is_none_or_is_too_large_is_named() {
        let whole = file(Compression::SNAPPY);
        for n in 0..whole.len() {
            let error = read(&whole[..n]).unwrap_err().to_string();
            assert!(error.starts_with("d.parquet: cannot be unpacked as Parquet ("), "{error}");
        }
        let error = parse(&whole, Path::new("d.parquet"), 9).unwrap_err();
        assert!(matches!(error, DataError::TooLarge { most: 9, .. }), "{error}");
    }

    #[test]
    fn a_schema_nested_without_reason_is_refused() {
        // Thrift's compact form: version 1; a list of n schema elements, each a name and one child; no rows, no groups.
        let nested = |n: u32| {
            let mut footer = vec![0x15, 2, 0x19, 0xfc];
            footer.extend([(n & 127) as u8 | 128, (n >> 7 & 127) as u8 | 128, (n >> 14) as u8]);
            for i in 1..n {
                let repetition: &[u8] = if i == 1 { &[0x48] } else { &[0x35, 0, 0x18] };
                footer.extend([repetition, &[0, 0x15, 2, 0]].concat());
            }
            footer.extend([0x15, 2, 0x25, 0, 0x18, 1, b'x', 0, 0x16, 0, 0x19, 0x0c, 0]);
            let length = (footer.len() as u32).to_le_bytes();
            read(&[b"PAR1", &footer[..], &length, b"PAR1"].concat()).unwrap_err().to_string()
        };
        assert_eq!(nested(256), "d.parquet has no examples");
        for n in [257, 100_000, 2_000_000] {
            let refused = nested(n);
            assert!(refused.contains("the schema is nested more than 256 levels deep"), "{refused}");
        }
    }

    #[test]
    fn what_is_nested_and_too_large_or_of_an_old_form_is_named_and_not_read() {
        let schema = "message m { OPTIONAL group words (LIST) { REPEATED group list { OPTIONAL INT32 element; } } \
                      REQUIRED INT32 label; OPTIONAL group about { REQUIRED INT32 year; } REPEATED INT32 many; }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        // One row; its list has a million nulls.
        let n = 1 << 20;
        let repeated: Vec<i16> = (0..n).map(|i| i16::from(i > 0)).collect();
        for (defined, repeated) in
            [(vec![2; n], Some(&repeated[..])), (vec![], None), (vec![0], None), (vec![0], Some(&[0][..]))]
        {
            let values: &[i32] = if defined.is_empty() { &[7] } else { &[] };
            let defined = Some(&defined[..]).filter(|defined| !defined.is_empty());
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int32Type>().write_batch(values, defined, repeated).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        let bytes = writer.into_inner().unwrap();
        assert!(bytes.len() < 4096);
        let data = read(&bytes).unwrap();
        assert_eq!(data.fields(), ["words", "label", "about", "many"]);
        assert_eq!(data.n(), 1);
        let text = |name| data.text(0, data.require(name).unwrap());
        assert_eq!(text("label").unwrap(), "7");
        for (name, found) in [("words", "an array"), ("many", "an array")] {
            let error = text(name).unwrap_err().to_string();
            assert!(error.contains(found), "{error}");
            assert_eq!(data.cell(0, data.require(name).unwrap()).to_string(), "", "{name}");
        }
        assert_eq!(*data.cell(0, data.require("about").unwrap()), Cell::Null);
    }

    /// A file with one row: a list of `n` times the same text of `length` bytes.
    fn list_of(n: usize, length: usize) -> Vec<u8> {
        let schema = "message m { REQUIRED group words (LIST) { REPEATED group list { REQUIRED BYTE_ARRAY element (UTF8); } } \
                      REQUIRED INT32 label; }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let text = ByteArray::from("a".repeat(length).as_str());
        let repeated: Vec<i16> = (0..n).map(|i| i16::from(i > 0)).collect();
        let typed = column.typed::<ByteArrayType>();
        typed.write_batch(&vec![text; n], Some(&vec![1; n]), Some(&repeated)).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(&[7], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.into_inner().unwrap()
    }

    #[test]
    fn a_long_text_that_a_list_repeats_does_not_fill_the_memory() {
        let of = |n, length| {
            let data = read(&list_of(n, length)).unwrap();
            assert_eq!(data.text(0, data.require("label").unwrap()).unwrap(), "7");
            data.cell(0, data.require("words").unwrap()).to_string()
        };
        assert_eq!(of(3, 2), r#"["aa", "aa", "aa"]"#);
        // 10 KB, which stand for 200 MB.
        assert_eq!(of(20_000, 10_000), "");
    }

    #[test]
    fn texts_whose_lengths_are_differences_are_read() {
        let n = 1000;
        let texts: Vec<ByteArray> =
            (0..n).map(|i| ByteArray::from(format!("{}{i}", "a".repeat(i % 7)).as_str())).collect();
        for repetition in ["REQUIRED", "OPTIONAL"] {
            for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
                for encoding in [Encoding::DELTA_BYTE_ARRAY, Encoding::DELTA_LENGTH_BYTE_ARRAY] {
                    let schema =
                        parse_message_type(&format!("message m {{ {repetition} BYTE_ARRAY text (UTF8); }}"));
                    let properties = WriterProperties::builder().set_writer_version(version);
                    let properties = properties.set_dictionary_enabled(false).set_encoding(encoding).build();
                    let (schema, properties) = (Arc::new(schema.unwrap()), Arc::new(properties));
                    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
                    let mut group = writer.next_row_group().unwrap();
                    let mut column = group.next_column().unwrap().unwrap();
                    let defined = vec![1; n];
                    let defined = (repetition == "OPTIONAL").then_some(&defined[..]);
                    column.typed::<ByteArrayType>().write_batch(&texts, defined, None).unwrap();
                    column.close().unwrap();
                    group.close().unwrap();
                    let data = read(&writer.into_inner().unwrap()).unwrap();
                    assert_eq!(data.n(), n);
                    let text = data.require("text").unwrap();
                    for (i, written) in texts.iter().enumerate() {
                        assert_eq!(data.text(i, text).unwrap().as_bytes(), written.data());
                    }
                }
            }
        }
    }

    /// A file with one page of one text, whose header gives `size` (in Thrift's encoding) as its decompressed size and
    /// `codec` as its compression.
    fn one_page(size: &[u8], codec: u8) -> Vec<u8> {
        // The page: its header (`size` unpacked, five bytes packed, one value, plain), the text's length, the text.
        let rest = [0x15, 10, 0x2c, 0x15, 2, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0, 1, 0, 0, 0, b'a'];
        let page = [&[0x15, 0, 0x15], size, &rest].concat();
        let n = 2 * page.len() as u8;
        let column = [
            &[
                0x26, 8, 0x1c, 0x15, 12, 0x19, 0x15, 0, 0x19, 0x18, 1, b'x', 0x15, codec, 0x16, 2, 0x16, n,
                0x16, n,
            ][..],
            &[0x26, 8, 0, 0],
        ];
        let footer = [
            &[0x15, 2, 0x19, 0x2c, 0x48, 1, b'm', 0x15, 2, 0, 0x15, 12, 0x25, 0, 0x18, 1, b'x', 0, 0x16, 2][..],
            &[0x19, 0x1c, 0x19, 0x1c],
            &column.concat(),
            &[0x16, n, 0x16, 2, 0, 0],
        ];
        let footer = footer.concat();
        let length = (footer.len() as u32).to_le_bytes();
        [b"PAR1", &page[..], &footer, &length, b"PAR1"].concat()
    }

    #[test]
    fn a_page_that_claims_too_much_is_not_believed() {
        let data = read(&one_page(&[10], 0)).unwrap();
        assert_eq!(data.text(0, data.require("x").unwrap()).unwrap(), "a");
        for codec in [0, 2, 4] {
            let error = read(&one_page(&[0xfe, 0xff, 0xff, 0xff, 0x0f], codec)).unwrap_err().to_string();
            assert!(error.contains("a page claims to be larger than such a small file has"), "{error}");
        }
    }

    #[test]
    fn nulls_count_too() {
        // A run-length code: a few bytes for all of them.
        let n = 1 << 18;
        let schema = Arc::new(parse_message_type("message m { OPTIONAL BYTE_ARRAY text (UTF8); }").unwrap());
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![0; n]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        let bytes = writer.into_inner().unwrap();
        assert!(bytes.len() < 4096);
        assert_eq!(parse(&bytes, Path::new("d.parquet"), 1 << 30).unwrap().rows.len(), n);
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error, DataError::TooLarge { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn no_damage_makes_more_than_an_error(at in 0.0..1.0_f64, byte: u8, length in 1_usize..8, which in 0..4_usize) {
            let fixture = |name: &str| {
                let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/data/files");
                std::fs::read(files.join(name)).unwrap()
            };
            let mut bytes = match which {
                0 => file(Compression::SNAPPY),
                1 => fixture("nested.parquet"),
                2 => fixture("nested_2.parquet"),
                _ => fixture("messages.parquet"),
            };
            let at = (at * bytes.len() as f64) as usize;
            for byte_there in bytes.iter_mut().skip(at).take(length) {
                *byte_there = byte_there.wrapping_add(byte);
            }
            let _ = read(&bytes);
        }
    }
}
