//! Tables of labels that stay readable with hundreds of them.

use foreword::display::{count, in_a_line, percent};
use foreword::{Confusion, Verbalizer};

use crate::commands::classify::ABSTAINED;
use crate::printer::Table;

/// Maximum number of labels in a table with a row for each.
const MOST_ROWS: usize = 20;
/// Number of labels or confusions shown if there are more.
const SHOWN: usize = 10;
/// Maximum number of labels in a confusion matrix.
const MOST_COLUMNS: usize = 10;

/// Each label's number of training examples, if these are given with the name of the split, and its precision, recall and F1 for each of these classifiers on
/// the same examples. With many labels, only those that the last classifier is worst at.
pub(crate) fn labels_table(
    labels: &Verbalizer,
    train: Option<(&[usize], &str)>,
    rows: &[(&str, &Confusion)],
) -> String {
    let of =
        |what: &str, name: &str| if name.is_empty() { what.to_owned() } else { format!("{what} {name}") };
    let scores =
        rows.iter().flat_map(|(name, _)| [of("precision", name), of("recall", name), of("F1", name)]);
    let examples = train.map_or_else(|| "examples".to_owned(), |(_, split)| format!("{split} examples"));
    let headings = std::iter::once("label".to_owned()).chain(train.map(|_| "training examples".to_owned()));
    let mut table = Table::new(headings.chain([examples]).chain(scores));
    let (shown, note) = shown(labels, rows);
    let cell = |score: Option<f64>| score.map_or_else(|| "–".to_owned(), |score| format!("{score:.3}"));
    for label in shown {
        let mut cells = vec![labels.names()[label].clone()];
        cells.extend(
            train.map(|(train, _)| count(train.iter().filter(|&&truth| truth == label).count() as u64)),
        );
        cells.push(count(rows.first().map_or(0, |(_, given)| given.label(label).n)));
        for (_, given) in rows {
            let counts = given.label(label);
            cells.extend([counts.precision(), counts.recall(), counts.f1()].map(cell));
        }
        table.row(cells);
    }
    format!("{note}{table}")
}

/// The labels to show, and a line that says which.
fn shown(labels: &Verbalizer, rows: &[(&str, &Confusion)]) -> (Vec<usize>, String) {
    let mut all: Vec<usize> = (0..labels.n()).collect();
    let Some((_, given)) = rows.last().filter(|_| labels.n() > MOST_ROWS) else {
        return (all, String::new());
    };
    let f1 = |label: usize| given.label(label).f1().unwrap_or(f64::INFINITY);
    all.sort_by(|&a, &b| f1(a).total_cmp(&f1(b)).then(given.label(b).n.cmp(&given.label(a).n)));
    all.truncate(SHOWN);
    let n = count(labels.n() as u64);
    (all, format!("the {SHOWN} of {n} labels with the lowest F1:\n"))
}

/// The confusion matrix: true labels in rows, predicted labels in columns. With many labels, the most frequent confusions.
pub(crate) fn confusion(given: &Confusion, labels: &Verbalizer) -> String {
    let names = labels.names();
    if names.len() <= MOST_COLUMNS {
        let headings = names.iter().map(|name| format!("predicted {name}"));
        let mut table = Table::new(std::iter::once(String::new()).chain(headings));
        for (name, row) in names.iter().zip(&given.counts) {
            table.row(std::iter::once(format!("true {name}")).chain(row.iter().map(|&n| count(n))));
        }
        return table.to_string();
    }
    let rows = given.counts.iter().enumerate();
    let cells =
        rows.flat_map(|(truth, row)| row.iter().enumerate().map(move |(label, &n)| (n, truth, label)));
    let mut wrong: Vec<(u64, usize, usize)> =
        cells.filter(|&(n, truth, label)| n > 0 && truth != label).collect();
    if wrong.is_empty() {
        return "no label was confused with another".to_owned();
    }
    wrong.sort_by(|a, b| b.0.cmp(&a.0).then(a.cmp(b)));
    let mut table = Table::new(["true label", "predicted label", "examples"]);
    for &(n, truth, label) in wrong.iter().take(SHOWN) {
        table.row([in_a_line(&names[truth]), in_a_line(&names[label]), count(n)]);
    }
    let n = count(wrong.len() as u64);
    let which =
        if wrong.len() > SHOWN { format!("the {SHOWN} most frequent of {n}") } else { "all".to_owned() };
    format!("{which} confusions:\n{table}")
}

/// How often each label was given, and how often none. With many labels, the most frequent.
pub(crate) fn given(labels: &Verbalizer, counts: &[u64], n_abstained: u64) -> String {
    let n = (counts.iter().sum::<u64>() + n_abstained).max(1);
    let mut table = Table::new(["label", "texts", "share"]);
    let mut all: Vec<usize> = (0..labels.n()).collect();
    let mut note = String::new();
    if labels.n() > MOST_ROWS {
        all.sort_by(|&a, &b| counts[b].cmp(&counts[a]).then(a.cmp(&b)));
        all.truncate(SHOWN);
        note = format!("the {SHOWN} most frequent of {} labels:\n", count(labels.n() as u64));
    }
    let names = all.into_iter().map(|label| (labels.names()[label].as_str(), counts[label]));
    for (name, count_of) in names.chain((n_abstained > 0).then_some((ABSTAINED, n_abstained))) {
        table.row([name.to_owned(), count(count_of), percent(count_of as f64 / n as f64)]);
    }
    format!("{note}{table}")
}
