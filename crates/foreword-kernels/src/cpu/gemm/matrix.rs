//! A frozen matrix as products read it: in its stored format and order.

use std::ops::Range;

use crate::blocks;
use crate::cpu::code_path::CodePath;
use crate::cpu::lanes::per_path;
use crate::dtype::Dtype;
use crate::weights::Weights;

/// A frozen matrix `[out, in]`, stacked from blocks that stay where they are. It is read by *stored rows*: rows of the
/// matrix or, if it is stored transposed, its columns.
#[derive(Debug)]
pub struct FrozenMatrix {
    blocks: Vec<Weights>,
    rows: usize,
    /// Stored rows are columns. Then there is one block.
    transposed: bool,
    /// The format of all blocks, if it is the same.
    dtype: Option<Dtype>,
    /// Products with it are computed in bf16.
    computes_in_bf16: bool,
    /// The code path that dequantises blocks.
    path: CodePath,
}

/// The right-hand side of a product, by the order in which it is stored.
#[derive(Clone, Copy)]
pub(super) enum Rhs<'a> {
    /// `[n, k]`: a stored row is a column of the product.
    Transposed(&'a FrozenMatrix),
    /// `[k, n]`: a stored row holds one k.
    Plain(&'a FrozenMatrix),
}

impl<'a> Rhs<'a> {
    pub(super) fn matrix(self) -> &'a FrozenMatrix {
        let (Self::Transposed(matrix) | Self::Plain(matrix)) = self;
        matrix
    }
}

impl FrozenMatrix {
    /// Stacks blocks. `product_dtype` says in what dtype products with a block of a stored dtype are computed.
    pub(in crate::cpu) fn new(
        path: CodePath,
        blocks: Vec<Weights>,
        product_dtype: impl Fn(Dtype) -> Dtype,
    ) -> Self {
        let rows = blocks.iter().map(Weights::rows).sum();
        assert!(blocks.windows(2).all(|b| b[0].cols() == b[1].cols()), "stacked blocks differ in width");
        let transposed = blocks.len() == 1 && blocks[0].is_transposed();
        // No family stacks blocks that are stored transposed.
        let blocks =
            if transposed { blocks } else { blocks.into_iter().map(Weights::into_row_major).collect() };
        let dtype = blocks[0].dtype();
        let dtype = blocks.iter().all(|block| block.dtype() == dtype).then_some(dtype);
        let computes_in_bf16 = blocks.iter().all(|block| product_dtype(block.dtype()) == Dtype::Bf16);
        Self { blocks, rows, transposed, dtype, computes_in_bf16, path }
    }

    pub(in crate::cpu) fn rows(&self) -> usize {
        self.rows
    }

    pub(in crate::cpu) fn cols(&self) -> usize {
        self.blocks[0].cols()
    }

    /// Numbers of stored rows, and numbers in each.
    pub(super) fn stored_shape(&self) -> (usize, usize) {
        if self.transposed { (self.cols(), self.rows) } else { (self.rows, self.cols()) }
    }

    pub(super) fn dtype(&self) -> Option<Dtype> {
        self.dtype
    }

    /// The block that holds stored row `row`, and the row's index in it.
    fn locate(&self, row: usize) -> (&Weights, usize) {
        if self.transposed {
            return (&self.blocks[0], row);
        }
        let mut row = row;
        for block in &self.blocks {
            if row < block.rows() {
                return (block, row);
            }
            row -= block.rows();
        }
        unreachable!("row beyond the {} of the matrix", self.rows);
    }

    /// Stored row `row`, as it is stored.
    pub(super) fn stored_row(&self, row: usize) -> (Dtype, &[u8]) {
        let (block, row) = self.locate(row);
        (block.dtype(), block.stored_row(row))
    }

    /// The numbers `range` of stored row `row`, widened to single precision.
    pub(super) fn read_stored_row(&self, row: usize, range: Range<usize>, to: &mut [f32]) {
        let (block, row) = self.locate(row);
        if block.dtype().has_blocks() {
            dequantize(self.path, block.dtype(), block.stored_row(row), range, to);
        } else {
            block.read_stored_row(row, range, to);
        }
    }

    /// Row `row`, widened to single precision.
    pub(in crate::cpu) fn read_row(&self, row: usize, to: &mut [f32]) {
        if self.transposed {
            self.blocks[0].read(row, 0..self.cols(), to);
        } else {
            self.read_stored_row(row, 0..self.cols(), to);
        }
    }

    /// Whether products with it are computed in bf16.
    pub(in crate::cpu) fn computes_in_bf16(&self) -> bool {
        self.computes_in_bf16
    }

    /// The right-hand side of x Wᵀ.
    pub(super) fn forward(&self) -> Rhs<'_> {
        if self.transposed { Rhs::Plain(self) } else { Rhs::Transposed(self) }
    }

    /// The right-hand side of dy W.
    pub(super) fn backward(&self) -> Rhs<'_> {
        if self.transposed { Rhs::Transposed(self) } else { Rhs::Plain(self) }
    }
}

per_path!(fn dequantize = dequantize_of(dtype: Dtype, row: &[u8], range: Range<usize>, to: &mut [f32]));

/// Writes the numbers `range` of a row that is stored in blocks.
#[inline(always)]
fn dequantize_of<const FMA: bool>(dtype: Dtype, row: &[u8], range: Range<usize>, to: &mut [f32]) {
    blocks::read(dtype, row, range, to);
}
