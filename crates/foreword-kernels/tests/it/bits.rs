//! A row's bits depend on nothing but the row and its ancestors: not on threads, batch mates or the cut into calls.

use foreword_kernels::{
    Attention, AttentionGradient, Backend, Cpu, Dtype, Forest, Parent, RowBlock, Rows, Source, Span,
};

use crate::support::{Numbers, SHAPE};

#[test]
fn a_product_row_alone_has_the_bits_it_has_among_others() {
    let (one, two) = (Cpu::new(1).unwrap(), Cpu::new(2).unwrap());
    let mut numbers = Numbers(3);
    let weight = one.matrix(vec![numbers.weights(Dtype::Bf16, 75, 600)]);
    let x = numbers.rows(&one, 29, 600);
    let all = one.linear(&x, &weight, None);
    assert_eq!(all, two.linear(&x, &weight, None));
    let log_sums = one.log_sum_exp(&x, &weight);
    assert_eq!(log_sums, two.log_sum_exp(&x, &weight));
    for i in 0..x.n_rows() {
        let alone = x.select(&[i]);
        assert_eq!(one.linear(&alone, &weight, None).row(0), all.row(i));
        assert_eq!(two.log_sum_exp(&alone, &weight), &log_sums[i..=i]);
    }
}

/// Three examples below one trunk in one call, and the same in two calls that add to the same gradient.
#[test]
fn the_gradient_of_a_shared_context_does_not_depend_on_the_cut_into_calls_or_on_threads() {
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
                    Parent::Context(vec![Span { source: Source::Context(0), rows: 0..19 }]),
                    lengths[i],
                );
            }
            let (queries, own, d_output) = (join(&queries), join(&own), join(&d_output));
            let context = [&trunk];
            let a = Attention {
                shape: SHAPE,
                forest: &forest,
                asking: None,
                queries: &queries,
                own: &own,
                context: &context,
            };
            let attended = cpu.attend(&a);
            let gradient = AttentionGradient {
                queries: None,
                own: None,
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
