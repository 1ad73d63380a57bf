//! The oracle: every operation as plain loops, in `f32` or `f64`.

use std::marker::PhantomData;
use std::ops::Range;

use crate::backend::{
    Activation, Attended, Attention, AttentionGradient, Backend, Direction, Head, Norm, NormKind, Pairing,
    RotaryAngles, Token,
};
use crate::forest::Source;
use crate::rows::{Element, RowBlock, Rows};
use crate::weights::Weights;

/// Plain loops over `T`, on one thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference<T>(PhantomData<T>);

impl<T> Reference<T> {
    /// The oracle over `T`.
    #[must_use]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

/// A key/value row that a query sees: its source, its index there, and its distance from the query in positions.
type VisibleKey = (Source, usize, usize);

/// The keys that the query at row `row` of segment `segment` sees, in the order of its path.
fn visible<R>(attention: &Attention<'_, R>, segment: usize, row: usize) -> Vec<VisibleKey> {
    let segment = &attention.forest.segments()[segment];
    let position = segment.position() + row - segment.rows().start;
    let above = segment.ancestors().iter().flat_map(|span| {
        let distance = move |i: usize| position - (span.position + i - span.rows.start);
        span.rows.clone().map(move |i| (span.source, i, distance(i)))
    });
    let itself = (segment.rows().start..=row).map(|i| (Source::Own, i, row - i));
    let in_window = |visible: &VisibleKey| attention.shape.window.is_none_or(|window| visible.2 < window);
    above.chain(itself).filter(in_window).collect()
}

/// The score of the product of a query and a key, and its derivative.
fn score<T: Element, R>(
    attention: &Attention<'_, R>,
    head: usize,
    visible: &VisibleKey,
    product: T,
) -> (T, T) {
    let scale = T::of_f64(attention.shape.scale);
    let (score, derivative) = capped(product * scale, attention.shape.soft_cap);
    let distance = T::of_f64(visible.2 as f64);
    let bias = attention.slopes.map_or(T::zero(), |slopes| -T::of_f32(slopes[head]) * distance);
    (score + bias, derivative * scale)
}

/// c · tanh(x / c) and its derivative.
fn capped<T: Element>(x: T, cap: Option<f64>) -> (T, T) {
    let Some(cap) = cap.map(T::of_f64) else { return (x, T::one()) };
    let tanh = (x / cap).tanh();
    (cap * tanh, T::one() - tanh * tanh)
}

/// (segment, query, row of the call) of every query.
fn queries<R>(attention: &Attention<'_, R>) -> Vec<(usize, usize, usize)> {
    let own = |query: usize| attention.query_rows.map_or(query, |query_rows| query_rows[query]);
    let blocks = attention.forest.query_blocks(attention.query_rows);
    blocks.into_iter().flat_map(|b| b.queries.map(move |q| (b.segment, q, own(q)))).collect()
}

fn key_value<'a, T: Element>(attention: &Attention<'a, Rows<T>>, visible: VisibleKey) -> &'a [T] {
    match visible.0 {
        Source::Own => attention.key_values.row(visible.1),
        Source::Context(block) => attention.context[block].row(visible.1),
    }
}

fn dot<T: Element>(a: &[T], b: &[T]) -> T {
    a.iter().zip(b).map(|(&a, &b)| a * b).sum()
}

/// dx += dy W.
fn add_product<T: Element>(dy: &Rows<T>, weight: &Rows<T>, dx: &mut Rows<T>) {
    for i in 0..dy.n_rows() {
        for o in 0..weight.n_rows() {
            axpy(dx.row_mut(i), dy.row(i)[o], weight.row(o));
        }
    }
}

fn axpy<T: Element>(y: &mut [T], a: T, x: &[T]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// Columns of a head among queries, keys and values: (query, key, value).
fn head_columns<R>(attention: &Attention<'_, R>, head: usize) -> (Range<usize>, Range<usize>, Range<usize>) {
    let shape = attention.shape;
    let (d, kv) = (shape.head_width, head / (shape.query_heads / shape.kv_heads));
    let key = kv * d..(kv + 1) * d;
    let value = key.start + shape.kv_width()..key.end + shape.kv_width();
    (head * d..(head + 1) * d, key, value)
}

impl<T: Element> Backend for Reference<T> {
    type Element = T;
    type Rows = Rows<T>;
    type Matrix = Rows<T>;
    type Vector = Vec<T>;

    fn matrix(&self, blocks: Vec<Weights>) -> Rows<T> {
        let cols = blocks[0].cols();
        let values = blocks.iter().flat_map(|b| b.to_f32().iter().map(|&v| T::of_f32(v)).collect::<Vec<_>>());
        Rows::new(values.collect(), cols)
    }
    fn vector(&self, values: &[f32]) -> Vec<T> {
        values.iter().map(|&v| T::of_f32(v)).collect()
    }
    fn rows(&self, values: Vec<T>, width: usize) -> Rows<T> {
        Rows::new(values, width)
    }
    fn zeros(&self, n_rows: usize, width: usize) -> Rows<T> {
        Rows::zeros(n_rows, width)
    }
    fn values(&self, rows: &Rows<T>) -> Vec<T> {
        rows.values().to_vec()
    }
    fn embed(&self, table: &Rows<T>, tokens: &[Token]) -> Rows<T> {
        table.select(&tokens.iter().map(|&t| t as usize).collect::<Vec<_>>())
    }
    fn select(&self, x: &Rows<T>, indices: &[usize]) -> Rows<T> {
        x.select(indices)
    }
    fn assign(&self, into: &mut Rows<T>, indices: &[usize], source: &Rows<T>) {
        into.assign(indices, source);
    }
    fn scatter_add(&self, into: &mut Rows<T>, indices: &[usize], source: &Rows<T>) {
        into.scatter_add(indices, source);
    }
    fn add(&self, into: &mut Rows<T>, x: &Rows<T>) {
        into.add(x);
    }
    fn scale(&self, x: &mut Rows<T>, factor: f32) {
        x.values_mut().iter_mut().for_each(|value| *value *= T::of_f32(factor));
    }

    fn linear(&self, x: &Rows<T>, weight: &Rows<T>, bias: Option<&Vec<T>>) -> Rows<T> {
        let mut y = Rows::zeros(x.n_rows(), weight.n_rows());
        for i in 0..x.n_rows() {
            for o in 0..weight.n_rows() {
                y.row_mut(i)[o] = dot(x.row(i), weight.row(o)) + bias.map_or(T::zero(), |b| b[o]);
            }
        }
        y
    }
    fn linear_gradient(&self, dy: &Rows<T>, weight: &Rows<T>, dx: Option<Rows<T>>) -> Rows<T> {
        let mut dx = dx.unwrap_or_else(|| Rows::zeros(dy.n_rows(), weight.width()));
        add_product(dy, weight, &mut dx);
        dx
    }

    fn norm(&self, x: &Rows<T>, norm: &Norm<Vec<T>>) -> Rows<T> {
        let mut y = Rows::zeros(x.n_rows(), x.width());
        for i in 0..x.n_rows() {
            norm_of(x.row(i), 0, norm, y.row_mut(i));
        }
        y
    }
    fn norm_gradient(&self, x: &Rows<T>, norm: &Norm<Vec<T>>, dy: &Rows<T>, dx: &mut Rows<T>) {
        for i in 0..x.n_rows() {
            norm_gradient_of(x.row(i), 0, norm, dy.row(i), dx.row_mut(i));
        }
    }
    fn norm_heads(&self, x: &Rows<T>, n_heads: usize, width: usize, norm: &Norm<Vec<T>>) -> Rows<T> {
        let mut y = x.clone();
        for i in 0..x.n_rows() {
            for first in (0..n_heads * width).step_by(width) {
                let head = first..first + width;
                norm_of(&x.row(i)[head.clone()], first, norm, &mut y.row_mut(i)[head]);
            }
        }
        y
    }
    fn norm_heads_gradient(
        &self,
        x: &Rows<T>,
        n_heads: usize,
        width: usize,
        norm: &Norm<Vec<T>>,
        dy: Rows<T>,
    ) -> Rows<T> {
        let mut dx = dy;
        for i in 0..x.n_rows() {
            for first in (0..n_heads * width).step_by(width) {
                let head = first..first + width;
                let dy = dx.row(i)[head.clone()].to_vec();
                dx.row_mut(i)[head.clone()].fill(T::zero());
                norm_gradient_of(&x.row(i)[head.clone()], first, norm, &dy, &mut dx.row_mut(i)[head]);
            }
        }
        dx
    }

    fn rotate(
        &self,
        x: &mut Rows<T>,
        n_heads: usize,
        width: usize,
        angles: &RotaryAngles,
        direction: Direction,
    ) {
        let half = angles.half;
        for i in 0..x.n_rows() {
            for head in x.row_mut(i)[..n_heads * width].chunks_exact_mut(width) {
                for j in 0..half {
                    let (cos, sin) =
                        (T::of_f32(angles.cos[i * half + j]), T::of_f32(angles.sin[i * half + j]));
                    let sin = if direction == Direction::Forward { sin } else { -sin };
                    let (first, second) = match angles.pairing {
                        Pairing::Halves => (j, j + half),
                        Pairing::Interleaved => (2 * j, 2 * j + 1),
                    };
                    let (a, b) = (head[first], head[second]);
                    head[first] = a * cos - b * sin;
                    head[second] = b * cos + a * sin;
                }
            }
        }
    }

    fn attend(&self, attention: &Attention<'_, Rows<T>>) -> Attended<Rows<T>> {
        let shape = attention.shape;
        let n = attention.queries.n_rows();
        let mut output = Rows::zeros(n, shape.query_width());
        let mut log_sums = Rows::zeros(n, shape.query_heads);
        for (segment, query, own) in queries(attention) {
            let visible = visible(attention, segment, own);
            for head in 0..shape.query_heads {
                let (q, k, v) = head_columns(attention, head);
                let query_values = &attention.queries.row(query)[q.clone()];
                let score = |s: &VisibleKey| {
                    score(attention, head, s, dot(query_values, &key_value(attention, *s)[k.clone()])).0
                };
                let scores: Vec<T> = visible.iter().map(score).collect();
                let log_sum = log_sum_exp(&scores);
                log_sums.row_mut(query)[head] = log_sum;
                for (&s, &score) in visible.iter().zip(&scores) {
                    let value = &key_value(attention, s)[v.clone()];
                    axpy(&mut output.row_mut(query)[q.clone()], (score - log_sum).exp(), value);
                }
            }
        }
        Attended { output, log_sums }
    }

    fn attend_gradient(
        &self,
        attention: &Attention<'_, Rows<T>>,
        attended: &Attended<Rows<T>>,
        d_output: &Rows<T>,
        mut gradient: AttentionGradient<'_, Rows<T>>,
    ) {
        let shape = attention.shape;
        for (segment, query, own) in queries(attention) {
            let visible = visible(attention, segment, own);
            for head in 0..shape.query_heads {
                let (q, k, v) = head_columns(attention, head);
                let query_values = &attention.queries.row(query)[q.clone()];
                let d_out = &d_output.row(query)[q.clone()];
                let log_sum = attended.log_sums.row(query)[head];
                let delta = dot(d_out, &attended.output.row(query)[q.clone()]);
                for &s in &visible {
                    let key_value = key_value(attention, s);
                    let (score, derivative) =
                        score(attention, head, &s, dot(query_values, &key_value[k.clone()]));
                    let p = (score - log_sum).exp();
                    let d_score = p * (dot(d_out, &key_value[v.clone()]) - delta) * derivative;
                    if let Some(d_queries) = &mut gradient.queries {
                        axpy(&mut d_queries.row_mut(query)[q.clone()], d_score, &key_value[k.clone()]);
                    }
                    let target = match s.0 {
                        Source::Own => gradient.key_values.as_deref_mut(),
                        Source::Context(block) => gradient.context[block].as_deref_mut(),
                    };
                    if let Some(target) = target {
                        let row = target.row_mut(s.1);
                        axpy(&mut row[k.clone()], d_score, query_values);
                        axpy(&mut row[v.clone()], p, d_out);
                    }
                }
            }
        }
    }

    fn activate(&self, x: &Rows<T>, activation: Activation) -> Rows<T> {
        let f = |x| activation.function.value(x);
        if !activation.gated {
            return Rows::new(x.values().iter().map(|&x| f(x)).collect(), x.width());
        }
        let width = x.width() / 2;
        let mut y = Rows::zeros(x.n_rows(), width);
        for i in 0..x.n_rows() {
            for j in 0..width {
                y.row_mut(i)[j] = f(x.row(i)[j]) * x.row(i)[width + j];
            }
        }
        y
    }
    fn activate_gradient(&self, x: &Rows<T>, activation: Activation, dy: &Rows<T>) -> Rows<T> {
        let function = activation.function;
        let mut dx = Rows::zeros(x.n_rows(), x.width());
        for i in 0..x.n_rows() {
            let (x, dy, dx) = (x.row(i), dy.row(i), dx.row_mut(i));
            for (j, &dy) in dy.iter().enumerate() {
                if activation.gated {
                    let up = x.len() / 2 + j;
                    dx[j] = dy * x[up] * function.derivative(x[j]);
                    dx[up] = dy * function.value(x[j]);
                } else {
                    dx[j] = dy * function.derivative(x[j]);
                }
            }
        }
        dx
    }

    fn logits_at(&self, x: &Rows<T>, head: HeadIn<'_, T>, pairs: &[(usize, Token)]) -> Vec<T> {
        let logit = |&(row, token): &(usize, Token)| {
            let token = token as usize;
            let bias = head.bias.map_or(T::zero(), |bias| bias[token]);
            capped(dot(x.row(row), head.weight.row(token)) + bias, head.soft_cap).0
        };
        pairs.iter().map(logit).collect()
    }
    fn logits_at_gradient(
        &self,
        head: HeadIn<'_, T>,
        pairs: &[(usize, Token)],
        logits: &[T],
        d: &[T],
        dx: &mut Rows<T>,
    ) {
        for ((&(row, token), &logit), &d) in pairs.iter().zip(logits).zip(d) {
            axpy(dx.row_mut(row), d * cap_derivative(logit, head.soft_cap), head.weight.row(token as usize));
        }
    }
    fn log_sum_exp(&self, x: &Rows<T>, head: HeadIn<'_, T>) -> Vec<T> {
        let logits = self.all_logits(x, head);
        (0..x.n_rows()).map(|i| log_sum_exp(logits.row(i))).collect()
    }
    fn log_sum_exp_gradient(
        &self,
        x: &Rows<T>,
        head: HeadIn<'_, T>,
        log_sums: &[T],
        d: &[T],
        dx: &mut Rows<T>,
    ) {
        let mut logits = self.all_logits(x, head);
        for i in 0..x.n_rows() {
            for logit in logits.row_mut(i) {
                *logit = (*logit - log_sums[i]).exp() * d[i] * cap_derivative(*logit, head.soft_cap);
            }
        }
        add_product(&logits, head.weight, dx);
    }
}

type HeadIn<'a, T> = Head<'a, Rows<T>, Vec<T>>;

impl<T: Element> Reference<T> {
    /// `[N, V]`.
    fn all_logits(&self, x: &Rows<T>, head: HeadIn<'_, T>) -> Rows<T> {
        let mut logits = self.linear(x, head.weight, head.bias);
        logits.values_mut().iter_mut().for_each(|logit| *logit = capped(*logit, head.soft_cap).0);
        logits
    }
}

/// The derivative of c · tanh(x / c) where its value is `capped`.
fn cap_derivative<T: Element>(capped: T, cap: Option<f64>) -> T {
    cap.map_or(T::one(), |cap| {
        let tanh = capped / T::of_f64(cap);
        T::one() - tanh * tanh
    })
}

/// y = the norm of x, with gain and bias from number `first` on.
fn norm_of<T: Element>(x: &[T], first: usize, norm: &Norm<Vec<T>>, y: &mut [T]) {
    let (mean, scale) = statistics(x, norm.kind);
    for (j, y) in y.iter_mut().enumerate() {
        let bias = norm.bias.as_ref().map_or(T::zero(), |b| b[first + j]);
        *y = (x[j] - mean) * scale * norm.gain[first + j] + bias;
    }
}

/// dx += its gradient.
fn norm_gradient_of<T: Element>(x: &[T], first: usize, norm: &Norm<Vec<T>>, dy: &[T], dx: &mut [T]) {
    let n = T::of_f64(x.len() as f64);
    let (mean, scale) = statistics(x, norm.kind);
    let normed: Vec<T> = x.iter().map(|&x| (x - mean) * scale).collect();
    let d: Vec<T> = dy.iter().zip(&norm.gain[first..]).map(|(&d, &g)| d * g).collect();
    let d_scale = dot(&d, &normed) / n;
    let d_mean = match norm.kind {
        NormKind::Rms { .. } => T::zero(),
        NormKind::Layer { .. } => d.iter().copied().sum::<T>() / n,
    };
    for (j, dx) in dx.iter_mut().enumerate() {
        *dx += scale * (d[j] - d_mean - normed[j] * d_scale);
    }
}

/// (mean, 1 / standard deviation) of a row; for RMS, (0, 1 / root mean square).
fn statistics<T: Element>(x: &[T], kind: NormKind) -> (T, T) {
    let n = T::of_f64(x.len() as f64);
    let (mean, eps) = match kind {
        NormKind::Rms { eps } => (T::zero(), eps),
        NormKind::Layer { eps } => (x.iter().copied().sum::<T>() / n, eps),
    };
    let variance = x.iter().map(|&x| (x - mean) * (x - mean)).sum::<T>() / n;
    (mean, T::one() / (variance + T::of_f64(eps)).sqrt())
}

fn log_sum_exp<T: Element>(values: &[T]) -> T {
    let max = values.iter().copied().fold(T::neg_infinity(), T::max);
    max + values.iter().map(|&v| (v - max).exp()).sum::<T>().ln()
}
