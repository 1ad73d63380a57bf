//! One decoder, forward and backward, for every family: rows in, hidden rows and gradients of rows out.

use foreword_kernels::{
    Attended, Attention, AttentionGradient, Backend, Direction, Forest, Norm, RotaryAngles, RowBlock,
};

use crate::backbone::Backbone;
use crate::error::BackboneError;
use crate::layer::Layer;
use crate::mlp::MlpTape;
use crate::rotary::Angles;
use crate::spec::{Positions, QkNorm};

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

    /// Keys and values of `values.len() / (L·2·K·D)` rows. In a row, each layer has the keys of all heads, then the values.
    ///
    /// # Panics
    /// If that is not a whole number of rows.
    pub fn from_values(backend: &B, n_layers: usize, kv_width: usize, values: &[B::Element]) -> Self {
        let (layer_width, row_width) = (2 * kv_width, n_layers * 2 * kv_width);
        assert!(values.len().is_multiple_of(row_width), "keys and values of part of a row");
        let of_layer = |layer: usize| {
            let rows = values.chunks_exact(row_width);
            let parts = rows.flat_map(|row| &row[layer * layer_width..(layer + 1) * layer_width]);
            backend.rows(parts.copied().collect(), layer_width)
        };
        Self { layers: (0..n_layers).map(of_layer).collect() }
    }

    /// The numbers of all rows, in the order of [`KeyValues::from_values`].
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

/// The input of a forward pass.
pub struct Input<'a, B: Backend> {
    /// Embedded or learned rows, `[N, H]`.
    pub rows: B::Rows,
    /// Which row sees which.
    pub forest: &'a Forest,
    /// Keys and values of earlier calls, by context block.
    pub context: &'a [&'a KeyValues<B>],
    /// The rows whose hidden states are computed, ascending. For the others the last layer computes only keys and values.
    pub output_rows: &'a [usize],
    /// What is saved for [`Backbone::backward`].
    pub save: Save,
}

/// The activations that a forward pass saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Save {
    /// None: there is no backward pass.
    None,
    /// The input of each layer. The backward pass recomputes the rest, to the same bits (activation checkpointing).
    Checkpoint,
    /// All that the backward pass reads.
    All,
}

/// The result of a forward pass.
pub struct Output<B: Backend> {
    /// Hidden states after the final norm, `[output_rows.len(), H]`.
    pub hidden: B::Rows,
    /// Keys and values of the rows of this call.
    pub key_values: KeyValues<B>,
    /// What was saved; `None` for [`Save::None`].
    pub tape: Option<Tape<B>>,
}

/// The activations that a forward pass saved for the backward pass.
pub struct Tape<B: Backend> {
    output_rows: Vec<usize>,
    angles: Angles,
    output_angles: Angles,
    /// The rows before the embedding norm `[N, H]`, if there is one.
    embedded: Option<B::Rows>,
    layers: Vec<LayerTape<B>>,
    /// The residual stream before the final norm, `[output_rows.len(), H]`.
    last: B::Rows,
}

/// The activations of a layer.
struct LayerTape<B: Backend> {
    /// Residual stream before the layer, `[N, H]`.
    input: B::Rows,
    /// The rest; `None`: it is recomputed.
    activations: Option<Activations<B>>,
}

/// The activations inside a layer; `n` is N, in the last layer the number of output rows.
struct Activations<B: Backend> {
    /// Queries as attention reads them, `[n, Q·D]`.
    queries: B::Rows,
    /// Queries `[n, Q·D]` and keys with values `[N, 2·K·D]` before QK-norm, if there is one.
    before_qk_norm: Option<(B::Rows, B::Rows)>,
    attended: Attended<B::Rows>,
    /// Output of the attention sublayer before its post-norm `[n, H]`, if there is one.
    attention_out: Option<B::Rows>,
    /// Residual stream after attention, `[n, H]`.
    after_attention: B::Rows,
    mlp: MlpTape<B>,
    /// Output of the MLP sublayer before its post-norm `[n, H]`, if there is one.
    mlp_out: Option<B::Rows>,
}

/// The inputs and targets of a backward pass.
pub struct Gradient<'a, B: Backend> {
    /// The call's forest, as in its input.
    pub forest: &'a Forest,
    /// The call's context, as in its input.
    pub context: &'a [&'a KeyValues<B>],
    /// The call's keys and values, from its output.
    pub key_values: &'a KeyValues<B>,
    /// Gradient of the hidden states, `[output_rows.len(), H]`; `None`: zero.
    pub d_hidden: Option<B::Rows>,
    /// Gradient of the call's keys and values from later calls that saw them.
    pub d_key_values: Option<KeyValues<B>>,
    /// Gradients of the context's keys and values, which are added to; `None` for a block without learned rows.
    pub d_context: Vec<Option<&'a mut KeyValues<B>>>,
    /// The rows whose gradient is computed, ascending.
    pub gradient_rows: &'a [usize],
}

impl<B: Backend> Backbone<B> {
    /// Runs the decoder over rows.
    ///
    /// # Errors
    /// If a row's position is beyond the model's context.
    pub fn forward(&self, input: Input<'_, B>) -> Result<Output<B>, BackboneError> {
        let Input { mut rows, forest, context, output_rows, save } = input;
        let positions = forest.positions();
        self.check_positions(&positions)?;
        self.scale(&mut rows, self.spec.embedding.input_scale);
        if let (Some(table), Positions::Learned { offset }) = (&self.positions, &self.spec.positions) {
            let tokens: Vec<u32> = positions.iter().map(|&position| (position + offset) as u32).collect();
            self.backend.add(&mut rows, &self.backend.embed(table, &tokens));
        }
        let embedded = self.embedding_norm.as_ref().map(|norm| {
            let normed = self.backend.norm(&rows, norm);
            std::mem::replace(&mut rows, normed)
        });
        let angles = self.rotary.angles(&positions);
        let output_positions: Vec<usize> = output_rows.iter().map(|&row| positions[row]).collect();
        let output_angles = self.rotary.angles(&output_positions);
        let mut key_values = KeyValues { layers: Vec::with_capacity(self.layers.len()) };
        let mut tapes = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let last = i + 1 == self.layers.len();
            let query_rows = last.then_some(output_rows);
            let query_angles = if last { &output_angles } else { &angles };
            let blocks: Vec<&B::Rows> = context.iter().map(|block| block.layer(i)).collect();
            let call =
                LayerCall { forest, context: &blocks, query_rows, layer: i, angles: &angles, query_angles };
            let (output, of_layer, activations) = self.layer_forward(layer, &rows, &call);
            let input = std::mem::replace(&mut rows, output);
            key_values.layers.push(of_layer);
            match save {
                Save::None => {}
                Save::Checkpoint => tapes.push(LayerTape { input, activations: None }),
                Save::All => tapes.push(LayerTape { input, activations: Some(activations) }),
            }
        }
        let hidden = self.backend.norm(&rows, &self.final_norm);
        let tape = (save != Save::None).then(|| Tape {
            output_rows: output_rows.to_vec(),
            embedded: embedded.filter(|_| save != Save::None),
            angles,
            output_angles,
            layers: tapes,
            last: rows,
        });
        Ok(Output { hidden, key_values, tape })
    }

    /// Gradients of the learned rows, `[gradient_rows.len(), H]`, and, added in place, of the context's keys and values.
    pub fn backward(&self, tape: &Tape<B>, gradient: Gradient<'_, B>) -> B::Rows {
        let Gradient { forest, context, key_values, d_hidden, d_key_values, mut d_context, gradient_rows } =
            gradient;
        let backend = &self.backend;
        let h = self.spec.hidden;
        let mut d_rows = backend.zeros(tape.output_rows.len(), h);
        if let Some(d_hidden) = d_hidden {
            backend.norm_gradient(&tape.last, &self.final_norm, &d_hidden, &mut d_rows);
        }
        let mut d_key_values: Vec<Option<B::Rows>> = match d_key_values {
            Some(gradient) => gradient.layers.into_iter().map(Some).collect(),
            None => self.layers.iter().map(|_| None).collect(),
        };
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let last = i + 1 == self.layers.len();
            let blocks: Vec<&B::Rows> = context.iter().map(|block| block.layer(i)).collect();
            let query_angles = if last { &tape.output_angles } else { &tape.angles };
            let query_rows = last.then_some(&tape.output_rows[..]);
            let angles = &tape.angles;
            let call = LayerCall { forest, context: &blocks, query_rows, layer: i, angles, query_angles };
            let targets = Targets {
                key_values: key_values.layer(i),
                d_key_values: d_key_values[i].take(),
                d_context: d_context.iter_mut().map(|c| c.as_deref_mut().map(|c| &mut c.layers[i])).collect(),
                gradient_rows: (i == 0).then_some(gradient_rows),
            };
            let LayerTape { input, activations } = &tape.layers[i];
            let recomputed;
            let activations = match activations {
                Some(activations) => activations,
                None => {
                    recomputed = self.layer_forward(layer, input, &call).2;
                    &recomputed
                }
            };
            d_rows = self.layer_backward(layer, (input, activations), d_rows, &call, targets);
        }
        if let (Some(norm), Some(embedded)) = (&self.embedding_norm, &tape.embedded) {
            let d_normed = std::mem::replace(&mut d_rows, backend.zeros(gradient_rows.len(), h));
            backend.norm_gradient(&backend.select(embedded, gradient_rows), norm, &d_normed, &mut d_rows);
        }
        self.scale(&mut d_rows, self.spec.embedding.input_scale);
        d_rows
    }

    /// Keys and values of `n_rows` rows, or their gradients, all zero.
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

    /// One layer: the residual stream after it `[n, H]`, its keys and values `[N, 2·K·D]`, and its activations.
    fn layer_forward(
        &self,
        layer: &Layer<B>,
        input: &B::Rows,
        call: &LayerCall<'_, B>,
    ) -> (B::Rows, B::Rows, Activations<B>) {
        let backend = &self.backend;
        let attention = &self.spec.attention;
        let (normed, query_input);
        let x = match &layer.attention_norm {
            Some(norm) => {
                normed = backend.norm(input, norm);
                &normed
            }
            None => input,
        };
        let mut key_values = layer.key_value.run(backend, x);
        let (residual, mut queries) = match call.query_rows {
            Some(query_rows) => {
                query_input = backend.select(input, query_rows);
                (&query_input, layer.query.run(backend, &backend.select(x, query_rows)))
            }
            None => (input, layer.query.run(backend, x)),
        };
        let before_qk_norm = layer.qk_norms.as_ref().map(|norms| {
            let normed_queries = self.norm_heads(&queries, attention.query_heads, &norms.queries);
            let normed_keys = self.norm_heads(&key_values, attention.kv_heads, &norms.keys);
            (std::mem::replace(&mut queries, normed_queries), std::mem::replace(&mut key_values, normed_keys))
        });
        self.rotate(
            &mut key_values,
            attention.kv_heads,
            self.rotary.layer(call.angles, call.layer),
            Direction::Forward,
        );
        let query_angles = self.rotary.layer(call.query_angles, call.layer);
        self.rotate(&mut queries, attention.query_heads, query_angles, Direction::Forward);
        let attended = backend.attend(&call.attention(self, &queries, &key_values));

        let mut after_attention = layer.output.run(backend, &attended.output);
        let attention_out = self.finish_sublayer(&mut after_attention, layer.attention_post_norm.as_ref());
        backend.add(&mut after_attention, residual);
        let x = if self.spec.block.parallel { residual } else { &after_attention };
        let activation = self.spec.mlp.activation;
        let (mut output, mlp) = match layer.mlp_norm() {
            Some(norm) => layer.mlp.forward(backend, activation, &backend.norm(x, norm)),
            None => layer.mlp.forward(backend, activation, x),
        };
        let mlp_out = self.finish_sublayer(&mut output, layer.mlp_post_norm.as_ref());
        backend.add(&mut output, &after_attention);
        (
            output,
            key_values,
            Activations { queries, before_qk_norm, attended, attention_out, after_attention, mlp, mlp_out },
        )
    }

    /// Applies a sublayer's post-norm and residual scale in place; returns its output before the norm, if there is one.
    fn finish_sublayer(&self, out: &mut B::Rows, norm: Option<&Norm<B::Vector>>) -> Option<B::Rows> {
        let before = norm.map(|norm| {
            let normed = self.backend.norm(out, norm);
            std::mem::replace(out, normed)
        });
        self.scale(out, self.spec.block.residual_scale);
        before
    }

    /// The gradient of a sublayer's output before [`Self::finish_sublayer`]; `None`: it is `d`.
    fn sublayer_backward(
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

    /// The gradient of a layer's input, of all rows `[N, H]` or of some, from that of its output `[n, H]`.
    fn layer_backward(
        &self,
        layer: &Layer<B>,
        (input, activations): (&B::Rows, &Activations<B>),
        d_output: B::Rows,
        call: &LayerCall<'_, B>,
        targets: Targets<'_, B>,
    ) -> B::Rows {
        let backend = &self.backend;
        let Targets { key_values, d_key_values, d_context, gradient_rows } = targets;
        let (n, n_queries, h) = (input.n_rows(), activations.after_attention.n_rows(), self.spec.hidden);
        let attention = &self.spec.attention;
        let parallel = self.spec.block.parallel;

        let d_mlp = self.mlp_backward(layer, activations, &d_output);
        let mut d_after_attention = d_output;
        if !parallel {
            self.add_norm_gradient(
                layer.mlp_norm(),
                &activations.after_attention,
                &d_mlp,
                &mut d_after_attention,
            );
        }
        let d_out = self.sublayer_backward(
            &d_after_attention,
            activations.attention_out.as_ref(),
            layer.attention_post_norm.as_ref(),
        );
        let d_out = d_out.as_ref().unwrap_or(&d_after_attention);
        let d_attended = backend.linear_gradient(d_out, &layer.output.weight, None);
        if parallel {
            let queries_input = call.query_rows.map(|query_rows| backend.select(input, query_rows));
            let x = queries_input.as_ref().unwrap_or(input);
            self.add_norm_gradient(layer.mlp_norm(), x, &d_mlp, &mut d_after_attention);
        }

        let needs_input_gradient = gradient_rows.is_none_or(|rows| !rows.is_empty());
        let mut d_queries = backend.zeros(n_queries, attention.query_width());
        let mut d_key_values = d_key_values.unwrap_or_else(|| backend.zeros(n, 2 * attention.kv_width()));
        let gradient = AttentionGradient {
            queries: needs_input_gradient.then_some(&mut d_queries),
            key_values: needs_input_gradient.then_some(&mut d_key_values),
            context: d_context,
        };
        let attention_call = call.attention(self, &activations.queries, key_values);
        backend.attend_gradient(&attention_call, &activations.attended, &d_attended, gradient);
        if !needs_input_gradient {
            return backend.zeros(0, h);
        }

        let query_angles = self.rotary.layer(call.query_angles, call.layer);
        self.rotate(&mut d_queries, attention.query_heads, query_angles, Direction::Backward);
        self.rotate(
            &mut d_key_values,
            attention.kv_heads,
            self.rotary.layer(call.angles, call.layer),
            Direction::Backward,
        );
        if let (Some(norms), Some((queries, key_values))) = (&layer.qk_norms, &activations.before_qk_norm) {
            d_queries = self.norm_heads_gradient(queries, attention.query_heads, &norms.queries, d_queries);
            d_key_values =
                self.norm_heads_gradient(key_values, attention.kv_heads, &norms.keys, d_key_values);
        }
        let (mut d_input, d_queries) = match call.query_rows {
            None => (d_after_attention, d_queries),
            Some(query_rows) => (
                scattered(backend, n, query_rows, &d_after_attention),
                scattered(backend, n, query_rows, &d_queries),
            ),
        };
        if let Some(gradient_rows) = gradient_rows {
            d_input = backend.select(&d_input, gradient_rows);
            let (d_queries, d_key_values) =
                (backend.select(&d_queries, gradient_rows), backend.select(&d_key_values, gradient_rows));
            self.input_backward(
                layer,
                &backend.select(input, gradient_rows),
                &d_queries,
                &d_key_values,
                &mut d_input,
            );
        } else {
            self.input_backward(layer, input, &d_queries, &d_key_values, &mut d_input);
        }
        d_input
    }

    /// The gradient of the MLP's input after its norm `[n, H]`, from that of the layer's output.
    fn mlp_backward(&self, layer: &Layer<B>, activations: &Activations<B>, d_output: &B::Rows) -> B::Rows {
        let d_out =
            self.sublayer_backward(d_output, activations.mlp_out.as_ref(), layer.mlp_post_norm.as_ref());
        let d_out = d_out.as_ref().unwrap_or(d_output);
        layer.mlp.backward(&self.backend, self.spec.mlp.activation, &activations.mlp, d_out)
    }

    /// Adds the gradient that flows back through a norm, or around it if there is none.
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

    /// Adds the gradient that flows back through queries, keys and values to that of the layer's input.
    fn input_backward(
        &self,
        layer: &Layer<B>,
        input: &B::Rows,
        d_queries: &B::Rows,
        d_key_values: &B::Rows,
        d_input: &mut B::Rows,
    ) {
        let backend = &self.backend;
        let d_normed = backend.linear_gradient(d_queries, &layer.query.weight, None);
        let d_normed = backend.linear_gradient(d_key_values, &layer.key_value.weight, Some(d_normed));
        self.add_norm_gradient(layer.attention_norm.as_ref(), input, &d_normed, d_input);
    }

    fn rotate(&self, x: &mut B::Rows, n_heads: usize, angles: Option<&RotaryAngles>, direction: Direction) {
        if let Some(angles) = angles {
            self.backend.rotate(x, n_heads, self.spec.attention.head_width, angles, direction);
        }
    }

    /// (number, width) of the parts that a norm of queries or keys normalises.
    fn qk_norm_heads(&self, n_heads: usize) -> (usize, usize) {
        let width = self.spec.attention.head_width;
        match self.spec.attention.qk_norm {
            QkNorm::AllHeads => (1, n_heads * width),
            QkNorm::None | QkNorm::SharedGain | QkNorm::GainPerHead => (n_heads, width),
        }
    }

    fn norm_heads(&self, x: &B::Rows, n_heads: usize, norm: &Norm<B::Vector>) -> B::Rows {
        let (n_heads, width) = self.qk_norm_heads(n_heads);
        self.backend.norm_heads(x, n_heads, width, norm)
    }

    fn norm_heads_gradient(
        &self,
        x: &B::Rows,
        n_heads: usize,
        norm: &Norm<B::Vector>,
        dy: B::Rows,
    ) -> B::Rows {
        let (n_heads, width) = self.qk_norm_heads(n_heads);
        self.backend.norm_heads_gradient(x, n_heads, width, norm, dy)
    }

    fn scale(&self, x: &mut B::Rows, factor: f64) {
        if factor != 1.0 {
            self.backend.scale(x, factor as f32);
        }
    }
}

/// What the layers of a call share, and the call's index of the layer.
struct LayerCall<'a, B: Backend> {
    forest: &'a Forest,
    context: &'a [&'a B::Rows],
    query_rows: Option<&'a [usize]>,
    layer: usize,
    angles: &'a Angles,
    query_angles: &'a Angles,
}

impl<B: Backend> LayerCall<'_, B> {
    fn attention<'b>(
        &'b self,
        backbone: &'b Backbone<B>,
        queries: &'b B::Rows,
        key_values: &'b B::Rows,
    ) -> Attention<'b, B::Rows> {
        Attention {
            shape: backbone.spec.attention.shape(backbone.spec.pattern[self.layer].window),
            slopes: backbone.slopes.as_deref(),
            forest: self.forest,
            query_rows: self.query_rows,
            queries,
            key_values,
            context: self.context,
        }
    }
}

/// The gradients of a layer's keys and values, and their targets.
struct Targets<'a, B: Backend> {
    key_values: &'a B::Rows,
    d_key_values: Option<B::Rows>,
    d_context: Vec<Option<&'a mut B::Rows>>,
    /// The input rows whose gradient is computed; `None`: all.
    gradient_rows: Option<&'a [usize]>,
}

/// `[n, W]` with the rows of `x` at `indices`, zero elsewhere.
fn scattered<B: Backend>(backend: &B, n: usize, indices: &[usize], x: &B::Rows) -> B::Rows {
    let mut rows = backend.zeros(n, x.width());
    backend.assign(&mut rows, indices, x);
    rows
}
