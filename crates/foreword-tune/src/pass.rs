//! Examples below the shared_prefix: their log-likelihoods, and the loss and its gradient with respect to the soft prompts.
//!
//! Examples are packed into micro-batches by a budget of tokens. Whatever the budget, each number comes out with the same
//! bits: an example's rows depend only on the rows above them, and every sum runs in the order of the examples.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use foreword_backbone::kernels::{Backend, Element, Forest, Parent, Source, Span, Token};
use foreword_backbone::{BackboneError, Gradient, Input, KeyValues, Output, Taped};

use crate::continuations::{ended, ended_gradient};
use crate::reduce::{Alone, GROUP, PartialSum, Reduce, Tree};
use crate::settings::Objective;
use crate::shared_prefix::{PrefixStates, SharedPrefix};

/// A context and the continuations whose likelihood is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Index of the soft prompt it stands below.
    pub root: usize,
    /// All tokens of the context, those that the shared_prefix holds included.
    pub context: &'a [Token],
    /// Candidate continuations, each of at least one token, and behind them what some of these would go on to.
    pub continuations: &'a [&'a [Token]],
    /// For each continuation behind the candidates, the candidate that it extends by one token: see
    /// [`crate::continuations`]. Empty where all are candidates.
    pub extended: &'a [usize],
    /// Virtual tokens that it does not see.
    pub hidden: MaskedSpan,
}

/// Consecutive positions of a KV prefix that an example does not see: its own demonstration, where that is among them. The
/// others stay where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaskedSpan {
    /// The first.
    pub first: usize,
    /// How many.
    pub n: usize,
}

impl MaskedSpan {
    /// It sees all.
    pub const NONE: Self = Self { first: 0, n: 0 };
}

/// An example to learn from.
#[derive(Clone, Copy, Debug)]
pub struct TrainingExample<'a> {
    /// Its context and candidates; under [`Objective::Lm`] only the true one is computed.
    pub query: Query<'a>,
    /// Index of the true continuation.
    pub truth: usize,
}

/// How much of a step is in memory at a time. It changes no bit of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// At most so many tokens of examples are computed at a time, single examples excepted.
    pub tokens: usize,
    /// What is kept of their activations between the forward and the backward pass.
    pub tape: Taped,
}

impl From<usize> for Budget {
    /// So many tokens, all of whose activations are kept.
    fn from(tokens: usize) -> Self {
        Self { tokens, tape: Taped::All }
    }
}

/// Loss and gradient of one soft prompt over its share of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Step<E> {
    /// Mean loss, in nats.
    pub loss: f64,
    /// Its gradient, `[P, W]`.
    pub gradient: Vec<E>,
}

/// Soft prompts prefilled once, to score any number of queries below them.
pub struct Scorer<'s, B: Backend> {
    shared_prefix: &'s SharedPrefix<'s, B>,
    trunks: PrefixStates<'s, B>,
    budget: usize,
}

impl<'s, B: Backend> Scorer<'s, B> {
    /// Plants soft prompts, each `[P, W]` row after row; an empty one is the bare model. At most `budget` tokens are
    /// computed at a time, single examples excepted.
    ///
    /// # Errors
    /// If a trunk is longer than the model's context.
    pub fn new(
        shared_prefix: &'s SharedPrefix<'s, B>,
        roots: &[&[f32]],
        budget: usize,
    ) -> Result<Self, BackboneError> {
        Ok(Self { shared_prefix, trunks: shared_prefix.prefill(roots, Taped::Nothing)?, budget })
    }

    /// log f(continuation | soft prompt, context) for each query and continuation: sums over the continuation's tokens
    /// under the softmax over the whole vocabulary, in nats.
    ///
    /// # Errors
    /// If a path is longer than the model's context.
    pub fn log_likelihoods(&self, queries: &[Query<'_>]) -> Result<Vec<Vec<f64>>, BackboneError> {
        self.score(queries, true)
    }

    /// The same up to a constant for each query, which is cheaper: without the log-sum-exp over the vocabulary at the
    /// context's end, which all its candidates share.
    ///
    /// # Errors
    /// If a path is longer than the model's context.
    pub fn candidate_scores(&self, queries: &[Query<'_>]) -> Result<Vec<Vec<f64>>, BackboneError> {
        self.score(queries, false)
    }

    /// Logits of the token after each query's context over the whole vocabulary, `[V]` each.
    ///
    /// # Errors
    /// If a path is longer than the model's context.
    pub fn next_token_logits(&self, queries: &[Query<'_>]) -> Result<Vec<Vec<B::Element>>, BackboneError> {
        let backbone = self.shared_prefix.backbone();
        let queries: Vec<Query<'_>> =
            queries.iter().map(|query| Query { continuations: &[], extended: &[], ..*query }).collect();
        let mut all = Vec::with_capacity(queries.len());
        for part in micro_batches(self.shared_prefix, &self.trunks, &queries, self.budget) {
            let batch = Batch::new(
                self.shared_prefix,
                &self.trunks,
                &queries[part.clone()],
                &vec![0; part.len()],
                Taped::Nothing,
            )?;
            let logits = backbone.logits(&batch.output.hidden);
            all.extend(logits.chunks_exact(backbone.spec().vocab).map(<[B::Element]>::to_vec));
        }
        Ok(all)
    }

    fn score(&self, queries: &[Query<'_>], full: bool) -> Result<Vec<Vec<f64>>, BackboneError> {
        let mut all = Vec::with_capacity(queries.len());
        for part in micro_batches(self.shared_prefix, &self.trunks, queries, self.budget) {
            let queries = &queries[part];
            let groups = vec![0; queries.len()];
            let batch = Batch::new(self.shared_prefix, &self.trunks, queries, &groups, Taped::Nothing)?;
            let scores = batch.scores(full).per_query.into_iter().zip(queries);
            all.extend(scores.map(|(scores, query)| ended(scores, query.extended)));
        }
        Ok(all)
    }
}

/// Loss and gradient of each soft prompt over its examples.
///
/// # Errors
/// If a path is longer than the model's context.
pub fn loss_and_gradient<B: Backend>(
    shared_prefix: &SharedPrefix<'_, B>,
    roots: &[&[f32]],
    examples: &[TrainingExample<'_>],
    objective: Objective,
    budget: impl Into<Budget>,
) -> Result<Vec<Step<B::Element>>, BackboneError> {
    let pass = Pass::new(shared_prefix, roots, examples, objective, (budget.into(), &Alone))?;
    Ok(pass.finish(None))
}

/// The forward and backward pass of a step below its prompts: what is left are sums over groups of examples, see [`crate::reduce`].
pub struct Pass<'s, B: Backend> {
    trunks: PrefixStates<'s, B>,
    partial: Vec<PartialSum<B>>,
}

impl<'s, B: Backend> Pass<'s, B> {
    /// Computes the groups that `reduce` wants computed here. Every example has its weight in the mean over all `examples`.
    ///
    /// # Errors
    /// If a path is longer than the model's context.
    pub fn new(
        shared_prefix: &'s SharedPrefix<'s, B>,
        roots: &[&[f32]],
        examples: &[TrainingExample<'_>],
        objective: Objective,
        (budget, reduce): (Budget, &dyn Reduce<B>),
    ) -> Result<Self, BackboneError> {
        let trunks = shared_prefix.prefill(roots, budget.tape)?;
        let learning: Vec<ObjectiveExample<'_>> =
            examples.iter().map(|example| ObjectiveExample::of(example, objective)).collect();
        let shares = shares(roots.len(), &learning, objective);
        let mut grouped = grouped(roots.len(), &learning);
        let here = reduce.groups(grouped.last().map_or(0, |(group, _)| group + 1));
        grouped.retain(|(group, _)| here.contains(group));
        let queries: Vec<Query<'_>> = grouped.iter().map(|(_, example)| example.query()).collect();

        let backend = shared_prefix.backbone().backend();
        let mut tree = Tree::new();
        // The groups that have examples in the micro-batch, in order.
        let mut open: VecDeque<PartialSum<B>> = VecDeque::new();
        for part in micro_batches(shared_prefix, &trunks, &queries, budget.tokens) {
            let examples = &grouped[part.clone()];
            for &(group, _) in examples {
                if open.back().is_none_or(|last| last.index < group) {
                    open.push_back(PartialSum { level: 0, index: group, sums: trunks.zero_sums() });
                }
            }
            let first = open.front().map_or(0, |open| open.index);
            let groups: Vec<usize> = examples.iter().map(|(group, _)| group - first).collect();
            let batch = Batch::new(shared_prefix, &trunks, &queries[part.clone()], &groups, budget.tape)?;
            let scores = batch.scores(objective == Objective::Lm);
            let mut d_scores = Vec::with_capacity(part.len());
            for (((_, example), &group), scores) in examples.iter().zip(&groups).zip(&scores.per_query) {
                let (loss, d) = example.loss(scores, shares[example.root]);
                open[group].sums.losses[example.root] += loss;
                d_scores.push(d);
            }
            batch.backward(&scores, &d_scores, &mut open);
            let next = grouped.get(part.end).map(|&(group, _)| group);
            while let Some(whole) = open.pop_front_if(|open| next.is_none_or(|next| open.index < next)) {
                tree.push(backend, whole);
            }
        }
        Ok(Self { trunks, partial: tree.into_nodes() })
    }

    /// The sums of the groups that were computed here, to be exchanged.
    pub fn take_partial(&mut self) -> Vec<PartialSum<B>> {
        std::mem::take(&mut self.partial)
    }

    /// Loss and gradient of each prompt from the sums of all groups, in their order; `None`: those of this pass are all.
    pub fn finish(self, all: Option<Vec<PartialSum<B>>>) -> Vec<Step<B::Element>> {
        let Self { trunks, partial } = self;
        let sums = Tree::total(trunks.backend(), all.unwrap_or(partial));
        trunks.backward(sums.unwrap_or_else(|| trunks.zero_sums()))
    }
}

/// All examples with their groups, group after group: within one by root, and in their order.
fn grouped<'e, 'a>(
    n_roots: usize,
    examples: &'e [ObjectiveExample<'a>],
) -> Vec<(usize, &'e ObjectiveExample<'a>)> {
    let mut counts = vec![0; n_roots];
    let group = |example: &'e ObjectiveExample<'a>| {
        let count = &mut counts[example.root];
        *count += 1;
        ((*count - 1) / GROUP, example)
    };
    let mut grouped: Vec<_> = examples.iter().map(group).collect();
    grouped.sort_by_key(|(group, example)| (*group, example.root));
    grouped
}

/// A training_example with the continuations that its objective needs.
struct ObjectiveExample<'a> {
    root: usize,
    hidden: MaskedSpan,
    context: &'a [Token],
    continuations: Cow<'a, [&'a [Token]]>,
    extended: Cow<'a, [usize]>,
    truth: usize,
    objective: Objective,
}

impl<'a> ObjectiveExample<'a> {
    fn of(training_example: &TrainingExample<'a>, objective: Objective) -> Self {
        let Query { root, hidden, context, continuations, extended } = training_example.query;
        let truth = training_example.truth;
        let (continuations, extended, truth) = match objective {
            Objective::Label => (continuations.into(), extended.into(), truth),
            Objective::Lm => {
                let longer = &continuations[continuations.len() - extended.len()..];
                let own = extended.iter().zip(longer).filter(|(short, _)| **short == truth);
                let all: Vec<&[Token]> =
                    std::iter::once(continuations[truth]).chain(own.map(|(_, &longer)| longer)).collect();
                let extended = vec![0; all.len() - 1];
                (Cow::from(all), Cow::from(extended), 0)
            }
        };
        Self { root, hidden, context, continuations, extended, truth, objective }
    }

    fn query(&self) -> Query<'_> {
        let &Self { root, hidden, context, ref continuations, ref extended, .. } = self;
        Query { root, hidden, context, continuations, extended }
    }

    /// Its part of the mean loss, and the gradient of that with respect to the score of each continuation.
    fn loss(&self, scores: &[f64], share: f64) -> (f64, Vec<f64>) {
        let candidates = ended(scores.to_vec(), &self.extended);
        let (loss, d) = match self.objective {
            Objective::Lm => (-candidates[0] * share, vec![-share]),
            Objective::Label => {
                let log_sum = log_sum_exp(&candidates);
                let d = candidates.iter().enumerate().map(|(i, score)| {
                    let p = (score - log_sum).exp();
                    share * if i == self.truth { p - 1.0 } else { p }
                });
                ((log_sum - candidates[self.truth]) * share, d.collect())
            }
        };
        (loss, ended_gradient(scores, &self.extended, d))
    }
}

/// What one example (objective label) or one label token (objective lm) weighs in the mean, per root.
fn shares(n_roots: usize, learning: &[ObjectiveExample<'_>], objective: Objective) -> Vec<f64> {
    let mut counts = vec![0usize; n_roots];
    for training_example in learning {
        counts[training_example.root] += match objective {
            Objective::Label => 1,
            Objective::Lm => training_example.continuations[0].len(),
        };
    }
    counts.into_iter().map(|n| 1.0 / n.max(1) as f64).collect()
}

/// log Σ exp.
pub(crate) fn log_sum_exp(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + values.iter().map(|v| (v - max).exp()).sum::<f64>().ln()
}

/// Consecutive queries that fit the budget together, at least one each.
pub(crate) fn micro_batches<B: Backend>(
    shared_prefix: &SharedPrefix<'_, B>,
    trunks: &PrefixStates<'_, B>,
    queries: &[Query<'_>],
    budget: usize,
) -> Vec<Range<usize>> {
    let cost = |query: &Query<'_>| {
        let own = if shared_prefix.prompt_per_example() { trunks.n_virtual(query.root) } else { 0 };
        let above =
            if query.hidden.n > 0 { shared_prefix.n_before(query.context) } else { shared_prefix.n_shared() };
        query.context.len() - above + n_leaf_rows(query) + own
    };
    let mut parts = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (i, query) in queries.iter().enumerate() {
        let cost = cost(query);
        if i > start && used + cost > budget {
            parts.push(start..i);
            (start, used) = (i, 0);
        }
        used += cost;
    }
    if start < queries.len() {
        parts.push(start..queries.len());
    }
    parts
}

/// A micro-batch after its forward pass.
pub(crate) struct Batch<'p, B: Backend> {
    shared_prefix: &'p SharedPrefix<'p, B>,
    trunks: &'p PrefixStates<'p, B>,
    queries: &'p [Query<'p>],
    /// Which group each is of, from the first in this micro-batch.
    groups: Vec<usize>,
    /// A segment for each query, followed by the leaves of its continuations.
    forest: Forest,
    /// Frozen contexts of the examples, where they stand before the learned rows.
    frozen: Option<KeyValues<B>>,
    /// Learned rows among the forest's, and the root of each query, in order.
    learned: Vec<usize>,
    pub(crate) output: Output<B>,
    /// Per query, the index among the wanted rows of its context's last row.
    last: Vec<usize>,
}

/// Log-likelihoods of a micro-batch, and what their gradient needs.
struct Scores<E> {
    per_query: Vec<Vec<f64>>,
    /// (wanted row, token) of every continuation token, in order.
    pairs: Vec<(usize, Token)>,
    /// Wanted rows whose log-sum-exp over the vocabulary is part of the scores, and its values.
    summed: Vec<usize>,
    log_sums: Vec<E>,
    /// The logit of every pair.
    logits: Vec<E>,
}

impl<'p, B: Backend> Batch<'p, B> {
    /// Keys and values of all that stands above and in the contexts, by context block.
    pub(crate) fn context(&self) -> Vec<&KeyValues<B>> {
        let mut context = self.trunks.context();
        context.extend(&self.frozen);
        context.push(&self.output.key_values);
        context
    }

    /// The path down to the end of each query's context, in those blocks. Only for queries without continuations, whose
    /// segments are the forest's.
    pub(crate) fn paths(&self) -> Vec<Vec<Span>> {
        let block = self.context().len() - 1;
        (0..self.queries.len()).map(|query| self.forest.path(query, block)).collect()
    }

    pub(crate) fn new(
        shared_prefix: &'p SharedPrefix<'p, B>,
        trunks: &'p PrefixStates<'p, B>,
        queries: &'p [Query<'p>],
        groups: &[usize],
        tape: Taped,
    ) -> Result<Self, BackboneError> {
        let n_groups = groups.last().map_or(1, |last| last + 1);
        let mut context = trunks.context_of_groups(n_groups);
        let above = |(query, &group): (&Query<'_>, &usize)| trunks.parent(query.root, query.hidden, group);
        let mut above: Vec<Parent> = queries.iter().zip(groups).map(above).collect();
        let mut frozen = None;
        if shared_prefix.prompt_per_example() {
            let befores = queries
                .iter()
                .map(|query| &query.context[shared_prefix.n_shared()..shared_prefix.n_before(query.context)]);
            let (key_values, rows) = frozen_contexts(shared_prefix, trunks, befores)?;
            for (((query, &group), above), rows) in queries.iter().zip(groups).zip(&mut above).zip(rows) {
                let mut path = trunks.path_of_group(trunks.path(query.root), group);
                let position = path.last().map_or(0, Span::end);
                path.push(Span { source: Source::Context(context.len()), rows, position });
                *above = Parent::Context(path);
            }
            frozen = Some(key_values);
        }
        context.extend(&frozen);

        let mut forest = Forest::new();
        let (mut tokens, mut learned, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (mut wanted, mut last) = (Vec::new(), Vec::new());
        for (query, above) in queries.iter().zip(above) {
            let first = forest.n_rows();
            if shared_prefix.prompt_per_example() {
                let n_virtual = trunks.n_virtual(query.root);
                tokens.extend(std::iter::repeat_n(0, n_virtual));
                learned.extend(first..first + n_virtual);
                values.extend_from_slice(trunks.root(query.root));
                tokens.extend_from_slice(&query.context[shared_prefix.n_before(query.context)..]);
            } else if query.hidden.n > 0 {
                // The shared tokens of the others have seen what this one must not.
                tokens.extend_from_slice(&query.context[shared_prefix.n_before(query.context)..]);
            } else {
                tokens.extend_from_slice(&query.context[shared_prefix.n_shared()..]);
            }
            let segment = forest.push(above, tokens.len() - first);
            last.push(wanted.len());
            wanted.push(forest.n_rows() - 1);
            for continuation in query.continuations {
                let inputs = &continuation[..continuation.len() - 1];
                if !inputs.is_empty() {
                    wanted.extend(forest.n_rows()..forest.n_rows() + inputs.len());
                    forest.push(Parent::Segment(segment), inputs.len());
                    tokens.extend_from_slice(inputs);
                }
            }
        }
        let rows = shared_prefix.rows(&tokens, &learned, &values);
        let input = Input { rows, forest: &forest, context: &context, wanted: &wanted, tape };
        let output = shared_prefix.backbone().forward(input)?;
        let groups = groups.to_vec();
        Ok(Self { shared_prefix, trunks, queries, groups, forest, frozen, learned, output, last })
    }

    /// Log-likelihoods under the full softmax. Without `full`, the log-sum-exp of each context's last row is left out: it
    /// is the same for all candidates.
    fn scores(&self, full: bool) -> Scores<B::Element> {
        let backbone = self.shared_prefix.backbone();
        let backend = backbone.backend();
        let mut pairs = Vec::new();
        let mut summed = Vec::new();
        for (query, &last) in self.queries.iter().zip(&self.last) {
            summed.extend(full.then_some(last));
            let mut leaf = last + 1;
            for continuation in query.continuations {
                pairs.push((last, continuation[0]));
                for &token in &continuation[1..] {
                    pairs.push((leaf, token));
                    summed.push(leaf);
                    leaf += 1;
                }
            }
        }
        let logits = backend.logits_at(&self.output.hidden, backbone.head(), &pairs);
        let log_sums = backend.log_sum_exp(&backend.select(&self.output.hidden, &summed), backbone.head());
        let log_sum = |row: usize| match summed.binary_search(&row) {
            Ok(i) => log_sums[i].as_f64(),
            Err(_) => 0.0,
        };
        let mut token_scores =
            pairs.iter().zip(&logits).map(|(&(row, _), logit)| logit.as_f64() - log_sum(row));
        let mut score = |continuation: &&[Token]| token_scores.by_ref().take(continuation.len()).sum();
        let per_query =
            self.queries.iter().map(|q| q.continuations.iter().map(&mut score).collect()).collect();
        Scores { per_query, pairs, summed, log_sums, logits }
    }

    /// Adds the gradients that flow from the scores into the trunks, or into the examples' own learned rows, to the sums of the
    /// examples' groups.
    fn backward(
        &self,
        scores: &Scores<B::Element>,
        d_scores: &[Vec<f64>],
        sums: &mut VecDeque<PartialSum<B>>,
    ) {
        let Some(tape) = &self.output.tape else { return };
        let mut context = self.trunks.context_of_groups(sums.len());
        context.extend(&self.frozen);
        let mut d_context = self.trunks.targets(sums.iter_mut().map(|partial| &mut partial.sums));
        d_context.extend(self.frozen.iter().map(|_| None));
        let gradient = Gradient {
            forest: &self.forest,
            context: &context,
            key_values: &self.output.key_values,
            d_hidden: Some(self.d_hidden(scores, d_scores)),
            d_key_values: None,
            d_context,
            learned: &self.learned,
        };
        let d_rows = self.shared_prefix.backbone().backward(tape, gradient);
        if self.learned.is_empty() {
            return;
        }
        let values = self.shared_prefix.backbone().backend().values(&d_rows);
        let mut rest = &values[..];
        for (query, &group) in self.queries.iter().zip(&self.groups) {
            let sum = &mut sums[group].sums.rows[query.root];
            let (own, after) = rest.split_at(sum.len());
            sum.iter_mut().zip(own).for_each(|(sum, &d)| *sum += d);
            rest = after;
        }
    }

    /// The gradient of the wanted hidden rows.
    fn d_hidden(&self, scores: &Scores<B::Element>, d_scores: &[Vec<f64>]) -> B::Rows {
        let backbone = self.shared_prefix.backbone();
        let backend = backbone.backend();
        let mut d_logits = Vec::with_capacity(scores.pairs.len());
        let mut d_sums = vec![0.0; scores.summed.len()];
        let mut pairs = scores.pairs.iter();
        for (query, d_scores) in self.queries.iter().zip(d_scores) {
            for (continuation, &d) in query.continuations.iter().zip(d_scores) {
                for (row, _) in pairs.by_ref().take(continuation.len()) {
                    d_logits.push(B::Element::of_f64(d));
                    if let Ok(i) = scores.summed.binary_search(row) {
                        d_sums[i] -= d;
                    }
                }
            }
        }
        let hidden = &self.output.hidden;
        let n_wanted = self.last.len() + self.queries.iter().map(n_leaf_rows).sum::<usize>();
        let mut d_hidden = backend.zeros(n_wanted, backbone.spec().hidden);
        let head = backbone.head();
        backend.logits_at_gradient(head, &scores.pairs, &scores.logits, &d_logits, &mut d_hidden);
        if !scores.summed.is_empty() {
            let d_sums: Vec<B::Element> = d_sums.into_iter().map(B::Element::of_f64).collect();
            let rows = backend.select(hidden, &scores.summed);
            let mut d_rows = backend.zeros(scores.summed.len(), backbone.spec().hidden);
            backend.log_sum_exp_gradient(&rows, head, &scores.log_sums, &d_sums, &mut d_rows);
            backend.scatter_add(&mut d_hidden, &scores.summed, &d_rows);
        }
        d_hidden
    }
}

/// Keys and values of the contexts that stand before the learned rows, each once, and the rows of each example's own. What was
/// kept is not computed.
fn frozen_contexts<'q, B: Backend>(
    shared_prefix: &SharedPrefix<'_, B>,
    trunks: &PrefixStates<'_, B>,
    befores: impl Iterator<Item = &'q [Token]>,
) -> Result<(KeyValues<B>, Vec<Range<usize>>), BackboneError> {
    let (mut kept, mut computed) = (Vec::new(), Forest::new());
    let mut cache = shared_prefix.contexts();
    // Where a context begins: among those that were kept, or among those to be computed.
    let mut places: HashMap<&[Token], (bool, usize)> = HashMap::new();
    let mut tokens: Vec<Token> = Vec::new();
    let mut n_kept = 0;
    let mut fresh = Vec::new();
    let mut order = Vec::new();
    for before in befores {
        let place = *places.entry(before).or_insert_with(|| {
            match cache.as_mut().and_then(|cache| cache.get(before)) {
                Some(values) => {
                    kept.push(values);
                    n_kept += before.len();
                    (true, n_kept - before.len())
                }
                None => {
                    computed.push(Parent::Context(trunks.path(0)), before.len());
                    tokens.extend_from_slice(before);
                    fresh.push(before);
                    (false, tokens.len() - before.len())
                }
            }
        });
        order.push((place, before.len()));
    }
    let backbone = shared_prefix.backbone();
    let rows = backbone.embed(&tokens);
    let context = trunks.context();
    let input = Input { rows, forest: &computed, context: &context, wanted: &[], tape: Taped::Nothing };
    let made = backbone.forward(input)?.key_values;
    let rows = order.into_iter().map(|((is_kept, first), n)| {
        let first = if is_kept { first } else { n_kept + first };
        first..first + n
    });
    let rows = rows.collect();
    let Some(cache) = &mut cache else { return Ok((made, rows)) };
    let (backend, spec) = (backbone.backend(), backbone.spec());
    let made = made.values(backend);
    let mut rest = &made[..];
    for before in fresh {
        let (own, after) = rest.split_at(before.len() * spec.cache_width());
        cache.keep(before, own);
        rest = after;
    }
    kept.push(made);
    let kv_width = spec.attention.kv_width();
    Ok((KeyValues::from_values(backend, spec.layers, kv_width, &kept.concat()), rows))
}

fn n_leaf_rows(query: &Query<'_>) -> usize {
    query.continuations.iter().map(|tokens| tokens.len() - 1).sum()
}
