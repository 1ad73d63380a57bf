//! Files of predictions: the fields of each example, and beside them what was predicted.

use std::path::{Path, PathBuf};

use super::Prediction;
use crate::data::Cell;
use crate::data::write::{TableWriter, WriteError};
use crate::error::Result;
use crate::metrics::scale::Scale;
use crate::notice::Observer;
use crate::plan::output::check_file;
use crate::{Dataset, Verbalizer};

/// The prefix of a column whose name is a field of the data.
const PREFIX: &str = "predicted_";

/// Writes predictions to a `.csv`, `.tsv`, `.jsonl` or `.parquet` file as they come.
#[derive(Debug)]
pub struct PredictionWriter {
    writer: TableWriter,
    path: PathBuf,
}

impl PredictionWriter {
    /// Checks, before any work, that a file can be written.
    ///
    /// # Errors
    /// If it is there and `force` is not set, if its folder is not, or if its extension is not supported.
    pub fn check(path: &Path, force: bool) -> Result<()> {
        if !TableWriter::is_writable(path) {
            return Err(WriteError::UnknownEnding { path: path.to_owned() }.into());
        }
        check_file(path, force)
    }

    /// Creates the file. `fields`: the fields of the examples; `columns`: what is predicted. A column with the name of a
    /// field has the prefix `predicted_`, which is reported.
    ///
    /// # Errors
    /// If it can't be created.
    pub fn create(
        path: &Path,
        fields: Vec<String>,
        columns: Vec<String>,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let mut names = fields;
        for column in columns {
            let mut name = column.clone();
            while names.contains(&name) {
                name.insert_str(0, PREFIX);
            }
            if name != column {
                observer.say(&format!("the data has a field {column:?}: the column is called {name:?}"));
            }
            names.push(name);
        }
        Ok(Self { writer: TableWriter::create(path, &names)?, path: path.to_owned() })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a row: the values of the fields, and of the columns.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&mut self, mut values: Vec<Cell>, columns: Vec<Cell>) -> Result<()> {
        values.extend(columns);
        Ok(self.writer.write(&values)?)
    }

    /// Hands the rows so far to the system, except those of a Parquet file.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.writer.flush()?)
    }

    /// Completes the file.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn finish(self) -> Result<()> {
        Ok(self.writer.finish()?)
    }
}

/// The fields of a data set that are not made of others, and their values in a row.
#[must_use]
pub fn own_fields(data: &Dataset) -> Vec<String> {
    data.own_fields().into_iter().map(|field| data.field_name(field).to_owned()).collect()
}

/// Their values in a row.
#[must_use]
pub fn own_values(data: &Dataset, row: usize) -> Vec<Cell> {
    data.cells(row).into_iter().cloned().collect()
}

/// The columns of a predicted label: its name under `label`, its probability, the expected value if the labels are on a
/// scale, and the probability of each label.
#[must_use]
pub fn label_columns(label: &str, labels: &Verbalizer) -> Vec<String> {
    let expected = Scale::of(labels).map(|_| "expected".to_owned());
    let each = labels.names().iter().map(|name| format!("probability_{name}"));
    [label.to_owned(), "probability".to_owned()].into_iter().chain(expected).chain(each).collect()
}

/// The values of these columns.
#[must_use]
pub fn label_values(prediction: &Prediction, scale: Option<&Scale>) -> Vec<Cell> {
    let Prediction { label, probability, probabilities, .. } = prediction;
    let expected = scale.map(|scale| scale.expected(probabilities).into());
    let each = probabilities.iter().map(|&probability| probability.into());
    [label.as_deref().into(), (*probability).into()].into_iter().chain(expected).chain(each).collect()
}
