//! Rates of the products with frozen matrices, forward and input gradient; `bench/products.py` has PyTorch's for the same shapes.

use std::cell::LazyCell;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use foreword_kernels::{Backend as _, Bytes, ComputeDtype, Cpu, Dtype, Rows, Weights};

/// Rows, inputs, outputs: a step of GPT-2, a large square, the bundled model, a vocabulary for a batch, and generation.
const SHAPES: [(usize, usize, usize); 9] = [
    (356, 768, 3072),
    (356, 3072, 768),
    (2048, 2048, 2048),
    (1300, 192, 512),
    (1300, 192, 1024),
    (32, 192, 8192),
    (8, 768, 3072),
    (4, 768, 3072),
    (1, 768, 3072),
];
/// Inputs, outputs and number of matrices that are multiplied one after the other: more than caches hold, as in generation.
const MODEL: (usize, usize, usize) = (768, 3072, 24);

fn cpu() -> Option<Cpu> {
    let threads = std::env::var("FOREWORD_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    // As the program multiplies where nothing else is said.
    Cpu::new(threads).ok().map(|cpu| cpu.with_compute_dtype(ComputeDtype::Auto))
}

fn rows(cpu: &Cpu, n: usize, width: usize) -> Rows<f32> {
    cpu.rows((0..n * width).map(|i| ((i * 31) % 100) as f32 * 0.01).collect(), width)
}

/// The formats, those in blocks only where rows are whole ones.
const FORMATS: [Dtype; 6] = [Dtype::F32, Dtype::Bf16, Dtype::Q8_0, Dtype::Q6K, Dtype::Q4K, Dtype::Q4_0];

/// `n_matrices` of `[out, input]` in each format that they fit, made when they are first asked for.
fn formats(
    out: usize,
    input: usize,
    n_matrices: usize,
) -> impl Iterator<Item = (Dtype, LazyCell<Vec<Weights>, impl FnOnce() -> Vec<Weights>>)> {
    let fits = move |dtype: &Dtype| input.is_multiple_of(dtype.block().0);
    FORMATS.into_iter().filter(fits).map(move |dtype| {
        let weights = LazyCell::new(move || {
            let values: Vec<f32> =
                (0..input * out).map(|i| ((i * 7919) % 1000) as f32 * 1e-3 - 0.5).collect();
            let weights = || Weights::new(Bytes::from(dtype.encode(&values)?), dtype, out, input).ok();
            (0..n_matrices).filter_map(|_| weights()).collect()
        });
        (dtype, weights)
    })
}

/// `n` rows by all matrices `[out, input]` of each format, forward and gradient.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    cpu: &Cpu,
    (n, input, out): (usize, usize, usize),
    n_matrices: usize,
    throughput: impl Fn(Dtype) -> Throughput,
) {
    let (x, dy) = (rows(cpu, n, input), rows(cpu, n, out));
    for (dtype, weights) in formats(out, input, n_matrices) {
        let matrices =
            LazyCell::new(|| weights.iter().map(|w| cpu.matrix(vec![w.clone()])).collect::<Vec<_>>());
        group.throughput(throughput(dtype));
        group.bench_function(BenchmarkId::new("forward", dtype.name()), |bencher| {
            bencher.iter(|| matrices.iter().map(|matrix| cpu.linear(&x, matrix, None)).collect::<Vec<_>>());
        });
        group.bench_function(BenchmarkId::new("gradient", dtype.name()), |bencher| {
            bencher.iter(|| {
                matrices.iter().map(|matrix| cpu.linear_gradient(&dy, matrix, None)).collect::<Vec<_>>()
            });
        });
    }
}

fn products(criterion: &mut Criterion) {
    let Some(cpu) = cpu() else { return };
    for (n, input, out) in SHAPES {
        let mut group = criterion.benchmark_group(format!("{n}x{input}x{out}"));
        group.sample_size(20);
        // Elements are multiply-adds counted as two operations: criterion's Gelem/s are GFLOP/s.
        measure(&mut group, &cpu, (n, input, out), 1, |_| Throughput::Elements((2 * n * input * out) as u64));
        group.finish();
    }
}

/// Weights that come from memory: the throughput is of their bytes.
fn generation(criterion: &mut Criterion) {
    let Some(cpu) = cpu() else { return };
    let (input, out, n_matrices) = MODEL;
    for n in [1, 4, 8] {
        let mut group = criterion.benchmark_group(format!("{n}x{input}x{out} from memory"));
        group.sample_size(20);
        measure(&mut group, &cpu, (n, input, out), n_matrices, |dtype| {
            let (numbers, bytes) = dtype.block();
            Throughput::Bytes((n_matrices * input * out / numbers * bytes) as u64)
        });
        group.finish();
    }
}

criterion_group!(benches, products, generation);
criterion_main!(benches);
