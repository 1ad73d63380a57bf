//! The pre-tokenizers of byte-level BPE by the names that GGUF files have for them.

use serde_json::Value;

use super::Gguf;
use crate::error::BackboneError;
use crate::tokenizer::patterns::{
    self, CONTRACTIONS, byte_level, cl100k, deepseek_coder, digits_apart, o200k, seed_coder, sequence, split,
    words,
};

/// A pre-tokenizer by its names (`tokenizer.ggml.pre`).
pub(super) struct PreTokenizer {
    pub(super) names: &'static [&'static str],
    pub(super) normalizer: fn() -> Value,
    pub(super) json: fn() -> Value,
    /// Words that are tokens skip the merges.
    pub(super) ignores_merges: bool,
    /// Default of `tokenizer.ggml.add_bos_token`.
    pub(super) add_bos: bool,
}

/// llama.cpp's pre-tokenizer of files that name none.
fn default_pre_tokenizer() -> Value {
    let words = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)";
    let steps = ["[\\p{P}\\$\\+<=>\\^~\\|]+", words, "\\p{N}+", "[0-9][0-9][0-9]"];
    let steps = steps.map(split).into_iter().chain([byte_level(false)]);
    sequence(&steps.collect::<Vec<_>>())
}

/// The patterns are those of the models' own tokenizers, for which llama.cpp knows the names. So are the normalizers, which
/// llama.cpp does without. A `tokenizer.json` is written to GGUF under the first name that fits.
pub(super) const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        names: &[
            "gpt-2",
            "phi-2",
            "a.x-4.0",
            "exaone4",
            "gigachat",
            "granite-docling",
            "jais",
            "mellum",
            "trillion",
        ],
        normalizer: patterns::none,
        json: words,
        ignores_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "lfm2", "midm-2.0", "pixtral"],
        normalizer: patterns::none,
        json: || cl100k("\\p{N}{1,3}"),
        ignores_merges: true,
        add_bos: true,
    },
    PreTokenizer {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"],
        normalizer: patterns::none,
        json: || cl100k("\\p{N}{1,3}"),
        ignores_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen", "stablelm2", "kormo", "megrez"],
        normalizer: patterns::nfc,
        json: || cl100k("\\p{N}"),
        ignores_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["gpt-4o", "llama4", "kanana2"],
        normalizer: patterns::none,
        json: || o200k(&format!("{CONTRACTIONS}?"), "\\p{N}{1,3}"),
        ignores_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["tekken"],
        normalizer: patterns::none,
        json: || o200k("", "\\p{N}"),
        ignores_merges: true,
        add_bos: true,
    },
    PreTokenizer {
        names: &["olmo", "mpt"],
        normalizer: patterns::nfc,
        json: words,
        ignores_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        normalizer: patterns::none,
        json: digits_apart,
        ignores_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["seed-coder"],
        normalizer: patterns::none,
        json: seed_coder,
        ignores_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        normalizer: patterns::none,
        json: deepseek_coder,
        ignores_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["default"],
        normalizer: patterns::none,
        json: default_pre_tokenizer,
        ignores_merges: false,
        add_bos: false,
    },
];

impl PreTokenizer {
    /// The pre-tokenizer that a file names.
    pub(super) fn named_in(gguf: &Gguf<'_>) -> Result<&'static Self, BackboneError> {
        let name =
            gguf.text("tokenizer.ggml.pre")?.filter(|name| !name.is_empty()).unwrap_or("default".into());
        PRE_TOKENIZERS.iter().find(|entry| entry.names.contains(&&*name)).ok_or_else(|| {
            let known: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|entry| entry.names).copied().collect();
            gguf.wrong(format!(
                "`tokenizer.ggml.pre` is {name}, a way to cut texts that is not known here; known are {}",
                known.join(", ")
            ))
        })
    }

    /// The pre-tokenizer of a `tokenizer.json`.
    pub(super) fn of(file: &Value) -> Option<&'static Self> {
        let ignores = file.get("model").and_then(|model| model.get("ignore_merges")).and_then(Value::as_bool);
        let fits = || PRE_TOKENIZERS.iter().filter(|entry| entry.matches(file));
        // Whether words that are tokens skip the merges seldom changes anything: another will do.
        let exact = fits().find(|entry| entry.ignores_merges == ignores.unwrap_or(false));
        exact.or_else(|| fits().next())
    }

    /// Whether a `tokenizer.json` has this pre-tokenizer.
    fn matches(&self, file: &Value) -> bool {
        let part = |key: &str| file.get(key).cloned().unwrap_or(Value::Null);
        // Offsets are ignored.
        let without_offsets = |mut value: Value| {
            let steps = value.get_mut("pretokenizers").and_then(Value::as_array_mut);
            for step in steps.into_iter().flatten() {
                step.as_object_mut().map(|step| step.remove("trim_offsets"));
            }
            value.as_object_mut().map(|value| value.remove("trim_offsets"));
            value
        };
        without_offsets(part("pre_tokenizer")) == without_offsets((self.json)())
            && part("normalizer") == (self.normalizer)()
    }
}
