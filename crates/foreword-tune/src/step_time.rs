//! How long a step takes on this machine: a few are made, and forgotten.

use std::ops::ControlFlow;

use foreword_backbone::Model;
use foreword_backbone::kernels::Backend;
use foreword_format::SoftPrompt;

use crate::settings::Placement;
use crate::task::{Examples, Task};
use crate::train::{Event, TrainConfig, TrainError, train};

/// Steps that count. One before them does not: whatever is done once is done in it.
const COUNTED: usize = 3;
/// Seconds after which no other step is waited for.
const LONG: f64 = 5.0;

/// Steps that [`step_seconds`] makes at most.
pub const STEPS: usize = 1 + COUNTED;

/// How many of a run's training examples are enough to time its steps by. A placement before which texts stand has what the
/// model makes of them kept, so that from the second epoch on they cost nothing: where most steps are such, they see the
/// examples of the first again.
#[must_use]
pub fn n_examples(task: &Task, config: &TrainConfig, n_train: usize) -> usize {
    let batch = config.batch_size.min(n_train);
    let epochs = config.steps.saturating_mul(batch as u64) / n_train.max(1) as u64;
    let is_kept = task.placement == Placement::Suffix && epochs > 1;
    if is_kept { batch } else { batch.saturating_mul(STEPS).min(n_train) }
}

/// Seconds of one step of a run with these settings whose rows are as they are in `rows`: forward, backward and update of a
/// batch with its share of the tokenising, evaluations apart. The median of a few, fewer where they take long; nothing where
/// not one came out as numbers. `on_step` hears how many were made.
///
/// # Errors
/// As [`train`].
pub fn step_seconds<B: Backend>(
    model: &Model<B>,
    task: &Task,
    examples: &Examples,
    rows: SoftPrompt,
    config: &TrainConfig,
    on_step: &mut dyn FnMut(usize),
) -> Result<Option<f64>, TrainError> {
    let config = TrainConfig { steps: STEPS as u64, survivors: 1, ..config.clone() };
    let batch = config.batch_size.min(examples.n()) as f64;
    let mut seconds = Vec::with_capacity(STEPS);
    train(model, task, (examples, None), rows, &config, &mut |event| {
        if let Event::Step { made, .. } = event {
            seconds.push(batch / made.examples_per_second);
            on_step(seconds.len());
        }
        if is_enough(&seconds) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(typical(&seconds))
}

/// Whether these steps are enough.
fn is_enough(seconds: &[f64]) -> bool {
    seconds.len() >= STEPS || seconds.iter().sum::<f64>() > LONG
}

/// The median of all but the first; the first where there is no other.
fn typical(seconds: &[f64]) -> Option<f64> {
    let (&first, rest) = seconds.split_first()?;
    let mut rest = rest.to_vec();
    rest.sort_unstable_by(f64::total_cmp);
    let upper = rest.len() / 2;
    Some(match rest.len() {
        0 => first,
        n if n.is_multiple_of(2) => (rest[upper - 1] + rest[upper]) / 2.0,
        _ => rest[upper],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_does_not_count_and_one_of_the_others_may_be_slow() {
        assert_eq!(typical(&[9.0, 1.0, 8.0, 2.0]), Some(2.0));
        assert_eq!(typical(&[9.0, 3.0, 1.0]), Some(2.0));
        assert_eq!(typical(&[9.0, 1.0]), Some(1.0));
        assert_eq!(typical(&[9.0]), Some(9.0));
        assert_eq!(typical(&[]), None);
    }

    #[test]
    fn long_steps_are_few() {
        assert!(is_enough(&[LONG + 1.0]));
        assert!(!is_enough(&[1.0, 1.0, 1.0]) && is_enough(&[1.0, 1.0, 1.0, 1.0]));
        assert!(!is_enough(&[2.0, 2.0]) && is_enough(&[2.0, 2.0, 2.0]));
    }
}
