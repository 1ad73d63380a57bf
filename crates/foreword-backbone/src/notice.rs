//! What is worth knowing of a model that can be used: values, which a front end puts where its warnings go.

use std::fmt;

/// Something about a model's files that may give other tokens than was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The tokenizer of a GGUF file, which does not say all of it.
    GgufTokenizer {
        /// The file.
        file: String,
        /// What it leaves open, how that is taken, and what to do.
        detail: String,
    },
    /// A token whose id is another than the files beside `tokenizer.json` state.
    OtherId {
        /// The token.
        token: String,
        /// The id that is stated.
        stated: u32,
        /// The id that it has.
        id: u32,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GgufTokenizer { file, detail } => write!(f, "{file} {detail}"),
            Self::OtherId { token, stated, id } => write!(
                f,
                "the files beside tokenizer.json give the token {token:?} the id {stated}, but it has the id {id}, here as in \
                 transformers: save the tokenizer again (`tokenizer.save_pretrained(DIR)` in Python), or check which row of the \
                 embedding table is its own"
            ),
        }
    }
}
