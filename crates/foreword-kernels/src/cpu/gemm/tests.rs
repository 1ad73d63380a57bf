//! The microkernels in bf16 against the chains that define them.

use bytes::Bytes;
use half::bf16 as Bf16;

use super::types::Output;
use super::*;
use crate::cpu::code_path::InstructionSet;
use crate::cpu::lanes::PORTABLE_FMA;
use crate::dtype::Dtype;
use crate::weights::Weights;

#[test]
fn pairs_are_rounded_as_the_library_rounds() {
    let special = [0.0, -0.0, 1.0, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let patterns = (0..70_000u32).map(|i| f32::from_bits(i.wrapping_mul(61_681)));
    for value in special.into_iter().chain(patterns) {
        let bits = u32::from(Bf16::from_f32(value).to_bits());
        assert_eq!(pair::pack(value, 0.0), bits, "{value}");
        assert_eq!(pair::pack(0.0, value), bits << 16, "{value}");
    }
}

/// Random numbers in ±1.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Each number of a product is one chain of pairs of multiply-adds, or of a tile's sums, to the bit, by whatever instructions.
/// The processor's own instruction for pairs may round otherwise. Tiles are emulated on every path but `amx`.
#[test]
fn every_microkernel_computes_the_same_chains() {
    let of = |path| [Kernel::bf16(path), Kernel::emulated_tiles(path)];
    let kernels: Vec<Kernel> = CodePath::all_available().into_iter().flat_map(of).collect();
    for (out, input) in [(1, 1), (75, 203), (130, 67)] {
        let bytes = Bytes::from(Dtype::Bf16.encode(&numbers(out * input, 7)).unwrap());
        let weights = Weights::new(bytes, Dtype::Bf16, out, input).unwrap();
        let matrix = FrozenMatrix::new(CodePath::PORTABLE, vec![weights.clone()], |_| Dtype::Bf16);
        for n in [1, 3, 8, 19, 45] {
            let x = numbers(n * input, 8);
            let pairs = |numbers: &[f32]| -> Vec<f32> {
                let pairs =
                    numbers.chunks(2).map(|two| pair::pack(two[0], two.get(1).copied().unwrap_or(0.0)));
                pairs.map(f32::from_bits).collect()
            };
            let chain = |x: &[f32], row: &[f32], fused: bool| {
                pairs(x).into_iter().zip(pairs(row)).fold(0.0, |sum, (a, b)| {
                    if fused { pair::dot::<true>(a, b, sum) } else { pair::dot::<false>(a, b, sum) }
                })
            };
            // The earlier and the later numbers of 16 pairs separately, then both.
            let tiles = |x: &[f32], row: &[f32]| {
                pairs(x).chunks(16).zip(pairs(row).chunks(16)).fold(0.0f32, |sum, (x, row)| {
                    let sums = x.iter().zip(row).fold([0.0f32; 2], |[earlier, later], (&x, &row)| {
                        let (x, row) = (pair::unpack(x), pair::unpack(row));
                        [earlier + x.1 * row.1, later + x.0 * row.0]
                    });
                    sum + (sums[0] + sums[1])
                })
            };
            let products = |chain: &dyn Fn(&[f32], &[f32]) -> f32| -> Vec<f32> {
                let rows = weights.to_f32();
                let product = |x| rows.chunks(input).map(move |row| chain(x, row)).collect::<Vec<_>>();
                x.chunks(input).flat_map(product).collect()
            };
            for &kernel in &kernels {
                use InstructionSet::{Avx512Bf16, Portable};
                let mut to = Rows::zeros(n, out);
                let (lhs, output) = (Lhs { values: &x, stride: input }, Output::of(to.values_mut(), out, 0));
                multiply_parallel(kernel, lhs, input, matrix.forward(), Init::Accumulate, output);
                let set = kernel.path().instruction_set();
                let fused = PORTABLE_FMA || set != Portable;
                let expected = if kernel.has_tiles() {
                    products(&tiles)
                } else {
                    products(&|x, row| chain(x, row, fused))
                };
                let what = format!("{kernel:?} {out} {input} {n}");
                if set == Avx512Bf16 && !kernel.has_tiles() {
                    let far = to.values().iter().zip(&expected).map(|(a, b)| (a - b).abs());
                    assert!(far.fold(0.0, f32::max) < 1e-6 * input as f32, "{what}");
                } else {
                    assert_eq!(to.values(), expected, "{what}");
                }
            }
        }
    }
}

/// With numbers of all sizes: as far off as two roundings allow, where denormal numbers may count as zero.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
#[test]
fn the_instruction_adds_both_products() {
    const NR: usize = 64;
    if InstructionSet::Avx512Bf16.detect().is_none() {
        eprintln!("skipped: this processor has no AVX512-BF16");
        return;
    }
    let sizes = numbers(5 * 4000, 9);
    for (signs, sizes) in numbers(5 * 4000, 10).chunks(5).zip(sizes.chunks(5)) {
        // Of similar size, so that the products of a sum overlap.
        let near = |i: usize| signs[i] * (sizes[i] * 4.0).exp2();
        let (a, b) =
            (f32::from_bits(pair::pack(near(0), near(1))), f32::from_bits(pair::pack(near(2), near(3))));
        for c in [near(4), near(4) * 1e-38, 0.0] {
            let (lhs, rhs) = (pair::unpack(a), pair::unpack(b));
            let products =
                [(lhs.0, rhs.0), (lhs.1, rhs.1), (c, 1.0)].map(|(a, b)| f64::from(a) * f64::from(b));
            let (row, mut sums) = ([b; NR], [c; NR]);
            let (to, ldc) = (sums.as_mut_ptr(), NR);
            let (a, b) = (&raw const a, row.as_ptr());
            let block = RegisterBlock { k: 1, a, lda: 1, b, init: to, ldi: ldc, c: to, ldc };
            // SAFETY: a row of one pair, a row of the other side, and a row of the output; the processor has the instruction.
            unsafe { bf16::avx512_bf16::<1>(block) };
            let exact: f64 = products.iter().sum();
            let bound = products.iter().map(|product| product.abs()).sum::<f64>() * 1.2e-7 + 4e-38;
            for sum in sums {
                assert!((f64::from(sum) - exact).abs() < bound, "{lhs:?} · {rhs:?} + {c:e}: {sum:e}");
            }
        }
    }
}
