//! An attention along a forest as few large products: which rows form a batch, and where they come from.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};

use crate::forest::{Forest, Segment, Source};

/// The share of the scratch limit up to which a batch may be mostly padding: another launch would take longer.
const SMALL_SHARE: usize = 16;

/// Everything that a plan depends on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlanKey {
    pub(super) segments: Vec<Segment>,
    pub(super) query_rows: Option<Vec<usize>>,
    /// Rows of each context block.
    pub(super) context: Vec<usize>,
    /// Numbers of a score block per query and key: the query heads.
    pub(super) heads: usize,
    /// Numbers of a row of keys and values.
    pub(super) width: usize,
    /// How many positions up to its own a row sees, if not all.
    pub(super) window: Option<usize>,
    /// Scores depend on the distance of key and query.
    pub(super) distances: bool,
    /// Limit on the numbers of the scores, keys or gathered gradients of a batch.
    pub(super) scratch_limit: usize,
}

/// The batches of an attention. Keys and values are rows of the *pool*: the context's rows, block after block, then those of
/// the call.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) batches: Vec<Batch>,
    /// Per query, its row among those of all batches, `[N queries]`.
    pub(super) queries_at: Tensor,
    pub(super) sums: Sums,
}

/// Queries of several segments, padded to the same number, with their visible keys, padded too.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) n: usize,
    pub(super) n_queries: usize,
    pub(super) n_keys: usize,
    /// `[n · n_queries]`; padding repeats the first row.
    pub(super) queries: Tensor,
    /// `[n · n_keys]`, rows of the pool; padding repeats the first row.
    pub(super) keys: Tensor,
    /// Attention mask added to the scores, `[n, 1, n_queries, n_keys]`: 0 if the key is visible.
    pub(super) bias: Tensor,
    /// Positions from each key to its query, `[n, 1, n_queries, n_keys]`, if scores depend on them.
    pub(super) distances: Option<Tensor>,
}

/// How the gradients of the batches' keys and values are summed to those of the pool: a trunk's row is in a batch
/// once for every descendant. Sums run over gathered rows, since adding to rows by index is serial on a GPU.
#[derive(Debug)]
pub(super) struct Sums {
    /// (`[m · c]` rows of the batches, or the zero row after them, c): sums of c rows for m rows of the pool.
    pub(super) groups: Vec<(Tensor, usize)>,
    /// For each row of the pool, its sum among those of all groups, or the zero row after them.
    pub(super) sums_at: Tensor,
}

/// Queries of one segment.
struct Item {
    queries: Range<usize>,
    /// Of the first query, and so on.
    query_positions: Vec<usize>,
    /// Rows of the pool.
    keys: Vec<u32>,
    key_positions: Vec<usize>,
}

impl Plan {
    /// The plan for a forest.
    pub(super) fn new(forest: &Forest, key: &PlanKey, device: &Device) -> Result<Self> {
        let mut items = items(forest, key);
        items.sort_by_key(|item| (item.queries.len(), item.keys.len()));
        let n_pool = key.context.iter().sum::<usize>() + forest.n_rows();
        let n_queries = key.query_rows.as_ref().map_or(forest.n_rows(), Vec::len);
        let mut queries_at = vec![0_u32; n_queries];
        let mut sources: Vec<Vec<u32>> = vec![Vec::new(); n_pool];
        let (mut n_query_rows, mut n_key_rows) = (0, 0);
        let mut batches = Vec::new();
        for items in batched(&items, key) {
            let batch = Batch::new(items, key, device)?;
            for (i, item) in items.iter().enumerate() {
                for (j, query) in item.queries.clone().enumerate() {
                    queries_at[query] = (n_query_rows + i * batch.n_queries + j) as u32;
                }
                for (j, &place) in item.keys.iter().enumerate() {
                    sources[place as usize].push((n_key_rows + i * batch.n_keys + j) as u32);
                }
            }
            n_query_rows += batch.n * batch.n_queries;
            n_key_rows += batch.n * batch.n_keys;
            batches.push(batch);
        }
        let queries_at = Tensor::from_vec(queries_at, n_queries, device)?;
        Ok(Self { batches, queries_at, sums: Sums::new(&sources, n_key_rows, key, device)? })
    }
}

/// The queries of every segment, in parts whose scores are within the limit.
fn items(forest: &Forest, key: &PlanKey) -> Vec<Item> {
    let firsts: Vec<usize> = key
        .context
        .iter()
        .scan(0, |next, n| {
            *next += n;
            Some(*next - n)
        })
        .collect();
    let first_own: usize = key.context.iter().sum();
    let mut items = Vec::new();
    for block in forest.query_blocks(key.query_rows.as_deref()) {
        let segment = &forest.segments()[block.segment];
        let ancestors = segment.ancestors().iter().map(|span| {
            let first = match span.source {
                Source::Own => first_own,
                Source::Context(block) => firsts[block],
            };
            (first + span.rows.start..first + span.rows.end, span.position)
        });
        let own = segment.rows();
        let most = (key.scratch_limit / (key.heads * (segment.n_ancestor_rows() + own.len()))).max(1);
        for start in block.queries.clone().step_by(most) {
            let queries = start..(start + most).min(block.queries.end);
            let row = |query: usize| key.query_rows.as_ref().map_or(query, |query_rows| query_rows[query]);
            let position = |query: usize| segment.position() + row(query) - own.start;
            let query_positions: Vec<usize> = queries.clone().map(position).collect();
            let itself = (first_own + own.start..first_own + row(queries.end - 1) + 1, segment.position());
            let (mut keys, mut key_positions) = (Vec::new(), Vec::new());
            for (places, position) in ancestors.clone().chain([itself]) {
                // Rows before the window of the first query are visible to none.
                let n_before =
                    key.window.map_or(0, |w| (query_positions[0] + 1).saturating_sub(position + w));
                let n_before = n_before.min(places.len());
                key_positions.extend(position + n_before..position + places.len());
                keys.extend((places.start + n_before..places.end).map(|place| place as u32));
            }
            items.push(Item { queries, query_positions, keys, key_positions });
        }
    }
    items
}

/// Consecutive items that a batch holds without too much padding.
fn batched<'a>(items: &'a [Item], key: &PlanKey) -> Vec<&'a [Item]> {
    let mut parts = Vec::new();
    let (mut start, mut real, mut n_keys) = (0, 0, 0);
    for (i, item) in items.iter().enumerate() {
        let area = item.queries.len() * item.keys.len();
        let (n, longest) = (i + 1 - start, item.keys.len().max(n_keys));
        // Items are sorted by their number of queries, so this one's is the largest.
        let scores = key.heads * n * item.queries.len() * longest;
        let fits = scores.max(n * longest * key.width) <= key.scratch_limit
            && (scores <= key.scratch_limit / SMALL_SHARE || scores <= 2 * key.heads * (real + area));
        if i > start && !fits {
            parts.push(&items[start..i]);
            (start, real, n_keys) = (i, 0, 0);
        }
        real += area;
        n_keys = n_keys.max(item.keys.len());
    }
    if start < items.len() {
        parts.push(&items[start..]);
    }
    parts
}

impl Batch {
    fn new(items: &[Item], key: &PlanKey, device: &Device) -> Result<Self> {
        let n = items.len();
        let n_queries = items.iter().map(|item| item.queries.len()).max().unwrap_or(0);
        let n_keys = items.iter().map(|item| item.keys.len()).max().unwrap_or(0);
        let mut queries = vec![0_u32; n * n_queries];
        let mut keys = vec![0_u32; n * n_keys];
        // Padded queries see no key, and no query sees padded keys.
        let mut query_positions = vec![-1_f32; n * n_queries];
        let mut key_positions = vec![f32::MAX; n * n_keys];
        for (i, item) in items.iter().enumerate() {
            for (j, query) in item.queries.clone().enumerate() {
                queries[i * n_queries + j] = query as u32;
                query_positions[i * n_queries + j] = item.query_positions[j] as f32;
            }
            keys[i * n_keys..][..item.keys.len()].copy_from_slice(&item.keys);
            for (to, &position) in key_positions[i * n_keys..].iter_mut().zip(&item.key_positions) {
                *to = position as f32;
            }
        }
        let query_at = Tensor::from_vec(query_positions, (n, 1, n_queries, 1), device)?;
        let key_at = Tensor::from_vec(key_positions, (n, 1, 1, n_keys), device)?;
        let mut masked = key_at.broadcast_gt(&query_at)?.to_dtype(DType::F32)?;
        if let Some(window) = key.window {
            let before = (&key_at + window as f64)?.broadcast_le(&query_at)?.to_dtype(DType::F32)?;
            masked = masked.add(&before)?;
        }
        let distances =
            key.distances.then(|| query_at.broadcast_sub(&key_at)?.clamp(0.0, f64::from(u32::MAX)));
        Ok(Self {
            n,
            n_queries,
            n_keys,
            queries: Tensor::from_vec(queries, n * n_queries, device)?,
            keys: Tensor::from_vec(keys, n * n_keys, device)?,
            // Finite, so that the softmax of a padded query is a number; it is not read.
            bias: (masked * f64::from(f32::MIN / 2.0))?,
            distances: distances.transpose()?,
        })
    }
}

impl Sums {
    /// Of `n_rows` rows, those at `sources[i]` for row `i`.
    fn new(sources: &[Vec<u32>], n_rows: usize, key: &PlanKey, device: &Device) -> Result<Self> {
        let mut order: Vec<usize> = (0..sources.len()).filter(|&i| !sources[i].is_empty()).collect();
        let size = |i: usize| sources[i].len().next_power_of_two();
        order.sort_by_key(|&i| size(i));
        let mut sums_at = vec![order.len() as u32; sources.len()];
        for (place, &i) in order.iter().enumerate() {
            sums_at[i] = place as u32;
        }
        let mut groups = Vec::new();
        for same in order.chunk_by(|&a, &b| size(a) == size(b)) {
            let c = size(same[0]);
            for part in same.chunks((key.scratch_limit / (c * key.width)).max(1)) {
                let mut rows = vec![n_rows as u32; part.len() * c];
                for (rows, &i) in rows.chunks_exact_mut(c).zip(part) {
                    rows[..sources[i].len()].copy_from_slice(&sources[i]);
                }
                groups.push((Tensor::from_vec(rows, part.len() * c, device)?, c));
            }
        }
        let n = sums_at.len();
        Ok(Self { groups, sums_at: Tensor::from_vec(sums_at, n, device)? })
    }

    /// `[rows of all batches, W]` to `[rows of the pool, W]`.
    pub(super) fn of(&self, rows: &Tensor) -> Result<Tensor> {
        let width = rows.dims()[1];
        let zero = Tensor::zeros((1, width), DType::F32, rows.device())?;
        let padded = Tensor::cat(&[rows, &zero], 0)?;
        let mut sums = Vec::with_capacity(self.groups.len() + 1);
        for (indices, c) in &self.groups {
            let gathered = padded.index_select(indices, 0)?;
            sums.push(if *c == 1 { gathered } else { gathered.reshape(((), *c, width))?.sum(1)? });
        }
        sums.push(zero);
        Tensor::cat(&sums, 0)?.index_select(&self.sums_at, 0)
    }
}
