//! Label names of a data set: from a flag, from the data itself, or from the training data.

use std::collections::BTreeMap;

use crate::Dataset;
use crate::data::labels::{canonical, is_truth, name_of, own_names, respelled, spelled, with_names};
use crate::error::Result;

use crate::display::in_a_line;
use crate::error::UserError;
use crate::notice::Observer;

/// Maximum number of labels to list.
const MOST_TOLD: usize = 8;

/// The sources of label names, in order of precedence, except that the data's own names precede recorded ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Naming<'a> {
    /// A flag or a task file.
    pub stated: Option<&'a BTreeMap<String, String>>,
    /// The training data, or that of a prompt.
    pub recorded: Option<&'a BTreeMap<String, String>>,
    /// The fixed label names of the task; other names are useless.
    pub labels: Option<&'a [String]>,
}

/// A data set with named labels.
#[derive(Debug)]
pub struct Named {
    /// The data set with named labels.
    pub dataset: Dataset,
    /// Map from label values to names.
    pub names: BTreeMap<String, String>,
    /// The field that the names come from, if any.
    pub field: Option<String>,
    /// The notices.
    pub said: Vec<String>,
}

impl Naming<'_> {
    /// Names the labels in this field, and reports the source of the names.
    pub fn apply(self, dataset: Dataset, field: &str, observer: &dyn Observer) -> Result<Named> {
        let named = self.named(dataset, field)?;
        named.said.iter().for_each(|said| observer.say(said));
        Ok(named)
    }

    /// Names the labels in this field, and returns the notices.
    pub fn named(self, dataset: Dataset, field: &str) -> Result<Named> {
        let idx = dataset.require(field)?;
        let mut said = respelled(&dataset, idx);
        let found = spelled(&dataset, idx);
        let is_label = |name: &str| self.labels.is_none_or(|labels| labels.iter().any(|label| label == name));
        let own = own_names(&dataset, idx).filter(|own| {
            let mut names = found.iter().filter_map(|label| own.names.get(*label));
            names.any(|name| is_label(name))
        });
        let (names, from, field) = match (self.stated, own, self.recorded) {
            (Some(stated), ..) => (keyed(stated), None, None),
            (None, Some(own), _) => {
                let from = match &own.field {
                    Some(field) => format!("by the field {field:?}"),
                    None => "by the ClassLabel of the file".to_owned(),
                };
                (own.names, Some(format!("{from}; --label-names gives others")), own.field)
            }
            (None, None, Some(recorded)) => {
                // A value that is already a label needs no name.
                let stands = |label: &str| self.labels.is_some() && is_label(label);
                let mut names = keyed(recorded);
                names.retain(|label, name| is_label(name) && !stands(label));
                (names, Some("as in the training data; --label-names gives others".to_owned()), None)
            }
            (None, None, None) => (BTreeMap::new(), None, None),
        };
        for (label, name) in self.stated.iter().flat_map(|_| &names) {
            if label != name && found.contains(label.as_str()) && found.contains(name.as_str()) {
                said.push(format!("--label-names makes {label:?} and {name:?} one label, {name:?}"));
            }
        }
        let told: Vec<String> = found
            .iter()
            .filter_map(|label| Some((label, name_of(&names, label)?)))
            .take(MOST_TOLD)
            .map(|(label, name)| format!("{} is {:?}", in_a_line(label), in_a_line(name)))
            .collect();
        let n_more = found.iter().filter(|label| name_of(&names, label).is_some()).count() - told.len();
        let more = if n_more > 0 { format!(" and {n_more} more") } else { String::new() };
        if let (Some(from), false) = (from, told.is_empty()) {
            said.push(format!("label     {}{more} ({from})", told.join(", ")));
        }
        Ok(Named { dataset: with_names(dataset, idx, &names), names, field, said })
    }

    /// Checks that the given names fit the data with these labels, and merge no two of them by accident: only into a label
    /// that is in the data.
    pub fn check(self, data: &Dataset, field: &str) -> Result<()> {
        let Some(stated) = self.stated else { return Ok(()) };
        let names = keyed(stated);
        let found = spelled(data, data.require(field)?);
        let mut first: BTreeMap<&str, &str> = BTreeMap::new();
        for (label, name) in &names {
            let other = first.insert(name, label).filter(|_| !found.contains(name.as_str()));
            if let Some(other) = other {
                return Err(UserError::new(format!(
                    "--label-names calls both {other:?} and {label:?} {name:?}, which would make them one label"
                ))
                .hint("give each a name of its own; for one label, write them alike in the data")
                .into());
            }
            if label != name && names.get(name).is_some_and(|other| other != name) {
                return Err(UserError::new(format!(
                    "--label-names calls {label:?} {name:?}, which stands in the data for another label"
                ))
                .hint("give names that are no label in the data")
                .into());
            }
            let is_there = |label: &str| {
                let alike = |other: &&str| is_truth(label) && other.eq_ignore_ascii_case(label);
                found.contains(label) || found.iter().any(alike)
            };
            if !is_there(label) && !is_there(name) {
                let there: Vec<String> =
                    found.iter().take(MOST_TOLD).map(|label| format!("{label:?}")).collect();
                return Err(UserError::new(format!(
                    "--label-names names {label:?}, which stands nowhere in the field {field:?}"
                ))
                .hint(format!("the labels there are: {}", there.join(", ")))
                .into());
            }
        }
        Ok(())
    }
}

/// The names by the canonical spelling of their labels.
fn keyed(names: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    names.iter().map(|(label, name)| (canonical(label).to_owned(), canonical(name).to_owned())).collect()
}
