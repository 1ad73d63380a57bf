//! Takes the tensors of a family into the decoder's layout.

use std::iter::once;
use std::ops::Range;

use foreword_kernels::{Backend, Norm, Weights};

use crate::error::BackboneError;
use crate::families::{Names, Qkv};
use crate::layer::{Layer, QkNorms};
use crate::linear::Linear;
use crate::mlp::{Expert, Mlp};
use crate::notice::Notice;
use crate::spec::{Mixture, Norms, QkNorm, Spec};
use crate::tensors::Tensors;

/// A projection as stored: its weight `[out, in]`, and its bias `[out]`.
type Projection = (Weights, Option<Vec<f32>>);

/// The head's matrix, unless it is the embedding table, and its bias.
pub(crate) type SeparateHead<B> = (Option<<B as Backend>::Matrix>, Option<<B as Backend>::Vector>);

/// Takes tensors by the names of a family.
pub(crate) struct Loader<'a, B: Backend> {
    pub(crate) backend: &'a B,
    pub(crate) spec: &'a Spec,
    pub(crate) names: &'a Names,
    pub(crate) tensors: Tensors,
}

impl<B: Backend> Loader<'_, B> {
    /// The embedding table, `[V, H]`.
    pub(crate) fn table(&mut self) -> Result<Weights, BackboneError> {
        let name = format!("{}.weight", self.names.embeddings);
        self.tensors.matrix(&name, self.spec.vocab, self.spec.hidden)
    }

    /// Learned positions, `[offset + context, H]`.
    pub(crate) fn positions(&mut self, offset: usize) -> Result<B::Matrix, BackboneError> {
        let name = format!("{}.weight", self.names.positions);
        let table = self.tensors.matrix(&name, offset + self.spec.context, self.spec.hidden)?;
        Ok(self.backend.matrix(vec![table]))
    }

    /// The head's matrix, unless it is the table, and its bias, if it has one.
    pub(crate) fn head(&mut self, table: &Weights) -> Result<SeparateHead<B>, BackboneError> {
        let (spec, head) = (self.spec, self.head_name());
        let name = format!("{head}.weight");
        let bias = if spec.head.bias {
            let bias = self.tensors.vector(&format!("{head}.bias"), spec.vocab)?;
            Some(self.backend.vector(&bias))
        } else {
            None
        };
        if !spec.head.tied {
            if let (false, Some(other)) = (self.tensors.has(&name), self.tensors.extra_head()) {
                return Err(BackboneError::NoLanguageHead { head: name, other: other.clone() });
            }
            let head = self.tensors.matrix(&name, spec.vocab, spec.hidden)?;
            return Ok((Some(self.backend.matrix(vec![head])), bias));
        }
        // Some files store the table a second time. A head that differs from the table is a contradiction, which versions of
        // transformers resolve in different ways.
        if self.tensors.differs(&name, table) {
            return Err(BackboneError::UntiedHead { name });
        }
        Ok((None, bias))
    }

    /// The head's name in the file.
    fn head_name(&self) -> &'static str {
        let has = |name: &&&str| self.tensors.has(&format!("{name}.weight"));
        self.names.heads.iter().find(has).unwrap_or(&self.names.heads[0])
    }

    /// Fails if a tensor remains, other than those known to hold no weights, the table's second copy, and those of which the
    /// notice tells.
    pub(crate) fn finish(self, family: &str) -> Result<Option<Notice>, BackboneError> {
        let head = format!("{}.weight", self.head_name());
        let mut ignored = self.names.no_weights.to_vec();
        if self.spec.head.tied {
            ignored.push(&head);
        }
        self.tensors.finish((family, self.names), &ignored)
    }

    pub(crate) fn layer(&mut self, i: usize) -> Result<Layer<B>, BackboneError> {
        let (spec, names) = (self.spec, self.names);
        let attention = &spec.attention;
        let (h, q) = (spec.hidden, attention.query_width());
        let prefix = names.layer.replace("{}", &i.to_string());
        let at = |name: &str| format!("{prefix}{name}");
        let (query, key_value) = self.queries_keys_values(&at)?;
        let norms = spec.block.norms;
        Ok(Layer {
            attention_norm: self.norm_if(norms.has_pre(), &at(names.attention_norm))?,
            query,
            key_value,
            qk_norms: self.qk_norms(&at)?,
            output: self.stacked(&[at(names.output)], h, q, attention.output_bias)?,
            attention_post_norm: self.norm_if(norms.has_post(), &at(names.attention_post_norm))?,
            mlp_pre_norm: self.norm_if(norms.has_pre() && norms != Norms::SharedPre, &at(names.mlp_norm))?,
            mlp: self.mlp(&at)?,
            mlp_post_norm: self.norm_if(norms.has_post(), &at(names.mlp_post_norm))?,
        })
    }

    fn mlp(&mut self, at: &impl Fn(&str) -> String) -> Result<Mlp<B>, BackboneError> {
        let names = self.names;
        let Some(Mixture { n, top_k, normalized }) = self.spec.mlp.mixture else {
            return Ok(Mlp::Dense(self.expert(names.up, names.down, at)?));
        };
        let router = self.stacked(&[at(names.experts.router)], n, self.spec.hidden, false)?;
        let expert = |i: usize| {
            let prefix = names.experts.prefix.replace("{}", &i.to_string());
            self.expert(names.experts.up, names.experts.down, &|name| at(&format!("{prefix}{name}")))
        };
        let experts = (0..n).map(expert).collect::<Result<_, _>>()?;
        Ok(Mlp::Mixture(crate::mlp::Mixture { router, experts, top_k, normalized }))
    }

    fn expert(
        &mut self,
        up: &[&str],
        down: &str,
        at: &dyn Fn(&str) -> String,
    ) -> Result<Expert<B>, BackboneError> {
        let (h, mlp) = (self.spec.hidden, &self.spec.mlp);
        let up: Vec<String> = up.iter().map(|name| at(name)).collect();
        // A single projection of a gated MLP yields gates and values.
        let width = if mlp.activation.gated { 2 * mlp.intermediate / up.len() } else { mlp.intermediate };
        Ok(Expert {
            up: self.stacked(&up, width, h, mlp.bias)?,
            down: self.stacked(&[at(down)], h, mlp.intermediate, mlp.bias)?,
        })
    }

    fn queries_keys_values(
        &mut self,
        at: &impl Fn(&str) -> String,
    ) -> Result<(Linear<B>, Linear<B>), BackboneError> {
        let attention = &self.spec.attention;
        let (h, q, kv, bias) =
            (self.spec.hidden, attention.query_width(), attention.kv_width(), attention.qkv_bias);
        match self.names.qkv {
            Qkv::Separate(stacked) => {
                let query = self.stacked(&[at(stacked[0])], q, h, bias)?;
                Ok((query, self.stacked(&[at(stacked[1]), at(stacked[2])], kv, h, bias)?))
            }
            Qkv::Fused(name) => {
                let projection = self.projection(&at(name), q + 2 * kv, h, bias)?;
                Ok((
                    self.slice_outputs(&projection, once(0..q)),
                    self.slice_outputs(&projection, once(q..q + 2 * kv)),
                ))
            }
            Qkv::Grouped(name) => {
                let projection = self.projection(&at(name), q + 2 * kv, h, bias)?;
                let d = attention.head_width;
                let n = attention.query_heads / attention.kv_heads;
                let group = |i: usize, first: usize, heads: usize| {
                    let start = (i * (n + 2) + first) * d;
                    start..start + heads * d
                };
                let queries = (0..attention.kv_heads).map(|i| group(i, 0, n));
                let keys = (0..attention.kv_heads).map(|i| group(i, n, 1));
                let values = (0..attention.kv_heads).map(|i| group(i, n + 1, 1));
                Ok((
                    self.slice_outputs(&projection, queries),
                    self.slice_outputs(&projection, keys.chain(values)),
                ))
            }
        }
    }

    /// Some outputs of a projection, the ranges concatenated.
    fn slice_outputs(
        &self,
        (weight, bias): &Projection,
        ranges: impl IntoIterator<Item = Range<usize>>,
    ) -> Linear<B> {
        let (mut blocks, mut biases) = (Vec::new(), Vec::new());
        for range in ranges {
            biases.extend(bias.iter().flat_map(|bias| &bias[range.clone()]));
            blocks.push(weight.row_range(range));
        }
        let bias = bias.as_ref().map(|_| self.backend.vector(&biases));
        Linear { weight: self.backend.matrix(blocks), bias }
    }

    /// Projections of `out` outputs each, stacked.
    fn stacked(
        &mut self,
        names: &[String],
        out: usize,
        input: usize,
        bias: bool,
    ) -> Result<Linear<B>, BackboneError> {
        let stacked = names
            .iter()
            .map(|name| self.projection(name, out, input, bias))
            .collect::<Result<Vec<_>, _>>()?;
        let biases: Vec<f32> = stacked.iter().flat_map(|(_, bias)| bias.iter().flatten().copied()).collect();
        let weight = self.backend.matrix(stacked.into_iter().map(|(weight, _)| weight).collect());
        Ok(Linear { weight, bias: bias.then(|| self.backend.vector(&biases)) })
    }

    fn projection(
        &mut self,
        name: &str,
        out: usize,
        input: usize,
        bias: bool,
    ) -> Result<Projection, BackboneError> {
        let weight = format!("{name}.weight");
        let weight = if self.names.transposed {
            self.tensors.matrix(&weight, input, out)?.transposed()
        } else {
            self.tensors.matrix(&weight, out, input)?
        };
        let bias = if bias { Some(self.tensors.vector(&format!("{name}.bias"), out)?) } else { None };
        Ok((weight, bias))
    }

    fn qk_norms(&mut self, at: &impl Fn(&str) -> String) -> Result<Option<QkNorms<B>>, BackboneError> {
        let attention = &self.spec.attention;
        if attention.qk_norm == QkNorm::None {
            return Ok(None);
        }
        let names = self.names;
        let (queries, keys) = (attention.query_heads, attention.kv_heads);
        Ok(Some(QkNorms {
            queries: self.qk_norm_of(&at(names.query_norm), queries)?,
            keys: self.qk_norm_of(&at(names.key_norm), keys)?,
        }))
    }

    /// The norm of query or key heads, with its gain repeated for each of them. No family gives it a bias.
    fn qk_norm_of(&mut self, name: &str, n_heads: usize) -> Result<Norm<B::Vector>, BackboneError> {
        let width = self.spec.attention.head_width;
        let gain = match self.spec.attention.qk_norm {
            QkNorm::None | QkNorm::SharedGain => {
                self.tensors.vector(&format!("{name}.weight"), width)?.repeat(n_heads)
            }
            QkNorm::AllHeads => self.tensors.vector(&format!("{name}.weight"), n_heads * width)?,
            QkNorm::GainPerHead => self.gains_per_head(name, n_heads, width)?,
        };
        let gain: Vec<f32> = gain.into_iter().map(|gain| gain + self.names.gain_offset).collect();
        Ok(Norm { kind: self.spec.norm, gain: self.backend.vector(&gain), bias: None })
    }

    /// A gain per head: in one tensor `[heads, D]`, or in one for each head.
    fn gains_per_head(
        &mut self,
        name: &str,
        n_heads: usize,
        width: usize,
    ) -> Result<Vec<f32>, BackboneError> {
        if !self.names.head_norm_per_head {
            return self.tensors.flat(&format!("{name}.weight"), n_heads, width);
        }
        let gains = (0..n_heads).map(|i| self.tensors.vector(&format!("{name}.norms.{i}.weight"), width));
        Ok(gains.collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn norm_if(&mut self, enabled: bool, name: &str) -> Result<Option<Norm<B::Vector>>, BackboneError> {
        if enabled { self.norm(name, 1.0).map(Some) } else { Ok(None) }
    }

    /// A norm of the residual stream, with its result multiplied by `factor`.
    pub(crate) fn norm(&mut self, name: &str, factor: f64) -> Result<Norm<B::Vector>, BackboneError> {
        let h = self.spec.hidden;
        let gain = self.tensors.vector(&format!("{name}.weight"), h)?;
        let bias =
            if self.spec.norm_bias { Some(self.tensors.vector(&format!("{name}.bias"), h)?) } else { None };
        let vector = |values: Vec<f32>, offset: f32| {
            let values: Vec<f32> = values.into_iter().map(|v| (v + offset) * factor as f32).collect();
            self.backend.vector(&values)
        };
        Ok(Norm {
            kind: self.spec.norm,
            gain: vector(gain, self.names.gain_offset),
            bias: bias.map(|bias| vector(bias, 0.0)),
        })
    }
}
