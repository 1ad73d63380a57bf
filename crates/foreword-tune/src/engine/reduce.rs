//! Sums over a step's examples, in an order that does not depend on the machines that compute them.
//!
//! The examples of each prompt are divided in order into *groups* of [`GROUP`]. A group's sums start from zero and run in
//! the order of its examples; groups are added along a fixed binary tree, in which node `i` of level `l` holds the groups
//! `i · 2^l .. (i + 1) · 2^l` and is the sum of its two halves, left plus right. If the number of groups is not a power of
//! two, the missing right halves are omitted. So groups can be computed in any order, in one call or in many, on one
//! machine or on several, and the total has the same bits.

use std::io;
use std::ops::Range;

use foreword_backbone::KeyValues;
use foreword_backbone::kernels::Backend;

/// Loss and gradient of one prompt over its share of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct LossAndGradient<E> {
    /// Mean loss, in nats.
    pub loss: f64,
    /// Its gradient, `[P, W]`.
    pub gradient: Vec<E>,
}

/// Number of consecutive examples of a prompt in a group.
pub const GROUP: usize = 8;

/// Sums over some examples: their losses, and the gradients with respect to the prompts.
pub struct Sums<B: Backend> {
    /// The loss by prompt: each example's share of the mean over the whole batch.
    pub losses: Vec<f64>,
    /// By prompt, the gradient `[P, W]` of learned rows with a copy in each example; empty for the others.
    pub rows: Vec<Vec<B::Element>>,
    /// Gradients of the blocks of keys and values that all examples attend to, each per layer `[n, 2·K·D]`: of all KV
    /// prefixes, and of all prefilled prompts with the tokens that all examples share, where n is the number of rows of all
    /// prompts together.
    pub key_values: Vec<KeyValues<B>>,
}

impl<B: Backend> Clone for Sums<B> {
    fn clone(&self) -> Self {
        let Self { losses, rows, key_values } = self;
        Self { losses: losses.clone(), rows: rows.clone(), key_values: key_values.clone() }
    }
}

impl<B: Backend> Sums<B> {
    /// Adds `right` element by element.
    fn add(&mut self, backend: &B, right: &Self) {
        self.losses.iter_mut().zip(&right.losses).for_each(|(sum, loss)| *sum += loss);
        for (into, from) in self.rows.iter_mut().zip(&right.rows) {
            into.iter_mut().zip(from).for_each(|(sum, &d)| *sum += d);
        }
        for (into, from) in self.key_values.iter_mut().zip(&right.key_values) {
            into.add(backend, from);
        }
    }
}

/// A node of the tree of sums.
pub struct PartialSum<B: Backend> {
    /// 0 for a group; a node of level l holds 2^l groups, fewer at the end.
    pub level: u32,
    /// Its index among the nodes of its level.
    pub index: usize,
    /// Its sums.
    pub sums: Sums<B>,
}

/// Defines which machine computes which groups of a step, and how the sums are combined.
///
/// Every machine holds the same model, data, settings and prompts, draws the same batch, and weights its examples by the
/// mean over the *whole* batch. It computes its [`groups`](Self::groups), a range of indices, and forms every node of the
/// tree inside that range. [`exchange`](Self::exchange) receives these nodes in the order of their groups, and must return
/// the nodes of all machines in that order, to the bit. Each machine then adds the rest of the tree and runs the backward
/// pass through the prompts itself, so all have the same prompts after the step. A step exchanges at most 2·log₂(n) nodes
/// per machine, each with the numbers of [`Sums`]: their shapes follow from the prompts, and [`KeyValues::values`] and
/// [`KeyValues::from_values`] convert keys and values to numbers and back.
pub trait Reduce<B: Backend> {
    /// The groups, out of `n`, that this machine computes. The machines together cover each group exactly once.
    fn groups(&self, n: usize) -> Range<usize>;

    /// Exchanges this machine's nodes for those of all machines.
    ///
    /// # Errors
    /// If a machine does not respond.
    fn exchange(&self, partial: Vec<PartialSum<B>>) -> io::Result<Vec<PartialSum<B>>>;
}

/// A single machine: computes all groups and exchanges nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl<B: Backend> Reduce<B> for Alone {
    fn groups(&self, n: usize) -> Range<usize> {
        0..n
    }

    fn exchange(&self, partial: Vec<PartialSum<B>>) -> io::Result<Vec<PartialSum<B>>> {
        Ok(partial)
    }
}

/// The sums of consecutive groups, in as few nodes as possible.
pub(crate) struct Tree<B: Backend> {
    nodes: Vec<PartialSum<B>>,
}

impl<B: Backend> Tree<B> {
    pub(crate) fn new() -> Self {
        Self { nodes: Vec::new() }
    }

    /// Appends a node.
    pub(crate) fn push(&mut self, backend: &B, mut node: PartialSum<B>) {
        while let Some(left) = self.nodes.pop_if(|left| {
            left.level == node.level && left.index.is_multiple_of(2) && left.index + 1 == node.index
        }) {
            node = joined(backend, left, &node);
        }
        self.nodes.push(node);
    }

    /// Its nodes, in the order of their groups.
    pub(crate) fn into_nodes(self) -> Vec<PartialSum<B>> {
        self.nodes
    }

    /// The sum of all groups; `None` if there are none.
    pub(crate) fn total(backend: &B, nodes: Vec<PartialSum<B>>) -> Option<Sums<B>> {
        let mut tree = Self::new();
        nodes.into_iter().for_each(|node| tree.push(backend, node));
        // The remaining nodes have decreasing levels.
        let total = tree.nodes.into_iter().rev().reduce(|right, left| joined(backend, left, &right));
        total.map(|node| node.sums)
    }
}

fn joined<B: Backend>(backend: &B, left: PartialSum<B>, right: &PartialSum<B>) -> PartialSum<B> {
    let PartialSum { level, index, mut sums } = left;
    sums.add(backend, &right.sums);
    PartialSum { level: level + 1, index: index / 2, sums }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foreword_backbone::kernels::Cpu;

    fn group(index: usize) -> PartialSum<Cpu> {
        let losses = vec![1.0 / (index as f64 + 3.0)];
        PartialSum { level: 0, index, sums: Sums { losses, rows: Vec::new(), key_values: Vec::new() } }
    }

    #[test]
    fn sums_are_those_of_the_tree_wherever_they_are_cut() {
        let cpu = Cpu::new(1).unwrap();
        let value = |index: usize| 1.0 / (index as f64 + 3.0);
        for n in 1..40_usize {
            // The tree by its definition: halves of a power of two, without the missing ones.
            fn sum(range: Range<usize>, n: usize, value: &dyn Fn(usize) -> f64) -> Option<f64> {
                if range.start >= n {
                    return None;
                }
                if range.len() == 1 {
                    return Some(value(range.start));
                }
                let middle = range.start + range.len() / 2;
                let left = sum(range.start..middle, n, value)?;
                Some(sum(middle..range.end, n, value).map_or(left, |right| left + right))
            }
            let expected = sum(0..n.next_power_of_two(), n, &value).unwrap();
            for cut in 0..=n {
                let mut nodes = Vec::new();
                for range in [0..cut, cut..n] {
                    let mut tree = Tree::new();
                    range.for_each(|index| tree.push(&cpu, group(index)));
                    nodes.extend(tree.into_nodes());
                }
                assert!(nodes.len() <= 2 * (n.ilog2() as usize + 1));
                let total = Tree::total(&cpu, nodes).unwrap();
                assert_eq!(total.losses, [expected], "{n} groups cut at {cut}");
            }
        }
        assert!(Tree::<Cpu>::total(&cpu, Vec::new()).is_none());
    }
}
