//! Context tuning (Lu et al. 2025): a prompt initialised with demonstrations, which are labelled examples, and trained from
//! there.

use std::ops::Range;

use foreword_backbone::kernels::{Backend, Element, Forest, Parent, Token};
use foreword_backbone::{Input, Model, Save};
use foreword_format::SoftPrompt;

use crate::data::split::rounds;
use crate::engine::continuation_set::ContinuationSet;
use crate::engine::example::{Example, MaskedSpan};
use crate::init::InitError;
use crate::settings::{Method, Placement};
use crate::task::{Examples, Task, TaskError};

/// The separator between two demonstrations.
const BETWEEN: &str = "\n\n";

/// A training example in the init of a prompt, and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demonstration {
    /// Its index among the training examples.
    pub example: usize,
    /// Its virtual tokens.
    pub rows: Range<usize>,
}

/// A prompt made of demonstrations.
#[derive(Clone, Debug)]
pub struct DemonstrationPrompt {
    /// The initial rows, `[P, W]`.
    pub start: SoftPrompt,
    /// The position of each.
    pub demonstrations: Vec<Demonstration>,
}

/// The rows of a prompt that are masked for an example in it.
#[must_use]
pub fn masked(demonstrations: &[Demonstration], example: usize) -> MaskedSpan {
    let own = demonstrations.iter().find(|demonstration| demonstration.example == example);
    own.map_or(MaskedSpan::NONE, |own| MaskedSpan { first: own.rows.start, n: own.rows.len() })
}

/// As many whole demonstrations from `examples` as fit into `most` virtual tokens, alternating between labels, sampled with
/// `seed`. At the front they begin with the model's BOS. For a KV prefix each is processed on its own, at its position, so
/// that only its own keys and values depend on it; the rows of a soft prompt are embeddings.
///
/// # Errors
/// If the task has no labels, the placement is suffix, or not even one demonstration fits.
pub fn demonstrations<B: Backend>(
    model: &Model<B>,
    task: &Task,
    examples: &Examples,
    most: usize,
    seed: u64,
) -> Result<DemonstrationPrompt, InitError> {
    task.classification()?;
    let candidates = ContinuationSet::of(task, examples);
    if task.placement == Placement::Suffix && task.method == Method::Prefix {
        return Err(TaskError::PrefixAtEnd.into());
    }
    let n_leading = task.leading(model).len();
    let between = model.tokenizer.encode_plain(BETWEEN)?;
    let mut tokens: Vec<Token> = match task.placement {
        Placement::Front => task.leading(model).to_vec(),
        Placement::AfterBos | Placement::System | Placement::Suffix => Vec::new(),
    };
    let n_first = tokens.len();
    let mut found: Vec<Demonstration> = Vec::new();
    let labels = examples.labels();
    for example in rounds(labels, labels.len(), seed).into_iter().flatten() {
        let context = &examples.contexts[example];
        let Example { continuations, truth, .. } = candidates.example(examples, example);
        let shown = [&context[n_leading.min(context.len())..], continuations[truth], &between].concat();
        if tokens.len() + shown.len() <= most {
            found.push(Demonstration { example, rows: tokens.len()..tokens.len() + shown.len() });
            tokens.extend(shown);
        }
    }
    if found.is_empty() {
        return Err(InitError::NoDemonstration { most });
    }
    let start = match task.method {
        Method::Prompt => {
            let values = model.backbone.backend().values(&model.backbone.embed(&tokens));
            let values = values.into_iter().map(Element::as_f32).collect();
            SoftPrompt::new(values, tokens.len(), model.backbone.spec().hidden)?
        }
        Method::Prefix => apart(model, task.above(model), (&tokens, n_first), &found)?,
    };
    Ok(DemonstrationPrompt { start, demonstrations: found })
}

/// Keys and values of demonstrations that do not attend to each other, each at its position.
fn apart<B: Backend>(
    model: &Model<B>,
    above: &[Token],
    (tokens, n_first): (&[Token], usize),
    demonstrations: &[Demonstration],
) -> Result<SoftPrompt, InitError> {
    let backbone = &model.backbone;
    // The tokens before all of them: the BOS, which is learned at the front and frozen after the BOS.
    let above = [above, &tokens[..n_first]].concat();
    let n_above = above.len();
    let all = [&above[..], &tokens[n_first..]].concat();
    let mut forest = Forest::new();
    let root = forest.push(Parent::Root, n_above);
    for Demonstration { rows, .. } in demonstrations {
        let at = n_above + rows.start - n_first;
        forest.push(Parent::SegmentAt(root, at), rows.len());
    }
    let input = Input {
        rows: backbone.embed(&all),
        forest: &forest,
        context: &[],
        output_rows: &[],
        save: Save::None,
    };
    let output = backbone.forward(input).map_err(TaskError::from)?;
    let width = backbone.spec().cache_width();
    let values: Vec<f32> =
        output.key_values.values(backbone.backend()).into_iter().map(Element::as_f32).collect();
    // A frozen BOS is not part of the prefix.
    let n_frozen = n_above - n_first;
    Ok(SoftPrompt::new(values[n_frozen * width..].to_vec(), tokens.len(), width)?)
}
