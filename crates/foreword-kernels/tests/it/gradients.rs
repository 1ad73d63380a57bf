//! Every gradient of the reference is the derivative, by central differences in double precision.

use foreword_kernels::{
    Activation, Attention, AttentionGradient, Backend, Direction, Dtype, Function, Head, Pairing, Reference,
    RowBlock, Rows,
};

use crate::support::{CONTEXT_ROWS, Numbers, SHAPE, forest, kinds};

/// Compares `gradient`, the gradient of Σ f(x) · weight with respect to `x`, with differences at every 3rd number.
fn check(name: &str, x: &Rows<f64>, gradient: &Rows<f64>, f: impl Fn(&Rows<f64>) -> f64) {
    for i in (0..x.values().len()).step_by(3) {
        let h = 1e-6;
        let at = |delta: f64| {
            let mut moved = x.clone();
            moved.values_mut()[i] += delta;
            f(&moved)
        };
        let difference = (at(h) - at(-h)) / (2.0 * h);
        let exact = gradient.values()[i];
        assert!(
            (difference - exact).abs() < 1e-6 * (1.0 + exact.abs()),
            "{name} at {i}: {difference} and {exact}"
        );
    }
}

fn product(a: &Rows<f64>, b: &Rows<f64>) -> f64 {
    a.values().iter().zip(b.values()).map(|(a, b)| a * b).sum()
}

#[test]
fn row_operations() {
    let b = Reference::<f64>::new();
    let mut numbers = Numbers(1);
    let x = numbers.rows(&b, 5, 8);

    let weight = b.matrix(vec![numbers.weights(Dtype::F32, 4, 8), numbers.weights(Dtype::F32, 3, 8)]);
    let dy = numbers.rows(&b, 5, 7);
    let dx = b.linear_gradient(&dy, &weight, None);
    check("linear", &x, &dx, |x| product(&b.linear(x, &weight, None), &dy));

    for layer in [false, true] {
        let norm = numbers.norm(&b, 8, layer);
        let dy = numbers.rows(&b, 5, 8);
        let mut dx = b.zeros(5, 8);
        b.norm_gradient(&x, &norm, &dy, &mut dx);
        check("norm", &x, &dx, |x| product(&b.norm(x, &norm), &dy));
        let norm = numbers.norm(&b, 6, layer);
        let dx = b.norm_heads_gradient(&x, 2, 3, &norm, dy.clone());
        check("norm of heads", &x, &dx, |x| product(&b.norm_heads(x, 2, 3, &norm), &dy));
    }

    for pairing in [Pairing::Halves, Pairing::Interleaved] {
        let angles = numbers.angles(5, 2, pairing);
        let dy = numbers.rows(&b, 5, 8);
        let mut dx = dy.clone();
        b.rotate(&mut dx, 2, 4, &angles, Direction::Backward);
        check("rotate", &x, &dx, |x| {
            let mut y = x.clone();
            b.rotate(&mut y, 2, 4, &angles, Direction::Forward);
            product(&y, &dy)
        });
    }

    for (function, gated) in [(Function::Silu, true), (Function::GeluTanh, false), (Function::Gelu, true)] {
        let activation = Activation { function, gated };
        let dy = numbers.rows(&b, 5, if gated { 4 } else { 8 });
        let dx = b.activate_gradient(&x, activation, &dy);
        check("activate", &x, &dx, |x| product(&b.activate(x, activation), &dy));
    }

    let bias = b.vector(&numbers.vec(7));
    for (bias, soft_cap) in [(None, None), (Some(&bias), Some(0.8))] {
        let head = Head { weight: &weight, bias, soft_cap };
        let pairs = [(0, 3), (4, 0), (4, 6)];
        let mut dx = b.zeros(5, 8);
        b.logits_at_gradient(head, &pairs, &b.logits_at(&x, head, &pairs), &[0.5, -1.0, 2.0], &mut dx);
        check("logits_at", &x, &dx, |x| {
            let logits = b.logits_at(x, head, &pairs);
            0.5 * logits[0] - logits[1] + 2.0 * logits[2]
        });
        let d = [0.3, -0.2, 1.0, 0.0, 0.7];
        let mut dx = b.zeros(5, 8);
        b.log_sum_exp_gradient(&x, head, &b.log_sum_exp(&x, head), &d, &mut dx);
        check("log_sum_exp", &x, &dx, |x| b.log_sum_exp(x, head).iter().zip(d).map(|(l, d)| l * d).sum());
    }
}

#[test]
fn attention() {
    let b = Reference::<f64>::new();
    let mut numbers = Numbers(2);
    let forest = forest();
    let query_rows = [0, 2, 3, 7, 13, 15, 20, 26, 27];
    let ways = kinds().into_iter().flat_map(|kind| [(kind, None), (kind, Some(&query_rows[..]))]);
    for ((shape, slopes), query_rows) in ways {
        let slopes = slopes.as_ref().map(|slopes| &slopes[..]);
        let n = query_rows.map_or(forest.n_rows(), <[usize]>::len);
        let queries = numbers.rows(&b, n, SHAPE.query_width());
        let own = numbers.rows(&b, forest.n_rows(), 2 * SHAPE.kv_width());
        let context = CONTEXT_ROWS.map(|n| numbers.rows(&b, n, 2 * SHAPE.kv_width()));
        let d_output = numbers.rows(&b, n, SHAPE.query_width());
        let value = |queries: &Rows<f64>, own: &Rows<f64>, first: &Rows<f64>, second: &Rows<f64>| {
            let context = [first, second];
            let a = Attention {
                shape,
                slopes,
                forest: &forest,
                query_rows,
                queries,
                key_values: own,
                context: &context,
            };
            product(&b.attend(&a).output, &d_output)
        };
        let blocks = [&context[0], &context[1]];
        let a = Attention {
            shape,
            slopes,
            forest: &forest,
            query_rows,
            queries: &queries,
            key_values: &own,
            context: &blocks,
        };
        let mut d_queries = b.zeros(n, queries.width());
        let mut d_own = b.zeros(own.n_rows(), own.width());
        let mut d_context = [&context[0], &context[1]].map(|c| Some(b.zeros(c.n_rows(), c.width())));
        let gradient = AttentionGradient {
            queries: Some(&mut d_queries),
            key_values: Some(&mut d_own),
            context: d_context.iter_mut().map(Option::as_mut).collect(),
        };
        b.attend_gradient(&a, &b.attend(&a), &d_output, gradient);
        let [Some(d_first), Some(d_second)] = &d_context else { panic!("targets were taken") };
        check("queries", &queries, &d_queries, |x| value(x, &own, &context[0], &context[1]));
        check("own", &own, &d_own, |x| value(&queries, x, &context[0], &context[1]));
        check("first context", &context[0], d_first, |x| value(&queries, &own, x, &context[1]));
        check("second context", &context[1], d_second, |x| value(&queries, &own, &context[0], x));
    }
}
