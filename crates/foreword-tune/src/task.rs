//! What is asked of a model, all but the soft prompt: how a text becomes tokens, and which labels there are.

use std::time::Instant;

use foreword_backbone::kernels::{Backend, Token};
use foreword_backbone::{BackboneError, Model};

use crate::chat::{Chat, ChatError};
use crate::data::{DataError, Dataset, FieldIdx};
use crate::encode::{EncodeError, Encoder, n_cut};
use crate::pass::{Hidden, Lesson, Query};
use crate::settings::{Method, Objective, Placement, TaskKind};
use crate::stem::{Stem, row_width};
use crate::template::Template;
use crate::verbalizer::{Verbalizer, VerbalizerError};

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
    NoRoom {
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
    pub truths: Truths,
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
            Truths::Labels(labels) => labels,
            Truths::Targets(_) | Truths::Unknown => &[],
        }
    }
}

/// What is to follow the contexts of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truths {
    /// Nobody says.
    Unknown,
    /// A label each, as an index of the verbalizer.
    Labels(Vec<usize>),
    /// Tokens of their own, the end token included.
    Targets(Vec<Vec<Token>>),
}

impl Truths {
    /// For how many examples it is known.
    #[must_use]
    pub fn n(&self) -> usize {
        match self {
            Self::Unknown => 0,
            Self::Labels(labels) => labels.len(),
            Self::Targets(targets) => targets.len(),
        }
    }
}

/// The continuations of every example whose likelihood counts, and which is the true one.
pub(crate) enum Candidates<'a> {
    /// The labels, the same for all; the true one of each.
    Labels(Vec<&'a [Token]>, &'a [usize]),
    /// Each example's target.
    Targets(Vec<[&'a [Token]; 1]>),
}

impl<'a> Candidates<'a> {
    /// Those of a task's examples.
    pub(crate) fn of(task: &'a Task, examples: &'a Examples) -> Self {
        match (&task.goal, &examples.truths) {
            (Goal::Classification(to), _) => Self::Labels(to.continuations(), examples.labels()),
            (Goal::Generation(_), Truths::Targets(targets)) => {
                Self::Targets(targets.iter().map(|target| [target.as_slice()]).collect())
            }
            (Goal::Generation(_), Truths::Labels(_) | Truths::Unknown) => Self::Targets(Vec::new()),
        }
    }

    /// How many examples there are to learn from.
    pub(crate) fn n(&self) -> usize {
        match self {
            Self::Labels(_, truths) => truths.len(),
            Self::Targets(targets) => targets.len(),
        }
    }

    fn continuations(&self, example: usize) -> &[&'a [Token]] {
        match self {
            Self::Labels(labels, _) => labels,
            Self::Targets(targets) => &targets[example],
        }
    }

    /// Example `example` below the only soft prompt.
    pub(crate) fn query<'q>(&'q self, examples: &'q Examples, example: usize) -> Query<'q> {
        let context = &examples.contexts[example];
        Query { hidden: Hidden::NONE, root: 0, context, continuations: self.continuations(example) }
    }

    /// The same with its truth.
    pub(crate) fn lesson<'q>(&'q self, examples: &'q Examples, example: usize) -> Lesson<'q> {
        let truth = match self {
            Self::Labels(_, truths) => truths[example],
            Self::Targets(_) => 0,
        };
        Lesson { query: self.query(examples, example), truth }
    }
}

impl Task {
    /// `max_length`, or what the model's context leaves beside `n_virtual` rows.
    ///
    /// # Errors
    /// If that is nothing.
    pub fn room<B: Backend>(&self, model: &Model<B>, n_virtual: usize) -> Result<usize, TaskError> {
        let context = model.backbone.spec().context;
        match context.checked_sub(n_virtual) {
            Some(left @ 1..) => Ok(self.max_length.min(left)),
            _ => Err(TaskError::NoRoom { n_virtual, context }),
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
        let truths = match (&self.goal, truth_field) {
            (_, None) => Truths::Unknown,
            (Goal::Classification(to), Some(field)) => {
                Truths::Labels(to.verbalizer.label_indices(dataset, field)?)
            }
            (Goal::Generation(to), Some(field)) => Truths::Targets(self.targets(model, *to, dataset, field)?),
        };
        let longest_label = self.verbalizer().map_or(1, Verbalizer::n_tokens_max);
        let examples = self.contexts(model, n_virtual, dataset, truths, longest_label)?;
        Ok(Examples { seconds: start.elapsed().as_secs_f64(), ..examples })
    }

    /// A data set in tokens whose contexts leave room for `reserve` more, or for their own targets.
    ///
    /// # Errors
    /// If a field is missing, or a context does not fit beside what it must leave room for.
    pub fn contexts<B: Backend>(
        &self,
        model: &Model<B>,
        n_virtual: usize,
        dataset: &Dataset,
        truths: Truths,
        reserve: usize,
    ) -> Result<Examples, TaskError> {
        let start = Instant::now();
        let encoder = Encoder {
            tokenizer: &model.tokenizer,
            template: &self.template,
            chat: self.chat.as_ref(),
            text_field: self.text_field.as_deref(),
            max_length: self.room(model, n_virtual)?,
        };
        let encoded = encoder.encode(dataset, |row| match &truths {
            Truths::Targets(targets) => targets[row].len(),
            Truths::Labels(_) | Truths::Unknown => reserve,
        })?;
        let n_cut = n_cut(&encoded);
        let contexts = encoded.into_iter().map(|text| text.tokens).collect();
        Ok(Examples { contexts, truths, n_cut, seconds: start.elapsed().as_secs_f64() })
    }

    /// Whether a space is put between the template and a target: where neither the one ends in white space nor the other
    /// begins with it, as between words. A chat template says itself whether it puts one there.
    #[must_use]
    pub fn is_spaced(&self, target: &str) -> bool {
        let after_words = match &self.chat {
            Some(chat) => chat.is_spaced(),
            None => !self.template.source().ends_with(char::is_whitespace),
        };
        after_words && !target.starts_with(char::is_whitespace)
    }

    /// The tokens of every example's target, the end token last.
    fn targets<B: Backend>(
        &self,
        model: &Model<B>,
        to: Generation,
        dataset: &Dataset,
        field: FieldIdx,
    ) -> Result<Vec<Vec<Token>>, TaskError> {
        let target = |row| {
            let text = dataset.text(row, field)?;
            let space = if self.is_spaced(text) { " " } else { "" };
            let text = format!("{space}{text}");
            let tokens = match self.chat {
                Some(_) => model.tokenizer.encode_verbatim(&text),
                None => model.tokenizer.encode_joined(&text),
            };
            let mut tokens = tokens.map_err(EncodeError::from)?;
            tokens.push(to.end);
            Ok(tokens)
        };
        (0..dataset.n()).map(target).collect()
    }

    /// What stands above these examples; without virtual tokens, the bare model, nothing has to be placed.
    ///
    /// # Errors
    /// If the placement needs a BOS that the tokenizer does not give.
    pub fn stem<'m, B: Backend>(
        &self,
        model: &'m Model<B>,
        examples: &Examples,
        n_virtual: usize,
    ) -> Result<Stem<'m, B>, TaskError> {
        let n_leading = self.leading(model).len();
        match (self.placement, &self.chat) {
            (Placement::AfterBos, None) if n_leading == 0 => return Err(TaskError::NoBos),
            (Placement::AfterBos, Some(_)) if n_leading == 0 => return Err(TaskError::NoChatBos),
            (Placement::System, None) => return Err(TaskError::NoChat),
            _ => {}
        }
        let contexts = examples.contexts.iter().map(Vec::as_slice);
        if n_virtual == 0 {
            let bare = (Method::Prompt, Placement::Front);
            return Ok(Stem::new(&model.backbone, bare, n_leading, contexts)?);
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
        Ok(Stem::new(&model.backbone, (self.method, self.placement), n_leading, contexts)?)
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

impl Classification {
    /// The tokens of each label.
    pub(crate) fn continuations(&self) -> Vec<&[Token]> {
        (0..self.verbalizer.n()).map(|i| self.verbalizer.tokens(i)).collect()
    }
}
