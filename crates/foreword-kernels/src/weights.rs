//! Frozen matrices as a file stores them: shared bytes, a number format and a shape.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use half::{bf16, f16};

use crate::dtype::Dtype;

/// Bytes and shape of a frozen matrix disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WeightsError {
    /// Stated shape, rows and columns.
    pub shape: (usize, usize),
    /// Stated number format.
    pub dtype: Dtype,
    /// Bytes it was made from.
    pub n_bytes: usize,
}

impl std::fmt::Display for WeightsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shape: (rows, cols), dtype, n_bytes } = self;
        write!(f, "a {} matrix of shape [{rows}, {cols}] can't be made from {n_bytes} bytes", dtype.name())
    }
}

impl std::error::Error for WeightsError {}

/// A frozen matrix `[rows, cols]`, in the format of its file. It is stored by *stored rows*: its rows or, if it is the
/// transpose of what the file holds, its columns.
#[derive(Clone, Debug)]
pub struct Weights {
    bytes: Bytes,
    dtype: Dtype,
    rows: usize,
    cols: usize,
    /// Stored rows are columns.
    transposed: bool,
    /// Bytes of a stored row.
    row_size: usize,
    /// Bytes from one stored row to the next.
    stride: usize,
    /// Width of the heads whose rows are stored interleaved.
    interleaved: Option<usize>,
}

/// An owned copy at the alignment of the widest number format.
struct Aligned(Vec<u64>, usize);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.0)[..self.1]
    }
}

impl Aligned {
    fn copy(bytes: &[u8]) -> Bytes {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Bytes::from_owner(Self(words, bytes.len()))
    }
}

impl Weights {
    /// A matrix over shared bytes; little-endian, as safetensors stores it. Bytes are copied only if they are not aligned for
    /// their format.
    ///
    /// # Errors
    /// If the bytes are not exactly `rows · cols` numbers, or a row is not a whole number of blocks.
    pub fn new(bytes: Bytes, dtype: Dtype, rows: usize, cols: usize) -> Result<Self, WeightsError> {
        let n_bytes = bytes.len();
        let row_size = dtype.bytes(cols).filter(|size| size.checked_mul(rows) == Some(n_bytes));
        let row_size = row_size.ok_or(WeightsError { shape: (rows, cols), dtype, n_bytes })?;
        let aligned = bytes.as_ptr().addr().is_multiple_of(dtype.alignment());
        let bytes = if aligned { bytes } else { Aligned::copy(&bytes) };
        Ok(Self {
            bytes,
            dtype,
            rows,
            cols,
            transposed: false,
            row_size,
            stride: row_size,
            interleaved: None,
        })
    }

    /// An owned single-precision matrix `[values.len() / cols, cols]`.
    ///
    /// # Panics
    /// If `values` is not a whole number of rows.
    #[must_use]
    pub fn from_f32(values: &[f32], cols: usize) -> Self {
        assert!(
            cols > 0 && values.len().is_multiple_of(cols),
            "{} values are not whole rows of {cols}",
            values.len()
        );
        let bytes = Aligned::copy(bytemuck::cast_slice(values));
        let (dtype, rows, row_size) = (Dtype::F32, values.len() / cols, 4 * cols);
        Self { bytes, dtype, rows, cols, transposed: false, row_size, stride: row_size, interleaved: None }
    }

    /// Number of rows: the outputs of a linear layer, or the entries of a table.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in each row: the inputs of a linear layer.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Stored format.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The bytes that hold it, in the stored format and order.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The numbers row after row in the stored format, which has no blocks: borrowed if they are stored so.
    #[cfg(feature = "candle")]
    pub(crate) fn to_row_major(&self) -> Cow<'_, [u8]> {
        if !self.transposed && self.stride == self.row_size && self.interleaved.is_none() {
            return Cow::Borrowed(self.bytes());
        }
        let size = self.dtype.block().1;
        let mut copy = Vec::with_capacity(self.rows * self.cols * size);
        for row in 0..self.rows {
            for col in 0..self.cols {
                let (stored, at) = if self.transposed { (col, row) } else { (row, col) };
                copy.extend_from_slice(&self.stored_row(stored)[at * size..(at + 1) * size]);
            }
        }
        Cow::Owned(copy)
    }

    /// Whether stored rows are columns.
    pub(crate) fn is_transposed(&self) -> bool {
        self.transposed
    }

    /// The bytes of a stored row.
    pub(crate) fn stored_row(&self, row: usize) -> &[u8] {
        let row = match self.interleaved {
            None => row,
            Some(width) => {
                let (first, i, half) = (row - row % width, row % width, width / 2);
                first + 2 * (i % half) + i / half
            }
        };
        &self.bytes[row * self.stride..][..self.row_size]
    }

    /// Writes the numbers `range` of stored row `row` to `to`, widened to single precision (exact for every format).
    pub(crate) fn read_stored_row(&self, row: usize, range: Range<usize>, to: &mut [f32]) {
        let row = self.stored_row(row);
        match self.dtype {
            Dtype::F32 => to.copy_from_slice(&bytemuck::cast_slice(row)[range]),
            Dtype::Bf16 => {
                let from: &[u16] = &bytemuck::cast_slice(row)[range];
                for (to, &from) in to.iter_mut().zip(from) {
                    *to = f32::from_bits(u32::from(from) << 16);
                }
            }
            Dtype::F16 => {
                let from: &[f16] = &bytemuck::cast_slice(row)[range];
                half::slice::HalfFloatSliceExt::convert_to_f32_slice(from, to);
            }
            blocks => crate::blocks::read(blocks, row, range, to),
        }
    }

    /// Writes the numbers `cols` of row `row` to `to`, widened to single precision (exact for every format).
    pub fn read(&self, row: usize, cols: Range<usize>, to: &mut [f32]) {
        assert!(
            row < self.rows && cols.end <= self.cols,
            "row {row}, columns {cols:?} of {:?}",
            self.shape()
        );
        if self.transposed {
            for (col, to) in cols.zip(to) {
                self.read_stored_row(col, row..row + 1, std::slice::from_mut(to));
            }
        } else {
            self.read_stored_row(row, cols, to);
        }
    }

    /// The whole matrix in single precision, row after row; borrowed if it is stored so.
    #[must_use]
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        if self.dtype == Dtype::F32 && !self.transposed && self.interleaved.is_none() {
            return Cow::Borrowed(bytemuck::cast_slice(self.bytes()));
        }
        let mut values = vec![0.0; self.rows * self.cols];
        for (row, to) in values.chunks_exact_mut(self.cols.max(1)).enumerate() {
            self.read(row, 0..self.cols, to);
        }
        Cow::Owned(values)
    }

    /// `[cols, rows]`, sharing the memory.
    ///
    /// # Panics
    /// If it is stored in blocks, which run along its rows, or its rows are interleaved.
    #[must_use]
    pub fn transposed(&self) -> Self {
        assert!(!self.dtype.has_blocks(), "the transpose of a {} matrix", self.dtype.name());
        assert!(self.interleaved.is_none(), "the transpose of interleaved rows");
        Self { rows: self.cols, cols: self.rows, transposed: !self.transposed, ..self.clone() }
    }

    /// The same memory, read as GGUF files of Llama order the rows of queries and keys: *interleaved*, for rotary positions
    /// that rotate neighbours. Row `i` of a head of width `width` is stored as its row `2 i`, and row `width / 2 + i` as its
    /// row `2 i + 1`; in the order returned, rotary positions rotate number `i` with number `i + width / 2`.
    ///
    /// # Panics
    /// If the width is odd, the rows are not whole heads, or the matrix is a transpose or already interleaved.
    #[must_use]
    pub fn rope_interleaved(self, width: usize) -> Self {
        assert!(width > 0 && width.is_multiple_of(2) && self.rows.is_multiple_of(width), "heads of {width}");
        assert!(!self.transposed && self.interleaved.is_none(), "a transpose, or interleaved twice");
        Self { interleaved: Some(width), ..self }
    }

    /// The same matrix stored by rows: itself, or an owned copy in single precision.
    pub(crate) fn into_row_major(self) -> Self {
        if self.transposed { Self::from_f32(&self.to_f32(), self.cols) } else { self }
    }

    /// The rows `range`, sharing their memory.
    ///
    /// # Panics
    /// If the range leaves the matrix, or divides a head whose rows are interleaved.
    #[must_use]
    pub fn row_range(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {:?}", self.shape());
        let divides = |row: usize| self.interleaved.is_some_and(|width| !row.is_multiple_of(width));
        assert!(!divides(range.start) && !divides(range.end), "rows {range:?} divide a head");
        let (bytes, row_size) = if self.transposed {
            let size = self.dtype.block().1;
            let last_row = self.cols.saturating_sub(1) * self.stride;
            (range.start * size..last_row + range.end * size, range.len() * size)
        } else {
            (range.start * self.stride..range.end * self.stride, self.row_size)
        };
        let bytes = self.bytes.slice(bytes.start.min(self.bytes.len())..bytes.end.min(self.bytes.len()));
        Self { bytes, rows: range.len(), row_size, ..self.clone() }
    }

    /// The bf16 number nearest to `value`, as bits.
    #[must_use]
    pub fn bf16_bits(value: f32) -> u16 {
        bf16::from_f32(value).to_bits()
    }

    /// [`Self::bf16_bits`] of many numbers, as little-endian bytes: the form in which tables of different formats are compared.
    ///
    /// # Panics
    /// If `to` has not two bytes for each.
    pub fn bf16_bytes(values: &[f32], to: &mut [u8]) {
        let to = to.as_chunks_mut::<2>().0;
        assert_eq!(values.len(), to.len());
        // Without branches, for whole vectors: of ties the even number, and a NaN stays one.
        for (value, to) in values.iter().zip(to) {
            let bits = value.to_bits();
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            let upper = if value.is_nan() { bits >> 16 | 0x40 } else { rounded };
            *to = (upper as u16).to_le_bytes();
        }
    }

    fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }
}
