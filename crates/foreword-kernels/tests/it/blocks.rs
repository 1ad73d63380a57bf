//! Numbers stored in blocks: read as ggml reads them, written as well as it writes them, and multiplied without a copy.

use foreword_kernels::{Backend, Bytes, CodePath, ComputeDtype, Cpu, Dtype, Reference, Rows, Weights};

use crate::support::{Numbers, distance, few_cases, host, paths_and_dtypes};

/// What `testdata/make_blocks.py` made, piece by piece.
struct Golden(&'static [u8]);

impl Golden {
    const N: usize = 512;

    fn new() -> Self {
        Self(include_bytes!("../../../../testdata/golden/blocks.bin"))
    }

    fn take(&mut self, n: usize) -> &'static [u8] {
        let (piece, rest) = self.0.split_at(n);
        self.0 = rest;
        piece
    }

    fn numbers(&mut self) -> Vec<f32> {
        self.take(4 * Self::N).as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }
}

const BLOCKS: [Dtype; 6] = [Dtype::Q8_0, Dtype::Q6K, Dtype::Q5K, Dtype::Q4K, Dtype::Q5_0, Dtype::Q4_0];
/// Formats that are not written.
const READ_ONLY: [Dtype; 7] =
    [Dtype::Q5_1, Dtype::Q4_1, Dtype::Iq4Nl, Dtype::Iq4Xs, Dtype::Q3K, Dtype::Q2K, Dtype::Mxfp4];

/// Compares the numbers of each format with the next pieces.
#[track_caller]
fn check_numbers(formats: &[Dtype], golden: &mut Golden) {
    for &dtype in formats {
        let bytes = golden.take(dtype.bytes(Golden::N).unwrap());
        let numbers = golden.numbers();
        let weights = Weights::new(Bytes::from(bytes), dtype, 2, 256).unwrap();
        assert_eq!(*weights.to_f32(), numbers, "{dtype:?}");
        for range in [0..1, 0..256, 31..32, 31..33, 1..255, 32..64, 40..41, 17..200, 224..256, 5..5] {
            let mut part = vec![f32::NAN; range.len()];
            weights.read(1, range.clone(), &mut part);
            assert_eq!(part, numbers[256..][range.clone()], "{dtype:?} {range:?}");
        }
        // On every code path, by the product with a row of the identity.
        for path in CodePath::all_available() {
            let cpu = Cpu::with_path(1, path).unwrap();
            let rows = cpu.embed(&cpu.matrix(vec![weights.clone()]), &[1, 0]);
            assert_eq!(cpu.values(&rows), [&numbers[256..], &numbers[..256]].concat(), "{path:?} {dtype:?}");
        }
    }
}

#[test]
fn blocks_hold_the_numbers_that_ggml_reads_and_any_part_of_a_row_can_be_read() {
    let mut golden = Golden::new();
    check_numbers(&BLOCKS, &mut golden);
    let values = golden.numbers();
    for dtype in [Dtype::Q8_0, Dtype::Q5_0, Dtype::Q4_0] {
        let expected = golden.take(dtype.bytes(Golden::N).unwrap());
        assert!(dtype.encode(&values).unwrap() == expected, "{dtype:?} is written otherwise");
    }
    check_numbers(&READ_ONLY, &mut golden);
    assert!(golden.0.is_empty());
}

/// Relative error of what a format keeps of numbers like those of a trained matrix. The bounds are what ggml's own writers
/// (`quantize_row_*_ref`) leave of the same numbers, rounded up in the fourth digit.
#[test]
fn what_is_written_is_as_near_as_the_format_allows() {
    let mut numbers = Numbers(5);
    // Sums of uniform numbers, with a heavy tail.
    let mut values: Vec<f32> = (0..256 * 64).map(|_| numbers.vec(6).iter().sum::<f32>()).collect();
    values.iter_mut().step_by(97).for_each(|value| *value *= 3.0);
    let wide: Vec<f64> = values.iter().copied().map(f64::from).collect();
    let blocks = [0.005_581, 0.018_03, 0.036_85, 0.071_66, 0.045_06, 0.089_51];
    let others = [(Dtype::F16, 3e-4), (Dtype::Bf16, 2e-3)];
    for (dtype, bound) in BLOCKS.into_iter().zip(blocks).chain(others) {
        let bytes = dtype.encode(&values).unwrap();
        let weights = Weights::new(Bytes::from(bytes.clone()), dtype, 64, 256).unwrap();
        let kept: Vec<f64> = weights.to_f32().iter().copied().map(f64::from).collect();
        let error = distance(&kept, &wide);
        assert!(error < bound && error > bound / 2.0, "{dtype:?}: {error}");
        // What was read is written as it was, but for the search's own rounding.
        let again =
            Weights::new(Bytes::from(dtype.encode(&weights.to_f32()).unwrap()), dtype, 64, 256).unwrap();
        let again: Vec<f64> = again.to_f32().iter().copied().map(f64::from).collect();
        assert!(distance(&again, &kept) < error, "{dtype:?} drifts");
    }
    for dtype in BLOCKS {
        for special in [vec![0.0; 256], vec![0.25; 256], vec![-0.25; 256], vec![1e-30; 256]] {
            let bytes = dtype.encode(&special).unwrap();
            let read = Weights::new(Bytes::from(bytes), dtype, 1, 256).unwrap();
            let far = read.to_f32().iter().zip(&special).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far <= 0.01, "{dtype:?} {}: {far}", special[0]);
        }
        assert_eq!(dtype.encode(&[0.0; 17]), None);
    }
    assert!(READ_ONLY.iter().all(|dtype| dtype.encode(&[0.0; 256]).is_none()));
    assert_eq!(Dtype::ALL.into_iter().filter(|dtype| !dtype.is_written()).collect::<Vec<_>>(), READ_ONLY);
}

#[test]
fn rows_that_are_no_whole_blocks_are_refused() {
    for dtype in BLOCKS.into_iter().chain(READ_ONLY) {
        let (numbers, bytes) = dtype.block();
        let of = |n_bytes: usize, rows, cols| {
            Weights::new(Bytes::from(vec![0u8; n_bytes]), dtype, rows, cols)
                .map_err(|error| error.to_string())
        };
        assert!(of(2 * bytes, 2, numbers).is_ok());
        assert!(of(2 * bytes + 1, 2, numbers).is_err());
        // The same number of whole blocks, but rows that cut them.
        let error = of(bytes, 2, numbers / 2).unwrap_err();
        assert!(error.contains(dtype.name()), "{error}");
        assert!(of(bytes, usize::MAX, usize::MAX).is_err());
    }
}

/// Rows stored by pairs are those of a matrix whose rows were put in order.
#[test]
fn rows_stored_by_pairs_are_put_in_order_without_a_copy() {
    let mut numbers = Numbers(9);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Q8_0, Dtype::Q4K] {
        let stored = numbers.weights(dtype, 24, 256);
        let order: Vec<usize> = (0..24).map(|row| row / 8 * 8 + row % 8 % 4 * 2 + row % 8 / 4).collect();
        let mut values = Vec::new();
        for &row in &order {
            values.extend_from_slice(&stored.to_f32()[row * 256..(row + 1) * 256]);
        }
        let paired = stored.clone().rope_interleaved(8);
        assert_eq!(*paired.to_f32(), values, "{dtype:?}");
        let part = paired.row_range(8..24);
        assert_eq!(*part.to_f32(), values[8 * 256..], "{dtype:?}");
        assert_eq!(part.bytes().as_ptr(), stored.bytes()[stored.bytes().len() / 3..].as_ptr(), "a copy");
        let cpu = Cpu::new(2).unwrap();
        let in_order = cpu.matrix(vec![Weights::from_f32(&values, 256)]);
        let (x, dy) = (numbers.rows(&cpu, 11, 256), numbers.rows(&cpu, 11, 24));
        let of = |weight| (cpu.linear(&x, weight, None), cpu.linear_gradient(&dy, weight, None));
        assert_eq!(of(&cpu.matrix(vec![paired])), of(&in_order), "{dtype:?}");
    }
}

/// On every path, alone and among others, in single precision and in bf16: the products of the numbers that the blocks hold, and
/// in single precision their very bits. Stacks of several formats too.
#[test]
fn products_with_blocks_are_those_with_their_numbers() {
    let reference = Reference::<f64>::new();
    let mut numbers = Numbers(13);
    let mut stacks: Vec<Vec<Weights>> = Vec::new();
    for dtype in BLOCKS {
        for (out, input) in [(3, 256), (75, 512), (203, 768), (16, 1280)] {
            stacks.push(vec![numbers.weights(dtype, out, input)]);
        }
        stacks.push(vec![numbers.weights(dtype, 40, 256).row_range(7..39), numbers.weights(dtype, 16, 256)]);
    }
    stacks
        .push([Dtype::Q4K, Dtype::Q6K, Dtype::F32, Dtype::F16].map(|d| numbers.weights(d, 9, 256)).to_vec());
    for dtype in READ_ONLY {
        stacks.push(vec![numbers.weights(dtype, 75, 512)]);
        stacks.push(vec![numbers.weights(dtype, 17, 256).row_range(2..15), numbers.weights(dtype, 16, 256)]);
    }
    // Narrow rows, which only the smaller blocks can be.
    stacks.push(vec![numbers.weights(Dtype::Q8_0, 100, 96)]);
    stacks.push(vec![numbers.weights(Dtype::Q4_0, 33, 32)]);
    stacks.push(vec![numbers.weights(Dtype::Q5_1, 33, 96)]);
    if few_cases() {
        stacks.retain(|stack| {
            stack.iter().map(|weights| weights.rows() * weights.cols()).sum::<usize>() < 21_000
        });
    }
    for (path, products) in paths_and_dtypes() {
        let cpu = |n| Cpu::with_path(n, path).unwrap().with_compute_dtype(products);
        let (one, two) = (cpu(1), cpu(2));
        for stack in &stacks {
            let (out, input) = (stack.iter().map(Weights::rows).sum::<usize>(), stack[0].cols());
            let values: Vec<f32> = stack.iter().flat_map(|w| w.to_f32().into_owned()).collect();
            let plain = Weights::from_f32(&values, input);
            let (matrix, same) = (one.matrix(stack.clone()), one.matrix(vec![plain.clone()]));
            let (x, dy) = (numbers.rows(&one, 29, input), numbers.rows(&one, 29, out));
            let start = numbers.rows(&one, 29, input);
            let product = |cpu: &Cpu, matrix, rows: &[usize]| {
                let dx = cpu.linear_gradient(&dy.select(rows), matrix, Some(start.select(rows)));
                [cpu.linear(&x.select(rows), matrix, None), dx]
            };
            let what = format!("{path:?} {products:?} {:?} {out} {input}", stack[0].dtype());
            let every: Vec<usize> = (0..29).collect();
            let all = product(&one, &matrix, &every);
            assert_eq!(all, product(&one, &same, &every), "{what}");
            assert_eq!(all, product(&two, &matrix, &every), "{what}");
            for n in [1, 2, 3, 5, 8, 9] {
                let rows = &every[29 - n..];
                let expected = all.each_ref().map(|all| all.select(rows));
                assert_eq!(product(&two, &matrix, rows), expected, "{what} {n}");
            }
            if products == ComputeDtype::F32 {
                let wide = |rows: &Rows<f32>| host(&one, rows);
                let exact = reference.linear(&wide(&x), &reference.matrix(vec![plain]), None);
                let far = distance(wide(&all[0]).values(), exact.values());
                assert!(far < 2e-6, "{what}: {far:e}");
            }
        }
    }
}

#[test]
fn bf16_numbers_by_the_block_are_those_of_one_at_a_time() {
    // Every upper half with the lower halves around a tie, and the ends: finite numbers, infinities and NaN of both signs.
    let lower = [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let values: Vec<f32> =
        (0..1 << 16).flat_map(|upper: u32| lower.map(|lower| f32::from_bits(upper << 16 | lower))).collect();
    let mut bytes = vec![0; 2 * values.len()];
    Weights::bf16_bytes(&values, &mut bytes);
    for (value, bytes) in values.iter().zip(bytes.as_chunks::<2>().0) {
        assert_eq!(u16::from_le_bytes(*bytes), Weights::bf16_bits(*value), "{:x}", value.to_bits());
    }
}
