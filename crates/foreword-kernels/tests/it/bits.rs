//! A row's bits depend on nothing but the row and its ancestors: not on threads, batch mates or the cut into calls.

use foreword_kernels::{
    Attention, AttentionGradient, AttentionShape, Backend, ComputeDtype, Cpu, Dtype, Forest, Head, Parent,
    RowBlock, Rows, Source, Span,
};

use crate::support::{Numbers, SHAPE, few_cases, kinds, paths_and_dtypes};

/// Few rows have code of their own, which must be the same chains of multiply-adds: up to nine rows in company, of matrices
/// with odd sizes, in every format, stored either way round, on every path, in single precision and in bf16.
#[test]
fn a_product_row_alone_has_the_bits_it_has_among_others() {
    let (sizes, step): (&[(usize, usize)], usize) = if few_cases() {
        (&[(3, 7), (75, 131)], 19)
    } else {
        (&[(1, 1), (3, 7), (75, 603), (203, 66), (16, 1030)], 7)
    };
    for (path, products) in paths_and_dtypes() {
        let cpu = |n_threads| Cpu::with_path(n_threads, path).unwrap().with_compute_dtype(products);
        let (one, two) = (cpu(1), cpu(2));
        let mut numbers = Numbers(3);
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            for &(out, input) in sizes {
                let weights = numbers.weights(dtype, out, input);
                let transposed = numbers.weights(dtype, input, out + 5).transposed().row_range(2..out + 2);
                for weight in [one.matrix(vec![weights]), one.matrix(vec![transposed])] {
                    let (x, dy) = (numbers.rows(&one, 29, input), numbers.rows(&one, 29, out));
                    let start = numbers.rows(&one, 29, input);
                    let product = |cpu: &Cpu, rows: &[usize]| {
                        let (dy, start) = (dy.select(rows), start.select(rows));
                        let added = cpu.linear_gradient(&dy, &weight, Some(start));
                        let dx = cpu.linear_gradient(&dy, &weight, None);
                        (cpu.linear(&x.select(rows), &weight, None), added, dx)
                    };
                    let every: Vec<usize> = (0..29).collect();
                    let all = product(&one, &every);
                    assert_eq!(all, product(&two, &every));
                    for n in 1..=9 {
                        for rows in every.windows(n).step_by(step) {
                            let expected = (all.0.select(rows), all.1.select(rows), all.2.select(rows));
                            assert_eq!(
                                product(&one, rows),
                                expected,
                                "{path:?} {products:?} {dtype:?} {out} {input} {n}"
                            );
                            assert_eq!(
                                product(&two, rows),
                                expected,
                                "{path:?} {products:?} {dtype:?} {out} {input} {n}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_log_sum_alone_has_the_bits_it_has_among_others() {
    for products in [ComputeDtype::F32, ComputeDtype::Bf16] {
        let cpu = |n_threads| Cpu::new(n_threads).unwrap().with_compute_dtype(products);
        let (one, two) = (cpu(1), cpu(2));
        let mut numbers = Numbers(3);
        let weight = one.matrix(vec![numbers.weights(Dtype::Bf16, 75, 600)]);
        let x = numbers.rows(&one, 29, 600);
        let head = Head { weight: &weight, bias: None, soft_cap: Some(3.0) };
        let log_sums = one.log_sum_exp(&x, head);
        assert_eq!(log_sums, two.log_sum_exp(&x, head));
        for i in 0..x.n_rows() {
            assert_eq!(two.log_sum_exp(&x.select(&[i]), head), &log_sums[i..=i]);
        }
    }
}

/// Three examples below one trunk in one call, and the same in two calls that add to the same gradient.
#[test]
fn the_gradient_of_a_shared_context_does_not_depend_on_the_cut_into_calls_or_on_threads() {
    for (shape, slopes) in kinds() {
        of_a_shared_context(shape, slopes.as_ref().map(|slopes| &slopes[..]));
    }
}

fn of_a_shared_context(shape: AttentionShape, slopes: Option<&[f32]>) {
    let lengths = [5, 1, 11];
    let mut numbers = Numbers(4);
    let cpu = Cpu::new(1).unwrap();
    let trunk = numbers.rows(&cpu, 19, 2 * SHAPE.kv_width());
    let mut operand = |width: usize| -> Vec<Rows<f32>> {
        lengths.iter().map(|&n| Rows::new(numbers.vec(n * width), width)).collect()
    };
    let (queries, own, d_output) =
        (operand(SHAPE.query_width()), operand(2 * SHAPE.kv_width()), operand(SHAPE.query_width()));
    let run = |n_threads: usize, calls: &[&[usize]]| {
        let cpu = Cpu::new(n_threads).unwrap();
        let mut d_trunk = [Some(cpu.zeros(trunk.n_rows(), trunk.width()))];
        let mut outputs = Vec::new();
        for call in calls {
            let join = |parts: &[Rows<f32>]| {
                let values = call.iter().flat_map(|&i| parts[i].values().to_vec()).collect();
                Rows::new(values, parts[0].width())
            };
            let mut forest = Forest::new();
            for &i in *call {
                forest.push(
                    Parent::Context(vec![Span { source: Source::Context(0), rows: 0..19, position: 0 }]),
                    lengths[i],
                );
            }
            let (queries, own, d_output) = (join(&queries), join(&own), join(&d_output));
            let context = [&trunk];
            let a = Attention {
                shape,
                slopes,
                forest: &forest,
                query_rows: None,
                queries: &queries,
                key_values: &own,
                context: &context,
            };
            let attended = cpu.attend(&a);
            let gradient = AttentionGradient {
                queries: None,
                key_values: None,
                context: d_trunk.iter_mut().map(Option::as_mut).collect(),
            };
            cpu.attend_gradient(&a, &attended, &d_output, gradient);
            outputs.extend(attended.output.into_values());
        }
        (outputs, d_trunk)
    };
    let together = run(1, &[&[0, 1, 2]]);
    assert_eq!(together, run(2, &[&[0, 1, 2]]));
    assert_eq!(together, run(2, &[&[0], &[1, 2]]));
    assert_eq!(together, run(1, &[&[0, 1], &[2]]));
}

/// A pool that the calling thread is one of computes the same, and a second one on the same thread is one that it isn't part of.
#[test]
fn the_calling_thread_may_be_one_of_the_pool() {
    let mut numbers = Numbers(11);
    let weights = numbers.weights(Dtype::F32, 75, 203);
    let product = |cpu: &Cpu, x: &Rows<f32>| cpu.linear(x, &cpu.matrix(vec![weights.clone()]), None);
    let apart = Cpu::new(2).unwrap();
    let x = numbers.rows(&apart, 29, 203);
    let expected = product(&apart, &x);
    let on_one_thread = || {
        for n_threads in [1, 2] {
            let cpu = Cpu::on_this_thread(n_threads).unwrap();
            assert_eq!((product(&cpu, &x), cpu.n_threads()), (expected.clone(), n_threads));
        }
    };
    std::thread::scope(|scope| scope.spawn(on_one_thread).join().unwrap());
}
