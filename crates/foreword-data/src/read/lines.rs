//! Texts without fields: one per line, alone or with the labels of fastText.

use super::super::fields::is_common_name;
use super::super::{DataError, Row};
use super::source::Source;
use super::{Table, separated};

/// Before each label of a line of fastText.
const LABEL: &str = "__label__";

/// The lines with their numbers. Blank lines are skipped; lines may end with carriage returns alone.
fn lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let end = if text.contains('\n') { '\n' } else { '\r' };
    let lines = (1..).zip(text.split(end)).map(|(line, text)| (line, text.trim_end_matches('\r')));
    lines.filter(|(_, text)| !text.trim().is_empty())
}

/// Whether lines are evidently texts and not cells: the first one has several words and no common name of a field, none has a
/// tab, and what could be delimiters is punctuation, with a space after it.
pub(super) fn is_prose(text: &str) -> bool {
    /// Maximum number of lines that are looked at.
    const LOOKED_AT: usize = 1000;
    /// Of the marks, at most one in this many may be followed by something else than a space.
    const TIGHT: usize = 10;
    let Some((_, first)) = lines(text).next() else { return false };
    if !separated::is_text(first)
        || first.split(['\t', ',', ';', '|']).any(|cell| is_common_name(cell.trim()))
    {
        return false;
    }
    let (mut n_marks, mut n_tight) = (0, 0);
    for (_, line) in lines(text).take(LOOKED_AT) {
        if line.contains(['\t', '|']) {
            return false;
        }
        for (at, _) in line.match_indices([',', ';']) {
            // A closing quotation mark may stand between; an opening one begins a cell.
            let after = line[at + 1..].trim_start_matches(['"', '\'', ')', '”', '’']).chars().next();
            n_marks += 1;
            n_tight += usize::from(!after.is_none_or(char::is_whitespace));
        }
    }
    n_marks > 0 && TIGHT * n_tight <= n_marks
}

/// One text per line.
pub(super) fn parse_texts(text: &str, source: &mut Source<'_>) -> Table {
    source.say(format!(
        "{}: read as one text per line, in the field \"text\" (--delimiter CHARACTER: as cells)",
        source.name()
    ));
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
    fn prose_has_spaces_after_its_commas() {
        for prose in [
            "I loved it, really, all of it\nDull.\nLong, loud, and grim\n",
            "A warm film, and a funny one.\nTwo hours; nothing\n",
            "\"A gem,\" she said, and left.\nDull.\n",
            "It cost 1,000 dollars, or so, I think, and more, and more, and yet, and so, and on, and on, and on, and on\n",
        ] {
            assert!(is_prose(prose), "{prose}");
        }
        for cells in [
            "text,label\nfine, really,good\n",
            "the text of it, label\na, b\n",
            "a long film with songs,positive\na short one,negative\n",
            "a long film with songs\tand dances, too\n",
            "great film\ndull, long\n",
            "\"3\",\"Oil prices rise\",\"Crude went up on Monday, traders said.\"\n",
            "3,\"Oil prices rise\",\"Crude, gas, and coal, all of them, went up, traders said.\"\n",
            "",
        ] {
            assert!(!is_prose(cells), "{cells}");
        }
    }

    #[test]
    fn labels_stand_at_either_end() {
        assert_eq!(labels_of("__label__a some text"), (vec!["a"], "some text"));
        assert_eq!(labels_of("__label__a\t__label__b  some text"), (vec!["a", "b"], "some text"));
        assert_eq!(labels_of("some text __label__a"), (vec!["a"], "some text"));
        assert_eq!(labels_of("some __label__a text"), (vec![], "some __label__a text"));
        assert_eq!(labels_of("__label__a"), (vec!["a"], ""));
    }
}
