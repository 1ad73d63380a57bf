//! `adapter_config.json`: read as any version of PEFT writes it for a soft prompt, written as 0.21 does.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{FormatError, Origin};

/// The version of PEFT whose file is written, byte for byte.
pub const WRITTEN_PEFT_VERSION: &str = "0.21.2";
/// The file's name, for messages without a path.
const FILE: &str = "adapter_config.json";

/// How PEFT trained the rows. What is stored is the same: the rows that stand before the embedded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeftType {
    /// The rows themselves were learned.
    PromptTuning,
    /// The rows are the output of a small network that was learned and then left out.
    PTuning,
}

impl PeftType {
    /// The type as PEFT spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PromptTuning => "PROMPT_TUNING",
            Self::PTuning => "P_TUNING",
        }
    }
}

impl fmt::Display for PeftType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kind of model that a prompt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeftTask {
    /// A decoder that continues text.
    CausalLm,
    /// An encoder and a decoder; the rows stand before the encoder's text.
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

/// What PEFT's `adapter_config.json` says about a soft prompt. P and H are positive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterConfig {
    /// The base model as PEFT should load it, if it is to know.
    pub base_model: Option<String>,
    /// The revision of the base model.
    pub revision: Option<String>,
    /// The number of attention heads of the base model. PEFT does not need it for a soft prompt.
    pub n_heads: Option<usize>,
    /// The number of layers of the base model. PEFT does not need it for a soft prompt.
    pub n_layers: Option<usize>,
    /// The kind of model; PEFT leaves it open for a model class that it does not know.
    pub task: Option<PeftTask>,
    peft_type: PeftType,
    n_virtual: usize,
    hidden: usize,
    n_submodules: usize,
}

/// The file as PEFT writes it: all fields, in the order of their names.
#[derive(Serialize)]
struct Written<'a> {
    auto_mapping: Option<()>,
    base_model_name_or_path: Option<&'a str>,
    inference_mode: bool,
    modules_to_save: Option<()>,
    num_attention_heads: Option<usize>,
    num_layers: Option<usize>,
    num_transformer_submodules: usize,
    num_virtual_tokens: usize,
    peft_type: &'static str,
    peft_version: &'static str,
    prompt_tuning_init: &'static str,
    prompt_tuning_init_text: Option<()>,
    revision: Option<&'a str>,
    task_type: Option<&'static str>,
    token_dim: usize,
    tokenizer_kwargs: Option<()>,
    tokenizer_name_or_path: Option<()>,
}

/// The fields that matter when reading. The others differ between versions of PEFT and change nothing here.
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

/// The fields that decide whether the others are looked at.
#[derive(Deserialize)]
struct Kind {
    peft_type: Option<String>,
    task_type: Option<String>,
}

impl AdapterConfig {
    /// The description of `n_virtual` (P) learned rows of `hidden` (H) numbers for a decoder.
    ///
    /// # Errors
    /// When P or H is zero.
    pub fn causal_lm(n_virtual: usize, hidden: usize) -> Result<Self, FormatError> {
        if n_virtual == 0 || hidden == 0 {
            return Err(FormatError::Empty { origin: Origin::Memory, n_virtual, hidden });
        }
        Ok(Self {
            base_model: None,
            revision: None,
            n_heads: None,
            n_layers: None,
            task: Some(PeftTask::CausalLm),
            peft_type: PeftType::PromptTuning,
            n_virtual,
            hidden,
            n_submodules: 1,
        })
    }

    /// Reads the bytes of an `adapter_config.json`; `path` is where they came from, for messages.
    ///
    /// # Errors
    /// When they are not JSON, are for another kind of adapter or task, or lack a size.
    pub fn from_json(bytes: &[u8], path: &Path) -> Result<Self, FormatError> {
        let json = |source| FormatError::Json { path: path.to_owned(), source };
        let kind: Kind = serde_json::from_slice(bytes).map_err(json)?;
        let (peft_type, task) = known_kind(&kind, path)?;

        let read: Read = serde_json::from_slice(bytes).map_err(json)?;
        let missing = |field| FormatError::MissingField { path: path.to_owned(), field };
        let n_virtual = read.num_virtual_tokens.ok_or_else(|| missing("num_virtual_tokens"))?;
        let hidden = read.token_dim.ok_or_else(|| missing("token_dim"))?;
        if n_virtual == 0 || hidden == 0 {
            return Err(FormatError::Empty { origin: Origin::File(path.to_owned()), n_virtual, hidden });
        }
        let n_submodules = match (read.num_transformer_submodules, task) {
            (Some(found @ (1 | 2)), _) => found,
            (Some(found), _) => return Err(FormatError::Submodules { path: path.to_owned(), found }),
            (None, Some(PeftTask::Seq2SeqLm)) => 2,
            (None, _) => 1,
        };
        Ok(Self {
            base_model: read.base_model_name_or_path,
            revision: read.revision,
            n_heads: read.num_attention_heads,
            n_layers: read.num_layers,
            task,
            peft_type,
            n_virtual,
            hidden,
            n_submodules,
        })
    }

    /// The bytes of an `adapter_config.json`, as PEFT 0.21 writes it.
    ///
    /// It always says PROMPT_TUNING, and one copy of the rows: that is what lies beside it, however it was trained. It
    /// always says RANDOM init, since PEFT would otherwise load a tokenizer to make rows that it then overwrites.
    ///
    /// # Errors
    /// When serde_json refuses, which it has no reason to.
    pub fn to_json(&self) -> Result<Vec<u8>, FormatError> {
        let written = Written {
            auto_mapping: None,
            base_model_name_or_path: self.base_model.as_deref(),
            inference_mode: true,
            modules_to_save: None,
            num_attention_heads: self.n_heads,
            num_layers: self.n_layers,
            num_transformer_submodules: 1,
            num_virtual_tokens: self.n_virtual,
            peft_type: PeftType::PromptTuning.as_str(),
            peft_version: WRITTEN_PEFT_VERSION,
            prompt_tuning_init: "RANDOM",
            prompt_tuning_init_text: None,
            revision: self.revision.as_deref(),
            task_type: self.task.map(PeftTask::as_str),
            token_dim: self.hidden,
            tokenizer_kwargs: None,
            tokenizer_name_or_path: None,
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

    /// The hidden size of the model, H.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// How many rows the tensors must have: P, or 2P where PEFT also stores rows for a decoder that it never uses.
    pub(crate) fn n_stored(&self) -> Option<usize> {
        self.n_virtual.checked_mul(self.n_submodules)
    }
}

/// The type and task, if they are among those that can be used.
fn known_kind(kind: &Kind, path: &Path) -> Result<(PeftType, Option<PeftTask>), FormatError> {
    let path = || PathBuf::from(path);
    let peft_type = match kind.peft_type.as_deref() {
        Some("PROMPT_TUNING") => PeftType::PromptTuning,
        Some("P_TUNING") => PeftType::PTuning,
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
