//! Random operands, a forest with every kind of parent, and comparisons.

use foreword_kernels::{
    AttentionShape, Backend, Bytes, CodePath, ComputeDtype, Dtype, Element, Forest, Norm, NormKind, Pairing,
    Parent, RotaryAngles, RowBlock, Rows, Source, Span, Weights,
};

/// A small generator of numbers in ±1: the tests need variety, not quality.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32) / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn vec(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }

    pub(crate) fn rows<B: Backend>(&mut self, backend: &B, n: usize, width: usize) -> B::Rows {
        let values = (0..n * width).map(|_| B::Element::of_f32(self.next())).collect();
        backend.rows(values, width)
    }

    /// A frozen matrix in the given format.
    pub(crate) fn weights(&mut self, dtype: Dtype, rows: usize, cols: usize) -> Weights {
        let bytes = if dtype.is_written() {
            dtype.encode(&self.vec(rows * cols)).unwrap()
        } else {
            self.blocks(dtype, rows * cols)
        };
        Weights::new(Bytes::from(bytes), dtype, rows, cols).unwrap()
    }

    /// Blocks of a format that is only read: any bytes, with ordinary scales.
    fn blocks(&mut self, dtype: Dtype, n: usize) -> Vec<u8> {
        let halves: &[usize] = match dtype {
            Dtype::Q5_1 | Dtype::Q4_1 => &[0, 2],
            Dtype::Q3K => &[108],
            Dtype::Q2K => &[80, 82],
            _ => &[0],
        };
        let mut bytes: Vec<u8> =
            (0..dtype.bytes(n).unwrap()).map(|_| ((self.next() * 128.0) as i8).cast_unsigned()).collect();
        for block in bytes.chunks_exact_mut(dtype.block().1) {
            if dtype == Dtype::Mxfp4 {
                block[0] = 126;
                continue;
            }
            for &at in halves {
                let scale = Dtype::F16.encode(&[self.next() * 0.01]).unwrap();
                block[at..at + 2].copy_from_slice(&scale);
            }
        }
        bytes
    }

    pub(crate) fn norm<B: Backend>(&mut self, backend: &B, width: usize, layer: bool) -> Norm<B::Vector> {
        let gain = backend.vector(&self.vec(width));
        let bias = layer.then(|| backend.vector(&self.vec(width)));
        let kind = if layer { NormKind::Layer { eps: 1e-5 } } else { NormKind::Rms { eps: 1e-6 } };
        Norm { kind, gain, bias }
    }

    pub(crate) fn angles(&mut self, n: usize, half: usize, pairing: Pairing) -> RotaryAngles {
        let angles: Vec<f32> = self.vec(n * half).iter().map(|v| v * 3.0).collect();
        RotaryAngles {
            cos: angles.iter().map(|a| a.cos()).collect(),
            sin: angles.iter().map(|a| a.sin()).collect(),
            half,
            pairing,
        }
    }
}

pub(crate) const SHAPE: AttentionShape =
    AttentionShape { query_heads: 4, kv_heads: 2, head_width: 12, scale: 0.3, soft_cap: None, window: None };

/// Every kind of attention: its shape, and what is added to scores per position.
pub(crate) fn kinds() -> Vec<(AttentionShape, Option<[f32; 4]>)> {
    let slopes = Some([0.5, 0.25, 0.0625, -0.125]);
    vec![
        (SHAPE, None),
        (AttentionShape { window: Some(4), ..SHAPE }, None),
        (AttentionShape { window: Some(1), ..SHAPE }, slopes),
        (AttentionShape { soft_cap: Some(0.7), ..SHAPE }, None),
        (SHAPE, slopes),
        (AttentionShape { soft_cap: Some(0.7), window: Some(9), ..SHAPE }, slopes),
    ]
}

/// Rows of the two context blocks that `forest` refers to.
pub(crate) const CONTEXT_ROWS: [usize; 2] = [5, 9];

/// Two roots, children, leaves, context parents with one and two spans, one of them with hidden rows: 1 + 3 + 4 + 6 + 2 +
/// 11 + 1 rows.
pub(crate) fn forest() -> Forest {
    let context = |block, rows, position| Span { source: Source::Context(block), rows, position };
    let mut forest = Forest::new();
    let root = forest.push(Parent::Root, 1);
    let other = forest.push(Parent::Root, 3);
    let child = forest.push(Parent::Segment(root), 4);
    forest.push(Parent::Segment(other), 6);
    forest.push(Parent::Segment(child), 2);
    forest.push(Parent::Context(vec![context(0, 1..5, 0), context(1, 2..9, 4)]), 11);
    forest.push(Parent::ContextAt(vec![context(1, 0..3, 2)], 7), 1);
    forest
}

pub(crate) fn host<B: Backend>(backend: &B, rows: &B::Rows) -> Rows<f64> {
    Rows::new(backend.values(rows).iter().map(|v| v.as_f64()).collect(), rows.width())
}

/// Relative L2 distance over all values.
pub(crate) fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied()).max(1e-30)
}

/// Every code path of this processor, with products in single precision and in bf16.
pub(crate) fn paths_and_dtypes() -> impl Iterator<Item = (CodePath, ComputeDtype)> {
    let of = |path| [(path, ComputeDtype::F32), (path, ComputeDtype::Bf16)];
    CodePath::all_available().into_iter().flat_map(of)
}

/// Whether `FOREWORD_TEST_CASES=few` asks for smaller matrices and fewer combinations: for emulators, which take fifty times as long.
pub(crate) fn few_cases() -> bool {
    std::env::var_os("FOREWORD_TEST_CASES").is_some_and(|cases| cases == "few")
}
