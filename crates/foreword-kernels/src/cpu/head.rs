//! The output layer: single logits, and the log-sum-exp over the whole vocabulary, streamed.

use std::ops::Range;

use rayon::prelude::*;

use super::Cpu;
use super::code_path::CodePath;
use super::gemm::{FrozenMatrix, Lhs, linear_gradient_part, linear_part, round_to_bf16};
use super::lanes::{axpy, dot, exp, per_path, sum};
use crate::backend::{HeadOf, Token};
use crate::rows::{RowBlock, Rows};

/// Vocabulary entries whose logits exist at a time.
const CHUNK: usize = 512;
/// Rows whose logits exist at a time.
const ROWS: usize = 256;
/// Partial sums of the gradient, each over its own part of the vocabulary, whatever the number of threads.
const PARTIAL_SUMS: usize = 8;

type Head<'a> = HeadOf<'a, Cpu>;

pub(super) fn logits_at(x: &Rows<f32>, head: Head<'_>, pairs: &[(usize, Token)]) -> Vec<f32> {
    let weight = head.weight;
    let mut entry = vec![0.0; weight.cols()];
    let mut rounded_row = vec![0.0; weight.cols()];
    let mut product = |row: usize, token: Token| {
        read_entry(weight, token, &mut entry);
        if !weight.computes_in_bf16() {
            return dot::<false>(x.row(row), &entry);
        }
        // As in the log-sum-exp that this logit is compared with.
        for (to, &from) in rounded_row.iter_mut().zip(x.row(row)) {
            *to = round_to_bf16(from);
        }
        dot::<false>(&rounded_row, &entry)
    };
    let logit = |&(row, token): &(usize, Token)| {
        let mut logit = [product(row, token)];
        apply_bias_and_cap(head, token as usize, &mut logit);
        logit[0]
    };
    pairs.iter().map(logit).collect()
}

pub(super) fn logits_at_gradient(
    head: Head<'_>,
    pairs: &[(usize, Token)],
    logits: &[f32],
    d: &[f32],
    dx: &mut Rows<f32>,
) {
    let mut entry = vec![0.0; head.weight.cols()];
    for ((&(row, token), &logit), &d) in pairs.iter().zip(logits).zip(d) {
        read_entry(head.weight, token, &mut entry);
        axpy::<false>(dx.row_mut(row), d * cap_derivative(head.soft_cap, logit), &entry);
    }
}

/// Turns products with the vocabulary entries from `first` on into logits.
fn apply_bias_and_cap(head: Head<'_>, first: usize, products: &mut [f32]) {
    if let Some(bias) = head.bias {
        products.iter_mut().zip(&bias[first..]).for_each(|(product, bias)| *product += bias);
    }
    if let Some(cap) = head.soft_cap {
        let cap = cap as f32;
        products.iter_mut().for_each(|logit| *logit = cap * (*logit / cap).tanh());
    }
}

/// The derivative of the soft cap where its result is `logit`.
fn cap_derivative(cap: Option<f64>, logit: f32) -> f32 {
    cap.map_or(1.0, |cap| {
        let tanh = logit / cap as f32;
        1.0 - tanh * tanh
    })
}

/// A row of the head, rounded if products with it are in bf16.
fn read_entry(head: &FrozenMatrix, token: Token, to: &mut [f32]) {
    head.read_row(token as usize, to);
    if head.computes_in_bf16() {
        to.iter_mut().for_each(|number| *number = round_to_bf16(*number));
    }
}

pub(super) fn log_sum_exp(path: CodePath, x: &Rows<f32>, head: Head<'_>) -> Vec<f32> {
    let n_entries = head.weight.rows();
    let mut result = Vec::with_capacity(x.n_rows());
    for rows in x.values().chunks(ROWS * x.width()) {
        let n = rows.len() / x.width();
        let lhs = Lhs { values: rows, stride: x.width() };
        // Per chunk of the vocabulary and row: the maximum, and the sum of exponentials relative to it.
        let partial = |start: usize| {
            let cols = start..(start + CHUNK).min(n_entries);
            let logits = logits_of(path, lhs, head, cols.clone(), n);
            logits.chunks_exact(cols.len()).map(|row| max_and_sum(path, row)).collect::<Vec<_>>()
        };
        let starts: Vec<usize> = (0..n_entries).step_by(CHUNK).collect();
        let partials: Vec<Vec<(f32, f32)>> = starts.into_par_iter().with_max_len(1).map(partial).collect();
        result.extend((0..n).map(|i| {
            let max = partials.iter().map(|p| p[i].0).fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = partials.iter().map(|p| p[i].1 * (p[i].0 - max).exp()).sum();
            max + sum.ln()
        }));
    }
    result
}

/// Logits of `n` rows for the vocabulary entries `cols`, `[n, cols.len()]`.
fn logits_of(path: CodePath, lhs: Lhs<'_>, head: Head<'_>, cols: Range<usize>, n: usize) -> Vec<f32> {
    let mut logits = vec![0.0; n * cols.len()];
    linear_part(path, lhs, head.weight, cols.clone(), &mut logits);
    if head.bias.is_some() || head.soft_cap.is_some() {
        logits.chunks_exact_mut(cols.len()).for_each(|row| apply_bias_and_cap(head, cols.start, row));
    }
    logits
}

pub(super) fn log_sum_exp_gradient(
    path: CodePath,
    x: &Rows<f32>,
    head: Head<'_>,
    log_sums: &[f32],
    d: &[f32],
    dx: &mut Rows<f32>,
) {
    let width = x.width();
    let n_entries = head.weight.rows();
    let per_part = n_entries.div_ceil(PARTIAL_SUMS).next_multiple_of(CHUNK);
    for start in (0..x.n_rows()).step_by(ROWS) {
        let rows = start..(start + ROWS).min(x.n_rows());
        let lhs = Lhs { values: &x.values()[rows.start * width..rows.end * width], stride: width };
        let partial_sum = |first: usize| {
            let mut to = vec![0.0; rows.len() * width];
            let end = (first + per_part).min(n_entries);
            for start in (first..end).step_by(CHUNK) {
                let cols = start..(start + CHUNK).min(end);
                let mut logits = logits_of(path, lhs, head, cols.clone(), rows.len());
                for (row, logits) in rows.clone().zip(logits.chunks_exact_mut(cols.len())) {
                    logit_gradients(path, logits, log_sums[row], d[row], head.soft_cap);
                }
                let d_logits = Lhs { values: &logits, stride: cols.len() };
                linear_gradient_part(path, d_logits, head.weight, cols, &mut to);
            }
            to
        };
        let firsts: Vec<usize> = (0..n_entries).step_by(per_part).collect();
        let partial_sums: Vec<Vec<f32>> = firsts.into_par_iter().with_max_len(1).map(partial_sum).collect();
        let target = &mut dx.values_mut()[rows.start * width..rows.end * width];
        for partial_sum in &partial_sums {
            for (to, &from) in target.iter_mut().zip(partial_sum) {
                *to += from;
            }
        }
    }
}

per_path!(fn max_and_sum = max_and_sum_of(logits: &[f32]) -> (f32, f32));
per_path!(fn logit_gradients = logit_gradients_of(logits: &mut [f32], log_sum: f32, d: f32, cap: Option<f64>));

/// (maximum, Σ exp(logit − maximum)).
#[inline(always)]
fn max_and_sum_of<const FMA: bool>(logits: &[f32]) -> (f32, f32) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (max, sum(logits, |logit| exp::<FMA>(logit - max)))
}

/// Replaces each logit by d · its probability · the soft cap's derivative.
#[inline(always)]
fn logit_gradients_of<const FMA: bool>(logits: &mut [f32], log_sum: f32, d: f32, cap: Option<f64>) {
    if cap.is_none() {
        logits.iter_mut().for_each(|logit| *logit = exp::<FMA>(*logit - log_sum) * d);
    } else {
        let derivative = |logit| cap_derivative(cap, logit);
        logits.iter_mut().for_each(|logit| *logit = exp::<FMA>(*logit - log_sum) * d * derivative(*logit));
    }
}
