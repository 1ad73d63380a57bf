//! The fast implementation, on every code path that this processor has, equals the reference in double precision.

use foreword_kernels::{
    Activation, Attention, AttentionGradient, Backend, CodePath, ComputeDtype, Cpu, Direction, Dtype,
    Element, Function, Head, Pairing, Reference, RowBlock, Rows, Weights,
};

use crate::support::{CONTEXT_ROWS, Numbers, distance, forest, host, kinds};

/// All results of every operation on the same random operands, named.
fn results<B: Backend>(b: &B) -> Vec<(String, Vec<f64>)> {
    let mut all = Vec::new();
    let mut keep = |name: String, rows: &B::Rows| all.push((name, host(b, rows).into_values()));
    let mut numbers = Numbers(7);
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        for (n, input, blocks) in
            [(1, 5, vec![3]), (7, 33, vec![16, 31]), (13, 515, vec![40]), (40, 64, vec![64, 64])]
        {
            let x = numbers.rows(b, n, input);
            let out: usize = blocks.iter().sum();
            let weight = b.matrix(blocks.iter().map(|&rows| numbers.weights(dtype, rows, input)).collect());
            let bias = b.vector(&numbers.vec(out));
            keep(format!("linear {dtype:?} {n} {input} {out}"), &b.linear(&x, &weight, Some(&bias)));
            let dy = numbers.rows(b, n, out);
            let dx = numbers.rows(b, n, input);
            let dx = b.linear_gradient(&dy, &weight, Some(dx));
            keep(format!("linear gradient {dtype:?} {n} {input} {out}"), &dx);
            keep(format!("embed {dtype:?}"), &b.embed(&weight, &[2, 0, 1]));
            // Stored the other way round, and a part of its outputs.
            let transposed = numbers.weights(dtype, input, out + 3).transposed();
            let weight = b.matrix(vec![transposed.row_range(1..out + 1)]);
            keep(
                format!("transposed linear {dtype:?} {n} {input} {out}"),
                &b.linear(&x, &weight, Some(&bias)),
            );
            let dx = b.linear_gradient(&dy, &weight, Some(dx));
            keep(format!("transposed gradient {dtype:?} {n} {input} {out}"), &dx);
            keep(format!("transposed embed {dtype:?}"), &b.embed(&weight, &[2, 0, 1]));
            let stack = [transposed.row_range(0..out), transposed.row_range(out..out + 3)];
            let stack = b.linear(&x, &b.matrix(stack.to_vec()), None);
            keep(format!("transposed stack {dtype:?} {n} {input} {out}"), &stack);
        }
    }
    for layer in [false, true] {
        let norm = numbers.norm(b, 37, layer);
        let (x, dy) = (numbers.rows(b, 21, 37), numbers.rows(b, 21, 37));
        let mut dx = numbers.rows(b, 21, 37);
        b.norm_gradient(&x, &norm, &dy, &mut dx);
        keep(format!("norm {layer}"), &b.norm(&x, &norm));
        keep(format!("norm gradient {layer}"), &dx);
        let norm = numbers.norm(b, 33, layer);
        keep(format!("norm of heads {layer}"), &b.norm_heads(&x, 3, 11, &norm));
        keep(format!("its gradient {layer}"), &b.norm_heads_gradient(&x, 3, 11, &norm, dy));
        b.scale(&mut dx, 0.37);
        keep("scale".into(), &dx);
    }
    for pairing in [Pairing::Halves, Pairing::Interleaved] {
        for direction in [Direction::Forward, Direction::Backward] {
            let mut x = numbers.rows(b, 9, 40);
            let angles = numbers.angles(9, 5, pairing);
            b.rotate(&mut x, 3, 12, &angles, direction);
            keep(format!("rotate {pairing:?} {direction:?}"), &x);
        }
    }
    for function in [Function::Silu, Function::Gelu, Function::GeluTanh, Function::Relu] {
        for gated in [false, true] {
            let activation = Activation { function, gated };
            let (x, dy) = (numbers.rows(b, 6, 38), numbers.rows(b, 6, if gated { 19 } else { 38 }));
            keep(format!("{activation:?}"), &b.activate(&x, activation));
            keep(format!("{activation:?} gradient"), &b.activate_gradient(&x, activation, &dy));
        }
    }
    for (bias, soft_cap) in [(false, None), (true, None), (true, Some(1.5))] {
        all.extend(head(b, &mut numbers, bias, soft_cap));
    }
    all.extend(attention(b, &mut numbers));
    all
}

fn head<B: Backend>(
    b: &B,
    numbers: &mut Numbers,
    bias: bool,
    soft_cap: Option<f64>,
) -> Vec<(String, Vec<f64>)> {
    let wide = |values: &[B::Element]| values.iter().map(|v| v.as_f64()).collect::<Vec<_>>();
    let weight = b.matrix(vec![numbers.weights(Dtype::Bf16, 1301, 24)]);
    let bias = bias.then(|| b.vector(&numbers.vec(1301)));
    let head = Head { weight: &weight, bias: bias.as_ref(), soft_cap };
    let x = numbers.rows(b, 300, 24);
    let d: Vec<B::Element> = numbers.vec(300).into_iter().map(B::Element::of_f32).collect();
    let pairs = [(0, 1300), (3, 7), (3, 8), (299, 0)];
    let (log_sums, logits) = (b.log_sum_exp(&x, head), b.logits_at(&x, head, &pairs));
    let (mut dx, mut dx_at) = (numbers.rows(b, 300, 24), b.zeros(300, 24));
    b.log_sum_exp_gradient(&x, head, &log_sums, &d, &mut dx);
    b.logits_at_gradient(head, &pairs, &logits, &d[..4], &mut dx_at);
    vec![
        ("log_sum_exp".into(), wide(&log_sums)),
        ("log_sum_exp gradient".into(), host(b, &dx).into_values()),
        ("logits_at".into(), wide(&logits)),
        ("logits_at gradient".into(), host(b, &dx_at).into_values()),
    ]
}

fn attention<B: Backend>(b: &B, numbers: &mut Numbers) -> Vec<(String, Vec<f64>)> {
    let mut all = Vec::new();
    let forest = forest();
    let query_rows = [0, 2, 3, 7, 13, 15, 20, 26, 27];
    let ways = kinds().into_iter().flat_map(|kind| [(kind, None), (kind, Some(&query_rows[..]))]);
    for ((shape, slopes), query_rows) in ways {
        let slopes = slopes.as_ref().map(|slopes| &slopes[..]);
        let n = query_rows.map_or(forest.n_rows(), <[usize]>::len);
        let queries = numbers.rows(b, n, shape.query_width());
        let own = numbers.rows(b, forest.n_rows(), 2 * shape.kv_width());
        let context = CONTEXT_ROWS.map(|n| numbers.rows(b, n, 2 * shape.kv_width()));
        let context = [&context[0], &context[1]];
        let d_output = numbers.rows(b, n, shape.query_width());
        let a = Attention {
            shape,
            slopes,
            forest: &forest,
            query_rows,
            queries: &queries,
            key_values: &own,
            context: &context,
        };
        let attended = b.attend(&a);
        let mut d_queries = numbers.rows(b, n, queries.width());
        let mut d_own = numbers.rows(b, own.n_rows(), own.width());
        let mut d_context = [None, Some(numbers.rows(b, CONTEXT_ROWS[1], own.width()))];
        let gradient = AttentionGradient {
            queries: Some(&mut d_queries),
            key_values: Some(&mut d_own),
            context: d_context.iter_mut().map(Option::as_mut).collect(),
        };
        b.attend_gradient(&a, &attended, &d_output, gradient);
        let mut keep = |name: &str, rows: &B::Rows| all.push((name.to_owned(), host(b, rows).into_values()));
        keep("attend", &attended.output);
        keep("attend log sums", &attended.log_sums);
        keep("attend d queries", &d_queries);
        keep("attend d own", &d_own);
        keep("attend d context", d_context[1].as_ref().unwrap());
    }
    all
}

/// Fails where results are not those of the reference in double precision.
fn close(name: &str, got: &[(String, Vec<f64>)], expected: &[(String, Vec<f64>)]) {
    assert_eq!(got.len(), expected.len());
    for ((what, got), (_, expected)) in got.iter().zip(expected) {
        let distance = distance(got, expected);
        assert!(distance < 2e-6, "{name}: {what} is off by {distance:e}");
    }
}

#[test]
fn fast_kernels_equal_the_reference_on_every_path() {
    let expected = results(&Reference::<f64>::new());
    close("reference f32", &results(&Reference::<f32>::new()), &expected);
    for path in CodePath::all_available() {
        close(&format!("{path:?}"), &results(&Cpu::with_path(2, path).unwrap()), &expected);
    }
}

/// In bf16 the products are those of the rounded operands, summed in single precision: of random ones 3e-3 off the exact
/// products, where each number that is rounded is off by 2⁻⁹ of itself at most.
#[test]
fn products_in_bf16_are_exact_products_of_rounded_numbers() {
    let reference = Reference::<f64>::new();
    let round = |values: &[f32]| values.iter().map(|&v| half::bf16::from_f32(v).to_f32()).collect::<Vec<_>>();
    let wide = |values: &[f32]| Rows::new(values.iter().copied().map(f64::from).collect(), values.len());
    for path in CodePath::all_available() {
        let cpu = Cpu::with_path(2, path).unwrap().with_compute_dtype(ComputeDtype::Bf16);
        let mut numbers = Numbers(11);
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            for (n, input, out) in [(1, 5, 3), (3, 66, 80), (7, 33, 47), (13, 1539, 203), (40, 64, 128)] {
                for transposed in [false, true] {
                    let weights = numbers.weights(dtype, out, input);
                    let weights =
                        if transposed { numbers.weights(dtype, input, out).transposed() } else { weights };
                    let rounded = Weights::from_f32(&round(&weights.to_f32()), input);
                    let (x, dy, start) =
                        (numbers.vec(n * input), numbers.vec(n * out), numbers.vec(n * input));
                    let exact = |weights: &Weights, x: &[f32], dy: &[f32]| {
                        let weight = reference.matrix(vec![weights.clone()]);
                        let rows = |values: &[f32], width| Rows::new(wide(values).into_values(), width);
                        let start = rows(&start, input);
                        let dx = reference.linear_gradient(&rows(dy, out), &weight, Some(start));
                        [reference.linear(&rows(x, input), &weight, None), dx].map(Rows::into_values)
                    };
                    let weight = cpu.matrix(vec![weights.clone()]);
                    let (dy_rows, start) = (Rows::new(dy.clone(), out), Rows::new(start.clone(), input));
                    let dx = cpu.linear_gradient(&dy_rows, &weight, Some(start));
                    let y = cpu.linear(&Rows::new(x.clone(), input), &weight, None);
                    let got = [host(&cpu, &y), host(&cpu, &dx)].map(Rows::into_values);
                    let of_rounded = exact(&rounded, &round(&x), &round(&dy));
                    let of_exact = exact(&weights, &x, &dy);
                    for i in 0..2 {
                        let what = format!("{path:?} {dtype:?} {n} {input} {out} {transposed} {i}");
                        let (near, far) =
                            (distance(&got[i], &of_rounded[i]), distance(&got[i], &of_exact[i]));
                        assert!(near < 2e-6, "{what}: {near:e} off the products of rounded numbers");
                        // A sum of few terms may come out near zero.
                        let bound = if input < 33 { 1e-2 } else { 3e-3 };
                        assert!(far > 1e-5 && far < bound, "{what}: {far:e} off the exact products");
                    }
                }
            }
        }
        let head = numbers.weights(Dtype::Bf16, 1301, 24);
        let x = numbers.rows(&cpu, 9, 24);
        let rounded = Rows::new(wide(&round(x.values())).into_values(), 24);
        let (matrix, expected) = (cpu.matrix(vec![head.clone()]), reference.matrix(vec![head]));
        let of_cpu = Head { weight: &matrix, bias: None, soft_cap: None };
        let of_reference = Head { weight: &expected, bias: None, soft_cap: None };
        let got: Vec<f64> = cpu.log_sum_exp(&x, of_cpu).into_iter().map(f64::from).collect();
        assert!(distance(&got, &reference.log_sum_exp(&rounded, of_reference)) < 2e-6);
        let got: Vec<f64> = cpu.logits_at(&x, of_cpu, &[(3, 7), (8, 0)]).into_iter().map(f64::from).collect();
        assert!(distance(&got, &reference.logits_at(&rounded, of_reference, &[(3, 7), (8, 0)])) < 2e-6);
    }
}

#[test]
fn products_are_in_bf16_where_that_was_asked_for() {
    let cpu = |products| Cpu::new(1).unwrap().with_compute_dtype(products);
    for stored in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        assert_eq!(cpu(ComputeDtype::F32).product_dtype(stored), Dtype::F32);
        assert_eq!(cpu(ComputeDtype::Bf16).product_dtype(stored), Dtype::Bf16);
        // Never of matrices that would lose by it.
        assert!(cpu(ComputeDtype::Auto).product_dtype(stored) == Dtype::F32 || stored == Dtype::Bf16);
    }
    assert_eq!(Cpu::new(1).unwrap().product_dtype(Dtype::Bf16), Dtype::F32);
    let portable = Cpu::with_path(1, CodePath::PORTABLE).unwrap().with_compute_dtype(ComputeDtype::Auto);
    assert_eq!(portable.product_dtype(Dtype::Bf16), Dtype::F32);
}

#[cfg(feature = "candle")]
#[test]
fn candle_equals_the_reference_in_one_piece_and_in_many() {
    use foreword_kernels::{AnyBackend, Candle};
    let expected = results(&Reference::<f64>::new());
    close("candle", &results(&Candle::cpu()), &expected);
    // So small that products, batches and sums come in parts.
    close("candle in pieces", &results(&Candle::cpu().with_scratch_limit(600)), &expected);
    close("a machine that is candle", &results(&AnyBackend::Device(Candle::cpu())), &expected);
    close("a machine that is the processor", &results(&AnyBackend::Cpu(Cpu::new(2).unwrap())), &expected);
}

/// An operation whose result can't be had panics with what happened, since its caller could not tell a wrong result.
#[cfg(feature = "candle")]
#[test]
fn an_operation_of_candle_that_fails_says_so_in_its_panic() {
    use foreword_kernels::{Candle, DeviceError};
    let candle = Candle::cpu();
    let (x, weight) = (candle.zeros(2, 4), candle.matrix(vec![Numbers(1).weights(Dtype::F32, 3, 5)]));
    let wrong = std::panic::AssertUnwindSafe(|| candle.linear(&x, &weight, None));
    let payload = std::panic::catch_unwind(wrong).unwrap_err();
    let message = payload.downcast_ref::<DeviceError>().unwrap().to_string();
    assert!(message.starts_with("the device candle's cpu failed: "), "{message}");
}
