//! Softmax attention along a forest, and its gradient. No score outlives the query that asked for it.
//!
//! The gradient runs twice over the pairs of query and key: once per query for the gradient of the queries, and once per
//! tile of keys for the gradients of keys and values. The second pass owns its tile and takes the queries in their order,
//! so no lock is needed and the sums are the same for any number of threads and any cut into micro-batches.

use std::ops::Range;

use rayon::prelude::*;

use super::lanes::{Path, axpy, dot, exp, per_path, sum};
use crate::backend::{Attended, Attention, AttentionGradient, AttentionShape};
use crate::forest::Source;
use crate::rows::{RowBlock, Rows};

/// Queries that a thread takes at a time.
const QUERIES: usize = 8;
/// Keys that a thread takes at a time.
const KEYS: usize = 8;

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

/// The key/value rows that query `query` of `segment` sees, as consecutive pieces in the order of its path.
fn pieces<'a>(attention: &View<'a>, segment: usize, query: usize) -> Vec<&'a [f32]> {
    let segment = &attention.forest.segments()[segment];
    let width = attention.own.width();
    let piece = |source: Source, rows: Range<usize>| {
        let block = match source {
            Source::Own => attention.own,
            Source::Context(i) => attention.context[i],
        };
        &block.values()[rows.start * width..rows.end * width]
    };
    let above = segment.ancestors().iter().map(|span| piece(span.source, span.rows.clone()));
    let itself = piece(Source::Own, segment.rows().start..own_row(attention, query) + 1);
    above.chain(std::iter::once(itself)).collect()
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

pub(super) fn attend(path: Path, attention: &View<'_>) -> Attended<Rows<f32>> {
    let shape = attention.shape;
    let n = attention.queries.n_rows();
    let mut output = Rows::zeros(n, shape.query_width());
    let mut log_sums = Rows::zeros(n, shape.query_heads);
    let tasks = tasks(attention);
    let targets = per_task(&tasks, &mut output).into_iter().zip(per_task(&tasks, &mut log_sums));
    let work: Vec<_> = tasks.iter().zip(targets).collect();
    work.into_par_iter().for_each(|(task, (output, log_sums))| {
        let output = output.chunks_exact_mut(shape.query_width());
        let log_sums = log_sums.chunks_exact_mut(shape.query_heads);
        for ((query, output), log_sums) in task.queries.clone().zip(output).zip(log_sums) {
            let pieces = pieces(attention, task.segment, query);
            attend_query(path, &shape, attention.queries.row(query), &pieces, output, log_sums);
        }
    });
    Attended { output, log_sums }
}

pub(super) fn attend_gradient(
    path: Path,
    attention: &View<'_>,
    attended: &Attended<Rows<f32>>,
    d_output: &Rows<f32>,
    mut gradient: AttentionGradient<'_, Rows<f32>>,
) {
    let shape = attention.shape;
    // Σⱼ pⱼ dpⱼ of each query and head, which is d_output · output.
    let mut shared = Rows::zeros(d_output.n_rows(), shape.query_heads);
    for query in 0..d_output.n_rows() {
        let heads = d_output.row(query).chunks_exact(shape.head_width);
        let heads = heads.zip(attended.output.row(query).chunks_exact(shape.head_width));
        for (shared, (d, output)) in shared.row_mut(query).iter_mut().zip(heads) {
            *shared = dot::<false>(d, output);
        }
    }
    let inputs = Inputs { shape, attention, attended, d_output, shared: &shared };
    if let Some(d_queries) = gradient.queries.take() {
        let tasks = tasks(attention);
        let work: Vec<_> = tasks.iter().zip(per_task(&tasks, d_queries)).collect();
        work.into_par_iter().for_each(|(task, d_queries)| {
            let rows = d_queries.chunks_exact_mut(shape.query_width());
            for (query, d_query) in task.queries.clone().zip(rows) {
                let pieces = pieces(attention, task.segment, query);
                query_gradient(path, &inputs, query, &pieces, d_query);
            }
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

/// Queries that see the keys `keys` of a source: all of them, or each key from its own row on.
#[derive(Clone)]
struct Sight {
    keys: Range<usize>,
    queries: Range<usize>,
    causal: bool,
}

/// Adds the gradients of the keys and values of one source.
fn keys_gradient(path: Path, inputs: &Inputs<'_>, source: Source, target: &mut Rows<f32>) {
    let attention = inputs.attention;
    let mut per_tile: Vec<Vec<Sight>> = vec![Vec::new(); target.n_rows().div_ceil(KEYS)];
    for block in attention.forest.query_blocks(attention.asking) {
        let segment = &attention.forest.segments()[block.segment];
        let above = segment.ancestors().iter().filter(|span| span.source == source);
        let above = above.map(|span| (span.rows.clone(), false));
        let itself = (source == Source::Own).then(|| (segment.rows(), true));
        for (keys, causal) in above.chain(itself) {
            let first = keys.start / KEYS;
            for (tile, sights) in per_tile[..keys.end.div_ceil(KEYS)].iter_mut().enumerate().skip(first) {
                let keys = keys.start.max(tile * KEYS)..keys.end.min((tile + 1) * KEYS);
                sights.push(Sight { keys, queries: block.queries.clone(), causal });
            }
        }
    }
    let keys = match source {
        Source::Own => attention.own,
        Source::Context(block) => attention.context[block],
    };
    let width = target.width();
    let tiles = target.values_mut().par_chunks_mut(KEYS * width).zip(&per_tile).enumerate();
    tiles.for_each(|(tile, (d_keys, sights))| {
        for sight in sights {
            let at = |keys: &Range<usize>| keys.start * width..keys.end * width;
            let own = sight.keys.start - tile * KEYS..sight.keys.end - tile * KEYS;
            tile_gradient(path, inputs, sight, &keys.values()[at(&sight.keys)], &mut d_keys[at(&own)]);
        }
    });
}

per_path!(fn attend_query = attend_query_of(
    shape: &AttentionShape, query: &[f32], pieces: &[&[f32]], output: &mut [f32], log_sums: &mut [f32]));
per_path!(fn query_gradient = query_gradient_of(
    inputs: &Inputs<'_>, query: usize, pieces: &[&[f32]], d_query: &mut [f32]));
per_path!(fn tile_gradient = tile_gradient_of(
    inputs: &Inputs<'_>, sight: &Sight, keys: &[f32], d_keys: &mut [f32]));

/// Columns of a query head, and of its key and value.
#[inline(always)]
fn columns(shape: &AttentionShape, head: usize) -> (Range<usize>, Range<usize>, Range<usize>) {
    let d = shape.head_width;
    let key = head / (shape.query_heads / shape.kv_heads) * d;
    let value = key + shape.kv_width();
    (head * d..(head + 1) * d, key..key + d, value..value + d)
}

#[inline(always)]
fn attend_query_of<const FMA: bool>(
    shape: &AttentionShape,
    query: &[f32],
    pieces: &[&[f32]],
    output: &mut [f32],
    log_sums: &mut [f32],
) {
    let width = 2 * shape.kv_width();
    let mut scores = Vec::with_capacity(pieces.iter().map(|p| p.len() / width).sum());
    for (head, log_sum) in log_sums.iter_mut().enumerate() {
        let (q, k, v) = columns(shape, head);
        let asked = &query[q.clone()];
        scores.clear();
        // Plain loops: what a closure inside an iterator does is compiled without this path's instructions.
        for piece in pieces {
            for key in piece.chunks_exact(width) {
                scores.push(dot::<FMA>(asked, &key[k.clone()]) * shape.scale as f32);
            }
        }
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for score in &mut scores {
            *score = exp::<FMA>(*score - max);
        }
        let total = sum(&scores, |p| p);
        *log_sum = max + total.ln();
        let output = &mut output[q];
        let mut probabilities = scores.iter();
        for piece in pieces {
            for (value, &p) in piece.chunks_exact(width).zip(&mut probabilities) {
                axpy::<FMA>(output, p, &value[v.clone()]);
            }
        }
        for output in output {
            *output /= total;
        }
    }
}

#[inline(always)]
fn query_gradient_of<const FMA: bool>(
    inputs: &Inputs<'_>,
    query: usize,
    pieces: &[&[f32]],
    d_query: &mut [f32],
) {
    let shape = &inputs.shape;
    let scale = shape.scale as f32;
    let width = 2 * shape.kv_width();
    for head in 0..shape.query_heads {
        let (q, k, v) = columns(shape, head);
        let asked = &inputs.attention.queries.row(query)[q.clone()];
        let d_output = &inputs.d_output.row(query)[q.clone()];
        let log_sum = inputs.attended.log_sums.row(query)[head];
        let shared = inputs.shared.row(query)[head];
        for piece in pieces {
            for key in piece.chunks_exact(width) {
                let p = exp::<FMA>(dot::<FMA>(asked, &key[k.clone()]) * scale - log_sum);
                let d_score = p * (dot::<FMA>(d_output, &key[v.clone()]) - shared) * scale;
                axpy::<FMA>(&mut d_query[q.clone()], d_score, &key[k.clone()]);
            }
        }
    }
}

#[inline(always)]
fn tile_gradient_of<const FMA: bool>(inputs: &Inputs<'_>, sight: &Sight, keys: &[f32], d_keys: &mut [f32]) {
    let shape = &inputs.shape;
    let scale = shape.scale as f32;
    let width = 2 * shape.kv_width();
    for query in sight.queries.clone() {
        let last = if sight.causal { own_row(inputs.attention, query) } else { usize::MAX };
        for head in 0..shape.query_heads {
            let (q, k, v) = columns(shape, head);
            let asked = &inputs.attention.queries.row(query)[q.clone()];
            let d_output = &inputs.d_output.row(query)[q.clone()];
            let log_sum = inputs.attended.log_sums.row(query)[head];
            let shared = inputs.shared.row(query)[head];
            let rows = keys.chunks_exact(width).zip(d_keys.chunks_exact_mut(width));
            for (_, (key, d_key)) in sight.keys.clone().zip(rows).take_while(|(i, _)| *i <= last) {
                let p = exp::<FMA>(dot::<FMA>(asked, &key[k.clone()]) * scale - log_sum);
                let d_score = p * (dot::<FMA>(d_output, &key[v.clone()]) - shared) * scale;
                axpy::<FMA>(&mut d_key[k.clone()], d_score, asked);
                axpy::<FMA>(&mut d_key[v.clone()], p, d_output);
            }
        }
    }
}
