//! How a product is shared out among threads: by columns, and what these leave over by rows too.

use std::ops::Range;

/// What is shared out, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    pub(super) n_cols: usize,
    pub(super) n_rows: usize,
    /// Columns of a tile.
    pub(super) width: usize,
    /// Rows of a register block.
    pub(super) height: usize,
    /// Tiles of a part, at most.
    pub(super) tiles: usize,
    pub(super) n_threads: usize,
}

/// Some columns of some rows of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) rows: Range<usize>,
    pub(super) cols: Range<usize>,
}

impl Shares {
    /// The parts, as much work in the first as in the last of as many groups as there are threads. Tiles that would give some threads
    /// one more than others are cut by rows, where these are enough: a tile that two threads work on is packed twice, which costs
    /// less than one of them waiting.
    pub(super) fn parts(self) -> Vec<Part> {
        let Self { n_cols, n_rows, width, height, tiles, n_threads } = self;
        let n_tiles = n_cols.div_ceil(width);
        let n_cuts = n_threads / gcd(n_tiles % n_threads, n_threads);
        let blocks = n_rows.div_ceil(height);
        let n_cut = if blocks >= 2 * n_cuts { n_tiles % n_threads } else { 0 };
        let n_whole = n_tiles - n_cut;
        let cols = |tiles: Range<usize>| tiles.start * width..(tiles.end * width).min(n_cols);

        let n_parts = n_whole.div_ceil(tiles).next_multiple_of(n_threads).min(n_whole);
        let whole = |part| Part { rows: 0..n_rows, cols: cols(piece(part, n_parts, n_whole)) };
        let whole: Vec<Part> = (0..n_parts).map(whole).collect();
        let cut: Vec<Part> = (0..n_cut * n_cuts)
            .map(|part| {
                let (tile, blocks) = (n_whole + part / n_cuts, piece(part % n_cuts, n_cuts, blocks));
                Part {
                    rows: blocks.start * height..(blocks.end * height).min(n_rows),
                    cols: cols(tile..tile + 1),
                }
            })
            .collect();
        let of = |thread: usize| {
            [&whole, &cut].map(|parts| &parts[piece(thread, n_threads, parts.len())]).concat()
        };
        (0..n_threads).flat_map(of).collect()
    }
}

/// Piece `i` of `n` almost equal ones of `0..len`.
fn piece(i: usize, n: usize, len: usize) -> Range<usize> {
    len * i / n..len * (i + 1) / n
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_belongs_to_one_part_and_threads_get_the_same() {
        for n_threads in [1, 2, 3, 4, 16] {
            for (n_cols, n_rows) in
                [(1, 1), (64, 5), (576, 356), (576, 3), (960, 100), (768, 356), (100, 7), (3072, 1000)]
            {
                for (width, height, tiles) in [(64, 6, 4), (32, 12, 4), (16, 4, 64)] {
                    let shares = Shares { n_cols, n_rows, width, height, tiles, n_threads };
                    let parts = shares.parts();
                    let mut seen = vec![0; n_cols * n_rows];
                    for Part { rows, cols } in &parts {
                        assert!(!rows.is_empty() && !cols.is_empty(), "{shares:?}: an empty part");
                        assert!(
                            cols.start % width == 0 && rows.start % height == 0,
                            "{shares:?}: a cut tile"
                        );
                        assert!(cols.len() <= tiles * width, "{shares:?}: more than a panel");
                        for row in rows.clone() {
                            cols.clone().for_each(|col| seen[row * n_cols + col] += 1);
                        }
                    }
                    assert!(seen.iter().all(|&times| times == 1), "{shares:?}: {parts:?}");
                    if n_cols % width == 0 && n_rows >= 100 {
                        let work = |parts: &[Part]| {
                            parts.iter().map(|part| part.rows.len() * part.cols.len()).sum::<usize>()
                        };
                        let of = |thread| work(&parts[piece(thread, n_threads, parts.len())]);
                        let most = (0..n_threads).map(of).max().unwrap();
                        // Cut rows are whole blocks.
                        let even = n_cols * n_rows / n_threads + 2 * width * height;
                        assert!(most <= even, "{shares:?}: {most} of {even}");
                    }
                }
            }
        }
    }
}
