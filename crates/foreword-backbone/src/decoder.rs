//! One decoder, forward and backward, for every family: rows in, hidden rows and gradients of rows out.

use foreword_kernels::{
    Attended, Attention, AttentionGradient, Backend, Direction, Forest, Norm, RotaryAngles, RowBlock,
};

use crate::backbone::Backbone;
use crate::error::BackboneError;
use crate::layer::Layer;
use crate::mlp::MlpTape;
use crate::rotary::Angles;
use crate::spec::{HeadNorms, Positions};

/// Keys and values of the rows of one call, or their gradients: per layer `[N, 2·K·D]`.
pub struct KeyValues<B: Backend> {
    layers: Vec<B::Rows>,
}

impl<B: Backend> Clone for KeyValues<B> {
    fn clone(&self) -> Self {
        Self { layers: self.layers.clone() }
    }
}

impl<B: Backend> KeyValues<B> {
    /// Keys (rotated), then values, of every row in layer `layer`, `[N, 2·K·D]`.
    #[must_use]
    pub fn layer(&self, layer: usize) -> &B::Rows {
        &self.layers[layer]
    }

    /// N.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.layers.first().map_or(0, RowBlock::n_rows)
    }

    /// Keys and values of `values.len() / (L·2·K·D)` rows, each layer by layer the keys of all heads, then the values.
    ///
    /// # Panics
    /// If that is no whole number of rows of `n_layers` equal parts.
    pub fn from_values(backend: &B, n_layers: usize, kv_width: usize, values: &[B::Element]) -> Self {
        let (layer_width, row_width) = (2 * kv_width, n_layers * 2 * kv_width);
        assert!(values.len().is_multiple_of(row_width), "keys and values of a part of a row");
        let of_layer = |layer: usize| {
            let rows = values.chunks_exact(row_width);
            let parts = rows.flat_map(|row| &row[layer * layer_width..(layer + 1) * layer_width]);
            backend.rows(parts.copied().collect(), layer_width)
        };
        Self { layers: (0..n_layers).map(of_layer).collect() }
    }

    /// The numbers of all rows, as [`KeyValues::from_values`] takes them.
    pub fn values(&self, backend: &B) -> Vec<B::Element> {
        let layers: Vec<Vec<B::Element>> = self.layers.iter().map(|rows| backend.values(rows)).collect();
        let width = self.layers.first().map_or(1, RowBlock::width);
        let row = |i: usize| layers.iter().flat_map(move |layer| &layer[i * width..(i + 1) * width]);
        (0..self.n_rows()).flat_map(row).copied().collect()
    }

    /// In every layer, row `j` of `source` becomes row `indices[j]`.
    pub fn assign(&mut self, backend: &B, indices: &[usize], source: &Self) {
        for (into, rows) in self.layers.iter_mut().zip(&source.layers) {
            backend.assign(into, indices, rows);
        }
    }

    /// In every layer, row `from[j]` of `source` becomes row `to[j]`.
    pub fn assign_rows(&mut self, backend: &B, to: &[usize], source: &Self, from: &[usize]) {
        for (into, rows) in self.layers.iter_mut().zip(&source.layers) {
            backend.assign(into, to, &backend.select(rows, from));
        }
    }

    /// Adds keys and values of as many rows, or their gradients.
    pub fn add(&mut self, backend: &B, other: &Self) {
        self.layers.iter_mut().zip(&other.layers).for_each(|(into, rows)| backend.add(into, rows));
    }
}

/// What a forward pass reads.
pub struct Input<'a, B: Backend> {
    /// Embedded or learned rows, `[N, H]`.
    pub rows: B::Rows,
    /// Who sees whom.
    pub forest: &'a Forest,
    /// Keys and values of earlier calls, by context block.
    pub context: &'a [&'a KeyValues<B>],
    /// The rows whose hidden state is wanted, ascending. For the others the last layer makes keys and values only.
    pub wanted: &'a [usize],
    /// What is kept for [`Backbone::backward`].
    pub tape: Taped,
}

/// What a forward pass keeps of its activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taped {
    /// Nothing: there will be no backward pass.
    Nothing,
    /// What goes into each layer; the backward pass computes the rest a second time, to the same bits.
    Inputs,
    /// All that the backward pass reads.
    All,
}

/// What a forward pass gives.
pub struct Output<B: Backend> {
    /// Hidden states after the final norm, `[wanted.len(), H]`.
    pub hidden: B::Rows,
    /// Keys and values of the rows of this call.
    pub key_values: KeyValues<B>,
    /// What the backward pass needs, where it was asked for.
    pub tape: Option<Tape<B>>,
}

/// What the backward pass needs to know of the forward pass.
pub struct Tape<B: Backend> {
    wanted: Vec<usize>,
    angles: Angles,
    wanted_angles: Angles,
    /// The rows before they were normed `[N, H]`, where they were.
    entered: Option<B::Rows>,
    layers: Vec<LayerTape<B>>,
    /// The residual stream before the final norm, `[wanted.len(), H]`.
    last: B::Rows,
}

/// The same of one layer; `n` is N, in the last layer the number of wanted rows.
struct LayerTape<B: Backend> {
    /// Residual stream before the layer, `[N, H]`.
    input: B::Rows,
    /// The rest; `None`: to be computed again.
    inner: Option<Inner<B>>,
}

/// What a layer computes on its way.
struct Inner<B: Backend> {
    /// Queries as they ask, `[n, Q·D]`.
    queries: B::Rows,
    /// Queries `[n, Q·D]` and keys with values `[N, 2·K·D]` before they were normed, where they were.
    raw: Option<(B::Rows, B::Rows)>,
    attended: Attended<B::Rows>,
    /// What attention gave before it was normed `[n, H]`, where it was.
    attention_half: Option<B::Rows>,
    /// Residual stream after attention, `[n, H]`.
    middle: B::Rows,
    mlp: MlpTape<B>,
    /// What the MLP gave before it was normed `[n, H]`, where it was.
    mlp_half: Option<B::Rows>,
}

/// What a backward pass reads and adds to.
pub struct Gradient<'a, B: Backend> {
    /// The call's forest, as in its input.
    pub forest: &'a Forest,
    /// The call's context, as in its input.
    pub context: &'a [&'a KeyValues<B>],
    /// The call's own keys and values, from its output.
    pub key_values: &'a KeyValues<B>,
    /// Gradient of the hidden states, `[wanted.len(), H]`; `None`: zero.
    pub d_hidden: Option<B::Rows>,
    /// Gradient of the call's own keys and values from later calls that saw them.
    pub d_key_values: Option<KeyValues<B>>,
    /// Gradients of the context's keys and values, added to; `None` for a block without learned rows.
    pub d_context: Vec<Option<&'a mut KeyValues<B>>>,
    /// The rows whose gradient is wanted, ascending.
    pub learned: &'a [usize],
}

impl<B: Backend> Backbone<B> {
    /// Runs the decoder over rows.
    ///
    /// # Errors
    /// If a row lies beyond the model's context.
    pub fn forward(&self, input: Input<'_, B>) -> Result<Output<B>, BackboneError> {
        let Input { mut rows, forest, context, wanted, tape: keep } = input;
        let positions = forest.positions();
        self.check_positions(&positions)?;
        self.scale(&mut rows, self.spec.embedding.input_scale);
        if let (Some(table), Positions::Learned { offset }) = (&self.positions, &self.spec.positions) {
            let tokens: Vec<u32> = positions.iter().map(|&position| (position + offset) as u32).collect();
            self.backend.add(&mut rows, &self.backend.embed(table, &tokens));
        }
        let entered = self.embedding_norm.as_ref().map(|norm| {
            let normed = self.backend.norm(&rows, norm);
            std::mem::replace(&mut rows, normed)
        });
        let angles = self.rotary.angles(&positions);
        let at_wanted: Vec<usize> = wanted.iter().map(|&row| positions[row]).collect();
        let wanted_angles = self.rotary.angles(&at_wanted);
        let mut key_values = KeyValues { layers: Vec::with_capacity(self.layers.len()) };
        let mut tapes = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let last = i + 1 == self.layers.len();
            let asking = last.then_some(wanted);
            let query_angles = if last { &wanted_angles } else { &angles };
            let blocks: Vec<&B::Rows> = context.iter().map(|block| block.layer(i)).collect();
            let call = Call { forest, context: &blocks, asking, layer: i, angles: &angles, query_angles };
            let (output, own, inner) = self.layer_forward(layer, &rows, &call);
            let input = std::mem::replace(&mut rows, output);
            key_values.layers.push(own);
            match keep {
                Taped::Nothing => {}
                Taped::Inputs => tapes.push(LayerTape { input, inner: None }),
                Taped::All => tapes.push(LayerTape { input, inner: Some(inner) }),
            }
        }
        let hidden = self.backend.norm(&rows, &self.final_norm);
        let tape = (keep != Taped::Nothing).then(|| Tape {
            wanted: wanted.to_vec(),
            entered: entered.filter(|_| keep != Taped::Nothing),
            angles,
            wanted_angles,
            layers: tapes,
            last: rows,
        });
        Ok(Output { hidden, key_values, tape })
    }

    /// Gradients of the learned rows, `[learned.len(), H]`, and, added in place, of the context's keys and values.
    pub fn backward(&self, tape: &Tape<B>, gradient: Gradient<'_, B>) -> B::Rows {
        let Gradient { forest, context, key_values, d_hidden, d_key_values, mut d_context, learned } =
            gradient;
        let backend = &self.backend;
        let h = self.spec.hidden;
        let mut d_rows = backend.zeros(tape.wanted.len(), h);
        if let Some(d_hidden) = d_hidden {
            backend.norm_gradient(&tape.last, &self.final_norm, &d_hidden, &mut d_rows);
        }
        let mut d_own: Vec<Option<B::Rows>> = match d_key_values {
            Some(gradient) => gradient.layers.into_iter().map(Some).collect(),
            None => self.layers.iter().map(|_| None).collect(),
        };
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let last = i + 1 == self.layers.len();
            let blocks: Vec<&B::Rows> = context.iter().map(|block| block.layer(i)).collect();
            let query_angles = if last { &tape.wanted_angles } else { &tape.angles };
            let asking = last.then_some(&tape.wanted[..]);
            let angles = &tape.angles;
            let call = Call { forest, context: &blocks, asking, layer: i, angles, query_angles };
            let targets = Targets {
                own: key_values.layer(i),
                d_own: d_own[i].take(),
                d_context: d_context.iter_mut().map(|c| c.as_deref_mut().map(|c| &mut c.layers[i])).collect(),
                only: (i == 0).then_some(learned),
            };
            let LayerTape { input, inner } = &tape.layers[i];
            let again;
            let inner = match inner {
                Some(inner) => inner,
                None => {
                    again = self.layer_forward(layer, input, &call).2;
                    &again
                }
            };
            d_rows = self.layer_backward(layer, (input, inner), d_rows, &call, targets);
        }
        if let (Some(norm), Some(entered)) = (&self.embedding_norm, &tape.entered) {
            let d_normed = std::mem::replace(&mut d_rows, backend.zeros(learned.len(), h));
            backend.norm_gradient(&backend.select(entered, learned), norm, &d_normed, &mut d_rows);
        }
        self.scale(&mut d_rows, self.spec.embedding.input_scale);
        d_rows
    }

    /// Keys and values, or gradients of them, of `n_rows` rows, all zero: to be added or assigned to.
    pub fn zero_key_values(&self, n_rows: usize) -> KeyValues<B> {
        let width = 2 * self.spec.attention.kv_width();
        KeyValues { layers: self.layers.iter().map(|_| self.backend.zeros(n_rows, width)).collect() }
    }

    fn check_positions(&self, positions: &[usize]) -> Result<(), BackboneError> {
        match positions.iter().max() {
            Some(&position) if position >= self.spec.context => {
                Err(BackboneError::BeyondContext { position, context: self.spec.context })
            }
            _ => Ok(()),
        }
    }

    /// One layer: the residual stream after it `[n, H]`, its keys and values `[N, 2·K·D]`, and what it computed on its way.
    fn layer_forward(
        &self,
        layer: &Layer<B>,
        input: &B::Rows,
        call: &Call<'_, B>,
    ) -> (B::Rows, B::Rows, Inner<B>) {
        let backend = &self.backend;
        let attention = &self.spec.attention;
        let (normed, asking_input);
        let reading = match &layer.attention_norm {
            Some(norm) => {
                normed = backend.norm(input, norm);
                &normed
            }
            None => input,
        };
        let mut own = layer.key_value.run(backend, reading);
        let (residual, mut queries) = match call.asking {
            Some(asking) => {
                asking_input = backend.select(input, asking);
                (&asking_input, layer.query.run(backend, &backend.select(reading, asking)))
            }
            None => (input, layer.query.run(backend, reading)),
        };
        let raw = layer.head_norms.as_ref().map(|norms| {
            let normed_queries = self.norm_heads(&queries, attention.query_heads, &norms.queries);
            let normed_keys = self.norm_heads(&own, attention.kv_heads, &norms.keys);
            (std::mem::replace(&mut queries, normed_queries), std::mem::replace(&mut own, normed_keys))
        });
        self.rotate(
            &mut own,
            attention.kv_heads,
            self.rotary.layer(call.angles, call.layer),
            Direction::Forward,
        );
        let query_angles = self.rotary.layer(call.query_angles, call.layer);
        self.rotate(&mut queries, attention.query_heads, query_angles, Direction::Forward);
        let attended = backend.attend(&call.attention(self, &queries, &own));

        let mut middle = layer.output.run(backend, &attended.output);
        let attention_half = self.finish_half(&mut middle, layer.attention_post_norm.as_ref());
        backend.add(&mut middle, residual);
        let reading = if self.spec.block.parallel { residual } else { &middle };
        let activation = self.spec.mlp.activation;
        let (mut output, mlp) = match layer.mlp_norm() {
            Some(norm) => layer.mlp.forward(backend, activation, &backend.norm(reading, norm)),
            None => layer.mlp.forward(backend, activation, reading),
        };
        let mlp_half = self.finish_half(&mut output, layer.mlp_post_norm.as_ref());
        backend.add(&mut output, &middle);
        (output, own, Inner { queries, raw, attended, attention_half, middle, mlp, mlp_half })
    }

    /// Norms and scales what half a layer gives, in place; returns what it was before the norm, where there is one.
    fn finish_half(&self, half: &mut B::Rows, norm: Option<&Norm<B::Vector>>) -> Option<B::Rows> {
        let before = norm.map(|norm| {
            let normed = self.backend.norm(half, norm);
            std::mem::replace(half, normed)
        });
        self.scale(half, self.spec.block.residual_scale);
        before
    }

    /// The gradient of what half a layer gave; `None`: it is `d`.
    fn half_backward(
        &self,
        d: &B::Rows,
        before: Option<&B::Rows>,
        norm: Option<&Norm<B::Vector>>,
    ) -> Option<B::Rows> {
        let mut changed = None;
        if self.spec.block.residual_scale != 1.0 {
            let mut scaled = d.clone();
            self.scale(&mut scaled, self.spec.block.residual_scale);
            changed = Some(scaled);
        }
        if let (Some(before), Some(norm)) = (before, norm) {
            let mut d_before = self.backend.zeros(before.n_rows(), before.width());
            self.backend.norm_gradient(before, norm, changed.as_ref().unwrap_or(d), &mut d_before);
            changed = Some(d_before);
        }
        changed
    }

    /// The gradient of a layer's input, given that of its output `[n, H]`: of all rows `[N, H]`, or of some.
    fn layer_backward(
        &self,
        layer: &Layer<B>,
        (input, inner): (&B::Rows, &Inner<B>),
        d_output: B::Rows,
        call: &Call<'_, B>,
        targets: Targets<'_, B>,
    ) -> B::Rows {
        let backend = &self.backend;
        let Targets { own, d_own, d_context, only } = targets;
        let (n, n_asking, h) = (input.n_rows(), inner.middle.n_rows(), self.spec.hidden);
        let attention = &self.spec.attention;
        let parallel = self.spec.block.parallel;

        let d_mlp = self.mlp_backward(layer, inner, &d_output);
        let mut d_middle = d_output;
        if !parallel {
            self.add_norm_gradient(layer.mlp_norm(), &inner.middle, &d_mlp, &mut d_middle);
        }
        let d_half =
            self.half_backward(&d_middle, inner.attention_half.as_ref(), layer.attention_post_norm.as_ref());
        let d_half = d_half.as_ref().unwrap_or(&d_middle);
        let d_attended = backend.linear_gradient(d_half, &layer.output.weight, None);
        if parallel {
            let asked = call.asking.map(|asking| backend.select(input, asking));
            let reading = asked.as_ref().unwrap_or(input);
            self.add_norm_gradient(layer.mlp_norm(), reading, &d_mlp, &mut d_middle);
        }

        let wants_input = only.is_none_or(|rows| !rows.is_empty());
        let mut d_queries = backend.zeros(n_asking, attention.query_width());
        let mut d_own = d_own.unwrap_or_else(|| backend.zeros(n, 2 * attention.kv_width()));
        let gradient = AttentionGradient {
            queries: wants_input.then_some(&mut d_queries),
            own: wants_input.then_some(&mut d_own),
            context: d_context,
        };
        let asked = call.attention(self, &inner.queries, own);
        backend.attend_gradient(&asked, &inner.attended, &d_attended, gradient);
        if !wants_input {
            return backend.zeros(0, h);
        }

        let query_angles = self.rotary.layer(call.query_angles, call.layer);
        self.rotate(&mut d_queries, attention.query_heads, query_angles, Direction::Backward);
        self.rotate(
            &mut d_own,
            attention.kv_heads,
            self.rotary.layer(call.angles, call.layer),
            Direction::Backward,
        );
        if let (Some(norms), Some((queries, own))) = (&layer.head_norms, &inner.raw) {
            d_queries = self.norm_heads_gradient(queries, attention.query_heads, &norms.queries, d_queries);
            d_own = self.norm_heads_gradient(own, attention.kv_heads, &norms.keys, d_own);
        }
        let (mut d_input, d_queries) = match call.asking {
            None => (d_middle, d_queries),
            Some(asking) => (spread(backend, n, asking, &d_middle), spread(backend, n, asking, &d_queries)),
        };
        if let Some(only) = only {
            d_input = backend.select(&d_input, only);
            let (d_queries, d_own) = (backend.select(&d_queries, only), backend.select(&d_own, only));
            self.input_backward(layer, &backend.select(input, only), &d_queries, &d_own, &mut d_input);
        } else {
            self.input_backward(layer, input, &d_queries, &d_own, &mut d_input);
        }
        d_input
    }

    /// From the gradient after the MLP to that of what it read, as normed, `[n, H]`.
    fn mlp_backward(&self, layer: &Layer<B>, inner: &Inner<B>, d_output: &B::Rows) -> B::Rows {
        let d_half = self.half_backward(d_output, inner.mlp_half.as_ref(), layer.mlp_post_norm.as_ref());
        let d_half = d_half.as_ref().unwrap_or(d_output);
        layer.mlp.backward(&self.backend, self.spec.mlp.activation, &inner.mlp, d_half)
    }

    /// Adds the gradient that comes back through a norm, or past the place where others have one.
    fn add_norm_gradient(
        &self,
        norm: Option<&Norm<B::Vector>>,
        x: &B::Rows,
        d_normed: &B::Rows,
        dx: &mut B::Rows,
    ) {
        match norm {
            Some(norm) => self.backend.norm_gradient(x, norm, d_normed, dx),
            None => self.backend.add(dx, d_normed),
        }
    }

    /// Adds what comes back through queries, keys and values to the gradient of the rows they were made from.
    fn input_backward(
        &self,
        layer: &Layer<B>,
        input: &B::Rows,
        d_queries: &B::Rows,
        d_own: &B::Rows,
        d_input: &mut B::Rows,
    ) {
        let backend = &self.backend;
        let d_normed = backend.linear_gradient(d_queries, &layer.query.weight, None);
        let d_normed = backend.linear_gradient(d_own, &layer.key_value.weight, Some(d_normed));
        self.add_norm_gradient(layer.attention_norm.as_ref(), input, &d_normed, d_input);
    }

    fn rotate(&self, x: &mut B::Rows, n_heads: usize, angles: Option<&RotaryAngles>, direction: Direction) {
        if let Some(angles) = angles {
            self.backend.rotate(x, n_heads, self.spec.attention.head_width, angles, direction);
        }
    }

    /// (heads, width of each) that a norm of queries or keys sees.
    fn normed_heads(&self, n_heads: usize) -> (usize, usize) {
        let width = self.spec.attention.head_width;
        match self.spec.attention.head_norms {
            HeadNorms::Whole => (1, n_heads * width),
            HeadNorms::None | HeadNorms::Shared | HeadNorms::Own => (n_heads, width),
        }
    }

    fn norm_heads(&self, x: &B::Rows, n_heads: usize, norm: &Norm<B::Vector>) -> B::Rows {
        let (n_heads, width) = self.normed_heads(n_heads);
        self.backend.norm_heads(x, n_heads, width, norm)
    }

    fn norm_heads_gradient(
        &self,
        x: &B::Rows,
        n_heads: usize,
        norm: &Norm<B::Vector>,
        dy: B::Rows,
    ) -> B::Rows {
        let (n_heads, width) = self.normed_heads(n_heads);
        self.backend.norm_heads_gradient(x, n_heads, width, norm, dy)
    }

    fn scale(&self, x: &mut B::Rows, factor: f64) {
        if factor != 1.0 {
            self.backend.scale(x, factor as f32);
        }
    }
}

/// What a layer of one call is given.
struct Call<'a, B: Backend> {
    forest: &'a Forest,
    context: &'a [&'a B::Rows],
    asking: Option<&'a [usize]>,
    layer: usize,
    angles: &'a Angles,
    query_angles: &'a Angles,
}

impl<B: Backend> Call<'_, B> {
    fn attention<'b>(
        &'b self,
        backbone: &'b Backbone<B>,
        queries: &'b B::Rows,
        own: &'b B::Rows,
    ) -> Attention<'b, B::Rows> {
        Attention {
            shape: backbone.spec.attention.shape(backbone.spec.pattern[self.layer].window),
            slopes: backbone.slopes.as_deref(),
            forest: self.forest,
            asking: self.asking,
            queries,
            own,
            context: self.context,
        }
    }
}

/// Where a layer's gradients come from and go to.
struct Targets<'a, B: Backend> {
    own: &'a B::Rows,
    d_own: Option<B::Rows>,
    d_context: Vec<Option<&'a mut B::Rows>>,
    /// The input rows whose gradient is wanted; `None`: all.
    only: Option<&'a [usize]>,
}

/// `[n, W]` with the rows of `x` at `indices`, zero elsewhere.
fn spread<B: Backend>(backend: &B, n: usize, indices: &[usize], x: &B::Rows) -> B::Rows {
    let mut rows = backend.zeros(n, x.width());
    backend.assign(&mut rows, indices, x);
    rows
}
