//! Frozen matrices as they lie in a file: shared bytes, a number format and a shape.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use half::{bf16, f16};

/// How a number of a frozen matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// The upper half of an IEEE single.
    Bf16,
    /// IEEE half precision.
    F16,
    /// Blocks of 32: eight bits each and a scale.
    Q8_0,
    /// Blocks of 256: six bits each, and a scale for every 16.
    Q6K,
    /// Blocks of 256: five bits each, and a scale and a minimum for every 32.
    Q5K,
    /// Blocks of 256: four bits each, and a scale and a minimum for every 32.
    Q4K,
    /// Blocks of 32: five bits each and a scale.
    Q5_0,
    /// Blocks of 32: four bits each and a scale.
    Q4_0,
}

impl Dtype {
    /// Every format, single numbers first.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::Bf16,
        Self::F16,
        Self::Q8_0,
        Self::Q6K,
        Self::Q5K,
        Self::Q4K,
        Self::Q5_0,
        Self::Q4_0,
    ];

    /// The smallest unit of a row: how many neighbouring numbers it holds, and in how many bytes.
    #[must_use]
    pub const fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::Bf16 | Self::F16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q6K => (256, 210),
            Self::Q5K => (256, 176),
            Self::Q4K => (256, 144),
            Self::Q5_0 => (32, 22),
            Self::Q4_0 => (32, 18),
        }
    }

    /// Whether numbers are stored in blocks that share their scales.
    #[must_use]
    pub const fn has_blocks(self) -> bool {
        self.block().0 > 1
    }

    /// Bytes of `n` numbers of a row; `None` where they are no whole blocks, or too many to count.
    #[must_use]
    pub fn bytes(self, n: usize) -> Option<usize> {
        let (numbers, bytes) = self.block();
        if n.is_multiple_of(numbers) { (n / numbers).checked_mul(bytes) } else { None }
    }

    /// The name used in files and messages: `f32`, `bf16`, `f16`, `q8_0`, `q6_k`, `q5_k`, `q4_k`, `q5_0`,
    /// `q4_0`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q6K => "q6_k",
            Self::Q5K => "q5_k",
            Self::Q4K => "q4_k",
            Self::Q5_0 => "q5_0",
            Self::Q4_0 => "q4_0",
        }
    }

    /// Where its bytes must begin.
    const fn alignment(self) -> usize {
        if self.has_blocks() { 1 } else { self.block().1 }
    }
}

/// Bytes and shape of a frozen matrix disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WeightsError {
    /// Stated shape, rows and columns.
    pub shape: (usize, usize),
    /// Stated number format.
    pub dtype: Dtype,
    /// Bytes that were given.
    pub n_bytes: usize,
}

impl std::fmt::Display for WeightsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shape: (rows, cols), dtype, n_bytes } = self;
        write!(f, "a {} matrix of shape [{rows}, {cols}] can't be made from {n_bytes} bytes", dtype.name())
    }
}

impl std::error::Error for WeightsError {}

/// A frozen matrix `[rows, cols]`, in the format of its file. It is stored in lines: its rows, or its columns where it is
/// the transpose of what the file holds.
#[derive(Clone, Debug)]
pub struct Weights {
    bytes: Bytes,
    dtype: Dtype,
    rows: usize,
    cols: usize,
    /// Lines are columns.
    turned: bool,
    /// Bytes of a line.
    line_size: usize,
    /// Bytes from one line to the next.
    stride: usize,
    /// Width of the heads whose rows are stored by pairs.
    paired: Option<usize>,
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
    /// A matrix over shared bytes; little-endian, as safetensors stores it. Bytes that lie at an odd address for their
    /// format are copied, all others are shared.
    ///
    /// # Errors
    /// If the bytes are not exactly `rows · cols` numbers, or a row is no whole number of blocks.
    pub fn new(bytes: Bytes, dtype: Dtype, rows: usize, cols: usize) -> Result<Self, WeightsError> {
        let n_bytes = bytes.len();
        let line_size = dtype.bytes(cols).filter(|line| line.checked_mul(rows) == Some(n_bytes));
        let line_size = line_size.ok_or(WeightsError { shape: (rows, cols), dtype, n_bytes })?;
        let aligned = bytes.as_ptr().addr().is_multiple_of(dtype.alignment());
        let bytes = if aligned { bytes } else { Aligned::copy(&bytes) };
        Ok(Self { bytes, dtype, rows, cols, turned: false, line_size, stride: line_size, paired: None })
    }

    /// An owned single-precision matrix `[values.len() / cols, cols]`.
    ///
    /// # Panics
    /// If `values` is not a whole number of rows.
    #[must_use]
    pub fn from_f32(values: &[f32], cols: usize) -> Self {
        assert!(
            cols > 0 && values.len().is_multiple_of(cols),
            "{} values are no rows of {cols}",
            values.len()
        );
        let bytes = Aligned::copy(bytemuck::cast_slice(values));
        let (dtype, rows, line_size) = (Dtype::F32, values.len() / cols, 4 * cols);
        Self { bytes, dtype, rows, cols, turned: false, line_size, stride: line_size, paired: None }
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

    /// Its numbers row after row in the stored format, which has no blocks: the bytes that hold it, or a copy where they lie
    /// otherwise.
    #[cfg(feature = "candle")]
    pub(crate) fn packed(&self) -> Cow<'_, [u8]> {
        if !self.turned && self.stride == self.line_size && self.paired.is_none() {
            return Cow::Borrowed(self.bytes());
        }
        let size = self.dtype.block().1;
        let mut packed = Vec::with_capacity(self.rows * self.cols * size);
        for row in 0..self.rows {
            for col in 0..self.cols {
                let (line, at) = if self.turned { (col, row) } else { (row, col) };
                packed.extend_from_slice(&self.line_bytes(line)[at * size..(at + 1) * size]);
            }
        }
        Cow::Owned(packed)
    }

    /// Whether its columns lie together, not its rows.
    pub(crate) fn is_turned(&self) -> bool {
        self.turned
    }

    /// The bytes of line `line`, a row or, where the matrix is turned, a column.
    pub(crate) fn line_bytes(&self, line: usize) -> &[u8] {
        let line = match self.paired {
            None => line,
            Some(width) => {
                let (first, i, half) = (line - line % width, line % width, width / 2);
                first + 2 * (i % half) + i / half
            }
        };
        &self.bytes[line * self.stride..][..self.line_size]
    }

    /// Writes the numbers `range` of line `line` to `to`, widened to single precision (exact for every format).
    pub(crate) fn read_line(&self, line: usize, range: Range<usize>, to: &mut [f32]) {
        let line = self.line_bytes(line);
        match self.dtype {
            Dtype::F32 => to.copy_from_slice(&bytemuck::cast_slice(line)[range]),
            Dtype::Bf16 => {
                let from: &[u16] = &bytemuck::cast_slice(line)[range];
                for (to, &from) in to.iter_mut().zip(from) {
                    *to = f32::from_bits(u32::from(from) << 16);
                }
            }
            Dtype::F16 => {
                let from: &[f16] = &bytemuck::cast_slice(line)[range];
                half::slice::HalfFloatSliceExt::convert_to_f32_slice(from, to);
            }
            blocks => crate::blocks::read(blocks, line, range, to),
        }
    }

    /// Writes the numbers `cols` of row `row` to `to`, widened to single precision (exact for every format).
    pub fn read(&self, row: usize, cols: Range<usize>, to: &mut [f32]) {
        assert!(
            row < self.rows && cols.end <= self.cols,
            "row {row}, columns {cols:?} of {:?}",
            self.shape()
        );
        if self.turned {
            for (col, to) in cols.zip(to) {
                self.read_line(col, row..row + 1, std::slice::from_mut(to));
            }
        } else {
            self.read_line(row, cols, to);
        }
    }

    /// The whole matrix in single precision, row after row, borrowed where it is stored so.
    #[must_use]
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        if self.dtype == Dtype::F32 && !self.turned && self.paired.is_none() {
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
    /// If it is stored in blocks, which lie along its rows, or its rows by pairs.
    #[must_use]
    pub fn transposed(&self) -> Self {
        assert!(!self.dtype.has_blocks(), "the transpose of a {} matrix", self.dtype.name());
        assert!(self.paired.is_none(), "the transpose of rows that are stored by pairs");
        Self { rows: self.cols, cols: self.rows, turned: !self.turned, ..self.clone() }
    }

    /// The same memory, where the rows of each head of width `width` are stored by pairs: as row 0, 1, … of a head comes what
    /// is stored as its row 0, 2, …, then 1, 3, …. That is how GGUF files of Llama order queries and keys, for rotary positions
    /// that turn neighbours; here a number is turned with the one half a head away.
    ///
    /// # Panics
    /// If the width is odd, the rows are no whole heads, or the matrix is a transpose or already so.
    #[must_use]
    pub fn by_pairs(self, width: usize) -> Self {
        assert!(width > 0 && width.is_multiple_of(2) && self.rows.is_multiple_of(width), "heads of {width}");
        assert!(!self.turned && self.paired.is_none(), "rows by pairs, of a transpose or twice");
        Self { paired: Some(width), ..self }
    }

    /// The same with its rows as lines: itself, or an owned copy in single precision.
    pub(crate) fn in_rows(self) -> Self {
        if self.turned { Self::from_f32(&self.to_f32(), self.cols) } else { self }
    }

    /// The rows `range`, sharing their memory.
    ///
    /// # Panics
    /// If the range leaves the matrix, or cuts a head whose rows are stored by pairs.
    #[must_use]
    pub fn row_range(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {:?}", self.shape());
        let cut = |row: usize| self.paired.is_some_and(|width| !row.is_multiple_of(width));
        assert!(!cut(range.start) && !cut(range.end), "rows {range:?} cut a head");
        let (bytes, line_size) = if self.turned {
            let size = self.dtype.block().1;
            let last_line = self.cols.saturating_sub(1) * self.stride;
            (range.start * size..last_line + range.end * size, range.len() * size)
        } else {
            (range.start * self.stride..range.end * self.stride, self.line_size)
        };
        let bytes = self.bytes.slice(bytes.start.min(self.bytes.len())..bytes.end.min(self.bytes.len()));
        Self { bytes, rows: range.len(), line_size, ..self.clone() }
    }

    /// The number nearest to `value` that bf16 can hold, as its bits: the form in which tables of different formats are
    /// compared.
    #[must_use]
    pub fn bf16_bits(value: f32) -> u16 {
        bf16::from_f32(value).to_bits()
    }

    fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }
}
