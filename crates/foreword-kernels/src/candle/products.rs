//! Frozen matrices on a device, in their file's format (block formats dequantised to single precision), and their products in
//! single precision.

use candle_core::{DType, Device, Result, Tensor};

use super::{Candle, DeviceRows};
use crate::backend::{Backend as _, Token};
use crate::dtype::Dtype;
use crate::rows::RowBlock;
use crate::weights::Weights;

/// A frozen matrix `[rows, cols]`.
#[derive(Debug)]
pub struct DeviceMatrix {
    /// Its blocks; neighbours of the same format are concatenated.
    parts: Vec<Tensor>,
    rows: usize,
    cols: usize,
}

impl DeviceMatrix {
    pub(super) fn new(blocks: &[Weights], device: &Device) -> Result<Self> {
        let cols = blocks.first().map_or(0, Weights::cols);
        assert!(blocks.iter().all(|block| block.cols() == cols), "stacked matrices differ in width");
        let same = blocks.chunk_by(|a, b| a.dtype() == b.dtype());
        let parts = same.map(|blocks| part(blocks, cols, device)).collect::<Result<_>>()?;
        Ok(Self { parts, rows: blocks.iter().map(Weights::rows).sum(), cols })
    }

    /// V, its rows.
    pub(super) fn n_rows(&self) -> usize {
        self.rows
    }

    /// Pieces of at most `max_rows` rows, in order, each widened when it is reached.
    pub(super) fn pieces(&self, max_rows: usize) -> impl Iterator<Item = Result<Tensor>> {
        self.parts.iter().flat_map(move |part| {
            let n = part.dims()[0];
            (0..n)
                .step_by(max_rows)
                .map(move |start| part.narrow(0, start, max_rows.min(n - start))?.to_dtype(DType::F32))
        })
    }

    /// The rows of these entries, `[tokens.len(), cols]`. There must be at least one.
    pub(super) fn entries(&self, candle: &Candle, tokens: impl Iterator<Item = Token>) -> Result<Tensor> {
        let tokens: Vec<usize> = tokens.map(|token| token as usize).collect();
        assert!(tokens.iter().all(|&token| token < self.rows), "a token is not below {}", self.rows);
        let indices = candle.indices(tokens)?;
        match &self.parts[..] {
            [table] => table.index_select(&indices, 0)?.to_dtype(DType::F32),
            _ => Tensor::cat(&self.pieces(self.rows).collect::<Result<Vec<_>>>()?, 0)?
                .index_select(&indices, 0),
        }
    }
}

/// Blocks of one format as one tensor.
fn part(blocks: &[Weights], cols: usize, device: &Device) -> Result<Tensor> {
    let rows: usize = blocks.iter().map(Weights::rows).sum();
    let dtype = match blocks.first().map(Weights::dtype) {
        Some(Dtype::Bf16) => DType::BF16,
        Some(Dtype::F16) => DType::F16,
        Some(dtype) if dtype.has_blocks() => {
            let values: Vec<f32> = blocks.iter().flat_map(|block| block.to_f32().into_owned()).collect();
            return Tensor::from_vec(values, (rows, cols), device);
        }
        _ => DType::F32,
    };
    match blocks {
        [block] => Tensor::from_raw_buffer(&block.to_row_major(), dtype, &[rows, cols], device),
        _ => {
            let bytes: Vec<u8> = blocks.iter().map(Weights::to_row_major).collect::<Vec<_>>().concat();
            Tensor::from_raw_buffer(&bytes, dtype, &[rows, cols], device)
        }
    }
}

impl Candle {
    pub(super) fn embedded(&self, table: &DeviceMatrix, tokens: &[Token]) -> Result<DeviceRows> {
        if tokens.is_empty() {
            return Ok(DeviceRows::new(None, table.cols));
        }
        DeviceRows::of(table.entries(self, tokens.iter().copied())?)
    }

    /// Rows of a matrix whose widened copy, if one is needed, is within the scratch limit.
    pub(super) fn piece(&self, matrix: &DeviceMatrix) -> usize {
        if matrix.parts.iter().all(|part| part.dtype() == DType::F32) {
            matrix.rows.max(1)
        } else {
            (self.scratch_limit / matrix.cols.max(1)).max(1)
        }
    }

    pub(super) fn product(
        &self,
        x: &DeviceRows,
        weight: &DeviceMatrix,
        bias: Option<&Tensor>,
    ) -> Result<DeviceRows> {
        let Some(x) = x.tensor() else { return Ok(DeviceRows::new(None, weight.rows)) };
        let pieces = weight.pieces(self.piece(weight));
        let outputs = pieces.map(|piece| x.matmul(&piece?.t()?)).collect::<Result<Vec<_>>>()?;
        let y = match &outputs[..] {
            [only] => only.clone(),
            _ => Tensor::cat(&outputs, 1)?,
        };
        DeviceRows::of(match bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }

    pub(super) fn product_gradient(
        &self,
        dy: &DeviceRows,
        weight: &DeviceMatrix,
        dx: Option<DeviceRows>,
    ) -> Result<DeviceRows> {
        let mut dx = dx.unwrap_or_else(|| self.zeros(dy.n_rows(), weight.cols));
        assert_eq!(dy.n_rows(), dx.n_rows(), "gradients of a product differ in rows");
        let Some(dy) = dy.tensor() else { return Ok(dx) };
        let mut start = 0;
        for piece in weight.pieces(self.piece(weight)) {
            let piece = piece?;
            let n = piece.dims()[0];
            let part = dy.narrow(1, start, n)?.contiguous()?;
            dx.add(Some(&part.matmul(&piece)?))?;
            start += n;
        }
        Ok(dx)
    }
}
