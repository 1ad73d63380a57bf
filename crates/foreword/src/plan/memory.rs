//! How much of a step is in memory at a time: as set, or as fits.

use crate::backbone::Save;
use crate::error::Result;
use crate::frozen_texts::CacheBudget;
use crate::memory::{Estimate, Sizes, context_bytes, estimate, within};
use crate::pass::Budget;
use crate::settings::Placement;
use crate::task_file::TrainTable;
use crate::{Examples, Model, SoftPrompt, Task, TrainConfig};

use crate::device::free_bytes;
use crate::display::{bytes, count};
use crate::error::UserError;
use crate::notice::Observer;

/// The sizes that determine the memory use of a step.
pub fn sizes(
    task: &Task,
    (train, dev): (&Examples, Option<&Examples>),
    starts: &[&SoftPrompt],
    batch_size: usize,
    model: &Model,
) -> Result<Sizes> {
    let n_virtual: usize = starts.iter().map(|start| start.n_virtual()).sum();
    let longest = starts.iter().map(|start| start.n_virtual()).max().unwrap_or(0);
    let (n_trunk, own) = match task.placement {
        Placement::Suffix => (0, longest),
        Placement::Front | Placement::AfterBos | Placement::System => {
            (n_virtual + starts.len() * task.shared_prefix(model, train, longest)?.n_shared(), 0)
        }
    };
    let leaves = |example: usize| task.n_leaf_rows(train, example);
    let contexts = train.contexts.iter().enumerate();
    let mut lengths: Vec<usize> = contexts.map(|(i, context)| context.len() + leaves(i) + own).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    let batch: usize = lengths.iter().take(batch_size).sum();
    let n_learned = starts.iter().map(|start| start.values().len()).sum();
    Ok(Sizes {
        n_trunk,
        longest: lengths.first().copied().unwrap_or(0),
        batch: starts.len() * batch,
        batch_size,
        n_learned,
        n_context: match task.placement {
            Placement::Suffix => {
                let contexts = train.contexts.iter().chain(dev.iter().flat_map(|dev| &dev.contexts));
                contexts.map(Vec::len).sum()
            }
            Placement::Front | Placement::AfterBos | Placement::System => 0,
        },
    })
}

/// Sets the number of tokens computed at a time and activation checkpointing; returns the estimated memory use.
pub fn fit(
    config: &mut TrainConfig,
    asked: &TrainTable,
    sizes: Sizes,
    model: &Model,
    observer: &dyn Observer,
) -> Result<Estimate> {
    if let Some(dir) = asked.context_cache_dir.as_ref().filter(|dir| !dir.is_dir()) {
        return Err(UserError::new(format!("--context-cache-dir {} is no directory", dir.display()))
            .hint("give one that is there; the file in it goes with the run")
            .into());
    }
    if asked.context_cache_dir.is_some() && sizes.n_context == 0 {
        observer.warn(
            "--context-cache-dir is for the placement suffix: in this run no text is read before the prompt",
        );
    }
    let (estimate, limit) = fitted(config, asked, sizes, model);
    if estimate.peak() > limit {
        let (peak, limit) = (bytes(estimate.peak()), bytes(limit));
        if asked.memory.is_some() && asked.micro_batch_tokens.is_none() {
            return Err(UserError::new(format!(
                "--memory {limit} is too little: this run needs about {peak}"
            ))
            .hint("give it more; or a shorter --max-length or fewer --virtual-tokens, which need less")
            .into());
        }
        observer
            .warn(&format!("the run may take about {peak} of memory, more than the {limit} that it should"));
    }
    Ok(estimate)
}

/// As [`fit`], without a notice: the estimate, and the limit, which may be lower.
fn fitted(config: &mut TrainConfig, asked: &TrainTable, sizes: Sizes, model: &Model) -> (Estimate, u64) {
    let free = || free_bytes(model).map(|free| free / 2);
    let limit = asked.memory.map(|size| size.0).or_else(free).unwrap_or(u64::MAX);
    if asked.micro_batch_tokens.is_some() {
        let once = estimate(model, sizes, config.budget());
        config.recompute = once.peak() > limit;
    } else {
        // If nothing fits, the minimum.
        let least = Budget { tokens: 1, save: Save::Checkpoint };
        let budget = within(model, sizes, limit).unwrap_or(least);
        config.micro_batch_tokens = budget.tokens;
        config.recompute = budget.save == Save::Checkpoint;
    }
    let mut estimate = estimate(model, sizes, config.budget());
    let left = limit.saturating_sub(estimate.peak());
    estimate.contexts = context_bytes(model, sizes.n_context).min(left);
    config.cache_budget = CacheBudget { memory: estimate.contexts, dir: asked.context_cache_dir.clone() };
    (estimate, limit)
}

/// Describes the plan.
pub fn in_words(estimate: &Estimate, config: &TrainConfig) -> String {
    let (peak, weights) = (bytes(estimate.peak()), bytes(estimate.weights));
    let (activations, optimizer) = (bytes(estimate.activations), bytes(estimate.optimizer));
    let tokens = count(config.micro_batch_tokens as u64);
    let contexts = match estimate.contexts {
        0 => String::new(),
        kept => format!(", texts before the prompt {}", bytes(kept)),
    };
    let twice = if config.recompute { ", recomputed in the backward pass" } else { "" };
    format!(
        "at most about {peak}: weights {weights}, activations {activations} ({tokens} tokens at a time{twice}), optimizer \
         {optimizer}{contexts}"
    )
}
