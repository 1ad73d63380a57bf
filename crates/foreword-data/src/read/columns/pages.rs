//! Checks a Parquet file before the parquet crate reads it: the nesting of its schema, which the crate reads recursively,
//! and the sizes claimed by its pages, for which the crate allocates as many bytes or values as a page claims.

use super::codecs::File;
use parquet::basic::{Encoding, Type as Physical};
use parquet::column::page::Page;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{FileReader, RowGroupReader};

/// Maximum nesting depth of structures in a page header or a footer; statistics are the deepest.
const MOST_DEPTH: usize = 8;
/// Maximum nesting depth of a schema. A list inside a list takes two levels.
const MOST_NESTING: usize = 256;
/// The type of structures.
const STRUCTURE: u8 = 12;

/// Checks the nesting of the schema. Everything else that is wrong with a footer is left to the parquet crate.
pub(super) fn check_schema(bytes: &[u8]) -> Result<(), ParquetError> {
    // A file ends with its footer, the length of the footer and a magic number.
    let footer = bytes.len().checked_sub(8).and_then(|end| {
        let length = u32::from_le_bytes(*bytes[end..].first_chunk()?);
        bytes[..end].get(end.checked_sub(length as usize)?..)
    });
    let depth = Compact(footer.unwrap_or_default()).schema_depth();
    match depth {
        Some(depth) if depth > MOST_NESTING => {
            Err(ParquetError::General(format!("the schema is nested more than {MOST_NESTING} levels deep")))
        }
        Some(_) => Ok(()),
        None => Err(ParquetError::General("the footer is damaged".to_owned())),
    }
}

/// Checks all pages of all columns, and returns the number of values of each column: nulls and empty lists count. `most`:
/// maximum total size of all pages after decompression.
pub(super) fn check(bytes: &[u8], file: File<'_>, most: u64) -> Result<Vec<u64>, ParquetError> {
    let mut unpacked = 0_u64;
    let mut n_values = vec![0_u64; file.reader.metadata().file_metadata().schema_descr().num_columns()];
    for (group_idx, group) in file.reader.metadata().row_groups().iter().enumerate() {
        for (column_idx, column) in group.columns().iter().enumerate() {
            let headers = check_headers(bytes, column, most, &mut unpacked)?;
            if headers.has_delta {
                let mut pages = file.group(group_idx)?.get_column_page_reader(column_idx)?;
                while let Some(page) = pages.get_next_page()? {
                    check_delta(&page, column)?;
                }
            }
            if let Some(n_values) = n_values.get_mut(column_idx) {
                *n_values = n_values.saturating_add(headers.n_values);
            }
        }
    }
    Ok(n_values)
}

/// What the headers of a column's pages say.
struct Headers {
    /// Whether a page has texts with delta-coded lengths.
    has_delta: bool,
    /// Number of values of all data pages.
    n_values: u64,
}

fn wrong(what: &str) -> ParquetError {
    ParquetError::General(format!("a page {what}"))
}

/// Checks the headers of a column's pages.
fn check_headers(
    bytes: &[u8],
    column: &ColumnChunkMetaData,
    most: u64,
    unpacked: &mut u64,
) -> Result<Headers, ParquetError> {
    let (start, length) = column.byte_range();
    let chunk = usize::try_from(start).ok().and_then(|start| bytes.get(start..));
    let chunk = chunk.and_then(|chunk| chunk.get(..usize::try_from(length).ok()?));
    let mut left = chunk.ok_or_else(|| wrong("lies outside the file"))?;
    let mut headers = Headers { has_delta: false, n_values: 0 };
    while !left.is_empty() {
        let mut fields = Fields::default();
        let mut header = Compact(left);
        header.structure(0, 0, &mut fields).ok_or_else(|| wrong("has a damaged header"))?;
        let size = fields.largest(Fields::UNPACKED).unwrap_or(0);
        *unpacked = u64::try_from(size).map_or(u64::MAX, |size| unpacked.saturating_add(size));
        if *unpacked > most {
            return Err(wrong("claims to be larger than such a small file has"));
        }
        let n_values = fields.largest(Fields::DICTIONARY_VALUES).unwrap_or(0);
        if n_values.saturating_mul(least_width(column)) > size {
            return Err(wrong("claims to have more values than bytes"));
        }
        let counted = fields.largest(Fields::VALUES).max(fields.largest(Fields::VALUES_2)).unwrap_or(0);
        headers.n_values = headers.n_values.saturating_add(u64::try_from(counted).unwrap_or(0));
        headers.has_delta |=
            fields.all(Fields::ENCODING).chain(fields.all(Fields::ENCODING_2)).any(is_delta_code);
        let packed = usize::try_from(fields.last(Fields::PACKED).unwrap_or(0)).ok();
        left = packed.and_then(|n| header.0.get(n..)).ok_or_else(|| wrong("is cut off"))?;
    }
    Ok(headers)
}

/// Minimum size of a value of this column in a dictionary, in bytes.
fn least_width(column: &ColumnChunkMetaData) -> i64 {
    match column.column_type() {
        Physical::BOOLEAN | Physical::FIXED_LEN_BYTE_ARRAY => 1,
        Physical::INT32 | Physical::FLOAT | Physical::BYTE_ARRAY => 4,
        Physical::INT64 | Physical::DOUBLE => 8,
        Physical::INT96 => 12,
    }
}

/// Whether the code of an encoding in a header is DELTA_LENGTH_BYTE_ARRAY or DELTA_BYTE_ARRAY.
fn is_delta_code(code: i64) -> bool {
    matches!(code, 6 | 7)
}

/// Checks that a page of texts has no more lengths than values.
fn check_delta(page: &Page, column: &ColumnChunkMetaData) -> Result<(), ParquetError> {
    let (body, n_values, encoding) = match page {
        Page::DataPage { buf, num_values, encoding, .. } => {
            // A repeated or optional column begins with its levels, after their length.
            let descriptor = column.column_descr();
            let mut body = Some(&buf[..]);
            for most in [descriptor.max_rep_level(), descriptor.max_def_level()] {
                if most > 0 {
                    body = body.and_then(|body| {
                        let (length, rest) = body.split_first_chunk()?;
                        rest.get(u32::from_le_bytes(*length) as usize..)
                    });
                }
            }
            (body, *num_values, *encoding)
        }
        Page::DataPageV2 { buf, num_values, encoding, def_levels_byte_len, rep_levels_byte_len, .. } => {
            let levels = (*def_levels_byte_len as usize).saturating_add(*rep_levels_byte_len as usize);
            (buf.get(levels..), *num_values, *encoding)
        }
        Page::DictionaryPage { .. } => return Ok(()),
    };
    if !matches!(encoding, Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY) {
        return Ok(());
    }
    let damaged = || wrong("has more lengths than values");
    let mut body = Compact(body.ok_or_else(damaged)?);
    body.differences(n_values.into()).ok_or_else(damaged)?;
    if encoding == Encoding::DELTA_BYTE_ARRAY {
        // The length of the prefix shared with the previous text, then the lengths of the rest.
        body.differences(n_values.into()).ok_or_else(damaged)?;
    }
    Ok(())
}

/// The integers of a page header: their keys and values. A duplicate field occurs twice.
#[derive(Default)]
struct Fields(Vec<(i64, i64)>);

impl Fields {
    const UNPACKED: i64 = 2;
    const PACKED: i64 = 3;
    /// In the header of a data page.
    const VALUES: i64 = 5 * Self::INSIDE + 1;
    const ENCODING: i64 = 5 * Self::INSIDE + 2;
    const DICTIONARY_VALUES: i64 = 7 * Self::INSIDE + 1;
    /// In the header of a data page of version 2.
    const VALUES_2: i64 = 8 * Self::INSIDE + 1;
    const ENCODING_2: i64 = 8 * Self::INSIDE + 4;
    /// The factor for the id of a field in the keys of the fields inside it.
    const INSIDE: i64 = 1 << 16;

    fn all(&self, place: i64) -> impl Iterator<Item = i64> {
        self.0.iter().filter(move |(at, _)| *at == place).map(|(_, value)| *value)
    }

    fn largest(&self, place: i64) -> Option<i64> {
        self.all(place).max()
    }

    fn last(&self, place: i64) -> Option<i64> {
        self.all(place).last()
    }
}

/// Bytes in Thrift's compact encoding. All methods return `None` if the bytes end too early.
struct Compact<'a>(&'a [u8]);

impl Compact<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn pass_over(&mut self, n: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(n).ok()?..)?;
        Some(())
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        self.unsigned().map(|coded| (coded >> 1) as i64 ^ -((coded & 1) as i64))
    }

    /// Reads a footer and returns the depth of its schema. The schema is a list of elements in the order of a walk through
    /// the tree, each with its number of children.
    fn schema_depth(&mut self) -> Option<usize> {
        const SCHEMA: i64 = 2;
        const N_CHILDREN: i64 = 5;
        let mut depth = 0;
        let mut id = 0_i64;
        while let Some((step, kind)) = self.field()? {
            id = if step == 0 { self.signed()? } else { id.wrapping_add(step) };
            if (id, kind) != (SCHEMA, 9) {
                self.value(kind, 0)?;
                continue;
            }
            let (n, kind) = self.list()?;
            if kind != STRUCTURE {
                return None;
            }
            // The children that are still to come, of each group that is open.
            let mut open: Vec<i64> = Vec::new();
            for _ in 0..n {
                let mut fields = Fields::default();
                self.structure(0, 0, &mut fields)?;
                while open.pop_if(|left| *left == 0).is_some() {}
                if let Some(left) = open.last_mut() {
                    *left -= 1;
                }
                open.push(fields.last(N_CHILDREN).unwrap_or(0).max(0));
                depth = depth.max(open.len());
            }
        }
        Some(depth)
    }

    /// The head of a field: the step from the last field's id (0: the id follows) and the type; `None` at the end.
    fn field(&mut self) -> Option<Option<(i64, u8)>> {
        let byte = self.byte()?;
        Some((byte != 0).then_some((i64::from(byte >> 4), byte & 15)))
    }

    /// The head of a list: its number of elements and their type.
    fn list(&mut self) -> Option<(u64, u8)> {
        let head = self.byte()?;
        let n = if head >> 4 == 15 { self.unsigned()? } else { u64::from(head >> 4) };
        Some((n, head & 15))
    }

    /// A structure at this depth, in the field `within` of its parent.
    fn structure(&mut self, depth: usize, within: i64, fields: &mut Fields) -> Option<()> {
        if depth > MOST_DEPTH {
            return None;
        }
        let mut id = 0_i64;
        while let Some((step, kind)) = self.field()? {
            id = if step == 0 { self.signed()? } else { id.wrapping_add(step) };
            let place = within.wrapping_mul(Fields::INSIDE).wrapping_add(id);
            match kind {
                1 | 2 => {}
                4..=6 if depth < 2 => fields.0.push((place, self.signed()?)),
                STRUCTURE if depth == 0 => self.structure(1, id, fields)?,
                _ => self.value(kind, depth)?,
            }
        }
        Some(())
    }

    /// Skips a value of this type.
    fn value(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            // Booleans in lists take a byte each.
            1..=3 => self.pass_over(1),
            4..=6 => self.unsigned().map(drop),
            7 => self.pass_over(8),
            8 => self.unsigned().and_then(|n| self.pass_over(n)),
            9 | 10 => {
                let (n, kind) = self.list()?;
                (0..n).try_for_each(|_| self.element(kind, depth + 1))
            }
            11 => {
                let n = self.unsigned()?;
                let kinds = if n == 0 { 0 } else { self.byte()? };
                (0..n).try_for_each(|_| {
                    self.element(kinds >> 4, depth + 1)?;
                    self.element(kinds & 15, depth + 1)
                })
            }
            STRUCTURE => self.structure((depth + 1).max(2), 0, &mut Fields::default()),
            13 => self.pass_over(16),
            _ => None,
        }
    }

    /// A value in a list or map; each takes at least one byte.
    fn element(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > MOST_DEPTH { None } else { self.value(kind, depth) }
    }

    /// Skips delta-coded integers; `None` if there are more than `most`.
    fn differences(&mut self, most: u64) -> Option<()> {
        let (block, n_parts, n) = (self.unsigned()?, self.unsigned()?, self.unsigned()?);
        self.signed()?;
        let of_part = block.checked_div(n_parts)?;
        if n > most || of_part == 0 {
            return None;
        }
        let mut left = n.saturating_sub(1);
        while left > 0 {
            self.signed()?;
            let widths = self.0.get(..usize::try_from(n_parts).ok()?)?;
            self.pass_over(n_parts)?;
            for &width in widths {
                if left == 0 {
                    break;
                }
                self.pass_over(u64::from(width).checked_mul(of_part)? / 8)?;
                left -= of_part.min(left);
            }
        }
        Some(())
    }
}
