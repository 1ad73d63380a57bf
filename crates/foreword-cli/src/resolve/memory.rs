//! How much of a step is in memory at a time: what is asked for, or what fits.

use anyhow::Result;
use foreword::contexts::ContextRoom;
use foreword::memory::{Estimate, Sizes, context_bytes, estimate, within};
use foreword::task_file::TrainTable;
use foreword::{Model, TrainConfig};

use crate::device::{Machine, free_bytes};
use crate::exit::Given;
use crate::printer::Printer;
use crate::words::{bytes, count};

/// Sets how many tokens are computed at a time, and whether activations are computed twice; what it then takes.
pub(crate) fn fit(
    config: &mut TrainConfig,
    asked: &TrainTable,
    sizes: Sizes,
    model: &Model<Machine>,
    printer: &Printer,
) -> Result<Estimate> {
    let limit = asked.memory.map(|size| size.0).or_else(|| Some(free_bytes(model)? / 2)).unwrap_or(u64::MAX);
    if asked.micro_batch_tokens.is_some() {
        let once = estimate(model, sizes, config.budget());
        config.recompute = once.peak() > limit;
    } else {
        match within(model, sizes, limit) {
            Ok(budget) => {
                config.micro_batch_tokens = budget.tokens;
                config.recompute = budget.tape == foreword::backbone::Taped::Inputs;
            }
            Err(least) if asked.memory.is_some() => {
                let (limit, least) = (bytes(limit), bytes(least));
                return Err(Given::wrong(format!(
                    "--memory {limit} is too little: this run needs about {least}"
                ))
                .hint("give it more; or a shorter --max-length or fewer --virtual-tokens, which need less")
                .into());
            }
            Err(_) => {
                config.micro_batch_tokens = 1;
                config.recompute = true;
            }
        }
    }
    let mut estimate = estimate(model, sizes, config.budget());
    let left = limit.saturating_sub(estimate.peak());
    estimate.contexts = context_bytes(model, sizes.n_context).min(left);
    config.context_room = ContextRoom { memory: estimate.contexts, dir: asked.context_cache_dir.clone() };
    if estimate.peak() > limit {
        let (peak, limit) = (bytes(estimate.peak()), bytes(limit));
        printer
            .warn(&format!("the run may take about {peak} of memory, more than the {limit} that it should"));
    }
    Ok(estimate)
}

/// The plan in words.
pub(crate) fn in_words(estimate: &Estimate, config: &TrainConfig) -> String {
    let (peak, weights) = (bytes(estimate.peak()), bytes(estimate.weights));
    let (activations, optimizer) = (bytes(estimate.activations), bytes(estimate.optimizer));
    let tokens = count(config.micro_batch_tokens as u64);
    let contexts = match estimate.contexts {
        0 => String::new(),
        kept => format!(", texts before the prompt {}", bytes(kept)),
    };
    let twice = if config.recompute { ", computed twice" } else { "" };
    format!(
        "at most about {peak}: weights {weights}, activations {activations} ({tokens} tokens at a time{twice}), optimizer \
         {optimizer}{contexts}"
    )
}
