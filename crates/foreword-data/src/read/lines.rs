//! Texts without fields: one per line, alone or with the labels of fastText.

use super::super::{DataError, Row};
use super::Table;
use super::source::Source;

/// Before each label of a line of fastText.
const LABEL: &str = "__label__";

/// The lines with their numbers. Blank lines are skipped; lines may end with carriage returns alone.
fn lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let end = if text.contains('\n') { '\n' } else { '\r' };
    let lines = (1..).zip(text.split(end)).map(|(line, text)| (line, text.trim_end_matches('\r')));
    lines.filter(|(_, text)| !text.trim().is_empty())
}

/// One text per line.
pub(super) fn parse_texts(text: &str, source: &mut Source<'_>) -> Table {
    source.say(format!("{}: read as one text per line, in the field \"text\"", source.name()));
    let rows = lines(text).map(|(line, text)| Row::of_texts(line, vec![text.to_owned()]));
    Table::new(vec!["text".to_owned()], rows.collect())
}

/// Whether the first line has a label of fastText.
pub(super) fn is_fasttext(text: &str) -> bool {
    lines(text).next().is_some_and(|(_, first)| !labels_of(first.trim()).0.is_empty())
}

/// Lines as `__label__positive a fine film`.
pub(super) fn parse_fasttext(text: &str, source: &mut Source<'_>) -> Result<Table, DataError> {
    source.say(format!(
        "{}: read as fastText's format: {LABEL} before each label, in the fields \"text\" and \"label\"",
        source.name()
    ));
    let mut rows = Vec::new();
    for (line, text) in lines(text) {
        let (labels, text) = labels_of(text.trim());
        match labels.as_slice() {
            [label] => rows.push(Row::of_texts(line, vec![text.to_owned(), (*label).to_owned()])),
            labels => {
                let error = DataError::Labels { location: source.location(line), n: labels.len() };
                source.skip(line, error)?;
            }
        }
    }
    Ok(Table::new(vec!["text".to_owned(), "label".to_owned()], rows))
}

/// The labels at the beginning and at the end of a line, and the text between them.
fn labels_of(line: &str) -> (Vec<&str>, &str) {
    let (mut labels, mut rest) = (Vec::new(), line);
    while let Some(label) = rest.strip_prefix(LABEL) {
        let end = label.find(char::is_whitespace).unwrap_or(label.len());
        labels.push(&label[..end]);
        rest = label[end..].trim_start();
    }
    while let Some((before, last)) = rest.rsplit_once(char::is_whitespace) {
        let Some(label) = last.strip_prefix(LABEL) else { break };
        labels.push(label);
        rest = before.trim_end();
    }
    (labels, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_at_either_end() {
        assert_eq!(labels_of("__label__a some text"), (vec!["a"], "some text"));
        assert_eq!(labels_of("__label__a\t__label__b  some text"), (vec!["a", "b"], "some text"));
        assert_eq!(labels_of("some text __label__a"), (vec!["a"], "some text"));
        assert_eq!(labels_of("some __label__a text"), (vec![], "some __label__a text"));
        assert_eq!(labels_of("__label__a"), (vec!["a"], ""));
    }
}
