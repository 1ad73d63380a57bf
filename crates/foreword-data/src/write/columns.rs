//! The columns of a Parquet file: their types follow from their values.

use crate::Cell;
use parquet::basic::{Compression, ConvertedType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use std::sync::Arc;

/// Number of rows in a row group.
const GROUP: usize = 1 << 16;
/// The whole numbers up to this size are exact in double precision.
const MOST_EXACT: u64 = 1 << 53;

/// The rows of a file that is not written yet, by column.
pub(super) struct Columns {
    columns: Vec<Column>,
    n_rows: usize,
}

struct Column {
    name: String,
    cells: Vec<Cell>,
}

/// The type of a column.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Bool,
    Whole,
    Double,
    Text,
}

impl Columns {
    pub(super) fn new(fields: &[String]) -> Self {
        let column = |name: &String| Column { name: name.clone(), cells: Vec::new() };
        Self { columns: fields.iter().map(column).collect(), n_rows: 0 }
    }

    /// Adds a row with a cell for each column.
    pub(super) fn push(&mut self, cells: &[Cell]) {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.cells.push(cell.clone());
        }
        self.n_rows += 1;
    }

    /// The bytes of the file.
    pub(super) fn encode(&self) -> Result<Vec<u8>, ParquetError> {
        let kinds: Vec<Kind> = self.columns.iter().map(Column::kind).collect();
        let types = self.columns.iter().zip(&kinds).map(|(column, kind)| kind.schema(&column.name));
        let types = types.map(|kind| kind.map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        let schema = Arc::new(Type::group_type_builder("schema").with_fields(types).build()?);
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
        for from in (0..self.n_rows).step_by(GROUP) {
            let mut group = writer.next_row_group()?;
            for (column, &kind) in self.columns.iter().zip(&kinds) {
                column.encode(from..(from + GROUP).min(self.n_rows), kind, &mut group)?;
            }
            group.close()?;
        }
        writer.into_inner()
    }
}

impl Kind {
    fn of(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Null => None,
            Cell::Nested(nested) if nested.json().is_none() => None,
            Cell::Bool(_) => Some(Self::Bool),
            Cell::Number(number) if number.literal().parse::<i64>().is_ok() => Some(Self::Whole),
            // A number that double precision would change stays as it is written.
            Cell::Number(number) if number.literal().contains(['.', 'e', 'E']) => Some(Self::Double),
            Cell::Number(_) | Cell::Text(_) | Cell::Nested(_) => Some(Self::Text),
        }
    }

    fn schema(self, name: &str) -> Result<Type, ParquetError> {
        let physical = match self {
            Self::Bool => Physical::BOOLEAN,
            Self::Whole => Physical::INT64,
            Self::Double => Physical::DOUBLE,
            Self::Text => Physical::BYTE_ARRAY,
        };
        let converted = if self == Self::Text { ConvertedType::UTF8 } else { ConvertedType::NONE };
        let column = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
        column.with_converted_type(converted).build()
    }
}

impl Column {
    /// The narrowest type that keeps all values.
    fn kind(&self) -> Kind {
        let mut kinds = self.cells.iter().filter_map(Kind::of);
        let Some(first) = kinds.next() else { return Kind::Text };
        let both = |a: Kind, b: Kind| match (a, b) {
            (a, b) if a == b => a,
            (Kind::Whole, Kind::Double) | (Kind::Double, Kind::Whole) => Kind::Double,
            _ => Kind::Text,
        };
        match kinds.fold(first, both) {
            Kind::Double if !self.cells.iter().all(is_exact) => Kind::Text,
            kind => kind,
        }
    }

    fn encode<W: std::io::Write + Send>(
        &self,
        rows: std::ops::Range<usize>,
        kind: Kind,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError> {
        let cells = &self.cells[rows];
        match kind {
            Kind::Bool => write::<BoolType, W>(cells, group, |cell| cell.text().map(|text| text == "true")),
            Kind::Whole => write::<Int64Type, W>(cells, group, literal),
            Kind::Double => write::<DoubleType, W>(cells, group, literal),
            Kind::Text => write::<ByteArrayType, W>(cells, group, |cell| match cell {
                Cell::Null => None,
                Cell::Nested(nested) if nested.json().is_none() => None,
                cell => Some(ByteArray::from(cell.to_string().into_bytes())),
            }),
        }
    }
}

/// The number of a cell.
fn literal<T: std::str::FromStr>(cell: &Cell) -> Option<T> {
    match cell {
        Cell::Number(number) => number.literal().parse().ok(),
        _ => None,
    }
}

/// Whether a whole number is one in double precision too; true for other cells.
fn is_exact(cell: &Cell) -> bool {
    literal::<i64>(cell).is_none_or(|whole| whole.unsigned_abs() <= MOST_EXACT)
}

/// Writes a part of a column; `value` is that of a cell, `None` if it has none.
fn write<T: DataType, W: std::io::Write + Send>(
    cells: &[Cell],
    group: &mut SerializedRowGroupWriter<'_, W>,
    value: impl Fn(&Cell) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("a column is missing".to_owned());
    let values: Vec<Option<T::T>> = cells.iter().map(value).collect();
    let defined: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(&values, Some(&defined), None)?;
    column.close()
}
