//! Softmax attention along a forest, and its gradient, as products of small blocks: of queries of one segment, and of the keys
//! that they see. No score outlives its block.
//!
//! The gradient runs twice over the pairs of query and key: once per block of queries for their gradient, and once per tile
//! of keys for the gradients of keys and values. The second pass owns its tile and takes the queries in their order, so no
//! lock is needed. Every number is one chain of multiply-adds in the order of its terms: the head's numbers for a score, the
//! keys of the path for an output, the queries for a key's gradient. A key that a query does not see adds zero. So blocks,
//! threads, micro-batches and caches change no bit.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::code_path::CodePath;
use super::gemm::fill::{columns_of, terms_of};
use super::gemm::{Left, Start, multiply};
use super::lanes::{dot, exp, per_path, sum};
use crate::backend::{Attended, Attention, AttentionGradient, AttentionShape};
use crate::forest::Source;
use crate::rows::{RowBlock, Rows};

/// Queries of a block: enough for what a block reads of the keys to be read seldom.
const QUERIES: usize = 32;
/// Keys of a tile, at most and at least: multiples of the register block's height.
const MOST_KEYS: usize = 48;
const FEWEST_KEYS: usize = 12;

type View<'a> = Attention<'a, Rows<f32>>;

/// Consecutive queries of one segment.
#[derive(Clone)]
struct Task {
    segment: usize,
    queries: Range<usize>,
}

fn tasks(attention: &View<'_>) -> Vec<Task> {
    let blocks = attention.forest.query_blocks(attention.asking);
    let cut = |block: crate::forest::QueryBlock| {
        let starts = block.queries.clone().step_by(QUERIES);
        starts.map(move |start| Task {
            segment: block.segment,
            queries: start..(start + QUERIES).min(block.queries.end),
        })
    };
    blocks.into_iter().flat_map(cut).collect()
}

/// Index of query `query` among the rows of the call.
fn own_row(attention: &View<'_>, query: usize) -> usize {
    attention.asking.map_or(query, |asking| asking[query])
}

/// Position of query `query`, one of segment `segment`.
fn position(attention: &View<'_>, segment: usize, query: usize) -> usize {
    let segment = &attention.forest.segments()[segment];
    segment.position() + own_row(attention, query) - segment.rows().start
}

/// Key/value rows on a path, in its order.
struct Seen<'a> {
    rows: Vec<&'a [f32]>,
    /// Ascending.
    positions: Vec<usize>,
    window: Option<usize>,
}

impl<'a> Seen<'a> {
    /// The rows that some of the task's queries see.
    fn of(attention: &View<'a>, task: &Task) -> Self {
        let segment = &attention.forest.segments()[task.segment];
        let width = attention.own.width();
        let window = attention.shape.window;
        let first = position(attention, task.segment, task.queries.start);
        let end = own_row(attention, task.queries.end - 1) + 1;
        let itself = (Source::Own, segment.rows().start..end, segment.position());
        let above = segment.ancestors().iter().map(|span| (span.source, span.rows.clone(), span.position));
        let (mut seen, mut positions) = (Vec::new(), Vec::new());
        for (source, rows, position) in above.chain([itself]) {
            let block = match source {
                Source::Own => attention.own,
                Source::Context(i) => attention.context[i],
            };
            // What lies before the window of the first query, no query sees.
            let n_before = window.map_or(0, |window| (first + 1).saturating_sub(position + window));
            let n_before = n_before.min(rows.len());
            positions.extend(position + n_before..position + rows.len());
            let rows = (rows.start + n_before) * width..rows.end * width;
            seen.extend(block.values()[rows].chunks_exact(width));
        }
        Self { rows: seen, positions, window }
    }

    /// Which of them the query at `position` sees.
    fn by(&self, position: usize) -> Range<usize> {
        let start =
            self.window.map_or(0, |window| self.positions.partition_point(|&p| p + window <= position));
        start..self.positions.partition_point(|&p| p <= position)
    }
}

/// How a product of a query and a key becomes a score where that is more than a factor.
#[derive(Clone, Copy)]
struct Bend {
    scale: f32,
    cap: Option<f32>,
    /// Added per position from the query to the key.
    slope: f32,
}

impl Bend {
    /// Of a head; `None`: a factor is all.
    fn of(attention: &View<'_>, head: usize) -> Option<Self> {
        let AttentionShape { scale, soft_cap, .. } = attention.shape;
        (soft_cap.is_some() || attention.slopes.is_some()).then(|| Self {
            scale: scale as f32,
            cap: soft_cap.map(|cap| cap as f32),
            slope: attention.slopes.map_or(0.0, |slopes| slopes[head]),
        })
    }

    /// The score of a key that lies `before` positions before the query.
    fn score(self, product: f32, before: usize) -> f32 {
        let score = product * self.scale;
        self.cap.map_or(score, |cap| cap * (score / cap).tanh()) - self.slope * before as f32
    }

    /// ∂score / ∂product.
    fn factor(self, score: f32, before: usize) -> f32 {
        let tanh = self.cap.map_or(0.0, |cap| (score + self.slope * before as f32) / cap);
        self.scale * (1.0 - tanh * tanh)
    }
}

/// Buffers of a thread.
#[derive(Default)]
struct Scratch {
    /// Panels of keys, values, queries or gradients.
    panels: [Vec<f32>; 4],
    /// A number for each pair of the block: scores, probabilities, or their gradients.
    pairs: [Vec<f32>; 2],
    /// Numbers of the queries: log-sums, Σⱼ pⱼ dpⱼ, and slopes of a key's scores.
    per_query: [Vec<f32>; 3],
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Room for `n` numbers, which are anything yet.
fn room(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
}

/// Rows from `first` on, as the left side of a product.
fn left(rows: &Rows<f32>, first: usize) -> Left<'_> {
    Left { values: &rows.values()[first * rows.width()..], stride: rows.width() }
}

/// Splits the rows of `rows` among the tasks, which cover all queries in order.
fn per_task<'r>(tasks: &[Task], rows: &'r mut Rows<f32>) -> Vec<&'r mut [f32]> {
    let width = rows.width();
    let mut rest = rows.values_mut();
    let mut parts = Vec::with_capacity(tasks.len());
    for task in tasks {
        let (part, after) = rest.split_at_mut(task.queries.len() * width);
        parts.push(part);
        rest = after;
    }
    parts
}

pub(super) fn attend(path: CodePath, attention: &View<'_>) -> Attended<Rows<f32>> {
    let shape = attention.shape;
    let n = attention.queries.n_rows();
    let mut output = super::zeros(n, shape.query_width());
    let mut log_sums = super::zeros(n, shape.query_heads);
    let tasks = tasks(attention);
    let targets = per_task(&tasks, &mut output).into_iter().zip(per_task(&tasks, &mut log_sums));
    let work: Vec<_> = tasks.iter().zip(targets).collect();
    work.into_par_iter().with_max_len(1).for_each(|(task, (output, log_sums))| {
        SCRATCH.with_borrow_mut(|scratch| attend_block(path, attention, task, scratch, output, log_sums));
    });
    Attended { output, log_sums }
}

fn attend_block(
    path: CodePath,
    attention: &View<'_>,
    task: &Task,
    scratch: &mut Scratch,
    output: &mut [f32],
    log_sums: &mut [f32],
) {
    let shape = attention.shape;
    let (width, scale) = (shape.query_width(), shape.scale as f32);
    let keys = Seen::of(attention, task);
    let (n_keys, n_queries) = (keys.rows.len(), task.queries.len());
    let Scratch { panels: [key_panel, value_panel, ..], pairs: [scores, _], .. } = scratch;
    for head in 0..shape.query_heads {
        let (q, k, v) = columns(&shape, head);
        if head.is_multiple_of(shape.query_heads / shape.kv_heads) {
            columns_of(path, &keys.rows, k, key_panel);
            terms_of(path, &keys.rows, v.clone(), value_panel);
        }
        let scores = room(scores, n_queries * n_keys);
        let queries = left(attention.queries, task.queries.start);
        multiply(path, queries, q.clone(), (key_panel, n_keys), Start::Zero, (scores, n_keys, 0));
        let bend = Bend::of(attention, head);
        let mut totals = [0.0; QUERIES];
        for (i, query) in task.queries.clone().enumerate() {
            let row = &mut scores[i * n_keys..(i + 1) * n_keys];
            let position = position(attention, task.segment, query);
            let seen = keys.by(position);
            let mut factor = scale;
            if let Some(bend) = bend {
                for (score, key) in row[seen.clone()].iter_mut().zip(&keys.positions[seen.clone()]) {
                    *score = bend.score(*score, position - key);
                }
                factor = 1.0;
            }
            let (max, total) = exponentials(path, &mut row[seen.clone()], factor);
            row[..seen.start].fill(0.0);
            row[seen.end..].fill(0.0);
            log_sums[i * shape.query_heads + head] = max + total.ln();
            totals[i] = total;
        }
        let weights = Left { values: scores, stride: n_keys };
        multiply(path, weights, 0..n_keys, (value_panel, v.len()), Start::Add, (output, width, q.start));
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
    let shape = attention.shape;
    // Σⱼ pⱼ dpⱼ of each query and head, which is d_output · output.
    let mut shared = super::zeros(d_output.n_rows(), shape.query_heads);
    let heads = shared.values_mut().par_chunks_mut(shape.query_heads).enumerate();
    heads.with_min_len(QUERIES).for_each(|(query, shared)| {
        let heads = d_output.row(query).chunks_exact(shape.head_width);
        let heads = heads.zip(attended.output.row(query).chunks_exact(shape.head_width));
        for (shared, (d, output)) in shared.iter_mut().zip(heads) {
            *shared = dot::<false>(d, output);
        }
    });
    let inputs = Inputs { shape, attention, attended, d_output, shared: &shared };
    if let Some(d_queries) = gradient.queries.take() {
        let tasks = tasks(attention);
        let work: Vec<_> = tasks.iter().zip(per_task(&tasks, d_queries)).collect();
        work.into_par_iter().with_max_len(1).for_each(|(task, d_queries)| {
            SCRATCH.with_borrow_mut(|scratch| query_gradient(path, &inputs, task, scratch, d_queries));
        });
    }
    if let Some(own) = gradient.own.take() {
        keys_gradient(path, &inputs, Source::Own, own);
    }
    for (block, target) in gradient.context.into_iter().enumerate() {
        if let Some(target) = target {
            keys_gradient(path, &inputs, Source::Context(block), target);
        }
    }
}

/// What both passes of the gradient read.
struct Inputs<'a> {
    shape: AttentionShape,
    attention: &'a View<'a>,
    attended: &'a Attended<Rows<f32>>,
    d_output: &'a Rows<f32>,
    shared: &'a Rows<f32>,
}

/// Queries of one segment that may see the keys `keys` of a source.
#[derive(Clone)]
struct Sight {
    keys: Range<usize>,
    /// Of the first key.
    position: usize,
    segment: usize,
    queries: Range<usize>,
}

/// Adds the gradient of a block of queries.
fn query_gradient(
    path: CodePath,
    inputs: &Inputs<'_>,
    task: &Task,
    scratch: &mut Scratch,
    d_queries: &mut [f32],
) {
    let (shape, attention) = (inputs.shape, inputs.attention);
    let scale = shape.scale as f32;
    let keys = Seen::of(attention, task);
    let (n_keys, n_queries) = (keys.rows.len(), task.queries.len());
    let Scratch { panels: [key_panel, value_panel, key_terms, _], pairs: [scores, d_scores], .. } = scratch;
    for head in 0..shape.query_heads {
        let (q, k, v) = columns(&shape, head);
        if head.is_multiple_of(shape.query_heads / shape.kv_heads) {
            columns_of(path, &keys.rows, k.clone(), key_panel);
            columns_of(path, &keys.rows, v, value_panel);
            terms_of(path, &keys.rows, k, key_terms);
        }
        let scores = room(scores, n_queries * n_keys);
        let d_scores = room(d_scores, n_queries * n_keys);
        let first = task.queries.start;
        let bend = Bend::of(attention, head);
        multiply(
            path,
            left(attention.queries, first),
            q.clone(),
            (key_panel, n_keys),
            Start::Zero,
            (scores, n_keys, 0),
        );
        multiply(
            path,
            left(inputs.d_output, first),
            q.clone(),
            (value_panel, n_keys),
            Start::Zero,
            (d_scores, n_keys, 0),
        );
        for (i, query) in task.queries.clone().enumerate() {
            let row = i * n_keys..(i + 1) * n_keys;
            let (scores, d_scores) = (&mut scores[row.clone()], &mut d_scores[row]);
            let position = position(attention, task.segment, query);
            let seen = keys.by(position);
            d_scores[..seen.start].fill(0.0);
            d_scores[seen.end..].fill(0.0);
            let (scores, d_scores) = (&mut scores[seen.clone()], &mut d_scores[seen.clone()]);
            let of_query = (inputs.attended.log_sums.row(query)[head], inputs.shared.row(query)[head]);
            let Some(bend) = bend else {
                score_gradients(path, scores, d_scores, of_query, scale);
                continue;
            };
            let before = keys.positions[seen].iter().map(|key| position - key);
            scores.iter_mut().zip(before.clone()).for_each(|(s, before)| *s = bend.score(*s, before));
            score_gradients(path, scores, d_scores, of_query, 1.0);
            for ((d, &mut score), before) in d_scores.iter_mut().zip(scores).zip(before) {
                *d *= bend.factor(score, before);
            }
        }
        let d_scores = Left { values: d_scores, stride: n_keys };
        let to = (&mut *d_queries, shape.query_width(), q.start);
        multiply(path, d_scores, 0..n_keys, (key_terms, q.len()), Start::Add, to);
    }
}

/// Adds the gradients of the keys and values of one source.
fn keys_gradient(path: CodePath, inputs: &Inputs<'_>, source: Source, target: &mut Rows<f32>) {
    let attention = inputs.attention;
    // Tiles enough for every thread to have several.
    let n_threads = rayon::current_num_threads();
    let share = target.n_rows().div_ceil(2 * n_threads).next_multiple_of(FEWEST_KEYS);
    let n_keys = share.clamp(FEWEST_KEYS, MOST_KEYS);
    let mut per_tile: Vec<Vec<Sight>> = vec![Vec::new(); target.n_rows().div_ceil(n_keys)];
    for block in attention.forest.query_blocks(attention.asking) {
        let segment = &attention.forest.segments()[block.segment];
        let above = segment.ancestors().iter().filter(|span| span.source == source);
        let above = above.map(|span| (span.rows.clone(), span.position));
        let itself = (source == Source::Own).then(|| (segment.rows(), segment.position()));
        for (all, position) in above.chain(itself) {
            let first = all.start / n_keys;
            for (tile, sights) in per_tile[..all.end.div_ceil(n_keys)].iter_mut().enumerate().skip(first) {
                let keys = all.start.max(tile * n_keys)..all.end.min((tile + 1) * n_keys);
                let position = position + keys.start - all.start;
                for start in block.queries.clone().step_by(QUERIES) {
                    let queries = start..(start + QUERIES).min(block.queries.end);
                    sights.push(Sight { keys: keys.clone(), position, segment: block.segment, queries });
                }
            }
        }
    }
    let keys = match source {
        Source::Own => attention.own,
        Source::Context(block) => attention.context[block],
    };
    let width = target.width();
    let tiles = target.values_mut().par_chunks_mut(n_keys * width).zip(&per_tile).enumerate();
    tiles.with_max_len(1).for_each(|(tile, (d_keys, sights))| {
        SCRATCH.with_borrow_mut(|scratch| {
            for sight in sights {
                let own =
                    (sight.keys.start - tile * n_keys) * width..(sight.keys.end - tile * n_keys) * width;
                tile_gradient(path, inputs, sight, (keys, &mut d_keys[own]), scratch);
            }
        });
    });
}

/// Adds what the queries of a sight give to the gradients `d_keys` of its keys and values.
fn tile_gradient(
    path: CodePath,
    inputs: &Inputs<'_>,
    sight: &Sight,
    (keys, d_keys): (&Rows<f32>, &mut [f32]),
    scratch: &mut Scratch,
) {
    let (shape, attention) = (inputs.shape, inputs.attention);
    let (scale, width) = (shape.scale as f32, keys.width());
    let at = |query: &usize| position(attention, sight.segment, *query);
    // Queries before the first key see none of them, nor do those whose window begins behind the last.
    let last = sight.position + sight.keys.len() - 1;
    let beyond = |query: &usize| shape.window.is_some_and(|window| at(query) >= last + window);
    let asking: Vec<usize> =
        sight.queries.clone().filter(|query| at(query) >= sight.position && !beyond(query)).collect();
    if asking.is_empty() {
        return;
    }
    let positions: Vec<usize> = asking.iter().map(at).collect();
    let queries: Vec<&[f32]> = asking.iter().map(|&query| attention.queries.row(query)).collect();
    let d_outputs: Vec<&[f32]> = asking.iter().map(|&query| inputs.d_output.row(query)).collect();
    let n_queries = queries.len();
    let Scratch {
        panels: [query_panel, d_output_panel, query_terms, d_output_terms],
        pairs: [scores, d_scores],
        per_query: [log_sums, shared, factors],
    } = scratch;
    for head in 0..shape.query_heads {
        let (q, k, v) = columns(&shape, head);
        columns_of(path, &queries, q.clone(), query_panel);
        columns_of(path, &d_outputs, q.clone(), d_output_panel);
        terms_of(path, &queries, q.clone(), query_terms);
        terms_of(path, &d_outputs, q.clone(), d_output_terms);
        let of_head = |rows: &Rows<f32>, to: &mut Vec<f32>| {
            to.clear();
            to.extend(asking.iter().map(|&query| rows.row(query)[head]));
        };
        of_head(&inputs.attended.log_sums, log_sums);
        of_head(inputs.shared, shared);
        let scores = room(scores, sight.keys.len() * n_queries);
        let d_scores = room(d_scores, sight.keys.len() * n_queries);
        let rows =
            Left { values: &keys.values()[sight.keys.start * width..sight.keys.end * width], stride: width };
        multiply(path, rows, k.clone(), (query_panel, n_queries), Start::Zero, (scores, n_queries, 0));
        multiply(path, rows, v.clone(), (d_output_panel, n_queries), Start::Zero, (d_scores, n_queries, 0));
        let bend = Bend::of(attention, head);
        for i in 0..sight.keys.len() {
            let row = i * n_queries..(i + 1) * n_queries;
            let (scores, d_scores) = (&mut scores[row.clone()], &mut d_scores[row]);
            let key = sight.position + i;
            let start = positions.partition_point(|&query| query < key);
            let end =
                shape.window.map_or(n_queries, |window| positions.partition_point(|&q| q < key + window));
            for unseeing in [0..start, end..n_queries] {
                scores[unseeing.clone()].fill(0.0);
                d_scores[unseeing].fill(0.0);
            }
            let (scores, d_scores) = (&mut scores[start..end], &mut d_scores[start..end]);
            let of_queries = (&log_sums[start..end], &shared[start..end]);
            let Some(bend) = bend else {
                pair_gradients(path, scores, d_scores, of_queries, scale);
                continue;
            };
            let before = positions[start..end].iter().map(|query| query - key);
            factors.clear();
            for (score, before) in scores.iter_mut().zip(before) {
                *score = bend.score(*score, before);
                factors.push(bend.factor(*score, before));
            }
            pair_gradients(path, scores, d_scores, of_queries, 1.0);
            d_scores.iter_mut().zip(&*factors).for_each(|(d, factor)| *d *= factor);
        }
        let pairs = |values| Left { values, stride: n_queries };
        multiply(
            path,
            pairs(d_scores),
            0..n_queries,
            (query_terms, k.len()),
            Start::Add,
            (&mut *d_keys, width, k.start),
        );
        multiply(
            path,
            pairs(scores),
            0..n_queries,
            (d_output_terms, v.len()),
            Start::Add,
            (&mut *d_keys, width, v.start),
        );
    }
}

per_path!(
    /// Scores, yet without their factor, become e^(score − maximum); returns the maximum and their sum.
    fn exponentials = exponentials_of(scores: &mut [f32], scale: f32) -> (f32, f32));
per_path!(
    /// Gradients of a query's probabilities become those of its scores, as yet without their factor.
    fn score_gradients = score_gradients_of(
        scores: &[f32], d_scores: &mut [f32], of_query: (f32, f32), scale: f32));
per_path!(
    /// The same for the queries of one key; the scores become probabilities.
    fn pair_gradients = pair_gradients_of(
        scores: &mut [f32], d_scores: &mut [f32], of_queries: (&[f32], &[f32]), scale: f32));

/// Columns of a query head, and of its key and value.
#[inline(always)]
fn columns(shape: &AttentionShape, head: usize) -> (Range<usize>, Range<usize>, Range<usize>) {
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
    (log_sum, shared): (f32, f32),
    scale: f32,
) {
    for (&score, d) in scores.iter().zip(d_scores) {
        *d = exp::<FMA>(score * scale - log_sum) * (*d - shared) * scale;
    }
}

#[inline(always)]
fn pair_gradients_of<const FMA: bool>(
    scores: &mut [f32],
    d_scores: &mut [f32],
    (log_sums, shared): (&[f32], &[f32]),
    scale: f32,
) {
    for (((score, d), &log_sum), &shared) in scores.iter_mut().zip(d_scores).zip(log_sums).zip(shared) {
        *score = exp::<FMA>(*score * scale - log_sum);
        *d = *score * (*d - shared) * scale;
    }
}
