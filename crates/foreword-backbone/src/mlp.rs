//! The MLP of a layer, dense or a mixture of experts (Shazeer et al. 2017), forward and backward.

use foreword_kernels::{Activation, Backend, Element as _, RowBlock as _};

use crate::linear::Linear;

/// The MLP sublayer between its norms.
pub(crate) enum Mlp<B: Backend> {
    /// One for every row.
    Dense(Expert<B>),
    /// A mixture of experts.
    Mixture(Mixture<B>),
}

/// One MLP.
pub(crate) struct Expert<B: Backend> {
    /// `[H]` to `[2·I]` (gates, then values) or `[I]`.
    pub(crate) up: Linear<B>,
    /// `[I]` to `[H]`.
    pub(crate) down: Linear<B>,
}

/// E experts, and the router that selects among them.
pub(crate) struct Mixture<B: Backend> {
    /// `[H]` to `[E]`.
    pub(crate) router: Linear<B>,
    /// `[E]`.
    pub(crate) experts: Vec<Expert<B>>,
    /// Experts per row.
    pub(crate) top_k: usize,
    /// The weights of the selected experts sum to one.
    pub(crate) normalized: bool,
}

/// The activations that the backward pass reads.
pub(crate) enum MlpTape<B: Backend> {
    /// Before the activation function, `[N, 2·I]` or `[N, I]`.
    Dense(B::Rows),
    /// The calls of experts, and the router's probabilities, `[N · E]`.
    Mixture(Vec<ExpertCall<B>>, Vec<f64>),
}

/// An expert, the rows that were routed to it, and its activations.
pub(crate) struct ExpertCall<B: Backend> {
    expert: usize,
    /// Ascending.
    rows: Vec<usize>,
    /// Its weight in each of them.
    weights: Vec<f64>,
    up: B::Rows,
    /// Before the weights, `[rows.len(), H]`.
    output: B::Rows,
}

impl<B: Backend> Mlp<B> {
    /// `[N, H]` to `[N, H]`.
    pub(crate) fn forward(&self, backend: &B, activation: Activation, x: &B::Rows) -> (B::Rows, MlpTape<B>) {
        match self {
            Self::Dense(expert) => {
                let (output, up) = expert.forward(backend, activation, x);
                (output, MlpTape::Dense(up))
            }
            Self::Mixture(mixture) => mixture.forward(backend, activation, x),
        }
    }

    /// The gradient of the input from that of the output, `[N, H]`.
    pub(crate) fn backward(
        &self,
        backend: &B,
        activation: Activation,
        tape: &MlpTape<B>,
        dy: &B::Rows,
    ) -> B::Rows {
        match (self, tape) {
            (Self::Dense(expert), MlpTape::Dense(up)) => expert.backward(backend, activation, up, dy),
            (Self::Mixture(mixture), MlpTape::Mixture(calls, probabilities)) => {
                mixture.backward(backend, activation, (calls, probabilities), dy)
            }
            _ => unreachable!("a tape of another layer"),
        }
    }
}

impl<B: Backend> Expert<B> {
    fn forward(&self, backend: &B, activation: Activation, x: &B::Rows) -> (B::Rows, B::Rows) {
        let up = self.up.run(backend, x);
        (self.down.run(backend, &backend.activate(&up, activation)), up)
    }

    fn backward(&self, backend: &B, activation: Activation, up: &B::Rows, dy: &B::Rows) -> B::Rows {
        let d_activated = backend.linear_gradient(dy, &self.down.weight, None);
        let d_up = backend.activate_gradient(up, activation, &d_activated);
        backend.linear_gradient(&d_up, &self.up.weight, None)
    }
}

impl<B: Backend> Mixture<B> {
    fn forward(&self, backend: &B, activation: Activation, x: &B::Rows) -> (B::Rows, MlpTape<B>) {
        let n_experts = self.experts.len();
        let logits = backend.values(&self.router.run(backend, x));
        let mut all_probabilities = Vec::with_capacity(logits.len());
        let mut calls: Vec<(Vec<usize>, Vec<f64>)> = vec![Default::default(); n_experts];
        for (row, logits) in logits.chunks_exact(n_experts).enumerate() {
            let logits: Vec<f64> = logits.iter().map(|logit| logit.as_f64()).collect();
            let probabilities = softmax(&logits);
            for (expert, weight) in self.top_experts(&logits, &probabilities) {
                calls[expert].0.push(row);
                calls[expert].1.push(weight);
            }
            all_probabilities.extend(probabilities);
        }
        let mut y = backend.zeros(x.n_rows(), x.width());
        let mut tape = Vec::new();
        for (expert, (rows, weights)) in
            calls.into_iter().enumerate().filter(|(_, (rows, _))| !rows.is_empty())
        {
            let (output, up) = self.experts[expert].forward(backend, activation, &backend.select(x, &rows));
            backend.scatter_add(&mut y, &rows, &weighted(backend, &output, &weights));
            tape.push(ExpertCall { expert, rows, weights, up, output });
        }
        (y, MlpTape::Mixture(tape, all_probabilities))
    }

    /// The experts of a row, the most probable first, and their weights.
    fn top_experts(&self, logits: &[f64], probabilities: &[f64]) -> Vec<(usize, f64)> {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        order.truncate(self.top_k);
        let total: f64 = order.iter().map(|&expert| probabilities[expert]).sum();
        let total = if self.normalized { total } else { 1.0 };
        order.into_iter().map(|expert| (expert, probabilities[expert] / total)).collect()
    }

    fn backward(
        &self,
        backend: &B,
        activation: Activation,
        (calls, probabilities): (&[ExpertCall<B>], &[f64]),
        dy: &B::Rows,
    ) -> B::Rows {
        let (n, n_experts) = (dy.n_rows(), self.experts.len());
        let mut dx = backend.zeros(n, dy.width());
        // For each row and expert its weight, and the gradient of that.
        let mut weights = vec![0.0; n * n_experts];
        let mut d_weights = vec![0.0; n * n_experts];
        for ExpertCall { expert, rows, weights: row_weights, up, output } in calls {
            let dy = backend.select(dy, rows);
            let (d_values, outputs) = (backend.values(&dy), backend.values(output));
            let pairs = d_values.chunks_exact(dy.width()).zip(outputs.chunks_exact(dy.width()));
            for ((&row, &weight), (d, output)) in rows.iter().zip(row_weights).zip(pairs) {
                let at = row * n_experts + expert;
                weights[at] = weight;
                d_weights[at] = d.iter().zip(output).map(|(d, y)| d.as_f64() * y.as_f64()).sum();
            }
            let d_x =
                self.experts[*expert].backward(backend, activation, up, &weighted(backend, &dy, row_weights));
            backend.scatter_add(&mut dx, rows, &d_x);
        }
        let mut d_logits = Vec::with_capacity(weights.len());
        for (row, weights) in weights.chunks_exact(n_experts).enumerate() {
            let of_row = row * n_experts..(row + 1) * n_experts;
            let (d_weights, probabilities) = (&d_weights[of_row.clone()], &probabilities[of_row]);
            let mean: f64 = weights.iter().zip(d_weights).map(|(weight, d_weight)| weight * d_weight).sum();
            // Normalised weights are a softmax over the selected experts, others one over all.
            let softmax_weights = if self.normalized { weights } else { probabilities };
            let d = |i: usize| weights[i] * d_weights[i] - softmax_weights[i] * mean;
            d_logits.extend((0..n_experts).map(|i| B::Element::of_f64(d(i))));
        }
        backend.linear_gradient(&backend.rows(d_logits, n_experts), &self.router.weight, Some(dx))
    }
}

/// Row `i` times `weights[i]`.
fn weighted<B: Backend>(backend: &B, rows: &B::Rows, weights: &[f64]) -> B::Rows {
    let mut values = backend.values(rows);
    for (row, &weight) in values.chunks_exact_mut(rows.width()).zip(weights) {
        row.iter_mut().for_each(|value| *value = B::Element::of_f64(value.as_f64() * weight));
    }
    backend.rows(values, rows.width())
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - max).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}
