//! A frozen matrix as products see it: lines in their stored format, which are rows or columns.

use std::ops::Range;

use super::{Side, unpacked};
use crate::cpu::code_path::CodePath;
use crate::weights::{Dtype, Weights};

/// A frozen matrix `[out, in]`, stacked from blocks that stay where they are, line by line: rows of the matrix or, where it
/// is stored transposed, its columns.
#[derive(Debug)]
pub struct FrozenMatrix {
    blocks: Vec<Weights>,
    rows: usize,
    /// Lines are columns; then there is one block.
    pub(super) turned: bool,
    /// The format of all blocks, where it is the same.
    dtype: Option<Dtype>,
    /// Products with it are in bf16.
    pub(super) pairs: bool,
    /// On which blocks are unpacked.
    path: CodePath,
}

impl FrozenMatrix {
    pub(in crate::cpu) fn new(
        path: CodePath,
        blocks: Vec<Weights>,
        product: impl Fn(Dtype) -> Dtype,
    ) -> Self {
        let rows = blocks.iter().map(Weights::rows).sum();
        assert!(blocks.windows(2).all(|b| b[0].cols() == b[1].cols()), "stacked blocks differ in width");
        let turned = blocks.len() == 1 && blocks[0].is_turned();
        // No family stacks blocks that are stored transposed.
        let blocks = if turned { blocks } else { blocks.into_iter().map(Weights::in_rows).collect() };
        let dtype = blocks[0].dtype();
        let dtype = blocks.iter().all(|block| block.dtype() == dtype).then_some(dtype);
        let pairs = blocks.iter().all(|block| product(block.dtype()) == Dtype::Bf16);
        Self { blocks, rows, turned, dtype, pairs, path }
    }

    pub(in crate::cpu) fn rows(&self) -> usize {
        self.rows
    }

    pub(in crate::cpu) fn cols(&self) -> usize {
        self.blocks[0].cols()
    }

    /// The block that line `line` of the whole lies in, and its place there.
    pub(super) fn locate(&self, line: usize) -> (&Weights, usize) {
        if self.turned {
            return (&self.blocks[0], line);
        }
        let mut line = line;
        for block in &self.blocks {
            if line < block.rows() {
                return (block, line);
            }
            line -= block.rows();
        }
        unreachable!("row beyond the {} of the matrix", self.rows);
    }

    pub(super) fn n_lines(&self) -> usize {
        if self.turned { self.cols() } else { self.rows }
    }

    pub(super) fn dtype(&self) -> Option<Dtype> {
        self.dtype
    }

    /// Line `line` as stored.
    pub(super) fn line(&self, line: usize) -> (Dtype, &[u8]) {
        let (block, line) = self.locate(line);
        (block.dtype(), block.line_bytes(line))
    }

    /// The numbers `range` of line `line`, widened.
    pub(super) fn read_line(&self, line: usize, range: Range<usize>, to: &mut [f32]) {
        let (block, line) = self.locate(line);
        if block.dtype().has_blocks() {
            unpacked::read(self.path, block.dtype(), block.line_bytes(line), range, to);
        } else {
            block.read_line(line, range, to);
        }
    }

    /// Row `row`, widened.
    pub(in crate::cpu) fn read_row(&self, row: usize, to: &mut [f32]) {
        if self.turned {
            self.blocks[0].read(row, 0..self.cols(), to);
        } else {
            self.read_line(row, 0..self.cols(), to);
        }
    }

    /// Whether products with it are in bf16.
    pub(in crate::cpu) fn is_rounded(&self) -> bool {
        self.pairs
    }

    /// As the right-hand side of x Wᵀ.
    pub(super) fn outputs(&self) -> Side<'_> {
        if self.turned { Side::Terms(self) } else { Side::Columns(self) }
    }

    /// As the right-hand side of dy W.
    pub(super) fn inputs(&self) -> Side<'_> {
        if self.turned { Side::Columns(self) } else { Side::Terms(self) }
    }
}
