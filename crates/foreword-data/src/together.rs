//! Fields that only together make one text, such as a premise and its hypothesis.

use super::Dataset;
use super::fields::{label_field, target_field};
use foreword_format::TaskKind;

/// Fields that belong together in common data sets: their names, in reading order, and whether an example may lack one.
const TOGETHER: &[&[(&str, bool)]] = &[
    &[("instruction", false), ("input", true)],
    &[("instruction", false), ("context", true)],
    &[("premise", false), ("hypothesis", false)],
    &[("sentence1", false), ("sentence2", false)],
    &[("sentence_1", false), ("sentence_2", false)],
    &[("sentence_a", false), ("sentence_b", false)],
    &[("text1", false), ("text2", false)],
    &[("text_1", false), ("text_2", false)],
    &[("text_a", false), ("text_b", false)],
    &[("question1", false), ("question2", false)],
    &[("question_1", false), ("question_2", false)],
    &[("context", false), ("question", false)],
    &[("passage", false), ("question", false)],
    &[("article", false), ("question", false)],
    &[("question", false), ("sentence", false)],
    &[("query", false), ("passage", false)],
    &[("query", false), ("document", false)],
    &[("claim", false), ("evidence", false)],
    &[("question", false), ("answer", false)],
];

/// The slots of fields that belong together, one per line, as in "{premise}\n{hypothesis}"; `None` if the data has no such
/// fields, or if one of them is the label or target. `truth`: the field of the label or target, if set.
pub fn fields_together(dataset: &Dataset, kind: TaskKind, truth: Option<&str>) -> Option<String> {
    let truth = match kind {
        TaskKind::Classification => label_field(dataset, truth, &[]),
        TaskKind::Generation => target_field(dataset, truth, &[]),
    };
    // Texts to be classified need no labels.
    let truth = truth.ok().map(|field| field.name);
    let of_name = |name: &str| {
        let mut alike = dataset.fields().iter().filter(|field| field.eq_ignore_ascii_case(name));
        let field = alike.next().filter(|field| Some(*field) != truth.as_ref())?;
        alike.next().is_none().then_some(field)
    };
    let slots = |together: &&[(&str, bool)]| {
        let slot = |&(name, optional): &(&str, bool)| {
            let mark = if optional { "?" } else { "" };
            Some(format!("{{{mark}{}}}", of_name(name)?))
        };
        Some(together.iter().map(slot).collect::<Option<Vec<_>>>()?.join("\n"))
    };
    TOGETHER.iter().find_map(slots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[track_caller]
    fn check(header: &str, kind: TaskKind, truth: Option<&str>, expected: Option<&str>) {
        let row = "a".to_owned() + &",a".repeat(header.matches(',').count());
        let data = Dataset::from_bytes(format!("{header}\n{row}\n").as_bytes(), Path::new("d.csv")).unwrap();
        assert_eq!(fields_together(&data, kind, truth).as_deref(), expected, "{header}");
    }

    #[test]
    fn fields_that_need_each_other_are_read_together() {
        use TaskKind::{Classification, Generation};
        check("premise,hypothesis,label", Classification, None, Some("{premise}\n{hypothesis}"));
        check("id,Sentence1,Sentence2,label", Classification, None, Some("{Sentence1}\n{Sentence2}"));
        check("question,passage,answer", Classification, None, Some("{passage}\n{question}"));
        check("question,sentence,label", Classification, None, Some("{question}\n{sentence}"));
        check("question,answer,label", Classification, None, Some("{question}\n{answer}"));
        check("question,context,answer", Generation, None, Some("{context}\n{question}"));
        check("instruction,input,output,text", Generation, None, Some("{instruction}\n{?input}"));
        check("instruction,input,output", Classification, None, Some("{instruction}\n{?input}"));
        check("instruction,context,response", Generation, None, Some("{instruction}\n{?context}"));
    }

    #[test]
    fn a_text_of_one_field_needs_no_other() {
        use TaskKind::{Classification, Generation};
        for header in
            ["text,label", "question,answer", "premise,label", "instruction,output", "text1,text,label"]
        {
            check(header, Classification, None, None);
        }
        check("question,answer", Generation, None, None);
        check("premise,hypothesis", Generation, Some("hypothesis"), None);
        check("Premise,premise,hypothesis,label", Classification, None, None);
    }
}
