//! Cache hints for frozen matrices.

use std::ops::Range;

use super::matrix::{FrozenMatrix, Rhs};

/// Prefetches `bytes` into the second-level cache.
#[allow(unsafe_code)]
pub(super) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(last) = bytes.last() {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let mut line = (bytes.as_ptr().addr() & !63) as *const i8;
        while line.addr() <= std::ptr::from_ref(last).addr() {
            // SAFETY: a hint reads no memory.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line) };
            line = line.wrapping_add(64);
        }
    }
    let _ = bytes;
}

/// The part of a frozen matrix that the next panel reads: it is prefetched while this one is multiplied.
pub(super) struct NextPanel<'a> {
    matrix: Option<&'a FrozenMatrix>,
    stored_rows: Range<usize>,
    numbers: Range<usize>,
}

impl<'a> NextPanel<'a> {
    pub(super) const NONE: Self = Self { matrix: None, stored_rows: 0..0, numbers: 0..0 };

    /// For columns that may be beyond the matrix.
    pub(super) fn of(rhs: Rhs<'a>, cols: Range<usize>, k: Range<usize>) -> Self {
        let matrix = rhs.matrix();
        let (stored_rows, numbers) = match rhs {
            Rhs::Transposed(_) => (cols, k),
            Rhs::Plain(_) => (k, cols),
        };
        let (n_rows, n_numbers) = matrix.stored_shape();
        let within = |range: Range<usize>, n: usize| range.start.min(n)..range.end.min(n);
        Self {
            matrix: Some(matrix),
            stored_rows: within(stored_rows, n_rows),
            numbers: within(numbers, n_numbers),
        }
    }

    /// Prefetches the share that belongs to these of `n` output rows.
    pub(super) fn prefetch(&self, rows: Range<usize>, n: usize) {
        let Some(matrix) = self.matrix else { return };
        let share = |row: usize| self.stored_rows.start + self.stored_rows.len() * row / n;
        for row in share(rows.start)..share(rows.end) {
            let (dtype, bytes) = matrix.stored_row(row);
            let (numbers, size) = dtype.block();
            prefetch(&bytes[self.numbers.start / numbers * size..self.numbers.end.div_ceil(numbers) * size]);
        }
    }
}
