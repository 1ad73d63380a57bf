//! Writes tables row by row: CSV, TSV, one JSON object per line, and Parquet.

mod columns;

use crate::Cell;
use columns::Columns;
use flate2::Compression;
use flate2::write::GzEncoder;
use foreword_format::FormatError;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// The extensions of tables that can be written.
pub const WRITABLE: &str = ".csv, .tsv, .jsonl or .parquet (.csv.gz and so on to compress)";

/// Errors in writing a table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The file could not be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A Parquet file could not be put in its place.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The file extension is not supported.
    #[error("{path}: unsupported file type for a table; use {WRITABLE}", path = path.display())]
    UnknownEnding {
        /// The file.
        path: PathBuf,
    },
    /// Two fields have the same name.
    #[error("{path}: two fields would have the name {field:?}", path = path.display())]
    DuplicateField {
        /// The file.
        path: PathBuf,
        /// The name.
        field: String,
    },
    /// A row has more or fewer cells than the table has fields.
    #[error("a row of {found} cells for a table of {expected} fields")]
    Ragged {
        /// Number of cells in this row.
        found: usize,
        /// Number of fields.
        expected: usize,
    },
    /// The columns could not be encoded.
    #[error("{path}: cannot write these columns as Parquet: {reason}", path = path.display())]
    Columns {
        /// The file.
        path: PathBuf,
        /// The encoder's message.
        reason: String,
    },
}

/// Writes rows to a file whose extension determines the format; an existing file is replaced.
///
/// CSV, TSV and JSON lines reach the file as they are written ([`TableWriter::flush`]). A Parquet file can't be read without
/// its end, and the type of a column depends on all of its values: its rows are kept in memory until [`TableWriter::finish`],
/// which then writes the file completely or not at all. A column of only whole numbers, numbers or booleans has that type;
/// any other one has texts, and nested values are JSON in them.
#[derive(Debug)]
pub struct TableWriter {
    path: PathBuf,
    n_fields: usize,
    sink: Sink,
}

enum Sink {
    Separated(Box<csv::Writer<Output>>),
    JsonLines {
        /// The names, as JSON strings.
        keys: Vec<String>,
        output: Output,
    },
    Parquet(Columns),
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Separated(_) => "Separated",
            Self::JsonLines { .. } => "JsonLines",
            Self::Parquet(_) => "Parquet",
        })
    }
}

impl TableWriter {
    /// Whether tables can be written to a file of this name.
    #[must_use]
    pub fn is_writable(path: &Path) -> bool {
        Kind::of(path).is_some()
    }

    /// Creates the file.
    ///
    /// # Errors
    /// If its extension is unknown, if two fields have the same name, or if it can't be created.
    pub fn create(path: &Path, fields: &[String]) -> Result<Self, WriteError> {
        let kind = Kind::of(path).ok_or_else(|| WriteError::UnknownEnding { path: path.to_owned() })?;
        let mut seen = HashSet::new();
        if let Some(field) = fields.iter().find(|field| !seen.insert(*field)) {
            return Err(WriteError::DuplicateField { path: path.to_owned(), field: field.clone() });
        }
        let io = |source| WriteError::Io { path: path.to_owned(), source };
        let output = |is_packed| Output::create(path, is_packed).map_err(io);
        let sink = match kind {
            Kind::Separated { mark, is_packed } => {
                let mut writer = csv::WriterBuilder::new().delimiter(mark).from_writer(output(is_packed)?);
                writer.write_record(fields).map_err(|error| io(error.into()))?;
                Sink::Separated(Box::new(writer))
            }
            Kind::JsonLines { is_packed } => {
                let keys = fields.iter().map(|field| serde_json::Value::from(field.as_str()).to_string());
                Sink::JsonLines { keys: keys.collect(), output: output(is_packed)? }
            }
            Kind::Parquet => {
                // What can't be written is said before the work, not after it.
                drop(File::options().create(true).append(true).open(path).map_err(io)?);
                Sink::Parquet(Columns::new(fields))
            }
        };
        Ok(Self { path: path.to_owned(), n_fields: fields.len(), sink })
    }

    /// Writes a row: a cell for every field, in their order.
    ///
    /// # Errors
    /// If it has another number of cells, or the file can't be written.
    pub fn write(&mut self, cells: &[Cell]) -> Result<(), WriteError> {
        if cells.len() != self.n_fields {
            return Err(WriteError::Ragged { found: cells.len(), expected: self.n_fields });
        }
        let written = match &mut self.sink {
            Sink::Separated(writer) => {
                writer.write_record(cells.iter().map(Cell::to_string)).map_err(io::Error::from)
            }
            Sink::JsonLines { keys, output } => output.write_all(json_line(keys, cells).as_bytes()),
            Sink::Parquet(columns) => {
                columns.push(cells);
                Ok(())
            }
        };
        written.map_err(|source| self.io(source))
    }

    /// Hands the rows written so far to the system, except those of a Parquet file.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        let flushed = match &mut self.sink {
            Sink::Separated(writer) => writer.flush(),
            Sink::JsonLines { output, .. } => output.flush(),
            Sink::Parquet(_) => Ok(()),
        };
        flushed.map_err(|source| self.io(source))
    }

    /// Completes the file. Without it, the last rows may be missing, and a Parquet file is empty.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn finish(self) -> Result<(), WriteError> {
        let Self { path, sink, .. } = self;
        let finished = match sink {
            Sink::Separated(writer) => {
                writer.into_inner().map_err(csv::IntoInnerError::into_error).and_then(Output::finish)
            }
            Sink::JsonLines { output, .. } => output.finish(),
            Sink::Parquet(columns) => {
                let bytes = columns.encode().map_err(|error| WriteError::Columns {
                    path: path.clone(),
                    reason: error.to_string().trim_end_matches('.').to_owned(),
                })?;
                foreword_format::write_whole(&path, &bytes)?;
                Ok(())
            }
        };
        finished.map_err(|source| WriteError::Io { path, source })
    }

    fn io(&self, source: io::Error) -> WriteError {
        WriteError::Io { path: self.path.clone(), source }
    }
}

/// The format of a table.
enum Kind {
    Separated { mark: u8, is_packed: bool },
    JsonLines { is_packed: bool },
    Parquet,
}

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        let is_packed = name.ends_with(".gz");
        let ending = name.trim_end_matches(".gz").rsplit_once('.').filter(|(stem, _)| !stem.is_empty())?.1;
        match ending {
            "csv" => Some(Self::Separated { mark: b',', is_packed }),
            "tsv" => Some(Self::Separated { mark: b'\t', is_packed }),
            "jsonl" | "ndjson" => Some(Self::JsonLines { is_packed }),
            "parquet" if !is_packed => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// A row as a JSON object on a line.
fn json_line(keys: &[String], cells: &[Cell]) -> String {
    let mut line = String::from("{");
    for (i, (key, cell)) in keys.iter().zip(cells).enumerate() {
        if i > 0 {
            line.push_str(", ");
        }
        line.push_str(key);
        line.push_str(": ");
        line.push_str(&cell.to_json());
    }
    line.push_str("}\n");
    line
}

/// A file, packed or not.
enum Output {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl Output {
    fn create(path: &Path, is_packed: bool) -> io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        Ok(if is_packed {
            Self::Gzip(GzEncoder::new(file, Compression::default()))
        } else {
            Self::Plain(file)
        })
    }

    fn finish(self) -> io::Result<()> {
        let mut file = match self {
            Self::Plain(file) => file,
            Self::Gzip(encoder) => encoder.finish()?,
        };
        file.flush()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Gzip(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests;
