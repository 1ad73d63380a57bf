//! The roles of fields: set by the user, or guessed from common names.

use super::labels::canonical;
use super::{Cell, DataError, Dataset, FieldIdx, Location, listed};
use crate::template::Template;
use foreword_format::digest::Digest;
use std::fmt;

/// A field with its role in the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenField {
    /// Its index in this data set.
    pub idx: FieldIdx,
    /// Its name.
    pub name: String,
    /// Whether it was guessed, which should be reported to the user.
    pub guessed: bool,
}

/// The fields that fill a template's slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFields {
    /// One field for each of the template's slots, in order.
    pub fields: Vec<FieldIdx>,
    /// For each, whether it may be missing in an example.
    optional: Vec<bool>,
    /// The field guessed for `{text}`, which should be reported to the user.
    pub guessed: Option<String>,
}

impl SlotFields {
    /// The values of one row, in the order of the slots; a missing optional field is empty.
    pub fn values<'d>(&self, dataset: &'d Dataset, row: usize) -> Result<Vec<&'d str>, DataError> {
        let value = |(&field, &optional): (&FieldIdx, &bool)| match dataset.text(row, field) {
            Err(DataError::Absent { .. } | DataError::Missing { .. }) if optional => Ok(""),
            value => value,
        };
        self.fields.iter().zip(&self.optional).map(value).collect()
    }
}

/// An example that lacks a value that is needed.
#[derive(Clone, Debug, PartialEq)]
pub struct Incomplete {
    /// Its row.
    pub row: usize,
    /// Its location.
    pub location: Location,
    /// What it lacks.
    pub reason: String,
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.location.within(), self.reason)
    }
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
        "text", "sentence", "review", "content", "message", "sms", "tweet", "question", "input", "user",
        "prompt", "document", "body", "comment", "title",
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
    common_names: &["target", "output", "completion", "assistant", "answer", "response", "summary", "label"],
};

/// The field with the text: as set, else the first common name present, else the only field with words. `taken` names
/// fields with another role.
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

/// The field with the label of a classification: as set, else the first common name present.
pub fn label_field(
    dataset: &Dataset,
    stated: Option<&str>,
    taken: &[&str],
) -> Result<ChosenField, DataError> {
    stated_or_common(dataset, &LABEL, stated, taken)?.ok_or_else(|| no_guess(dataset, &LABEL))
}

/// The field with the target text: as set, else the first common name present.
pub fn target_field(
    dataset: &Dataset,
    stated: Option<&str>,
    taken: &[&str],
) -> Result<ChosenField, DataError> {
    stated_or_common(dataset, &TARGET, stated, taken)?.ok_or_else(|| no_guess(dataset, &TARGET))
}

/// The field for each slot of the template: the one with its name. `{text}` is the text field, as set or guessed, and so
/// the field "text" if it exists and no other is set. Data of plain texts fills the only required slot.
pub fn slot_fields(
    template: &Template,
    dataset: &Dataset,
    text_field_stated: Option<&str>,
) -> Result<SlotFields, DataError> {
    let slots: Vec<&str> = template.slots().collect();
    let mut fields = Vec::with_capacity(slots.len());
    let mut guessed = None;
    let optional: Vec<bool> = (0..slots.len()).map(|slot| template.is_optional(slot)).collect();
    let fits_bare = is_bare_texts(dataset) && template.required().count() == 1;
    for (slot, &optional) in slots.iter().zip(&optional) {
        let idx = match (*slot, dataset.field(slot)) {
            (TEXT_SLOT, _) if !optional => {
                let taken: Vec<&str> = slots.iter().copied().filter(|slot| *slot != TEXT_SLOT).collect();
                let chosen = text_field(dataset, text_field_stated, &taken)?;
                guessed = (chosen.guessed && chosen.name != TEXT_SLOT).then_some(chosen.name);
                chosen.idx
            }
            (_, Some(idx)) => idx,
            (_, None) if optional => NOWHERE,
            (_, None) if fits_bare => FieldIdx(0),
            (name, None) => dataset.require(name)?,
        };
        fields.push(idx);
    }
    Ok(SlotFields { fields, optional, guessed })
}

/// The examples that lack a value in a required slot or a label or target, or have no text in one, with the reason. `truth`:
/// the field with the label or target; `None` for texts to be answered.
#[must_use]
pub fn incomplete(dataset: &Dataset, slots: &SlotFields, truth: Option<FieldIdx>) -> Vec<Incomplete> {
    let found = (0..dataset.n()).filter_map(|row| Some((row, lack(dataset, slots, truth, row)?)));
    found.map(|(row, reason)| Incomplete { row, location: dataset.location(row), reason }).collect()
}

/// What a row lacks, if anything.
fn lack(dataset: &Dataset, slots: &SlotFields, truth: Option<FieldIdx>, row: usize) -> Option<String> {
    let is_blank = |text: &str| text.trim().is_empty();
    let blank = |texts: &[&str]| {
        let mut slots = slots.fields.iter().zip(&slots.optional).zip(texts);
        slots.find(|((_, optional), text)| !**optional && is_blank(text)).map(|((field, _), _)| *field)
    };
    let values = slots.values(dataset, row).and_then(|texts| {
        let truth = truth.map(|truth| dataset.text(row, truth)).transpose()?;
        Ok((texts, truth))
    });
    match values {
        Err(DataError::Missing { field, .. } | DataError::Absent { field, .. }) => {
            Some(format!("no value in {field:?}"))
        }
        Err(error) => Some(dataset.location(row).reason(&error)),
        Ok((texts, truth)) => match blank(&texts) {
            Some(field) => Some(format!("no text in {:?}", dataset.field_name(field))),
            None => truth.is_some_and(is_blank).then(|| "no label or target".to_owned()),
        },
    }
}

/// Every row's values for the template's slots, in order, without surrounding whitespace.
pub fn slot_values<'d>(
    template: &Template,
    dataset: &'d Dataset,
    text_field_stated: Option<&str>,
) -> Result<Vec<Vec<&'d str>>, DataError> {
    let slots = slot_fields(template, dataset, text_field_stated)?;
    let values = |row| Ok(slots.values(dataset, row)?.into_iter().map(str::trim).collect());
    (0..dataset.n()).map(values).collect()
}

/// `sha256:` and the SHA-256 of the examples in use: for each, in order, the values of the template's slots and the label
/// or target, as a JSON array on a line. The same examples give the same digest, whatever file they come from.
pub fn examples_digest(
    template: &Template,
    dataset: &Dataset,
    text_field_stated: Option<&str>,
    truth: FieldIdx,
    is_label: bool,
) -> Result<String, DataError> {
    let slots = slot_fields(template, dataset, text_field_stated)?;
    let mut digest = Digest::new();
    for row in 0..dataset.n() {
        let mut values = slots.values(dataset, row)?;
        let truth = dataset.text(row, truth)?;
        values.push(if is_label { canonical(truth) } else { truth });
        digest.update(format!("{}\n", serde_json::json!(values)).as_bytes());
    }
    Ok(digest.finish())
}

/// The field whose texts are to be generated, if the data is evidently of that kind: instructions or conversations with
/// their answers, and no labels.
#[must_use]
pub fn target_of_generation(dataset: &Dataset) -> Option<&str> {
    /// The names of a label that are no names of a target.
    const LABELS: [&str; 8] = ["label", "labels", "class", "category", "sentiment", "intent", "topic", "y"];
    let has = |name: &str| dataset.fields.iter().any(|field| field == name);
    let answer = |before: &str, after: &'static str| (has(before) && has(after)).then_some(after);
    let pairs = [
        ("user", "assistant"),
        ("prompt", "completion"),
        ("prompt", "response"),
        ("instruction", "output"),
        ("instruction", "response"),
    ];
    let target = pairs.into_iter().find_map(|(before, after)| answer(before, after))?;
    (!LABELS.iter().any(|label| has(label))).then_some(target)
}

/// Unused fields that seem to contain something readable: texts of several words, in most examples with any, or lists and
/// objects, which can't be used.
pub fn unused<'d>(dataset: &'d Dataset, used: &[&str]) -> Vec<&'d str> {
    /// Maximum number of examples to look at.
    const MOST: usize = 1000;
    let is_readable = |idx: FieldIdx| {
        let (mut n, mut n_readable) = (0, 0);
        for (at, cell) in dataset.rows.iter().take(MOST).flat_map(|row| &row.cells) {
            let readable = match cell {
                Cell::Nested(_) => true,
                cell => match cell.text().map(str::trim) {
                    None | Some("") => continue,
                    Some(text) => text.contains(char::is_whitespace),
                },
            };
            if *at == idx {
                n += 1;
                n_readable += usize::from(readable);
            }
        }
        n_readable > 0 && 2 * n_readable >= n
    };
    let all = dataset.fields.iter().map(String::as_str).enumerate();
    let unread = all.filter(|(idx, name)| {
        let idx = FieldIdx(*idx);
        // What is made of a conversation stands for it.
        !used.contains(name) && !dataset.about.sources.contains(&idx) && is_readable(idx)
    });
    unread.map(|(_, name)| name).collect()
}

/// The fields of required slots that contain only numbers or booleans in all examples, and no words.
pub fn without_words<'d>(dataset: &'d Dataset, slots: &SlotFields) -> Vec<&'d str> {
    let required = slots.fields.iter().zip(&slots.optional).filter(|(_, optional)| !**optional);
    let is_bare = |idx: FieldIdx| {
        let mut texts = dataset.rows.iter().flat_map(|row| &row.cells).filter(|(at, _)| *at == idx);
        texts.any(|(_, cell)| cell.text().is_some_and(|text| !text.trim().is_empty()))
    };
    required
        .filter(|(idx, _)| is_bare(**idx) && !has_words(dataset, **idx))
        .filter_map(|(idx, _)| dataset.fields.get(idx.0).map(String::as_str))
        .collect()
}

/// The index for the field of an optional slot that the data does not have.
const NOWHERE: FieldIdx = FieldIdx(usize::MAX);

/// The slot of the text field, whatever the field's name.
const TEXT_SLOT: &str = "text";

/// Whether a field of this name has a common role.
pub(crate) fn is_common_name(name: &str) -> bool {
    let names = [&TEXT, &LABEL, &TARGET].into_iter().flat_map(|role| role.common_names);
    names.into_iter().any(|common| common.eq_ignore_ascii_case(name))
}

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
        // Among names that differ only in case, the one with the usual spelling is meant.
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

/// Whether any value of the field is more than a number or a boolean.
fn has_words(dataset: &Dataset, field: FieldIdx) -> bool {
    dataset.rows.iter().flat_map(|row| &row.cells).any(|(idx, cell)| match cell {
        Cell::Text(text) => {
            *idx == field
                && !text.trim().is_empty()
                && text.parse::<f64>().is_err()
                && text.parse::<bool>().is_err()
        }
        _ => false,
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

/// The error for several possible fields. Several texts may all be needed.
fn ambiguous(dataset: &Dataset, role: &Role, candidates: &[(FieldIdx, &str)]) -> DataError {
    DataError::AmbiguousGuess {
        origin: dataset.origin(),
        role: role.name,
        flag: if role.name == TEXT.name {
            let slots: Vec<String> = candidates.iter().map(|(_, name)| format!("{{{name}}}")).collect();
            let slots = slots.join("\\n");
            format!("{}, or use several with --template '{slots}\\nAnswer:'", role.flag)
        } else {
            role.flag.to_owned()
        },
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
            message.contains(
                "any of the fields \"headline\", \"summary\": name it with --text-field, or use several"
            ),
            "{message}"
        );
        assert!(message.contains("--template '{headline}\\n{summary}\\nAnswer:'"), "{message}");
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
    fn optional_slots_may_lack_their_field() {
        let data = Dataset::from_bytes(
            b"{\"a\":\"x\",\"b\":null}\n{\"a\":\"y\"}\n{\"a\":\"z\",\"b\":\"w\"}\n{\"b\":\"v\"}\n",
            Path::new("d.jsonl"),
        )
        .unwrap();
        let slots = slot_fields(&Template::parse("{a}{?b}{?c}").unwrap(), &data, None).unwrap();
        let values: Vec<_> = (0..3).map(|row| slots.values(&data, row).unwrap()).collect();
        assert_eq!(values, [["x", "", ""], ["y", "", ""], ["z", "w", ""]]);
        assert!(slots.values(&data, 3).unwrap_err().to_string().contains("line 4: no field \"a\""));
    }

    #[test]
    fn what_is_not_read_is_named() {
        let text = "{\"id\":\"a1\",\"title\":\"Rain in Spain\",\"text\":\"It rains.\",\"n\":1,\"choices\":[\"a\"],\"note\":null}\n";
        let data = Dataset::from_bytes(text.as_bytes(), Path::new("d.jsonl")).unwrap();
        assert_eq!(unused(&data, &["text"]), ["title", "choices"]);
        assert_eq!(unused(&data, &["title", "choices"]), ["text"]);
        let numbers = csv("text,b\n12,x y\n,z\n");
        let slots = |template| slot_fields(&Template::parse(template).unwrap(), &numbers, None).unwrap();
        assert_eq!(without_words(&numbers, &slots("{text} {b}")), ["text"]);
        assert!(without_words(&csv("text,b\n,x\n"), &slots("{text}")).is_empty());
    }

    #[test]
    fn digests_are_of_the_examples_as_they_are_used() {
        let template = Template::parse("{text}").unwrap();
        let of = |data: &Dataset| {
            examples_digest(&template, data, None, data.require("label").unwrap(), true).unwrap()
        };
        let data = csv("text,label,id\na,x,1\nb, y ,2\n");
        let json = "{\"id\":9,\"label\":\"x\",\"text\":\"a\"}\n{\"label\":\"y\",\"text\":\"b\"}";
        let json = Dataset::from_bytes(json.as_bytes(), Path::new("d.jsonl")).unwrap();
        assert_eq!(of(&data), of(&json), "another file, the same examples");
        let others = [
            data.take(&[0]),
            data.take(&[1, 0]),
            csv("text,label\na,x\nb,x\n"),
            csv("text,label\na,x\nB,y\n"),
        ];
        for other in others {
            assert_ne!(of(&data), of(&other));
        }
    }

    #[test]
    fn bare_texts_fill_an_only_slot() {
        let data = Dataset::from_texts(vec!["a".into()]).unwrap();
        for template in ["{review} so {review}", "{instruction}\n{?input}"] {
            assert!(slot_fields(&Template::parse(template).unwrap(), &data, None).is_ok());
        }
        assert!(slot_fields(&Template::parse("{premise} {hypothesis}").unwrap(), &data, None).is_err());
    }

    #[test]
    fn instructions_and_conversations_are_generated_unless_there_are_labels() {
        for (header, target) in [
            ("instruction,input,output", Some("output")),
            ("instruction,output,id", Some("output")),
            ("instruction,context,response,category", None),
            ("instruction,context,response", Some("response")),
            ("prompt,completion", Some("completion")),
            ("prompt,response", Some("response")),
            ("prompt,completion,label", None),
            ("system,user,assistant", Some("assistant")),
            ("text,output", None),
            ("text,label", None),
        ] {
            let row = "a".to_owned() + &",a".repeat(header.matches(',').count());
            let data =
                Dataset::from_bytes(format!("{header}\n{row}\n").as_bytes(), Path::new("d.csv")).unwrap();
            assert_eq!(target_of_generation(&data), target, "{header}");
        }
    }
}
