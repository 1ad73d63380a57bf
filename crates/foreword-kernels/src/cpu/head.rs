//! The vocabulary at the end of a model: single logits, and the log-sum-exp over all of them, streamed.

use std::ops::Range;

use rayon::prelude::*;

use super::Cpu;
use super::code_path::CodePath;
use super::gemm::pairs::rounded;
use super::gemm::{FrozenMatrix, Left, some_input_gradient, some_outputs};
use super::lanes::{axpy, dot, exp, per_path, sum};
use crate::backend::{HeadOf, Token};
use crate::rows::{RowBlock, Rows};

/// Vocabulary entries whose logits exist at a time.
const CHUNK: usize = 512;
/// Rows whose logits exist at a time.
const ROWS: usize = 256;
/// Strands in which the gradient is summed, each over its own part of the vocabulary, whatever the number of threads.
const STRANDS: usize = 8;

type Head<'a> = HeadOf<'a, Cpu>;

pub(super) fn logits_at(x: &Rows<f32>, head: Head<'_>, pairs: &[(usize, Token)]) -> Vec<f32> {
    let weight = head.weight;
    let mut entry = vec![0.0; weight.cols()];
    let mut rounded_row = vec![0.0; weight.cols()];
    let mut product = |row: usize, token: Token| {
        read_entry(weight, token, &mut entry);
        if !weight.is_rounded() {
            return dot::<false>(x.row(row), &entry);
        }
        // As in the log-sum-exp that this logit is held against.
        for (to, &from) in rounded_row.iter_mut().zip(x.row(row)) {
            *to = rounded(from);
        }
        dot::<false>(&rounded_row, &entry)
    };
    let logit = |&(row, token): &(usize, Token)| {
        let mut logit = [product(row, token)];
        finish(head, token as usize, &mut logit);
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
        axpy::<false>(dx.row_mut(row), d * cap_slope(head.soft_cap, logit), &entry);
    }
}

/// Products with the vocabulary's entries from `first` on become logits.
fn finish(head: Head<'_>, first: usize, products: &mut [f32]) {
    if let Some(bias) = head.bias {
        products.iter_mut().zip(&bias[first..]).for_each(|(product, bias)| *product += bias);
    }
    if let Some(cap) = head.soft_cap {
        let cap = cap as f32;
        products.iter_mut().for_each(|logit| *logit = cap * (*logit / cap).tanh());
    }
}

/// The slope of the cap where it gave `logit`.
fn cap_slope(cap: Option<f64>, logit: f32) -> f32 {
    cap.map_or(1.0, |cap| {
        let tanh = logit / cap as f32;
        1.0 - tanh * tanh
    })
}

/// A row of the head as products see it.
fn read_entry(head: &FrozenMatrix, token: Token, to: &mut [f32]) {
    head.read_row(token as usize, to);
    if head.is_rounded() {
        to.iter_mut().for_each(|number| *number = rounded(*number));
    }
}

pub(super) fn log_sum_exp(path: CodePath, x: &Rows<f32>, head: Head<'_>) -> Vec<f32> {
    let n_entries = head.weight.rows();
    let mut result = Vec::with_capacity(x.n_rows());
    for rows in x.values().chunks(ROWS * x.width()) {
        let n = rows.len() / x.width();
        let left = Left { values: rows, stride: x.width() };
        // Per chunk of the vocabulary and row: the maximum, and the sum of exponentials below it.
        let partial = |start: usize| {
            let cols = start..(start + CHUNK).min(n_entries);
            let logits = some_logits(path, left, head, cols.clone(), n);
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

/// Logits of `n` rows for the vocabulary's entries `cols`, `[n, cols.len()]`.
fn some_logits(path: CodePath, left: Left<'_>, head: Head<'_>, cols: Range<usize>, n: usize) -> Vec<f32> {
    let mut logits = vec![0.0; n * cols.len()];
    some_outputs(path, left, head.weight, cols.clone(), &mut logits);
    if head.bias.is_some() || head.soft_cap.is_some() {
        logits.chunks_exact_mut(cols.len()).for_each(|row| finish(head, cols.start, row));
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
    let per_strand = n_entries.div_ceil(STRANDS).next_multiple_of(CHUNK);
    for start in (0..x.n_rows()).step_by(ROWS) {
        let rows = start..(start + ROWS).min(x.n_rows());
        let left = Left { values: &x.values()[rows.start * width..rows.end * width], stride: width };
        let strand = |first: usize| {
            let mut to = vec![0.0; rows.len() * width];
            let end = (first + per_strand).min(n_entries);
            for start in (first..end).step_by(CHUNK) {
                let cols = start..(start + CHUNK).min(end);
                let mut logits = some_logits(path, left, head, cols.clone(), rows.len());
                for (row, logits) in rows.clone().zip(logits.chunks_exact_mut(cols.len())) {
                    weigh(path, logits, log_sums[row], d[row], head.soft_cap);
                }
                let d_logits = Left { values: &logits, stride: cols.len() };
                some_input_gradient(path, d_logits, head.weight, cols, &mut to);
            }
            to
        };
        let firsts: Vec<usize> = (0..n_entries).step_by(per_strand).collect();
        let strands: Vec<Vec<f32>> = firsts.into_par_iter().with_max_len(1).map(strand).collect();
        let target = &mut dx.values_mut()[rows.start * width..rows.end * width];
        for strand in &strands {
            for (to, &from) in target.iter_mut().zip(strand) {
                *to += from;
            }
        }
    }
}

per_path!(fn max_and_sum = max_and_sum_of(logits: &[f32]) -> (f32, f32));
per_path!(fn weigh = weigh_of(logits: &mut [f32], log_sum: f32, d: f32, cap: Option<f64>));

/// (maximum, Σ exp(logit − maximum)).
#[inline(always)]
fn max_and_sum_of<const FMA: bool>(logits: &[f32]) -> (f32, f32) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (max, sum(logits, |logit| exp::<FMA>(logit - max)))
}

/// Each logit becomes d · its probability · the cap's slope.
#[inline(always)]
fn weigh_of<const FMA: bool>(logits: &mut [f32], log_sum: f32, d: f32, cap: Option<f64>) {
    if cap.is_none() {
        logits.iter_mut().for_each(|logit| *logit = exp::<FMA>(*logit - log_sum) * d);
    } else {
        let slope = |logit| cap_slope(cap, logit);
        logits.iter_mut().for_each(|logit| *logit = exp::<FMA>(*logit - log_sum) * d * slope(*logit));
    }
}
