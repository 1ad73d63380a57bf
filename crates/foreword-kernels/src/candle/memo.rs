//! What was made for a key not long ago: index tensors that all layers of a pass share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Result;

/// The newest values by their keys.
#[derive(Debug)]
pub(super) struct Memo<K, V> {
    kept: Mutex<VecDeque<(K, Arc<V>)>>,
    most: usize,
}

impl<K: PartialEq + Clone, V> Memo<K, V> {
    /// Room for so many.
    pub(super) fn new(most: usize) -> Self {
        Self { kept: Mutex::new(VecDeque::new()), most }
    }

    /// The value that was made for an equal key, or a new one, for which the one longest without use goes.
    pub(super) fn get(&self, key: &K, make: impl FnOnce() -> Result<V>) -> Result<Arc<V>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().position(|(k, _)| k == key).and_then(|i| kept.remove(i));
        let newest = match known {
            Some(known) => known,
            None => (key.clone(), Arc::new(make()?)),
        };
        let value = Arc::clone(&newest.1);
        kept.push_front(newest);
        kept.truncate(self.most);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_longest_without_use_goes() {
        let memo = Memo::new(2);
        let made = |key: u32| {
            let mut new = false;
            let value = memo.get(&key, || {
                new = true;
                Ok(key * 10)
            });
            assert_eq!(*value.unwrap(), key * 10);
            new
        };
        assert_eq!([1, 2, 1, 3, 1, 2].map(made), [true, true, false, true, false, true]);
    }
}
