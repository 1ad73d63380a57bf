//! How a product is divided among threads: by columns and, where these don't divide evenly, by rows too.

use std::ops::Range;

/// What is divided, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partition {
    pub(super) n_cols: usize,
    pub(super) n_rows: usize,
    /// NR, columns of a tile.
    pub(super) nr: usize,
    /// MR, rows of a register block.
    pub(super) mr: usize,
    /// Most tiles of a part.
    pub(super) max_tiles: usize,
    pub(super) n_threads: usize,
}

/// Some columns of some rows of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) rows: Range<usize>,
    pub(super) cols: Range<usize>,
}

impl Partition {
    /// The parts, in as many groups of equal work as there are threads. Tiles that would give some threads one more than
    /// others are split by rows, if there are enough: two threads then pack the same tile, which costs less than one of
    /// them waiting.
    pub(super) fn parts(self) -> Vec<Part> {
        let Self { n_cols, n_rows, nr, mr, max_tiles, n_threads } = self;
        let n_tiles = n_cols.div_ceil(nr);
        let n_splits = n_threads / gcd(n_tiles % n_threads, n_threads);
        let blocks = n_rows.div_ceil(mr);
        let n_split = if blocks >= 2 * n_splits { n_tiles % n_threads } else { 0 };
        let n_whole = n_tiles - n_split;
        let cols = |tiles: Range<usize>| tiles.start * nr..(tiles.end * nr).min(n_cols);

        let n_parts = n_whole.div_ceil(max_tiles).next_multiple_of(n_threads).min(n_whole);
        let whole = |part| Part { rows: 0..n_rows, cols: cols(chunk(part, n_parts, n_whole)) };
        let whole: Vec<Part> = (0..n_parts).map(whole).collect();
        let split: Vec<Part> = (0..n_split * n_splits)
            .map(|part| {
                let (tile, blocks) = (n_whole + part / n_splits, chunk(part % n_splits, n_splits, blocks));
                Part { rows: blocks.start * mr..(blocks.end * mr).min(n_rows), cols: cols(tile..tile + 1) }
            })
            .collect();
        let of = |thread: usize| {
            [&whole, &split].map(|parts| &parts[chunk(thread, n_threads, parts.len())]).concat()
        };
        (0..n_threads).flat_map(of).collect()
    }
}

/// Chunk `i` of `n` almost equal ones of `0..len`.
fn chunk(i: usize, n: usize, len: usize) -> Range<usize> {
    len * i / n..len * (i + 1) / n
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_belongs_to_one_part_and_threads_get_equal_work() {
        for n_threads in [1, 2, 3, 4, 16] {
            for (n_cols, n_rows) in
                [(1, 1), (64, 5), (576, 356), (576, 3), (960, 100), (768, 356), (100, 7), (3072, 1000)]
            {
                for (nr, mr, max_tiles) in [(64, 6, 4), (32, 12, 4), (16, 4, 64)] {
                    let partition = Partition { n_cols, n_rows, nr, mr, max_tiles, n_threads };
                    let parts = partition.parts();
                    let mut covered = vec![0; n_cols * n_rows];
                    for Part { rows, cols } in &parts {
                        assert!(!rows.is_empty() && !cols.is_empty(), "{partition:?}: an empty part");
                        assert!(
                            cols.start % nr == 0 && rows.start % mr == 0,
                            "{partition:?}: a divided tile"
                        );
                        assert!(cols.len() <= max_tiles * nr, "{partition:?}: more than a panel");
                        for row in rows.clone() {
                            cols.clone().for_each(|col| covered[row * n_cols + col] += 1);
                        }
                    }
                    assert!(covered.iter().all(|&times| times == 1), "{partition:?}: {parts:?}");
                    if n_cols % nr == 0 && n_rows >= 100 {
                        let work = |parts: &[Part]| {
                            parts.iter().map(|part| part.rows.len() * part.cols.len()).sum::<usize>()
                        };
                        let of = |thread| work(&parts[chunk(thread, n_threads, parts.len())]);
                        let most = (0..n_threads).map(of).max().unwrap();
                        // Split rows are whole blocks.
                        let even = n_cols * n_rows / n_threads + 2 * nr * mr;
                        assert!(most <= even, "{partition:?}: {most} of {even}");
                    }
                }
            }
        }
    }
}
