//! The tokenizers of transformers whose files are `vocab.json` and `merges.txt`, by their class and by the model type.

use serde_json::{Map, Value};

use crate::error::BackboneError;
use crate::files::{CONFIG, TOKENIZER_CONFIG};
use crate::tokenizer::patterns;

/// What to do about another tokenizer.
const HINT: &str =
    "make a tokenizer.json of it with `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)` in Python";

/// A class of transformers for such files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenizerClass {
    Gpt2,
    Qwen2,
}

/// By `tokenizer_class`, which may end in `Fast`.
const CLASSES: [(&str, TokenizerClass); 3] = [
    ("GPT2Tokenizer", TokenizerClass::Gpt2),
    ("CodeGenTokenizer", TokenizerClass::Gpt2),
    ("Qwen2Tokenizer", TokenizerClass::Qwen2),
];
/// By the `model_type` of `config.json`.
const MODEL_TYPES: [(&str, TokenizerClass); 10] = [
    ("gpt2", TokenizerClass::Gpt2),
    ("gpt_neo", TokenizerClass::Gpt2),
    ("gptj", TokenizerClass::Gpt2),
    ("opt", TokenizerClass::Gpt2),
    ("phi", TokenizerClass::Gpt2),
    ("starcoder2", TokenizerClass::Gpt2),
    ("qwen2", TokenizerClass::Qwen2),
    ("qwen2_moe", TokenizerClass::Qwen2),
    ("qwen3", TokenizerClass::Qwen2),
    ("qwen3_moe", TokenizerClass::Qwen2),
];

fn wrong(file: &'static str, detail: impl Into<String>) -> BackboneError {
    BackboneError::TokenizerFile { file, detail: detail.into() }
}

impl TokenizerClass {
    /// As transformers chooses it.
    ///
    /// # Errors
    /// If neither `tokenizer_config.json` nor `config.json` names a known one.
    pub(crate) fn of(config: &Map<String, Value>, model: &Map<String, Value>) -> Result<Self, BackboneError> {
        if let Some(class) = config.get("tokenizer_class").filter(|class| !class.is_null()) {
            let name = class.as_str().unwrap_or_default();
            let name = name.strip_suffix("Fast").unwrap_or(name);
            return CLASSES.iter().find(|(known, _)| *known == name).map(|(_, class)| *class).ok_or_else(|| {
                let known = CLASSES.map(|(name, _)| name).join(", ");
                wrong(
                    TOKENIZER_CONFIG,
                    format!(
                        "`tokenizer_class` is {class}; of tokenizers that are in vocab.json and merges.txt, {known} are read; {HINT}"
                    ),
                )
            });
        }
        let model_type = model.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let known = MODEL_TYPES.iter().find(|(known, _)| *known == model_type);
        known.map(|(_, class)| *class).ok_or_else(|| {
            wrong(
                CONFIG,
                format!(
                    "model_type `{model_type}` does not say how texts are cut into the tokens of vocab.json and merges.txt, \
                     nor does a `tokenizer_class` in tokenizer_config.json; {HINT}"
                ),
            )
        })
    }

    /// The special tokens that it has if the files name no others.
    pub(crate) fn special_tokens(self) -> [(&'static str, &'static str); 3] {
        let names = match self {
            Self::Gpt2 => ["unk_token", "bos_token", "eos_token"],
            Self::Qwen2 => ["unk_token", "eos_token", "pad_token"],
        };
        names.map(|name| (name, "<|endoftext|>"))
    }

    /// Its normalizer and its pre-tokenizer.
    pub(crate) fn steps(self, adds_space: bool) -> (Value, Value) {
        let (normalizer, mut steps) = match self {
            Self::Gpt2 => (patterns::none(), patterns::words()),
            Self::Qwen2 => (patterns::nfc(), patterns::cl100k("\\p{N}")),
        };
        let last = match steps.get_mut("pretokenizers").and_then(Value::as_array_mut) {
            Some(steps) => steps.last_mut(),
            None => Some(&mut steps),
        };
        if let Some(last) = last {
            last["add_prefix_space"] = adds_space.into();
        }
        (normalizer, steps)
    }
}
