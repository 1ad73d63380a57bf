//! The splits of a run: reading, splitting off dev, and limits.

use std::collections::BTreeMap;
use std::path::Path;

use crate::data::fields::{examples_digest, slot_values};
use crate::data::split::{default_dev_share, rounds, split_texts};
use crate::error::Result;
use crate::format::DataRecord;
use crate::{Dataset, Task, TaskFile, Template};

use super::data;
use crate::display::count;
use crate::error::UserError;
use crate::fields::{Fields, complete};
use crate::notice::Observer;
use crate::prompt::naming::Naming;

/// The examples of a run as read.
#[derive(Debug)]
pub struct Splits {
    /// Training examples.
    pub train: Dataset,
    /// Development examples.
    pub dev: Option<Dataset>,
    /// Test examples.
    pub test: Option<Dataset>,
}

impl Splits {
    /// Reads the files named in the settings, and reports how they were read.
    pub fn read(file: &TaskFile, observer: &dyn Observer) -> Result<Self> {
        let Some(train) = &file.data.train else {
            return Err(UserError::new("there is nothing to learn from")
                .hint("give a task file, training data, or --train FILE")
                .into());
        };
        let (dev, test) = (file.data.dev.as_deref(), file.data.test.as_deref());
        let all = [Some(train.as_path()), dev, test];
        if all.into_iter().flatten().filter(|path| data::is_standard_input(path)).count() > 1 {
            return Err(UserError::new(
                "standard input (-) is named for more than one of --train, --dev and --test",
            )
            .hint("it can be read only once: give files for the others")
            .into());
        }
        let options = file.data.read_options();
        let paths: Vec<&Path> = all.into_iter().flatten().collect();
        let mut read = data::read_all(&paths, &options, observer)?.into_iter();
        let mut next = |is_there: bool| if is_there { read.next() } else { None };
        let train = next(true).ok_or_else(|| UserError::new("there is nothing to learn from"))?;
        Ok(Self { train, dev: next(dev.is_some()), test: next(test.is_some()) })
    }
}

impl Splits {
    /// Leaves out examples that lack a value, if the settings say so.
    pub(super) fn complete(
        self,
        template: &Template,
        fields: &Fields,
        settings: &TaskFile,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let complete = |dataset: Dataset| complete(dataset, template, fields, settings, observer);
        let (train, dev, test) = (complete(self.train)?, self.dev.map(complete), self.test.map(complete));
        Ok(Self { train, dev: dev.transpose()?, test: test.transpose()? })
    }

    /// Names the labels of dev and test as in the training data. `train`: the notices about the latter, which are not
    /// repeated.
    pub(super) fn named(
        self,
        naming: Naming<'_>,
        field: &str,
        train: &[String],
        observer: &dyn Observer,
    ) -> Result<Self> {
        let named = |dataset: Option<Dataset>| -> Result<Option<Dataset>> {
            let Some(dataset) = dataset else { return Ok(None) };
            let named = naming.named(dataset, field)?;
            named.said.iter().filter(|said| !train.contains(said)).for_each(|said| observer.say(said));
            Ok(Some(named.dataset))
        };
        Ok(Self { train: self.train, dev: named(self.dev)?, test: named(self.test)? })
    }
}

/// Splits a dev set off the training data if none is given.
pub(super) fn with_dev(
    splits: Splits,
    task: &Task,
    fields: &Fields,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Splits> {
    if splits.dev.is_some() {
        return Ok(splits);
    }
    let labels = strata(&splits.train, task, fields)?;
    let texts = slot_values(&task.template, &splits.train, task.text_field.as_deref())?;
    let split = split_texts(&texts, &labels, default_dev_share(labels.len()), seed);
    if split.dev.is_empty() {
        observer.warn(
            "no label has enough examples, of different texts, to keep some aside as dev: the last prompt is kept, not the best",
        );
        return Ok(splits);
    }
    observer.say(&format!(
        "no dev set: holding out {} of {} training examples (seed {seed}; set one with --dev)",
        count(split.dev.len() as u64),
        count(labels.len() as u64)
    ));
    let (train, dev) = (splits.train.take(&split.train), splits.train.take(&split.dev));
    Ok(Splits { train, dev: Some(dev), test: splits.test })
}

/// Samples this many examples per label for training, and as many others for dev.
pub(super) fn few(
    splits: Splits,
    shots: usize,
    (task, fields): (&Task, &Fields),
    seed: u64,
    observer: &dyn Observer,
) -> Result<Splits> {
    let Some(labels) = task.verbalizer() else {
        return Err(UserError::new("--shots counts examples of each label, and a generation has none")
            .hint("use --limit")
            .into());
    };
    let drawn = |dataset: &Dataset| -> Result<Vec<usize>> {
        let mut rows: Vec<usize> =
            rounds(&strata(dataset, task, fields)?, shots, seed).into_iter().flatten().collect();
        rows.sort_unstable();
        Ok(rows)
    };
    let rows = drawn(&splits.train)?;
    if rows.len() < shots * labels.n() {
        observer.warn(&format!(
            "--shots {shots}: there are fewer training examples of some labels; {} are used, not {}",
            count(rows.len() as u64),
            count((shots * labels.n()) as u64)
        ));
    }
    let dev = match splits.dev {
        Some(dev) => dev,
        None => splits
            .train
            .take(&(0..splits.train.n()).filter(|row| rows.binary_search(row).is_err()).collect::<Vec<_>>()),
    };
    let dev_rows = drawn(&dev)?;
    let dev = (!dev_rows.is_empty()).then(|| dev.take(&dev_rows));
    Ok(Splits { train: splits.train.take(&rows), dev, test: splits.test })
}

/// The strata for sampling: the labels, or one stratum for targets.
pub fn strata(dataset: &Dataset, task: &Task, fields: &Fields) -> Result<Vec<usize>> {
    match task.verbalizer() {
        Some(verbalizer) => Ok(verbalizer.label_indices(dataset, dataset.require(&fields.truth)?)?),
        None => Ok(vec![0; dataset.n()]),
    }
}

/// Limits the number of training examples; dev stays the same, so that runs are comparable.
pub(super) fn limited(
    splits: Splits,
    limit: Option<usize>,
    task: &Task,
    fields: &Fields,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Splits> {
    let labels = strata(&splits.train, task, fields)?;
    let train =
        data::drawn(splits.train, (&labels, fields.kind), limit, (seed, "training examples"), observer);
    Ok(Splits { train, ..splits })
}

/// The records of the examples in use.
pub(super) fn records(splits: &Splits, task: &Task, fields: &Fields) -> Result<BTreeMap<String, DataRecord>> {
    let record = |dataset: &Dataset| -> Result<DataRecord> {
        let (template, text_field) = (&task.template, task.text_field.as_deref());
        let (truth, is_label) = (dataset.require(&fields.truth)?, task.verbalizer().is_some());
        Ok(DataRecord {
            digest: examples_digest(template, dataset, text_field, truth, is_label)?,
            file_digest: Some(dataset.digest().to_owned()),
            examples: dataset.n() as u64,
        })
    };
    let named =
        [("dev", splits.dev.as_ref()), ("test", splits.test.as_ref()), ("train", Some(&splits.train))];
    let there = named.into_iter().filter_map(|(name, dataset)| Some((name, dataset?)));
    there.map(|(name, dataset)| Ok((name.to_owned(), record(dataset)?))).collect()
}
