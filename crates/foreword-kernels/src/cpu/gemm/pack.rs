//! Packs the right-hand side of a product in single precision into tiles `[k, NR]`, one after another. Columns missing from
//! the last tile are zero.

use std::ops::Range;

use half::bf16;
#[cfg(not(target_arch = "aarch64"))]
use half::{f16, slice::HalfFloatSliceExt as _};

use super::matrix::{FrozenMatrix, Rhs};
#[cfg(target_arch = "aarch64")]
use super::neon::widen_f16;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::simd8::{Bf16, F16, F32, WIDTH};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::transpose::Transposer;
use super::types::KC;
use crate::cpu::code_path::CodePath;
use crate::dtype::Dtype;

/// Numbers of a stored row that are dequantised at a time.
const CHUNK: usize = 256;

/// Packs the columns `cols` of a frozen matrix, rows `k` of them.
pub(super) fn pack(
    path: CodePath,
    rhs: Rhs<'_>,
    cols: Range<usize>,
    k: Range<usize>,
    nr: usize,
    panel: &mut [f32],
) {
    match rhs {
        Rhs::Plain(matrix) => pack_plain(matrix, cols, k, nr, panel),
        Rhs::Transposed(matrix) => {
            let starts = cols.clone().step_by(nr);
            for (start, tile) in starts.zip(panel.chunks_exact_mut(k.len() * nr)) {
                let cols = start..(start + nr).min(cols.end);
                if cols.len() < nr {
                    tile.fill(0.0);
                }
                pack_transposed(path, matrix, cols, k.clone(), nr, tile);
            }
        }
    }
}

/// Packs a matrix whose stored rows hold one k each.
fn pack_plain(matrix: &FrozenMatrix, cols: Range<usize>, k: Range<usize>, nr: usize, panel: &mut [f32]) {
    let depth = k.len();
    for (p, row) in k.enumerate() {
        let (dtype, bytes) = matrix.stored_row(row);
        let mut tiles = panel.chunks_exact_mut(depth * nr).map(|tile| &mut tile[p * nr..][..nr]);
        match dtype {
            Dtype::F32 => widen(&bytemuck::cast_slice(bytes)[cols.clone()], tiles, <[f32]>::clone_from_slice),
            Dtype::Bf16 => widen(&bytemuck::cast_slice(bytes)[cols.clone()], tiles, |to, from: &[bf16]| {
                for (to, from) in to.iter_mut().zip(from) {
                    *to = f32::from_bits(u32::from(from.to_bits()) << 16);
                }
            }),
            Dtype::F16 => widen(&bytemuck::cast_slice(bytes)[cols.clone()], tiles, widen_f16),
            _ => {
                let mut numbers = [0.0; CHUNK];
                let (numbers, mut start) = (&mut numbers[..CHUNK / nr * nr], cols.start);
                while start < cols.end {
                    let chunk = start..(start + numbers.len()).min(cols.end);
                    let numbers = &mut numbers[..chunk.len()];
                    matrix.read_stored_row(row, chunk.clone(), numbers);
                    let tiles = tiles.by_ref().take(chunk.len().div_ceil(nr));
                    widen(numbers, tiles, <[f32]>::clone_from_slice);
                    start = chunk.end;
                }
            }
        }
    }
}

/// Writes `numbers` to the rows of tiles. What is left of the last one becomes zero.
fn widen<'t, T>(numbers: &[T], tiles: impl Iterator<Item = &'t mut [f32]>, widen: impl Fn(&mut [f32], &[T])) {
    let mut rest = numbers;
    for to in tiles {
        let (from, after) = rest.split_at(to.len().min(rest.len()));
        let (to, missing) = to.split_at_mut(from.len());
        widen(to, from);
        missing.fill(0.0);
        rest = after;
    }
}

/// Widens as many numbers.
#[cfg(not(target_arch = "aarch64"))]
fn widen_f16(to: &mut [f32], from: &[f16]) {
    from.convert_to_f32_slice(to);
}

/// Packed activations, as the right-hand side of a product.
#[derive(Default)]
pub(in crate::cpu) struct Panel {
    pub(super) values: Vec<f32>,
    pub(super) n_cols: usize,
}

impl Panel {
    fn resize(&mut self, k: usize, n_cols: usize, nr: usize) {
        self.n_cols = n_cols;
        self.values.resize(n_cols.next_multiple_of(nr) * k, 0.0);
    }

    /// Packs `[n, k]`: the numbers `k` of rows that are columns of the product.
    pub(super) fn pack_transposed(
        &mut self,
        (path, nr): (CodePath, usize),
        rows: &[&[f32]],
        k: Range<usize>,
    ) {
        self.resize(k.len(), rows.len(), nr);
        for (rows, tile) in rows.chunks(nr).zip(self.values.chunks_exact_mut(nr * k.len())) {
            #[cfg_attr(
                not(any(target_arch = "x86_64", target_arch = "aarch64")),
                expect(unused_mut, reason = "two architectures have a transposer")
            )]
            let mut done = 0;
            if rows.len() < nr {
                tile.fill(0.0);
            }
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            if let Some(transposer) = Transposer::of(path) {
                for eight in rows.as_chunks::<WIDTH>().0 {
                    let bytes = eight.map(bytemuck::cast_slice);
                    transposer.run::<F32>(&bytes, k.clone(), nr, &mut tile[done..]);
                    done += WIDTH;
                }
            }
            let _ = path;
            for (j, row) in rows.iter().enumerate().skip(done) {
                write_column(tile, nr, j, &row[k.clone()]);
            }
        }
    }

    /// Packs `[k, n]`: the numbers `cols` of rows that hold one k each.
    pub(super) fn pack_plain(&mut self, nr: usize, rows: &[&[f32]], cols: Range<usize>) {
        self.resize(rows.len(), cols.len(), nr);
        for (p, row) in rows.iter().enumerate() {
            let tiles = self.values.chunks_exact_mut(rows.len() * nr);
            widen(&row[cols.clone()], tiles.map(|tile| &mut tile[p * nr..][..nr]), <[f32]>::clone_from_slice);
        }
    }
}

/// Packs a matrix whose stored rows are columns of the product: `cols` of them into the first columns of `tile`.
fn pack_transposed(
    path: CodePath,
    matrix: &FrozenMatrix,
    cols: Range<usize>,
    k: Range<usize>,
    nr: usize,
    tile: &mut [f32],
) {
    assert!(k.len() <= KC && cols.len() <= nr && tile.len() == k.len() * nr, "tile out of shape");
    let mut done = 0;
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if let Some(transposer) = Transposer::of(path) {
        done = pack_eights(transposer, matrix, cols.clone(), k.clone(), nr, tile);
    }
    let _ = path;
    let mut numbers = [0.0; KC];
    let numbers = &mut numbers[..k.len()];
    for (j, col) in cols.enumerate().skip(done) {
        matrix.read_stored_row(col, k.clone(), numbers);
        write_column(tile, nr, j, numbers);
    }
}

/// Writes column `j` of a tile.
fn write_column(tile: &mut [f32], nr: usize, j: usize, numbers: &[f32]) {
    for (to, &from) in tile[j..].iter_mut().step_by(nr).zip(numbers) {
        *to = from;
    }
}

/// Packs as many of the columns as make up whole eights, and returns how many those are.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn pack_eights(
    transposer: Transposer,
    matrix: &FrozenMatrix,
    cols: Range<usize>,
    k: Range<usize>,
    nr: usize,
    tile: &mut [f32],
) -> usize {
    let mut done = 0;
    while done + WIDTH <= cols.len() {
        let rows: [(Dtype, &[u8]); WIDTH] = std::array::from_fn(|i| matrix.stored_row(cols.start + done + i));
        let (dtype, bytes) = (rows[0].0, rows.map(|(_, bytes)| bytes));
        let same = rows.iter().all(|&(other, _)| other == dtype);
        let (bytes, k, tile) = (&bytes, k.clone(), &mut tile[done..]);
        match dtype {
            Dtype::F32 if same => transposer.run::<F32>(bytes, k, nr, tile),
            Dtype::Bf16 if same => transposer.run::<Bf16>(bytes, k, nr, tile),
            Dtype::F16 if same => transposer.run::<F16>(bytes, k, nr, tile),
            _ => {
                let mut numbers = [[0.0f32; KC]; WIDTH];
                for (i, numbers) in numbers.iter_mut().enumerate() {
                    matrix.read_stored_row(cols.start + done + i, k.clone(), &mut numbers[..k.len()]);
                }
                let bytes = numbers.each_ref().map(|numbers| bytemuck::cast_slice(numbers));
                transposer.run::<F32>(&bytes, 0..k.len(), nr, tile);
            }
        }
        done += WIDTH;
    }
    done
}
