//! One decoder, forward and backward, for every family: rows in, hidden rows and gradients of rows out.

use foreword_kernels::{
    Attended, Attention, AttentionGradient, Backend, Direction, Forest, RotaryAngles, RowBlock,
};

use crate::backbone::{Backbone, Layer};
use crate::error::BackboneError;

/// Keys and values of the rows of one call, or their gradients: per layer `[N, 2·K·D]`.
#[derive(Clone)]
pub struct KeyValues<B: Backend> {
    layers: Vec<B::Rows>,
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
    angles: Option<RotaryAngles>,
    wanted_angles: Option<RotaryAngles>,
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
    /// Rotated queries, `[n, Q·D]`.
    queries: B::Rows,
    attended: Attended<B::Rows>,
    /// Residual stream after attention, `[n, H]`.
    middle: B::Rows,
    /// Inside the MLP, before its non-linear part, `[n, 2·I]` or `[n, I]`.
    up: B::Rows,
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
        if let Some(table) = &self.positions {
            let tokens: Vec<u32> = positions.iter().map(|&position| position as u32).collect();
            self.backend.add(&mut rows, &self.backend.embed(table, &tokens));
        }
        let angles = self.rotary.as_ref().map(|rotary| rotary.angles(&positions));
        let at_wanted: Vec<usize> = wanted.iter().map(|&row| positions[row]).collect();
        let wanted_angles = self.rotary.as_ref().map(|rotary| rotary.angles(&at_wanted));
        let mut key_values = KeyValues { layers: Vec::with_capacity(self.layers.len()) };
        let mut tapes = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let last = i + 1 == self.layers.len();
            let asking = last.then_some(wanted);
            let query_angles = if last { &wanted_angles } else { &angles };
            let blocks: Vec<&B::Rows> = context.iter().map(|block| block.layer(i)).collect();
            let call = Call { forest, context: &blocks, asking, angles: &angles, query_angles };
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
            let call = Call { forest, context: &blocks, asking, angles: &tape.angles, query_angles };
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
        d_rows
    }

    /// Keys and values, or gradients of them, of `n_rows` rows, all zero: to be added or assigned to.
    pub fn zero_key_values(&self, n_rows: usize) -> KeyValues<B> {
        let width = 2 * self.spec.attention.shape().kv_width();
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
        let normed = backend.norm(input, &layer.attention_norm);
        let mut own = layer.key_value.run(backend, &normed);
        self.rotate(&mut own, attention.kv_heads, call.angles, Direction::Forward);
        let mut queries = match call.asking {
            Some(asking) => layer.query.run(backend, &backend.select(&normed, asking)),
            None => layer.query.run(backend, &normed),
        };
        self.rotate(&mut queries, attention.query_heads, call.query_angles, Direction::Forward);
        let attended = backend.attend(&call.attention(self, &queries, &own));
        let mut middle = layer.output.run(backend, &attended.output);
        match call.asking {
            Some(asking) => backend.add(&mut middle, &backend.select(input, asking)),
            None => backend.add(&mut middle, input),
        }
        let up = layer.up.run(backend, &backend.norm(&middle, &layer.mlp_norm));
        let mut output = layer.down.run(backend, &backend.activate(&up, self.spec.mlp.activation));
        backend.add(&mut output, &middle);
        (output, own, Inner { queries, attended, middle, up })
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
        let shape = self.spec.attention.shape();

        let d_middle = self.mlp_backward(layer, inner, d_output);
        let mut d_attended = backend.zeros(n_asking, shape.query_width());
        backend.linear_gradient(&d_middle, &layer.output.weight, &mut d_attended);

        let wants_input = only.is_none_or(|rows| !rows.is_empty());
        let mut d_queries = backend.zeros(n_asking, shape.query_width());
        let mut d_own = d_own.unwrap_or_else(|| backend.zeros(n, 2 * shape.kv_width()));
        let gradient = AttentionGradient {
            queries: wants_input.then_some(&mut d_queries),
            own: wants_input.then_some(&mut d_own),
            context: d_context,
        };
        let attention = call.attention(self, &inner.queries, own);
        backend.attend_gradient(&attention, &inner.attended, &d_attended, gradient);
        if !wants_input {
            return backend.zeros(0, h);
        }

        self.rotate(&mut d_queries, self.spec.attention.query_heads, call.query_angles, Direction::Backward);
        self.rotate(&mut d_own, self.spec.attention.kv_heads, call.angles, Direction::Backward);
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

    /// From the gradient after the MLP to the one before it.
    fn mlp_backward(&self, layer: &Layer<B>, inner: &Inner<B>, d_output: B::Rows) -> B::Rows {
        let backend = &self.backend;
        let n = inner.middle.n_rows();
        let mut d_activated = backend.zeros(n, self.spec.mlp.intermediate);
        backend.linear_gradient(&d_output, &layer.down.weight, &mut d_activated);
        let d_up = backend.activate_gradient(&inner.up, self.spec.mlp.activation, &d_activated);
        let mut d_normed = backend.zeros(n, self.spec.hidden);
        backend.linear_gradient(&d_up, &layer.up.weight, &mut d_normed);
        let mut d_middle = d_output;
        backend.norm_gradient(&inner.middle, &layer.mlp_norm, &d_normed, &mut d_middle);
        d_middle
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
        let mut d_normed = backend.zeros(input.n_rows(), self.spec.hidden);
        backend.linear_gradient(d_queries, &layer.query.weight, &mut d_normed);
        backend.linear_gradient(d_own, &layer.key_value.weight, &mut d_normed);
        backend.norm_gradient(input, &layer.attention_norm, &d_normed, d_input);
    }

    fn rotate(&self, x: &mut B::Rows, n_heads: usize, angles: &Option<RotaryAngles>, direction: Direction) {
        if let Some(angles) = angles {
            self.backend.rotate(x, n_heads, self.spec.attention.head_width, angles, direction);
        }
    }
}

/// What the layers of one call share.
struct Call<'a, B: Backend> {
    forest: &'a Forest,
    context: &'a [&'a B::Rows],
    asking: Option<&'a [usize]>,
    angles: &'a Option<RotaryAngles>,
    query_angles: &'a Option<RotaryAngles>,
}

impl<B: Backend> Call<'_, B> {
    fn attention<'b>(
        &'b self,
        backbone: &Backbone<B>,
        queries: &'b B::Rows,
        own: &'b B::Rows,
    ) -> Attention<'b, B::Rows> {
        Attention {
            shape: backbone.spec.attention.shape(),
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
