//! Sampling of the next token.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use foreword_backbone::kernels::{Element, Token};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::likelihood::log_sum_exp;

/// How the next token is sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0: greedy decoding, the first token on a tie.
    pub temperature: f64,
    /// Sample only from this many of the most likely tokens; 0: from all.
    pub top_k: usize,
    /// Sample only from the most likely tokens whose cumulative probability reaches this share (Holtzman et al. 2020); 1:
    /// from all.
    pub top_p: f64,
    /// The logit of a token that already occurred, in the context or in the new text, is divided by this if positive, and
    /// multiplied by it if negative (Keskar et al. 2019); 1: no penalty.
    pub repetition_penalty: f64,
    /// Random seed; the same seed samples the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy decoding.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// Samples the tokens of one text.
pub(crate) struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
    /// Tokens of the context and of the new text.
    seen: BTreeSet<Token>,
}

impl Sampler {
    /// A sampler for a text after a context, with the random numbers of the seed's stream `stream`.
    pub(crate) fn new(sampling: Sampling, stream: u64, context: &[Token]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        rng.set_stream(stream);
        Self { sampling, rng, seen: context.iter().copied().collect() }
    }

    /// Records a new token.
    pub(crate) fn see(&mut self, token: Token) {
        self.seen.insert(token);
    }

    /// Samples a token from these logits, `[V]`; `None` if they are not finite.
    pub(crate) fn draw<E: Element>(&mut self, logits: &[E]) -> Option<Token> {
        let sampling = &self.sampling;
        let mut logits: Vec<f64> = logits.iter().map(|logit| logit.as_f64()).collect();
        if !logits.iter().all(|logit| logit.is_finite()) {
            return None;
        }
        if sampling.repetition_penalty != 1.0 {
            for &token in &self.seen {
                let logit = &mut logits[token as usize];
                *logit = if *logit > 0.0 {
                    *logit / sampling.repetition_penalty
                } else {
                    *logit * sampling.repetition_penalty
                };
            }
        }
        if sampling.temperature == 0.0 {
            return Some(crate::likelihood::best(&logits) as Token);
        }
        // 53 random bits, the precision of a number below 1.
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        Some(sample(&logits, sampling, uniform))
    }
}

/// The token at `uniform` in [0, 1) of the distribution after temperature, top-k and top-p, in this order.
fn sample(logits: &[f64], sampling: &Sampling, uniform: f64) -> Token {
    if sampling.top_k > 0 {
        let candidates = top_k(logits, sampling.top_k);
        return draw(&candidates, logits, sampling, uniform);
    }
    // The most likely tokens nearly always decide.
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weight = |token: usize| ((logits[token] - largest) / sampling.temperature).exp();
    let total: f64 = (0..logits.len()).map(weight).sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let mut n = FIRST_TOKENS;
    while n < order.len() {
        order.select_nth_unstable_by(n, likelier(logits));
        order[..n].sort_unstable_by(likelier(logits));
        let weights: Vec<f64> = order[..n].iter().map(|&token| weight(token)).collect();
        if let Some(drawn) = draw_early(&weights, (total, logits.len()), sampling, uniform) {
            return order[drawn] as Token;
        }
        n *= 8;
    }
    order.sort_unstable_by(likelier(logits));
    draw(&order, logits, sampling, uniform)
}

/// Number of most likely tokens to try first.
const FIRST_TOKENS: usize = 64;

/// Orders tokens from most to least likely; on a tie, the first comes first.
fn likelier(logits: &[f64]) -> impl Fn(&usize, &usize) -> Ordering {
    |a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b))
}

/// The `k` most likely tokens in descending order; ties with the last one are kept.
fn top_k(logits: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let (_, &mut last, _) = order.select_nth_unstable_by(k.min(logits.len()) - 1, likelier(logits));
    order.retain(|&token| logits[token] >= logits[last]);
    order.sort_unstable_by(likelier(logits));
    order
}

/// Samples from candidates in descending order of likelihood.
fn draw(candidates: &[usize], logits: &[f64], sampling: &Sampling, uniform: f64) -> Token {
    let largest = logits[candidates[0]];
    let weights: Vec<f64> =
        candidates.iter().map(|&token| ((logits[token] - largest) / sampling.temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    let reached = weights.iter().position(|weight| {
        sum += weight;
        sum >= sampling.top_p * total
    });
    let kept = reached.map_or(weights.len(), |last| last + 1);
    let mut left = uniform * weights[..kept].iter().sum::<f64>();
    let drawn = weights[..kept].iter().position(|weight| {
        left -= weight;
        left < 0.0
    });
    candidates[drawn.unwrap_or(kept - 1)] as Token
}

/// The result of [`draw`] over all `n` tokens, computed from the largest weights alone: `total` is the sum of all weights
/// in another order. `None` if these weights do not decide, or if a decision is so close that the order of summation could
/// change it.
fn draw_early(weights: &[f64], (total, n): (f64, usize), sampling: &Sampling, uniform: f64) -> Option<usize> {
    // Two orders of a sum of n numbers differ by less than n · 2⁻⁵² of it; the sums below add fewer roundings than that.
    let error = total * n as f64 * 2.0_f64.powi(-50);
    let (mut left, mut weights_kept, mut error_left) = (uniform * total, weights, error);
    if sampling.top_p < 1.0 {
        let mut sum = 0.0;
        let last = weights.iter().position(|weight| {
            sum += weight;
            sum >= sampling.top_p * total - error
        })?;
        if sum < sampling.top_p * total + error {
            return None;
        }
        weights_kept = &weights[..=last];
        left = uniform * weights_kept.iter().sum::<f64>();
        error_left = 0.0;
    }
    let drawn = weights_kept.iter().position(|weight| {
        left -= weight;
        left < error_left
    });
    match drawn {
        Some(drawn) => (error_left == 0.0 || left < -error_left).then_some(drawn),
        // All tokens are considered.
        None => (error_left == 0.0).then(|| weights_kept.len() - 1),
    }
}

/// The log-probabilities of a token, before any sampling setting.
#[derive(Clone, Debug, PartialEq)]
pub struct LogProbs {
    /// The log-probability of the sampled token, in nats.
    pub taken: f64,
    /// The most likely tokens with theirs, in descending order.
    pub top: Vec<(Token, f64)>,
}

impl LogProbs {
    /// The log-probabilities from these logits, `[V]`.
    pub(crate) fn of<E: Element>(logits: &[E], taken: Token, n_top: usize) -> Self {
        let logits: Vec<f64> = logits.iter().map(|logit| logit.as_f64()).collect();
        let log_sum = log_sum_exp(&logits);
        let log_prob = |token: usize| logits[token] - log_sum;
        let mut top = if n_top == 0 { Vec::new() } else { top_k(&logits, n_top) };
        top.truncate(n_top);
        let top = top.into_iter().map(|token| (token as Token, log_prob(token))).collect();
        Self { taken: log_prob(taken as usize), top }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn draws_follow_the_distribution_that_is_left() {
        let logits = [1.0_f64.ln(), 4.0_f64.ln(), 2.0_f64.ln(), 3.0_f64.ln()];
        let drawn = |sampling: &Sampling| -> Vec<Token> {
            (0..10).map(|i| sample(&logits, sampling, (f64::from(i) + 0.5) / 10.0)).collect()
        };
        let plain = Sampling { temperature: 1.0, ..Sampling::default() };
        assert_eq!(drawn(&plain), [1, 1, 1, 1, 3, 3, 3, 2, 2, 0]);
        assert_eq!(drawn(&Sampling { top_k: 2, ..plain }), [1, 1, 1, 1, 1, 1, 3, 3, 3, 3]);
        // 0.4 and 0.3 make 0.7; 0.69 needs both, 0.71 a third.
        assert_eq!(drawn(&Sampling { top_p: 0.69, ..plain }), drawn(&Sampling { top_k: 2, ..plain }));
        assert_eq!(drawn(&Sampling { top_p: 0.71, ..plain }), drawn(&Sampling { top_k: 3, ..plain }));
        assert_eq!(drawn(&Sampling { top_p: 1e-9, ..plain }), [1; 10]);
        // Squared weights: 16, 9, 4, 1 of 30.
        let cold = Sampling { temperature: 0.5, ..plain };
        assert_eq!(drawn(&cold), [1, 1, 1, 1, 1, 3, 3, 3, 2, 2]);
    }

    #[test]
    fn a_penalty_makes_what_was_there_less_likely_whatever_its_sign() {
        let penalty = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        let mut sampler = Sampler::new(penalty, 0, &[0, 2]);
        assert_eq!(sampler.draw(&[3.0_f32, 2.0, -1.0]), Some(1));
        assert_eq!(sampler.draw(&[-3.0_f32, -4.0, -2.5]), Some(1));
        let mut sampler = Sampler::new(Sampling::default(), 0, &[0, 2]);
        assert_eq!(sampler.draw(&[3.0_f32, 2.0, -1.0]), Some(0));
        assert_eq!(sampler.draw(&[f32::NAN, 2.0]), None);
    }

    #[test]
    fn log_probs_are_those_of_the_softmax() {
        let logits = [0.5_f32, 2.0, 1.0, 2.0];
        let LogProbs { taken, top } = LogProbs::of(&logits, 2, 2);
        let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        assert!((taken - (1.0 - sum.ln())).abs() < 1e-12);
        assert_eq!(top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 3]);
        assert!(LogProbs::of(&logits, 0, 0).top.is_empty());
    }

    /// The definition: sorts all tokens.
    fn by_sorting(logits: &[f64], sampling: &Sampling, uniform: f64) -> Token {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        if sampling.top_k > 0 {
            let last = logits[order[sampling.top_k.min(order.len()) - 1]];
            order.truncate(order.partition_point(|&token| logits[token] >= last));
        }
        draw(&order, logits, sampling, uniform)
    }

    proptest! {
        #[test]
        fn what_is_drawn_is_what_sorting_all_tokens_draws(
            seed in any::<u64>(),
            n in 1..3000_usize,
            (temperature, steps) in (0.05..8.0_f64, prop_oneof![Just(0.0), Just(0.25)]),
            (top_k, top_p) in (prop_oneof![Just(0), 1..100_usize], prop_oneof![Just(1.0), 0.001..1.0_f64]),
            edge in any::<bool>(),
        ) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut random = || (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
            let logits: Vec<f64> = (0..n)
                .map(|_| {
                    let logit = 20.0 * random() - 10.0;
                    // Rounded values produce ties.
                    if steps > 0.0 { (logit / steps).round() * steps } else { logit }
                })
                .collect();
            let sampling = Sampling { temperature, top_k, top_p, ..Sampling::default() };
            for _ in 0..20 {
                let uniform = if edge { 1.0 - f64::EPSILON / 2.0 } else { random() };
                prop_assert_eq!(sample(&logits, &sampling, uniform), by_sorting(&logits, &sampling, uniform));
            }
        }
    }
}
