//! Selects the files of a repository to download: those that Foreword reads, in the one format that it reads.

use foreword_backbone::files::{
    ADDED_TOKENS, CHAT_TEMPLATE, CONFIG, GENERATION_CONFIG, INDEX, MERGES, SPECIAL_TOKENS_MAP, TOKENIZER,
    TOKENIZER_CONFIG, VOCAB, WEIGHTS,
};
use foreword_format::HubName;

use crate::error::HubError;

/// Required files besides the weights, if they exist. A tokenizer of the older kind is two files.
pub(crate) fn required(has: impl Fn(&str) -> bool) -> Option<Vec<&'static str>> {
    let kinds: [&[&str]; 2] = [&[CONFIG, TOKENIZER], &[CONFIG, VOCAB, MERGES]];
    kinds.into_iter().find(|files| files.iter().all(|file| has(file))).map(<[_]>::to_vec)
}

/// Files whose absence is noted: a later request must not look for them again.
pub(crate) fn settled() -> impl Iterator<Item = &'static str> {
    OPTIONAL.into_iter().chain([TOKENIZER])
}

/// Optional files.
pub(crate) const OPTIONAL: [&str; 5] =
    [GENERATION_CONFIG, TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS, CHAT_TEMPLATE];

/// The location of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weights {
    /// In one file.
    Whole,
    /// In shards, listed in the index.
    Shards,
}

impl Weights {
    /// The file with the weights or with the index.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Whole => WEIGHTS,
            Self::Shards => INDEX,
        }
    }
}

/// The location of the weights in a repository, if all required files exist.
pub(crate) fn weights(repository: &str, files: &[String]) -> Result<Weights, HubError> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let no_file = |file: &str, hint: &str| HubError::NoFile {
        repository: repository.to_owned(),
        file: file.to_owned(),
        hint: hint.to_owned(),
    };
    let ggufs = ggufs(files);
    if !has(CONFIG) {
        let hint = match ggufs.first() {
            Some(file) => format!("name one of its .gguf files, as {repository}/{file}"),
            None => "it may be no language model, or an adapter, whose base model is what to name".to_owned(),
        };
        return Err(no_file(CONFIG, &hint));
    }
    let weights = match (has(WEIGHTS), has(INDEX)) {
        (true, _) => Weights::Whole,
        (false, true) => Weights::Shards,
        (false, false) => return Err(no_weights(repository, files)),
    };
    if required(has).is_none() {
        return Err(no_file(
            TOKENIZER,
            &format!(
                "vocab.json and merges.txt would do instead; a tokenizer of another kind becomes one in Python: \
                 `AutoTokenizer.from_pretrained('{repository}').save_pretrained('DIR')`, beside the model's other files"
            ),
        ));
    }
    Ok(weights)
}

/// Checks that a named `.gguf` file exists.
pub(crate) fn gguf(name: &HubName, file: &str, files: &[String]) -> Result<(), HubError> {
    if files.iter().any(|there| there == file) {
        return Ok(());
    }
    let ggufs = ggufs(files);
    let hint = match ggufs[..] {
        [] => "it has no .gguf file at all: leave the file's name out".to_owned(),
        _ => format!("its .gguf files are {}", ggufs.join(", ")),
    };
    Err(HubError::NoFile { repository: name.repository().to_owned(), file: file.to_owned(), hint })
}

fn ggufs(files: &[String]) -> Vec<&str> {
    files.iter().map(String::as_str).filter(|file| file.ends_with(".gguf")).collect()
}

fn no_weights(repository: &str, files: &[String]) -> HubError {
    let pickled =
        files.iter().find(|file| file.ends_with(".bin") || file.ends_with(".pt") || file.ends_with(".pth"));
    let ggufs = ggufs(files);
    let (instead, hint) = match (pickled, &ggufs[..]) {
        (_, [file, ..]) => (
            format!("; it has {} .gguf", ggufs.len()),
            format!("name one of its .gguf files, as {repository}/{file}"),
        ),
        (Some(file), _) => (
            format!("; it has {file}, a pickle, which can run code and is never read"),
            format!(
                "convert it once in Python: `AutoModelForCausalLM.from_pretrained('{repository}').save_pretrained('DIR')` and \
                 `AutoTokenizer.from_pretrained('{repository}').save_pretrained('DIR')`, then --model DIR"
            ),
        ),
        (None, []) => (String::new(), "Foreword reads weights in safetensors only".to_owned()),
    };
    HubError::NoWeights { repository: repository.to_owned(), instead, hint }
}
