//! From log-likelihoods to predictions: probabilities, the best label, the mean of an ensemble.

/// log Σ exp.
pub(crate) fn log_sum_exp(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + values.iter().map(|v| (v - max).exp()).sum::<f64>().ln()
}

/// Index of the largest score; the first one on a tie.
#[must_use]
pub fn best(scores: &[f64]) -> usize {
    let better = |best: usize, i: usize| if scores[i] > scores[best] { i } else { best };
    (1..scores.len()).fold(0, better)
}

/// Softmax of log-likelihoods: the label probabilities, given that one of the labels is true.
#[must_use]
pub fn probabilities(log_likelihoods: &[f64]) -> Vec<f64> {
    let log_sum = log_sum_exp(log_likelihoods);
    log_likelihoods.iter().map(|l| (l - log_sum).exp()).collect()
}

/// Mean cross-entropy over the labels, in nats; 0 without examples.
#[must_use]
pub fn choice_loss(scores: &[Vec<f64>], truths: &[usize]) -> f64 {
    let total: f64 =
        scores.iter().zip(truths).map(|(scores, &truth)| log_sum_exp(scores) - scores[truth]).sum();
    total / truths.len().max(1) as f64
}

/// The prediction of an ensemble: the mean of the members' log-likelihoods, by example and label. Empty without members.
#[must_use]
pub fn ensemble(members: &[&[Vec<f64>]]) -> Vec<Vec<f64>> {
    let Some((first, others)) = members.split_first() else { return Vec::new() };
    let n = members.len() as f64;
    let sum = |example: usize, label: usize| {
        others.iter().fold(first[example][label], |sum, scores| sum + scores[example][label])
    };
    let of = |example: usize| (0..first[example].len()).map(|label| sum(example, label) / n).collect();
    (0..first.len()).map(of).collect()
}
