//! A cache of keys and values for frozen contexts: a text before the learned rows never changes, so its keys and values are
//! computed once per run.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foreword_backbone::kernels::{Element, Token};

/// The cache size. Contexts that do not fit are recomputed each time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheBudget {
    /// Bytes of memory.
    pub memory: u64,
    /// A directory for a temporary file with the contexts that do not fit into memory.
    pub dir: Option<PathBuf>,
}

/// The budget of a run, shared by its caches.
#[derive(Clone, Debug, Default)]
pub struct SharedBudget {
    left: Arc<AtomicU64>,
    dir: Option<PathBuf>,
}

impl From<&CacheBudget> for SharedBudget {
    fn from(room: &CacheBudget) -> Self {
        Self { left: Arc::new(AtomicU64::new(room.memory)), dir: room.dir.clone() }
    }
}

impl SharedBudget {
    /// Reserves this number of bytes, if available.
    fn take(&self, bytes: u64) -> bool {
        let less = |left: u64| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// Keys and values of contexts, `[n, L·2·K·D]` each, by their tokens.
#[derive(Debug)]
pub(crate) struct FrozenTextCache<E> {
    room: SharedBudget,
    kept: HashMap<Vec<Token>, Kept<E>>,
    file: Option<File>,
    file_bytes: u64,
}

#[derive(Debug)]
enum Kept<E> {
    InMemory(Vec<E>),
    /// This many numbers from this byte of the file on.
    OnDisk(u64, usize),
}

impl<E: Element> FrozenTextCache<E> {
    /// An empty cache with this budget; uses a temporary file if a directory is set.
    pub(crate) fn new(room: &SharedBudget) -> io::Result<Self> {
        let file = room.dir.as_ref().map(tempfile::tempfile_in).transpose()?;
        Ok(Self { room: room.clone(), kept: HashMap::new(), file, file_bytes: 0 })
    }

    /// The numbers of a context, if they are cached and readable.
    pub(crate) fn get(&mut self, context: &[Token]) -> Option<Vec<E>> {
        match self.kept.get(context)? {
            Kept::InMemory(values) => Some(values.clone()),
            &Kept::OnDisk(offset, n) => {
                let file = self.file.as_mut()?;
                let mut bytes = vec![0; n * size_of::<f32>()];
                let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes));
                if read.is_err() {
                    // An unreadable entry is recomputed, and not looked up a second time.
                    self.kept.remove(context);
                    return None;
                }
                let (numbers, _) = bytes.as_chunks::<4>();
                Some(numbers.iter().map(|&bytes| E::of_f32(f32::from_le_bytes(bytes))).collect())
            }
        }
    }

    /// Caches a context, if the budget allows.
    pub(crate) fn keep(&mut self, context: &[Token], values: &[E]) {
        if self.room.take(size_of_val(values) as u64) {
            self.kept.insert(context.to_vec(), Kept::InMemory(values.to_vec()));
        } else if size_of::<E>() == size_of::<f32>()
            && let Some(file) = &mut self.file
        {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.as_f32().to_le_bytes()).collect();
            let at = self.file_bytes;
            let written = file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(&bytes));
            if written.is_ok() {
                self.file_bytes += bytes.len() as u64;
                self.kept.insert(context.to_vec(), Kept::OnDisk(at, values.len()));
            } else {
                // A full disk: the rest is recomputed each time.
                self.room.dir = None;
                self.file_bytes = at;
            }
        }
    }

    /// Number of cached contexts, in memory and on disk.
    #[cfg(test)]
    fn n_kept(&self) -> (usize, usize) {
        let on_disk = self.kept.values().filter(|kept| matches!(kept, Kept::OnDisk(..))).count();
        (self.kept.len() - on_disk, on_disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_comes_back_from_memory_and_from_disk() {
        let dir = tempfile::tempdir().unwrap();
        for (memory, dir, expected) in [
            (1000, None, (3, 0)),
            (20, None, (1, 0)),
            (20, Some(dir.path().to_owned()), (1, 2)),
            (0, Some(dir.path().to_owned()), (0, 3)),
            (0, None, (0, 0)),
        ] {
            let room = SharedBudget::from(&CacheBudget { memory, dir });
            let mut cache = FrozenTextCache::<f32>::new(&room).unwrap();
            let values = |i: u32| -> Vec<f32> { (0..4).map(|j| i as f32 + 0.1 * j as f32).collect() };
            for i in 0..3 {
                assert!(cache.get(&[i, 7]).is_none());
                cache.keep(&[i, 7], &values(i));
            }
            assert_eq!(cache.n_kept(), expected);
            let found = (0..3).rev().filter(|&i| cache.get(&[i, 7]) == Some(values(i))).count();
            assert_eq!(found, expected.0 + expected.1);
        }
    }

    #[test]
    fn caches_share_their_room() {
        let room = SharedBudget::from(&CacheBudget { memory: 40, dir: None });
        let [mut one, mut other] = [0, 1].map(|_| FrozenTextCache::<f64>::new(&room).unwrap());
        one.keep(&[1], &[0.5; 3]);
        other.keep(&[1], &[0.5; 3]);
        other.keep(&[2], &[0.5; 2]);
        assert_eq!((one.n_kept(), other.n_kept()), ((1, 0), (1, 0)));
    }
}
