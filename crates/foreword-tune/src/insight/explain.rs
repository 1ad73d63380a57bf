//! The mathematics of prompt tuning on one example, step by step, with real values.

use foreword_backbone::Model;
use foreword_backbone::kernels::{Backend, Element, Token};
use foreword_format::SoftPrompt;

use crate::engine::continuation_set::ContinuationSet;
use crate::engine::example::Example;
use crate::engine::pass::loss_and_gradient;
use crate::engine::prefix::SharedPrefix;
use crate::engine::score::Scorer;
use crate::likelihood::{best, probabilities};
use crate::settings::{Method, Objective};
use crate::task::{Examples, Task, TaskError};

/// Number of most likely next tokens to show.
const TOP: usize = 5;
/// Updates of the small run that get a row in its table.
const SHOWN_STEPS: [u64; 6] = [0, 1, 2, 5, 10, 20];

/// The walk-through of one example.
#[derive(Clone, Debug, PartialEq)]
pub struct Walkthrough {
    /// Tokens of x in its template, `[T]`, with their texts.
    pub tokens: Vec<(Token, String)>,
    /// f(E(x); θ): without the soft prompt.
    pub without: Prediction,
    /// f([p ; E(x)]; θ): with it.
    pub with: Prediction,
    /// L(p) = −log p(y), in nats.
    pub loss: f64,
    /// ‖∂L/∂pᵢ‖ of each virtual token, `[P]`.
    pub gradient_norms: Vec<f64>,
    /// One gradient update.
    pub update: Update,
    /// The same update, repeated from the init.
    pub run: Vec<RunRow>,
    /// What is learned and stored, compared with fine-tuning.
    pub costs: Costs,
}

/// The model's prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The most likely next tokens, with their probabilities in the whole vocabulary.
    pub next: Vec<(String, f64)>,
    /// log f(label | …), by label index, in nats: the sum over the label's tokens with the softmax over the vocabulary.
    pub log_likelihoods: Vec<f64>,
    /// p(label) by label index: under the objective `label` among the labels, under `lm` in the whole vocabulary.
    pub probabilities: Vec<f64>,
}

impl Prediction {
    /// Index of the most likely label.
    #[must_use]
    pub fn label(&self) -> usize {
        best(&self.log_likelihoods)
    }
}

/// p ← p − η ∂L/∂p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// η.
    pub rate: f64,
    /// Root mean square of the change in the numbers of p.
    pub change: f64,
    /// L before.
    pub before: f64,
    /// L after.
    pub after: f64,
}

/// A row of the small run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunRow {
    /// Number of updates.
    pub step: u64,
    /// L(p).
    pub loss: f64,
    /// p(y) = e^(−L).
    pub probability: f64,
    /// ‖p − p₀‖, the distance from the init.
    pub distance: f64,
}

/// Prompt tuning compared with fine-tuning of the same model with AdamW in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// P · H, the number of parameters that prompt tuning learns.
    pub n_learned: u64,
    /// The number of parameters of θ, which fine-tuning learns.
    pub n_frozen: u64,
    /// Bytes of a soft prompt's rows.
    pub prompt_bytes: u64,
    /// Bytes of a copy of the model in its stored format.
    pub model_bytes: u64,
    /// Bytes of gradient and two moments for the soft prompt.
    pub prompt_optimizer_bytes: u64,
    /// The same for all of θ.
    pub model_optimizer_bytes: u64,
}

impl Costs {
    /// The costs of `n_learned` numbers for this model.
    #[must_use]
    pub fn of<B: Backend>(model: &Model<B>, n_learned: usize) -> Self {
        let (n_learned, n_frozen) = (n_learned as u64, model.backbone.spec().n_parameters() as u64);
        let single = size_of::<f32>() as u64;
        Self {
            n_learned,
            n_frozen,
            prompt_bytes: single * n_learned,
            model_bytes: model.backbone.weight_bytes(),
            prompt_optimizer_bytes: 3 * single * n_learned,
            model_optimizer_bytes: 3 * single * n_frozen,
        }
    }

    /// Bytes for fine-tuning, without activations: the weights, their gradient and two moments.
    #[must_use]
    pub fn fine_tuning_bytes(&self) -> u64 {
        self.model_bytes + self.model_optimizer_bytes
    }

    /// Number of soft prompts that take the space of one copy of the model.
    #[must_use]
    pub fn prompts_per_model(&self) -> u64 {
        self.model_bytes / self.prompt_bytes.max(1)
    }
}

/// Walks through the single example of `examples` with its true label `truth`, an index of the task's verbalizer. `init` is
/// the initial value of `soft`. An update changes the numbers of p by `learning_rate` in the root mean square, like an
/// update of Adam.
///
/// # Errors
/// If the task has no labels, or the model does not support the example.
pub fn walk<B: Backend>(
    model: &Model<B>,
    task: &Task,
    examples: &Examples,
    truth: usize,
    (soft, init): (&SoftPrompt, &SoftPrompt),
    learning_rate: f64,
) -> Result<Walkthrough, TaskError> {
    let shared_prefix = task.shared_prefix(model, examples, soft.n_virtual())?;
    let bare = task.shared_prefix(model, examples, 0)?;
    let objective = task.classification()?.objective;
    let candidates = ContinuationSet::of(task, examples);
    let example = Example { truth, ..candidates.example(examples, 0) };
    let one = One { model, objective, shared_prefix: &shared_prefix, example };
    let (loss, gradient) = one.loss_and_gradient(soft.values())?;
    let mut moved = soft.values().to_vec();
    let rate = descend(&mut moved, &gradient, learning_rate);
    let update =
        Update { rate, change: learning_rate, before: loss, after: one.loss_and_gradient(&moved)?.0 };
    let token = |&id: &Token| (id, model.tokenizer.token(id).unwrap_or_default());
    Ok(Walkthrough {
        tokens: examples.contexts[0].iter().map(token).collect(),
        without: one.prediction(&bare, &[])?,
        with: one.prediction(&shared_prefix, soft.values())?,
        loss,
        gradient_norms: gradient.chunks_exact(soft.width()).map(norm).collect(),
        update,
        run: one.run(init.values(), learning_rate)?,
        costs: Costs::of(model, soft.values().len()),
    })
}

/// The value of `auto` for this model.
#[must_use]
pub fn default_rate<B: Backend>(model: &Model<B>) -> f64 {
    crate::train::learning_rate_share(Method::Prompt) * model.backbone.embedding_rms()
}

/// The example.
struct One<'a, B: Backend> {
    model: &'a Model<B>,
    objective: Objective,
    shared_prefix: &'a SharedPrefix<'a, B>,
    example: Example<'a>,
}

impl<B: Backend> One<'_, B> {
    fn loss_and_gradient(&self, soft: &[f32]) -> Result<(f64, Vec<f32>), TaskError> {
        let Self { objective, example, .. } = *self;
        let step = &loss_and_gradient(self.shared_prefix, &[soft], &[example], objective, usize::MAX)?[0];
        // Under `lm` the loss is a mean over the label's tokens; here it is −log p(y) of the whole label.
        let n = match objective {
            Objective::Label => 1.0,
            Objective::Lm => example.continuations[example.truth].len() as f64,
        };
        Ok((n * step.loss, step.gradient.iter().map(|d| (n * d.as_f64()) as f32).collect()))
    }

    fn prediction(&self, shared_prefix: &SharedPrefix<'_, B>, soft: &[f32]) -> Result<Prediction, TaskError> {
        let scorer = Scorer::new(shared_prefix, &[soft], usize::MAX)?;
        let log_likelihoods = scorer.log_likelihoods(&[self.example])?.swap_remove(0);
        let logits: Vec<f64> =
            scorer.next_token_logits(&[self.example])?[0].iter().map(|l| l.as_f64()).collect();
        let in_vocabulary = probabilities(&logits);
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let next = order
            .into_iter()
            .take(TOP)
            .map(|id| (self.model.tokenizer.token(id as Token).unwrap_or_default(), in_vocabulary[id]));
        let probabilities = match self.objective {
            Objective::Label => probabilities(&log_likelihoods),
            Objective::Lm => log_likelihoods.iter().map(|l| l.exp()).collect(),
        };
        Ok(Prediction { next: next.collect(), log_likelihoods, probabilities })
    }

    /// Gradient descent on this example.
    fn run(&self, init: &[f32], learning_rate: f64) -> Result<Vec<RunRow>, TaskError> {
        let mut soft = init.to_vec();
        let mut rows = Vec::with_capacity(SHOWN_STEPS.len());
        for step in 0..=SHOWN_STEPS[SHOWN_STEPS.len() - 1] {
            let (loss, gradient) = self.loss_and_gradient(&soft)?;
            if SHOWN_STEPS.contains(&step) {
                let way: Vec<f32> = soft.iter().zip(init).map(|(a, b)| a - b).collect();
                rows.push(RunRow { step, loss, probability: (-loss).exp(), distance: norm(&way) });
            }
            descend(&mut soft, &gradient, learning_rate);
        }
        Ok(rows)
    }
}

/// One update of `soft` that changes its numbers by `change` in the root mean square; returns η.
fn descend(soft: &mut [f32], gradient: &[f32], change: f64) -> f64 {
    let norm = norm(gradient);
    if norm == 0.0 {
        return 0.0;
    }
    let rate = change * (soft.len() as f64).sqrt() / norm;
    for (value, &d) in soft.iter_mut().zip(gradient) {
        *value = (f64::from(*value) - rate * f64::from(d)) as f32;
    }
    rate
}

/// Euclidean norm.
fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
}
