//! Where learned rows stand: the part of the forest above the examples, computed once for all of them.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foreword_backbone::kernels::{Backend, Forest, Parent, Source, Span, Token};
use foreword_backbone::{Backbone, BackboneError, Gradient, Input, KeyValues, Output, Spec, Taped};

use crate::frozen_texts::{FrozenTextCache, SharedBudget};
use crate::pass::{MaskedSpan, Step};
use crate::reduce::Sums;
use crate::settings::{Method, Placement};

/// The frozen part of what all examples share. A scorer or a step plants soft prompts into it.
///
/// | placement | frozen, once per run | trunk, once per step | each example |
/// |---|---|---|---|
/// | front | | `[soft][shared tokens]` | rest of its context |
/// | after-bos | `[leading tokens]` | `[soft][other shared tokens]` | rest of its context |
/// | system | `[tokens before the system message]` | `[soft][other shared tokens]` | rest of its context |
/// | suffix | `[shared tokens]` | | rest of its context (frozen), `[soft]` |
///
/// Under after-bos, a context that is nothing but the leading tokens would end in the trunk; then, too, each example has
/// its own copy of the learned rows.
///
/// A KV prefix stands where the table has `[soft]`, as keys and values that are there without being computed; its gradient
/// is theirs. It can't stand in an example of its own: it has no row from which a next token could be read.
pub struct SharedPrefix<'a, B: Backend> {
    backbone: &'a Backbone<B>,
    method: Method,
    placement: Placement,
    /// Tokens that all contexts begin with.
    shared: Vec<Token>,
    /// How many of them are frozen: they stand before the learned rows.
    n_before: usize,
    per_example: bool,
    frozen: Option<Frozen<B>>,
    /// Frozen contexts of the examples, where they are kept.
    contexts: Option<Mutex<FrozenTextCache<B::Element>>>,
}

struct Frozen<B: Backend> {
    key_values: KeyValues<B>,
    path: Vec<Span>,
}

impl<'a, B: Backend> SharedPrefix<'a, B> {
    /// The shared_prefix of all `contexts`, each with at least one token, above which something learned by a method stands in its
    /// place. `n_leading` is the number of tokens after which the
    /// placements `after-bos` and `system` prefill: those that the tokenizer puts in front (the BOS), or a chat template.
    ///
    /// # Errors
    /// If the shared tokens are longer than the model's context.
    ///
    /// # Panics
    /// If a KV prefix would have to stand in each example.
    pub fn new<'t>(
        backbone: &'a Backbone<B>,
        (method, placement): (Method, Placement),
        n_leading: usize,
        contexts: impl IntoIterator<Item = &'t [Token]>,
    ) -> Result<Self, BackboneError> {
        let contexts: Vec<&[Token]> = contexts.into_iter().collect();
        let mut shared = shared_beginning(&contexts);
        let ends_in_leading = contexts.iter().any(|context| context.len() <= n_leading);
        let per_example = match placement {
            Placement::Front => false,
            Placement::AfterBos | Placement::System => ends_in_leading,
            Placement::Suffix => true,
        };
        assert!(!(per_example && method == Method::Prefix), "a KV prefix stands above the examples");
        let leads = matches!(placement, Placement::AfterBos | Placement::System);
        if let (true, true, Some(context)) = (leads, ends_in_leading, contexts.first()) {
            shared = context[..n_leading.min(context.len())].to_vec();
        }
        let n_before = match placement {
            Placement::Front => 0,
            Placement::AfterBos | Placement::System => n_leading.min(shared.len()),
            Placement::Suffix => shared.len(),
        };
        let frozen = if n_before == 0 {
            None
        } else {
            let mut forest = Forest::new();
            let root = forest.push(Parent::Root, n_before);
            let rows = backbone.embed(&shared[..n_before]);
            let input = Input { rows, forest: &forest, context: &[], wanted: &[], tape: Taped::Nothing };
            let key_values = backbone.forward(input)?.key_values;
            Some(Frozen { key_values, path: forest.path(root, 0) })
        };
        Ok(Self { backbone, method, placement, shared, n_before, per_example, frozen, contexts: None })
    }

    /// Keeps what the model makes of texts before the learned rows, as far as there is room, so that it is computed once.
    ///
    /// # Errors
    /// If no file can be made in the room's directory.
    pub fn cache_frozen_texts(mut self, room: &SharedBudget) -> io::Result<Self> {
        if self.placement == Placement::Suffix {
            self.contexts = Some(Mutex::new(FrozenTextCache::new(room)?));
        }
        Ok(self)
    }

    /// The frozen contexts that are kept.
    pub(crate) fn contexts(&self) -> Option<MutexGuard<'_, FrozenTextCache<B::Element>>> {
        // Another thread that panicked has ended the run anyhow.
        self.contexts.as_ref().map(|contexts| contexts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The backbone below.
    pub(crate) fn backbone(&self) -> &'a Backbone<B> {
        self.backbone
    }

    /// Tokens of every context that the shared_prefix and the trunk already hold.
    #[must_use]
    pub fn n_shared(&self) -> usize {
        self.shared.len()
    }

    /// W, the numbers of a learned row: H, or L·2·K·D.
    pub(crate) fn row_width(&self) -> usize {
        row_width(self.backbone.spec(), self.method)
    }

    /// Whether each example has its own copy of the learned rows.
    pub(crate) fn prompt_per_example(&self) -> bool {
        self.per_example
    }

    /// How many tokens of `context` stand before an example's own copy of the learned rows.
    pub(crate) fn n_before(&self, context: &[Token]) -> usize {
        if self.placement == Placement::Suffix { context.len() } else { self.n_before }
    }

    fn context(&self) -> Vec<&KeyValues<B>> {
        self.frozen.iter().map(|frozen| &frozen.key_values).collect()
    }

    /// Computes the trunks of soft prompts, one root each, `[P, W]` row after row. P = 0, the bare model, has no rows to
    /// place and so belongs to the placement front. `tape` keeps what the gradient needs.
    pub(crate) fn prefill(
        &self,
        roots: &[&[f32]],
        tape: Taped,
    ) -> Result<PrefixStates<'_, B>, BackboneError> {
        if self.method == Method::Prefix {
            return self.prefill_prefixes(roots, tape);
        }
        let h = self.backbone.spec().hidden;
        assert!(
            self.placement == Placement::Front || roots.iter().all(|root| !root.is_empty()),
            "a soft prompt without rows belongs to the placement front"
        );
        let fixed = &self.shared[self.n_before..];
        let above = self.frozen.as_ref().map_or(&[][..], |frozen| &frozen.path);
        if self.prompt_per_example() {
            let paths = vec![above.to_vec(); roots.len()];
            let (to_prefix, roots) = (Vec::new(), owned(roots));
            return Ok(PrefixStates {
                shared_prefix: self,
                paths,
                prefixes: None,
                to_prefix,
                prefilled: None,
                roots,
            });
        }
        let mut forest = Forest::new();
        let mut tokens = Vec::new();
        let mut learned = Vec::new();
        for root in roots {
            let first = forest.n_rows();
            let n_virtual = root.len() / h;
            learned.extend(first..first + n_virtual);
            tokens.extend(std::iter::repeat_n(0, n_virtual));
            tokens.extend_from_slice(fixed);
            forest.push(Parent::Context(above.to_vec()), n_virtual + fixed.len());
        }
        let block = usize::from(self.frozen.is_some());
        let paths = (0..roots.len()).map(|i| forest.path(i, block)).collect();
        let rows = self.rows(&tokens, &learned, &roots.concat());
        let input = Input { rows, forest: &forest, context: &self.context(), wanted: &[], tape };
        let output = self.backbone.forward(input)?;
        let prefilled = Some(Prefilled { forest, learned, output });
        let (to_prefix, roots) = (Vec::new(), owned(roots));
        Ok(PrefixStates { shared_prefix: self, paths, prefixes: None, to_prefix, prefilled, roots })
    }

    /// The same for KV prefixes, whose keys and values are what was learned. Only the tokens below them that all contexts
    /// share are computed.
    fn prefill_prefixes(&self, roots: &[&[f32]], tape: Taped) -> Result<PrefixStates<'_, B>, BackboneError> {
        use foreword_backbone::kernels::Element as _;
        let (backend, spec) = (self.backbone.backend(), self.backbone.spec());
        let values: Vec<B::Element> =
            roots.iter().flat_map(|root| root.iter().map(|&v| B::Element::of_f32(v))).collect();
        let kv_width = spec.attention.kv_width();
        let prefixes = KeyValues::from_values(backend, spec.layers, kv_width, &values);
        let above = self.frozen.as_ref().map_or(&[][..], |frozen| &frozen.path);
        let block = usize::from(self.frozen.is_some());
        let mut first = 0;
        let mut paths: Vec<Vec<Span>> = Vec::with_capacity(roots.len());
        for root in roots {
            let rows = first..first + root.len() / self.row_width();
            first = rows.end;
            let position = above.last().map_or(0, Span::end);
            let prefix = Span { source: Source::Context(block), rows, position };
            paths.push(above.iter().cloned().chain([prefix]).collect());
        }
        let fixed = &self.shared[self.n_before..];
        if fixed.is_empty() {
            let (prefixes, to_prefix, roots) = (Some(prefixes), paths.clone(), owned(roots));
            return Ok(PrefixStates {
                shared_prefix: self,
                paths,
                prefixes,
                to_prefix,
                prefilled: None,
                roots,
            });
        }
        let mut forest = Forest::new();
        for path in &paths {
            forest.push(Parent::Context(path.clone()), fixed.len());
        }
        let rows = self.backbone.embed(&fixed.repeat(roots.len()));
        let mut context = self.context();
        context.push(&prefixes);
        let input = Input { rows, forest: &forest, context: &context, wanted: &[], tape };
        let output = self.backbone.forward(input)?;
        let to_prefix = paths;
        let paths = (0..roots.len()).map(|i| forest.path(i, block + 1)).collect();
        let prefilled = Some(Prefilled { forest, learned: Vec::new(), output });
        Ok(PrefixStates {
            shared_prefix: self,
            paths,
            prefixes: Some(prefixes),
            to_prefix,
            prefilled,
            roots: owned(roots),
        })
    }

    /// Embedded tokens with learned rows written over those at `learned`.
    pub(crate) fn rows(&self, tokens: &[Token], learned: &[usize], values: &[f32]) -> B::Rows {
        use foreword_backbone::kernels::Element as _;
        let backend = self.backbone.backend();
        let mut rows = self.backbone.embed(tokens);
        if !learned.is_empty() {
            let values = values.iter().map(|&v| B::Element::of_f32(v)).collect();
            backend.assign(&mut rows, learned, &backend.rows(values, self.backbone.spec().hidden));
        }
        rows
    }
}

/// W, the numbers of a row that a method learns.
pub(crate) fn row_width(spec: &Spec, method: Method) -> usize {
    match method {
        Method::Prompt => spec.hidden,
        Method::Prefix => spec.cache_width(),
    }
}

fn owned(roots: &[&[f32]]) -> Vec<Vec<f32>> {
    roots.iter().map(|root| root.to_vec()).collect()
}

/// The longest beginning that all contexts share, leaving each at least its last token.
fn shared_beginning(contexts: &[&[Token]]) -> Vec<Token> {
    let Some((first, contexts)) = contexts.split_first() else { return Vec::new() };
    let mut shared = &first[..first.len().saturating_sub(1)];
    for context in contexts {
        let most = shared.len().min(context.len().saturating_sub(1));
        let same = shared[..most].iter().zip(*context).take_while(|(a, b)| a == b).count();
        shared = &shared[..same];
    }
    shared.to_vec()
}

/// Soft prompts in their place: the keys and values that every example sees.
pub(crate) struct PrefixStates<'s, B: Backend> {
    shared_prefix: &'s SharedPrefix<'s, B>,
    /// Per root, the path that an example hangs from.
    paths: Vec<Vec<Span>>,
    /// Keys and values that are themselves learned, of all roots.
    prefixes: Option<KeyValues<B>>,
    /// Per root, the path down to its KV prefix, where the roots are such.
    to_prefix: Vec<Vec<Span>>,
    prefilled: Option<Prefilled<B>>,
    /// The soft prompts, each `[P, W]`.
    roots: Vec<Vec<f32>>,
}

struct Prefilled<B: Backend> {
    forest: Forest,
    learned: Vec<usize>,
    output: Output<B>,
}

impl<B: Backend> PrefixStates<'_, B> {
    /// The path above the examples of root `root`.
    pub(crate) fn path(&self, root: usize) -> Vec<Span> {
        self.paths[root].clone()
    }

    /// What an example of root `root` hangs from that does not see some virtual tokens.
    ///
    /// # Panics
    /// If tokens are hidden that are not a KV prefix's: rows below them would have seen them.
    pub(crate) fn parent(&self, root: usize, hidden: MaskedSpan, group: usize) -> Parent {
        if hidden.n == 0 {
            return Parent::Context(self.path_of_group(self.path(root), group));
        }
        assert!(self.prefixes.is_some(), "only positions of a KV prefix can be hidden");
        let path = &self.to_prefix[root];
        let end = path.last().map_or(0, Span::end);
        let mut seen = path.clone();
        if let Some(Span { source, rows, position }) = seen.pop() {
            let n_before = hidden.first;
            let n_up_to = hidden.first + hidden.n;
            seen.push(Span { source, rows: rows.start..rows.start + n_before, position });
            let (rows, position) = (rows.start + n_up_to..rows.end, position + n_up_to);
            seen.push(Span { source, rows, position });
        }
        Parent::ContextAt(self.path_of_group(seen, group), end)
    }

    /// What computes.
    pub(crate) fn backend(&self) -> &B {
        self.shared_prefix.backbone.backend()
    }

    /// P of root `root`.
    pub(crate) fn n_virtual(&self, root: usize) -> usize {
        self.roots[root].len() / self.shared_prefix.row_width()
    }

    /// Soft prompt `root`, `[P, W]`.
    pub(crate) fn root(&self, root: usize) -> &[f32] {
        &self.roots[root]
    }

    /// Context blocks of the examples: the frozen one, where there is one, KV prefixes, and the trunks'.
    pub(crate) fn context(&self) -> Vec<&KeyValues<B>> {
        let mut context = self.shared_prefix.context();
        context.extend(&self.prefixes);
        context.extend(self.prefilled.iter().map(|prefilled| &prefilled.output.key_values));
        context
    }

    /// Blocks of keys and values that have a gradient: KV prefixes, and what was prefilled.
    fn with_gradient(&self) -> impl Iterator<Item = &KeyValues<B>> {
        self.prefixes.iter().chain(self.prefilled.iter().map(|prefilled| &prefilled.output.key_values))
    }

    /// Context blocks for `n_groups` groups of examples: the frozen one, where there is one, and for each group those that have a
    /// gradient. The same keys and values are listed for each group, since each has a gradient of its own.
    pub(crate) fn context_of_groups(&self, n_groups: usize) -> Vec<&KeyValues<B>> {
        let groups = (0..n_groups).flat_map(|_| self.with_gradient());
        self.shared_prefix.context().into_iter().chain(groups).collect()
    }

    /// A path in those blocks, as group `group` sees it.
    pub(crate) fn path_of_group(&self, mut path: Vec<Span>, group: usize) -> Vec<Span> {
        let n_frozen = self.shared_prefix.context().len();
        let n_learned = self.with_gradient().count();
        for span in &mut path {
            if let Source::Context(block) = &mut span.source
                && *block >= n_frozen
            {
                *block += group * n_learned;
            }
        }
        path
    }

    /// Sums of no examples yet.
    pub(crate) fn zero_sums(&self) -> Sums<B> {
        let zero = |block: &KeyValues<B>| self.shared_prefix.backbone.zero_key_values(block.n_rows());
        let own = |root: &Vec<f32>| if self.shared_prefix.per_example { root.len() } else { 0 };
        Sums {
            losses: vec![0.0; self.roots.len()],
            rows: self.roots.iter().map(|root| vec![B::Element::default(); own(root)]).collect(),
            key_values: self.with_gradient().map(zero).collect(),
        }
    }

    /// The gradient targets of the context blocks of some groups.
    pub(crate) fn targets<'g>(
        &self,
        groups: impl Iterator<Item = &'g mut Sums<B>>,
    ) -> Vec<Option<&'g mut KeyValues<B>>> {
        let frozen = self.shared_prefix.frozen.iter().map(|_| None);
        frozen.chain(groups.flat_map(|sums| &mut sums.key_values).map(Some)).collect()
    }

    /// From the sums over all examples to the loss and gradient of each root. Needs the tape.
    pub(crate) fn backward(&self, sums: Sums<B>) -> Vec<Step<B::Element>> {
        let backbone = self.shared_prefix.backbone;
        let Sums { losses, rows, key_values } = sums;
        let mut key_values = key_values.into_iter();
        let mut d_prefixes = self.prefixes.as_ref().and_then(|_| key_values.next());
        let mut d_rows = None;
        if let Some(prefilled) = &self.prefilled
            && let Some(tape) = &prefilled.output.tape
        {
            let mut context = self.shared_prefix.context();
            context.extend(&self.prefixes);
            let frozen = self.shared_prefix.frozen.iter().map(|_| None);
            let gradient = Gradient {
                forest: &prefilled.forest,
                context: &context,
                key_values: &prefilled.output.key_values,
                d_hidden: None,
                d_key_values: key_values.next(),
                d_context: frozen.chain(d_prefixes.as_mut().map(Some)).collect(),
                learned: &prefilled.learned,
            };
            d_rows = Some(backbone.backward(tape, gradient));
        }
        let values = match (&d_prefixes, &d_rows) {
            (Some(d_prefixes), _) => d_prefixes.values(backbone.backend()),
            (None, Some(d_rows)) => backbone.backend().values(d_rows),
            (None, None) => rows.concat(),
        };
        let mut rest = &values[..];
        let gradient = self.roots.iter().map(|root| {
            let (own, after) = rest.split_at(root.len());
            rest = after;
            own.to_vec()
        });
        losses.into_iter().zip(gradient).map(|(loss, gradient)| Step { loss, gradient }).collect()
    }
}
