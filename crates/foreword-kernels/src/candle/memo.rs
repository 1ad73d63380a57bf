//! A small cache of the latest values: index tensors that all layers of a pass share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Result;

/// The most recently used values by their keys.
#[derive(Debug)]
pub(super) struct Memo<K, V> {
    values: Mutex<VecDeque<(K, Arc<V>)>>,
    capacity: usize,
}

impl<K: PartialEq + Clone, V> Memo<K, V> {
    /// A cache of `capacity` values.
    pub(super) fn new(capacity: usize) -> Self {
        Self { values: Mutex::new(VecDeque::new()), capacity }
    }

    /// The value of this key, or a new one, which evicts the least recently used.
    pub(super) fn get(&self, key: &K, make: impl FnOnce() -> Result<V>) -> Result<Arc<V>> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let known = values.iter().position(|(k, _)| k == key).and_then(|i| values.remove(i));
        let newest = match known {
            Some(known) => known,
            None => (key.clone(), Arc::new(make()?)),
        };
        let value = Arc::clone(&newest.1);
        values.push_front(newest);
        values.truncate(self.capacity);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_value_is_evicted() {
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
