//! The vocabulary at the end of a model: single logits, and the log-sum-exp over all of them, streamed.

use rayon::prelude::*;

use super::gemm::pairs::rounded;
use super::gemm::{FrozenMatrix, Left, some_input_gradient, some_outputs};
use super::lanes::{Path, axpy, dot, exp, per_path, sum};
use crate::backend::Token;
use crate::rows::{RowBlock, Rows};

/// Vocabulary entries whose logits exist at a time.
const CHUNK: usize = 512;
/// Rows whose logits exist at a time.
const ROWS: usize = 256;
/// Strands in which the gradient is summed, each over its own part of the vocabulary, whatever the number of threads.
const STRANDS: usize = 8;

pub(super) fn logits_at(x: &Rows<f32>, head: &FrozenMatrix, pairs: &[(usize, Token)]) -> Vec<f32> {
    let mut entry = vec![0.0; head.cols()];
    let mut rounded_row = vec![0.0; head.cols()];
    let logit = |&(row, token): &(usize, Token)| {
        read_entry(head, token, &mut entry);
        if !head.is_rounded() {
            return dot::<false>(x.row(row), &entry);
        }
        // As in the log-sum-exp that this logit is held against.
        for (to, &from) in rounded_row.iter_mut().zip(x.row(row)) {
            *to = rounded(from);
        }
        dot::<false>(&rounded_row, &entry)
    };
    pairs.iter().map(logit).collect()
}

pub(super) fn logits_at_gradient(
    head: &FrozenMatrix,
    pairs: &[(usize, Token)],
    d: &[f32],
    dx: &mut Rows<f32>,
) {
    let mut entry = vec![0.0; head.cols()];
    for (&(row, token), &d) in pairs.iter().zip(d) {
        read_entry(head, token, &mut entry);
        axpy::<false>(dx.row_mut(row), d, &entry);
    }
}

/// A row of the head as products see it.
fn read_entry(head: &FrozenMatrix, token: Token, to: &mut [f32]) {
    head.read_row(token as usize, to);
    if head.is_rounded() {
        to.iter_mut().for_each(|number| *number = rounded(*number));
    }
}

pub(super) fn log_sum_exp(path: Path, x: &Rows<f32>, head: &FrozenMatrix) -> Vec<f32> {
    let mut result = Vec::with_capacity(x.n_rows());
    for rows in x.values().chunks(ROWS * x.width()) {
        let n = rows.len() / x.width();
        let left = Left { values: rows, stride: x.width() };
        // Per chunk of the vocabulary and row: the maximum, and the sum of exponentials below it.
        let partial = |start: usize| {
            let cols = start..(start + CHUNK).min(head.rows());
            let mut logits = vec![0.0; n * cols.len()];
            some_outputs(path, left, head, cols.clone(), &mut logits);
            logits.chunks_exact(cols.len()).map(|row| max_and_sum(path, row)).collect::<Vec<_>>()
        };
        let starts: Vec<usize> = (0..head.rows()).step_by(CHUNK).collect();
        let partials: Vec<Vec<(f32, f32)>> = starts.into_par_iter().map(partial).collect();
        result.extend((0..n).map(|i| {
            let max = partials.iter().map(|p| p[i].0).fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = partials.iter().map(|p| p[i].1 * (p[i].0 - max).exp()).sum();
            max + sum.ln()
        }));
    }
    result
}

pub(super) fn log_sum_exp_gradient(
    path: Path,
    x: &Rows<f32>,
    head: &FrozenMatrix,
    log_sums: &[f32],
    d: &[f32],
    dx: &mut Rows<f32>,
) {
    let width = x.width();
    let per_strand = head.rows().div_ceil(STRANDS).next_multiple_of(CHUNK);
    for start in (0..x.n_rows()).step_by(ROWS) {
        let rows = start..(start + ROWS).min(x.n_rows());
        let left = Left { values: &x.values()[rows.start * width..rows.end * width], stride: width };
        let strand = |first: usize| {
            let mut to = vec![0.0; rows.len() * width];
            let end = (first + per_strand).min(head.rows());
            for start in (first..end).step_by(CHUNK) {
                let cols = start..(start + CHUNK).min(end);
                let mut logits = vec![0.0; rows.len() * cols.len()];
                some_outputs(path, left, head, cols.clone(), &mut logits);
                for (row, logits) in rows.clone().zip(logits.chunks_exact_mut(cols.len())) {
                    weigh(path, logits, log_sums[row], d[row]);
                }
                let d_logits = Left { values: &logits, stride: cols.len() };
                some_input_gradient(path, d_logits, head, cols, &mut to);
            }
            to
        };
        let firsts: Vec<usize> = (0..head.rows()).step_by(per_strand).collect();
        let strands: Vec<Vec<f32>> = firsts.into_par_iter().map(strand).collect();
        let target = &mut dx.values_mut()[rows.start * width..rows.end * width];
        for strand in &strands {
            for (to, &from) in target.iter_mut().zip(strand) {
                *to += from;
            }
        }
    }
}

per_path!(fn max_and_sum = max_and_sum_of(logits: &[f32]) -> (f32, f32));
per_path!(fn weigh = weigh_of(logits: &mut [f32], log_sum: f32, d: f32));

/// (maximum, Σ exp(logit − maximum)).
#[inline(always)]
fn max_and_sum_of<const FMA: bool>(logits: &[f32]) -> (f32, f32) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (max, sum(logits, |logit| exp::<FMA>(logit - max)))
}

/// Each logit becomes d · its probability.
#[inline(always)]
fn weigh_of<const FMA: bool>(logits: &mut [f32], log_sum: f32, d: f32) {
    for logit in logits {
        *logit = exp::<FMA>(*logit - log_sum) * d;
    }
}
