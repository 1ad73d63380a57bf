//! Warnings about a model that can be used, as values.

use std::fmt;

/// A property of a model's files that may give other tokens than intended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The tokenizer of a GGUF file, which doesn't state all of it.
    GgufTokenizer {
        /// The file.
        file: String,
        /// What is missing, how it is interpreted, and what to do.
        detail: String,
    },
    /// Tensors of heads for other purposes beside the whole language model.
    ExtraTensors {
        /// How many.
        n: usize,
        /// The first by name.
        example: String,
    },
    /// A token whose id differs from that in the files next to `tokenizer.json`.
    OtherId {
        /// The token.
        token: String,
        /// The id in those files.
        stated: u32,
        /// The id that it has.
        id: u32,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GgufTokenizer { file, detail } => write!(f, "{file} {detail}"),
            Self::ExtraTensors { n, example } => {
                let more = if *n > 1 { format!(" and {} more", n - 1) } else { String::new() };
                write!(
                    f,
                    "the weights hold `{example}`{more} beside the language model, as a head for classes, rewards or values or the \
                     scales of a cache do: what belongs to it is left out"
                )
            }
            Self::OtherId { token, stated, id } => write!(
                f,
                "the files beside tokenizer.json give the token {token:?} the id {stated}, but it has the id {id}, here as in \
                 transformers: save the tokenizer again (`tokenizer.save_pretrained(DIR)` in Python), or check which row of the \
                 embedding table is its own"
            ),
        }
    }
}
