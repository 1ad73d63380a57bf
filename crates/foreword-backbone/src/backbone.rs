//! A frozen model on a backend: loaded once, immutable after.

use foreword_kernels::{Backend, Norm, NormKind, Token, Weights};

use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::families::{self, Names, Qkv};
use crate::files::ModelFiles;
use crate::identity::Identity;
use crate::rotary::Rotary;
use crate::spec::{Positions, Spec};
use crate::tensors::Tensors;

/// A frozen decoder. Nothing in it changes after loading, and no gradient of a weight can be formed.
pub struct Backbone<B: Backend> {
    pub(crate) backend: B,
    pub(crate) spec: Spec,
    pub(crate) embeddings: B::Matrix,
    pub(crate) positions: Option<B::Matrix>,
    pub(crate) rotary: Option<Rotary>,
    pub(crate) layers: Vec<Layer<B>>,
    pub(crate) final_norm: Norm<B::Vector>,
    /// `None`: the embedding table.
    head: Option<B::Matrix>,
    table: Weights,
    identity: Identity,
    embedding_rms: f64,
    weight_bytes: u64,
}

/// A frozen projection.
pub(crate) struct Linear<B: Backend> {
    pub(crate) weight: B::Matrix,
    pub(crate) bias: Option<B::Vector>,
}

impl<B: Backend> Linear<B> {
    /// `[N, in]` to `[N, out]`.
    pub(crate) fn run(&self, backend: &B, x: &B::Rows) -> B::Rows {
        backend.linear(x, &self.weight, self.bias.as_ref())
    }
}

/// A frozen layer, in the one layout that the decoder knows.
pub(crate) struct Layer<B: Backend> {
    pub(crate) attention_norm: Norm<B::Vector>,
    /// `[H]` to `[Q·D]`.
    pub(crate) query: Linear<B>,
    /// `[H]` to `[2·K·D]`: keys, then values.
    pub(crate) key_value: Linear<B>,
    /// `[Q·D]` to `[H]`.
    pub(crate) output: Linear<B>,
    pub(crate) mlp_norm: Norm<B::Vector>,
    /// `[H]` to `[2·I]` (gates, then values) or `[I]`.
    pub(crate) up: Linear<B>,
    /// `[I]` to `[H]`.
    pub(crate) down: Linear<B>,
}

impl<B: Backend> std::fmt::Debug for Backbone<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backbone").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl<B: Backend> Backbone<B> {
    /// Reads `config.json` and the weights. Weights stay where they are mapped, in their own format.
    ///
    /// # Errors
    /// If the architecture or a key of its configuration is not understood, or a tensor is missing, misshapen, damaged
    /// or left over.
    pub fn load(files: &ModelFiles, backend: B) -> Result<Self, BackboneError> {
        let config = HfConfig::parse(&files.config)?;
        let family = families::find(&config)?;
        let spec = (family.spec)(&config)?;
        config.finish()?;
        let names = &family.names;
        let tensors = Tensors::read(&files.weights, names)?;
        let mut loader = Loader { backend: &backend, spec: &spec, names, tensors };
        let table =
            loader.tensors.matrix(&format!("{}.weight", names.embeddings), spec.vocab, spec.hidden)?;
        let positions = match spec.positions {
            Positions::Rotary { .. } => None,
            Positions::Learned => {
                let name = format!("{}.weight", names.positions);
                Some(backend.matrix(vec![loader.tensors.matrix(&name, spec.context, spec.hidden)?]))
            }
        };
        let layers = (0..spec.layers).map(|i| loader.layer(i)).collect::<Result<_, _>>()?;
        let final_norm = loader.norm(names.final_norm)?;
        let head_name = format!("{}.weight", names.head);
        let mut without_use = names.no_weights.to_vec();
        let head = if spec.tied_head {
            // Some files store the table a second time. Another head than the table is a contradiction: which of the two
            // counts differs from one version of transformers to the next.
            if loader.tensors.differs(&head_name, &table) {
                return Err(BackboneError::UntiedHead { name: head_name });
            }
            without_use.push(&head_name);
            None
        } else {
            Some(backend.matrix(vec![loader.tensors.matrix(&head_name, spec.vocab, spec.hidden)?]))
        };
        let weight_bytes = loader.tensors.n_bytes();
        loader.tensors.finish(family.model_type, &without_use)?;
        let embeddings = backend.matrix(vec![table.clone()]);
        let rotary = Rotary::of(&spec);
        let (identity, embedding_rms) = Identity::of(&files.name, &spec, &table);
        Ok(Self {
            backend,
            spec,
            embeddings,
            positions,
            rotary,
            layers,
            final_norm,
            head,
            table,
            identity,
            embedding_rms,
            weight_bytes,
        })
    }

    /// What the decoder is.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Bytes of all weights in their stored format.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Where it runs.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// What a soft prompt's file remembers of this model.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Root mean square of all numbers of the embedding table: the scale on which learned rows live.
    #[must_use]
    pub fn embedding_rms(&self) -> f64 {
        self.embedding_rms
    }

    /// The embedding table as stored, `[V, H]`.
    #[must_use]
    pub fn table(&self) -> &Weights {
        &self.table
    }

    /// Embeddings of tokens, `[N, H]`: the place where learned rows enter.
    ///
    /// # Panics
    /// If a token is not below V.
    pub fn embed(&self, tokens: &[Token]) -> B::Rows {
        self.backend.embed(&self.embeddings, tokens)
    }

    /// The frozen matrix `[V, H]` that turns hidden rows into logits.
    #[must_use]
    pub fn head(&self) -> &B::Matrix {
        self.head.as_ref().unwrap_or(&self.embeddings)
    }

    /// Logits of hidden rows over the whole vocabulary: `[N, H]` to `[N, V]`.
    pub fn logits(&self, hidden: &B::Rows) -> B::Rows {
        self.backend.linear(hidden, self.head(), None)
    }
}

/// Takes the tensors of a family into the one layout.
struct Loader<'a, B: Backend> {
    backend: &'a B,
    spec: &'a Spec,
    names: &'a Names,
    tensors: Tensors,
}

impl<B: Backend> Loader<'_, B> {
    fn layer(&mut self, i: usize) -> Result<Layer<B>, BackboneError> {
        let (spec, names) = (self.spec, self.names);
        let shape = spec.attention.shape();
        let (h, q, kv) = (spec.hidden, shape.query_width(), shape.kv_width());
        let prefix = names.layer.replace("{}", &i.to_string());
        let at = |name: &str| format!("{prefix}{name}");
        let (query, key_value) = match names.qkv {
            Qkv::Separate(parts) => {
                let bias = spec.attention.qkv_bias;
                let query = self.parts(&[at(parts[0])], q, h, bias)?;
                (query, self.parts(&[at(parts[1]), at(parts[2])], kv, h, bias)?)
            }
            Qkv::Fused(name) => {
                let (weight, bias) = self.part(&at(name), q + 2 * kv, h, spec.attention.qkv_bias)?;
                let cut = |range: std::ops::Range<usize>| {
                    let bias = bias.as_ref().map(|bias| self.backend.vector(&bias[range.clone()]));
                    Linear { weight: self.backend.matrix(vec![weight.row_range(range)]), bias }
                };
                (cut(0..q), cut(q..q + 2 * kv))
            }
        };
        let up: Vec<String> = names.up.iter().map(|name| at(name)).collect();
        Ok(Layer {
            attention_norm: self.norm(&at(names.attention_norm))?,
            query,
            key_value,
            output: self.parts(&[at(names.output)], h, q, spec.attention.output_bias)?,
            mlp_norm: self.norm(&at(names.mlp_norm))?,
            up: self.parts(&up, spec.mlp.intermediate, h, spec.mlp.bias)?,
            down: self.parts(&[at(names.down)], h, spec.mlp.intermediate, spec.mlp.bias)?,
        })
    }

    /// Projections of `out` outputs each, stacked.
    fn parts(
        &mut self,
        names: &[String],
        out: usize,
        input: usize,
        bias: bool,
    ) -> Result<Linear<B>, BackboneError> {
        let parts =
            names.iter().map(|name| self.part(name, out, input, bias)).collect::<Result<Vec<_>, _>>()?;
        let biases: Vec<f32> = parts.iter().flat_map(|(_, bias)| bias.iter().flatten().copied()).collect();
        let weight = self.backend.matrix(parts.into_iter().map(|(weight, _)| weight).collect());
        Ok(Linear { weight, bias: bias.then(|| self.backend.vector(&biases)) })
    }

    fn part(
        &mut self,
        name: &str,
        out: usize,
        input: usize,
        bias: bool,
    ) -> Result<(Weights, Option<Vec<f32>>), BackboneError> {
        let weight = format!("{name}.weight");
        let weight = if self.names.transposed && !self.tensors.is_output_first() {
            self.tensors.matrix(&weight, input, out)?.transposed()
        } else {
            self.tensors.matrix(&weight, out, input)?
        };
        let bias = if bias { Some(self.tensors.vector(&format!("{name}.bias"), out)?) } else { None };
        Ok((weight, bias))
    }

    fn norm(&mut self, name: &str) -> Result<Norm<B::Vector>, BackboneError> {
        let h = self.spec.hidden;
        let gain = self.backend.vector(&self.tensors.vector(&format!("{name}.weight"), h)?);
        let bias = match self.spec.norm {
            NormKind::Rms { .. } => None,
            NormKind::Layer { .. } => {
                Some(self.backend.vector(&self.tensors.vector(&format!("{name}.bias"), h)?))
            }
        };
        Ok(Norm { kind: self.spec.norm, gain, bias })
    }
}
