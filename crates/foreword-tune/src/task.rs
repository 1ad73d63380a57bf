//! A task, without the soft prompt: how a text becomes tokens, and which labels there are.

pub mod chat;
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
use crate::joint::{Joiner, takes_space};
use crate::settings::{Joining, Method, Objective, Placement, TaskKind};
use crate::template::Template;
use crate::verbalizer::{Verbalizer, VerbalizerError};

pub use foreword_data::truth::GroundTruth;

/// Errors of a task.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// An error in the data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An error in a context.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// An error in a label.
    #[error(transparent)]
    Verbalizer(#[from] VerbalizerError),
    /// An error in the chat template.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// An error of the model.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// A text can't be continued.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// `after-bos` with a tokenizer that adds no BOS.
    #[error(
        "placement after-bos needs a tokenizer that puts a BOS token in front of a text, which this one does not; use \
         front or suffix"
    )]
    NoBos,
    /// `after-bos` in a chat whose template writes no BOS.
    #[error(
        "placement after-bos needs a BOS token in front of a text, and the model's chat template writes none; use front, \
         system or suffix"
    )]
    NoChatBos,
    /// `system` outside a chat.
    #[error(
        "the placement system is one in a chat's system message: take the model's chat template with --template chat"
    )]
    NoChat,
    /// A KV prefix directly before the label.
    #[error(
        "a KV prefix has no row from which a label could be read, so it can't have the placement suffix; use front or \
         after-bos, or the method prompt"
    )]
    PrefixAtEnd,
    /// A text of only the tokens before the KV prefix.
    #[error(
        "a text is empty, and so is the template around it: no token follows a KV prefix after the BOS; use the \
         placement front, or a template"
    )]
    NothingBelow,
    /// No end token for targets.
    #[error(
        "the model names no end token (eos_token_id in config.json), so nothing says where a generated text ends; add it \
         to the model's config.json"
    )]
    NoEndToken,
    /// The task has no labels.
    #[error("the task is to generate texts: it has no labels")]
    NoLabels,
    /// A score is not finite.
    #[error("the model's score of example {example} is not a finite number: its weights may be damaged")]
    NotFinite {
        /// The number of the example, from 1.
        example: usize,
    },
    /// The soft prompt leaves no space for a text.
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
    /// The text around the fields; in a chat, the template of the user message.
    pub template: Template,
    /// The model's chat template around it, if the task is a chat.
    pub chat: Option<Chat>,
    /// The field for `{text}`; guessed if not set.
    pub text_field: Option<String>,
    /// What follows the template.
    pub goal: Goal,
    /// How it is joined to the text: [`Joining::Whole`], except for prompts trained by earlier versions.
    pub joining: Joining,
    /// What is learned: a soft prompt or a KV prefix.
    pub method: Method,
    /// Its placement.
    pub placement: Placement,
    /// Maximum number of tokens of template, text and label or target, without virtual tokens.
    pub max_length: usize,
}

/// The output of a task.
#[derive(Clone, Debug)]
pub enum Goal {
    /// One label of a fixed set for every example.
    Classification(Classification),
    /// A text for each example.
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
    /// The labels and their texts.
    pub verbalizer: Verbalizer,
    /// The loss.
    pub objective: Objective,
}

/// Generation of a text. Its loss is the full-vocabulary cross-entropy of the target's tokens and of the end token,
/// averaged over a batch's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The token that ends every target.
    pub end: Token,
}

impl Generation {
    /// Uses the token that ends an answer in a chat, or the model's own end token.
    ///
    /// # Errors
    /// If the model has no end token.
    pub fn of<B: Backend>(model: &Model<B>, chat: Option<&Chat>) -> Result<Self, TaskError> {
        let end =
            chat.and_then(Chat::end).or(model.end_tokens.first().copied()).ok_or(TaskError::NoEndToken)?;
        Ok(Self { end })
    }
}

/// A tokenised data set.
#[derive(Clone, Debug)]
pub struct Examples {
    /// Every context, of `[T]` tokens.
    pub contexts: Vec<Vec<Token>>,
    /// The label or target of each.
    pub truths: GroundTruth,
    /// The label tokens after contexts where they differ from the usual ones, by example.
    pub unusual: BTreeMap<usize, Continuations>,
    /// Number of truncated texts.
    pub n_cut: usize,
    /// Seconds of tokenisation.
    pub seconds: f64,
}

impl Examples {
    /// Number of examples.
    #[must_use]
    pub fn n(&self) -> usize {
        self.contexts.len()
    }

    /// The labels, by example; empty for generation.
    #[must_use]
    pub fn labels(&self) -> &[usize] {
        match &self.truths {
            GroundTruth::Labels(labels) => labels,
            GroundTruth::Targets(_) | GroundTruth::Unknown => &[],
        }
    }
}

impl Task {
    /// `max_length`, or the space that the model's context leaves next to `n_virtual` rows.
    ///
    /// # Errors
    /// If there is no space.
    pub fn max_tokens<B: Backend>(&self, model: &Model<B>, n_virtual: usize) -> Result<usize, TaskError> {
        let context = model.backbone.spec().context;
        match context.checked_sub(n_virtual) {
            Some(left @ 1..) => Ok(self.max_length.min(left)),
            _ => Err(TaskError::PromptTooLong { n_virtual, context }),
        }
    }

    /// Its objective.
    #[must_use]
    pub fn objective(&self) -> Objective {
        match &self.goal {
            Goal::Classification(to) => to.objective,
            Goal::Generation(_) => Objective::Lm,
        }
    }

    /// The task as a classification.
    ///
    /// # Errors
    /// If it is a generation.
    pub fn classification(&self) -> Result<&Classification, TaskError> {
        match &self.goal {
            Goal::Classification(to) => Ok(to),
            Goal::Generation(_) => Err(TaskError::NoLabels),
        }
    }

    /// The labels and their texts, for classification.
    #[must_use]
    pub fn verbalizer(&self) -> Option<&Verbalizer> {
        self.classification().ok().map(|to| &to.verbalizer)
    }

    /// Tokenises a data set, with its labels or targets if `truth_field` is given.
    ///
    /// # Errors
    /// If a field is missing, a label is unknown, or a context does not fit next to its label or target.
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

    /// Tokenises a data set for generation, with space for `reserve` more tokens.
    ///
    /// # Errors
    /// If a field is missing, or a context does not fit next to the reserved tokens.
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

    /// How its texts, labels and targets become tokens.
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

    /// Tokenises texts followed by labels.
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
                return Err(EncodeError::NoLabelTokens { location: dataset.location(row), string });
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

    /// Number of rows for the labels or the target of an example, next to its context.
    #[must_use]
    pub fn n_leaf_rows(&self, examples: &Examples, example: usize) -> usize {
        let continuations = match (&examples.truths, self.verbalizer()) {
            (GroundTruth::Targets(targets), _) => &targets[example..=example],
            (_, Some(labels)) => examples.unusual.get(&example).unwrap_or(labels.usual()).tokens(),
            (_, None) => &[],
        };
        continuations.iter().map(|tokens| tokens.len().saturating_sub(1)).sum()
    }

    /// Whether a space goes between the template and a target, as between words: if [`takes_space`] requires it and the
    /// target does not begin with whitespace. A chat template decides itself.
    #[must_use]
    pub fn is_spaced(&self, target: &str) -> bool {
        let after_words = match &self.chat {
            Some(chat) => chat.is_spaced(),
            None if self.joining == Joining::Apart => !self.template.source().ends_with(char::is_whitespace),
            None => takes_space(&self.template.sample()),
        };
        after_words && !target.starts_with(char::is_whitespace)
    }

    /// Whether a space at the end of the template is left for the model to generate.
    pub(crate) fn leaves_space(&self) -> bool {
        self.joining == Joining::Whole && self.template.source().ends_with(' ')
    }

    /// Whether labels or targets have other tokens, or labels other ends, than with [`Joining::Whole`]: a prompt of an
    /// earlier version is used as it was trained, but would be trained differently now.
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

    /// Tokenises texts followed by their targets, with the end token last.
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

    /// The tokens at the beginning of all texts that learned rows may follow: the BOS, or with the placement system
    /// everything that a chat template writes before the system message.
    #[must_use]
    pub fn leading<'a, B: Backend>(&'a self, model: &'a Model<B>) -> &'a [Token] {
        self.chat.as_ref().map_or(model.tokenizer.leading(), Chat::leading)
    }

    /// The tokens before the learned rows in all texts.
    #[must_use]
    pub fn above<'a, B: Backend>(&'a self, model: &'a Model<B>) -> &'a [Token] {
        match self.placement {
            Placement::AfterBos | Placement::System => self.leading(model),
            Placement::Front | Placement::Suffix => &[],
        }
    }
}

/// A text's tokens, and what follows it.
type Joined<T> = (Vec<Token>, T);

/// Tokenises every text and what follows it, within the available space; returns the number of truncated texts too.
/// `reserve`: the expected number of tokens after a row's text. If there are more, its text is truncated once more.
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
            return Err(EncodeError::NoSeam { location: dataset.location(row) }.into());
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
