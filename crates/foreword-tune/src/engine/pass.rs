//! Loss and gradient of prompts over their examples.
//!
//! Examples are packed into micro-batches within a token budget. The budget changes no bit of the result: an example's rows
//! depend only on the rows above them, and every sum runs in the order defined in [`super::reduce`].

use std::collections::VecDeque;

use foreword_backbone::kernels::Backend;
use foreword_backbone::{Backbone, BackboneError};

pub use super::batch::Budget;
use super::batch::{Batch, Item, micro_batches};
pub use super::example::{Example, MaskedSpan};
use super::loss::{self, Loss, Numbers, Reads};
use super::prefix::{Prefilled, SharedPrefix};
pub use super::reduce::LossAndGradient;
use super::reduce::{Alone, GROUP, PartialSum, Reduce, Tree};
pub use super::score::Scorer;
use crate::settings::Objective;

/// Loss and gradient of each prompt, `[P, W]` row by row, over its examples.
///
/// # Errors
/// If a path is longer than the model's context.
pub fn loss_and_gradient<B: Backend>(
    shared_prefix: &SharedPrefix<'_, B>,
    prompts: &[&[f32]],
    examples: &[Example<'_>],
    objective: Objective,
    budget: impl Into<Budget>,
) -> Result<Vec<LossAndGradient<B::Element>>, BackboneError> {
    let examples: Vec<_> = examples.iter().map(|example| (*example, loss::of(objective, example))).collect();
    Ok(Pass::new(shared_prefix, prompts, &examples, (budget.into(), &Alone))?.finish(None))
}

/// The forward and backward pass of a step below its prompts. It produces sums over groups of examples: see
/// [`super::reduce`].
pub struct Pass<'b, B: Backend> {
    backbone: &'b Backbone<B>,
    prefilled: Prefilled<B>,
    /// Whether some examples have their own copies of the prompts.
    own: bool,
    partial: Vec<PartialSum<B>>,
}

/// A placed example with its loss.
struct Weighed<'e, B: Backend> {
    prompt: usize,
    loss: &'e dyn Loss,
    item: Item<'e, B>,
}

impl<'b, B: Backend> Pass<'b, B> {
    /// Computes the groups that `reduce` assigns to this machine. The loss of a prompt is the mean over the terms of all
    /// its examples, on all machines.
    ///
    /// # Errors
    /// If a path is longer than the model's context.
    pub fn new<'e>(
        shared_prefix: &SharedPrefix<'b, B>,
        prompts: &[&[f32]],
        examples: &'e [(Example<'e>, Box<dyn Loss + 'e>)],
        (budget, reduce): (Budget, &dyn Reduce<B>),
    ) -> Result<Self, BackboneError> {
        let backbone = shared_prefix.backbone();
        let prefilled = shared_prefix.prefill(prompts, budget.save)?;
        let mut n_terms = vec![0; prompts.len()];
        examples.iter().for_each(|(example, loss)| n_terms[example.prompt] += loss.n_terms());
        let weight = |prompt: usize| 1.0 / n_terms[prompt].max(1) as f64;

        let mut weighed = grouped(&prefilled, examples);
        let own = weighed.iter().any(|example| example.item.place.has_prompt);
        let here = reduce.groups(weighed.last().map_or(0, |last| last.item.group + 1));
        weighed.retain(|example| here.contains(&example.item.group));
        let mut tree = Tree::new();
        // The groups that have examples in the micro-batch, in order.
        let mut open: VecDeque<PartialSum<B>> = VecDeque::new();
        let costs: Vec<usize> = weighed.iter().map(|example| example.item.cost()).collect();
        let mut rest = weighed.into_iter().peekable();
        for part in micro_batches(costs.into_iter(), budget.tokens) {
            let (mut losses, mut items) = (Vec::new(), Vec::new());
            for Weighed { prompt, loss, mut item } in rest.by_ref().take(part.len()) {
                if open.back().is_none_or(|last| last.index < item.group) {
                    let sums = prefilled.zero_sums(backbone, own);
                    open.push_back(PartialSum { level: 0, index: item.group, sums });
                }
                item.group -= open[0].index;
                losses.push((prompt, loss));
                items.push(item);
            }
            let blocks = prefilled.blocks(open.iter_mut().map(|partial| &mut partial.sums));
            let batch = Batch::new(backbone, &items, blocks, budget.save)?;
            let reads: Vec<Reads> = losses.iter().map(|(_, loss)| loss.reads()).collect();
            let numbers = batch.read(&reads);
            let weighted = |((prompt, loss), numbers): (&(usize, &dyn Loss), &Numbers)| {
                let (weight, (loss, mut d)) = (weight(*prompt), loss.loss(numbers));
                d.logits.iter_mut().chain(&mut d.log_sums).for_each(|d| *d *= weight);
                (weight * loss, d)
            };
            let (values, d): (Vec<f64>, Vec<Numbers>) = losses.iter().zip(&numbers).map(weighted).unzip();
            let d_own = batch.backward(&reads, &numbers, &d);
            for (((prompt, _), item), loss) in losses.iter().zip(&items).zip(values) {
                open[item.group].sums.losses[*prompt] += loss;
            }
            for (i, d) in d_own {
                let sum = &mut open[items[i].group].sums.rows[losses[i].0];
                sum.iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
            }
            let next = rest.peek().map(|next| next.item.group);
            while let Some(whole) = open.pop_front_if(|open| next.is_none_or(|next| open.index < next)) {
                tree.push(backbone.backend(), whole);
            }
        }
        Ok(Self { backbone, prefilled, own, partial: tree.into_nodes() })
    }

    /// Takes the sums of the groups computed here, for the exchange.
    pub fn take_partial(&mut self) -> Vec<PartialSum<B>> {
        std::mem::take(&mut self.partial)
    }

    /// Loss and gradient of each prompt from the sums of all groups, in order; `None`: this pass computed them all.
    pub fn finish(self, all: Option<Vec<PartialSum<B>>>) -> Vec<LossAndGradient<B::Element>> {
        let Self { backbone, prefilled, own, partial } = self;
        let sums = Tree::total(backbone.backend(), all.unwrap_or(partial));
        prefilled.backward(backbone, sums.unwrap_or_else(|| prefilled.zero_sums(backbone, own)))
    }
}

/// All examples by group; within a group by prompt, in order.
fn grouped<'e, B: Backend>(
    prefilled: &Prefilled<B>,
    examples: &'e [(Example<'e>, Box<dyn Loss + 'e>)],
) -> Vec<Weighed<'e, B>> {
    let mut counts = vec![0; prefilled.prefixes.len()];
    let weighed = |(example, loss): &'e (Example<'e>, Box<dyn Loss + 'e>)| {
        let (prompt, loss) = (example.prompt, &**loss);
        let mut item = Item::of(&prefilled.prefixes, example, loss.continuations());
        item.group = counts[prompt] / GROUP;
        counts[prompt] += 1;
        Weighed { prompt, loss, item }
    };
    let mut grouped: Vec<_> = examples.iter().map(weighed).collect();
    grouped.sort_by_key(|example| (example.item.group, example.prompt));
    grouped
}
