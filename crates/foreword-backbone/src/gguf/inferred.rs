//! What llama.cpp infers about tokens that a file does not state: from their texts, and from the model's name.

use super::Gguf;
use crate::error::BackboneError;
use crate::notice::Notice;

/// Texts of tokens that end a turn or a text. They are special, whatever the file states.
const END_TEXTS: [&str; 19] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
];
/// Phi-3's special tokens that don't strip the space after them.
const NOT_STRIPPING: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// Whether a token is special by its text.
pub(super) fn ends_text(text: &str) -> bool {
    END_TEXTS.contains(&text)
}

/// Which special tokens strip the space after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RightStrip {
    /// None of them.
    None,
    /// Those of Phi-3.
    Phi3,
}

impl RightStrip {
    /// As llama.cpp decides: by the model's name.
    pub(super) fn of(gguf: &Gguf<'_>) -> Result<Self, BackboneError> {
        let name = gguf.text("general.name")?.unwrap_or_default().to_lowercase();
        let is_phi3 = ["phi-3", "phi3"].iter().any(|part| name.contains(part));
        Ok(if is_phi3 { Self::Phi3 } else { Self::None })
    }

    /// Whether this special token does.
    pub(super) fn applies_to(self, text: &str) -> bool {
        self == Self::Phi3 && !NOT_STRIPPING.contains(&text)
    }
}

fn notice(gguf: &Gguf<'_>, detail: impl Into<String>) -> Notice {
    Notice::GgufTokenizer { file: gguf.file.clone(), detail: detail.into() }
}

/// Notices about a file's tokenizer, which is rebuilt from its tokens and their types.
pub(super) fn notices(gguf: &Gguf<'_>) -> Result<Vec<Notice>, BackboneError> {
    let model = gguf.text("tokenizer.ggml.model")?;
    let mut notices = Vec::new();
    let unnamed = gguf.text("tokenizer.ggml.pre")?.is_none_or(|name| name.is_empty());
    if model.as_deref() == Some("gpt2") && unnamed {
        notices.push(notice(
            gguf,
            "has no `tokenizer.ggml.pre`, the name of the way in which its tokenizer cuts texts into words; it cuts as \
             llama.cpp's `default`, and the model may have learned other tokens: convert the model to GGUF again with a \
             current llama.cpp",
        ));
    }
    let architecture = gguf.text("general.architecture")?;
    let is_phi3 = architecture.as_deref() == Some("phi3") && model.as_deref() == Some("llama");
    if is_phi3 && RightStrip::of(gguf)? == RightStrip::None {
        let name = gguf.text("general.name")?.unwrap_or_default().into_owned();
        notices.push(notice(
            gguf,
            format!(
                "is a Phi-3 model named {name:?}: llama.cpp knows by a name with `phi-3` or `phi3` that its special tokens \
                 swallow the space behind them, and without one keeps it, as is done here; in the model's own tokenizer.json \
                 they swallow it: set `general.name` in the file (gguf_new_metadata.py --general-name), or use that model's \
                 directory"
            ),
        ));
    }
    Ok(notices)
}
