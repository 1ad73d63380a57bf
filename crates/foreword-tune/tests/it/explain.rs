//! Every number of a walk-through is what the public library gives for it.

use foreword_backbone::kernels::{Backend, Cpu, Token};
use foreword_backbone::kernels::{Forest, Parent};
use foreword_backbone::{Input, Model, Save};
use foreword_format::SoftPrompt;
use foreword_tune::engine::pass::{Example, MaskedSpan, loss_and_gradient};
use foreword_tune::explain::walk;
use foreword_tune::likelihood::probabilities;
use foreword_tune::settings::{Joining, Method, Objective, Placement};
use foreword_tune::template::Template;
use foreword_tune::verbalizer::Verbalizer;
use foreword_tune::{Classification, Examples, Goal, Task};

use crate::golden::load;

const RATE: f64 = 0.01;

fn task(model: &Model<Cpu>, objective: Objective) -> Task {
    // " so good" has two tokens: its probability is a product.
    let labels =
        [("bad", " bad"), ("good", " so good")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    Task {
        template: Template::parse("Review: {text}\nSentiment:").unwrap(),
        chat: None,
        text_field: None,
        goal: Goal::Classification(Classification {
            verbalizer: Verbalizer::new(&labels.into(), &model.tokenizer).unwrap(),
            objective,
        }),
        joining: Joining::Whole,
        method: Method::Prompt,
        placement: Placement::Front,
        max_length: 200,
    }
}

/// L and its gradient at `soft`, through a step over one example.
fn step(model: &Model<Cpu>, task: &Task, examples: &Examples, soft: &[f32]) -> (f64, Vec<f32>) {
    let labels: Vec<&[Token]> = (0..2).map(|i| task.verbalizer().unwrap().tokens(i)).collect();
    let query = Example {
        masked: MaskedSpan::NONE,
        prompt: 0,
        context: &examples.contexts[0],
        continuations: &labels,
        extended: &[],
        truth: 1,
    };
    let shared_prefix = task.shared_prefix(model, examples, 4).unwrap();
    let step = &loss_and_gradient(&shared_prefix, &[soft], &[query], task.objective(), 4096).unwrap()[0];
    let n = if task.objective() == Objective::Lm { labels[1].len() as f64 } else { 1.0 };
    (n * step.loss, step.gradient.iter().map(|d| (n * f64::from(*d)) as f32).collect())
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

fn close(what: &str, a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-6 * b.abs().max(1e-3), "{what}: {a} and {b}");
}

#[test]
fn each_number_is_recomputed() {
    let model = load("crates/foreword-tiny", Cpu::new(2).unwrap());
    let h = model.backbone.spec().hidden;
    let rows = |tokens: &[Token]| {
        SoftPrompt::new(model.backbone.backend().values(&model.backbone.embed(tokens)), 4, h).unwrap()
    };
    let (soft, init) = (rows(&[500, 600, 700, 800]), rows(&[900, 1000, 1100, 1200]));
    let text = foreword_tune::data::Dataset::from_texts(vec!["The movie was fantastic.".into()]).unwrap();
    for objective in [Objective::Label, Objective::Lm] {
        let task = task(&model, objective);
        let examples = task.examples(&model, 4, &text, None).unwrap();
        let walked = walk(&model, &task, &examples, 1, (&soft, &init), RATE).unwrap();

        // 1, 4, 5: tokens, likelihoods, probabilities, loss.
        let ids: Vec<Token> = walked.tokens.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, examples.contexts[0]);
        for (prompt, said) in [(None, &walked.without), (Some(&soft), &walked.with)] {
            let prompts: Vec<&SoftPrompt> = prompt.into_iter().collect();
            let scores = task.log_likelihoods(&model, &prompts, &examples, 4096, &mut |_| {}).unwrap();
            assert_eq!(said.log_likelihoods, scores[0]);
            let expected = match objective {
                Objective::Label => probabilities(&scores[0]),
                Objective::Lm => scores[0].iter().map(|l| l.exp()).collect(),
            };
            assert_eq!(said.probabilities, expected);
            let next = next_tokens(&model, prompt.map_or(&[], SoftPrompt::values), &ids);
            for ((token, p), (expected, q)) in said.next.iter().zip(&next) {
                assert_eq!(token, expected);
                close("next", *p, *q);
            }
        }
        close("loss", walked.loss, -walked.with.probabilities[1].ln());

        // 6, 7: gradient and update.
        let (loss, gradient) = step(&model, &task, &examples, soft.values());
        close("loss of the step", walked.loss, loss);
        let norms: Vec<f64> = gradient.chunks_exact(h).map(norm).collect();
        assert_eq!(walked.gradient_norms, norms);
        let rate = walked.update.rate;
        close("rate", rate * norm(&gradient), RATE * (4.0 * h as f64).sqrt());
        let moved: Vec<f32> = soft
            .values()
            .iter()
            .zip(&gradient)
            .map(|(&v, &d)| (f64::from(v) - rate * f64::from(d)) as f32)
            .collect();
        close("after", walked.update.after, step(&model, &task, &examples, &moved).0);
        assert!(walked.update.after < walked.update.before);

        // 8: the small run, again.
        let mut soft = init.values().to_vec();
        let mut rows = walked.run.iter();
        for n in 0..=20 {
            let (loss, gradient) = step(&model, &task, &examples, &soft);
            if [0, 1, 2, 5, 10, 20].contains(&n) {
                let row = rows.next().unwrap();
                let way: Vec<f32> = soft.iter().zip(init.values()).map(|(a, b)| a - b).collect();
                assert_eq!(row.step, n);
                close("loss in the run", row.loss, loss);
                close("probability in the run", row.probability, (-loss).exp());
                close("distance in the run", row.distance, norm(&way));
            }
            let rate = RATE * (soft.len() as f64).sqrt() / norm(&gradient);
            soft.iter_mut()
                .zip(&gradient)
                .for_each(|(v, &d)| *v = (f64::from(*v) - rate * f64::from(d)) as f32);
        }

        // 9: costs.
        let bytes = std::fs::metadata(crate::golden::root().join("crates/foreword-tiny/model.safetensors"))
            .unwrap()
            .len();
        let costs = walked.costs;
        assert_eq!((costs.n_learned, costs.prompt_bytes, costs.prompt_optimizer_bytes), (768, 3_072, 9_216));
        assert!(bytes - costs.model_bytes < 10_000, "the file is its numbers and a small header");
        assert_eq!(costs.model_optimizer_bytes, 12 * costs.n_frozen);
        assert_eq!(costs.prompts_per_model(), costs.model_bytes / 3_072);
    }
}

/// The five likeliest next tokens after [soft ; context], by one plain call.
fn next_tokens(model: &Model<Cpu>, soft: &[f32], context: &[Token]) -> Vec<(String, f64)> {
    let (backbone, backend) = (&model.backbone, model.backbone.backend());
    let mut rows = soft.to_vec();
    rows.extend(backend.values(&backbone.embed(context)));
    let h = backbone.spec().hidden;
    let mut forest = Forest::new();
    forest.push(Parent::Root, rows.len() / h);
    let wanted = [rows.len() / h - 1];
    let input = Input {
        rows: backend.rows(rows, h),
        forest: &forest,
        context: &[],
        output_rows: &wanted,
        save: Save::None,
    };
    let logits = backbone.logits(&backbone.forward(input).unwrap().hidden);
    let p = probabilities(&logits.iter().map(|&l| f64::from(l)).collect::<Vec<_>>());
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    order[..5].iter().map(|&id| (model.tokenizer.token(id as Token).unwrap(), p[id])).collect()
}
