//! The order of the training examples.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

/// The order of the examples; each epoch's depends only on the seed and the epoch.
pub(crate) struct Order {
    indices: Vec<usize>,
    next: usize,
    epoch: u64,
    seed: Option<u64>,
}

impl Order {
    /// The order of `n` examples after `step` batches.
    pub(crate) fn at(step: u64, batch_size: usize, n: usize, seed: Option<u64>) -> Self {
        let taken = u128::from(step) * batch_size as u128;
        let (epoch, next) = ((taken / n as u128) as u64, (taken % n as u128) as usize);
        let mut order = Self { indices: (0..n).collect(), next, epoch, seed };
        order.shuffle();
        order
    }

    /// The next examples; at the end of an epoch, those of the next one follow.
    pub(crate) fn next_batch(&mut self, size: usize) -> Vec<usize> {
        let mut batch = Vec::with_capacity(size.min(self.indices.len()));
        while batch.len() < size {
            if self.next == self.indices.len() {
                self.epoch += 1;
                self.next = 0;
                self.shuffle();
            }
            batch.push(self.indices[self.next]);
            self.next += 1;
        }
        batch
    }

    /// A Fisher–Yates shuffle, starting from the original order.
    fn shuffle(&mut self) {
        let Some(seed) = self.seed else { return };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(self.epoch);
        self.indices.sort_unstable();
        for i in (1..self.indices.len()).rev() {
            // The remainder favours small numbers by less than n / 2⁶⁴.
            self.indices.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
        }
    }
}
