//! Rates of the products with frozen matrices, forward and input gradient; `bench/products.py` has PyTorch's for the same shapes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use foreword_kernels::{Backend as _, Bytes, Cpu, Dtype, Weights};

/// Rows, inputs, outputs: a step of GPT-2 and of the bundled model, a vocabulary for a batch, and generation.
const SHAPES: [(usize, usize, usize); 7] = [
    (356, 768, 3072),
    (356, 3072, 768),
    (1300, 192, 512),
    (1300, 192, 1024),
    (32, 192, 8192),
    (8, 768, 3072),
    (1, 768, 3072),
];

fn products(criterion: &mut Criterion) {
    let threads = std::env::var("FOREWORD_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let Ok(cpu) = Cpu::new(threads) else { return };
    for (n, input, out) in SHAPES {
        let values: Vec<f32> = (0..input * out).map(|i| ((i * 7919) % 1000) as f32 * 1e-3 - 0.5).collect();
        let halves: Vec<u8> =
            values.iter().flat_map(|value| Weights::bf16_bits(*value).to_le_bytes()).collect();
        let formats = [
            ("f32", Weights::from_f32(&values, input)),
            (
                "bf16",
                match Weights::new(Bytes::new(halves), Dtype::Bf16, out, input) {
                    Ok(weights) => weights,
                    Err(_) => continue,
                },
            ),
        ];
        let rows =
            |width: usize| cpu.rows((0..n * width).map(|i| ((i * 31) % 100) as f32 * 0.01).collect(), width);
        let mut group = criterion.benchmark_group(format!("{n}x{input}x{out}"));
        // Elements are multiply-adds counted as two operations: criterion's Gelem/s are GFLOP/s.
        group.throughput(Throughput::Elements((2 * n * input * out) as u64));
        group.sample_size(20);
        for (name, weights) in formats {
            let matrix = cpu.matrix(vec![weights]);
            let (x, dy) = (rows(input), rows(out));
            group.bench_function(BenchmarkId::new("forward", name), |bencher| {
                bencher.iter(|| cpu.linear(&x, &matrix, None));
            });
            let mut dx = cpu.zeros(n, input);
            group.bench_function(BenchmarkId::new("gradient", name), |bencher| {
                bencher.iter(|| cpu.linear_gradient(&dy, &matrix, &mut dx));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
