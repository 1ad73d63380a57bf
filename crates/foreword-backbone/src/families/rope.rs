//! Reads rotary positions from `config.json`, in the form of transformers 4 (`rope_theta`, `rope_scaling`) or 5
//! (`rope_parameters`).

use foreword_kernels::Pairing;

use crate::config::HfConfig;
use crate::error::BackboneError;
use crate::spec::{Rope, RopeScaling};

/// A family's keys and defaults for its rotations.
pub(crate) struct RopeKeys {
    /// The key of the base outside of `rope_parameters`, and the default.
    pub(crate) theta: (&'static str, f64),
    /// The key of the rotated share of a head, and the default; `None`: whole heads are rotated.
    pub(crate) share: Option<(&'static str, f64)>,
    pub(crate) pairing: Pairing,
    /// The kind of layer to read if `rope_parameters` has an object for each kind.
    pub(crate) layers: &'static str,
}

impl RopeKeys {
    pub(crate) const LLAMA_LIKE: Self =
        Self { theta: ("rope_theta", 10_000.0), share: None, pairing: Pairing::Halves, layers: FULL };
}

/// Layers with full attention, the only ones of the older key, and layers with a window.
const FULL: &str = "full_attention";
pub(super) const SLIDING: &str = "sliding_attention";

/// Why a smaller base is refused: angles of far positions would overflow.
const LEAST_THETA: &str = "it must be at least 1, so that no frequency is above 1";

/// The rotation that config.json states. `context` is reduced if the frequencies change beyond a part of it.
pub(super) fn rope(
    config: &HfConfig,
    head_width: usize,
    keys: &RopeKeys,
    context: &mut usize,
) -> Result<Rope, BackboneError> {
    let old = if keys.layers == FULL { config.object("rope_scaling")? } else { None };
    let new = match config.object("rope_parameters")? {
        Some(nested) if nested.contains(FULL) || nested.contains(SLIDING) => {
            let kind = nested.object(keys.layers)?;
            nested.ignore(&[FULL, SLIDING]);
            nested.finish()?;
            kind
        }
        plain => plain,
    };
    // transformers 4 reads only the older key, and 5 prefers it if both exist.
    match (&old, &new) {
        (Some(old), Some(new)) => {
            let mut of_new = *context;
            let new = stated(config, Some(new), head_width, keys, &mut of_new)?;
            let old = stated(config, Some(old), head_width, keys, context)?;
            if !old.is_same(&new) || *context != of_new {
                return Err(config.reject("rope_scaling", "it contradicts rope_parameters: keep one of them"));
            }
            Ok(old)
        }
        (one, other) => stated(config, one.as_ref().or(other.as_ref()), head_width, keys, context),
    }
}

/// The rotation that one object states, with the keys outside of it.
fn stated(
    config: &HfConfig,
    parameters: Option<&HfConfig>,
    head_width: usize,
    keys: &RopeKeys,
    context: &mut usize,
) -> Result<Rope, BackboneError> {
    let (key, default) = keys.theta;
    let outer = base(config, key)?;
    let inner = parameters.map_or(Ok(None), |parameters| base(parameters, "rope_theta"))?;
    let width = rotated_width(config, parameters, head_width, keys)?;
    let scaling = match parameters {
        None => RopeScaling::None,
        Some(parameters) => {
            let scaling = scaling(config, parameters, width, context)?;
            parameters.finish()?;
            scaling
        }
    };
    Ok(Rope { theta: inner.or(outer).unwrap_or(default), width, pairing: keys.pairing, scaling })
}

fn base(config: &HfConfig, key: &str) -> Result<Option<f64>, BackboneError> {
    let theta = config.number_or_none(key)?;
    match theta {
        Some(theta) if theta < 1.0 => Err(config.reject(key, LEAST_THETA)),
        theta => Ok(theta),
    }
}

/// Rotated numbers of a head.
fn rotated_width(
    config: &HfConfig,
    parameters: Option<&HfConfig>,
    head_width: usize,
    keys: &RopeKeys,
) -> Result<usize, BackboneError> {
    const INNER: &str = "partial_rotary_factor";
    let (key, default) = keys.share.unwrap_or((INNER, 1.0));
    let outer = config.number_or_none(key)?;
    let inner = parameters.map_or(Ok(None), |parameters| parameters.number_or_none(INNER))?;
    let share = inner.or(outer).unwrap_or(default);
    let width = (head_width as f64 * share) as usize;
    let (place, key) = match (parameters, inner) {
        (Some(parameters), Some(_)) => (parameters, INNER),
        _ => (config, key),
    };
    if keys.share.is_none() && share != 1.0 {
        return Err(place.reject(key, "only 1 is supported: whole heads are rotated"));
    }
    if width == 0 || width > head_width || !width.is_multiple_of(2) {
        return Err(place.reject(key, format!("it must give an even part of the head width {head_width}")));
    }
    Ok(width)
}

/// The scaling that one object states.
fn scaling(
    config: &HfConfig,
    parameters: &HfConfig,
    width: usize,
    context: &mut usize,
) -> Result<RopeScaling, BackboneError> {
    let older_name = parameters.text_or_none("type")?;
    let scaling = match parameters.text_or_none("rope_type")?.or(older_name) {
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: stretch(parameters)? },
        Some("dynamic") => {
            // Within the original context nothing changes.
            stretch(parameters)?;
            let original = parameters.count_or_none("original_max_position_embeddings")?;
            *context = original.map_or(*context, |original| original.min(*context));
            RopeScaling::None
        }
        Some("llama3") => llama3(parameters, original(config, parameters, *context)?)?,
        Some("yarn") => yarn(parameters, original(config, parameters, *context)?)?,
        Some("longrope" | "su") => long(config, parameters, width, context)?,
        Some(_) => {
            let known = "supported are default, linear, dynamic, llama3, yarn and longrope";
            return Err(parameters.reject("rope_type", known));
        }
    };
    Ok(scaling)
}

fn stretch(parameters: &HfConfig) -> Result<f64, BackboneError> {
    let factor = parameters.number("factor")?;
    if factor < 1.0 {
        return Err(parameters.reject("factor", "it stretches, so it must be at least 1"));
    }
    Ok(factor)
}

/// The context that is stretched. As in transformers, the key outside has the first word, and without either it is the whole
/// context.
fn original(config: &HfConfig, parameters: &HfConfig, context: usize) -> Result<usize, BackboneError> {
    const ORIGINAL: &str = "original_max_position_embeddings";
    let (outer, inner) = (config.count_or_none(ORIGINAL)?, parameters.count_or_none(ORIGINAL)?);
    Ok(outer.or(inner).unwrap_or(context))
}

fn llama3(parameters: &HfConfig, original_context: usize) -> Result<RopeScaling, BackboneError> {
    let (low, high) = (parameters.number("low_freq_factor")?, parameters.number("high_freq_factor")?);
    // Frequencies are in single precision: the two must differ there.
    if low as f32 >= high as f32 {
        return Err(parameters.reject("low_freq_factor", "it must be below high_freq_factor"));
    }
    Ok(RopeScaling::Llama3 {
        factor: stretch(parameters)?,
        low_frequency_factor: low,
        high_frequency_factor: high,
        original_context,
    })
}

fn yarn(parameters: &HfConfig, original_context: usize) -> Result<RopeScaling, BackboneError> {
    let factor = stretch(parameters)?;
    let grown = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
    let scales = (parameters.number_or_zero("mscale")?, parameters.number_or_zero("mscale_all_dim")?);
    let attention_factor = match (parameters.number_or_none("attention_factor")?, scales) {
        (Some(stated), _) => stated,
        (None, (Some(scale), Some(all))) => grown(scale) / grown(all),
        (None, _) => grown(1.0),
    };
    let beta_fast = parameters.number_or_zero("beta_fast")?.unwrap_or(32.0);
    let beta_slow = parameters.number_or_zero("beta_slow")?.unwrap_or(1.0);
    if beta_fast <= beta_slow {
        return Err(parameters.reject("beta_fast", "it must be above beta_slow"));
    }
    let truncate = parameters.flag("truncate", true)?;
    Ok(RopeScaling::Yarn { factor, attention_factor, beta_fast, beta_slow, original_context, truncate })
}

/// Beyond the original context other factors apply to the whole text: only the original context is supported.
fn long(
    config: &HfConfig,
    parameters: &HfConfig,
    width: usize,
    context: &mut usize,
) -> Result<RopeScaling, BackboneError> {
    let factors = parameters.numbers("short_factor", width / 2)?;
    parameters.numbers("long_factor", width / 2)?;
    let original = original(config, parameters, *context)?;
    let factor = match parameters.number_or_none("factor")? {
        Some(factor) => factor,
        None => *context as f64 / original as f64,
    };
    let attention_factor = match parameters.number_or_none("attention_factor")? {
        Some(stated) => stated,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
    };
    *context = original.min(*context);
    Ok(RopeScaling::Long { factors, attention_factor })
}
