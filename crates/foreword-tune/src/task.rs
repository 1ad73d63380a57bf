//! What is asked of a model, all but the soft prompt: how a text becomes tokens, and which labels there are.

use std::time::Instant;

use foreword_backbone::kernels::{Backend, Token};
use foreword_backbone::{BackboneError, Model};

use crate::data::{DataError, Dataset, FieldIdx};
use crate::encode::{EncodeError, Encoder, n_cut};
use crate::metrics::{Confusion, Evaluation};
use crate::pass::{Lesson, Query, Scorer, log_sum_exp};
use crate::settings::{Method, Objective, Placement, TaskKind};
use crate::stem::{Stem, row_width};
use crate::template::Template;
use crate::verbalizer::{Verbalizer, VerbalizerError};

/// Examples between two reports of progress.
const REPORT_EVERY: usize = 256;

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
    /// The model.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// `after-bos` with a tokenizer that puts nothing in front.
    #[error(
        "placement after-bos needs a tokenizer that puts a BOS token in front of a text, which this one does not; use \
         front or suffix"
    )]
    NoBos,
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
    /// The text around the fields.
    pub template: Template,
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
    /// With the model's own end token.
    ///
    /// # Errors
    /// If the model names none.
    pub fn of<B: Backend>(model: &Model<B>) -> Result<Self, TaskError> {
        let end = model.end_tokens.first().copied().ok_or(TaskError::NoEndToken)?;
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
        Query { root: 0, context, continuations: self.continuations(example) }
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
    /// begins with it, as between words.
    #[must_use]
    pub fn is_spaced(&self, target: &str) -> bool {
        !self.template.source().ends_with(char::is_whitespace) && !target.starts_with(char::is_whitespace)
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
            let tokens = model.tokenizer.encode_joined(&format!("{space}{text}"));
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
        let n_leading = model.tokenizer.leading().len();
        if self.placement == Placement::AfterBos && n_leading == 0 {
            return Err(TaskError::NoBos);
        }
        let contexts = examples.contexts.iter().map(Vec::as_slice);
        if n_virtual == 0 {
            let bare = (Method::Prompt, Placement::Front);
            return Ok(Stem::new(&model.backbone, bare, n_leading, contexts)?);
        }
        if self.method == Method::Prefix {
            match self.placement {
                Placement::Suffix => return Err(TaskError::PrefixAtEnd),
                Placement::AfterBos if contexts.clone().any(|context| context.len() <= n_leading) => {
                    return Err(TaskError::NothingBelow);
                }
                Placement::Front | Placement::AfterBos => {}
            }
        }
        Ok(Stem::new(&model.backbone, (self.method, self.placement), n_leading, contexts)?)
    }

    /// W, the numbers of a learned row: H, or L·2·K·D for a KV prefix.
    #[must_use]
    pub fn row_width<B: Backend>(&self, model: &Model<B>) -> usize {
        row_width(model.backbone.spec(), self.method)
    }

    /// log f(label | soft prompt, text) of every example and label, or of every example's target, under the full softmax,
    /// in nats. An empty `root` is the bare model. `progress` is told how many examples are done.
    ///
    /// # Errors
    /// As [`Task::stem`].
    pub fn log_likelihoods<B: Backend>(
        &self,
        model: &Model<B>,
        root: &[f32],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        self.score(model, &[root], examples, budget, true, progress)
    }

    /// The means over an ensemble of `roots` of what [`Task::log_likelihoods`] gives for each: a committee whose members
    /// weigh the same (Lester et al. 2021, section 6, vote instead). `progress` is told how many examples are done, of all
    /// members together.
    ///
    /// # Errors
    /// As [`Task::stem`].
    pub fn mean_log_likelihoods<B: Backend>(
        &self,
        model: &Model<B>,
        roots: &[&[f32]],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        self.score(model, roots, examples, budget, true, progress)
    }

    /// Loss, and labels where there are any, of examples whose truths are known.
    ///
    /// # Errors
    /// As [`Task::stem`].
    pub fn evaluate<B: Backend>(
        &self,
        model: &Model<B>,
        root: &[f32],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Evaluation, TaskError> {
        self.evaluate_ensemble(model, &[root], examples, budget, progress)
    }

    /// The same for an ensemble, by [`Task::mean_log_likelihoods`].
    ///
    /// # Errors
    /// As [`Task::stem`].
    pub fn evaluate_ensemble<B: Backend>(
        &self,
        model: &Model<B>,
        roots: &[&[f32]],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Evaluation, TaskError> {
        Ok(self.judge(&self.scores(model, roots, examples, budget, progress)?, examples))
    }

    /// What [`Task::evaluate_ensemble`] goes by: log-likelihoods, under the objective `label` up to a constant for each example,
    /// which is cheaper and says as much of the labels' probabilities.
    ///
    /// # Errors
    /// As [`Task::stem`].
    pub fn scores<B: Backend>(
        &self,
        model: &Model<B>,
        roots: &[&[f32]],
        examples: &Examples,
        budget: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        self.score(model, roots, examples, budget, self.objective() == Objective::Lm, progress)
    }

    /// What scores of examples whose truths are known come to.
    #[must_use]
    pub fn judge(&self, scores: &[Vec<f64>], examples: &Examples) -> Evaluation {
        let labels = self.verbalizer().map(|verbalizer| {
            let pairs = examples.labels().iter().zip(scores).map(|(&truth, scores)| (truth, best(scores)));
            Confusion::new(verbalizer.n(), pairs)
        });
        Evaluation { n: examples.truths.n() as u64, loss: self.mean_loss(scores, examples), labels }
    }

    fn mean_loss(&self, scores: &[Vec<f64>], examples: &Examples) -> f64 {
        if self.objective() == Objective::Label {
            return choice_loss(scores, examples.labels());
        }
        let candidates = Candidates::of(self, examples);
        let (mut total, mut n) = (0.0, 0);
        for (example, scores) in scores.iter().enumerate().take(candidates.n()) {
            let Lesson { query, truth } = candidates.lesson(examples, example);
            total -= scores[truth];
            n += query.continuations[truth].len();
        }
        total / n.max(1) as f64
    }

    fn score<B: Backend>(
        &self,
        model: &Model<B>,
        roots: &[&[f32]],
        examples: &Examples,
        budget: usize,
        full: bool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        let mut sums: Vec<Vec<f64>> = Vec::new();
        for (member, root) in roots.iter().enumerate() {
            let n_before = member * examples.n();
            let told = &mut |n| progress(n_before + n);
            let scores = self.score_one(model, root, examples, budget, full, told)?;
            if sums.is_empty() {
                sums = scores;
            } else {
                let pairs = sums.iter_mut().flatten().zip(scores.iter().flatten());
                pairs.for_each(|(sum, score)| *sum += score);
            }
        }
        sums.iter_mut().flatten().for_each(|sum| *sum /= roots.len() as f64);
        Ok(sums)
    }

    fn score_one<B: Backend>(
        &self,
        model: &Model<B>,
        root: &[f32],
        examples: &Examples,
        budget: usize,
        full: bool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        let stem = self.stem(model, examples, root.len() / self.row_width(model))?;
        self.score_below(&stem, root, examples, budget, full, progress)
    }

    /// Loss, and labels where there are any, below a stem of these examples that may keep their contexts.
    pub(crate) fn evaluate_below<B: Backend>(
        &self,
        stem: &Stem<'_, B>,
        root: &[f32],
        examples: &Examples,
        budget: usize,
    ) -> Result<Evaluation, TaskError> {
        let full = self.objective() == Objective::Lm;
        let scores = self.score_below(stem, root, examples, budget, full, &mut |_| {})?;
        Ok(self.judge(&scores, examples))
    }

    fn score_below<B: Backend>(
        &self,
        stem: &Stem<'_, B>,
        root: &[f32],
        examples: &Examples,
        budget: usize,
        full: bool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, TaskError> {
        let candidates = Candidates::of(self, examples);
        let scorer = Scorer::new(stem, &[root], budget)?;
        let mut scores = Vec::with_capacity(examples.n());
        let indices: Vec<usize> = (0..examples.n()).collect();
        for part in indices.chunks(REPORT_EVERY) {
            let queries: Vec<Query<'_>> =
                part.iter().map(|&example| candidates.query(examples, example)).collect();
            scores.extend(if full {
                scorer.log_likelihoods(&queries)
            } else {
                scorer.candidate_scores(&queries)
            }?);
            progress(scores.len());
        }
        match scores.iter().position(|scores| scores.iter().any(|score| !score.is_finite())) {
            Some(example) => Err(TaskError::NotFinite { example: example + 1 }),
            None => Ok(scores),
        }
    }
}

impl Classification {
    /// The tokens of each label.
    pub(crate) fn continuations(&self) -> Vec<&[Token]> {
        (0..self.verbalizer.n()).map(|i| self.verbalizer.tokens(i)).collect()
    }
}

/// Index of the largest score; the first of equals.
#[must_use]
pub fn best(scores: &[f64]) -> usize {
    let better = |best: usize, i: usize| if scores[i] > scores[best] { i } else { best };
    (1..scores.len()).fold(0, better)
}

/// Softmax of log-likelihoods: the labels' probabilities given that it is one of them.
#[must_use]
pub fn probabilities(log_likelihoods: &[f64]) -> Vec<f64> {
    let log_sum = log_sum_exp(log_likelihoods);
    log_likelihoods.iter().map(|l| (l - log_sum).exp()).collect()
}

/// Mean cross-entropy of the choice among the labels, in nats; 0 for no examples.
#[must_use]
pub fn choice_loss(scores: &[Vec<f64>], truths: &[usize]) -> f64 {
    let total: f64 =
        scores.iter().zip(truths).map(|(scores, &truth)| log_sum_exp(scores) - scores[truth]).sum();
    total / truths.len().max(1) as f64
}

/// What several classifiers say together: the mean of their log-likelihoods, by example and label. None of none.
#[must_use]
pub fn ensemble(members: &[&[Vec<f64>]]) -> Vec<Vec<f64>> {
    let Some((first, others)) = members.split_first() else { return Vec::new() };
    let n = members.len() as f64;
    let sum = |example: usize, label: usize| {
        others.iter().fold(first[example][label], |sum, scores| sum + scores[example][label])
    };
    let of = |example: usize| (0..first[example].len()).map(|label| sum(example, label) / n).collect();
    (0..first.len()).map(of).collect()
}
