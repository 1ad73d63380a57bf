//! The law of the forest: a shared trunk gives the hidden states and gradients of padded copies, in any cut.

use foreword_backbone::{Backbone, Gradient, Input, KeyValues, Output, Save};
use foreword_kernels::{Backend, Cpu, Element, Forest, Parent, Reference, RowBlock, Source, Span, Token};

use crate::golden::{Files as _, Golden, models, tiny_models};

const TEXTS: [&[Token]; 3] = [&[3, 9, 27, 81], &[5, 25], &[7, 49, 2, 14, 98, 11]];
const N_VIRTUAL: usize = 3;

/// What both ways must agree on: the last hidden state of each text, and the gradient of Σ hidden · weight with respect to
/// the learned rows.
pub(crate) struct Result {
    pub(crate) hidden: Vec<f64>,
    pub(crate) gradient: Vec<f64>,
}

fn learned<B: Backend>(backbone: &Backbone<B>) -> Vec<B::Element> {
    backbone.backend().values(&backbone.embed(&[17, 34, 51]))
}

fn weights<B: Backend>(n: usize) -> Vec<B::Element> {
    (0..n).map(|i| B::Element::of_f64((i as f64 * 0.7).sin())).collect()
}

fn wide<E: Element>(values: &[E]) -> Vec<f64> {
    values.iter().map(|v| v.as_f64()).collect()
}

/// Each text with its own copy of the learned rows, one call each.
pub(crate) fn copies<B: Backend>(backbone: &Backbone<B>) -> Result {
    let (backend, h) = (backbone.backend(), backbone.spec().hidden);
    let mut result = Result { hidden: Vec::new(), gradient: vec![0.0; N_VIRTUAL * h] };
    for (i, text) in TEXTS.iter().enumerate() {
        let mut rows = learned(backbone);
        rows.extend(backend.values(&backbone.embed(text)));
        let mut forest = Forest::new();
        forest.push(Parent::Root, rows.len() / h);
        let wanted = [rows.len() / h - 1];
        let input = Input {
            rows: backend.rows(rows, h),
            forest: &forest,
            context: &[],
            output_rows: &wanted,
            save: Save::All,
        };
        let Output { hidden, key_values, tape } = backbone.forward(input).unwrap();
        result.hidden.extend(wide(&backend.values(&hidden)));
        let d_hidden = weights::<B>(TEXTS.len() * h)[i * h..(i + 1) * h].to_vec();
        let gradient = Gradient {
            forest: &forest,
            context: &[],
            key_values: &key_values,
            d_hidden: Some(backend.rows(d_hidden, h)),
            d_key_values: None,
            d_context: Vec::new(),
            gradient_rows: &[0, 1, 2],
        };
        let d = backend.values(&backbone.backward(&tape.unwrap(), gradient));
        result.gradient.iter_mut().zip(wide(&d)).for_each(|(sum, d)| *sum += d);
    }
    result
}

/// The learned rows once as a trunk, the texts below it in calls of the given sizes.
pub(crate) fn forest<B: Backend>(backbone: &Backbone<B>, calls: &[usize]) -> Result {
    let (backend, h) = (backbone.backend(), backbone.spec().hidden);
    let mut trunk_forest = Forest::new();
    trunk_forest.push(Parent::Root, N_VIRTUAL);
    let rows = backend.rows(learned(backbone), h);
    let trunk = backbone
        .forward(Input { rows, forest: &trunk_forest, context: &[], output_rows: &[], save: Save::All })
        .unwrap();
    let mut d_trunk = backbone.zero_key_values(N_VIRTUAL);
    let mut hidden = Vec::new();
    let mut first = 0;
    for &n in calls {
        let texts = &TEXTS[first..first + n];
        let mut forest = Forest::new();
        let mut wanted = Vec::new();
        for text in texts {
            forest.push(Parent::Context(trunk_forest.path(0, 0)), text.len());
            wanted.push(forest.n_rows() - 1);
        }
        let context: [&KeyValues<B>; 1] = [&trunk.key_values];
        let rows = backbone.embed(&texts.concat());
        let output = backbone
            .forward(Input {
                rows,
                forest: &forest,
                context: &context,
                output_rows: &wanted,
                save: Save::All,
            })
            .unwrap();
        hidden.extend(wide(&backend.values(&output.hidden)));
        let d_hidden = weights::<B>(TEXTS.len() * h)[first * h..(first + n) * h].to_vec();
        let gradient = Gradient {
            forest: &forest,
            context: &context,
            key_values: &output.key_values,
            d_hidden: Some(backend.rows(d_hidden, h)),
            d_key_values: None,
            d_context: vec![Some(&mut d_trunk)],
            gradient_rows: &[],
        };
        assert_eq!(backbone.backward(&output.tape.unwrap(), gradient).n_rows(), 0);
        first += n;
    }
    let gradient = Gradient {
        forest: &trunk_forest,
        context: &[],
        key_values: &trunk.key_values,
        d_hidden: None,
        d_key_values: Some(d_trunk),
        d_context: Vec::new(),
        gradient_rows: &[0, 1, 2],
    };
    let gradient = wide(&backend.values(&backbone.backward(&trunk.tape.unwrap(), gradient)));
    Result { hidden, gradient }
}

/// The learned rows and a text in one call, and its last tokens one by one below a cache that they are assigned to.
#[test]
fn a_cache_changes_no_bit() {
    for name in models() {
        let Some(backbone) = Golden::read(&name).backbone(Cpu::new(2).unwrap()) else { continue };
        let tokens: Vec<Token> = (0..40).map(|i| 3 + i * 7 % 90).collect();
        let hidden = |rows, forest: &Forest, context: &[&KeyValues<Cpu>]| {
            let wanted: Vec<usize> = (0..forest.n_rows()).collect();
            backbone.forward(Input { rows, forest, context, output_rows: &wanted, save: Save::None }).unwrap()
        };
        let mut whole = Forest::new();
        whole.push(Parent::Root, tokens.len());
        let whole = backbone.backend().values(&hidden(backbone.embed(&tokens), &whole, &[]).hidden);

        let mut beginning = Forest::new();
        beginning.push(Parent::Root, 5);
        let first = hidden(backbone.embed(&tokens[..5]), &beginning, &[]);
        let mut cached = backbone.backend().values(&first.hidden);
        let mut cache = backbone.zero_key_values(tokens.len());
        for (i, &token) in tokens.iter().enumerate().skip(5) {
            let mut path = beginning.path(0, 0);
            let position = path.last().map_or(0, Span::end);
            path.push(Span { source: Source::Context(1), rows: 5..i, position });
            let mut forest = Forest::new();
            forest.push(Parent::Context(path), 1);
            let next = hidden(backbone.embed(&[token]), &forest, &[&first.key_values, &cache]);
            cached.extend(backbone.backend().values(&next.hidden));
            cache.assign(backbone.backend(), &[i], &next.key_values);
        }
        assert_eq!(whole, cached, "{name}");
    }
}

pub(crate) fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>();
    (square(&mut a.iter().zip(b).map(|(a, b)| a - b)) / square(&mut b.iter().copied())).sqrt()
}

fn check<B: Backend>(name: &str, backend: B, tolerance: f64) {
    let Some(backbone) = Golden::read(name).backbone(backend) else { return };
    let expected = copies(&backbone);
    for calls in [&[3][..], &[1, 2], &[1, 1, 1]] {
        let got = forest(&backbone, calls);
        let (hidden, gradient) =
            (distance(&got.hidden, &expected.hidden), distance(&got.gradient, &expected.gradient));
        assert!(hidden < tolerance && gradient < tolerance, "{name} {calls:?}: {hidden:e}, {gradient:e}");
    }
}

#[test]
fn a_shared_trunk_is_exact_in_double_precision() {
    for name in tiny_models() {
        check(&name, Reference::<f64>::new(), 1e-10);
    }
}

#[test]
fn a_shared_trunk_is_as_good_as_single_precision_allows() {
    for name in models() {
        check(&name, Cpu::new(2).unwrap(), 3e-5);
    }
}

#[cfg(feature = "candle")]
#[test]
fn a_shared_trunk_is_as_good_through_candle() {
    for name in models() {
        check(&name, foreword_kernels::Candle::cpu(), 3e-5);
    }
}

#[test]
fn the_cut_into_calls_changes_no_bit() {
    let backbone = Golden::read("llama-tiny").backbone(Cpu::new(2).unwrap()).unwrap();
    let whole = forest(&backbone, &[3]);
    for calls in [&[1, 2][..], &[2, 1], &[1, 1, 1]] {
        let cut = forest(&backbone, calls);
        assert_eq!((&cut.hidden, &cut.gradient), (&whole.hidden, &whole.gradient), "{calls:?}");
    }
}
