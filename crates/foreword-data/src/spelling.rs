//! Similar names, for "did you mean".

/// The candidate closest to `name`, if one is close enough.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.chars().flat_map(char::to_lowercase).collect();
    // Two letters swapped are two edits: "lable" should find "label".
    let most_edits = name.len().div_ceil(3);
    candidates
        .into_iter()
        .map(|candidate| (n_edits(&name, candidate), candidate))
        .filter(|&(n_edits, candidate)| n_edits <= most_edits && n_edits < candidate.chars().count())
        .min_by_key(|&(n_edits, candidate)| (n_edits, candidate.chars().count().abs_diff(name.len())))
        .map(|(_, candidate)| candidate)
}

/// " (did you mean …?)" if there is a similar candidate, else empty.
pub fn hint<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"))
}

/// Levenshtein distance, ignoring case. Keeps one row of the table at a time.
fn n_edits(name: &[char], candidate: &str) -> usize {
    let mut row: Vec<usize> = (0..=name.len()).collect();
    for (above, character) in candidate.chars().flat_map(char::to_lowercase).enumerate() {
        let mut diagonal = above;
        let mut left = above + 1;
        row[0] = left;
        for (cell, &other) in row[1..].iter_mut().zip(name) {
            let changed = diagonal + usize::from(character != other);
            diagonal = *cell;
            left = changed.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
    }
    row[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_found_and_a_different_word_is_not() {
        let fields = ["text", "label", "id"];
        assert_eq!(nearest("Text", fields), Some("text"));
        assert_eq!(nearest("lable", ["text", "labels", "label"]), Some("label"));
        assert_eq!(nearest("labl", fields), Some("label"));
        assert_eq!(nearest("sentiment", ["sentimant", "text"]), Some("sentimant"));
        assert_eq!(nearest("x", fields), None);
        assert_eq!(nearest("", fields), None);
        assert_eq!(hint("texts", fields), " (did you mean \"text\"?)");
    }
}
