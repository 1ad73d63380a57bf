//! The pre-tokenizers of byte-level BPE, which cut texts into words, as parts of a `tokenizer.json`.

use serde_json::{Value, json};

/// English contractions, as tiktoken cuts them.
pub(crate) const CONTRACTIONS: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
/// A word, with the character before it.
const WORD: &str = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+";
/// A word that begins with capitals, if any, and one of nothing else: `McDonald` is two words.
const SMALL: &str =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+";
const CAPITAL: &str =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*";
/// Space before line ends, at the end, and any other.
const SPACES: &str = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// No normalizer.
pub(crate) fn none() -> Value {
    Value::Null
}

/// Unicode's composed form.
pub(crate) fn nfc() -> Value {
    json!({ "type": "NFC" })
}

/// Bytes as letters, after a cut by GPT-2's pattern or not.
pub(crate) fn byte_level(with_pattern: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": with_pattern })
}

/// A cut around each match.
pub(crate) fn split(pattern: &str) -> Value {
    json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false })
}

/// Steps in this order.
pub(crate) fn sequence(steps: &[Value]) -> Value {
    json!({ "type": "Sequence", "pretokenizers": steps })
}

/// GPT-2's pattern, and every digit on its own.
pub(crate) fn digits_apart() -> Value {
    sequence(&[json!({ "type": "Digits", "individual_digits": true }), byte_level(true)])
}

/// GPT-2's pattern.
pub(crate) fn words() -> Value {
    byte_level(true)
}

/// The pattern of GPT-4's cl100k, or one that cuts numbers otherwise.
pub(crate) fn cl100k(numbers: &str) -> Value {
    let symbols = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*";
    sequence(&[split(&format!("{CONTRACTIONS}|{WORD}|{numbers}|{symbols}|{SPACES}")), byte_level(false)])
}

/// The pattern of GPT-4o's o200k, or one without contractions that cuts numbers otherwise.
pub(crate) fn o200k(contractions: &str, numbers: &str) -> Value {
    let symbols = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*";
    let words = format!("{SMALL}{contractions}|{CAPITAL}{contractions}");
    sequence(&[split(&format!("{words}|{numbers}|{symbols}|{SPACES}")), byte_level(false)])
}

/// The pattern of ByteDance's Seed-Coder.
pub(crate) fn seed_coder() -> Value {
    let symbols = " ?[^\\s\\p{L}\\p{N}\\r\\n]+";
    sequence(&[split(&format!("{CONTRACTIONS}|{WORD}|\\p{{N}}{{1}}|{symbols}|{SPACES}")), byte_level(false)])
}

/// The patterns of DeepSeek-Coder, one after the other.
pub(crate) fn deepseek_coder() -> Value {
    let steps = ["[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-\u{d7ff}]+"].map(split);
    let digits = json!({ "type": "Digits", "individual_digits": true });
    sequence(&steps.into_iter().chain([digits, byte_level(false)]).collect::<Vec<_>>())
}
