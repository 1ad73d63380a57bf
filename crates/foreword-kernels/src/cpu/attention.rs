//! Softmax attention along a forest, and its gradient, as products of small blocks: of queries of one segment, and of the
//! keys visible to them. The products use the microkernels of `gemm`, and no score outlives its block.
//!
//! The gradient has two passes over the pairs of query and key: one per block of queries for their gradient, and one per tile
//! of keys for the gradients of keys and values. The second pass owns its tile and takes the queries in their order. So it
//! needs no lock and no second order of summation, at the price of two more products than a single pass. Every number is one
//! chain of multiply-adds in a fixed order: the head's numbers for a score, the keys of the path for an output, the queries
//! for a key's gradient. A key that is not visible adds zero. So blocks, threads, micro-batches and caches change no bit.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::code_path::CodePath;
use super::gemm::{Init, Kernel, Lhs, Panel, multiply_panel};
use super::lanes::{dot, exp, per_path, sum};
use crate::backend::{Attended, Attention, AttentionGradient, AttentionShape};
use crate::forest::{QueryBlock, Source};
use crate::rows::{RowBlock, Rows};

/// Queries of a block: enough that the keys are not read often.
const QUERIES: usize = 32;
/// Bounds of the keys of a tile: multiples of MR.
const MAX_KEYS: usize = 48;
const MIN_KEYS: usize = 12;

type View<'a> = Attention<'a, Rows<f32>>;

/// All queries in blocks, each of one segment.
fn query_blocks(attention: &View<'_>) -> Vec<QueryBlock> {
    let split = |QueryBlock { segment, queries }: QueryBlock| {
        chunks(queries).map(move |queries| QueryBlock { segment, queries })
    };
    attention.forest.query_blocks(attention.query_rows).into_iter().flat_map(split).collect()
}

fn chunks(queries: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = queries.end;
    queries.step_by(QUERIES).map(move |start| start..(start + QUERIES).min(end))
}

/// Index of query `query` among the rows of the call.
fn row_of(attention: &View<'_>, query: usize) -> usize {
    attention.query_rows.map_or(query, |rows| rows[query])
}

/// Position of query `query`, one of segment `segment`.
fn position(attention: &View<'_>, segment: usize, query: usize) -> usize {
    let segment = &attention.forest.segments()[segment];
    segment.position() + row_of(attention, query) - segment.rows().start
}

/// The key/value rows on a path that a block of queries sees, in the order of the path.
struct VisibleKeys<'a> {
    rows: Vec<&'a [f32]>,
    /// Ascending.
    positions: Vec<usize>,
    window: Option<usize>,
}

impl<'a> VisibleKeys<'a> {
    fn of(attention: &View<'a>, block: &QueryBlock) -> Self {
        let segment = &attention.forest.segments()[block.segment];
        let width = attention.key_values.width();
        let window = attention.shape.window;
        let first = position(attention, block.segment, block.queries.start);
        let end = row_of(attention, block.queries.end - 1) + 1;
        let itself = (Source::Own, segment.rows().start..end, segment.position());
        let ancestors =
            segment.ancestors().iter().map(|span| (span.source, span.rows.clone(), span.position));
        let (mut visible, mut positions) = (Vec::new(), Vec::new());
        for (source, rows, position) in ancestors.chain([itself]) {
            let key_values = match source {
                Source::Own => attention.key_values,
                Source::Context(i) => attention.context[i],
            };
            // Rows before the window of the first query are visible to none.
            let n_before = window.map_or(0, |window| (first + 1).saturating_sub(position + window));
            let n_before = n_before.min(rows.len());
            positions.extend(position + n_before..position + rows.len());
            let rows = (rows.start + n_before) * width..rows.end * width;
            visible.extend(key_values.values()[rows].chunks_exact(width));
        }
        Self { rows: visible, positions, window }
    }

    /// Those that the query at `position` sees.
    fn range(&self, position: usize) -> Range<usize> {
        let start =
            self.window.map_or(0, |window| self.positions.partition_point(|&p| p + window <= position));
        start..self.positions.partition_point(|&p| p <= position)
    }
}

/// How the product of a query and a key becomes a score, if by more than a factor.
#[derive(Clone, Copy)]
struct ScoreModifier {
    scale: f32,
    cap: Option<f32>,
    /// Subtracted per position from the query back to the key.
    slope: f32,
}

impl ScoreModifier {
    /// That of a head; `None`: it is only a factor.
    fn of(attention: &View<'_>, head: usize) -> Option<Self> {
        let AttentionShape { scale, soft_cap, .. } = attention.shape;
        (soft_cap.is_some() || attention.slopes.is_some()).then(|| Self {
            scale: scale as f32,
            cap: soft_cap.map(|cap| cap as f32),
            slope: attention.slopes.map_or(0.0, |slopes| slopes[head]),
        })
    }

    /// The score of a key that is `distance` positions before the query.
    fn score(self, product: f32, distance: usize) -> f32 {
        let score = product * self.scale;
        self.cap.map_or(score, |cap| cap * (score / cap).tanh()) - self.slope * distance as f32
    }

    /// ∂score / ∂product.
    fn derivative(self, score: f32, distance: usize) -> f32 {
        let tanh = self.cap.map_or(0.0, |cap| (score + self.slope * distance as f32) / cap);
        self.scale * (1.0 - tanh * tanh)
    }
}

/// The buffers of a thread.
#[derive(Default)]
struct Scratch {
    /// Panels of keys, values, queries or gradients.
    panels: [Panel; 4],
    /// One number per query and key: scores, probabilities, or their gradients.
    pairs: [Vec<f32>; 2],
    /// One number per query: log-sums, δ, and derivatives of a key's scores.
    per_query: [Vec<f32>; 3],
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The first `n` numbers of a buffer, with any values.
fn resized(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
}

/// The rows from `first` on.
fn lhs_from(rows: &Rows<f32>, first: usize) -> Lhs<'_> {
    Lhs { values: &rows.values()[first * rows.width()..], stride: rows.width() }
}

/// Splits `rows` among the blocks, which cover all queries in order.
fn per_block<'r>(blocks: &[QueryBlock], rows: &'r mut Rows<f32>) -> Vec<&'r mut [f32]> {
    let width = rows.width();
    let mut rest = rows.values_mut();
    let mut parts = Vec::with_capacity(blocks.len());
    for block in blocks {
        let (part, after) = rest.split_at_mut(block.queries.len() * width);
        parts.push(part);
        rest = after;
    }
    parts
}

pub(super) fn attend(path: CodePath, attention: &View<'_>) -> Attended<Rows<f32>> {
    let shape = attention.shape;
    let (kernel, n) = (Kernel::f32(path), attention.queries.n_rows());
    let mut output = super::zeros(n, shape.query_width());
    let mut log_sums = super::zeros(n, shape.query_heads);
    let blocks = query_blocks(attention);
    let targets = per_block(&blocks, &mut output).into_iter().zip(per_block(&blocks, &mut log_sums));
    let work: Vec<_> = blocks.iter().zip(targets).collect();
    work.into_par_iter().with_max_len(1).for_each(|(block, (output, log_sums))| {
        SCRATCH.with_borrow_mut(|scratch| attend_block(kernel, attention, block, scratch, output, log_sums));
    });
    Attended { output, log_sums }
}

fn attend_block(
    kernel: Kernel,
    attention: &View<'_>,
    block: &QueryBlock,
    scratch: &mut Scratch,
    output: &mut [f32],
    log_sums: &mut [f32],
) {
    let shape = attention.shape;
    let (width, scale) = (shape.query_width(), shape.scale as f32);
    let keys = VisibleKeys::of(attention, block);
    let (n_keys, n_queries) = (keys.rows.len(), block.queries.len());
    let Scratch { panels: [key_panel, value_panel, ..], pairs: [scores, _], .. } = scratch;
    for head in 0..shape.query_heads {
        let (q, k, v) = head_columns(&shape, head);
        if head.is_multiple_of(shape.query_heads / shape.kv_heads) {
            kernel.pack_transposed(key_panel, &keys.rows, k);
            kernel.pack_plain(value_panel, &keys.rows, v.clone());
        }
        let scores = resized(scores, n_queries * n_keys);
        let queries = lhs_from(attention.queries, block.queries.start);
        multiply_panel(kernel, queries, q.clone(), key_panel, Init::Zero, (scores, n_keys, 0));
        let modifier = ScoreModifier::of(attention, head);
        let mut totals = [0.0; QUERIES];
        for (i, query) in block.queries.clone().enumerate() {
            let row = &mut scores[i * n_keys..(i + 1) * n_keys];
            let position = position(attention, block.segment, query);
            let visible = keys.range(position);
            let mut factor = scale;
            if let Some(modifier) = modifier {
                for (score, key) in row[visible.clone()].iter_mut().zip(&keys.positions[visible.clone()]) {
                    *score = modifier.score(*score, position - key);
                }
                factor = 1.0;
            }
            let (max, total) = exponentials(kernel.path(), &mut row[visible.clone()], factor);
            row[..visible.start].fill(0.0);
            row[visible.end..].fill(0.0);
            log_sums[i * shape.query_heads + head] = max + total.ln();
            totals[i] = total;
        }
        let weights = Lhs { values: scores, stride: n_keys };
        multiply_panel(kernel, weights, 0..n_keys, value_panel, Init::Accumulate, (output, width, q.start));
        for (row, total) in output.chunks_exact_mut(width).zip(totals) {
            row[q.clone()].iter_mut().for_each(|value| *value /= total);
        }
    }
}

pub(super) fn attend_gradient(
    path: CodePath,
    attention: &View<'_>,
    attended: &Attended<Rows<f32>>,
    d_output: &Rows<f32>,
    mut gradient: AttentionGradient<'_, Rows<f32>>,
) {
    let (kernel, shape) = (Kernel::f32(path), attention.shape);
    // δ = Σⱼ pⱼ dpⱼ of each query and head, which is d_output · output.
    let mut delta = super::zeros(d_output.n_rows(), shape.query_heads);
    let heads = delta.values_mut().par_chunks_mut(shape.query_heads).enumerate();
    heads.with_min_len(QUERIES).for_each(|(query, delta)| {
        let heads = d_output.row(query).chunks_exact(shape.head_width);
        let heads = heads.zip(attended.output.row(query).chunks_exact(shape.head_width));
        for (delta, (d, output)) in delta.iter_mut().zip(heads) {
            *delta = dot::<false>(d, output);
        }
    });
    let inputs = Inputs { shape, attention, attended, d_output, delta: &delta };
    if let Some(d_queries) = gradient.queries.take() {
        let blocks = query_blocks(attention);
        let work: Vec<_> = blocks.iter().zip(per_block(&blocks, d_queries)).collect();
        work.into_par_iter().with_max_len(1).for_each(|(block, d_queries)| {
            SCRATCH.with_borrow_mut(|scratch| query_gradient(kernel, &inputs, block, scratch, d_queries));
        });
    }
    if let Some(target) = gradient.key_values.take() {
        keys_gradient(kernel, &inputs, Source::Own, target);
    }
    for (block, target) in gradient.context.into_iter().enumerate() {
        if let Some(target) = target {
            keys_gradient(kernel, &inputs, Source::Context(block), target);
        }
    }
}

/// The inputs of both passes of the gradient.
struct Inputs<'a> {
    shape: AttentionShape,
    attention: &'a View<'a>,
    attended: &'a Attended<Rows<f32>>,
    d_output: &'a Rows<f32>,
    delta: &'a Rows<f32>,
}

/// Queries of one segment that may see the keys `keys` of a source.
#[derive(Clone)]
struct VisibleQueries {
    keys: Range<usize>,
    /// Of the first key.
    position: usize,
    segment: usize,
    queries: Range<usize>,
}

/// Adds the gradient of a block of queries.
fn query_gradient(
    kernel: Kernel,
    inputs: &Inputs<'_>,
    block: &QueryBlock,
    scratch: &mut Scratch,
    d_queries: &mut [f32],
) {
    let (shape, attention) = (inputs.shape, inputs.attention);
    let scale = shape.scale as f32;
    let keys = VisibleKeys::of(attention, block);
    let (n_keys, n_queries) = (keys.rows.len(), block.queries.len());
    let Scratch { panels: [key_panel, value_panel, key_rows_panel, _], pairs: [scores, d_scores], .. } =
        scratch;
    for head in 0..shape.query_heads {
        let (q, k, v) = head_columns(&shape, head);
        if head.is_multiple_of(shape.query_heads / shape.kv_heads) {
            kernel.pack_transposed(key_panel, &keys.rows, k.clone());
            kernel.pack_transposed(value_panel, &keys.rows, v);
            kernel.pack_plain(key_rows_panel, &keys.rows, k);
        }
        let scores = resized(scores, n_queries * n_keys);
        let d_scores = resized(d_scores, n_queries * n_keys);
        let first = block.queries.start;
        let modifier = ScoreModifier::of(attention, head);
        multiply_panel(
            kernel,
            lhs_from(attention.queries, first),
            q.clone(),
            key_panel,
            Init::Zero,
            (scores, n_keys, 0),
        );
        multiply_panel(
            kernel,
            lhs_from(inputs.d_output, first),
            q.clone(),
            value_panel,
            Init::Zero,
            (d_scores, n_keys, 0),
        );
        for (i, query) in block.queries.clone().enumerate() {
            let row = i * n_keys..(i + 1) * n_keys;
            let (scores, d_scores) = (&mut scores[row.clone()], &mut d_scores[row]);
            let position = position(attention, block.segment, query);
            let visible = keys.range(position);
            d_scores[..visible.start].fill(0.0);
            d_scores[visible.end..].fill(0.0);
            let (scores, d_scores) = (&mut scores[visible.clone()], &mut d_scores[visible.clone()]);
            let of_query = (inputs.attended.log_sums.row(query)[head], inputs.delta.row(query)[head]);
            let Some(modifier) = modifier else {
                score_gradients(kernel.path(), scores, d_scores, of_query, scale);
                continue;
            };
            let distance = keys.positions[visible].iter().map(|key| position - key);
            scores
                .iter_mut()
                .zip(distance.clone())
                .for_each(|(s, distance)| *s = modifier.score(*s, distance));
            score_gradients(kernel.path(), scores, d_scores, of_query, 1.0);
            for ((d, &mut score), distance) in d_scores.iter_mut().zip(scores).zip(distance) {
                *d *= modifier.derivative(score, distance);
            }
        }
        let d_scores = Lhs { values: d_scores, stride: n_keys };
        let to = (&mut *d_queries, shape.query_width(), q.start);
        multiply_panel(kernel, d_scores, 0..n_keys, key_rows_panel, Init::Accumulate, to);
    }
}

/// Adds the gradients of the keys and values of one source.
fn keys_gradient(kernel: Kernel, inputs: &Inputs<'_>, source: Source, target: &mut Rows<f32>) {
    let attention = inputs.attention;
    // Enough tiles for every thread to have several.
    let n_threads = rayon::current_num_threads();
    let share = target.n_rows().div_ceil(2 * n_threads).next_multiple_of(MIN_KEYS);
    let n_keys = share.clamp(MIN_KEYS, MAX_KEYS);
    let mut per_tile: Vec<Vec<VisibleQueries>> = vec![Vec::new(); target.n_rows().div_ceil(n_keys)];
    for QueryBlock { segment: index, queries } in attention.forest.query_blocks(attention.query_rows) {
        let segment = &attention.forest.segments()[index];
        let ancestors = segment.ancestors().iter().filter(|span| span.source == source);
        let ancestors = ancestors.map(|span| (span.rows.clone(), span.position));
        let itself = (source == Source::Own).then(|| (segment.rows(), segment.position()));
        for (rows, position) in ancestors.chain(itself) {
            let first = rows.start / n_keys;
            for (tile, blocks) in per_tile[..rows.end.div_ceil(n_keys)].iter_mut().enumerate().skip(first) {
                let keys = rows.start.max(tile * n_keys)..rows.end.min((tile + 1) * n_keys);
                let position = position + keys.start - rows.start;
                blocks.extend(chunks(queries.clone()).map(|queries| VisibleQueries {
                    keys: keys.clone(),
                    position,
                    segment: index,
                    queries,
                }));
            }
        }
    }
    let keys = match source {
        Source::Own => attention.key_values,
        Source::Context(block) => attention.context[block],
    };
    let width = target.width();
    let tiles = target.values_mut().par_chunks_mut(n_keys * width).zip(&per_tile).enumerate();
    tiles.with_max_len(1).for_each(|(tile, (d_keys, blocks))| {
        SCRATCH.with_borrow_mut(|scratch| {
            for block in blocks {
                let rows = block.keys.start - tile * n_keys..block.keys.end - tile * n_keys;
                let d_keys = &mut d_keys[rows.start * width..rows.end * width];
                tile_gradient(kernel, inputs, block, (keys, d_keys), scratch);
            }
        });
    });
}

/// Adds what a block of queries contributes to the gradients `d_keys` of its keys and values.
fn tile_gradient(
    kernel: Kernel,
    inputs: &Inputs<'_>,
    block: &VisibleQueries,
    (keys, d_keys): (&Rows<f32>, &mut [f32]),
    scratch: &mut Scratch,
) {
    let (shape, attention) = (inputs.shape, inputs.attention);
    let (scale, width) = (shape.scale as f32, keys.width());
    let at = |query: &usize| position(attention, block.segment, *query);
    // Queries before the first key see none of the keys, nor do those whose window begins after the last.
    let last = block.position + block.keys.len() - 1;
    let beyond = |query: &usize| shape.window.is_some_and(|window| at(query) >= last + window);
    let seeing: Vec<usize> =
        block.queries.clone().filter(|query| at(query) >= block.position && !beyond(query)).collect();
    if seeing.is_empty() {
        return;
    }
    let positions: Vec<usize> = seeing.iter().map(at).collect();
    let queries: Vec<&[f32]> = seeing.iter().map(|&query| attention.queries.row(query)).collect();
    let d_outputs: Vec<&[f32]> = seeing.iter().map(|&query| inputs.d_output.row(query)).collect();
    let n_queries = queries.len();
    let Scratch {
        panels: [query_panel, d_output_panel, query_rows_panel, d_output_rows_panel],
        pairs: [scores, d_scores],
        per_query: [log_sums, delta, factors],
    } = scratch;
    for head in 0..shape.query_heads {
        let (q, k, v) = head_columns(&shape, head);
        kernel.pack_transposed(query_panel, &queries, q.clone());
        kernel.pack_transposed(d_output_panel, &d_outputs, q.clone());
        kernel.pack_plain(query_rows_panel, &queries, q.clone());
        kernel.pack_plain(d_output_rows_panel, &d_outputs, q.clone());
        let of_head = |rows: &Rows<f32>, to: &mut Vec<f32>| {
            to.clear();
            to.extend(seeing.iter().map(|&query| rows.row(query)[head]));
        };
        of_head(&inputs.attended.log_sums, log_sums);
        of_head(inputs.delta, delta);
        let scores = resized(scores, block.keys.len() * n_queries);
        let d_scores = resized(d_scores, block.keys.len() * n_queries);
        let rows =
            Lhs { values: &keys.values()[block.keys.start * width..block.keys.end * width], stride: width };
        multiply_panel(kernel, rows, k.clone(), query_panel, Init::Zero, (scores, n_queries, 0));
        multiply_panel(kernel, rows, v.clone(), d_output_panel, Init::Zero, (d_scores, n_queries, 0));
        let modifier = ScoreModifier::of(attention, head);
        for i in 0..block.keys.len() {
            let row = i * n_queries..(i + 1) * n_queries;
            let (scores, d_scores) = (&mut scores[row.clone()], &mut d_scores[row]);
            let key = block.position + i;
            let start = positions.partition_point(|&query| query < key);
            let end =
                shape.window.map_or(n_queries, |window| positions.partition_point(|&q| q < key + window));
            for masked in [0..start, end..n_queries] {
                scores[masked.clone()].fill(0.0);
                d_scores[masked].fill(0.0);
            }
            let (scores, d_scores) = (&mut scores[start..end], &mut d_scores[start..end]);
            let of_queries = (&log_sums[start..end], &delta[start..end]);
            let Some(modifier) = modifier else {
                pair_gradients(kernel.path(), scores, d_scores, of_queries, scale);
                continue;
            };
            let distance = positions[start..end].iter().map(|query| query - key);
            factors.clear();
            for (score, distance) in scores.iter_mut().zip(distance) {
                *score = modifier.score(*score, distance);
                factors.push(modifier.derivative(*score, distance));
            }
            pair_gradients(kernel.path(), scores, d_scores, of_queries, 1.0);
            d_scores.iter_mut().zip(&*factors).for_each(|(d, factor)| *d *= factor);
        }
        let pairs = |values| Lhs { values, stride: n_queries };
        multiply_panel(
            kernel,
            pairs(d_scores),
            0..n_queries,
            query_rows_panel,
            Init::Accumulate,
            (&mut *d_keys, width, k.start),
        );
        multiply_panel(
            kernel,
            pairs(scores),
            0..n_queries,
            d_output_rows_panel,
            Init::Accumulate,
            (&mut *d_keys, width, v.start),
        );
    }
}

per_path!(
    /// Replaces products by e^(score − maximum), with scores `scale` · product; returns the maximum and the sum.
    fn exponentials = exponentials_of(scores: &mut [f32], scale: f32) -> (f32, f32));
per_path!(
    /// Replaces the gradients of a query's probabilities by those of its products.
    fn score_gradients = score_gradients_of(
        scores: &[f32], d_scores: &mut [f32], of_query: (f32, f32), scale: f32));
per_path!(
    /// The same for the queries of one key; also replaces the products by probabilities.
    fn pair_gradients = pair_gradients_of(
        scores: &mut [f32], d_scores: &mut [f32], of_queries: (&[f32], &[f32]), scale: f32));

/// Columns of a query head, and of its key and value.
#[inline(always)]
fn head_columns(shape: &AttentionShape, head: usize) -> (Range<usize>, Range<usize>, Range<usize>) {
    let d = shape.head_width;
    let key = head / (shape.query_heads / shape.kv_heads) * d;
    let value = key + shape.kv_width();
    (head * d..(head + 1) * d, key..key + d, value..value + d)
}

#[inline(always)]
fn exponentials_of<const FMA: bool>(scores: &mut [f32], scale: f32) -> (f32, f32) {
    let mut max = f32::NEG_INFINITY;
    for score in scores.iter_mut() {
        *score *= scale;
        max = max.max(*score);
    }
    for score in scores.iter_mut() {
        *score = exp::<FMA>(*score - max);
    }
    (max, sum(scores, |p| p))
}

#[inline(always)]
fn score_gradients_of<const FMA: bool>(
    scores: &[f32],
    d_scores: &mut [f32],
    (log_sum, delta): (f32, f32),
    scale: f32,
) {
    for (&score, d) in scores.iter().zip(d_scores) {
        *d = exp::<FMA>(score * scale - log_sum) * (*d - delta) * scale;
    }
}

#[inline(always)]
fn pair_gradients_of<const FMA: bool>(
    scores: &mut [f32],
    d_scores: &mut [f32],
    (log_sums, delta): (&[f32], &[f32]),
    scale: f32,
) {
    for (((score, d), &log_sum), &delta) in scores.iter_mut().zip(d_scores).zip(log_sums).zip(delta) {
        *score = exp::<FMA>(*score * scale - log_sum);
        *d = *score * (*d - delta) * scale;
    }
}
