//! What the fields are for: stated by the user, or guessed from common names.

use super::{Cell, DataError, Dataset, FieldIdx, listed};
use crate::template::Template;

/// A field with its part in the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenField {
    /// Where it stands in this data set.
    pub idx: FieldIdx,
    /// Its name.
    pub name: String,
    /// Whether it was guessed, which the user should be told.
    pub guessed: bool,
}

/// The fields that fill a template's slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFields {
    /// One field for each of the template's slots, in their order.
    pub fields: Vec<FieldIdx>,
    /// The field that `{text}` was guessed to mean, which the user should be told.
    pub guessed: Option<String>,
}

struct Role {
    name: &'static str,
    flag: &'static str,
    common_names: &'static [&'static str],
}

const TEXT: Role = Role {
    name: "text",
    flag: "--text-field",
    common_names: &[
        "text", "sentence", "review", "content", "message", "sms", "tweet", "question", "input", "document",
        "body", "comment", "title",
    ],
};

const LABEL: Role = Role {
    name: "label",
    flag: "--label-field",
    common_names: &[
        "label",
        "labels",
        "class",
        "category",
        "target",
        "sentiment",
        "intent",
        "topic",
        "answer",
        "output",
        "y",
    ],
};

const TARGET: Role = Role {
    name: "target",
    flag: "--target-field",
    common_names: &["target", "output", "completion", "answer", "response", "summary", "label"],
};

/// The field with the text: the stated one, else the first common name there is, else the only field with words in it.
/// `taken` names fields that are something else.
pub fn text_field(dataset: &Dataset, stated: Option<&str>, taken: &[&str]) -> Result<ChosenField, DataError> {
    if let Some(chosen) = stated_or_common(dataset, &TEXT, stated, taken)? {
        return Ok(chosen);
    }
    let is_label = |name: &str| LABEL.common_names.iter().any(|common| common.eq_ignore_ascii_case(name));
    let mut with_words = Vec::new();
    for (idx, name) in fields_beside(dataset, taken) {
        if !is_label(name) && has_words(dataset, idx) {
            with_words.push((idx, name));
        }
    }
    match with_words.as_slice() {
        [] => Err(no_guess(dataset, &TEXT)),
        [(idx, name)] => Ok(ChosenField { idx: *idx, name: (*name).to_owned(), guessed: true }),
        several => Err(ambiguous(dataset, &TEXT, several)),
    }
}

/// The field with the label of a classification: the stated one, else the first common name there is.
pub fn label_field(
    dataset: &Dataset,
    stated: Option<&str>,
    taken: &[&str],
) -> Result<ChosenField, DataError> {
    stated_or_common(dataset, &LABEL, stated, taken)?.ok_or_else(|| no_guess(dataset, &LABEL))
}

/// The field with the text to be generated: the stated one, else the first common name there is.
pub fn target_field(
    dataset: &Dataset,
    stated: Option<&str>,
    taken: &[&str],
) -> Result<ChosenField, DataError> {
    stated_or_common(dataset, &TARGET, stated, taken)?.ok_or_else(|| no_guess(dataset, &TARGET))
}

/// The field for each slot of the template: the one of its name. `{text}` means the text field, stated or guessed, and
/// so the field "text" where there is one and no other is stated. Data that is bare texts fills any only slot.
pub fn slot_fields(
    template: &Template,
    dataset: &Dataset,
    text_field_stated: Option<&str>,
) -> Result<SlotFields, DataError> {
    let slots: Vec<&str> = template.slots().collect();
    let mut fields = Vec::with_capacity(slots.len());
    let mut guessed = None;
    for slot in &slots {
        let idx = match (*slot, dataset.field(slot)) {
            (TEXT_SLOT, _) => {
                let taken: Vec<&str> = slots.iter().copied().filter(|slot| *slot != TEXT_SLOT).collect();
                let chosen = text_field(dataset, text_field_stated, &taken)?;
                guessed = (chosen.guessed && chosen.name != TEXT_SLOT).then_some(chosen.name);
                chosen.idx
            }
            (_, Some(idx)) => idx,
            (_, None) if slots.len() == 1 && is_bare_texts(dataset) => FieldIdx(0),
            (name, None) => dataset.require(name)?,
        };
        fields.push(idx);
    }
    Ok(SlotFields { fields, guessed })
}

/// Every row's values of the template's slots, in their order, space around them taken off.
pub fn slot_values<'d>(
    template: &Template,
    dataset: &'d Dataset,
    text_field_stated: Option<&str>,
) -> Result<Vec<Vec<&'d str>>, DataError> {
    let fields = slot_fields(template, dataset, text_field_stated)?.fields;
    let values = |row| fields.iter().map(|&field| dataset.text(row, field).map(str::trim)).collect();
    (0..dataset.n()).map(values).collect()
}

/// The slot that stands for the text field, whatever that is called.
const TEXT_SLOT: &str = "text";

fn is_bare_texts(dataset: &Dataset) -> bool {
    dataset.path.is_none() && dataset.fields == [TEXT_SLOT]
}

fn stated_or_common(
    dataset: &Dataset,
    role: &Role,
    stated: Option<&str>,
    taken: &[&str],
) -> Result<Option<ChosenField>, DataError> {
    if let Some(name) = stated {
        return Ok(Some(ChosenField { idx: dataset.require(name)?, name: name.to_owned(), guessed: false }));
    }
    for common in role.common_names {
        let alike: Vec<_> =
            fields_beside(dataset, taken).filter(|(_, name)| name.eq_ignore_ascii_case(common)).collect();
        // Among names that differ only in capitals, the one spelt as usual is meant.
        let meant =
            if alike.len() > 1 { alike.iter().find(|(_, name)| name == common) } else { alike.first() };
        match meant {
            Some((idx, name)) => {
                return Ok(Some(ChosenField { idx: *idx, name: (*name).to_owned(), guessed: true }));
            }
            None if alike.is_empty() => {}
            None => return Err(ambiguous(dataset, role, &alike)),
        }
    }
    Ok(None)
}

fn fields_beside<'a>(dataset: &'a Dataset, taken: &'a [&str]) -> impl Iterator<Item = (FieldIdx, &'a str)> {
    let all = dataset.fields.iter().enumerate().map(|(idx, name)| (FieldIdx(idx), name.as_str()));
    all.filter(move |(_, name)| !taken.contains(name))
}

/// Whether any value of the field is more than a number or a truth value.
fn has_words(dataset: &Dataset, field: FieldIdx) -> bool {
    dataset.rows.iter().flat_map(|row| &row.cells).any(|(idx, cell)| match cell {
        Cell::Text(text) => {
            *idx == field
                && !text.trim().is_empty()
                && text.parse::<f64>().is_err()
                && text.parse::<bool>().is_err()
        }
        Cell::Null | Cell::Nested(_) => false,
    })
}

fn no_guess(dataset: &Dataset, role: &Role) -> DataError {
    DataError::NoGuess {
        origin: dataset.origin(),
        role: role.name,
        flag: role.flag,
        known: listed(&dataset.fields),
    }
}

fn ambiguous(dataset: &Dataset, role: &Role, candidates: &[(FieldIdx, &str)]) -> DataError {
    DataError::AmbiguousGuess {
        origin: dataset.origin(),
        role: role.name,
        flag: role.flag,
        candidates: listed(candidates.iter().map(|(_, name)| name)),
        known: listed(&dataset.fields),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn csv(text: &str) -> Dataset {
        Dataset::from_bytes(text.as_bytes(), Path::new("d.csv")).unwrap()
    }

    #[test]
    fn common_names_are_found_in_their_order_whatever_their_capitals() {
        let data = csv("id,Review,title,Sentiment\n1,good film,x,positive\n");
        assert_eq!(text_field(&data, None, &[]).unwrap().name, "Review");
        let label = label_field(&data, None, &[]).unwrap();
        assert_eq!((label.name.as_str(), label.guessed), ("Sentiment", true));
        let stated = text_field(&data, Some("title"), &[]).unwrap();
        assert_eq!((stated.name.as_str(), stated.guessed), ("title", false));
        assert!(
            text_field(&data, Some("Title"), &[]).unwrap_err().to_string().contains("did you mean \"title\"")
        );
    }

    #[test]
    fn the_only_field_with_words_is_the_text() {
        let data = csv("id,headline,label,ok\n1,Rain in Spain,World,true\n2,17,Sports,false\n");
        assert_eq!(text_field(&data, None, &[]).unwrap().name, "headline");
        let data = csv("headline,summary,mark\nRain in Spain,It rains,World\n");
        let message = text_field(&data, None, &["mark"]).unwrap_err().to_string();
        assert!(
            message.contains("any of the fields \"headline\", \"summary\": name it with --text-field"),
            "{message}"
        );
        assert_eq!(text_field(&data, None, &["mark", "summary"]).unwrap().name, "headline");
    }

    #[test]
    fn no_guess_names_the_flag_and_the_fields() {
        let data = csv("a,b\n1,2\n");
        let message = label_field(&data, None, &[]).unwrap_err().to_string();
        assert_eq!(
            message,
            "d.csv: which field is the label? name it with --label-field; the fields are: \"a\", \"b\""
        );
        assert!(text_field(&data, None, &[]).unwrap_err().to_string().contains("--text-field"));
        assert!(target_field(&data, None, &[]).unwrap_err().to_string().contains("--target-field"));
        let data = csv("Label,LABEL\nx,y\n");
        assert!(label_field(&data, None, &[]).unwrap_err().to_string().contains("could be any of"));
        assert_eq!(label_field(&csv("Label,label\nx,y\n"), None, &[]).unwrap().name, "label");
    }

    #[test]
    fn the_text_slot_is_the_text_field_and_other_slots_are_fields() {
        let data = csv("review,text,stars\ngood,a title,5\n");
        let names = |template: &str, stated| {
            let slots = slot_fields(&Template::parse(template).unwrap(), &data, stated).unwrap();
            let names: Vec<_> = slots.fields.iter().map(|&idx| data.field_name(idx).to_owned()).collect();
            (names, slots.guessed)
        };
        assert_eq!(names("{text}", None), (vec!["text".into()], None));
        assert_eq!(names("{text}", Some("review")), (vec!["review".into()], None));
        assert_eq!(names("{stars}: {review}", None), (vec!["stars".into(), "review".into()], None));
        let data = csv("Sentence,label\na,x\n");
        let slots = slot_fields(&Template::parse("{text}").unwrap(), &data, None).unwrap();
        assert_eq!(slots.guessed.as_deref(), Some("Sentence"));
        let error = slot_fields(&Template::parse("{sentence}").unwrap(), &data, None).unwrap_err();
        assert!(error.to_string().contains("did you mean \"Sentence\""));
    }

    #[test]
    fn bare_texts_fill_an_only_slot() {
        let data = Dataset::from_texts(vec!["a".into()]).unwrap();
        assert!(slot_fields(&Template::parse("{review} so {review}").unwrap(), &data, None).is_ok());
        assert!(slot_fields(&Template::parse("{premise} {hypothesis}").unwrap(), &data, None).is_err());
    }
}
