//! Attention along the forest in batches of segments, each a softmax between two batched products, and its gradient.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::plan::{Batch, Plan, PlanKey};
use super::{Candle, DeviceRows};
use crate::backend::{Attended, Attention, AttentionGradient, AttentionShape};
use crate::rows::RowBlock;

impl Candle {
    pub(super) fn attended(&self, attention: &Attention<'_, DeviceRows>) -> Result<Attended<DeviceRows>> {
        let shape = attention.shape;
        let (Some(queries), Some(pool)) = (attention.queries.tensor(), pool(attention)?) else {
            let nothing = |width| DeviceRows::new(None, width);
            return Ok(Attended {
                output: nothing(shape.query_width()),
                log_sums: nothing(shape.query_heads),
            });
        };
        let plan = self.plan(attention)?;
        let slopes = self.slopes(attention)?;
        let (mut outputs, mut log_sums) = (Vec::new(), Vec::new());
        for batch in &plan.batches {
            let heads = Heads { shape, batch, slopes: slopes.as_ref() };
            let (keys, values) = heads.key_values(&pool)?;
            let (scores, _) = heads.scores(&heads.queries(queries)?, &keys)?;
            let sums = scores.log_sum_exp(3)?;
            let weights = scores.broadcast_sub(&sums.unsqueeze(3)?)?.exp()?;
            outputs.push(heads.query_rows(&heads.products(&weights)?.matmul(&values)?)?);
            log_sums.push(sums.transpose(1, 2)?.reshape((batch.n * batch.n_queries, shape.query_heads))?);
        }
        let in_order =
            |parts: &[Tensor]| DeviceRows::of(Tensor::cat(parts, 0)?.index_select(&plan.queries_at, 0)?);
        Ok(Attended { output: in_order(&outputs)?, log_sums: in_order(&log_sums)? })
    }

    pub(super) fn attended_gradient(
        &self,
        attention: &Attention<'_, DeviceRows>,
        attended: &Attended<DeviceRows>,
        d_output: &DeviceRows,
        gradient: AttentionGradient<'_, DeviceRows>,
    ) -> Result<()> {
        let shape = attention.shape;
        let AttentionGradient { queries: d_queries, key_values: d_keys_values, context: d_context } =
            gradient;
        let (Some(queries), Some(pool)) = (attention.queries.tensor(), pool(attention)?) else {
            return Ok(());
        };
        let (Some(output), Some(log_sums), Some(d_output)) =
            (attended.output.tensor(), attended.log_sums.tensor(), d_output.tensor())
        else {
            return Ok(());
        };
        let per_head = (queries.dims()[0], shape.query_heads, shape.head_width);
        let delta = d_output.mul(output)?.reshape(per_head)?.sum(2)?;
        let plan = self.plan(attention)?;
        let slopes = self.slopes(attention)?;
        let (mut d_query_rows, mut d_key_rows) = (Vec::new(), Vec::new());
        for batch in &plan.batches {
            let heads = Heads { shape, batch, slopes: slopes.as_ref() };
            let (keys, values) = heads.key_values(&pool)?;
            let (q, d_out) = (heads.queries(queries)?, heads.queries(d_output)?);
            let (scores, cap_derivative) = heads.scores(&q, &keys)?;
            let weights = scores.broadcast_sub(&heads.per_query(log_sums)?)?.exp()?;
            let d_weights = d_out.matmul(&values.t()?)?.reshape(weights.dims())?;
            let d_scores = d_weights.broadcast_sub(&heads.per_query(&delta)?)?.mul(&weights)?;
            let d_scores = match cap_derivative {
                Some(derivative) => d_scores.mul(&derivative)?,
                None => d_scores,
            };
            let d_scores = heads.products(&(d_scores * shape.scale)?)?;
            if d_queries.is_some() {
                d_query_rows.push(heads.query_rows(&d_scores.matmul(&keys)?)?);
            }
            let d_keys = d_scores.t()?.matmul(&q)?;
            let d_values = heads.products(&weights)?.t()?.matmul(&d_out)?;
            d_key_rows.push(heads.key_rows(&d_keys, &d_values)?);
        }
        if let Some(d_queries) = d_queries {
            d_queries.add(Some(&Tensor::cat(&d_query_rows, 0)?.index_select(&plan.queries_at, 0)?))?;
        }
        let d_pool = plan.sums.of(&Tensor::cat(&d_key_rows, 0)?)?;
        let mut first = 0;
        let blocks = attention.context.iter().map(|block| block.n_rows());
        let targets = d_context.into_iter().chain([d_keys_values]);
        for (n, target) in blocks.chain([attention.key_values.n_rows()]).zip(targets) {
            if let Some(target) = target.filter(|_| n > 0) {
                target.add(Some(&d_pool.narrow(0, first, n)?))?;
            }
            first += n;
        }
        Ok(())
    }

    /// ALiBi's slopes, `[1, Q, 1, 1]`.
    fn slopes(&self, attention: &Attention<'_, DeviceRows>) -> Result<Option<Tensor>> {
        let tensor = |slopes: &[f32]| Tensor::from_slice(slopes, (1, slopes.len(), 1, 1), &self.device);
        attention.slopes.map(tensor).transpose()
    }

    fn plan(&self, attention: &Attention<'_, DeviceRows>) -> Result<Arc<Plan>> {
        let key = PlanKey {
            segments: attention.forest.segments().to_vec(),
            query_rows: attention.query_rows.map(<[usize]>::to_vec),
            context: attention.context.iter().map(|block| block.n_rows()).collect(),
            heads: attention.shape.query_heads,
            width: 2 * attention.shape.kv_width(),
            window: attention.shape.window,
            distances: attention.slopes.is_some(),
            scratch_limit: self.scratch_limit,
        };
        self.plans.get(&key, || Plan::new(attention.forest, &key, &self.device))
    }
}

/// Keys and values of the context, block after block, then the call's own.
fn pool(attention: &Attention<'_, DeviceRows>) -> Result<Option<Tensor>> {
    let blocks = attention.context.iter().copied().chain([attention.key_values]);
    let blocks: Vec<&Tensor> = blocks.filter_map(DeviceRows::tensor).collect();
    match &blocks[..] {
        [] => Ok(None),
        [only] => Ok(Some((*only).clone())),
        _ => Tensor::cat(&blocks, 0).map(Some),
    }
}

/// A batch's rows by heads: n segments, K key/value heads of G query heads each, T queries and S keys.
struct Heads<'a> {
    shape: AttentionShape,
    batch: &'a Batch,
    slopes: Option<&'a Tensor>,
}

impl Heads<'_> {
    /// Query heads of a key/value head.
    fn per_kv(&self) -> usize {
        self.shape.query_heads / self.shape.kv_heads
    }

    /// `[N queries, Q·D]` to `[n·K, G·T, D]`.
    fn queries(&self, rows: &Tensor) -> Result<Tensor> {
        let (AttentionShape { kv_heads, head_width, .. }, batch) = (self.shape, self.batch);
        let rows = rows.index_select(&batch.queries, 0)?;
        rows.reshape((batch.n, batch.n_queries, kv_heads, self.per_kv(), head_width))?
            .permute((0, 2, 3, 1, 4))?
            .reshape((batch.n * kv_heads, self.per_kv() * batch.n_queries, head_width))
    }

    /// `[n·K, G·T, D]` to `[n·T, Q·D]`.
    fn query_rows(&self, x: &Tensor) -> Result<Tensor> {
        let (AttentionShape { kv_heads, head_width, .. }, batch) = (self.shape, self.batch);
        x.reshape((batch.n, kv_heads, self.per_kv(), batch.n_queries, head_width))?
            .permute((0, 3, 1, 2, 4))?
            .reshape((batch.n * batch.n_queries, self.shape.query_width()))
    }

    /// Keys and values of the pool, each `[n·K, S, D]`.
    fn key_values(&self, pool: &Tensor) -> Result<(Tensor, Tensor)> {
        let (AttentionShape { kv_heads, head_width, .. }, batch) = (self.shape, self.batch);
        let rows = pool.index_select(&batch.keys, 0)?;
        let rows = rows.reshape((batch.n, batch.n_keys, 2 * kv_heads, head_width))?;
        let part = |first: usize| {
            let heads = rows.narrow(2, first, kv_heads)?.transpose(1, 2)?;
            heads.reshape((batch.n * kv_heads, batch.n_keys, head_width))
        };
        Ok((part(0)?, part(kv_heads)?))
    }

    /// Gradients of keys and values `[n·K, S, D]` to `[n·S, 2·K·D]`.
    fn key_rows(&self, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let (AttentionShape { kv_heads, head_width, .. }, batch) = (self.shape, self.batch);
        let part = |x: &Tensor| {
            let heads = x.reshape((batch.n, kv_heads, batch.n_keys, head_width))?.transpose(1, 2)?;
            heads.reshape((batch.n * batch.n_keys, self.shape.kv_width()))
        };
        Tensor::cat(&[part(keys)?, part(values)?], 1)
    }

    /// `[N queries, Q]` to `[n, Q, T, 1]`.
    fn per_query(&self, rows: &Tensor) -> Result<Tensor> {
        let batch = self.batch;
        let rows = rows.index_select(&batch.queries, 0)?;
        rows.reshape((batch.n, batch.n_queries, self.shape.query_heads))?.transpose(1, 2)?.unsqueeze(3)
    }

    /// Scores `[n, Q, T, S]` before the softmax, and the derivative of the soft cap there.
    fn scores(&self, queries: &Tensor, keys: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let batch = self.batch;
        let scores = (queries.matmul(&keys.t()?)? * self.shape.scale)?;
        let mut scores = scores.reshape((batch.n, self.shape.query_heads, batch.n_queries, batch.n_keys))?;
        let mut derivative = None;
        if let Some(cap) = self.shape.soft_cap {
            let tanh = (scores / cap)?.tanh()?;
            derivative = Some(tanh.sqr()?.affine(-1.0, 1.0)?);
            scores = (tanh * cap)?;
        }
        if let (Some(slopes), Some(distances)) = (self.slopes, &batch.distances) {
            scores = scores.sub(&distances.broadcast_mul(slopes)?)?;
        }
        Ok((scores.broadcast_add(&batch.bias)?, derivative))
    }

    /// `[n, Q, T, S]` to `[n·K, G·T, S]`.
    fn products(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, kv_heads) = (self.batch, self.shape.kv_heads);
        x.reshape((batch.n * kv_heads, self.per_kv() * batch.n_queries, batch.n_keys))
    }
}
