//! Reads a Hugging Face `config.json`: every key is read, known to have no effect, or an error. Of `generation_config.json`
//! only the end tokens are read.

mod harmless;

use std::cell::RefCell;
use std::collections::BTreeSet;

use foreword_kernels::Token;
use serde_json::{Map, Value};

use crate::error::BackboneError;
use harmless::{is_harmless, means_absent};

/// Limit on layers, which bounds memory for damaged files.
const MAX_LAYERS: usize = 10_000;

/// `config.json`. It tracks which keys were read.
pub(crate) struct HfConfig {
    /// The file it was read from.
    file: &'static str,
    /// The prefix of this object's keys: empty, or `rope_parameters.`.
    prefix: String,
    keys: Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl HfConfig {
    /// Reads `config.json`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BackboneError> {
        Self::parse_file(bytes, "config.json")
    }

    fn parse_file(bytes: &[u8], file: &'static str) -> Result<Self, BackboneError> {
        let json = |detail: String| BackboneError::Json { file: file.into(), detail };
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(keys)) => Ok(Self::of(file, String::new(), keys)),
            Ok(_) => Err(json("its outermost value is something else".into())),
            Err(error) => Err(json(error.to_string())),
        }
    }

    fn of(file: &'static str, prefix: String, keys: Map<String, Value>) -> Self {
        Self { file, prefix, keys, read: RefCell::default() }
    }

    /// The value of `key`; null counts as absent.
    fn get(&self, key: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn bad(&self, key: &str, value: &Value, expected: impl Into<String>) -> BackboneError {
        let key = format!("{}{key}", self.prefix);
        BackboneError::BadKey { file: self.file, key, found: value.to_string(), expected: expected.into() }
    }

    /// An error about the value of `key`.
    pub(crate) fn reject(&self, key: &str, expected: impl Into<String>) -> BackboneError {
        self.bad(key, self.keys.get(key).unwrap_or(&Value::Null), expected)
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, BackboneError> {
        value.ok_or_else(|| BackboneError::MissingKey { key: format!("{}{key}", self.prefix) })
    }

    /// A whole number of at least 1; false counts as absent, too.
    pub(crate) fn count_or_none(&self, key: &str) -> Result<Option<usize>, BackboneError> {
        let Some(value) = self.get(key).filter(|value| **value != Value::Bool(false)) else {
            return Ok(None);
        };
        // No real size is above 2³¹, and the product of two such sizes fits into 64 bits.
        let count = value.as_u64().filter(|n| (1..1 << 31).contains(n));
        count
            .map(|n| Some(n as usize))
            .ok_or_else(|| self.bad(key, value, "a whole number of at least 1 was expected"))
    }

    pub(crate) fn count(&self, key: &str) -> Result<usize, BackboneError> {
        self.required(key, self.count_or_none(key)?)
    }

    /// A number of layers.
    pub(crate) fn layers(&self, key: &str) -> Result<usize, BackboneError> {
        let layers = self.count(key)?;
        if layers > MAX_LAYERS {
            return Err(self.reject(key, format!("at most {MAX_LAYERS} layers were expected")));
        }
        Ok(layers)
    }

    /// [`Self::count_or_none`] if the file has the key, even with null; otherwise `default`.
    pub(crate) fn count_or(&self, key: &str, default: Option<usize>) -> Result<Option<usize>, BackboneError> {
        if self.contains(key) { self.count_or_none(key) } else { Ok(default) }
    }

    /// Whether the file has the key, even with null.
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Token ids, one or an array of them; absent: none.
    fn tokens(&self, key: &str) -> Result<Vec<Token>, BackboneError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let token = |value: &Value| value.as_u64().and_then(|id| Token::try_from(id).ok());
        let ids = match value {
            Value::Array(ids) => ids.iter().map(token).collect(),
            one => token(one).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.bad(key, value, "a token id or an array of them was expected"))
    }

    /// A number that is positive and normal in single precision.
    pub(crate) fn number_or_none(&self, key: &str) -> Result<Option<f64>, BackboneError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        positive(value).map(Some).ok_or_else(|| self.bad(key, value, "a positive number was expected"))
    }

    pub(crate) fn number(&self, key: &str) -> Result<f64, BackboneError> {
        self.required(key, self.number_or_none(key)?)
    }

    /// [`Self::number_or_none`], with 0 as absent.
    pub(crate) fn number_or_zero(&self, key: &str) -> Result<Option<f64>, BackboneError> {
        match self.get(key) {
            Some(value) if value.as_f64() == Some(0.0) => Ok(None),
            _ => self.number_or_none(key),
        }
    }

    /// An array of `n` positive numbers.
    pub(crate) fn numbers(&self, key: &str, n: usize) -> Result<Vec<f64>, BackboneError> {
        let value = self.required(key, self.get(key))?;
        let numbers = value.as_array().filter(|items| items.len() == n);
        let numbers = numbers.and_then(|items| items.iter().map(positive).collect());
        numbers.ok_or_else(|| self.bad(key, value, format!("{n} positive numbers were expected")))
    }

    /// An array of `n` values, each read by `read`; absent: `None`.
    pub(crate) fn each<T>(
        &self,
        key: &str,
        n: usize,
        read: impl Fn(&Value) -> Option<T>,
        expected: &str,
    ) -> Result<Option<Vec<T>>, BackboneError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let items = value.as_array().filter(|items| items.len() == n);
        let items = items.and_then(|items| items.iter().map(read).collect());
        let bad = || self.bad(key, value, format!("{n} times {expected} was expected"));
        items.map(Some).ok_or_else(bad)
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, BackboneError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.bad(key, value, "true or false was expected"))
    }

    pub(crate) fn text_or_none(&self, key: &str) -> Result<Option<&str>, BackboneError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.bad(key, value, "a string was expected"))
    }

    pub(crate) fn object(&self, key: &str) -> Result<Option<Self>, BackboneError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) if means_absent(value) => Ok(None),
            Some(Value::Object(keys)) => {
                Ok(Some(Self::of(self.file, format!("{}{key}.", self.prefix), keys.clone())))
            }
            Some(value) => Err(self.bad(key, value, "an object was expected")),
        }
    }

    /// Refuses any other value of `key` than `value` or absence.
    pub(crate) fn must_be(&self, key: &str, value: &Value, why: &str) -> Result<(), BackboneError> {
        match self.get(key) {
            // 1 and 1.0 are the same number.
            Some(found)
                if found != value && (found.as_f64().is_none() || found.as_f64() != value.as_f64()) =>
            {
                Err(self.bad(key, found, format!("only {value} is supported: {why}")))
            }
            _ => Ok(()),
        }
    }

    /// Marks keys of this family that have no effect.
    pub(crate) fn ignore(&self, keys: &[&str]) {
        self.read.borrow_mut().extend(keys.iter().map(|&key| key.to_owned()));
    }

    /// The same with values for keys that it does not have.
    pub(crate) fn with_defaults(mut self, defaults: &[(&str, usize)]) -> Self {
        for (key, default) in defaults {
            self.keys.entry(*key).or_insert_with(|| (*default).into());
        }
        self
    }

    /// Fails if the weights are quantised in a way that is not read.
    pub(crate) fn check_unquantised(&self) -> Result<(), BackboneError> {
        for key in ["quantization_config", "compression_config", "quantization"] {
            let Some(value) = self.get(key).filter(|value| !means_absent(value)) else { continue };
            // MLX writes the same twice, without a name.
            let method = value.get("quant_method").and_then(Value::as_str);
            let method = method.unwrap_or(if key == "quantization" { "MLX" } else { "an unnamed method" });
            let (key, method) = (format!("{}{key}", self.prefix), method.to_owned());
            return Err(BackboneError::Quantised { key, method });
        }
        Ok(())
    }

    /// Fails if any key was neither read nor known to be without effect.
    pub(crate) fn finish(&self) -> Result<(), BackboneError> {
        let read = self.read.borrow();
        let is_known = |key: &str, value: &Value| read.contains(key) || is_harmless(&self.prefix, key, value);
        let unknown = self.keys.iter().filter(|(key, value)| !is_known(key, value));
        let keys: Vec<String> = unknown.map(|(key, _)| format!("{}{key}", self.prefix)).collect();
        if keys.is_empty() {
            Ok(())
        } else {
            Err(BackboneError::UnknownKeys { file: self.file.into(), keys })
        }
    }
}

/// `config.json` without these keys, and which of them it had. A key of an object inside is written with a dot:
/// `rope_scaling.finetuned`. Bytes that are no JSON object stay as they are.
pub(crate) fn without_keys(config: Vec<u8>, ignored: &[String]) -> (Vec<u8>, Vec<String>) {
    let Ok(Value::Object(mut keys)) = serde_json::from_slice(&config) else { return (config, Vec::new()) };
    let mut remove = |path: &String| {
        // A key may have a dot in its name.
        keys.remove(path).is_some()
            || path.split_once('.').is_some_and(|(object, key)| {
                let object = keys.get_mut(object).and_then(Value::as_object_mut);
                object.is_some_and(|object| object.remove(key).is_some())
            })
    };
    let removed: Vec<String> = ignored.iter().filter(|path| remove(path)).cloned().collect();
    if removed.is_empty() {
        (config, removed)
    } else {
        (Value::Object(keys).to_string().into_bytes(), removed)
    }
}

/// A number that is positive and normal in single precision.
fn positive(value: &Value) -> Option<f64> {
    value.as_f64().filter(|n| *n > 0.0 && (*n as f32).is_normal())
}

/// The tokens that end a text, each once: those of `config.json` first.
pub(crate) fn end_tokens(config: &[u8], generation: Option<&[u8]>) -> Result<Vec<Token>, BackboneError> {
    let config = HfConfig::parse(config)?;
    let mut tokens = config.tokens(END_TOKENS)?;
    if let (true, Some(text)) = (tokens.is_empty(), config.object("text_config")?) {
        tokens = text.tokens(END_TOKENS)?;
    }
    if let Some(bytes) = generation {
        for token in HfConfig::parse_file(bytes, "generation_config.json")?.tokens(END_TOKENS)? {
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
    }
    Ok(tokens)
}

const END_TOKENS: &str = "eos_token_id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_tokens_are_one_or_several_and_config_json_has_the_first_word() {
        let read = |config: &str, generation: Option<&str>| {
            end_tokens(config.as_bytes(), generation.map(str::as_bytes)).map_err(|error| error.to_string())
        };
        assert_eq!(read(r#"{"eos_token_id": 7}"#, Some(r#"{"eos_token_id": [9, 7]}"#)), Ok(vec![7, 9]));
        assert_eq!(read(r#"{"eos_token_id": [3, 4]}"#, None), Ok(vec![3, 4]));
        assert_eq!(read(r#"{"eos_token_id": null}"#, Some("{}")), Ok(Vec::new()));
        let wrong = read("{}", Some(r#"{"eos_token_id": "</s>"}"#)).unwrap_err();
        assert!(
            wrong.starts_with("generation_config.json: `eos_token_id` is \"</s>\", a token id"),
            "{wrong}"
        );
        assert!(read("{}", Some("[]")).unwrap_err().starts_with("generation_config.json is not"));
    }
}
