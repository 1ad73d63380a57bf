//! Scores of generated texts: exact match, ROUGE-L and BLEU, computed as in the common Python packages.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

/// Maximum n-gram length of BLEU.
const ORDERS: usize = 4;

/// Scores of generated texts against one reference each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextScores {
    /// Share of texts equal to the reference, ignoring surrounding whitespace.
    pub exact_match: f64,
    /// Mean ROUGE-L, from 0 to 1: see [`rouge_l`].
    pub rouge_l: f64,
    /// BLEU of all texts together, from 0 to 100: see [`bleu`].
    pub bleu: f64,
}

impl TextScores {
    /// Scores pairs of (generated, reference).
    #[must_use]
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        let n = pairs.len().max(1) as f64;
        let exact = pairs.iter().filter(|(text, wanted)| text.trim() == wanted.trim()).count();
        let rouge: f64 = pairs.iter().map(|(text, wanted)| rouge_l(text, wanted)).sum();
        Self { exact_match: exact as f64 / n, rouge_l: rouge / n, bleu: bleu(pairs) }
    }
}

/// F-measure of the longest common subsequence of words (Lin 2004), from 0 to 1. Words are runs of lower-case letters a to
/// z and digits, without stemming, as in the Python package rouge-score.
#[must_use]
pub fn rouge_l(text: &str, wanted: &str) -> f64 {
    let words = |text: &str| -> Vec<String> {
        let lower = text.to_lowercase();
        let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    let (text, wanted) = (words(text), words(wanted));
    let common = longest_common_subsequence(&text, &wanted) as f64;
    if common == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (common / text.len() as f64, common / wanted.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for a in a {
        let mut diagonal = 0;
        for (j, b) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if a == b { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

/// Corpus BLEU of pairs of (generated, reference), from 0 to 100 (Papineni et al. 2002): n-grams of up to four words,
/// tokenised as in mteval-v13a; for orders without a match, the precision is halved from order to order, as sacrebleu does
/// by default.
#[must_use]
pub fn bleu(pairs: &[(&str, &str)]) -> f64 {
    let (mut met, mut made) = ([0_u64; ORDERS], [0_u64; ORDERS]);
    let (mut length, mut wanted_length) = (0_u64, 0_u64);
    for (text, wanted) in pairs {
        let (text, wanted) = (words_13a(text), words_13a(wanted));
        length += text.len() as u64;
        wanted_length += wanted.len() as u64;
        for order in 1..=ORDERS {
            let there = n_grams(&wanted, order);
            for (n_gram, n) in n_grams(&text, order) {
                met[order - 1] += n.min(there.get(n_gram).copied().unwrap_or(0));
                made[order - 1] += n;
            }
        }
    }
    if met.iter().all(|&met| met == 0) {
        return 0.0;
    }
    let mut logs = 0.0;
    let mut halved = 1.0;
    for (&met, &made) in met.iter().zip(&made) {
        if made == 0 {
            return 0.0;
        }
        let precision = if met == 0 {
            halved *= 2.0;
            100.0 / (halved * made as f64)
        } else {
            100.0 * met as f64 / made as f64
        };
        logs += precision.ln();
    }
    let short = length < wanted_length;
    let penalty = if short { (1.0 - wanted_length as f64 / length as f64).exp() } else { 1.0 };
    penalty * (logs / ORDERS as f64).exp()
}

fn n_grams(words: &[String], order: usize) -> HashMap<&[String], u64> {
    let mut counts = HashMap::new();
    for n_gram in words.windows(order) {
        *counts.entry(n_gram).or_insert(0) += 1;
    }
    counts
}

/// Splits a text into words as mteval-v13a does.
fn words_13a(text: &str) -> Vec<String> {
    // The patterns are constants, and a test compiles them all.
    static CUTS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let cuts = [
            (r"([\{-\~\[-\` -\&\(-\+\:-@/])", " $1 "),
            (r"([^0-9])([\.,])", "$1 $2 "),
            (r"([\.,])([^0-9])", " $1 $2"),
            (r"([0-9])(-)", "$1 $2 "),
        ];
        cuts.into_iter().filter_map(|(pattern, with)| Some((Regex::new(pattern).ok()?, with))).collect()
    });
    let mut text = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        text = text.replace(entity, character);
    }
    text = format!(" {text} ");
    for (cut, with) in CUTS.iter() {
        text = cut.replace_all(&text, *with).into_owned();
    }
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Fixture {
        pairs: Vec<(String, String)>,
        rouge_l: Vec<f64>,
        corpora: Vec<Corpus>,
    }

    #[derive(serde::Deserialize)]
    struct Corpus {
        pairs: Vec<usize>,
        bleu: f64,
    }

    /// The scores of rouge-score and sacrebleu for the same texts, generated by `testdata/make_text_scores.py`.
    #[test]
    fn scores_agree_with_the_python_packages() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/golden/text_scores.json");
        let fixture: Fixture = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for ((text, wanted), expected) in fixture.pairs.iter().zip(&fixture.rouge_l) {
            let found = rouge_l(text, wanted);
            assert!((found - expected).abs() < 1e-9, "{text:?} for {wanted:?}: {found}, not {expected}");
        }
        assert_eq!(fixture.pairs.len(), fixture.rouge_l.len());
        assert!(fixture.corpora.len() > 10);
        for Corpus { pairs, bleu: expected } in fixture.corpora {
            let corpus: Vec<(&str, &str)> =
                pairs.iter().map(|&i| (fixture.pairs[i].0.as_str(), fixture.pairs[i].1.as_str())).collect();
            let found = bleu(&corpus);
            assert!((found - expected).abs() < 1e-6, "{pairs:?}: {found}, not {expected}");
        }
    }

    #[test]
    fn perfect_texts_have_perfect_scores_and_empty_ones_none() {
        let text = "There is a place in the city centre, Alimentum.";
        let scores = TextScores::of(&[(text, text), (" a b c d e", "a b c d e ")]);
        assert_eq!((scores.exact_match, scores.rouge_l), (1.0, 1.0));
        assert!((scores.bleu - 100.0).abs() < 1e-9);
        assert_eq!(TextScores::of(&[("", text)]), TextScores { exact_match: 0.0, rouge_l: 0.0, bleu: 0.0 });
        assert_eq!(TextScores::of(&[]).bleu, 0.0);
    }
}
