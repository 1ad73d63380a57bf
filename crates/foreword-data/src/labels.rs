//! Labels in data: their canonical spelling, and the names that a file gives to numbers.

use super::{Cell, Dataset, FieldIdx};
use std::collections::{BTreeMap, BTreeSet};

/// Suffixes of a field with the names of the labels that another field has as numbers.
const NAME_ENDINGS: [&str; 5] = ["_text", "_name", "_names", "_str", "_string"];

/// A label without surrounding whitespace, and a whole number without decimals: "0", "0.0" and "0.00 " are one label.
#[must_use]
pub fn canonical(label: &str) -> &str {
    let label = label.trim();
    let Some((whole, decimals)) = label.split_once('.') else { return label };
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(digits) || !are_digits(decimals) || decimals.bytes().any(|byte| byte != b'0') {
        return label;
    }
    if digits.bytes().all(|byte| byte == b'0') { "0" } else { whole }
}

/// Whether a label is a whole number.
#[must_use]
pub fn is_whole(label: &str) -> bool {
    let digits = label.strip_prefix('-').unwrap_or(label);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a label is a truth value, in any capitals: pandas writes True into CSV files, and true elsewhere.
#[must_use]
pub fn is_truth(label: &str) -> bool {
    ["true", "false"].iter().any(|truth| label.eq_ignore_ascii_case(truth))
}

/// The name of a label. The capitals of truth values do not count.
#[must_use]
pub fn name_of<'n>(names: &'n BTreeMap<String, String>, label: &str) -> Option<&'n String> {
    let by_truth = || names.iter().find(|(known, _)| known.eq_ignore_ascii_case(label)).map(|(_, name)| name);
    names.get(label).or_else(|| is_truth(label).then(by_truth).flatten())
}

/// Names found in the data for the labels of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelNames {
    /// Map from value to name.
    pub names: BTreeMap<String, String>,
    /// The field with the names; `None` if they come from the file's metadata.
    pub field: Option<String>,
}

/// The data's own names for the numbers in a label field: those of a ClassLabel of Hugging Face `datasets`, or those in a
/// field next to it, such as "label_text" next to "label", if numbers and names map one to one.
#[must_use]
pub fn own_names(dataset: &Dataset, field: FieldIdx) -> Option<LabelNames> {
    if !texts(dataset, field).all(|(_, label)| is_whole(canonical(label))) {
        return None;
    }
    if let Some(names) = dataset.about.class_names.get(&field) {
        let distinct: BTreeSet<&str> = names.iter().map(|name| canonical(name)).collect();
        if distinct.len() == names.len() && !distinct.contains("") {
            let names = names.iter().enumerate();
            let names =
                names.map(|(number, name)| (number.to_string(), canonical(name).to_owned())).collect();
            return Some(LabelNames { names, field: None });
        }
    }
    let label = dataset.field_name(field).to_lowercase();
    let beside = dataset.fields().iter().filter(|name| {
        let lower = name.to_lowercase();
        NAME_ENDINGS.iter().any(|ending| lower.strip_suffix(ending) == Some(label.as_str()))
    });
    beside.into_iter().find_map(|name| {
        let names = pairs(dataset, field, dataset.field(name)?)?;
        Some(LabelNames { names, field: Some(name.clone()) })
    })
}

/// Maps each label to its only name, if no two labels share a name.
fn pairs(dataset: &Dataset, labels: FieldIdx, names: FieldIdx) -> Option<BTreeMap<String, String>> {
    let mut pairs: BTreeMap<String, String> = BTreeMap::new();
    for row in 0..dataset.n() {
        let label = canonical(dataset.text(row, labels).ok()?);
        let name = canonical(dataset.text(row, names).ok()?);
        if name.is_empty() || is_whole(name) {
            return None;
        }
        match pairs.get(label) {
            Some(known) if known == name => {}
            Some(_) => return None,
            None => {
                pairs.insert(label.to_owned(), name.to_owned());
            }
        }
    }
    let distinct: BTreeSet<&String> = pairs.values().collect();
    (distinct.len() == pairs.len()).then_some(pairs)
}

/// The labels of a field in canonical spelling.
#[must_use]
pub fn spelled(dataset: &Dataset, field: FieldIdx) -> BTreeSet<&str> {
    texts(dataset, field).map(|(_, label)| canonical(label)).collect()
}

/// The data with labels replaced by their names; labels without a name do not change.
#[must_use]
pub fn with_names(mut dataset: Dataset, field: FieldIdx, names: &BTreeMap<String, String>) -> Dataset {
    for (at, cell) in dataset.rows.iter_mut().flat_map(|row| &mut row.cells) {
        if let (true, Some(label)) = (*at == field, cell.text())
            && let Some(name) = name_of(names, canonical(label))
        {
            *cell = Cell::Text(name.clone());
        }
    }
    dataset
}

/// A notice if labels are read differently from how they are written.
#[must_use]
pub fn respelled(dataset: &Dataset, field: FieldIdx) -> Vec<String> {
    let name = dataset.field_name(field);
    let mut said = Vec::new();
    let spaced: Vec<_> = texts(dataset, field).filter(|(_, label)| *label != label.trim()).collect();
    if let Some((row, label)) = spaced.first() {
        let (n, location) = (spaced.len(), dataset.location(*row));
        said.push(format!(
            "space around a label does not count: {label:?} is {:?} ({location}{})",
            canonical(label),
            more(n)
        ));
    }
    let all: BTreeSet<&str> = texts(dataset, field).map(|(_, label)| label.trim()).collect();
    let twice = |label: &&&str| all.contains(canonical(label)) && canonical(label) != **label;
    let twice: Vec<&str> = all.iter().filter(twice).copied().collect();
    if let Some(label) = twice.first() {
        said.push(format!(
            "the field {name:?} has both {:?} and {label:?}, which are read as one label, {:?}",
            canonical(label),
            canonical(label)
        ));
    } else if dataset.about.mixed.contains(&field) {
        said.push(format!(
            "the field {name:?} has whole numbers with and without decimals, as 0 and 0.0, which are read as one label, \"0\""
        ));
    }
    said
}

fn more(n: usize) -> String {
    if n > 1 { format!(", and {} more", n - 1) } else { String::new() }
}

/// The texts of a field with their rows.
fn texts(dataset: &Dataset, field: FieldIdx) -> impl Iterator<Item = (usize, &str)> {
    let cells =
        dataset.rows.iter().enumerate().flat_map(|(row, of)| of.cells.iter().map(move |cell| (row, cell)));
    cells.filter_map(move |(row, (at, cell))| if *at == field { Some((row, cell.text()?)) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(text: &str, name: &str) -> (Dataset, FieldIdx) {
        let data = Dataset::from_bytes(text.as_bytes(), Path::new(name)).unwrap();
        let label = data.require("label").unwrap();
        (data, label)
    }

    #[test]
    fn a_number_has_one_spelling() {
        for (label, one) in [
            ("0.0", "0"),
            (" 1.00\t", "1"),
            ("-0.0", "0"),
            ("-3.0", "-3"),
            ("1.5", "1.5"),
            ("v1.0", "v1.0"),
            ("1.", "1."),
            (".0", ".0"),
            ("1.0.0", "1.0.0"),
            ("01", "01"),
            ("not spam ", "not spam"),
            ("", ""),
        ] {
            assert_eq!(canonical(label), one, "{label:?}");
        }
    }

    #[test]
    fn truth_values_have_one_name_whatever_their_capitals() {
        let names =
            BTreeMap::from([("True".to_owned(), "spam".to_owned()), ("no".to_owned(), "ham".to_owned())]);
        for (label, name) in [("True", Some("spam")), ("true", Some("spam")), ("NO", None), ("false", None)] {
            assert_eq!(name_of(&names, label).map(String::as_str), name, "{label}");
        }
        let (data, label) = read("{\"label\": true}\n", "d.jsonl");
        assert_eq!(with_names(data, label, &names).text(0, label).unwrap(), "spam");
    }

    #[test]
    fn readers_agree_on_numbers() {
        let (json, label) = read("{\"label\":0.0}\n{\"label\":1}\n{\"label\":0.5}\n", "d.jsonl");
        assert_eq!(spelled(&json, label).into_iter().collect::<Vec<_>>(), ["0", "0.5", "1"]);
        let (csv, label) = read("label,a\n0.0,x\n1,x\n0.5,x\n", "d.csv");
        assert_eq!(spelled(&csv, label).into_iter().collect::<Vec<_>>(), ["0", "0.5", "1"]);
    }

    #[test]
    fn other_spellings_are_told_once() {
        let (data, label) = read("text,label\na,up \nb,up\nc, up\n", "d.csv");
        assert_eq!(
            respelled(&data, label),
            ["space around a label does not count: \"up \" is \"up\" (d.csv, line 2, and 1 more)"]
        );
        let both = "the field \"label\" has both \"0\" and \"0.0\", which are read as one label, \"0\"";
        let (data, label) = read("text,label\na,0\nb,0.0\nc,1\n", "d.csv");
        assert_eq!(respelled(&data, label), [both]);
        let (data, label) = read("{\"label\":0}\n{\"label\":1.0}\n", "d.jsonl");
        assert!(respelled(&data, label)[0].contains("with and without decimals"));
        let (data, label) = read("{\"label\":0.0}\n{\"label\":1.0}\n", "d.jsonl");
        assert!(respelled(&data, label).is_empty());
    }

    #[test]
    fn names_beside_numbers_are_found_if_they_are_names() {
        let names = |text: &str| {
            let (data, label) = read(text, "d.csv");
            own_names(&data, label).map(|own| (own.names.into_values().collect::<Vec<_>>(), own.field))
        };
        let found = Some((vec!["down".to_owned(), "up".to_owned()], Some("label_text".to_owned())));
        assert_eq!(names("label,label_text\n0,down\n1.0,up\n0,down\n"), found);
        for none in [
            "label,label_text\n0,down\n1,up\n0,up\n",
            "label,label_text\n0,down\n1,down\n",
            "label,label_text\n0,\n1,up\n",
            "label,label_text\n0,7\n1,8\n",
            "label,label_text\nneg,down\npos,up\n",
            "label,other_text\n0,down\n1,up\n",
        ] {
            assert_eq!(names(none), None, "{none}");
        }
    }

    /// A file written by `datasets` or pandas: testdata/make_parquet.py.
    fn parquet(name: &str) -> Dataset {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/data");
        Dataset::read(&folder.join(name)).unwrap()
    }

    #[test]
    fn a_class_label_names_its_numbers() {
        for (name, first) in [("class_label.parquet", "negative"), ("class_label_turned.parquet", "positive")]
        {
            let data = parquet(name);
            let label = data.require("label").unwrap();
            let own = own_names(&data, label).unwrap();
            assert_eq!((own.names["0"].as_str(), own.names.len(), own.field), (first, 2, None), "{name}");
            let named = with_names(data, label, &own.names);
            assert_eq!(named.text(0, label).unwrap(), "positive", "the first text is a good one: {name}");
            assert_eq!(own_names(&named, label), None);
        }
    }

    #[test]
    fn columns_of_numbers_are_spelled_as_other_files_are() {
        let data = parquet("numbers.parquet");
        let field = |name| data.require(name).unwrap();
        assert_eq!(spelled(&data, field("label")).into_iter().collect::<Vec<_>>(), ["0", "1"]);
        let share = |row| data.text(row, field("share"));
        assert_eq!([share(0).unwrap(), share(1).unwrap(), share(2).unwrap()], ["0.1", "1e-9", "1e20"]);
        assert!(share(3).unwrap_err().to_string().contains("row 4: missing value in the field \"share\""));
    }

    #[test]
    fn names_take_the_place_of_what_they_name() {
        let (data, label) = read("text,label\n0,0.0\nb,up\nc,2\n", "d.csv");
        let names = [("0", "down"), ("1", "up")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        let named = with_names(data, label, &names);
        let text = |row, field| named.text(row, named.require(field).unwrap()).unwrap();
        assert_eq!([text(0, "label"), text(1, "label"), text(2, "label")], ["down", "up", "2"]);
        assert_eq!(text(0, "text"), "0", "another field");
    }
}
