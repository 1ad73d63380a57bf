//! Examples below prompts, packed without padding: one forward pass, the numbers read from it, and the gradients.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use foreword_backbone::kernels::{Backend, Element, Forest, Parent, RowBlock, Source, Span, Token};
use foreword_backbone::{Backbone, BackboneError, Gradient, Input, KeyValues, Output, Save};

use super::blocks::Blocks;
use super::example::Example;
use super::loss::{Numbers, Reads};
use super::prefix::{Anchor, PrefixState, embed};

/// How much of a step is in memory at a time. It changes no bit of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Maximum number of example tokens computed at a time; a single longer example is allowed.
    pub tokens: usize,
    /// The activations saved between the forward and the backward pass.
    pub save: Save,
}

impl From<usize> for Budget {
    /// This number of tokens, with all activations saved.
    fn from(tokens: usize) -> Self {
        Self { tokens, save: Save::All }
    }
}

/// An example with its place below a prefix.
pub(crate) struct Item<'e, B: Backend> {
    prefix: PrefixState<B>,
    context: &'e [Token],
    continuations: &'e [&'e [Token]],
    pub(crate) place: Anchor<B>,
    /// Its group, counted from the first group of the call.
    pub(crate) group: usize,
}

impl<'e, B: Backend> Item<'e, B> {
    /// A context without continuations.
    pub(crate) fn new(prefix: &PrefixState<B>, context: &'e [Token], place: Anchor<B>) -> Self {
        Self { prefix: prefix.clone(), context, continuations: &[], place, group: 0 }
    }

    /// An example of the prefixes' own data, with the continuations to compute below it.
    ///
    /// # Panics
    /// If it can't stand below its prefix.
    pub(crate) fn of(
        prefixes: &[PrefixState<B>],
        example: &Example<'e>,
        continuations: &'e [&'e [Token]],
    ) -> Self {
        let prefix = &prefixes[example.prompt];
        let place = prefix.place(example.context, example.masked);
        let place = place.unwrap_or_else(|error| panic!("{error}"));
        Self { continuations, ..Self::new(prefix, example.context, place) }
    }

    /// Number of tokens to compute for it.
    pub(crate) fn cost(&self) -> usize {
        let own = if self.place.has_prompt { self.prefix.n_virtual() } else { 0 };
        self.context.len() - self.place.n_held + own + self.n_leaf_rows()
    }

    fn n_leaf_rows(&self) -> usize {
        self.continuations.iter().map(|tokens| tokens.len() - 1).sum()
    }
}

/// Splits consecutive examples into micro-batches that fit the budget by their cost in tokens, at least one example each.
pub(crate) fn micro_batches(costs: impl Iterator<Item = usize>, budget: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut end, mut used) = (0, 0, 0);
    for cost in costs {
        if end > start && used + cost > budget {
            parts.push(start..end);
            (start, used) = (end, 0);
        }
        used += cost;
        end += 1;
    }
    parts.extend((end > start).then_some(start..end));
    parts
}

/// Examples after their forward pass.
pub(crate) struct Batch<'b, 'g, B: Backend> {
    backbone: &'b Backbone<B>,
    blocks: Blocks<'g, B>,
    /// A segment per example, followed by the leaves of its continuations.
    forest: Forest,
    texts: Option<FrozenTexts<B>>,
    /// The learned rows in the forest.
    learned: Vec<usize>,
    /// The examples with a copy of the learned rows, and its size in numbers.
    own: Vec<(usize, usize)>,
    pub(crate) output: Output<B>,
    /// The segment of each example.
    segments: Vec<usize>,
    /// For each example, the output row of its context's last token; then the total number of output rows.
    first_output: Vec<usize>,
}

impl<'b, 'g, B: Backend> Batch<'b, 'g, B> {
    /// Runs the model on the items. `blocks` are the context blocks with gradients.
    pub(crate) fn new(
        backbone: &'b Backbone<B>,
        items: &[Item<'_, B>],
        mut blocks: Blocks<'g, B>,
        save: Save,
    ) -> Result<Self, BackboneError> {
        let texts = FrozenTexts::before(backbone, items)?;
        let mut forest = Forest::new();
        let (mut tokens, mut learned, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (mut first_output, mut output_rows) = (Vec::new(), Vec::new());
        let (mut own, mut segments) = (Vec::new(), Vec::new());
        for (i, item) in items.iter().enumerate() {
            let Anchor { path, position, n_text, has_prompt, .. } = &item.place;
            let mut above = blocks.spans(path, item.group);
            if let Some(texts) = &texts {
                let source = Source::Context(blocks.index(&texts.block, 0));
                let position = above.last().map_or(0, Span::end);
                above.push(Span { source, rows: texts.rows[i].clone(), position });
            }
            let first = tokens.len();
            if *has_prompt {
                let n_virtual = item.prefix.n_virtual();
                tokens.extend(std::iter::repeat_n(0, n_virtual));
                learned.extend(first..first + n_virtual);
                values.extend_from_slice(item.prefix.rows());
                own.push((i, item.prefix.rows().len()));
            }
            tokens.extend_from_slice(&item.context[*n_text..]);
            let above = position.map_or(Parent::Context(above.clone()), |at| Parent::ContextAt(above, at));
            let segment = forest.push(above, tokens.len() - first);
            segments.push(segment);
            first_output.push(output_rows.len());
            output_rows.push(tokens.len() - 1);
            for continuation in item.continuations {
                let inputs = &continuation[..continuation.len() - 1];
                if !inputs.is_empty() {
                    output_rows.extend(tokens.len()..tokens.len() + inputs.len());
                    forest.push(Parent::Segment(segment), inputs.len());
                    tokens.extend_from_slice(inputs);
                }
            }
        }
        first_output.push(output_rows.len());
        let rows = embed(backbone, &tokens, &learned, &values);
        let input =
            Input { rows, forest: &forest, context: &blocks.values(), output_rows: &output_rows, save };
        let output = backbone.forward(input)?;
        Ok(Self { backbone, blocks, forest, texts, learned, own, output, segments, first_output })
    }

    /// The numbers that each example reads.
    pub(crate) fn read(&self, reads: &[Reads]) -> Vec<Numbers> {
        let (backend, head) = (self.backbone.backend(), self.backbone.head());
        let (pairs, summed) = self.output_reads(reads);
        let logits = backend.logits_at(&self.output.hidden, head, &pairs);
        let log_sums = backend.log_sum_exp(&backend.select(&self.output.hidden, &summed), head);
        let (mut logits, mut log_sums) = (logits.iter(), log_sums.iter());
        let numbers = |reads: &Reads| Numbers {
            logits: logits.by_ref().take(reads.logits.len()).map(|v| v.as_f64()).collect(),
            log_sums: log_sums.by_ref().take(reads.log_sums.len()).map(|v| v.as_f64()).collect(),
        };
        reads.iter().map(numbers).collect()
    }

    /// What all examples read, by output row.
    fn output_reads(&self, reads: &[Reads]) -> (Vec<(usize, Token)>, Vec<usize>) {
        let (mut pairs, mut summed) = (Vec::new(), Vec::new());
        for (reads, &first) in reads.iter().zip(&self.first_output) {
            pairs.extend(reads.logits.iter().map(|&(row, token)| (first + row, token)));
            summed.extend(reads.log_sums.iter().map(|&row| first + row));
        }
        (pairs, summed)
    }

    /// Adds the gradients with respect to the blocks; returns those of the examples' own copies of the prompts.
    pub(crate) fn backward(
        mut self,
        reads: &[Reads],
        numbers: &[Numbers],
        d: &[Numbers],
    ) -> Vec<(usize, Vec<B::Element>)> {
        let Some(tape) = &self.output.tape else { return Vec::new() };
        let d_hidden = Some(self.d_hidden(reads, numbers, d));
        let (context, d_context) = self.blocks.with_gradients();
        let gradient = Gradient {
            forest: &self.forest,
            context: &context,
            key_values: &self.output.key_values,
            d_hidden,
            d_key_values: None,
            d_context,
            gradient_rows: &self.learned,
        };
        let d_rows = self.backbone.backward(tape, gradient);
        if self.learned.is_empty() {
            return Vec::new();
        }
        let values = self.backbone.backend().values(&d_rows);
        let mut values = values.into_iter();
        self.own.iter().map(|&(example, n)| (example, values.by_ref().take(n).collect())).collect()
    }

    /// The gradient of the hidden output rows.
    fn d_hidden(&self, reads: &[Reads], numbers: &[Numbers], d: &[Numbers]) -> B::Rows {
        let (backend, head) = (self.backbone.backend(), self.backbone.head());
        let (pairs, summed) = self.output_reads(reads);
        let logits_of = |numbers: &[Numbers]| -> Vec<B::Element> {
            numbers.iter().flat_map(|numbers| &numbers.logits).map(|&v| B::Element::of_f64(v)).collect()
        };
        let log_sums_of = |numbers: &[Numbers]| -> Vec<B::Element> {
            numbers.iter().flat_map(|numbers| &numbers.log_sums).map(|&v| B::Element::of_f64(v)).collect()
        };
        let h = self.backbone.spec().hidden;
        let mut d_hidden = backend.zeros(self.output.hidden.n_rows(), h);
        backend.logits_at_gradient(head, &pairs, &logits_of(numbers), &logits_of(d), &mut d_hidden);
        if !summed.is_empty() {
            let rows = backend.select(&self.output.hidden, &summed);
            let mut d_rows = backend.zeros(summed.len(), h);
            let (log_sums, d) = (log_sums_of(numbers), log_sums_of(d));
            backend.log_sum_exp_gradient(&rows, head, &log_sums, &d, &mut d_rows);
            backend.scatter_add(&mut d_hidden, &summed, &d_rows);
        }
        d_hidden
    }

    /// The computed keys and values of an example's context: blocks and rows, in the order of its path.
    pub(crate) fn computed(&self, example: usize) -> impl Iterator<Item = (&KeyValues<B>, Range<usize>)> {
        let text = self.texts.as_ref().map(|texts| (&*texts.block, texts.rows[example].clone()));
        let own = self.forest.segments()[self.segments[example]].rows();
        text.into_iter().chain([(&self.output.key_values, own)])
    }
}

/// Keys and values of the texts before the learned rows, each once, and the rows of each example's.
struct FrozenTexts<B: Backend> {
    block: Arc<KeyValues<B>>,
    rows: Vec<Range<usize>>,
}

impl<B: Backend> FrozenTexts<B> {
    /// The texts before the prompts of some examples, if there are any. Cached ones are not recomputed.
    fn before(backbone: &Backbone<B>, items: &[Item<'_, B>]) -> Result<Option<Self>, BackboneError> {
        let text = |item: &Item<'_, B>| item.place.n_held..item.place.n_text;
        if items.iter().all(|item| text(item).is_empty()) {
            return Ok(None);
        }
        let (mut forest, mut blocks) = (Forest::new(), Blocks::new());
        let (mut tokens, mut kept, mut n_kept) = (Vec::new(), Vec::new(), 0);
        // The start of a text: among the cached ones, or among those to compute.
        let mut places: HashMap<(usize, &[Token]), (bool, usize)> = HashMap::new();
        let (mut order, mut fresh) = (Vec::new(), Vec::new());
        for item in items {
            let (text, whole) = (text(item), &item.context[..item.place.n_text]);
            let place = *places.entry((text.start, whole)).or_insert_with(|| {
                match item.prefix.text_cache().and_then(|mut texts| texts.get(whole)) {
                    Some(values) => {
                        kept.push(values);
                        n_kept += text.len();
                        (true, n_kept - text.len())
                    }
                    None => {
                        let above = blocks.spans(&item.place.path, 0);
                        forest.push(Parent::Context(above), text.len());
                        tokens.extend_from_slice(&whole[text.clone()]);
                        fresh.push((item, tokens.len() - text.len()));
                        (false, tokens.len() - text.len())
                    }
                }
            });
            order.push((place, text.len()));
        }
        let rows = backbone.embed(&tokens);
        let context = blocks.values();
        let input = Input { rows, forest: &forest, context: &context, output_rows: &[], save: Save::None };
        let mut block = backbone.forward(input)?.key_values;
        let row = |((is_kept, first), n): ((bool, usize), usize)| {
            let first = if is_kept { first } else { n_kept + first };
            first..first + n
        };
        let rows = order.into_iter().map(row).collect();
        if items.iter().any(|item| item.prefix.text_cache().is_some()) {
            let (backend, spec) = (backbone.backend(), backbone.spec());
            let (made, width) = (block.values(backend), spec.cache_width());
            for (item, first) in fresh {
                if let Some(mut texts) = item.prefix.text_cache() {
                    let n = text(item).len();
                    texts.keep(&item.context[..item.place.n_text], &made[first * width..(first + n) * width]);
                }
            }
            kept.push(made);
            block = KeyValues::from_values(backend, spec.layers, spec.attention.kv_width(), &kept.concat());
        }
        Ok(Some(Self { block: Arc::new(block), rows }))
    }
}
