//! Lines of a frozen matrix widened into tiles: transposed where they are the columns of the product, straight where they are
//! its terms.

use std::ops::Range;

use half::bf16;
#[cfg(not(target_arch = "aarch64"))]
use half::f16;
#[cfg(not(target_arch = "aarch64"))]
use half::slice::HalfFloatSliceExt as _;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::eight::{Brain, Eight, EightLanes, Half, SIDE, Single, Stored, square};
#[cfg(target_arch = "aarch64")]
use super::neon::widen_halves;
use super::{FrozenMatrix, KC};
use crate::cpu::code_path::CodePath;
use crate::weights::Dtype;

/// Asks for `bytes` in the second-level cache.
#[allow(unsafe_code)]
pub(super) fn fetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(last) = bytes.last() {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let mut line = (bytes.as_ptr().addr() & !63) as *const i8;
        while line.addr() <= std::ptr::from_ref(last).addr() {
            // SAFETY: asking for memory reads none.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line) };
            line = line.wrapping_add(64);
        }
    }
    let _ = bytes;
}

/// Numbers of a line that are unpacked at a time.
const PIECE: usize = 256;

/// Writes the numbers `cols` of the lines `terms` to a panel: tiles `[terms, width]`, one after another; missing columns are
/// zero.
pub(super) fn straight(
    matrix: &FrozenMatrix,
    cols: Range<usize>,
    terms: Range<usize>,
    width: usize,
    panel: &mut [f32],
) {
    let n_terms = terms.len();
    for (term, line) in terms.enumerate() {
        let (dtype, bytes) = matrix.line(line);
        let tiles = panel.chunks_exact_mut(n_terms * width).map(|tile| &mut tile[term * width..][..width]);
        match dtype {
            Dtype::F32 => widen(&bytemuck::cast_slice(bytes)[cols.clone()], tiles, <[f32]>::clone_from_slice),
            Dtype::Bf16 => widen(&bytemuck::cast_slice(bytes)[cols.clone()], tiles, |to, from: &[bf16]| {
                for (to, from) in to.iter_mut().zip(from) {
                    *to = f32::from_bits(u32::from(from.to_bits()) << 16);
                }
            }),
            Dtype::F16 => widen(&bytemuck::cast_slice(bytes)[cols.clone()], tiles, widen_halves),
            _ => {
                let mut numbers = [0.0; PIECE];
                let (numbers, mut start) = (&mut numbers[..PIECE / width * width], cols.start);
                let mut tiles = tiles;
                while start < cols.end {
                    let piece = start..(start + numbers.len()).min(cols.end);
                    let numbers = &mut numbers[..piece.len()];
                    matrix.read_line(line, piece.clone(), numbers);
                    let tiles = tiles.by_ref().take(piece.len().div_ceil(width));
                    widen(numbers, tiles, <[f32]>::clone_from_slice);
                    start = piece.end;
                }
            }
        }
    }
}

/// Writes `numbers` to the rows of tiles, as many as each takes; what they leave of the last one becomes zero.
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
fn widen_halves(to: &mut [f32], from: &[f16]) {
    from.convert_to_f32_slice(to);
}

/// A panel of activations whose columns are `rows`, its terms their numbers `terms`: tiles `[terms, width]`, one after another,
/// with missing columns zero.
pub(in crate::cpu) fn columns_of(path: CodePath, rows: &[&[f32]], terms: Range<usize>, panel: &mut Vec<f32>) {
    let width = path.instruction_set().tile_width();
    panel.resize(rows.len().next_multiple_of(width) * terms.len(), 0.0);
    for (rows, tile) in rows.chunks(width).zip(panel.chunks_exact_mut(width * terms.len())) {
        #[cfg_attr(
            not(any(target_arch = "x86_64", target_arch = "aarch64")),
            expect(unused_mut, reason = "squares are of two architectures")
        )]
        let mut done = 0;
        if rows.len() < width {
            tile.fill(0.0);
        }
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        if let Some(lanes) = EightLanes::of(path) {
            for square in rows.as_chunks::<SIDE>().0 {
                let bytes = square.map(bytemuck::cast_slice);
                squares::<Single>(lanes, &bytes, terms.clone(), width, &mut tile[done..]);
                done += SIDE;
            }
        }
        for (j, row) in rows.iter().enumerate().skip(done) {
            write_column(tile, width, j, &row[terms.clone()]);
        }
    }
}

/// A panel of activations whose terms are `rows`, its columns their numbers `cols`, in the same layout.
pub(in crate::cpu) fn terms_of(path: CodePath, rows: &[&[f32]], cols: Range<usize>, panel: &mut Vec<f32>) {
    let width = path.instruction_set().tile_width();
    panel.resize(cols.len().next_multiple_of(width) * rows.len(), 0.0);
    for (term, row) in rows.iter().enumerate() {
        let tiles = panel.chunks_exact_mut(rows.len() * width).map(|tile| &mut tile[term * width..][..width]);
        widen(&row[cols.clone()], tiles, <[f32]>::clone_from_slice);
    }
}

/// Writes lines `cols` of the matrix, their numbers `terms`, to the first columns of `tile`, `[terms, width]`.
pub(super) fn transposed(
    path: CodePath,
    matrix: &FrozenMatrix,
    cols: Range<usize>,
    terms: Range<usize>,
    width: usize,
    tile: &mut [f32],
) {
    assert!(
        terms.len() <= KC && cols.len() <= width && tile.len() == terms.len() * width,
        "tile out of shape"
    );
    let mut done = 0;
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if let Some(lanes) = EightLanes::of(path) {
        done = in_squares(lanes, matrix, cols.clone(), terms.clone(), width, tile);
    }
    let _ = path;
    let mut line = [0.0; KC];
    let line = &mut line[..terms.len()];
    for (j, col) in cols.enumerate().skip(done) {
        matrix.read_line(col, terms.clone(), line);
        write_column(tile, width, j, line);
    }
}

/// Column `j` of a tile of this width.
fn write_column(tile: &mut [f32], width: usize, j: usize, numbers: &[f32]) {
    for (to, &from) in tile[j..].iter_mut().step_by(width).zip(numbers) {
        *to = from;
    }
}

/// The same in squares of 8 × 8, for as many of the columns as make up whole ones; returns how many those are.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn in_squares(
    lanes: EightLanes,
    matrix: &FrozenMatrix,
    cols: Range<usize>,
    terms: Range<usize>,
    width: usize,
    tile: &mut [f32],
) -> usize {
    let mut done = 0;
    while done + SIDE <= cols.len() {
        let lines: [(Dtype, &[u8]); SIDE] = std::array::from_fn(|i| matrix.line(cols.start + done + i));
        let (dtype, bytes) = (lines[0].0, lines.map(|(_, bytes)| bytes));
        let same = lines.iter().all(|&(other, _)| other == dtype);
        let (bytes, terms, tile) = (&bytes, terms.clone(), &mut tile[done..]);
        match dtype {
            Dtype::F32 if same => squares::<Single>(lanes, bytes, terms, width, tile),
            Dtype::Bf16 if same => squares::<Brain>(lanes, bytes, terms, width, tile),
            Dtype::F16 if same => squares::<Half>(lanes, bytes, terms, width, tile),
            _ => {
                let mut numbers = [[0.0f32; KC]; SIDE];
                for (i, numbers) in numbers.iter_mut().enumerate() {
                    matrix.read_line(cols.start + done + i, terms.clone(), &mut numbers[..terms.len()]);
                }
                let bytes = numbers.each_ref().map(|numbers| bytemuck::cast_slice(numbers));
                squares::<Single>(lanes, &bytes, 0..terms.len(), width, tile);
            }
        }
        done += SIDE;
    }
    done
}

/// Transposes the numbers `terms` of eight rows into the first eight columns of `tile`, `[terms, width]`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[allow(unsafe_code)]
pub(super) fn squares<S: Stored<Eight>>(
    _: EightLanes,
    rows: &[&[u8]; SIDE],
    terms: Range<usize>,
    width: usize,
    tile: &mut [f32],
) {
    let n = terms.len();
    assert!(rows.iter().all(|row| row.len() >= terms.end * S::SIZE), "terms beyond a row");
    assert!(n == 0 || tile.len() >= (n - 1) * width + SIDE, "tile out of shape");
    let whole = n - n % SIDE;
    for term in (0..whole).step_by(SIDE) {
        let from: [*const u8; SIDE] =
            std::array::from_fn(|i| rows[i][(terms.start + term) * S::SIZE..].as_ptr());
        // SAFETY: eight numbers of each row, and eight rows of the tile, are there (asserted above); there are
        // `EightLanes` only if this processor has their instructions.
        unsafe { square::<S>(from, tile.as_mut_ptr().add(term * width), width) };
    }
    for term in whole..n {
        for (row, to) in rows.iter().zip(&mut tile[term * width..]) {
            *to = S::one(&row[(terms.start + term) * S::SIZE..]);
        }
    }
}
