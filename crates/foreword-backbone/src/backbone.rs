//! A frozen model on a backend: loaded once, immutable after.

use std::sync::OnceLock;

use foreword_kernels::{Backend, Cpu, Element, Head, HeadOf, Norm, Token, Weights};

use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::families::{self, Family};
use crate::files::ModelFiles;
use crate::gguf::is_gguf;
use crate::identity::Identity;
use crate::layer::Layer;
use crate::loader::Loader;
use crate::notice::Notice;
use crate::rotary::{Rotary, alibi_slopes};
use crate::spec::{Positions, Spec};
use crate::tensors::Tensors;

/// A frozen decoder. Nothing in it changes after loading, and no gradient of a weight can be formed.
pub struct Backbone<B: Backend> {
    pub(crate) backend: B,
    pub(crate) spec: Spec,
    embedding_table: B::Matrix,
    pub(crate) positions: Option<B::Matrix>,
    pub(crate) embedding_norm: Option<Norm<B::Vector>>,
    pub(crate) rotary: Rotary,
    /// ALiBi's slope of each head.
    pub(crate) slopes: Option<Vec<f32>>,
    pub(crate) layers: Vec<Layer<B>>,
    pub(crate) final_norm: Norm<B::Vector>,
    /// `None`: it is the embedding table.
    head: Option<B::Matrix>,
    head_bias: Option<B::Vector>,
    /// Of tensors that were left out.
    pub(crate) notice: Option<Notice>,
    embeddings: Embeddings,
    name: String,
    ignored_config_keys: Vec<String>,
    /// With the root mean square of the table, in the same pass, which takes a good part of what loading takes: on demand.
    identity: OnceLock<(Identity, f64)>,
    weight_bytes: u64,
}

/// The embedding table in host memory, with its scale.
#[derive(Clone, Debug)]
pub struct Embeddings {
    table: Weights,
    scale: f32,
}

impl Embeddings {
    /// V.
    #[must_use]
    pub fn n(&self) -> usize {
        self.table.rows()
    }

    /// H.
    #[must_use]
    pub fn width(&self) -> usize {
        self.table.cols()
    }

    /// E(token), `[H]`.
    ///
    /// # Panics
    /// If the token is not below V.
    pub fn read(&self, token: Token, to: &mut [f32]) {
        self.table.read(token as usize, 0..self.table.cols(), to);
        if self.scale != 1.0 {
            to.iter_mut().for_each(|value| *value *= self.scale);
        }
    }

    /// The table as stored, `[V, H]`.
    #[must_use]
    pub fn table(&self) -> &Weights {
        &self.table
    }
}

/// The family of a model, and its Spec.
pub(crate) fn read_model_config(files: &ModelFiles) -> Result<(&'static Family, Spec), BackboneError> {
    read_config(&files.config).map_err(|error| match (error, &files.weights[..]) {
        // The configuration was made from the metadata of this file.
        (BackboneError::UnknownKeys { keys, .. }, [(file, bytes), ..]) if is_gguf(bytes) => {
            BackboneError::UnknownKeys { file: file.clone(), keys }
        }
        (error, _) => error,
    })
}

/// The family of a `config.json`, and its Spec.
pub(crate) fn read_config(bytes: &[u8]) -> Result<(&'static Family, Spec), BackboneError> {
    let config = HfConfig::parse(bytes)?;
    let family = families::find(&config)?;
    config.check_unquantised()?;
    let spec = (family.spec)(&config)?;
    config.finish()?;
    Ok((family, spec))
}

/// The loaded tensors of a model.
struct Loaded<B: Backend> {
    table: Weights,
    positions: Option<B::Matrix>,
    embedding_norm: Option<Norm<B::Vector>>,
    layers: Vec<Layer<B>>,
    final_norm: Norm<B::Vector>,
    head: Option<B::Matrix>,
    head_bias: Option<B::Vector>,
    notice: Option<Notice>,
    weight_bytes: u64,
}

impl<B: Backend> Loaded<B> {
    /// Takes every tensor by name and shape; none may remain.
    fn take(family: &Family, spec: &Spec, backend: &B, tensors: Tensors) -> Result<Self, BackboneError> {
        let names = &tensors.as_stored(&(family.names)(spec));
        let mut loader = Loader { backend, spec, names, tensors };
        let table = loader.table()?;
        let positions = match spec.positions {
            Positions::Rotary | Positions::Alibi => None,
            Positions::Learned { offset } => Some(loader.positions(offset)?),
        };
        let embedding_norm =
            if spec.embedding.norm { Some(loader.norm(names.embedding_norm, 1.0)?) } else { None };
        let layers = (0..spec.layers).map(|i| loader.layer(i)).collect::<Result<_, _>>()?;
        let final_norm = loader.norm(names.final_norm, spec.head.scale)?;
        let (head, head_bias) = loader.head(&table)?;
        let weight_bytes = loader.tensors.n_bytes();
        let notice = loader.finish(family.model_type)?;
        Ok(Self {
            table,
            positions,
            embedding_norm,
            layers,
            final_norm,
            head,
            head_bias,
            notice,
            weight_bytes,
        })
    }
}

/// Checks the weights against a configuration by their headers; no number is read.
pub(crate) fn check_headers(
    family: &Family,
    spec: &Spec,
    files: &ModelFiles,
) -> Result<Option<Notice>, BackboneError> {
    let tensors = Tensors::read(files, &(family.names)(spec))?.headers_only();
    // The CPU backend keeps matrices where they are mapped.
    let backend = Cpu::new(1)?;
    Loaded::take(family, spec, &backend, tensors).map(|loaded| loaded.notice)
}

impl<B: Backend> std::fmt::Debug for Backbone<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backbone").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl<B: Backend> Backbone<B> {
    /// Reads `config.json` and the weights, which stay mapped in their own format.
    ///
    /// # Errors
    /// If the architecture or a key of its configuration is not supported, or a tensor is missing, misshapen, damaged or unused.
    pub fn load(files: &ModelFiles, backend: B) -> Result<Self, BackboneError> {
        let (family, spec) = read_model_config(files)?;
        let names = (family.names)(&spec);
        let tensors = Tensors::read(files, &names)?;
        let loaded = Loaded::take(family, &spec, &backend, tensors)?;
        let Loaded { table, positions, embedding_norm, layers, final_norm, head, head_bias, .. } = loaded;
        let scale = spec.embedding.scale;
        Ok(Self {
            embedding_table: backend.matrix(vec![table.clone()]),
            positions,
            embedding_norm,
            rotary: Rotary::of(&spec),
            slopes: (spec.positions == Positions::Alibi).then(|| alibi_slopes(spec.attention.query_heads)),
            layers,
            final_norm,
            head,
            head_bias,
            notice: loaded.notice,
            embeddings: Embeddings { table, scale: scale as f32 },
            name: files.name.clone(),
            ignored_config_keys: files.ignored_config_keys.clone(),
            identity: OnceLock::new(),
            weight_bytes: loaded.weight_bytes,
            backend,
            spec,
        })
    }

    /// The description of the decoder.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Bytes of all weights in their stored format.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Its backend.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The model's name; only for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The identity that a soft prompt's file records of this model. The first call reads the whole embedding table.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identified().0
    }

    /// Root mean square of all numbers of the embedding table: the scale on which learned rows live. The first call reads it.
    #[must_use]
    pub fn embedding_rms(&self) -> f64 {
        self.identified().1 * self.spec.embedding.scale
    }

    fn identified(&self) -> &(Identity, f64) {
        if let Some(known) = self.identity.get() {
            return known;
        }
        // Outside of the lock: while it waits for its other half, this thread may take work that asks for the same.
        let identity =
            Identity::of(&self.name, &self.ignored_config_keys, &self.spec, &self.embeddings.table);
        self.identity.get_or_init(|| identity)
    }

    /// The embedding table.
    #[must_use]
    pub fn embeddings(&self) -> &Embeddings {
        &self.embeddings
    }

    /// Embeddings of tokens, `[N, H]`, as rows for [`Backbone::forward`].
    ///
    /// # Panics
    /// If a token is not below V.
    pub fn embed(&self, tokens: &[Token]) -> B::Rows {
        let mut rows = self.backend.embed(&self.embedding_table, tokens);
        if self.spec.embedding.scale != 1.0 {
            self.backend.scale(&mut rows, self.spec.embedding.scale as f32);
        }
        rows
    }

    /// The output layer.
    #[must_use]
    pub fn head(&self) -> HeadOf<'_, B> {
        let weight = self.head.as_ref().unwrap_or(&self.embedding_table);
        Head { weight, bias: self.head_bias.as_ref(), soft_cap: self.spec.head.soft_cap }
    }

    /// Logits of hidden rows `[N, H]` over the whole vocabulary, `[N · V]`.
    pub fn logits(&self, hidden: &B::Rows) -> Vec<B::Element> {
        let head = self.head();
        let mut logits = self.backend.values(&self.backend.linear(hidden, head.weight, head.bias));
        if let Some(cap) = head.soft_cap {
            for logit in &mut logits {
                *logit = B::Element::of_f64(cap * (logit.as_f64() / cap).tanh());
            }
        }
        logits
    }
}
