//! Matrix products with a frozen matrix, both ways: outputs x Wᵀ and input gradients dy W; in single precision or in bf16.
//!
//! The frozen matrix stays in its file's format, blocks included. A panel of it, a few tiles of `NR` columns of the product and `KC` terms
//! each, is widened into a buffer of the thread, and all rows of the other side are multiplied by it. Every number of the
//! product is one chain of multiply-adds in the order of the terms, so it depends neither on the other rows nor on the
//! threads.

mod amx;
mod eight;
mod few;
pub(super) mod fill;
mod matrix;
mod microkernel;
#[cfg(target_arch = "aarch64")]
mod neon;
pub(super) mod pairs;
mod registers;
mod shares;
mod unpacked;

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::code_path::CodePath;
use crate::rows::{RowBlock, Rows};
pub(super) use matrix::FrozenMatrix;
use microkernel::Microkernel;
use registers::{Block, block};
use shares::{Part, Shares};

/// Numbers of a cache line.
const LINE: usize = 16;
/// Terms of a tile: a panel takes 128 KiB (256 KiB with 32 columns), a share of the second-level cache.
const KC: usize = 512;
/// Tiles of a panel: neighbours in a frozen row, so that reading them uses whole cache lines, and rows of the other side
/// that are in the first-level cache meet all of them.
const PANEL: usize = 4;
/// Tiles of a panel of few rows, at most.
const PANEL_FEW_ROWS: usize = 64;
/// The same where they are brought into tile registers by way of a panel.
const PANEL_FEW_TILES: usize = 16;
/// Of a product of few rows that has no code of its own: a tile stays in the first-level cache after it was widened.
const KC_FEW_ROWS: usize = 128;
/// Panels that each thread gets at least, where there are as many.
const SHARES: usize = 4;
/// Columns of the widest tile in single precision; in bf16 they may be twice as many, with half as many units and rows.
const NR_MAX: usize = 32;
/// Rows of the largest register block.
const MR_MAX: usize = 32;

/// The right-hand side of a product: what its lines are.
#[derive(Clone, Copy)]
enum Side<'a> {
    /// Columns of the product.
    Columns(&'a FrozenMatrix),
    /// Terms of its sums.
    Terms(&'a FrozenMatrix),
}

impl<'a> Side<'a> {
    fn matrix(self) -> &'a FrozenMatrix {
        let (Self::Columns(matrix) | Self::Terms(matrix)) = self;
        matrix
    }

    /// Fills a panel: tiles `[units, width]`, one after another, of the columns `cols`; missing columns are zero.
    fn fill(
        self,
        kernel: Microkernel,
        cols: Range<usize>,
        terms: Range<usize>,
        width: usize,
        panel: &mut [f32],
    ) {
        let path = kernel.path;
        match self {
            _ if kernel.unit_terms() == 2 => pairs::fill(path, self, cols, terms, width, panel),
            Self::Terms(matrix) => fill::straight(matrix, cols, terms, width, panel),
            Self::Columns(matrix) => {
                let starts = cols.clone().step_by(width);
                for (start, tile) in starts.zip(panel.chunks_exact_mut(terms.len() * width)) {
                    let cols = start..(start + width).min(cols.end);
                    if cols.len() < width {
                        tile.fill(0.0);
                    }
                    fill::transposed(path, matrix, cols, terms.clone(), width, tile);
                }
            }
        }
    }
}

/// The left-hand side: `rows` rows of `stride` numbers.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
}

/// x Wᵀ + b, `[N, in]` by `[out, in]`, on the threads of the current pool.
pub(super) fn outputs(
    path: CodePath,
    x: &Rows<f32>,
    weight: &FrozenMatrix,
    bias: Option<&[f32]>,
) -> Rows<f32> {
    assert_eq!(x.width(), weight.cols(), "linear: shapes");
    assert!(bias.is_none_or(|bias| bias.len() == weight.rows()), "linear: bias");
    let start = bias.map_or(Start::Zero, Start::Row);
    product(Microkernel::of(path, weight), x, weight.outputs(), weight.rows(), start)
}

/// dx + dy W, `[N, out]` by `[out, in]`, on the threads of the current pool.
pub(super) fn input_gradient(
    path: CodePath,
    dy: &Rows<f32>,
    weight: &FrozenMatrix,
    dx: Option<Rows<f32>>,
) -> Rows<f32> {
    assert_eq!(dy.width(), weight.rows(), "linear gradient: shapes");
    let kernel = Microkernel::of(path, weight);
    let Some(mut dx) = dx else { return product(kernel, dy, weight.inputs(), weight.cols(), Start::Zero) };
    assert_eq!((dx.n_rows(), dx.width()), (dy.n_rows(), weight.cols()), "linear gradient: shapes");
    let left = Left { values: dy.values(), stride: dy.width() };
    let stride = dx.width();
    let to = Target::of(dx.values_mut(), stride, 0);
    parallel(kernel, left, dy.width(), weight.inputs(), Start::Add, to);
    dx
}

/// start + left · side, `[N, width]`.
#[allow(unsafe_code)]
fn product(
    kernel: Microkernel,
    left: &Rows<f32>,
    side: Side<'_>,
    width: usize,
    start: Start<'_>,
) -> Rows<f32> {
    assert!(!matches!(start, Start::Add), "nothing to add to");
    let n = left.n_rows() * width;
    let mut values = Vec::with_capacity(n);
    let to = Target { first: values.as_mut_ptr(), stride: width, n_rows: left.n_rows() };
    let terms = left.width();
    parallel(kernel, Left { values: left.values(), stride: terms }, terms, side, start, to);
    // SAFETY: there is room for them, and `parallel` wrote every number.
    unsafe { values.set_len(n) };
    Rows::new(values, width)
}

/// `to[N, cols] = x[N, in] W[cols]ᵀ`, on this thread.
pub(super) fn some_outputs(
    path: CodePath,
    x: Left<'_>,
    weight: &FrozenMatrix,
    cols: Range<usize>,
    to: &mut [f32],
) {
    let stride = cols.len();
    let (target, kernel) = (Target::of(to, stride, 0), Microkernel::of(path, weight));
    kernel.with_units(x, target.n_rows, weight.cols(), |x| {
        for panel in panels(stride, kernel.tile_width(), PANEL) {
            let of_matrix = cols.start + panel.start..cols.start + panel.end;
            let to = target.offset(panel.start);
            columns(kernel, x, 0..weight.cols(), weight.outputs(), of_matrix, Start::Zero, to);
        }
    });
}

/// `to[N, in] += dy[N, rows.len()] W[rows]`, on this thread.
pub(super) fn some_input_gradient(
    path: CodePath,
    dy: Left<'_>,
    weight: &FrozenMatrix,
    rows: Range<usize>,
    to: &mut [f32],
) {
    let stride = weight.cols();
    let (target, kernel) = (Target::of(to, stride, 0), Microkernel::of(path, weight));
    kernel.with_units(dy, target.n_rows, rows.len(), |dy| {
        for panel in panels(stride, kernel.tile_width(), PANEL) {
            let to = target.offset(panel.start);
            columns(kernel, dy, rows.clone(), weight.inputs(), panel, Start::Add, to);
        }
    });
}

/// `to[N, n_cols] = start + left[N, terms] · panel` on this thread, where the product's columns are those from `col` on of rows of
/// `stride` numbers, `to`. The panel is one of [`fill`]'s.
pub(super) fn multiply(
    path: CodePath,
    left: Left<'_>,
    terms: Range<usize>,
    (panel, n_cols): (&[f32], usize),
    start: Start<'_>,
    (to, stride, col): (&mut [f32], usize, usize),
) {
    if n_cols > 0 && !to.is_empty() {
        assert!(col + n_cols <= stride, "columns beyond a row");
        row_blocks(
            Microkernel::single(path),
            left,
            terms,
            (panel, n_cols),
            start,
            Target::of(to, stride, col),
            &Ahead::NOTHING,
        );
    }
}

/// `n` columns in panels of `tiles` tiles.
fn panels(n: usize, width: usize, tiles: usize) -> impl Iterator<Item = Range<usize>> {
    let size = width * tiles;
    (0..n).step_by(size).map(move |start| start..(start + size).min(n))
}

/// What the sums of a product, or of some of its columns, start from.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// What is there.
    Add,
    /// Nothing.
    Zero,
    /// The same row for all.
    Row(&'a [f32]),
}

impl Start<'_> {
    /// Of some of the columns.
    fn of(self, cols: Range<usize>) -> Self {
        match self {
            Self::Row(row) => Self::Row(&row[cols]),
            other => other,
        }
    }

    /// Writes it to the first `n_cols` columns of a target.
    #[allow(unsafe_code)]
    fn write(self, n_cols: usize, to: Target) {
        for row in 0..to.n_rows {
            // SAFETY: rows of a target have all columns of a part of it; those belong to one thread.
            unsafe {
                let first = to.first.add(row * to.stride);
                match self {
                    Self::Add => return,
                    Self::Zero => first.write_bytes(0, n_cols),
                    Self::Row(row) => first.copy_from_nonoverlapping(row[..n_cols].as_ptr(), n_cols),
                }
            }
        }
    }
}

/// `to[N, stride] = start + left[N, terms] · tiles`, shared among threads.
fn parallel(kernel: Microkernel, left: Left<'_>, terms: usize, side: Side<'_>, start: Start<'_>, to: Target) {
    if to.n_rows == 0 {
        return;
    }
    let n_threads = rayon::current_num_threads();
    // Enough panels for every thread to have several, so that none waits for the last.
    let (shares, widest) = match side {
        Side::Terms(_) if kernel.has_tiles() && to.n_rows <= few::MAX_ROWS => (2, PANEL_FEW_TILES),
        _ if !few::applies(kernel, side, to.n_rows) => (SHARES, PANEL),
        Side::Columns(_) => (SHARES, PANEL_FEW_ROWS),
        // A panel's pieces of the lines are what is read: the longer, the nearer to the memory's rate.
        Side::Terms(_) => (1, PANEL_FEW_ROWS),
    };
    let (n_cols, n_rows, width, height) = (to.stride, to.n_rows, kernel.tile_width(), kernel.block_height());
    let tiles = n_cols.div_ceil(width).div_ceil(shares * n_threads).clamp(1, widest);
    let parts = Shares { n_cols, n_rows, width, height, tiles, n_threads }.parts();
    let to = &Shared(to);
    kernel.with_units(left, n_rows, terms, |left| {
        parts.par_iter().with_max_len(1).for_each(|Part { rows, cols }| {
            let left = Left { values: &left.values[rows.start * left.stride..], stride: left.stride };
            let to = to.0.rows(rows.clone()).offset(cols.start);
            columns(kernel, left, 0..terms, side, cols.clone(), start.of(cols.clone()), to);
        });
    });
}

/// Where a tile's columns of the product lie.
#[derive(Clone, Copy)]
struct Target {
    first: *mut f32,
    stride: usize,
    n_rows: usize,
}

/// A target that several threads write to, each its own part.
struct Shared(Target);
// SAFETY: `parallel` hands every number to exactly one thread.
#[allow(unsafe_code)]
unsafe impl Sync for Shared {}

impl Target {
    fn of(values: &mut [f32], stride: usize, col: usize) -> Self {
        assert!(values.len().is_multiple_of(stride) && col < stride, "target out of shape");
        Self { n_rows: values.len() / stride, first: values.as_mut_ptr(), stride }.offset(col)
    }

    fn rows(self, rows: Range<usize>) -> Self {
        assert!(rows.end <= self.n_rows, "rows beyond a target");
        Self { first: self.first.wrapping_add(rows.start * self.stride), n_rows: rows.len(), ..self }
    }

    fn offset(self, col: usize) -> Self {
        Self { first: self.first.wrapping_add(col), ..self }
    }
}

thread_local! {
    static BUFFER: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The columns `cols` of the product, which begin at `to`: their start and all terms.
fn columns(
    kernel: Microkernel,
    left: Left<'_>,
    terms: Range<usize>,
    side: Side<'_>,
    cols: Range<usize>,
    start: Start<'_>,
    to: Target,
) {
    let width = kernel.tile_width();
    let n_tiles = cols.len().div_ceil(width);
    let is_of_few = few::applies(kernel, side, to.n_rows);
    // Else the first block of terms brings it along.
    let is_written = is_of_few || terms.is_empty() || kernel.has_tiles();
    if is_written {
        start.write(cols.len(), to);
    }
    if is_of_few {
        return few::multiply(kernel, &few::Part { left, side, terms, cols }, to);
    }
    let depth = if to.n_rows <= few::MAX_ROWS { KC_FEW_ROWS } else { KC };
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(PANEL * KC * NR_MAX + LINE, 0.0);
        let first = buffer.as_ptr().align_offset(LINE * size_of::<f32>());
        let buffer = &mut buffer[first..];
        for first in terms.clone().step_by(depth) {
            let start = if is_written || first > terms.start { Start::Add } else { start };
            let block = first..(first + depth).min(terms.end);
            let n_units = kernel.n_units(block.len());
            let panel = &mut buffer[..n_tiles * n_units * width];
            side.fill(kernel, cols.clone(), block.clone(), width, panel);
            let first = (block.start - terms.start) / kernel.unit_terms();
            let next = block.end..(block.end + depth).min(terms.end);
            let ahead = if to.n_rows <= few::MAX_ROWS {
                // Not enough to do meanwhile.
                Ahead::NOTHING
            } else if next.is_empty() {
                // The panel that this thread is likely to take next.
                Ahead::of(
                    side,
                    cols.end..cols.end + cols.len(),
                    terms.start..(terms.start + depth).min(terms.end),
                )
            } else {
                Ahead::of(side, cols.clone(), next)
            };
            row_blocks(kernel, left, first..first + n_units, (panel, cols.len()), start, to, &ahead);
        }
    });
}

/// The part of a frozen matrix that comes after a panel, which is brought nearer while that is multiplied.
struct Ahead<'a> {
    matrix: Option<&'a FrozenMatrix>,
    lines: Range<usize>,
    numbers: Range<usize>,
}

impl<'a> Ahead<'a> {
    const NOTHING: Self = Self { matrix: None, lines: 0..0, numbers: 0..0 };

    /// Of columns that may be beyond the matrix.
    fn of(side: Side<'a>, cols: Range<usize>, terms: Range<usize>) -> Self {
        let matrix = side.matrix();
        let n_numbers = if matrix.turned { matrix.rows() } else { matrix.cols() };
        let (lines, numbers) = match side {
            Side::Columns(_) => (cols, terms),
            Side::Terms(_) => (terms, cols),
        };
        let within = |range: Range<usize>, n: usize| range.start.min(n)..range.end.min(n);
        Self {
            matrix: Some(matrix),
            lines: within(lines, matrix.n_lines()),
            numbers: within(numbers, n_numbers),
        }
    }

    /// Asks for the share that goes with these of `n` rows.
    fn fetch(&self, rows: Range<usize>, n: usize) {
        let Some(matrix) = self.matrix else { return };
        let share = |row: usize| self.lines.start + self.lines.len() * row / n;
        for line in share(rows.start)..share(rows.end) {
            let (dtype, bytes) = matrix.line(line);
            let (numbers, size) = dtype.block();
            let piece = self.numbers.start / numbers * size..self.numbers.end.div_ceil(numbers) * size;
            fill::fetch(&bytes[piece]);
        }
    }
}

/// What sums start from that start from nothing.
static NOTHING: [f32; 2 * NR_MAX] = [0.0; 2 * NR_MAX];

/// A panel's columns: their start and the units `terms` of every row.
#[allow(unsafe_code)]
fn row_blocks(
    kernel: Microkernel,
    left: Left<'_>,
    terms: Range<usize>,
    (panel, n_cols): (&[f32], usize),
    start: Start<'_>,
    to: Target,
    ahead: &Ahead<'_>,
) {
    let (width, height) = (kernel.tile_width(), kernel.block_height());
    let rows_together = kernel.layout(left.stride).rows;
    assert!(
        left.values.len() >= to.n_rows.next_multiple_of(rows_together) * left.stride
            && terms.end <= left.stride
            && height.is_multiple_of(rows_together),
        "left-hand side too small"
    );
    assert!(panel.len() == terms.len() * n_cols.next_multiple_of(width), "panel out of shape");
    assert!(!matches!(start, Start::Row(row) if row.len() < n_cols), "start too short");
    assert!(matches!(start, Start::Add) || !kernel.has_tiles(), "tiles add to what is there");
    let mut edge = [0.0f32; MR_MAX * NR_MAX];
    let mut registers = amx::Registers::new(kernel.path);
    for first in (0..to.n_rows).step_by(height) {
        let n = height.min(to.n_rows - first);
        ahead.fetch(first..first + n, to.n_rows);
        for (tile, b) in panel.chunks_exact(terms.len() * width).enumerate() {
            let col = tile * width;
            let n_cols = (n_cols - col).min(width);
            // SAFETY: rows first..first + n of the left side and of the target exist (asserted above, and by `Target::of`);
            // the target's columns of this tile belong to this call alone, and a start has as many (asserted above). At the
            // right edge a full tile is computed in `edge`.
            unsafe {
                let a = left.values.as_ptr().add(first * left.stride + terms.start * rows_together);
                let c = to.first.add(first * to.stride + col);
                let (from, ldf) = match start {
                    Start::Add => (c.cast_const(), to.stride),
                    Start::Zero => (NOTHING.as_ptr(), 0),
                    Start::Row(row) => (row.as_ptr().add(col), 0),
                };
                let whole = Block {
                    k: terms.len(),
                    a,
                    lda: left.stride,
                    b: b.as_ptr(),
                    from,
                    ldf,
                    c,
                    ldc: to.stride,
                };
                if n_cols == width {
                    block(kernel, &mut registers, n, whole);
                } else {
                    let to = edge.as_mut_ptr();
                    for i in 0..n {
                        from.add(i * ldf).copy_to_nonoverlapping(to.add(i * width), n_cols);
                    }
                    block(
                        kernel,
                        &mut registers,
                        n,
                        Block { from: to, ldf: width, c: to, ldc: width, ..whole },
                    );
                    for i in 0..n {
                        to.add(i * width).copy_to_nonoverlapping(c.add(i * whole.ldc), n_cols);
                    }
                }
            }
        }
    }
}
