//! Files of predictions: the fields of each example, and beside them what was predicted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Prediction;
use crate::data::Cell;
use crate::data::write::{TableWriter, WriteError};
use crate::error::{Result, UserError};
use crate::metrics::scale::Scale;
use crate::notice::Observer;
use crate::plan::output::{check_file, is_same};
use crate::{Dataset, Verbalizer};

/// The prefix of a column whose name is a field of the data.
const PREFIX: &str = "predicted_";

/// Writes predictions to a `.csv`, `.tsv`, `.jsonl` or `.parquet` file as they come: to one beside it, which takes its place
/// when it is complete.
#[derive(Debug)]
pub struct PredictionWriter {
    writer: TableWriter,
    path: PathBuf,
    partial: PathBuf,
    names: Vec<String>,
    /// The columns with values that could not be read, and so are missing in the file.
    lost: BTreeSet<usize>,
}

impl PredictionWriter {
    /// Checks, before any work, that a file can be written. `data`: the file that is read.
    ///
    /// # Errors
    /// If it is that file, if it is there and `force` is not set, if its folder is not, or if its extension is not supported.
    pub fn check(path: &Path, force: bool, data: Option<&Path>) -> Result<()> {
        if !TableWriter::is_writable(path) {
            return Err(WriteError::UnknownEnding { path: path.to_owned() }.into());
        }
        if data.is_some_and(|data| is_same(data, path)) {
            return Err(UserError::new(format!("{} is the file that is read", path.display()))
                .hint("give another file to write to")
                .into());
        }
        check_file(path, force)
    }

    /// Creates the file. `fields`: the fields of the examples; `columns`: what is predicted. A column with the name of a
    /// field has the prefix `predicted_`; where that is a field too, as in a table of earlier predictions, all columns have it
    /// and a number. Both are reported.
    ///
    /// # Errors
    /// If it can't be created.
    pub fn create(
        path: &Path,
        fields: Vec<String>,
        columns: &[String],
        observer: &dyn Observer,
    ) -> Result<Self> {
        let named = column_names(&fields, columns);
        let renamed: Vec<(&String, &String)> =
            columns.iter().zip(&named).filter(|(column, name)| column != name).collect();
        match renamed[..] {
            [] => {}
            [(column, name)] => {
                observer.say(&format!("the data has a field {column:?}: the column is called {name:?}"));
            }
            [(column, name), (second, second_name), ..] => {
                let more = renamed.len() - 2;
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                observer.say(&format!(
                    "the data has fields of the names of columns: {column:?} is called {name:?}, {second:?} \
                     {second_name:?}{more}"
                ));
            }
        }
        let names: Vec<String> = fields.into_iter().chain(named).collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = path.with_file_name(format!("partial-{name}"));
        let writer = TableWriter::create(&partial, &names)?;
        Ok(Self { writer, path: path.to_owned(), partial, names, lost: BTreeSet::new() })
    }

    /// Writes a row: the values of the fields, and of the columns.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&mut self, mut values: Vec<Cell>, columns: Vec<Cell>) -> Result<()> {
        values.extend(columns);
        let is_lost = |value: &Cell| matches!(value, Cell::Nested(nested) if nested.json().is_none());
        self.lost.extend((0..values.len()).filter(|&column| is_lost(&values[column])));
        Ok(self.writer.write(&values)?)
    }

    /// Hands the rows so far to the system, except those of a Parquet file.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.writer.flush()?)
    }

    /// Completes the file, or if the predictions are not complete the one beside it; returns which.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn finish(self, is_complete: bool, observer: &dyn Observer) -> Result<PathBuf> {
        let Self { writer, path, partial, names, lost } = self;
        writer.finish()?;
        if !lost.is_empty() {
            let names: Vec<String> = lost.into_iter().map(|column| format!("{:?}", names[column])).collect();
            observer.warn(&format!(
                "values of {} are of a type that is not read, and are missing in the table",
                names.join(", ")
            ));
        }
        if !is_complete {
            return Ok(partial);
        }
        let io = |source| WriteError::Io { path: path.clone(), source };
        std::fs::rename(&partial, &path).map_err(io)?;
        Ok(path)
    }
}

/// The names of columns beside these fields, which they must differ from.
fn column_names(fields: &[String], columns: &[String]) -> Vec<String> {
    let first = columns
        .iter()
        .map(|column| if fields.contains(column) { format!("{PREFIX}{column}") } else { column.clone() });
    let numbered = |n: usize| columns.iter().map(|column| format!("{PREFIX}{column}_{n}")).collect();
    let mut tried = std::iter::once(first.collect()).chain((2..).map(numbered));
    let is_free = |names: &Vec<String>| {
        let distinct: BTreeSet<&String> = names.iter().collect();
        distinct.len() == names.len() && !names.iter().any(|name| fields.contains(name))
    };
    // Two columns of one name stay so, and are refused where the table is created.
    let most = fields.len() + 2;
    tried.by_ref().take(most).find(is_free).unwrap_or_else(|| columns.to_vec())
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
