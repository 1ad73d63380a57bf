//! What a loss reads from the rows of an example, and the gradients that it returns. The forward and backward pass need to
//! know nothing else about it.

use std::borrow::Cow;

use foreword_backbone::kernels::Token;

use super::example::Example;
use crate::continuations::{ended, ended_gradient};
use crate::likelihood::log_sum_exp;
use crate::settings::Objective;

/// The numbers read from an example's rows. Row 0 is the last row of the context, which predicts the first token; the rows
/// of the continuations' tokens follow, continuation by continuation, without the last token of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// (row, token): the token's logit in that row.
    pub logits: Vec<(usize, Token)>,
    /// Rows to read the log-sum-exp over the vocabulary of, ascending.
    pub log_sums: Vec<usize>,
}

/// Those numbers, or the gradients with respect to them, in that order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbers {
    /// By entry of [`Reads::logits`].
    pub logits: Vec<f64>,
    /// By entry of [`Reads::log_sums`].
    pub log_sums: Vec<f64>,
}

/// The loss of one example.
pub trait Loss {
    /// The token sequences to compute below the context, each of at least one token.
    fn continuations(&self) -> &[&[Token]];
    /// What it reads.
    fn reads(&self) -> Reads;
    /// Number of terms in the mean over a batch.
    fn n_terms(&self) -> usize;
    /// The sum of its terms, and its gradient.
    fn loss(&self, numbers: &Numbers) -> (f64, Numbers);
}

/// The loss of an example under an objective.
#[must_use]
pub fn of<'a>(objective: Objective, example: &Example<'a>) -> Box<dyn Loss + 'a> {
    match objective {
        Objective::Label => {
            Box::new(LabelLoss { candidates: Sequences::of(example, false), truth: example.truth })
        }
        Objective::Lm => Box::new(LmLoss(Sequences::of_truth(example))),
    }
}

/// A loss times a weight.
#[must_use]
pub fn weighted<'a>(loss: Box<dyn Loss + 'a>, weight: f64) -> Box<dyn Loss + 'a> {
    Box::new(WeightedLoss { loss, weight })
}

struct WeightedLoss<'a> {
    loss: Box<dyn Loss + 'a>,
    weight: f64,
}

impl Loss for WeightedLoss<'_> {
    fn continuations(&self) -> &[&[Token]] {
        self.loss.continuations()
    }

    fn reads(&self) -> Reads {
        self.loss.reads()
    }

    fn n_terms(&self) -> usize {
        self.loss.n_terms()
    }

    fn loss(&self, numbers: &Numbers) -> (f64, Numbers) {
        let (loss, mut gradient) = self.loss.loss(numbers);
        for d in gradient.logits.iter_mut().chain(&mut gradient.log_sums) {
            *d *= self.weight;
        }
        (loss * self.weight, gradient)
    }
}

/// The cross-entropy over the candidates: one term.
struct LabelLoss<'a> {
    candidates: Sequences<'a>,
    truth: usize,
}

impl Loss for LabelLoss<'_> {
    fn continuations(&self) -> &[&[Token]] {
        &self.candidates.tokens
    }

    fn reads(&self) -> Reads {
        self.candidates.reads()
    }

    fn n_terms(&self) -> usize {
        1
    }

    fn loss(&self, numbers: &Numbers) -> (f64, Numbers) {
        let scores = self.candidates.scores(numbers);
        let log_sum = log_sum_exp(&scores);
        let d = scores.iter().enumerate().map(|(i, score)| {
            let p = (score - log_sum).exp();
            if i == self.truth { p - 1.0 } else { p }
        });
        (log_sum - scores[self.truth], self.candidates.gradient(numbers, d.collect()))
    }
}

/// The cross-entropy of the tokens of the true continuation: one term each.
struct LmLoss<'a>(Sequences<'a>);

impl Loss for LmLoss<'_> {
    fn continuations(&self) -> &[&[Token]] {
        &self.0.tokens
    }

    fn reads(&self) -> Reads {
        self.0.reads()
    }

    fn n_terms(&self) -> usize {
        self.0.tokens[0].len()
    }

    fn loss(&self, numbers: &Numbers) -> (f64, Numbers) {
        (-self.0.scores(numbers)[0], self.0.gradient(numbers, vec![-1.0]))
    }
}

/// Log-likelihoods of token sequences below a context, in nats.
pub(crate) struct Sequences<'a> {
    pub(crate) tokens: Cow<'a, [&'a [Token]]>,
    extended: Cow<'a, [usize]>,
    /// If not set, the log-sum-exp of the context's last row, which all sequences share, is omitted.
    normalised: bool,
}

impl<'a> Sequences<'a> {
    /// All candidates of an example.
    pub(crate) fn of(example: &Example<'a>, normalised: bool) -> Self {
        Self { tokens: example.continuations.into(), extended: example.extended.into(), normalised }
    }

    /// The true continuation and its extensions.
    fn of_truth(example: &Example<'a>) -> Self {
        let &Example { continuations, extended, truth, .. } = example;
        let longer = &continuations[continuations.len() - extended.len()..];
        let own = extended.iter().zip(longer).filter(|(short, _)| **short == truth);
        let tokens: Vec<&[Token]> =
            std::iter::once(continuations[truth]).chain(own.map(|(_, &longer)| longer)).collect();
        let extended = vec![0; tokens.len() - 1];
        Self { tokens: tokens.into(), extended: extended.into(), normalised: true }
    }

    pub(crate) fn reads(&self) -> Reads {
        let mut reads = Reads::default();
        reads.log_sums.extend(self.normalised.then_some(0));
        let mut row = 0;
        for tokens in &*self.tokens {
            reads.logits.push((0, tokens[0]));
            for &token in &tokens[1..] {
                row += 1;
                reads.logits.push((row, token));
                reads.log_sums.push(row);
            }
        }
        reads
    }

    /// Scores of all sequences.
    fn all_scores(&self, numbers: &Numbers) -> Vec<f64> {
        let (first, log_sums) = numbers.log_sums.split_at(usize::from(self.normalised));
        let first = first.first().copied().unwrap_or(0.0);
        let (mut logits, mut log_sums) = (numbers.logits.iter(), log_sums.iter());
        let mut score = |tokens: &&[Token]| {
            let log_sums = std::iter::once(&first).chain(log_sums.by_ref().take(tokens.len() - 1));
            log_sums.zip(logits.by_ref()).map(|(log_sum, logit)| logit - log_sum).sum()
        };
        self.tokens.iter().map(&mut score).collect()
    }

    /// Scores of the candidates.
    pub(crate) fn scores(&self, numbers: &Numbers) -> Vec<f64> {
        ended(self.all_scores(numbers), &self.extended)
    }

    /// The gradient with respect to the numbers, given that with respect to the candidates' scores.
    fn gradient(&self, numbers: &Numbers, d: Vec<f64>) -> Numbers {
        let d = ended_gradient(&self.all_scores(numbers), &self.extended, d);
        let mut gradient = Numbers::default();
        gradient.log_sums.extend(self.normalised.then(|| -d.iter().sum::<f64>()));
        for (tokens, &d) in self.tokens.iter().zip(&d) {
            gradient.logits.extend(std::iter::repeat_n(d, tokens.len()));
            gradient.log_sums.extend(std::iter::repeat_n(-d, tokens.len() - 1));
        }
        gradient
    }
}
