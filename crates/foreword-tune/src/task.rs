//! What is asked of a model, all but the soft prompt: how a text becomes tokens, and which labels there are.

pub mod chat;
pub(crate) mod continuation_set;
pub mod continuations;
pub mod encode;
pub mod joint;
pub mod verbalizer;

use std::collections::BTreeMap;
use std::time::Instant;

use foreword_backbone::kernels::{Backend, Token};
use foreword_backbone::{BackboneError, Model};
use rayon::prelude::*;

use crate::chat::{Chat, ChatError};
use crate::continuations::Continuations;
use crate::data::{DataError, Dataset, FieldIdx};
use crate::encode::{EncodeError, EncodedText, Encoder, n_cut};
use crate::engine::generator::AdmitError;
use crate::engine::prefix::{SharedPrefix, row_width};
use crate::joint::{Joiner, takes_space};
use crate::settings::{Joining, Method, Objective, Placement, TaskKind};
use crate::template::Template;
use crate::verbalizer::{Verbalizer, VerbalizerError};

pub use foreword_data::truth::GroundTruth;

/// Why a task can't be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A context.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A label.
    #[error(transparent)]
    Verbalizer(#[from] VerbalizerError),
    /// The chat template.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The model.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// A text can't be gone on with.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// `after-bos` with a tokenizer that puts nothing in front.
    #[error(
        "placement after-bos needs a tokenizer that puts a BOS token in front of a text, which this one does not; use \
         front or suffix"
    )]
    NoBos,
    /// `after-bos` in a chat whose template writes none.
    #[error(
        "placement after-bos needs a BOS token in front of a text, and the model's chat template writes none; use front, \
         system or suffix"
    )]
    NoChatBos,
    /// `system` outside of a chat.
    #[error(
        "the placement system is one in a chat's system message: take the model's chat template with --template chat"
    )]
    NoChat,
    /// A KV prefix right before the label.
    #[error(
        "a KV prefix has no row from which a label could be read, so it can't have the placement suffix; use front or \
         after-bos, or the method prompt"
    )]
    PrefixAtEnd,
    /// A text of nothing but what stands before the KV prefix.
    #[error(
        "a text is empty, and so is the template around it: nothing stands below a KV prefix after the BOS; use the \
         placement front, or a template"
    )]
    NothingBelow,
    /// A target needs an end.
    #[error(
        "the model names no end token (eos_token_id in config.json), so nothing says where a generated text ends; add it \
         to the model's config.json"
    )]
    NoEndToken,
    /// Labels are asked of a task that has none.
    #[error("the task is to generate texts: it has no labels")]
    NoLabels,
    /// A score that is no number.
    #[error("the model's score of example {example} is not a finite number: its weights may be damaged")]
    NotFinite {
        /// Which one, from 1.
        example: usize,
    },
    /// The soft prompt leaves no room for a text.
    #[error("{n_virtual} virtual tokens do not fit into the model's context of {context}; use fewer")]
    PromptTooLong {
        /// P.
        n_virtual: usize,
        /// Positions of the model.
        context: usize,
    },
}

/// A task.
#[derive(Clone, Debug)]
pub struct Task {
    /// The text around the fields; in a chat, that of the user's message.
    pub template: Template,
    /// The model's chat template around that, where the task is a chat.
    pub chat: Option<Chat>,
    /// The field that `{text}` means; guessed where it is not stated.
    pub text_field: Option<String>,
    /// What follows the template.
    pub goal: Goal,
    /// How that is joined to the text: [`Joining::Whole`], but for prompts that earlier versions trained.
    pub joining: Joining,
    /// What is learned.
    pub method: Method,
    /// Where it stands.
    pub placement: Placement,
    /// The most tokens of template, text and label or target, without virtual tokens.
    pub max_length: usize,
}

/// What a task is to come to.
#[derive(Clone, Debug)]
pub enum Goal {
    /// One of the same labels for every example.
    Classification(Classification),
    /// A text, each example's own.
    Generation(Generation),
}

impl Goal {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> TaskKind {
        match self {
            Self::Classification(_) => TaskKind::Classification,
            Self::Generation(_) => TaskKind::Generation,
        }
    }
}

/// A choice among labels.
#[derive(Clone, Debug)]
pub struct Classification {
    /// The labels and their strings.
    pub verbalizer: Verbalizer,
    /// What the loss is.
    pub objective: Objective,
}

/// The writing of a text. Its loss is the full-vocabulary cross-entropy of the target's tokens and of the end token, the mean
/// over a batch's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The token that ends every target.
    pub end: Token,
}

impl Generation {
    /// With the token that ends an answer in a chat, or the model's own end token.
    ///
    /// # Errors
    /// If the model names none.
    pub fn of<B: Backend>(model: &Model<B>, chat: Option<&Chat>) -> Result<Self, TaskError> {
        let end =
            chat.and_then(Chat::end).or(model.end_tokens.first().copied()).ok_or(TaskError::NoEndToken)?;
        Ok(Self { end })
    }
}

/// A data set in tokens.
#[derive(Clone, Debug)]
pub struct Examples {
    /// Every context, `[T]` tokens of its own.
    pub contexts: Vec<Vec<Token>>,
    /// What is to follow each.
    pub truths: GroundTruth,
    /// The labels' tokens behind contexts behind which they are not the usual ones, by example.
    pub unusual: BTreeMap<usize, Continuations>,
    /// How many were cut to fit.
    pub n_cut: usize,
    /// Seconds that tokenising took.
    pub seconds: f64,
}

impl Examples {
    /// Number of examples.
    #[must_use]
    pub fn n(&self) -> usize {
        self.contexts.len()
    }

    /// The labels, by example; none where there are none.
    #[must_use]
    pub fn labels(&self) -> &[usize] {
        match &self.truths {
            GroundTruth::Labels(labels) => labels,
            GroundTruth::Targets(_) | GroundTruth::Unknown => &[],
        }
    }
}

impl Task {
    /// `max_length`, or what the model's context leaves beside `n_virtual` rows.
    ///
    /// # Errors
    /// If that is nothing.
    pub fn max_tokens<B: Backend>(&self, model: &Model<B>, n_virtual: usize) -> Result<usize, TaskError> {
        let context = model.backbone.spec().context;
        match context.checked_sub(n_virtual) {
            Some(left @ 1..) => Ok(self.max_length.min(left)),
            _ => Err(TaskError::PromptTooLong { n_virtual, context }),
        }
    }

    /// What its loss is.
    #[must_use]
    pub fn objective(&self) -> Objective {
        match &self.goal {
            Goal::Classification(to) => to.objective,
            Goal::Generation(_) => Objective::Lm,
        }
    }

    /// The choice that the task is.
    ///
    /// # Errors
    /// If it is to generate texts.
    pub fn classification(&self) -> Result<&Classification, TaskError> {
        match &self.goal {
            Goal::Classification(to) => Ok(to),
            Goal::Generation(_) => Err(TaskError::NoLabels),
        }
    }

    /// The labels and their strings, where it has labels.
    #[must_use]
    pub fn verbalizer(&self) -> Option<&Verbalizer> {
        self.classification().ok().map(|to| &to.verbalizer)
    }

    /// A data set in tokens, with its labels or targets where `truth_field` says where they are.
    ///
    /// # Errors
    /// If a field is missing, a label is unknown, or a context does not fit beside its label or target.
    pub fn examples<B: Backend>(
        &self,
        model: &Model<B>,
        n_virtual: usize,
        dataset: &Dataset,
        truth_field: Option<FieldIdx>,
    ) -> Result<Examples, TaskError> {
        let start = Instant::now();
        let examples = match (&self.goal, truth_field) {
            (Goal::Classification(to), field) => {
                let indices = |field| to.verbalizer.label_indices(dataset, field);
                let truths =
                    field.map(indices).transpose()?.map_or(GroundTruth::Unknown, GroundTruth::Labels);
                self.labelled(model, n_virtual, dataset, (&to.verbalizer, truths))?
            }
            (Goal::Generation(to), Some(field)) => self.targeted(model, n_virtual, dataset, (*to, field))?,
            (Goal::Generation(_), None) => self.opened(model, n_virtual, dataset, 1)?,
        };
        Ok(Examples { seconds: start.elapsed().as_secs_f64(), ..examples })
    }

    /// A data set in tokens for the model to go on with, with room for `reserve` tokens more.
    ///
    /// # Errors
    /// If a field is missing, or a context does not fit beside what it must leave room for.
    pub fn opened<B: Backend>(
        &self,
        model: &Model<B>,
        n_virtual: usize,
        dataset: &Dataset,
        reserve: usize,
    ) -> Result<Examples, TaskError> {
        let start = Instant::now();
        let encoded = self.encoder(model, n_virtual, true)?.encode(dataset, |_| reserve)?;
        let n_cut = n_cut(&encoded);
        Ok(Examples {
            contexts: encoded.into_iter().map(|text| text.tokens).collect(),
            truths: GroundTruth::Unknown,
            unusual: BTreeMap::new(),
            n_cut,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// How its texts and what follows them become tokens.
    #[must_use]
    pub fn joiner<'a, B: Backend>(&'a self, model: &'a Model<B>) -> Joiner<'a> {
        Joiner { tokenizer: &model.tokenizer, chat: self.chat.as_ref(), joining: self.joining }
    }

    fn encoder<'a, B: Backend>(
        &'a self,
        model: &'a Model<B>,
        n_virtual: usize,
        opens: bool,
    ) -> Result<Encoder<'a>, TaskError> {
        Ok(Encoder {
            joiner: self.joiner(model),
            template: &self.template,
            text_field: self.text_field.as_deref(),
            max_length: self.max_tokens(model, n_virtual)?,
            opens,
        })
    }

    /// Texts with the labels behind them.
    fn labelled<B: Backend>(
        &self,
        model: &Model<B>,
        n_virtual: usize,
        dataset: &Dataset,
        (verbalizer, truths): (&Verbalizer, GroundTruth),
    ) -> Result<Examples, TaskError> {
        let encoder = self.encoder(model, n_virtual, false)?;
        let (strings, usual) = (verbalizer.strings(), verbalizer.usual().candidates());
        let join = |row: usize, text: &EncodedText| {
            if self.joining == Joining::Apart {
                return Ok((text.tokens.clone(), usual.to_vec()));
            }
            let joined = encoder.joiner.labels(&text.text, &text.tokens, strings)?;
            if let Some(label) = joined.answers.iter().position(Vec::is_empty) {
                let string = strings[label].clone();
                return Err(EncodeError::NoLabelTokens { place: dataset.place(row), string });
            }
            Ok((joined.context, joined.answers))
        };
        let longest = |answers: &Vec<Vec<Token>>| answers.iter().map(Vec::len).max().unwrap_or(0);
        let (joined, n_cut) = joined(&encoder, dataset, |_| verbalizer.n_tokens_max(), join, longest)?;
        let mut contexts = Vec::with_capacity(joined.len());
        let mut unusual = BTreeMap::new();
        for (row, (context, answers)) in joined.into_iter().enumerate() {
            contexts.push(context);
            if answers != usual {
                unusual.insert(row, Continuations::ended(answers));
            }
        }
        Ok(Examples { contexts, truths, unusual, n_cut, seconds: 0.0 })
    }

    /// Rows that the labels or the target of an example take beside its context.
    #[must_use]
    pub fn n_leaf_rows(&self, examples: &Examples, example: usize) -> usize {
        let continuations = match (&examples.truths, self.verbalizer()) {
            (GroundTruth::Targets(targets), _) => &targets[example..=example],
            (_, Some(labels)) => examples.unusual.get(&example).unwrap_or(labels.usual()).tokens(),
            (_, None) => &[],
        };
        continuations.iter().map(|tokens| tokens.len().saturating_sub(1)).sum()
    }

    /// Whether a space is put between the template and a target, as between words: where [`takes_space`] says so and the target does
    /// not begin with white space. A chat template says itself whether it puts one there.
    #[must_use]
    pub fn is_spaced(&self, target: &str) -> bool {
        let after_words = match &self.chat {
            Some(chat) => chat.is_spaced(),
            None if self.joining == Joining::Apart => !self.template.source().ends_with(char::is_whitespace),
            None => takes_space(&self.template.sample()),
        };
        after_words && !target.starts_with(char::is_whitespace)
    }

    /// Whether a space at the template's end is left to the text that the model writes.
    pub(crate) fn leaves_space(&self) -> bool {
        self.joining == Joining::Whole && self.template.source().ends_with(' ')
    }

    /// Whether labels or targets have other tokens, or labels other ends, than where they are joined as [`Joining::Whole`]
    /// says: a prompt of an earlier version is used as it was trained, and would be trained otherwise now.
    ///
    /// # Errors
    /// If a text can't be tokenised.
    pub fn is_joined_otherwise<B: Backend>(&self, model: &Model<B>) -> Result<bool, TaskError> {
        if self.joining == Joining::Whole {
            return Ok(false);
        }
        let (here, whole) = (self.joiner(model), Joiner { joining: Joining::Whole, ..self.joiner(model) });
        let text = self.template.sample();
        match &self.goal {
            Goal::Classification(to) => {
                let (context, strings) = (here.context(&text)?, to.verbalizer.strings());
                let joined = whole.labels(&text, &context, strings)?;
                let ended = Continuations::ended(joined.answers.clone());
                Ok(joined != here.labels(&text, &context, strings)? || !ended.extended().is_empty())
            }
            Goal::Generation(_) => {
                let target = if self.is_spaced("a") { " a" } else { "a" };
                let joined = whole.target(&text, &whole.opening(&text)?, target)?;
                Ok(joined != here.target(&text, &here.opening(&text)?, target)?)
            }
        }
    }

    /// Texts with their targets behind them, the end token last.
    fn targeted<B: Backend>(
        &self,
        model: &Model<B>,
        n_virtual: usize,
        dataset: &Dataset,
        (to, field): (Generation, FieldIdx),
    ) -> Result<Examples, TaskError> {
        let encoder = self.encoder(model, n_virtual, true)?;
        let written = |row| {
            let text = dataset.text(row, field)?;
            let space = if self.is_spaced(text) { " " } else { "" };
            Ok::<_, DataError>(format!("{space}{text}"))
        };
        let targets = (0..dataset.n()).map(written).collect::<Result<Vec<_>, _>>()?;
        let reserved = |target: &String| Ok(encoder.joiner.apart(target)?.len() + 1);
        let reserved = targets.par_iter().map(reserved).collect::<Result<Vec<_>, EncodeError>>()?;
        let join = |row: usize, text: &EncodedText| {
            let (context, mut target) = encoder.joiner.target(&text.text, &text.tokens, &targets[row])?;
            target.push(to.end);
            Ok((context, target))
        };
        let (joined, n_cut) = joined(&encoder, dataset, |row| reserved[row], join, Vec::len)?;
        let (contexts, targets) = joined.into_iter().unzip();
        let truths = GroundTruth::Targets(targets);
        Ok(Examples { contexts, truths, unusual: BTreeMap::new(), n_cut, seconds: 0.0 })
    }

    /// What stands above these examples; without virtual tokens, the bare model, nothing has to be placed.
    ///
    /// # Errors
    /// If the placement needs a BOS that the tokenizer does not give.
    pub fn shared_prefix<'m, B: Backend>(
        &self,
        model: &'m Model<B>,
        examples: &Examples,
        n_virtual: usize,
    ) -> Result<SharedPrefix<'m, B>, TaskError> {
        self.shared_prefix_of(model, &examples.contexts, n_virtual)
    }

    /// The same for these contexts.
    pub(crate) fn shared_prefix_of<'m, B: Backend>(
        &self,
        model: &'m Model<B>,
        contexts: &[Vec<Token>],
        n_virtual: usize,
    ) -> Result<SharedPrefix<'m, B>, TaskError> {
        let n_leading = self.leading(model).len();
        match (self.placement, &self.chat) {
            (Placement::AfterBos, None) if n_leading == 0 => return Err(TaskError::NoBos),
            (Placement::AfterBos, Some(_)) if n_leading == 0 => return Err(TaskError::NoChatBos),
            (Placement::System, None) => return Err(TaskError::NoChat),
            _ => {}
        }
        let contexts = contexts.iter().map(Vec::as_slice);
        if n_virtual == 0 {
            let bare = (Method::Prompt, Placement::Front);
            return Ok(SharedPrefix::new(&model.backbone, bare, n_leading, contexts)?);
        }
        if self.method == Method::Prefix {
            match self.placement {
                Placement::Suffix => return Err(TaskError::PrefixAtEnd),
                Placement::AfterBos | Placement::System
                    if contexts.clone().any(|context| context.len() <= n_leading) =>
                {
                    return Err(TaskError::NothingBelow);
                }
                Placement::Front | Placement::AfterBos | Placement::System => {}
            }
        }
        Ok(SharedPrefix::new(&model.backbone, (self.method, self.placement), n_leading, contexts)?)
    }

    /// The tokens that all texts begin with and that learned rows may stand after: the BOS, or under the placement system all
    /// that a chat template writes before the system message.
    #[must_use]
    pub fn leading<'a, B: Backend>(&'a self, model: &'a Model<B>) -> &'a [Token] {
        self.chat.as_ref().map_or(model.tokenizer.leading(), Chat::leading)
    }

    /// The tokens that stand before the learned rows in all texts.
    #[must_use]
    pub fn above<'a, B: Backend>(&'a self, model: &'a Model<B>) -> &'a [Token] {
        match self.placement {
            Placement::AfterBos | Placement::System => self.leading(model),
            Placement::Front | Placement::Suffix => &[],
        }
    }

    /// W, the numbers of a learned row: H, or L·2·K·D for a KV prefix.
    #[must_use]
    pub fn row_width<B: Backend>(&self, model: &Model<B>) -> usize {
        row_width(model.backbone.spec(), self.method)
    }
}

/// A text's tokens, and what follows them.
type Joined<T> = (Vec<Token>, T);

/// Every text and what follows it, in tokens, within the room that there is; and how many texts were cut. `reserve`: the tokens
/// that are likely to follow a row's text. Where more do, its text is cut once more.
fn joined<T: Send>(
    encoder: &Encoder<'_>,
    dataset: &Dataset,
    reserve: impl Fn(usize) -> usize,
    join: impl Fn(usize, &EncodedText) -> Result<Joined<T>, EncodeError> + Sync,
    n_after: impl Fn(&T) -> usize,
) -> Result<(Vec<Joined<T>>, usize), TaskError> {
    let mut more: BTreeMap<usize, usize> = BTreeMap::new();
    loop {
        let reserved = |row: usize| reserve(row) + more.get(&row).copied().unwrap_or(0);
        let encoded = encoder.encode(dataset, reserved)?;
        let joined = encoded.par_iter().enumerate().map(|(row, text)| join(row, text));
        let joined = joined.collect::<Result<Vec<_>, _>>()?;
        if let Some(row) = joined.iter().position(|(context, _)| context.is_empty()) {
            return Err(EncodeError::NoSeam { place: dataset.place(row) }.into());
        }
        let too_long = joined.iter().enumerate().filter_map(|(row, (context, after))| {
            let excess = (context.len() + n_after(after)).checked_sub(encoder.max_length)?;
            (excess > 0).then_some((row, excess))
        });
        let too_long: Vec<(usize, usize)> = too_long.collect();
        if too_long.is_empty() {
            return Ok((joined, n_cut(&encoded)));
        }
        too_long.into_iter().for_each(|(row, excess)| *more.entry(row).or_default() += excess);
    }
}
