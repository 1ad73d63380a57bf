//! `adapter_config.json`: reads what any version of PEFT writes for a soft prompt or a KV prefix, and writes what 0.21
//! does.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::choices::Method;
use crate::error::{FormatError, Origin};

/// The version of PEFT whose file is reproduced, byte for byte.
pub const WRITTEN_PEFT_VERSION: &str = "0.21.2";
/// The file name, for messages without a path.
const FILE: &str = "adapter_config.json";

/// How PEFT trained the stored numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeftType {
    /// The rows themselves were trained.
    PromptTuning,
    /// The rows are the output of a small network that was trained and then discarded.
    PTuning,
    /// Keys and values of every layer were trained, directly or through a network that was then discarded.
    PrefixTuning,
    /// As [`PeftType::PrefixTuning`], distilled from a long text.
    Cartridge,
}

impl PeftType {
    /// The type as PEFT spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PromptTuning => "PROMPT_TUNING",
            Self::PTuning => "P_TUNING",
            Self::PrefixTuning => "PREFIX_TUNING",
            Self::Cartridge => "CARTRIDGE",
        }
    }

    /// What is stored: rows before the embedded text, or keys and values before those of the text.
    pub fn method(self) -> Method {
        match self {
            Self::PromptTuning | Self::PTuning => Method::Prompt,
            Self::PrefixTuning | Self::Cartridge => Method::Prefix,
        }
    }
}

impl fmt::Display for PeftType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kind of model of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeftTask {
    /// A decoder that continues text.
    CausalLm,
    /// An encoder and a decoder; the rows precede the encoder's text.
    Seq2SeqLm,
}

impl PeftTask {
    /// The task as PEFT spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CausalLm => "CAUSAL_LM",
            Self::Seq2SeqLm => "SEQ_2_SEQ_LM",
        }
    }
}

impl fmt::Display for PeftTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// PEFT's `adapter_config.json` for a soft prompt or a KV prefix. All sizes are positive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterConfig {
    /// The base model for PEFT to load, if known.
    pub base_model: Option<String>,
    /// The revision of the base model.
    pub revision: Option<String>,
    /// Number of attention heads of the base model; for a KV prefix, of its key/value heads. PEFT does not need it for a
    /// soft prompt.
    pub n_heads: Option<usize>,
    /// Number of layers of the base model. PEFT does not need it for a soft prompt.
    pub n_layers: Option<usize>,
    /// The kind of model; PEFT leaves it empty for unknown model classes.
    pub task: Option<PeftTask>,
    peft_type: PeftType,
    n_virtual: usize,
    /// H; for a KV prefix K·D, the width of a layer's keys.
    token_dim: usize,
    n_submodules: usize,
}

/// The file as PEFT writes it: all fields, ordered by name.
#[derive(Serialize)]
struct Written<'a> {
    auto_mapping: Option<()>,
    base_model_name_or_path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoder_hidden_size: Option<usize>,
    inference_mode: bool,
    /// `Some(None)` is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    init_weights: Option<Option<()>>,
    modules_to_save: Option<()>,
    num_attention_heads: Option<usize>,
    num_layers: Option<usize>,
    num_transformer_submodules: usize,
    num_virtual_tokens: usize,
    peft_type: &'static str,
    peft_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_projection: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tuning_init: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tuning_init_text: Option<Option<()>>,
    revision: Option<&'a str>,
    task_type: Option<&'static str>,
    token_dim: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokenizer_kwargs: Option<Option<()>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokenizer_name_or_path: Option<Option<()>>,
}

/// The fields that matter for reading. The others differ between versions of PEFT and have no effect here.
#[derive(Deserialize)]
struct Read {
    base_model_name_or_path: Option<String>,
    num_attention_heads: Option<usize>,
    num_layers: Option<usize>,
    num_transformer_submodules: Option<usize>,
    num_virtual_tokens: Option<usize>,
    revision: Option<String>,
    token_dim: Option<usize>,
}

/// The fields that decide whether to read the others.
#[derive(Deserialize)]
struct Kind {
    peft_type: Option<String>,
    task_type: Option<String>,
}

impl AdapterConfig {
    /// The configuration for `n_virtual` (P) learned rows of `hidden` (H) numbers for a decoder.
    ///
    /// # Errors
    /// If P or H is zero.
    pub fn causal_lm(n_virtual: usize, hidden: usize) -> Result<Self, FormatError> {
        if n_virtual == 0 || hidden == 0 {
            return Err(FormatError::Empty { origin: Origin::Memory, n_virtual, width: hidden });
        }
        Ok(Self {
            base_model: None,
            revision: None,
            n_heads: None,
            n_layers: None,
            task: Some(PeftTask::CausalLm),
            peft_type: PeftType::PromptTuning,
            n_virtual,
            token_dim: hidden,
            n_submodules: 1,
        })
    }

    /// The configuration for `n_virtual` (P) positions of learned keys and values for a decoder of `n_layers` (L) layers
    /// with `kv_heads` (K) key/value heads, whose keys have `kv_width` (K·D) numbers.
    ///
    /// # Errors
    /// If a size is zero.
    pub fn causal_lm_prefix(
        n_virtual: usize,
        n_layers: usize,
        kv_heads: usize,
        kv_width: usize,
    ) -> Result<Self, FormatError> {
        if n_virtual == 0 || n_layers == 0 || kv_heads == 0 || kv_width == 0 {
            let width = 2 * n_layers * kv_width;
            return Err(FormatError::Empty { origin: Origin::Memory, n_virtual, width });
        }
        Ok(Self {
            base_model: None,
            revision: None,
            n_heads: Some(kv_heads),
            n_layers: Some(n_layers),
            task: Some(PeftTask::CausalLm),
            peft_type: PeftType::PrefixTuning,
            n_virtual,
            token_dim: kv_width,
            n_submodules: 1,
        })
    }

    /// Parses an `adapter_config.json`; `path` is its location, for messages.
    ///
    /// # Errors
    /// If they are not JSON, are for another kind of adapter or task, or lack a size.
    pub fn from_json(bytes: &[u8], path: &Path) -> Result<Self, FormatError> {
        let json = |source| FormatError::Json { path: path.to_owned(), source };
        let kind: Kind = serde_json::from_slice(bytes).map_err(json)?;
        let (peft_type, task) = known_kind(&kind, path)?;

        let read: Read = serde_json::from_slice(bytes).map_err(json)?;
        let missing = |field| FormatError::MissingField { path: path.to_owned(), field };
        let n_virtual = read.num_virtual_tokens.ok_or_else(|| missing("num_virtual_tokens"))?;
        let token_dim = read.token_dim.ok_or_else(|| missing("token_dim"))?;
        let n_layers = match (peft_type.method(), read.num_layers) {
            (Method::Prefix, None) => return Err(missing("num_layers")),
            (_, n_layers) => n_layers,
        };
        let width = row_width(peft_type, token_dim, n_layers);
        if n_virtual == 0 || width == 0 {
            return Err(FormatError::Empty { origin: Origin::File(path.to_owned()), n_virtual, width });
        }
        let n_submodules = match (read.num_transformer_submodules, task) {
            (Some(2), _) if peft_type.method() == Method::Prefix => {
                return Err(FormatError::Submodules { path: path.to_owned(), found: 2 });
            }
            (Some(found @ (1 | 2)), _) => found,
            (Some(found), _) => return Err(FormatError::Submodules { path: path.to_owned(), found }),
            (None, Some(PeftTask::Seq2SeqLm)) => 2,
            (None, _) => 1,
        };
        Ok(Self {
            base_model: read.base_model_name_or_path,
            revision: read.revision,
            n_heads: read.num_attention_heads,
            n_layers,
            task,
            peft_type,
            n_virtual,
            token_dim,
            n_submodules,
        })
    }

    /// The bytes of an `adapter_config.json`, as PEFT 0.21 writes it.
    ///
    /// The type is always PROMPT_TUNING or PREFIX_TUNING, with one copy of the rows: that is what is stored next to it,
    /// however it was trained. The init is always RANDOM, since PEFT would otherwise load a tokenizer to make rows that it
    /// then overwrites.
    ///
    /// # Errors
    /// If serde_json fails, which should never happen.
    pub fn to_json(&self) -> Result<Vec<u8>, FormatError> {
        let is_prefix = self.method() == Method::Prefix;
        let null = (!is_prefix).then_some(None);
        let peft_type = if is_prefix { PeftType::PrefixTuning } else { PeftType::PromptTuning };
        let written = Written {
            auto_mapping: None,
            base_model_name_or_path: self.base_model.as_deref(),
            encoder_hidden_size: is_prefix.then_some(self.token_dim),
            inference_mode: true,
            init_weights: is_prefix.then_some(None),
            modules_to_save: None,
            num_attention_heads: self.n_heads,
            num_layers: self.n_layers,
            num_transformer_submodules: 1,
            num_virtual_tokens: self.n_virtual,
            peft_type: peft_type.as_str(),
            peft_version: WRITTEN_PEFT_VERSION,
            prefix_projection: is_prefix.then_some(false),
            prompt_tuning_init: (!is_prefix).then_some("RANDOM"),
            prompt_tuning_init_text: null,
            revision: self.revision.as_deref(),
            task_type: self.task.map(PeftTask::as_str),
            token_dim: self.token_dim,
            tokenizer_kwargs: null,
            tokenizer_name_or_path: null,
        };
        let text = serde_json::to_string_pretty(&written)
            .map_err(|source| FormatError::EncodeJson { file: FILE, source })?;
        Ok(ascii(&text).into_bytes())
    }

    /// How PEFT trained the rows.
    pub fn peft_type(&self) -> PeftType {
        self.peft_type
    }

    /// The number of virtual tokens, P.
    pub fn n_virtual(&self) -> usize {
        self.n_virtual
    }

    /// What was learned.
    pub fn method(&self) -> Method {
        self.peft_type.method()
    }

    /// The numbers per stored row, W: H, or for a KV prefix L·2·K·D.
    pub fn width(&self) -> usize {
        row_width(self.peft_type, self.token_dim, self.n_layers)
    }

    /// The expected number of rows in the tensors: P, or 2P if PEFT also stores rows for a decoder that it never uses.
    pub(crate) fn n_stored(&self) -> Option<usize> {
        self.n_virtual.checked_mul(self.n_submodules)
    }
}

/// The numbers per stored row, saturating if a file claims too many.
fn row_width(peft_type: PeftType, token_dim: usize, n_layers: Option<usize>) -> usize {
    match peft_type.method() {
        Method::Prompt => token_dim,
        Method::Prefix => token_dim.saturating_mul(2).saturating_mul(n_layers.unwrap_or(0)),
    }
}

/// The type and task, if they are supported.
fn known_kind(kind: &Kind, path: &Path) -> Result<(PeftType, Option<PeftTask>), FormatError> {
    let path = || PathBuf::from(path);
    let peft_type = match kind.peft_type.as_deref() {
        Some("PROMPT_TUNING") => PeftType::PromptTuning,
        Some("P_TUNING") => PeftType::PTuning,
        Some("PREFIX_TUNING") => PeftType::PrefixTuning,
        Some("CARTRIDGE") => PeftType::Cartridge,
        Some(other) => return Err(FormatError::PeftType { path: path(), found: other.to_owned() }),
        None => return Err(FormatError::MissingField { path: path(), field: "peft_type" }),
    };
    let task = match kind.task_type.as_deref() {
        None => None,
        Some("CAUSAL_LM") => Some(PeftTask::CausalLm),
        Some("SEQ_2_SEQ_LM") => Some(PeftTask::Seq2SeqLm),
        Some(other) => return Err(FormatError::TaskType { path: path(), found: other.to_owned() }),
    };
    Ok((peft_type, task))
}

/// JSON `text` with everything beyond printable ASCII escaped, as Python's `json` does.
fn ascii(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}"); // a String takes everything
            }
        }
    }
    escaped
}
