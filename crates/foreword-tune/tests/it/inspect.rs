//! Every number of an inspection, recomputed plainly from the table.

use foreword_backbone::Model;
use foreword_backbone::kernels::{Backend as _, Cpu, Token};
use foreword_format::SoftPrompt;
use foreword_tune::init::Sources;
use foreword_tune::inspect::inspect;
use foreword_tune::settings::Init;
use foreword_tune::verbalizer::Verbalizer;

use crate::golden::load;

/// The embedding of a token, in double precision.
fn embedding(model: &Model<Cpu>, token: Token) -> Vec<f64> {
    let row = model.backbone.backend().values(&model.backbone.embed(&[token]));
    row.into_iter().map(f64::from).collect()
}

fn row(soft: &SoftPrompt, i: usize) -> Vec<f64> {
    soft.row(i).unwrap().iter().copied().map(f64::from).collect()
}

fn norm(a: &[f64]) -> f64 {
    a.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / (norm(a) * norm(b))
}

#[track_caller]
fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{a} and {b}");
}

/// Rows near the init's, each moved in its own direction, as training does.
fn moved(init: &SoftPrompt) -> SoftPrompt {
    let values = init.values().iter().enumerate().map(|(i, v)| 1.5 * v + 0.2 * ((i * i) as f32 * 0.37).sin());
    SoftPrompt::new(values.collect(), init.n_virtual(), init.width()).unwrap()
}

#[test]
fn each_number_is_recomputed() {
    // The second model's width is no multiple of the lanes of a sum.
    for (path, text) in
        [("crates/foreword-tiny", "Good or bad?"), ("testdata/models/gpt2-tiny", "Classify the text.")]
    {
        let model = load(path, Cpu::new(2).unwrap());
        let labels = [("bad", " bad"), ("good", " so good")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        let verbalizer = Verbalizer::new(&labels.into(), &model.tokenizer).unwrap();
        let sources = Sources::of(&model, Some(&verbalizer));
        let init = sources.soft_prompt(&Init::Text(text.to_owned()), 3, 0).unwrap();
        let soft = moved(&init);
        let top = 4;
        let inspection = inspect(&model, &soft, Some(&init), Some(&verbalizer), top);

        let table = model.backbone.embeddings();
        close(inspection.table_norm, model.backbone.embedding_rms() * (table.width() as f64).sqrt());
        let pairs = [(0, 1), (0, 2), (1, 2)].map(|(i, j)| cosine(&row(&soft, i), &row(&soft, j)));
        close(inspection.mean_cosine.unwrap(), pairs.iter().sum::<f64>() / 3.0);

        assert_eq!(inspection.rows.len(), 3);
        let mut n_still = 0;
        for (i, found) in inspection.rows.iter().enumerate() {
            let (p, began) = (row(&soft, i), row(&init, i));
            close(found.norm, norm(&p));
            close(found.relative_norm, norm(&p) / inspection.table_norm);

            let mut all: Vec<(f64, Token)> = (0..table.n() as Token)
                .filter(|&token| model.tokenizer.token(token).is_some())
                .map(|token| (cosine(&p, &embedding(&model, token)), token))
                .collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            assert_eq!(found.nearest.len(), top);
            for (near, (expected, token)) in found.nearest.iter().zip(all) {
                close(near.cosine, expected);
                assert_eq!(near.token, token);
                assert_eq!(near.text, model.tokenizer.token(token).unwrap());
            }

            let drift = found.drift.unwrap();
            let way: Vec<f64> = p.iter().zip(&began).map(|(a, b)| a - b).collect();
            close(drift.distance, norm(&way));
            close(drift.cosine, cosine(&p, &began));
            assert_eq!(drift.nearest_is_init, embedding(&model, found.nearest[0].token) == began);
            n_still += usize::from(drift.nearest_is_init);

            let firsts = (0..2).map(|label| verbalizer.tokens(label)[0]);
            assert_eq!(found.labels.len(), 2);
            for (&given, first) in found.labels.iter().zip(firsts) {
                close(given, cosine(&p, &embedding(&model, first)));
            }
        }
        assert!(n_still > 0, "rows that moved a little are still nearest to where they began");
    }
}

#[test]
fn what_is_not_known_is_left_out() {
    let model = load("crates/foreword-tiny", Cpu::new(2).unwrap());
    let sources = Sources::of(&model, None);
    let one = sources.soft_prompt(&Init::Vocab, 1, 7).unwrap();
    let inspection = inspect(&model, &one, None, None, 0);
    assert_eq!(inspection.mean_cosine, None);
    let row = &inspection.rows[0];
    assert_eq!((row.nearest.as_slice(), row.drift, row.labels.as_slice()), (&[][..], None, &[][..]));
    // An init of another shape is not what these rows began as.
    let two = sources.soft_prompt(&Init::Vocab, 2, 7).unwrap();
    assert_eq!(inspect(&model, &one, Some(&two), None, 1).rows[0].drift, None);
    // A row of the table is its own nearest token.
    let near = &inspect(&model, &one, None, None, 1).rows[0].nearest[0];
    assert!((near.cosine - 1.0).abs() < 1e-12);
    // A row of zeros has no direction.
    let zero = SoftPrompt::new(vec![0.0; one.width()], 1, one.width()).unwrap();
    let row = &inspect(&model, &zero, Some(&one), None, 1).rows[0];
    assert_eq!((row.norm, row.drift.unwrap().cosine), (0.0, 0.0));
}
