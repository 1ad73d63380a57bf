//! Errors of models.

use std::path::PathBuf;

/// Why a model can't be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackboneError {
    /// A file of the model can't be read.
    #[error("can't read {path}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// No model there.
    #[error(
        "{path} is no model directory: it has no {missing}; a Hugging Face directory holds config.json, tokenizer.json \
         and model.safetensors (or its shards with model.safetensors.index.json){hint}",
        path = .path.display()
    )]
    NotAModel {
        /// The directory.
        path: PathBuf,
        /// The missing file.
        missing: &'static str,
        /// What to do about it, if known.
        hint: &'static str,
    },
    /// `config.json` or the shard index is no JSON object.
    #[error("{file} is not a JSON object: {detail}")]
    Json {
        /// The file.
        file: String,
        /// Where and why.
        detail: String,
    },
    /// The architecture is not one of ours.
    #[error("config.json: model_type `{found}` is not supported; supported are {supported}")]
    UnknownArchitecture {
        /// The value in the file.
        found: String,
        /// The families, comma-separated.
        supported: String,
    },
    /// A key is missing from `config.json`.
    #[error("config.json: `{key}` is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A key has a value that can't be used.
    #[error("{file}: `{key}` is {found}, {expected}")]
    BadKey {
        /// The file.
        file: &'static str,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What would be understood, with the reason.
        expected: String,
    },
    /// Unknown keys, which might change what the model computes.
    #[error(
        "{file}: {keys} not understood: the model might compute something else than Foreword would",
        keys = subject(.keys)
    )]
    UnknownKeys {
        /// The file.
        file: String,
        /// The keys.
        keys: Vec<String>,
    },
    /// The weights are quantised in a way that is not read.
    #[error("config.json: `{key}`: the weights are quantised by {method}, which is not read; {advice}", advice = unquantised(.method))]
    Quantised {
        /// The key.
        key: String,
        /// `quant_method`, or a description.
        method: String,
    },
    /// A weights file is damaged.
    #[error("{file}: not a whole safetensors file ({detail}); download or copy it again")]
    Safetensors {
        /// The file.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// A GGUF file is damaged, or of a kind that is not read.
    #[error("{file}: not a GGUF file that can be read: {detail}")]
    Gguf {
        /// The file.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// The metadata of a GGUF file has an unsupported value.
    #[error("{file}: {detail}")]
    GgufMetadata {
        /// The file.
        file: String,
        /// The key, and what is wrong with it.
        detail: String,
    },
    /// A model can't be written as a GGUF file.
    #[error("the model can't be written as GGUF: {detail}")]
    Unwritable {
        /// Why, and what to do.
        detail: String,
    },
    /// A GGUF file can't be written.
    #[error("can't write the GGUF file")]
    Write(#[source] std::io::Error),
    /// Writing was cancelled.
    #[error("stopped before the file was whole; nothing was written")]
    Stopped,
    /// A tensor is not there.
    #[error("tensor `{name}` {shape:?} is missing from the weights")]
    MissingTensor {
        /// Its full name, without the file's prefix.
        name: String,
        /// The shape it should have.
        shape: Vec<usize>,
    },
    /// A tensor has another shape than config.json states.
    #[error("tensor `{name}` has shape {found:?}, but config.json asks for {expected:?}")]
    TensorShape {
        /// Its name.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape by config.json.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a format that is not read.
    #[error("tensor `{name}` is stored as {found}, which is not read; {hint}")]
    TensorDtype {
        /// Its name.
        name: String,
        /// The format.
        found: String,
        /// The formats that are, and how to convert the file.
        hint: &'static str,
    },
    /// A tensor is in two files.
    #[error(
        "{file}: tensor `{name}` is in another file, too, and model.safetensors.index.json does not say which one counts: remove \
         the file that is not part of the model"
    )]
    DuplicateTensor {
        /// The second file.
        file: String,
        /// The tensor.
        name: String,
    },
    /// A head for another purpose in place of the language model's.
    #[error(
        "the model has no language head (`{head}`), but `{other}`: it was saved as a classifier or a reward model, which gives \
         scores and not texts; use the language model that it was made from"
    )]
    NoLanguageHead {
        /// The missing tensor.
        head: String,
        /// The tensor of the other head.
        other: String,
    },
    /// A tensor holds NaN or an infinity.
    #[error("tensor `{name}` holds a number that is not finite")]
    NotFinite {
        /// Its name.
        name: String,
    },
    /// Tensors that the architecture has no place for.
    #[error("the weights hold {n} tensors that a {family} model has no place for, such as `{example}`")]
    LeftoverTensors {
        /// How many.
        n: usize,
        /// The architecture.
        family: String,
        /// The first by name.
        example: String,
    },
    /// A tied head that is not the embedding table.
    #[error(
        "config.json says that the head is the embedding table, but `{name}` holds other numbers; set \
         tie_word_embeddings to false if the stored head is meant, or take the tensor out of the file"
    )]
    UntiedHead {
        /// The head's tensor.
        name: String,
    },
    /// The tokenizer knows more entries than the model has embeddings.
    #[error("tokenizer.json has tokens up to number {largest}, but the model embeds only {model}, from 0")]
    VocabularyTooSmall {
        /// Largest id of the tokenizer.
        largest: u32,
        /// Rows of the embedding table.
        model: usize,
    },
    /// A file next to `tokenizer.json` has an unsupported value.
    #[error("{file}: {detail}")]
    TokenizerFile {
        /// The file.
        file: &'static str,
        /// Where, and what is wrong.
        detail: String,
    },
    /// The processor can't be used.
    #[error(transparent)]
    Cpu(#[from] foreword_kernels::CpuError),
    /// A row's position is beyond the model's context.
    #[error("position {position} is beyond the model's context of {context}")]
    BeyondContext {
        /// The last position.
        position: usize,
        /// Positions the model has.
        context: usize,
    },
    /// tokenizer.json can't be used.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),
}

/// Keys as the subject of a sentence.
fn subject(keys: &[String]) -> String {
    let verb = if keys.len() == 1 { "is" } else { "are" };
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    format!("{} {verb}", keys.join(", "))
}

/// How to get the model's weights in a format that is read.
fn unquantised(method: &str) -> &'static str {
    match method {
        "bitsandbytes" | "fp8" | "mxfp4" | "hqq" | "quanto" => {
            "write them plain in Python, `AutoModelForCausalLM.from_pretrained(DIR).dequantize().save_pretrained(OUT)`, or use \
             the model that it was made from, or a GGUF file of it"
        }
        _ => {
            "use the model that it was made from, in f32, bf16 or f16, or a GGUF file of it (`foreword quantise` writes one)"
        }
    }
}
