//! Operations on single rows: norms, rotary positions, activations, and their gradients.

use std::ops::Range;

use rayon::prelude::*;

use super::code_path::CodePath;
use super::lanes::{dot, exp, fma, per_path, sum};
use crate::backend::{Activation, Direction, Function, Norm, NormKind, Pairing, RotaryAngles};
use crate::rows::{RowBlock, Rows};

/// Rows of a task.
const TASK_ROWS: usize = 16;

/// Runs `f(i, row i of to)` over chunks of rows.
fn each_row(to: &mut Rows<f32>, f: impl Fn(usize, &mut [f32]) + Sync) {
    let width = to.width();
    to.values_mut().par_chunks_mut(width * TASK_ROWS).enumerate().with_max_len(1).for_each(
        |(chunk, rows)| {
            for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                f(chunk * TASK_ROWS + i, row);
            }
        },
    );
}

pub(super) fn norm(path: CodePath, x: &Rows<f32>, norm: &Norm<Vec<f32>>) -> Rows<f32> {
    let mut y = super::zeros(x.n_rows(), x.width());
    each_row(&mut y, |i, y| norm_row(path, x.row(i), NormPart::whole(norm), y));
    y
}

pub(super) fn norm_heads(
    path: CodePath,
    x: &Rows<f32>,
    end: usize,
    width: usize,
    norm: &Norm<Vec<f32>>,
) -> Rows<f32> {
    let mut y = x.clone();
    each_row(&mut y, |i, y| {
        for head in heads(end, width) {
            norm_row(path, &x.row(i)[head.clone()], NormPart::of(norm, head.clone()), &mut y[head]);
        }
    });
    y
}

pub(super) fn norm_heads_gradient(
    path: CodePath,
    x: &Rows<f32>,
    end: usize,
    width: usize,
    norm: &Norm<Vec<f32>>,
    dy: Rows<f32>,
) -> Rows<f32> {
    let mut dx = dy;
    each_row(&mut dx, |i, dx| {
        let mut dy = vec![0.0; width];
        for head in heads(end, width) {
            dy.copy_from_slice(&dx[head.clone()]);
            dx[head.clone()].fill(0.0);
            let part = NormPart::of(norm, head.clone());
            norm_gradient_row(path, &x.row(i)[head.clone()], part, &dy, &mut dx[head]);
        }
    });
    dx
}

/// Heads of `width` numbers up to number `end`.
fn heads(end: usize, width: usize) -> impl Iterator<Item = Range<usize>> {
    (0..end).step_by(width).map(move |first| first..first + width)
}

/// A norm's gain and bias for some numbers of a row.
#[derive(Clone, Copy)]
struct NormPart<'a> {
    kind: NormKind,
    gain: &'a [f32],
    bias: Option<&'a [f32]>,
}

impl<'a> NormPart<'a> {
    fn whole(norm: &'a Norm<Vec<f32>>) -> Self {
        Self { kind: norm.kind, gain: &norm.gain, bias: norm.bias.as_deref() }
    }

    fn of(norm: &'a Norm<Vec<f32>>, numbers: Range<usize>) -> Self {
        let bias = norm.bias.as_ref().map(|bias| &bias[numbers.clone()]);
        Self { kind: norm.kind, gain: &norm.gain[numbers], bias }
    }
}

pub(super) fn norm_gradient(
    path: CodePath,
    x: &Rows<f32>,
    norm: &Norm<Vec<f32>>,
    dy: &Rows<f32>,
    dx: &mut Rows<f32>,
) {
    each_row(dx, |i, dx| norm_gradient_row(path, x.row(i), NormPart::whole(norm), dy.row(i), dx));
}

pub(super) fn rotate(
    path: CodePath,
    x: &mut Rows<f32>,
    end: usize,
    width: usize,
    angles: &RotaryAngles,
    direction: Direction,
) {
    each_row(x, |i, row| {
        let at = i * angles.half..(i + 1) * angles.half;
        let (cos, sin) = (&angles.cos[at.clone()], &angles.sin[at]);
        let backward = direction == Direction::Backward;
        match angles.pairing {
            Pairing::Halves => rotate_halves(path, &mut row[..end], width, cos, sin, backward),
            Pairing::Interleaved => rotate_interleaved(path, &mut row[..end], width, cos, sin, backward),
        }
    });
}

pub(super) fn activate(path: CodePath, x: &Rows<f32>, activation: Activation) -> Rows<f32> {
    let mut y = super::zeros(x.n_rows(), if activation.gated { x.width() / 2 } else { x.width() });
    each_row(&mut y, |i, y| activate_row(path, x.row(i), activation, y));
    y
}

pub(super) fn activate_gradient(
    path: CodePath,
    x: &Rows<f32>,
    activation: Activation,
    dy: &Rows<f32>,
) -> Rows<f32> {
    let mut dx = super::zeros(x.n_rows(), x.width());
    each_row(&mut dx, |i, dx| activate_gradient_row(path, x.row(i), activation, dy.row(i), dx));
    dx
}

per_path!(fn norm_row = norm_row_of(x: &[f32], norm: NormPart<'_>, y: &mut [f32]));
per_path!(fn norm_gradient_row = norm_gradient_row_of(x: &[f32], norm: NormPart<'_>, dy: &[f32], dx: &mut [f32]));
per_path!(fn rotate_halves = rotate_halves_of(row: &mut [f32], width: usize, cos: &[f32], sin: &[f32], backward: bool));
per_path!(fn rotate_interleaved = rotate_interleaved_of(row: &mut [f32], width: usize, cos: &[f32], sin: &[f32], backward: bool));
per_path!(fn activate_row = activate_row_of(x: &[f32], activation: Activation, y: &mut [f32]));
per_path!(fn activate_gradient_row = activate_gradient_row_of(x: &[f32], activation: Activation, dy: &[f32], dx: &mut [f32]));

/// (mean, 1 / standard deviation); for RMS, (0, 1 / root mean square).
#[inline(always)]
fn statistics<const FMA: bool>(x: &[f32], kind: NormKind) -> (f32, f32) {
    let n = x.len() as f32;
    let (mean, squares, eps) = match kind {
        NormKind::Rms { eps } => (0.0, dot::<FMA>(x, x), eps),
        NormKind::Layer { eps } => {
            let mean = sum(x, |x| x) / n;
            (mean, sum(x, |x| (x - mean) * (x - mean)), eps)
        }
    };
    (mean, 1.0 / (squares / n + eps as f32).sqrt())
}

#[inline(always)]
fn norm_row_of<const FMA: bool>(x: &[f32], norm: NormPart<'_>, y: &mut [f32]) {
    let (mean, scale) = statistics::<FMA>(x, norm.kind);
    for ((y, &x), &gain) in y.iter_mut().zip(x).zip(norm.gain) {
        *y = (x - mean) * scale * gain;
    }
    if let Some(bias) = norm.bias {
        for (y, &bias) in y.iter_mut().zip(bias) {
            *y += bias;
        }
    }
}

#[inline(always)]
fn norm_gradient_row_of<const FMA: bool>(x: &[f32], norm: NormPart<'_>, dy: &[f32], dx: &mut [f32]) {
    let (mean, scale) = statistics::<FMA>(x, norm.kind);
    let n = x.len() as f32;
    let mut along = [0.0; super::lanes::LANES];
    let mut total = [0.0; super::lanes::LANES];
    for (i, ((&x, &dy), &gain)) in x.iter().zip(dy).zip(norm.gain).enumerate() {
        let lane = i % super::lanes::LANES;
        let d = dy * gain;
        along[lane] = fma::<FMA>(d, (x - mean) * scale, along[lane]);
        total[lane] += d;
    }
    let along = sum(&along, |v| v) / n;
    let d_mean = match norm.kind {
        NormKind::Rms { .. } => 0.0,
        NormKind::Layer { .. } => sum(&total, |v| v) / n,
    };
    for (((dx, &x), &dy), &gain) in dx.iter_mut().zip(x).zip(dy).zip(norm.gain) {
        *dx += scale * (dy * gain - d_mean - (x - mean) * scale * along);
    }
}

#[inline(always)]
fn rotate_halves_of<const FMA: bool>(
    row: &mut [f32],
    width: usize,
    cos: &[f32],
    sin: &[f32],
    backward: bool,
) {
    let sign = if backward { -1.0 } else { 1.0 };
    for head in row.chunks_exact_mut(width) {
        let (first, second) = head.split_at_mut(cos.len());
        for (((a, b), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            let sin = sign * sin;
            (*a, *b) = (fma::<FMA>(*a, cos, -(*b * sin)), fma::<FMA>(*b, cos, *a * sin));
        }
    }
}

#[inline(always)]
fn rotate_interleaved_of<const FMA: bool>(
    row: &mut [f32],
    width: usize,
    cos: &[f32],
    sin: &[f32],
    backward: bool,
) {
    let sign = if backward { -1.0 } else { 1.0 };
    for head in row.chunks_exact_mut(width) {
        for (([a, b], &cos), &sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
            let sin = sign * sin;
            (*a, *b) = (fma::<FMA>(*a, cos, -(*b * sin)), fma::<FMA>(*b, cos, *a * sin));
        }
    }
}

/// f(x), with the exponential that vectorises if the function allows it.
#[inline(always)]
fn value<const FMA: bool>(function: Function, x: f32) -> f32 {
    match function {
        Function::Silu => x / (1.0 + exp::<FMA>(-x)),
        Function::GeluTanh => x / (1.0 + exp::<FMA>(-2.0 * gelu_inner(x))),
        Function::Gelu | Function::Relu => function.value(x),
    }
}

/// f(x) and f′(x), likewise; one exponential for both.
#[inline(always)]
fn value_and_derivative<const FMA: bool>(function: Function, x: f32) -> (f32, f32) {
    match function {
        Function::Silu => {
            let s = 1.0 / (1.0 + exp::<FMA>(-x));
            (x * s, s * (1.0 + x * (1.0 - s)))
        }
        Function::GeluTanh => {
            // ½ (1 + tanh u) = σ(2u), so f = x σ(2u) and f′ = σ + x σ (1 − σ) 2u′.
            let s = 1.0 / (1.0 + exp::<FMA>(-2.0 * gelu_inner(x)));
            let d_inner = SQRT_2_OVER_PI * (1.0 + 3.0 * GELU_CUBIC * x * x);
            (x * s, s + x * s * (1.0 - s) * 2.0 * d_inner)
        }
        Function::Gelu | Function::Relu => (function.value(x), function.derivative(x)),
    }
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const GELU_CUBIC: f32 = 0.044_715;

#[inline(always)]
fn gelu_inner(x: f32) -> f32 {
    SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x)
}

/// Runs `$loop::<FMA, F>(…)` with the function as a constant `F`: a loop over a single function vectorises.
macro_rules! for_function {
    ($function:expr, $run:ident::<$fma:ident>($($arg:expr),*)) => {
        match $function {
            Function::Silu => $run::<$fma, { Function::Silu as u8 }>($($arg),*),
            Function::Gelu => $run::<$fma, { Function::Gelu as u8 }>($($arg),*),
            Function::GeluTanh => $run::<$fma, { Function::GeluTanh as u8 }>($($arg),*),
            Function::Relu => $run::<$fma, { Function::Relu as u8 }>($($arg),*),
        }
    };
}

/// The function of that number.
const fn function_of(number: u8) -> Function {
    const SILU: u8 = Function::Silu as u8;
    const GELU: u8 = Function::Gelu as u8;
    const GELU_TANH: u8 = Function::GeluTanh as u8;
    match number {
        SILU => Function::Silu,
        GELU => Function::Gelu,
        GELU_TANH => Function::GeluTanh,
        _ => Function::Relu,
    }
}

#[inline(always)]
fn activate_row_of<const FMA: bool>(x: &[f32], activation: Activation, y: &mut [f32]) {
    for_function!(activation.function, activated::<FMA>(x, activation.gated, y));
}

#[inline(always)]
fn activated<const FMA: bool, const F: u8>(x: &[f32], gated: bool, y: &mut [f32]) {
    let (gates, values) = if gated { x.split_at(x.len() / 2) } else { (x, &[][..]) };
    for (y, &x) in y.iter_mut().zip(gates) {
        *y = value::<FMA>(function_of(F), x);
    }
    for (y, &x) in y.iter_mut().zip(values) {
        *y *= x;
    }
}

#[inline(always)]
fn activate_gradient_row_of<const FMA: bool>(x: &[f32], activation: Activation, dy: &[f32], dx: &mut [f32]) {
    if activation.gated {
        for_function!(activation.function, gated_gradient::<FMA>(x, dy, dx));
    } else {
        for_function!(activation.function, plain_gradient::<FMA>(x, dy, dx));
    }
}

#[inline(always)]
fn plain_gradient<const FMA: bool, const F: u8>(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
        *dx = dy * value_and_derivative::<FMA>(function_of(F), x).1;
    }
}

#[inline(always)]
fn gated_gradient<const FMA: bool, const F: u8>(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let n = x.len() / 2;
    let (gates, values) = x.split_at(n);
    let (d_gates, d_values) = dx.split_at_mut(n);
    // Slices of one length, whose bounds are checked once.
    let (values, dy, d_values) = (&values[..n], &dy[..n], &mut d_values[..n]);
    let (gates, d_gates) = (&gates[..n], &mut d_gates[..n]);
    for i in 0..n {
        let (value, derivative) = value_and_derivative::<FMA>(function_of(F), gates[i]);
        d_gates[i] = dy[i] * values[i] * derivative;
        d_values[i] = dy[i] * value;
    }
}
