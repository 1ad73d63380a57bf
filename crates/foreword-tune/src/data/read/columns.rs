//! Parquet: columns of texts, numbers and truth values; what else there is matters only if it is used.

use super::super::{Cell, DataError, FieldIdx, READER_THREAD, Row};
use super::Table;
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use std::collections::HashSet;
use std::path::Path;

/// Reads all rows. A row's line is its number, from 1. `most`: the most bytes of text that there may be.
///
/// The parquet crate panics over some damaged files (a changed byte in a page's header can be enough): on a thread of
/// its own that is an error too.
pub(super) fn parse(bytes: &[u8], path: &Path, most: u64) -> Result<Table, DataError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(READER_THREAD.to_owned());
        let reader = thread
            .spawn_scoped(scope, || parse_trusting(bytes, path, most))
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

fn parse_trusting(bytes: &[u8], path: &Path, most: u64) -> Result<Table, DataError> {
    let damaged = |error: ParquetError| DataError::Damaged {
        path: path.to_owned(),
        packing: "Parquet",
        reason: error.to_string().trim_end_matches('.').to_owned(),
    };
    let reader = SerializedFileReader::new(Bytes::copy_from_slice(bytes)).map_err(damaged)?;
    let too_large = || DataError::TooLarge { path: path.to_owned(), most };
    let sizes = reader.metadata().row_groups().iter().map(|group| group.total_byte_size().max(0) as u64);
    if sizes.fold(0, u64::saturating_add) > most {
        return Err(too_large());
    }
    let schema = reader.metadata().file_metadata().schema();
    let fields: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let mut seen = HashSet::new();
    if let Some(field) = fields.iter().find(|field| !seen.insert(*field)) {
        return Err(DataError::DuplicateField { place: super::place(path, 1), field: field.clone() });
    }
    let mut rows = Vec::new();
    let mut n_bytes = 0;
    for (line, row) in (1..).zip(reader.get_row_iter(None).map_err(damaged)?) {
        let columns = row.map_err(damaged)?.into_columns();
        let cells: Vec<_> =
            columns.into_iter().enumerate().map(|(i, (_, field))| (FieldIdx(i), cell(field))).collect();
        n_bytes += cells.iter().map(|(_, cell)| n_bytes_of(cell)).sum::<u64>();
        if n_bytes > most {
            return Err(too_large());
        }
        rows.push(Row { line, cells });
    }
    Ok((fields, rows))
}

fn n_bytes_of(cell: &Cell) -> u64 {
    match cell {
        Cell::Text(text) => text.len() as u64,
        Cell::Null | Cell::Nested(_) => 0,
    }
}

fn cell(field: Field) -> Cell {
    match field {
        Field::Null => Cell::Null,
        Field::Str(text) => Cell::Text(text),
        Field::Bytes(bytes) => match bytes.as_utf8() {
            Ok(text) => Cell::Text(text.to_owned()),
            Err(_) => Cell::Nested("bytes that are no text"),
        },
        Field::Float(value) => Cell::Text(value.to_string()),
        Field::Double(value) => Cell::Text(value.to_string()),
        Field::Group(_) | Field::MapInternal(_) => Cell::Nested("an object"),
        Field::ListInternal(_) => Cell::Nested("an array"),
        other => Cell::Text(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Dataset;
    use super::*;
    use parquet::basic::{Compression, GzipLevel};
    use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
    use parquet::file::properties::WriterProperties;
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

    proptest! {
        #[test]
        fn no_damage_makes_more_than_an_error(at in 0.0..1.0_f64, byte: u8, length in 1_usize..8) {
            let mut bytes = file(Compression::SNAPPY);
            let at = (at * bytes.len() as f64) as usize;
            for byte_there in bytes.iter_mut().skip(at).take(length) {
                *byte_there = byte_there.wrapping_add(byte);
            }
            let _ = read(&bytes);
        }
    }
}
