//! Converts soft prompts to KV prefixes: computes the keys and values of the learned rows once and stores them.

use foreword_backbone::kernels::{Backend, Element, Token};
use foreword_backbone::{BackboneError, Model, Save};
use foreword_format::{FormatError, SoftPrompt};

use super::prefix::SharedPrefix;
use crate::settings::{Method, Placement};

/// Why a soft prompt can't become a KV prefix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// With placement suffix, the rows attend to the text of each example.
    #[error(
        "a soft prompt with the placement suffix stands below each text, so its keys and values are other ones for each; \
         only the placements front and after-bos can be compiled"
    )]
    Suffix,
    /// Rows in a system message come after tokens of the chat template.
    #[error("a soft prompt with the placement system can be compiled only with its chat")]
    System,
    /// The widths differ.
    #[error("the soft prompt has rows of width {found}, but the model's have width {expected}")]
    Width {
        /// The width of the soft prompt.
        found: usize,
        /// The width of the model.
        expected: usize,
    },
    /// The model failed.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// The computed numbers are not valid.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// The model's keys and values for a placed soft prompt `[P, H]`: a KV prefix `[P, L·2·K·D]` that gives every text the same
/// score, to the bit, and costs no computation.
///
/// # Errors
/// If the placement is suffix, the width differs, or the soft prompt is longer than the model's context.
pub fn compile<B: Backend>(
    model: &Model<B>,
    placement: Placement,
    rows: &SoftPrompt,
) -> Result<SoftPrompt, CompileError> {
    match placement {
        Placement::Front => compile_below(model, &[], rows),
        Placement::AfterBos => compile_below(model, model.tokenizer.leading(), rows),
        Placement::System => Err(CompileError::System),
        Placement::Suffix => Err(CompileError::Suffix),
    }
}

/// As [`compile`], for a soft prompt after these tokens, with which all texts begin ([`Task::above`]).
///
/// # Errors
/// If its width differs, or it is longer than the model's context.
///
/// [`Task::above`]: crate::task::Task::above
pub fn compile_below<B: Backend>(
    model: &Model<B>,
    leading: &[Token],
    rows: &SoftPrompt,
) -> Result<SoftPrompt, CompileError> {
    let backbone = &model.backbone;
    let (expected, found) = (backbone.spec().hidden, rows.width());
    if expected != found {
        return Err(CompileError::Width { found, expected });
    }
    // Only the tokens before it are shared.
    let place = (Method::Prompt, Placement::AfterBos);
    let shared = SharedPrefix::new(backbone, place, leading.len(), [leading])?;
    let prefilled = shared.prefill(&[rows.values()], Save::None)?;
    let made = prefilled.prefixes[0].values(backbone.backend()).into_iter().map(Element::as_f32).collect();
    Ok(SoftPrompt::new(made, rows.n_virtual(), backbone.spec().cache_width())?)
}
