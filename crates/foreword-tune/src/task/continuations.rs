//! The candidate continuations of a text, and the end of a candidate that another one continues.
//!
//! If the tokens of one label are the beginning of another's ("3" and "33"), the likelihood of the shorter one includes
//! that of the longer one, so it could never lose. Its score is therefore the likelihood that the text continues with its
//! tokens *and does not continue to another label*,
//!
//! ```text
//! log P(a) + log(1 − Σₜ P(t | a)),    t: the tokens with which other labels continue a
//! ```
//!
//! so that the scores of a set of labels are those of mutually exclusive events. Labels that no other label continues keep
//! their score. A term of the sum needs no code of its own: P(t | a) = P(a t) / P(a), and `a t` is just another
//! continuation.

use std::collections::BTreeSet;

use foreword_backbone::kernels::Token;

/// The minimum share for a candidate's end: the sum above is computed in single precision.
const LEAST_END: f64 = 1e-6;

/// Candidate continuations of a text, and the extensions of those that other candidates continue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Continuations {
    tokens: Vec<Vec<Token>>,
    extended: Vec<usize>,
}

impl Continuations {
    /// Candidates that end where their tokens end, whatever the others are.
    #[must_use]
    pub fn open(candidates: Vec<Vec<Token>>) -> Self {
        Self { tokens: candidates, extended: Vec::new() }
    }

    /// Candidates of which none continues to another one.
    #[must_use]
    pub fn ended(candidates: Vec<Vec<Token>>) -> Self {
        let mut more: BTreeSet<(usize, Token)> = BTreeSet::new();
        for (short, candidate) in candidates.iter().enumerate() {
            let rests = candidates.iter().filter_map(|other| other.strip_prefix(&candidate[..]));
            more.extend(rests.filter_map(|rest| Some((short, *rest.first()?))));
        }
        let extended = more.iter().map(|&(short, _)| short).collect();
        let longer: Vec<Vec<Token>> =
            more.into_iter().map(|(short, token)| [&candidates[short][..], &[token]].concat()).collect();
        Self { tokens: [candidates, longer].concat(), extended }
    }

    /// The candidates' tokens.
    #[must_use]
    pub fn candidates(&self) -> &[Vec<Token>] {
        &self.tokens[..self.tokens.len() - self.extended.len()]
    }

    /// All token sequences whose likelihood is needed: the candidates, then one for each entry of [`Self::extended`].
    #[must_use]
    pub fn tokens(&self) -> &[Vec<Token>] {
        &self.tokens
    }

    /// For each sequence after the candidates, the candidate that it extends by one token.
    #[must_use]
    pub fn extended(&self) -> &[usize] {
        &self.extended
    }
}

/// P(t | candidate) of each extension.
fn onward(scores: &[f64], extended: &[usize]) -> Vec<f64> {
    let longer = &scores[scores.len() - extended.len()..];
    extended.iter().zip(longer).map(|(&short, longer)| (longer - scores[short]).exp()).collect()
}

/// The remaining share for each candidate's end; 1 if nothing continues it.
fn ends(n: usize, onward: &[f64], extended: &[usize]) -> Vec<f64> {
    let mut ends = vec![1.0; n];
    extended.iter().zip(onward).for_each(|(&short, p)| ends[short] -= p);
    ends.into_iter().map(|end| end.max(LEAST_END)).collect()
}

/// The candidates' scores, given those of all token sequences.
pub(crate) fn ended(mut scores: Vec<f64>, extended: &[usize]) -> Vec<f64> {
    if extended.is_empty() {
        return scores;
    }
    let n = scores.len() - extended.len();
    let ends = ends(n, &onward(&scores, extended), extended);
    scores.truncate(n);
    scores.iter_mut().zip(ends).for_each(|(score, end)| *score += end.ln());
    scores
}

/// The gradient with respect to the scores of all token sequences, given `d`, that with respect to the candidates' scores.
pub(crate) fn ended_gradient(scores: &[f64], extended: &[usize], d: Vec<f64>) -> Vec<f64> {
    if extended.is_empty() {
        return d;
    }
    let onward = onward(scores, extended);
    let ends = ends(d.len(), &onward, extended);
    let mut all = d;
    for (&short, p) in extended.iter().zip(onward) {
        let d = all[short];
        all.push(-d * p / ends[short]);
    }
    // Each candidate gets the negative of its extensions' gradients.
    let n = all.len() - extended.len();
    for (i, &short) in extended.iter().enumerate() {
        all[short] -= all[n + i];
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_candidates_that_others_continue_get_an_end() {
        let of = |candidates: &[&[Token]]| {
            Continuations::ended(candidates.iter().map(|tokens| tokens.to_vec()).collect())
        };
        let plain = of(&[&[1], &[2, 3]]);
        assert_eq!((plain.tokens().len(), plain.extended()), (2, [].as_slice()));
        // 1 continues to 1 2 and 1 3, by two tokens; 1 2 continues to 1 2 2; two labels continue 1 by the same token.
        let nested = of(&[&[1], &[1, 2], &[1, 2, 2], &[1, 3]]);
        assert_eq!(nested.candidates().len(), 4);
        assert_eq!(nested.tokens()[4..], [vec![1, 2], vec![1, 3], vec![1, 2, 2]]);
        assert_eq!(nested.extended(), [0, 0, 1]);
    }

    #[test]
    fn ended_scores_are_those_of_events_that_exclude_each_other() {
        // P(1) = 0.6; after 1: P(2) = 0.7, P(3) = 0.2, the rest is not a label; P(4) = 0.4.
        let scores: Vec<f64> = [0.6, 0.42, 0.4, 0.42, 0.12].iter().map(|p: &f64| p.ln()).collect();
        let ended = ended(scores, &[0, 0]);
        for (score, p) in ended.iter().zip([0.06, 0.42, 0.4]) {
            assert!((score.exp() - p).abs() < 1e-12, "{score} {p}");
        }
    }

    #[test]
    fn the_gradient_is_the_slope() {
        let scores = [-0.5, -0.9, -1.3, -0.9, -2.2];
        let d = [0.3, -0.7, 0.4];
        let loss = |scores: &[f64]| -> f64 {
            ended(scores.to_vec(), &[0, 0]).iter().zip(d).map(|(score, d)| score * d).sum()
        };
        let gradient = ended_gradient(&scores, &[0, 0], d.to_vec());
        for i in 0..scores.len() {
            let moved = |by: f64| {
                let mut scores = scores;
                scores[i] += by;
                loss(&scores)
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((gradient[i] - slope).abs() < 1e-8, "{i}: {} {slope}", gradient[i]);
        }
    }

    #[test]
    fn a_certain_continuation_leaves_a_finite_score_and_gradient() {
        let scores = vec![-0.1, -0.1, -0.1 + 1e-9];
        assert!(ended(scores.clone(), &[0])[0] > -20.0);
        let gradient = ended_gradient(&scores, &[0], vec![-1.0, 1.0]);
        assert!(gradient.iter().all(|d| d.is_finite()) && gradient[2] > 0.0, "{gradient:?}");
    }
}
