//! Logits agree with transformers in single precision, to 1e-4 of the largest.

use foreword_backbone::{Backbone, Input, Save};
use foreword_kernels::{Backend, Cpu, Element, Forest, Parent, Reference, RowBlock};

use crate::golden::{Files as _, Golden, models, tiny_models};

fn check<B: Backend>(what: &str, backbone: &Backbone<B>, rows: B::Rows, wanted: &[usize], expected: &[f32]) {
    let mut forest = Forest::new();
    forest.push(Parent::Root, rows.n_rows());
    let input = Input { rows, forest: &forest, context: &[], output_rows: wanted, save: Save::None };
    let hidden = backbone.forward(input).unwrap().hidden;
    let logits = backbone.logits(&hidden);
    assert_eq!(logits.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |max, v| max.max(v.abs()));
    let worst = logits.iter().zip(expected).map(|(a, &b)| (a.as_f32() - b).abs()).fold(0f32, f32::max);
    assert!(worst < 1e-4 * largest, "{what}: off by {worst}, the largest being {largest}");
}

fn model<B: Backend>(name: &str, backend: B) {
    let golden = Golden::read(name);
    let Some(backbone) = golden.backbone(backend) else { return };
    for text in golden.numbers("logits_texts") {
        let ids = golden.ids(text);
        let all: Vec<usize> = (0..ids.len()).collect();
        let (expected, _) = golden.array(&format!("logits.{text}"));
        check(&format!("{name}, text {text}"), &backbone, backbone.embed(&ids), &all, &expected);
    }
    let (prompt, shape) = golden.array("soft_prompt");
    for placement in ["bare", "front"] {
        let (expected, _) = golden.array(&format!("last_logits.{placement}"));
        let texts = golden.numbers("last_logits_texts");
        for (text, expected) in texts.into_iter().zip(expected.chunks_exact(backbone.spec().vocab)) {
            let n_virtual = if placement == "front" { shape[0] } else { 0 };
            let ids = golden.ids(text);
            let mut rows =
                prompt[..n_virtual * shape[1]].iter().map(|&v| B::Element::of_f32(v)).collect::<Vec<_>>();
            rows.extend(backbone.backend().values(&backbone.embed(&ids)));
            let rows = backbone.backend().rows(rows, shape[1]);
            let last = [rows.n_rows() - 1];
            check(&format!("{name}, {placement}, text {text}"), &backbone, rows, &last, expected);
        }
    }
}

#[test]
fn logits_are_those_of_transformers() {
    for name in models() {
        model(&name, Cpu::new(2).unwrap());
    }
    for name in tiny_models() {
        model(&name, Reference::<f32>::new());
    }
}

#[cfg(feature = "candle")]
#[test]
fn so_they_are_through_candle() {
    for name in models() {
        model(&name, foreword_kernels::Candle::cpu());
    }
}
