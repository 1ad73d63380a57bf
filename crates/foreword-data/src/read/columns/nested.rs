//! Which columns of a Parquet file are read. A few bytes can represent a list of millions, so a nested column is read only if
//! what the parquet crate makes of it fits.

use super::super::values::MOST_DEPTH;
use super::codecs::File;
use parquet::basic::{ConvertedType, Repetition, Type as Physical};
use parquet::column::reader::ColumnReader;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use std::sync::Arc;

/// Number of rows of a column that are counted at a time.
const COUNTED: usize = 256;

/// What a field of the schema is.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Form {
    Single,
    List,
    Object,
}

impl Form {
    pub(super) fn of(field: &Type) -> Self {
        let info = field.get_basic_info();
        let is_repeated = info.has_repetition() && info.repetition() == Repetition::REPEATED;
        match info.converted_type() {
            _ if is_repeated => Self::List,
            ConvertedType::LIST => Self::List,
            _ if field.is_primitive() => Self::Single,
            _ => Self::Object,
        }
    }

    /// For messages.
    pub(super) fn found(self) -> &'static str {
        match self {
            Self::Single => "a value",
            Self::List => "an array",
            Self::Object => "an object",
        }
    }
}

/// Whether a field has the form that is read.
fn has_usual_form(field: &Type) -> bool {
    field.get_basic_info().repetition() != Repetition::REPEATED && is_usual(field)
}

/// Whether a type has the form that programs write today: a list is a group with a repeated group of one element, and what is
/// repeated is in a list or a map. The parquet crate nests older forms deeper than they are.
fn is_usual(kind: &Type) -> bool {
    let is_repeated = |kind: &Type| kind.get_basic_info().repetition() == Repetition::REPEATED;
    if kind.is_primitive() {
        return true;
    }
    let repeated = |n: usize| match kind.get_fields() {
        [inner] if is_repeated(inner) && inner.is_group() && inner.get_fields().len() == n => {
            inner.get_fields()
        }
        _ => &[],
    };
    let parts = match kind.get_basic_info().converted_type() {
        ConvertedType::LIST => match repeated(1) {
            [_] if is_old_list(&kind.get_fields()[0]) => &[],
            element => element,
        },
        ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE => repeated(2),
        _ => kind.get_fields(),
    };
    !parts.is_empty() && parts.iter().all(|part| !is_repeated(part) && is_usual(part))
}

/// Whether the repeated group of a list is the element itself.
fn is_old_list(repeated: &Type) -> bool {
    let name = repeated.name();
    repeated.get_basic_info().converted_type() != ConvertedType::NONE
        || name == "array"
        || name.ends_with("_tuple")
}

/// The type of the elements of a list, or of the names (0) or values (1) of a map; the type itself for other ones.
pub(super) fn part(kind: &Type, part: usize) -> &Type {
    let repeated = kind.is_group().then(|| kind.get_fields().first()).flatten();
    let part =
        repeated.filter(|repeated| repeated.is_group()).and_then(|repeated| repeated.get_fields().get(part));
    part.map_or(kind, |part| part.as_ref())
}

/// The fields whose columns are read: all that are not nested, and if `with_nested` those that fit into `most` bytes together.
/// `n_values`: the number of values of each column.
pub(super) fn readable(
    file: File<'_>,
    n_values: &[u64],
    most: u64,
    with_nested: bool,
) -> Result<Vec<bool>, ParquetError> {
    let schema = file.reader.metadata().file_metadata().schema_descr();
    let fields = schema.root_schema().get_fields();
    let mut left = most;
    let mut readable = Vec::with_capacity(fields.len());
    for (idx, field) in fields.iter().enumerate() {
        let columns = (0..schema.num_columns()).filter(|&column| schema.get_column_root_idx(column) == idx);
        let columns: Vec<usize> = columns.collect();
        readable.push(match Form::of(field) {
            Form::Single => true,
            Form::List | Form::Object if !with_nested || !has_usual_form(field) => false,
            _ if !columns.iter().all(|&column| is_shallow(file, column)) => false,
            _ => {
                let needed = columns.iter().map(|&column| n_bytes(file, column, n_values[column], left));
                let needed = needed.sum::<Result<Bytes, _>>()?;
                left.checked_sub(needed.0).inspect(|rest| left = *rest).is_some()
            }
        });
    }
    Ok(readable)
}

/// A number of bytes, which stays at the largest one.
struct Bytes(u64);

impl std::iter::Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        Self(all.fold(0, |sum, Self(n)| sum.saturating_add(n)))
    }
}

fn is_shallow(file: File<'_>, column: usize) -> bool {
    let schema = file.reader.metadata().file_metadata().schema_descr();
    schema.column(column).path().parts().len() <= 3 * MOST_DEPTH
}

/// The memory that the values of a column take, each with the names on its path; more than `most` if it is that.
fn n_bytes(file: File<'_>, column: usize, n_values: u64, most: u64) -> Result<Bytes, ParquetError> {
    let schema = file.reader.metadata().file_metadata().schema_descr();
    let descriptor = schema.column(column);
    let parts = descriptor.path().parts();
    let of_value: usize = parts.iter().map(|name| size_of::<(String, Field)>() + name.len()).sum();
    let fixed = match descriptor.physical_type() {
        Physical::FIXED_LEN_BYTE_ARRAY => usize::try_from(descriptor.type_length()).unwrap_or(usize::MAX),
        _ => 0,
    };
    let needed = n_values.saturating_mul(of_value.saturating_add(fixed) as u64);
    if needed > most || descriptor.physical_type() != Physical::BYTE_ARRAY {
        return Ok(Bytes(needed));
    }
    // A dictionary may represent a long text many times.
    let mut texts = 0_u64;
    for group in 0..file.reader.num_row_groups() {
        let ColumnReader::ByteArrayColumnReader(mut reader) = file.group(group)?.get_column_reader(column)?
        else {
            break;
        };
        loop {
            let (mut defined, mut repeated, mut values) = (Vec::new(), Vec::new(), Vec::new());
            let (n_rows, ..) =
                reader.read_records(COUNTED, Some(&mut defined), Some(&mut repeated), &mut values)?;
            texts = values.iter().fold(texts, |sum, text| sum.saturating_add(text.len() as u64));
            if n_rows == 0 || texts > most {
                break;
            }
        }
    }
    Ok(Bytes(needed.saturating_add(texts)))
}

/// The schema of these fields alone.
pub(super) fn projection(schema: &Type, is_read: &[bool]) -> Result<Type, ParquetError> {
    let fields = schema.get_fields().iter().zip(is_read).filter(|(_, is_read)| **is_read);
    let fields = fields.map(|(field, _)| Arc::clone(field)).collect();
    Type::group_type_builder(schema.name()).with_fields(fields).build()
}
