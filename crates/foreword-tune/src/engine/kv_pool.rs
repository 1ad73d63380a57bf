//! A memory pool for keys and values with a size limit: blocks with stable ids that requests share and release.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use foreword_backbone::kernels::{Backend, Source, Span};
use foreword_backbone::{Backbone, KeyValues};

use super::blocks::{Piece, address};

/// Rows of a page: the block for a request's own keys and values.
pub const PAGE_ROWS: usize = 32;

/// A block of a pool, valid as long as it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockId(usize);

/// Why an allocation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// It is larger than the whole pool.
    #[error("{needed} bytes of keys and values are needed, more than the limit of {limit}")]
    TooLarge {
        /// Bytes requested.
        needed: u64,
        /// The limit of the pool.
        limit: u64,
    },
    /// The pool is full until others release memory.
    #[error("{needed} bytes of keys and values are needed, and {free} are free")]
    Full {
        /// Bytes requested.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
}

/// Blocks of keys and values.
pub struct KvPool<B: Backend> {
    blocks: Vec<Option<Block<B>>>,
    vacant: Vec<usize>,
    /// The shared blocks, by address.
    shared: HashMap<usize, BlockId>,
    /// Unused pages.
    spare: Vec<KeyValues<B>>,
    /// Bytes per row.
    row_bytes: u64,
    limit: u64,
    /// Bytes reserved by leases.
    leased: u64,
}

struct Block<B: Backend> {
    held: Held<B>,
    n_leases: usize,
}

enum Held<B: Backend> {
    /// Owned by one request.
    Page(KeyValues<B>),
    /// Owned by a prefix, and alive as long as someone holds it.
    Shared(Arc<KeyValues<B>>),
}

/// A request's share of a pool: the blocks of its prefix, and pages for its own rows. It must be released with
/// `KvPool::release`.
pub struct Lease {
    shared: Vec<BlockId>,
    pages: Vec<BlockId>,
    /// Number of reserved pages.
    n_pages: usize,
    /// Its path: block, rows, and position of the first row.
    path: Vec<(BlockId, Range<usize>, usize)>,
}

impl<B: Backend> KvPool<B> {
    /// An empty pool for a model, with at most `limit` bytes.
    #[must_use]
    pub fn new(backbone: &Backbone<B>, limit: u64) -> Self {
        let row_bytes = (backbone.spec().cache_width() * size_of::<B::Element>()) as u64;
        let (blocks, vacant, shared, spare) = (Vec::new(), Vec::new(), HashMap::new(), Vec::new());
        Self { blocks, vacant, shared, spare, row_bytes, limit, leased: 0 }
    }

    /// Bytes reserved by leases; never more than the limit.
    #[must_use]
    pub fn leased_bytes(&self) -> u64 {
        self.leased
    }

    /// Bytes of all blocks, including unused ones; never more than the limit.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let rows: usize = self.blocks.iter().flatten().map(|block| block.values().n_rows()).sum();
        (rows + self.spare.len() * PAGE_ROWS) as u64 * self.row_bytes
    }

    /// Number of blocks in use.
    #[must_use]
    pub fn n_blocks(&self) -> usize {
        self.blocks.iter().flatten().count()
    }

    fn page_bytes(&self) -> u64 {
        PAGE_ROWS as u64 * self.row_bytes
    }

    /// Checks that this number of rows below a path would fit into an empty pool.
    ///
    /// # Errors
    /// If they would not.
    pub(crate) fn check(&self, path: &[Piece<B>], n_rows: usize) -> Result<(), PoolError> {
        let shared: usize = path.iter().map(|piece| piece.block.n_rows()).sum();
        let rows = (shared + n_rows.next_multiple_of(PAGE_ROWS)) as u64;
        let (needed, limit) = (rows * self.row_bytes, self.limit);
        if needed > limit { Err(PoolError::TooLarge { needed, limit }) } else { Ok(()) }
    }

    /// Leases space for `n_rows` rows below a path in shared blocks.
    ///
    /// # Errors
    /// If there is not enough space left.
    pub(crate) fn lease(&mut self, path: &[Piece<B>], n_rows: usize) -> Result<Lease, PoolError> {
        let n_pages = n_rows.div_ceil(PAGE_ROWS);
        let mut fresh: Vec<&Arc<KeyValues<B>>> = Vec::new();
        for Piece { block, .. } in path {
            let is_known = |other: &&Arc<KeyValues<B>>| Arc::ptr_eq(other, block);
            if !self.shared.contains_key(&address(block)) && !fresh.iter().any(is_known) {
                fresh.push(block);
            }
        }
        let fresh_rows: usize = fresh.iter().map(|block| block.n_rows()).sum();
        let needed = n_pages as u64 * self.page_bytes() + fresh_rows as u64 * self.row_bytes;
        let free = self.limit - self.leased;
        if needed > free {
            return Err(PoolError::Full { needed, free });
        }
        self.leased += needed;
        // Unused pages make space for blocks of another size.
        let most_spare = (self.limit - self.leased) / self.page_bytes() + n_pages as u64;
        self.spare.truncate(usize::try_from(most_spare).unwrap_or(usize::MAX));

        let (mut shared, mut spans) = (Vec::new(), Vec::new());
        for Piece { block, rows, position } in path {
            let id = match self.shared.get(&address(block)) {
                Some(&id) => id,
                None => {
                    let id = self.insert(Held::Shared(Arc::clone(block)));
                    self.shared.insert(address(block), id);
                    id
                }
            };
            if !shared.contains(&id) {
                shared.push(id);
                self.blocks[id.0].as_mut().into_iter().for_each(|block| block.n_leases += 1);
            }
            spans.push((id, rows.clone(), *position));
        }
        Ok(Lease { shared, pages: Vec::new(), n_pages, path: spans })
    }

    fn insert(&mut self, held: Held<B>) -> BlockId {
        let block = Some(Block { held, n_leases: 0 });
        match self.vacant.pop() {
            Some(slot) => {
                self.blocks[slot] = block;
                BlockId(slot)
            }
            None => {
                self.blocks.push(block);
                BlockId(self.blocks.len() - 1)
            }
        }
    }

    /// Appends rows to a lease's path.
    ///
    /// # Panics
    /// If they are more than it was given room for.
    pub(crate) fn append(
        &mut self,
        backbone: &Backbone<B>,
        lease: &mut Lease,
        (source, mut rows): (&KeyValues<B>, Range<usize>),
    ) {
        while !rows.is_empty() {
            let page = lease.pages.last().copied();
            let used = match (page, lease.path.last()) {
                (Some(page), Some((last, used, _))) if page == *last => used.end,
                _ => PAGE_ROWS,
            };
            let (page, used) = match page {
                Some(page) if used < PAGE_ROWS => (page, used),
                _ => {
                    assert!(lease.pages.len() < lease.n_pages, "more rows than there is room for");
                    let values = self.spare.pop().unwrap_or_else(|| backbone.zero_key_values(PAGE_ROWS));
                    let page = self.insert(Held::Page(values));
                    let position = lease.path.last().map_or(0, |(_, rows, position)| position + rows.len());
                    lease.pages.push(page);
                    lease.path.push((page, 0..0, position));
                    (page, 0)
                }
            };
            let n = rows.len().min(PAGE_ROWS - used);
            let (to, from): (Vec<usize>, Vec<usize>) = (used..used + n).zip(rows.clone()).unzip();
            if let Some(Block { held: Held::Page(values), .. }) = &mut self.blocks[page.0] {
                values.assign_rows(backbone.backend(), &to, source, &from);
            }
            if let Some((_, rows, _)) = lease.path.last_mut() {
                rows.end = used + n;
            }
            rows.start += n;
        }
    }

    /// Releases a lease and everything that only it held.
    pub(crate) fn release(&mut self, lease: Lease) {
        let Lease { shared, pages, n_pages, .. } = lease;
        self.leased -= n_pages as u64 * self.page_bytes();
        for page in pages {
            self.vacant.push(page.0);
            if let Some(Block { held: Held::Page(values), .. }) = self.blocks[page.0].take() {
                self.spare.push(values);
            }
        }
        for BlockId(slot) in shared {
            let Some(block) = &mut self.blocks[slot] else { continue };
            block.n_leases -= 1;
            if block.n_leases == 0 {
                self.leased -= block.values().n_rows() as u64 * self.row_bytes;
                if let Some(Block { held: Held::Shared(block), .. }) = self.blocks[slot].take() {
                    self.shared.remove(&address(&block));
                }
                self.vacant.push(slot);
            }
        }
    }

    /// The blocks of some leases, as the context of one call, and the paths of the leases in it.
    pub(crate) fn context<'l>(
        &self,
        leases: impl Iterator<Item = &'l Lease>,
    ) -> (Vec<&KeyValues<B>>, Vec<Vec<Span>>) {
        let mut context = Vec::new();
        let mut places: HashMap<BlockId, usize> = HashMap::new();
        let mut span = |(id, rows, position): &(BlockId, Range<usize>, usize)| {
            let place = *places.entry(*id).or_insert_with(|| {
                context.extend(self.blocks[id.0].as_ref().map(Block::values));
                context.len() - 1
            });
            Span { source: Source::Context(place), rows: rows.clone(), position: *position }
        };
        let paths = leases.map(|lease| lease.path.iter().map(&mut span).collect()).collect();
        (context, paths)
    }
}

impl<B: Backend> Block<B> {
    fn values(&self) -> &KeyValues<B> {
        match &self.held {
            Held::Page(values) => values,
            Held::Shared(values) => values,
        }
    }
}
