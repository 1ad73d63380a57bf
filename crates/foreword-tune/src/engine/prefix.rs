//! A placed prompt: keys and values that all examples below it attend to, computed once.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foreword_backbone::kernels::{Backend, Element, Forest, Parent, Token};
use foreword_backbone::{Backbone, BackboneError, Gradient, Input, KeyValues, Model, Save, Spec, Tape};
use foreword_format::SoftPrompt;

use super::blocks::{Blocks, Piece};
pub use super::compile::{CompileError, compile, compile_below};
use super::example::MaskedSpan;
use super::frozen_texts::{FrozenTextCache, SharedBudget};
use super::reduce::{LossAndGradient, Sums};
use crate::joint::n_same;
use crate::settings::{Method, Placement};
use crate::task::{Examples, Goal, Task, TaskError};

/// Values for the fields, to find the tokens that a template guarantees.
const PROBES: [&str; 4] = ["a", "Z", "7", "?"];

/// The placement of a prompt, and the tokens at the beginning of all texts.
///
/// | placement | frozen, once | prefilled, once per prompt | each example |
/// |---|---|---|---|
/// | front | | `[soft][shared tokens]` | rest of its context |
/// | after-bos | `[leading tokens]` | `[soft][other shared tokens]` | rest of its context |
/// | system | `[tokens before the system message]` | `[soft][other shared tokens]` | rest of its context |
/// | suffix | `[shared tokens]` | | rest of its context (frozen), `[soft]` |
///
/// A context that shares fewer tokens attends only to those. A context that consists of the leading tokens alone has its
/// own copy of the soft prompt below them.
///
/// A KV prefix takes the place of `[soft]` in the table, as keys and values that need no computation; its gradient is
/// theirs. It can't be part of an example: it has no row to predict a next token from.
#[derive(Clone, Debug)]
struct Layout {
    method: Method,
    placement: Placement,
    shared: Vec<Token>,
    /// Number of frozen tokens before the prompt.
    n_before: usize,
}

impl Layout {
    fn new((method, placement): (Method, Placement), n_leading: usize, contexts: &[&[Token]]) -> Self {
        let leads = matches!(placement, Placement::AfterBos | Placement::System);
        let longer: Vec<&[Token]> =
            contexts.iter().copied().filter(|context| !leads || context.len() > n_leading).collect();
        let shared = match (&longer[..], contexts) {
            ([], [first, ..]) => first.to_vec(),
            _ => shared_beginning(&longer),
        };
        let n_before = match placement {
            Placement::Front => 0,
            Placement::AfterBos | Placement::System => n_leading.min(shared.len()),
            Placement::Suffix => shared.len(),
        };
        Self { method, placement, shared, n_before }
    }

    /// The tokens after the prompt.
    fn fixed(&self) -> &[Token] {
        &self.shared[self.n_before..]
    }
}

/// The longest common beginning of all contexts that leaves each at least its last token.
fn shared_beginning(contexts: &[&[Token]]) -> Vec<Token> {
    let Some((first, contexts)) = contexts.split_first() else { return Vec::new() };
    let mut shared = &first[..first.len().saturating_sub(1)];
    for context in contexts {
        let most = shared.len().min(context.len().saturating_sub(1));
        shared = &shared[..n_same(&shared[..most], context)];
    }
    shared.to_vec()
}

type Texts<B> = Arc<Mutex<FrozenTextCache<<B as Backend>::Element>>>;

/// The frozen part that all examples share. A scorer or a step prefills prompts in it.
pub struct SharedPrefix<'a, B: Backend> {
    backbone: &'a Backbone<B>,
    layout: Arc<Layout>,
    frozen: Option<Piece<B>>,
    /// Cached frozen texts of the examples, if enabled.
    texts: Option<Texts<B>>,
}

impl<'a, B: Backend> SharedPrefix<'a, B> {
    /// The shared prefix of all `contexts`, each with at least one token, for this method and placement. `n_leading` is the
    /// number of tokens before the learned rows with the placements `after-bos` and `system`: those that the tokenizer adds
    /// (the BOS), or those of a chat template.
    ///
    /// # Errors
    /// If the shared tokens are longer than the model's context.
    pub fn new<'t>(
        backbone: &'a Backbone<B>,
        place: (Method, Placement),
        n_leading: usize,
        contexts: impl IntoIterator<Item = &'t [Token]>,
    ) -> Result<Self, BackboneError> {
        let contexts: Vec<&[Token]> = contexts.into_iter().collect();
        let layout = Arc::new(Layout::new(place, n_leading, &contexts));
        let n = layout.n_before;
        let mut frozen = None;
        if n > 0 {
            let mut forest = Forest::new();
            forest.push(Parent::Root, n);
            let rows = backbone.embed(&layout.shared[..n]);
            let input = Input { rows, forest: &forest, context: &[], output_rows: &[], save: Save::None };
            let block = Arc::new(backbone.forward(input)?.key_values);
            frozen = Some(Piece { block, rows: 0..n, position: 0 });
        }
        Ok(Self { backbone, layout, frozen, texts: None })
    }

    /// Caches the keys and values of texts before the learned rows, within the budget, so that they are computed once.
    ///
    /// # Errors
    /// If no file can be created in the directory of the budget.
    pub fn cache_frozen_texts(mut self, room: &SharedBudget) -> io::Result<Self> {
        if self.layout.placement == Placement::Suffix {
            self.texts = Some(Arc::new(Mutex::new(FrozenTextCache::new(room)?)));
        }
        Ok(self)
    }

    /// The backbone.
    pub(crate) fn backbone(&self) -> &'a Backbone<B> {
        self.backbone
    }

    /// Number of tokens of every context that are computed once for all.
    #[must_use]
    pub fn n_shared(&self) -> usize {
        self.layout.shared.len()
    }

    /// A placed prompt, or the bare model.
    ///
    /// # Errors
    /// If it and the tokens after it are longer than the model's context.
    pub fn prefix(&self, prompt: Option<&SoftPrompt>) -> Result<PrefixState<B>, BackboneError> {
        let rows = prompt.map_or(&[][..], SoftPrompt::values);
        Ok(self.prefill(&[rows], Save::None)?.prefixes.swap_remove(0))
    }

    /// Computes placed prompts, `[P, W]` row by row. P = 0, the bare model, has no rows to place and so requires the
    /// placement front. `save`: what to save for the gradient.
    pub(crate) fn prefill(&self, prompts: &[&[f32]], save: Save) -> Result<Prefilled<B>, BackboneError> {
        let (backbone, layout) = (self.backbone, &self.layout);
        assert!(
            layout.placement == Placement::Front || prompts.iter().all(|prompt| !prompt.is_empty()),
            "a soft prompt without rows belongs to the placement front"
        );
        let width = row_width(backbone.spec(), layout.method);
        let is_kv = layout.method == Method::Prefix;
        let in_trunk = !is_kv && layout.placement != Placement::Suffix;
        let kv_prefixes = is_kv.then(|| Arc::new(key_values(backbone, &prompts.concat())));

        let (mut blocks, mut forest, mut first) = (Blocks::new(), Forest::new(), 0);
        let (mut tokens, mut learned, mut prefixes) = (Vec::new(), Vec::new(), Vec::new());
        for prompt in prompts {
            let n_virtual = prompt.len() / width;
            let position = self.frozen.as_ref().map_or(0, Piece::end);
            let rows = first..first + n_virtual;
            first = rows.end;
            let kv_prefix =
                kv_prefixes.as_ref().map(|block| Piece { block: Arc::clone(block), rows, position });
            let path: Vec<Piece<B>> = self.frozen.iter().chain(&kv_prefix).cloned().collect();
            let n_own = if in_trunk { n_virtual } else { 0 };
            learned.extend(tokens.len()..tokens.len() + n_own);
            tokens.extend(std::iter::repeat_n(0, n_own));
            tokens.extend_from_slice(layout.fixed());
            forest.push(Parent::Context(blocks.spans(&path, 0)), n_own + layout.fixed().len());
            prefixes.push(Inner {
                layout: Arc::clone(layout),
                texts: self.texts.clone(),
                frozen: self.frozen.clone(),
                kv_prefix,
                prefilled: None,
                n_virtual,
                rows: if is_kv { Vec::new() } else { prompt.to_vec() },
            });
        }
        let (mut prefilled, mut kept) = (None, None);
        if !tokens.is_empty() {
            let values = if in_trunk { prompts.concat() } else { Vec::new() };
            let rows = embed(backbone, &tokens, &learned, &values);
            let input = Input { rows, forest: &forest, context: &blocks.values(), output_rows: &[], save };
            let output = backbone.forward(input)?;
            let block = prefilled.insert(Arc::new(output.key_values));
            kept = output.tape;
            for (prefix, segment) in prefixes.iter_mut().zip(forest.segments()) {
                let (rows, position) = (segment.rows(), segment.position());
                prefix.prefilled = Some(Piece { block: Arc::clone(block), rows, position });
            }
        }
        let prefixes = prefixes.into_iter().map(|prefix| PrefixState(Arc::new(prefix))).collect();
        let sizes = prompts.iter().map(|prompt| prompt.len()).collect();
        let frozen = self.frozen.as_ref().map(|piece| Arc::clone(&piece.block));
        Ok(Prefilled { prefixes, sizes, frozen, kv_prefixes, prefilled, forest, learned, tape: kept })
    }
}

/// Keys and values of KV prefixes, one after another.
fn key_values<B: Backend>(backbone: &Backbone<B>, values: &[f32]) -> KeyValues<B> {
    let (backend, spec) = (backbone.backend(), backbone.spec());
    let values: Vec<B::Element> = values.iter().map(|&value| B::Element::of_f32(value)).collect();
    KeyValues::from_values(backend, spec.layers, spec.attention.kv_width(), &values)
}

/// Embedded tokens, with the rows at `learned` replaced by learned rows.
pub(super) fn embed<B: Backend>(
    backbone: &Backbone<B>,
    tokens: &[Token],
    learned: &[usize],
    values: &[f32],
) -> B::Rows {
    let backend = backbone.backend();
    let mut rows = backbone.embed(tokens);
    if !learned.is_empty() {
        let values = values.iter().map(|&value| B::Element::of_f32(value)).collect();
        backend.assign(&mut rows, learned, &backend.rows(values, backbone.spec().hidden));
    }
    rows
}

/// W, the numbers per row that a method learns.
pub(crate) fn row_width(spec: &Spec, method: Method) -> usize {
    match method {
        Method::Prompt => spec.hidden,
        Method::Prefix => spec.cache_width(),
    }
}

/// One placed prompt, or the bare model: what an example below it attends to, with computed keys and values, and what the
/// example must compute itself. Cloning shares it; it borrows nothing, so requests can hold it as long as they run.
pub struct PrefixState<B: Backend>(Arc<Inner<B>>);

struct Inner<B: Backend> {
    layout: Arc<Layout>,
    texts: Option<Texts<B>>,
    /// The tokens before the prompt.
    frozen: Option<Piece<B>>,
    kv_prefix: Option<Piece<B>>,
    /// The soft prompt, unless it follows the texts, and the shared tokens after it or after a KV prefix.
    prefilled: Option<Piece<B>>,
    /// P.
    n_virtual: usize,
    /// The soft prompt, `[P, H]`; empty for a KV prefix.
    rows: Vec<f32>,
}

impl<B: Backend> Clone for PrefixState<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The place of an example below a prefix.
pub(crate) struct Anchor<B: Backend> {
    /// The part of the prefix that it attends to.
    pub(crate) path: Vec<Piece<B>>,
    /// The position of its first row, if that is not the end of the path because some of its rows are masked.
    pub(crate) position: Option<usize>,
    /// Number of tokens of its context that the path holds.
    pub(crate) n_held: usize,
    /// The tokens of its context up to this one are computed first, without the prompt, which follows them.
    pub(crate) n_text: usize,
    /// Whether its own copy of the soft prompt follows.
    pub(crate) has_prompt: bool,
}

impl<B: Backend> Clone for Anchor<B> {
    fn clone(&self) -> Self {
        Self { path: self.path.clone(), ..*self }
    }
}

/// Why a context does not match a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnchorError {
    /// It begins with other tokens.
    #[error("the text does not begin with the tokens that stand before the prompt")]
    Beginning,
    /// It ends before a KV prefix.
    #[error("nothing of the text stands below the KV prefix")]
    NothingBelow,
}

impl<B: Backend> PrefixState<B> {
    /// P.
    #[must_use]
    pub fn n_virtual(&self) -> usize {
        self.0.n_virtual
    }

    /// How many tokens of a context it holds, so that they are not computed again.
    ///
    /// # Errors
    /// If the context can't stand below it.
    pub fn n_held(&self, context: &[Token]) -> Result<usize, AnchorError> {
        Ok(self.place(context, MaskedSpan::NONE)?.n_held)
    }

    /// The soft prompt, `[P, H]`, for an example's own copy.
    pub(crate) fn rows(&self) -> &[f32] {
        &self.0.rows
    }

    /// The cached frozen texts.
    pub(crate) fn text_cache(&self) -> Option<MutexGuard<'_, FrozenTextCache<B::Element>>> {
        // If another thread panicked, the run has ended anyway.
        self.0.texts.as_ref().map(|texts| texts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The keys and values of the soft prompt alone, `[P, L·2·K·D]`.
    pub(super) fn values(&self, backend: &B) -> Vec<B::Element> {
        self.0.prefilled.as_ref().map_or_else(Vec::new, |piece| piece.block.values(backend))
    }

    /// The place of a context.
    ///
    /// # Panics
    /// If rows are masked that are not a KV prefix's: rows below them would have seen them.
    pub(crate) fn place(&self, context: &[Token], masked: MaskedSpan) -> Result<Anchor<B>, AnchorError> {
        let Inner { layout, frozen, kv_prefix, prefilled, n_virtual, .. } = &*self.0;
        let (n_before, n) = (layout.n_before, context.len());
        let n_same = n_same(&layout.shared, context);
        if layout.placement == Placement::Suffix {
            let path = frozen.iter().filter(|_| n_same > 0).map(|piece| piece.first(n_same)).collect();
            return Ok(Anchor { path, position: None, n_held: n_same, n_text: n, has_prompt: true });
        }
        if n_same < n_before {
            return Err(AnchorError::Beginning);
        }
        let mut path: Vec<Piece<B>> = frozen.iter().cloned().collect();
        if n <= n_before {
            if kv_prefix.is_some() {
                return Err(AnchorError::NothingBelow);
            }
            return Ok(Anchor { path, position: None, n_held: n, n_text: n, has_prompt: true });
        }
        if masked.n > 0 {
            assert!(kv_prefix.is_some(), "only positions of a KV prefix can be masked");
            // The shared tokens attended to rows that are masked here.
            let position = kv_prefix.as_ref().map(Piece::end);
            for part in [0..masked.first, masked.first + masked.n..*n_virtual] {
                path.extend(kv_prefix.iter().map(|piece| piece.part(part.clone())));
            }
            return Ok(Anchor { path, position, n_held: n_before, n_text: n_before, has_prompt: false });
        }
        path.extend(kv_prefix.clone());
        let n_held = n_same.min(n - 1);
        let n_own = if kv_prefix.is_some() { 0 } else { *n_virtual };
        path.extend(prefilled.iter().map(|piece| piece.first(n_own + n_held - n_before)));
        Ok(Anchor { path, position: None, n_held, n_text: n_held, has_prompt: false })
    }
}

impl Task {
    /// The shared prefix of these examples; without virtual tokens, for the bare model, there is nothing to place.
    ///
    /// # Errors
    /// If the placement needs a BOS that the tokenizer does not add.
    pub fn shared_prefix<'m, B: Backend>(
        &self,
        model: &'m Model<B>,
        examples: &Examples,
        n_virtual: usize,
    ) -> Result<SharedPrefix<'m, B>, TaskError> {
        self.shared_prefix_of(model, &examples.contexts, n_virtual)
    }

    /// As [`Task::shared_prefix`], for these contexts.
    fn shared_prefix_of<'m, B: Backend>(
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

    /// W, the numbers of a learned row: H, or L·2·K·D for a KV prefix.
    #[must_use]
    pub fn row_width<B: Backend>(&self, model: &Model<B>) -> usize {
        row_width(model.backbone.spec(), self.method)
    }

    /// A prompt in this task's template, or the bare model, with the computed tokens that all texts in the template begin
    /// with. Any number of texts can follow it.
    ///
    /// # Errors
    /// If the placement needs a BOS that the tokenizer does not add, a text can't be tokenised, or it is longer than the model's
    /// context.
    pub fn prefix<B: Backend>(
        &self,
        model: &Model<B>,
        prompt: Option<&SoftPrompt>,
    ) -> Result<PrefixState<B>, TaskError> {
        let probes = PROBES.map(|probe| self.template.render(|_| probe));
        let joiner = self.joiner(model);
        let contexts = match &self.goal {
            Goal::Classification(_) => joiner.contexts(&probes)?,
            Goal::Generation(_) => joiner.openings(&probes)?,
        };
        let n_virtual = prompt.map_or(0, SoftPrompt::n_virtual);
        let shared = self.shared_prefix_of(model, &contexts, n_virtual)?;
        Ok(shared.prefix(prompt)?)
    }
}

/// Placed prompts, and what their gradient needs.
pub(crate) struct Prefilled<B: Backend> {
    pub(crate) prefixes: Vec<PrefixState<B>>,
    /// P · W of each.
    sizes: Vec<usize>,
    frozen: Option<Arc<KeyValues<B>>>,
    kv_prefixes: Option<Arc<KeyValues<B>>>,
    prefilled: Option<Arc<KeyValues<B>>>,
    forest: Forest,
    learned: Vec<usize>,
    tape: Option<Tape<B>>,
}

impl<B: Backend> Prefilled<B> {
    /// Blocks with a gradient: KV prefixes and prefilled prompts.
    fn learned(&self) -> impl Iterator<Item = &Arc<KeyValues<B>>> {
        self.kv_prefixes.iter().chain(&self.prefilled)
    }

    /// The context blocks for groups of examples, with the targets of their gradients.
    pub(crate) fn blocks<'g>(&self, groups: impl Iterator<Item = &'g mut Sums<B>>) -> Blocks<'g, B> {
        let mut blocks = Blocks::new();
        for (group, sums) in groups.enumerate() {
            for (block, gradient) in self.learned().zip(&mut sums.key_values) {
                blocks.learned(block, group, gradient);
            }
        }
        blocks
    }

    /// Zero sums; `own`: some examples have their own copies of the soft prompts.
    pub(crate) fn zero_sums(&self, backbone: &Backbone<B>, own: bool) -> Sums<B> {
        let zero = |&size: &usize| vec![B::Element::default(); if own { size } else { 0 }];
        Sums {
            losses: vec![0.0; self.sizes.len()],
            rows: self.sizes.iter().map(zero).collect(),
            key_values: self.learned().map(|block| backbone.zero_key_values(block.n_rows())).collect(),
        }
    }

    /// Loss and gradient of each prompt from the sums over all examples. Needs the tape.
    pub(crate) fn backward(&self, backbone: &Backbone<B>, sums: Sums<B>) -> Vec<LossAndGradient<B::Element>> {
        let Sums { losses, rows, key_values } = sums;
        let mut key_values = key_values.into_iter();
        let mut d_kv = self.kv_prefixes.as_ref().and_then(|_| key_values.next());
        let mut d_rows = None;
        if let (Some(prefilled), Some(tape)) = (&self.prefilled, &self.tape) {
            let mut blocks = Blocks::new();
            if let Some(frozen) = &self.frozen {
                blocks.index(frozen, 0);
            }
            if let (Some(kv_prefixes), Some(d_kv)) = (&self.kv_prefixes, &mut d_kv) {
                blocks.learned(kv_prefixes, 0, d_kv);
            }
            let (context, d_context) = blocks.with_gradients();
            let gradient = Gradient {
                forest: &self.forest,
                context: &context,
                key_values: prefilled,
                d_hidden: None,
                d_key_values: key_values.next(),
                d_context,
                gradient_rows: &self.learned,
            };
            d_rows = Some(backbone.backward(tape, gradient));
        }
        let backend = backbone.backend();
        let mut shared = match (&d_kv, &d_rows) {
            (Some(d_kv), _) => d_kv.values(backend),
            (None, Some(d_rows)) => backend.values(d_rows),
            (None, None) => Vec::new(),
        }
        .into_iter();
        let gradient = rows.into_iter().zip(&self.sizes).map(|(mut own, &size)| {
            own.resize(size, B::Element::default());
            own.iter_mut().zip(shared.by_ref()).for_each(|(own, shared)| *own += shared);
            own
        });
        losses.into_iter().zip(gradient).map(|(loss, gradient)| LossAndGradient { loss, gradient }).collect()
    }
}
