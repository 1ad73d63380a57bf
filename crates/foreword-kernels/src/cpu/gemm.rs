//! Matrix products with a frozen matrix in both directions: outputs x Wᵀ and input gradients dy W, in single precision or in
//! bf16.
//!
//! The frozen matrix stays in its file's format and order, blocks included, so no second copy of the model exists. As in
//! BLIS, a *panel* of it, a few tiles of `NR` columns and `KC` k each, is packed into a buffer of the thread, widened, and
//! the *microkernel* multiplies it with all rows of the left-hand side, `MR` at a time; packing takes 2 % of a training step.
//! The next panel is prefetched meanwhile. Sums start in registers, from zero, the bias or the output.
//!
//! Every number of a product is one chain of multiply-adds in the order of k, so its bits depend neither on the other rows nor
//! on the threads. With AMX, each tile's sums are chains of their own.
//!
//! | file | |
//! |---|---|
//! | `kernel` | the table of microkernels |
//! | `f32`, `bf16`, `amx`, `neon` | the microkernels |
//! | `pack`, `bf16`, `transpose` | packing |
//! | `small_m`, `simd8`, `x86`, `neon` | products of few rows, and the vectors they use |
//! | `partition`, `prefetch` | threads and caches |
//! | `types`, `pair`, `matrix` | what all of them share |

mod amx;
mod bf16;
mod f32;
mod kernel;
mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod pair;
mod partition;
mod prefetch;
mod simd8;
mod small_m;
#[cfg(test)]
mod tests;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod transpose;
mod types;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::code_path::CodePath;
use crate::rows::{RowBlock, Rows};
pub(super) use bf16::round as round_to_bf16;
pub(super) use kernel::Kernel;
pub(super) use matrix::FrozenMatrix;
use matrix::Rhs;
pub(super) use pack::Panel;
use partition::{Part, Partition};
use prefetch::NextPanel;
use types::{CACHE_LINE, KC, MR_MAX, NR_MAX, Output, RegisterBlock, SMALL_M, SMALL_M_TILES, SmallProduct};
pub(super) use types::{Init, Lhs};

/// Tiles of a panel: neighbours in a stored row, so that reading them uses whole cache lines, and rows of the left-hand side
/// that are in the first-level cache meet all of them.
const PANEL_TILES: usize = 4;
/// The same for few rows with a plain right-hand side that is packed for tile registers.
const SMALL_M_PACKED_TILES: usize = 16;
/// Depth of a panel for few rows without a kernel of their own: a tile stays in the first-level cache after packing.
const SMALL_M_KC: usize = 128;
/// Panels per thread, at least, if there are as many.
const PANELS_PER_THREAD: usize = 4;

/// x Wᵀ + b, `[N, in]` by `[out, in]`, on the threads of the current pool.
pub(super) fn linear(
    path: CodePath,
    x: &Rows<f32>,
    weight: &FrozenMatrix,
    bias: Option<&[f32]>,
) -> Rows<f32> {
    assert_eq!(x.width(), weight.cols(), "linear: shapes");
    assert!(bias.is_none_or(|bias| bias.len() == weight.rows()), "linear: bias");
    let init = bias.map_or(Init::Zero, Init::Row);
    product(Kernel::of(path, weight), x, weight.forward(), weight.rows(), init)
}

/// dx + dy W, `[N, out]` by `[out, in]`, on the threads of the current pool.
pub(super) fn linear_gradient(
    path: CodePath,
    dy: &Rows<f32>,
    weight: &FrozenMatrix,
    dx: Option<Rows<f32>>,
) -> Rows<f32> {
    assert_eq!(dy.width(), weight.rows(), "linear gradient: shapes");
    let kernel = Kernel::of(path, weight);
    let Some(mut dx) = dx else { return product(kernel, dy, weight.backward(), weight.cols(), Init::Zero) };
    assert_eq!((dx.n_rows(), dx.width()), (dy.n_rows(), weight.cols()), "linear gradient: shapes");
    let lhs = Lhs { values: dy.values(), stride: dy.width() };
    let stride = dx.width();
    let output = Output::of(dx.values_mut(), stride, 0);
    multiply_parallel(kernel, lhs, dy.width(), weight.backward(), Init::Accumulate, output);
    dx
}

/// init + lhs · rhs, `[N, width]`.
#[allow(unsafe_code)]
fn product(kernel: Kernel, lhs: &Rows<f32>, rhs: Rhs<'_>, width: usize, init: Init<'_>) -> Rows<f32> {
    assert!(!matches!(init, Init::Accumulate), "nothing to add to");
    let n = lhs.n_rows() * width;
    let mut values = Vec::with_capacity(n);
    let output = Output { first: values.as_mut_ptr(), stride: width, n_rows: lhs.n_rows() };
    let k = lhs.width();
    multiply_parallel(kernel, Lhs { values: lhs.values(), stride: k }, k, rhs, init, output);
    // SAFETY: there is room for them, and `multiply_parallel` wrote every number.
    unsafe { values.set_len(n) };
    Rows::new(values, width)
}

/// `to[N, cols] = x[N, in] W[cols]ᵀ`, on this thread.
pub(super) fn linear_part(
    path: CodePath,
    x: Lhs<'_>,
    weight: &FrozenMatrix,
    cols: Range<usize>,
    to: &mut [f32],
) {
    let stride = cols.len();
    let (output, kernel) = (Output::of(to, stride, 0), Kernel::of(path, weight));
    kernel.with_packed_lhs(x, output.n_rows, weight.cols(), |x| {
        for panel in panels(stride, kernel.nr()) {
            let cols = cols.start + panel.start..cols.start + panel.end;
            let output = output.offset(panel.start);
            multiply_columns(kernel, x, 0..weight.cols(), weight.forward(), cols, Init::Zero, output);
        }
    });
}

/// `to[N, in] += dy[N, rows.len()] W[rows]`, on this thread.
pub(super) fn linear_gradient_part(
    path: CodePath,
    dy: Lhs<'_>,
    weight: &FrozenMatrix,
    rows: Range<usize>,
    to: &mut [f32],
) {
    let stride = weight.cols();
    let (output, kernel) = (Output::of(to, stride, 0), Kernel::of(path, weight));
    kernel.with_packed_lhs(dy, output.n_rows, rows.len(), |dy| {
        for panel in panels(stride, kernel.nr()) {
            let output = output.offset(panel.start);
            multiply_columns(kernel, dy, rows.clone(), weight.backward(), panel, Init::Accumulate, output);
        }
    });
}

/// `to[N, cols] = init + lhs[N, k] · panel`, on this thread. The columns are those from `col` on of rows of `stride` numbers,
/// `to`.
pub(super) fn multiply_panel(
    kernel: Kernel,
    lhs: Lhs<'_>,
    k: Range<usize>,
    panel: &Panel,
    init: Init<'_>,
    (to, stride, col): (&mut [f32], usize, usize),
) {
    let Panel { values, n_cols } = panel;
    if *n_cols > 0 && !to.is_empty() {
        assert!(col + n_cols <= stride, "columns beyond a row");
        let output = Output::of(to, stride, col);
        macro_kernel(kernel, lhs, k, (values, *n_cols), init, output, &NextPanel::NONE);
    }
}

/// `n` columns in panels.
fn panels(n: usize, nr: usize) -> impl Iterator<Item = Range<usize>> {
    let size = nr * PANEL_TILES;
    (0..n).step_by(size).map(move |start| start..(start + size).min(n))
}

/// `output[N, stride] = init + lhs[N, k] · rhs`, divided among threads.
fn multiply_parallel(kernel: Kernel, lhs: Lhs<'_>, k: usize, rhs: Rhs<'_>, init: Init<'_>, output: Output) {
    if output.n_rows == 0 {
        return;
    }
    let n_threads = rayon::current_num_threads();
    // Several panels for each thread, so that none waits long for the last.
    let (per_thread, max_tiles) = match rhs {
        Rhs::Plain(_) if kernel.has_tiles() && output.n_rows <= SMALL_M => (2, SMALL_M_PACKED_TILES),
        _ if !kernel.has_small_m(rhs, output.n_rows) => (PANELS_PER_THREAD, PANEL_TILES),
        Rhs::Transposed(_) => (PANELS_PER_THREAD, SMALL_M_TILES),
        // A panel reads pieces of stored rows: the longer, the nearer to the memory's rate.
        Rhs::Plain(_) => (1, SMALL_M_TILES),
    };
    let (n_cols, n_rows, nr, mr) = (output.stride, output.n_rows, kernel.nr(), kernel.mr());
    let max_tiles = n_cols.div_ceil(nr).div_ceil(per_thread * n_threads).clamp(1, max_tiles);
    let parts = Partition { n_cols, n_rows, nr, mr, max_tiles, n_threads }.parts();
    let output = &Shared(output);
    kernel.with_packed_lhs(lhs, n_rows, k, |lhs| {
        parts.par_iter().with_max_len(1).for_each(|Part { rows, cols }| {
            let lhs = Lhs { values: &lhs.values[rows.start * lhs.stride..], stride: lhs.stride };
            let output = output.0.rows(rows.clone()).offset(cols.start);
            multiply_columns(kernel, lhs, 0..k, rhs, cols.clone(), init.columns(cols.clone()), output);
        });
    });
}

/// An output that several threads write to, each its own part.
struct Shared(Output);
// SAFETY: `multiply_parallel` hands every number to exactly one thread.
#[allow(unsafe_code)]
unsafe impl Sync for Shared {}

thread_local! {
    static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The columns `cols` of a product, which begin at `output`: init and all of k.
fn multiply_columns(
    kernel: Kernel,
    lhs: Lhs<'_>,
    k: Range<usize>,
    rhs: Rhs<'_>,
    cols: Range<usize>,
    init: Init<'_>,
    output: Output,
) {
    let n_tiles = cols.len().div_ceil(kernel.nr());
    let has_small_m = kernel.has_small_m(rhs, output.n_rows);
    // Otherwise the first block of k starts from it in registers.
    let init_is_written = has_small_m || k.is_empty() || kernel.has_tiles();
    if init_is_written {
        init.write(cols.len(), output);
    }
    if has_small_m {
        return kernel.run_small_m(&SmallProduct { lhs, rhs, k, cols }, output);
    }
    let depth = if output.n_rows <= SMALL_M { SMALL_M_KC } else { KC };
    PANEL.with_borrow_mut(|buffer| {
        buffer.resize(PANEL_TILES * KC * NR_MAX + CACHE_LINE, 0.0);
        let aligned = buffer.as_ptr().align_offset(CACHE_LINE * size_of::<f32>());
        let buffer = &mut buffer[aligned..];
        for first in k.clone().step_by(depth) {
            let init = if init_is_written || first > k.start { Init::Accumulate } else { init };
            let block = first..(first + depth).min(k.end);
            let packed_k = kernel.packed_k(block.len());
            let panel = &mut buffer[..n_tiles * packed_k * kernel.nr()];
            kernel.pack_rhs(rhs, cols.clone(), block.clone(), panel);
            let first = (block.start - k.start) / kernel.k_per_element();
            let next = block.end..(block.end + depth).min(k.end);
            let next = if output.n_rows <= SMALL_M {
                // Too little work to hide it.
                NextPanel::NONE
            } else if next.is_empty() {
                // The panel that this thread is likely to take next.
                let cols = cols.end..cols.end + cols.len();
                NextPanel::of(rhs, cols, k.start..(k.start + depth).min(k.end))
            } else {
                NextPanel::of(rhs, cols.clone(), next)
            };
            macro_kernel(kernel, lhs, first..first + packed_k, (panel, cols.len()), init, output, &next);
        }
    });
}

/// What sums start from that start from zero.
static ZEROS: [f32; 2 * NR_MAX] = [0.0; 2 * NR_MAX];

/// All rows by a packed panel, from init: the packed elements `k` of every row.
#[allow(unsafe_code)]
fn macro_kernel(
    kernel: Kernel,
    lhs: Lhs<'_>,
    k: Range<usize>,
    (panel, n_cols): (&[f32], usize),
    init: Init<'_>,
    output: Output,
    next: &NextPanel<'_>,
) {
    let (nr, mr) = (kernel.nr(), kernel.mr());
    let group = kernel.lhs_layout(lhs.stride).rows;
    assert!(
        lhs.values.len() >= output.n_rows.next_multiple_of(group) * lhs.stride
            && k.end <= lhs.stride
            && mr.is_multiple_of(group),
        "left-hand side too small"
    );
    assert!(panel.len() == k.len() * n_cols.next_multiple_of(nr), "panel out of shape");
    assert!(!matches!(init, Init::Row(row) if row.len() < n_cols), "init too short");
    assert!(matches!(init, Init::Accumulate) || !kernel.has_tiles(), "tiles add to the output");
    let mut edge = [0.0f32; MR_MAX * NR_MAX];
    let mut tiles = amx::TileRegisters::default();
    for first in (0..output.n_rows).step_by(mr) {
        let n = mr.min(output.n_rows - first);
        next.prefetch(first..first + n, output.n_rows);
        for (tile, b) in panel.chunks_exact(k.len() * nr).enumerate() {
            let col = tile * nr;
            let n_cols = (n_cols - col).min(nr);
            // SAFETY: rows first..first + n of both sides exist (asserted above, and by `Output::of`); the output's columns of
            // this tile belong to this call alone, and a row of init has as many (asserted above). At the right edge a full
            // tile is computed in `edge`.
            unsafe {
                let a = lhs.values.as_ptr().add(first * lhs.stride + k.start * group);
                let c = output.first.add(first * output.stride + col);
                let (init, ldi) = match init {
                    Init::Accumulate => (c.cast_const(), output.stride),
                    Init::Zero => (ZEROS.as_ptr(), 0),
                    Init::Row(row) => (row.as_ptr().add(col), 0),
                };
                let (lda, ldc) = (lhs.stride, output.stride);
                let whole = RegisterBlock { k: k.len(), a, lda, b: b.as_ptr(), init, ldi, c, ldc };
                if n_cols == nr {
                    kernel.run(&mut tiles, n, whole);
                } else {
                    let to = edge.as_mut_ptr();
                    for i in 0..n {
                        init.add(i * ldi).copy_to_nonoverlapping(to.add(i * nr), n_cols);
                    }
                    let block = RegisterBlock { init: to, ldi: nr, c: to, ldc: nr, ..whole };
                    kernel.run(&mut tiles, n, block);
                    for i in 0..n {
                        to.add(i * nr).copy_to_nonoverlapping(c.add(i * ldc), n_cols);
                    }
                }
            }
        }
    }
}
