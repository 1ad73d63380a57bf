//! A loss of one's own, outside of the engine: soft targets for every token of a text, as a teacher gives them.

use foreword_backbone::Model;
use foreword_backbone::kernels::{Backend, Element, Reference, Token};
use foreword_tune::engine::loss::{Loss, Numbers, Reads};
use foreword_tune::engine::pass::{Budget, Example, LossAndGradient, Pass, loss_and_gradient};
use foreword_tune::engine::prefix::SharedPrefix;
use foreword_tune::engine::reduce::Alone;
use foreword_tune::settings::{Method, Objective, Placement};

use crate::golden::load;

const CONTEXT: &[Token] = &[0, 9, 8, 31];
const TEXT: [&[Token]; 1] = [&[50, 61, 62, 7]];

/// Σ over rows of w · (log-sum-exp − logit), of what a teacher says of some tokens at each row.
struct SoftTargets {
    /// (row, token, weight); rows ascend from 0.
    targets: Vec<(usize, Token, f64)>,
}

impl Loss for SoftTargets {
    fn continuations(&self) -> &[&[Token]] {
        &TEXT
    }

    fn reads(&self) -> Reads {
        Reads {
            logits: self.targets.iter().map(|&(row, token, _)| (row, token)).collect(),
            log_sums: (0..TEXT[0].len()).collect(),
        }
    }

    fn n_terms(&self) -> usize {
        TEXT[0].len()
    }

    fn loss(&self, numbers: &Numbers) -> (f64, Numbers) {
        let mut d = Numbers { logits: Vec::new(), log_sums: vec![0.0; numbers.log_sums.len()] };
        let mut loss = 0.0;
        for (&(row, _, weight), logit) in self.targets.iter().zip(&numbers.logits) {
            loss += weight * (numbers.log_sums[row] - logit);
            d.logits.push(-weight);
            d.log_sums[row] += weight;
        }
        (loss, d)
    }
}

fn step(
    model: &Model<Reference<f64>>,
    soft: &[f32],
    targets: &[(usize, Token, f64)],
    placement: Placement,
) -> LossAndGradient<f64> {
    let shared = SharedPrefix::new(&model.backbone, (Method::Prompt, placement), 1, [CONTEXT]).unwrap();
    let loss: Box<dyn Loss> = Box::new(SoftTargets { targets: targets.to_vec() });
    let examples = [(Example::of(0, CONTEXT), loss)];
    Pass::new(&shared, &[soft], &examples, (Budget::from(1000), &Alone)).unwrap().finish(None).remove(0)
}

fn soft_prompt<B: Backend>(model: &Model<B>) -> Vec<f32> {
    let n = 2 * model.backbone.spec().hidden;
    (0..n).map(|i| ((i as f32 * 0.7).sin() * 100.0).round() / 1024.0).collect()
}

#[test]
fn targets_of_one_token_are_those_of_the_objective_lm() {
    let model = load("testdata/models/llama-tiny", Reference::<f64>::new());
    let soft = soft_prompt(&model);
    let targets: Vec<_> = TEXT[0].iter().enumerate().map(|(row, &token)| (row, token, 1.0)).collect();
    for placement in [Placement::Front, Placement::Suffix] {
        let own = step(&model, &soft, &targets, placement);
        let shared = SharedPrefix::new(&model.backbone, (Method::Prompt, placement), 1, [CONTEXT]).unwrap();
        let example = Example { continuations: &TEXT, ..Example::of(0, CONTEXT) };
        let lm = &loss_and_gradient(&shared, &[&soft], &[example], Objective::Lm, 1000).unwrap()[0];
        assert!((own.loss - lm.loss).abs() < 1e-12);
        for (own, lm) in own.gradient.iter().zip(&lm.gradient) {
            assert!((own.as_f64() - lm.as_f64()).abs() < 1e-12);
        }
    }
}

#[test]
fn the_gradient_of_soft_targets_is_the_slope_of_their_loss() {
    let model = load("testdata/models/llama-tiny", Reference::<f64>::new());
    let soft = soft_prompt(&model);
    let targets = [(0, 50, 0.7), (0, 3, 0.3), (1, 61, 0.5), (1, 62, 0.2), (1, 9, 0.1), (3, 7, 0.9)];
    let at = step(&model, &soft, &targets, Placement::Front);
    for i in [0, 7, 40] {
        // Exact in single precision, and of fourth order.
        let moved = |by: f32| {
            let mut soft = soft.clone();
            soft[i] += by / 1024.0;
            step(&model, &soft, &targets, Placement::Front).loss
        };
        let slope = (8.0 * (moved(1.0) - moved(-1.0)) - (moved(2.0) - moved(-2.0))) * 1024.0 / 12.0;
        assert!(
            (at.gradient[i] - slope).abs() < 1e-6 * slope.abs().max(0.1),
            "{i}: {} {slope}",
            at.gradient[i]
        );
    }
}
