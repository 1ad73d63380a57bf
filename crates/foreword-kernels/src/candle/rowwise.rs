//! Norms, rotary positions and activations: elementwise operations on each row.

use candle_core::{Device, Result, Tensor};

use super::DeviceRows;
use crate::backend::{Activation, Direction, Function, Norm, NormKind, Pairing, RotaryAngles};
use crate::functions::{GELU_CUBIC, SQRT_2_OVER_PI};
use crate::rows::RowBlock;

/// (x − mean, 1 / standard deviation `[N, 1]`).
fn statistics(x: &Tensor, kind: NormKind) -> Result<(Tensor, Tensor)> {
    let (centred, eps) = match kind {
        NormKind::Rms { eps } => (x.clone(), eps),
        NormKind::Layer { eps } => (x.broadcast_sub(&x.mean_keepdim(1)?)?, eps),
    };
    let scale = (centred.sqr()?.mean_keepdim(1)? + eps)?.sqrt()?.recip()?;
    Ok((centred, scale))
}

pub(super) fn norm(x: &DeviceRows, norm: &Norm<Tensor>) -> Result<DeviceRows> {
    let Some(tensor) = x.tensor() else { return Ok(x.clone()) };
    let (centred, scale) = statistics(tensor, norm.kind)?;
    let y = centred.broadcast_mul(&scale)?.broadcast_mul(&norm.gain)?;
    DeviceRows::of(match &norm.bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    })
}

pub(super) fn norm_gradient(
    x: &DeviceRows,
    norm: &Norm<Tensor>,
    dy: &DeviceRows,
    dx: &mut DeviceRows,
) -> Result<()> {
    let (Some(x), Some(dy)) = (x.tensor(), dy.tensor()) else { return Ok(()) };
    let (centred, scale) = statistics(x, norm.kind)?;
    let normed = centred.broadcast_mul(&scale)?;
    let d = dy.broadcast_mul(&norm.gain)?;
    dx.add(Some(&through_statistics(&normed, &scale, &d, norm.kind)?))
}

pub(super) fn scale(x: &mut DeviceRows, factor: f32) -> Result<()> {
    if let Some(tensor) = x.tensor() {
        *x = DeviceRows::of((tensor * f64::from(factor))?)?;
    }
    Ok(())
}

/// The first `n_heads` heads of each row as rows of their own, `[N · n_heads, width]`.
fn heads(x: &Tensor, n_heads: usize, width: usize) -> Result<Tensor> {
    let n = x.dims()[0];
    x.narrow(1, 0, n_heads * width)?.contiguous()?.reshape((n * n_heads, width))
}

/// Puts such rows in the place of a row's first heads.
fn in_place(rows: &Tensor, x: &Tensor, end: usize) -> Result<DeviceRows> {
    let width = x.dims()[1];
    let rows = rows.reshape((x.dims()[0], end))?;
    let whole = if end < width { Tensor::cat(&[rows, x.narrow(1, end, width - end)?], 1)? } else { rows };
    DeviceRows::of(whole)
}

pub(super) fn norm_heads(
    x: &DeviceRows,
    n_heads: usize,
    width: usize,
    norm: &Norm<Tensor>,
) -> Result<DeviceRows> {
    let Some(tensor) = x.tensor() else { return Ok(x.clone()) };
    let (centred, scale) = statistics(&heads(tensor, n_heads, width)?, norm.kind)?;
    let normed = centred.broadcast_mul(&scale)?.reshape((x.n_rows(), n_heads * width))?;
    let y = normed.broadcast_mul(&norm.gain)?;
    let y = match &norm.bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    in_place(&y, tensor, n_heads * width)
}

pub(super) fn norm_heads_gradient(
    x: &DeviceRows,
    n_heads: usize,
    width: usize,
    norm: &Norm<Tensor>,
    dy: &DeviceRows,
) -> Result<DeviceRows> {
    let (Some(x), Some(dy)) = (x.tensor(), dy.tensor()) else { return Ok(dy.clone()) };
    let (centred, scale) = statistics(&heads(x, n_heads, width)?, norm.kind)?;
    let d = dy.narrow(1, 0, n_heads * width)?.broadcast_mul(&norm.gain)?;
    let dx =
        through_statistics(&centred.broadcast_mul(&scale)?, &scale, &heads(&d, n_heads, width)?, norm.kind)?;
    in_place(&dx, dy, n_heads * width)
}

/// From the gradient of normed numbers, before gain and bias, to that of what was normed.
fn through_statistics(normed: &Tensor, scale: &Tensor, d: &Tensor, kind: NormKind) -> Result<Tensor> {
    let d_scale = d.mul(normed)?.mean_keepdim(1)?;
    let through = match kind {
        NormKind::Rms { .. } => d.clone(),
        NormKind::Layer { .. } => d.broadcast_sub(&d.mean_keepdim(1)?)?,
    };
    through.sub(&normed.broadcast_mul(&d_scale)?)?.broadcast_mul(scale)
}

/// Rotary angles on a device, each `[N, 1, half]`.
#[derive(Debug)]
pub(super) struct DeviceAngles {
    cos: Tensor,
    sin: Tensor,
    half: usize,
    pairing: Pairing,
}

impl DeviceAngles {
    pub(super) fn new(angles: &RotaryAngles, device: &Device) -> Result<Self> {
        let n = angles.cos.len() / angles.half.max(1);
        let tensor = |values: &[f32]| Tensor::from_slice(values, (n, 1, angles.half), device);
        Ok(Self {
            cos: tensor(&angles.cos)?,
            sin: tensor(&angles.sin)?,
            half: angles.half,
            pairing: angles.pairing,
        })
    }
}

pub(super) fn rotate(
    x: &mut DeviceRows,
    n_heads: usize,
    head_width: usize,
    angles: &DeviceAngles,
    direction: Direction,
) -> Result<()> {
    let (n, width) = (x.n_rows(), x.width());
    let Some(tensor) = x.tensor() else { return Ok(()) };
    let (half, rotated) = (angles.half, n_heads * head_width);
    let heads = tensor.narrow(1, 0, rotated)?.contiguous()?.reshape((n, n_heads, head_width))?;
    let (a, b) = match angles.pairing {
        Pairing::Halves => (heads.narrow(2, 0, half)?, heads.narrow(2, half, half)?),
        Pairing::Interleaved => {
            let pairs = heads.narrow(2, 0, 2 * half)?.reshape((n, n_heads, half, 2))?;
            let member = |i: usize| pairs.narrow(3, i, 1)?.squeeze(3)?.contiguous();
            (member(0)?, member(1)?)
        }
    };
    let (a_cos, a_sin) = (a.broadcast_mul(&angles.cos)?, a.broadcast_mul(&angles.sin)?);
    let (b_cos, b_sin) = (b.broadcast_mul(&angles.cos)?, b.broadcast_mul(&angles.sin)?);
    let (a, b) = match direction {
        Direction::Forward => (a_cos.sub(&b_sin)?, b_cos.add(&a_sin)?),
        Direction::Backward => (a_cos.add(&b_sin)?, b_cos.sub(&a_sin)?),
    };
    let mut parts = match angles.pairing {
        Pairing::Halves => vec![a, b],
        Pairing::Interleaved => vec![Tensor::stack(&[a, b], 3)?.reshape((n, n_heads, 2 * half))?],
    };
    if 2 * half < head_width {
        parts.push(heads.narrow(2, 2 * half, head_width - 2 * half)?);
    }
    let mut y = Tensor::cat(&parts, 2)?.reshape((n, rotated))?;
    if rotated < width {
        y = Tensor::cat(&[y, tensor.narrow(1, rotated, width - rotated)?], 1)?;
    }
    *x = DeviceRows::of(y)?;
    Ok(())
}

pub(super) fn activate(x: &DeviceRows, activation: Activation) -> Result<DeviceRows> {
    let width = if activation.gated { x.width() / 2 } else { x.width() };
    let Some(tensor) = x.tensor() else { return Ok(DeviceRows::new(None, width)) };
    DeviceRows::of(if activation.gated {
        let (gate, up) = halves(tensor, width)?;
        value(activation.function, &gate)?.mul(&up)?
    } else {
        value(activation.function, tensor)?
    })
}

pub(super) fn activate_gradient(
    x: &DeviceRows,
    activation: Activation,
    dy: &DeviceRows,
) -> Result<DeviceRows> {
    let (Some(tensor), Some(dy)) = (x.tensor(), dy.tensor()) else { return Ok(x.clone()) };
    DeviceRows::of(if activation.gated {
        let (gate, up) = halves(tensor, x.width() / 2)?;
        let d_gate = dy.mul(&up)?.mul(&derivative(activation.function, &gate)?)?;
        let d_up = dy.mul(&value(activation.function, &gate)?)?;
        Tensor::cat(&[d_gate, d_up], 1)?
    } else {
        dy.mul(&derivative(activation.function, tensor)?)?
    })
}

/// Gates and values.
fn halves(x: &Tensor, width: usize) -> Result<(Tensor, Tensor)> {
    Ok((x.narrow(1, 0, width)?.contiguous()?, x.narrow(1, width, width)?.contiguous()?))
}

fn value(function: Function, x: &Tensor) -> Result<Tensor> {
    match function {
        Function::Silu => x.mul(&sigmoid(x)?),
        Function::Gelu => x.mul(&normal_distribution(x)?),
        Function::GeluTanh => x.mul(&(gelu_tanh(x)? + 1.0)?)? * 0.5,
        Function::Relu => x.relu(),
    }
}

fn derivative(function: Function, x: &Tensor) -> Result<Tensor> {
    match function {
        Function::Silu => {
            let s = sigmoid(x)?;
            s.mul(&(x.mul(&s.affine(-1.0, 1.0)?)? + 1.0)?)
        }
        Function::Gelu => {
            let density = ((x.sqr()? * -0.5)?.exp()? * (0.5 * SQRT_2_OVER_PI))?;
            normal_distribution(x)?.add(&x.mul(&density)?)
        }
        Function::GeluTanh => {
            let t = gelu_tanh(x)?;
            let d_inner = x.sqr()?.affine(3.0 * GELU_CUBIC * SQRT_2_OVER_PI, SQRT_2_OVER_PI)?;
            let curved = x.mul(&t.sqr()?.affine(-1.0, 1.0)?)?.mul(&d_inner)?;
            (t + 1.0)?.add(&curved)? * 0.5
        }
        Function::Relu => x.gt(0f32)?.to_dtype(x.dtype()),
    }
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

/// The tanh inside of the approximation of GELU.
fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    x.mul(&x.sqr()?.affine(GELU_CUBIC * SQRT_2_OVER_PI, SQRT_2_OVER_PI)?)?.tanh()
}

/// Φ(x).
fn normal_distribution(x: &Tensor) -> Result<Tensor> {
    (x * std::f64::consts::FRAC_1_SQRT_2)?.erf()?.affine(0.5, 0.5)
}
