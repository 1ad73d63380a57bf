//! Number formats of frozen matrices.

/// How a number of a frozen matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// The upper half of an IEEE single (bfloat16).
    Bf16,
    /// IEEE half precision.
    F16,
    /// Blocks of 32: eight bits each and a scale.
    Q8_0,
    /// Blocks of 256: six bits each, and a scale for every 16.
    Q6K,
    /// Blocks of 256: five bits each, and a scale and a minimum for every 32.
    Q5K,
    /// Blocks of 256: four bits each, and a scale and a minimum for every 32.
    Q4K,
    /// Blocks of 32: five bits each and a scale.
    Q5_0,
    /// Blocks of 32: four bits each and a scale.
    Q4_0,
    /// Blocks of 32: five bits each, a scale and a minimum.
    Q5_1,
    /// Blocks of 32: four bits each, a scale and a minimum.
    Q4_1,
    /// Blocks of 32: four bits each, which select one of 16 uneven steps, and a scale.
    Iq4Nl,
    /// Blocks of 256: the same steps, and a scale for every 32.
    Iq4Xs,
    /// Blocks of 256: three bits each, and a scale for every 16.
    Q3K,
    /// Blocks of 256: two bits each, and a scale and a minimum for every 16.
    Q2K,
    /// Blocks of 32: four-bit floating-point numbers, and a power of two as scale.
    Mxfp4,
}

impl Dtype {
    /// Every format, single numbers first.
    pub const ALL: [Self; 16] = [
        Self::F32,
        Self::Bf16,
        Self::F16,
        Self::Q8_0,
        Self::Q6K,
        Self::Q5K,
        Self::Q4K,
        Self::Q5_0,
        Self::Q4_0,
        Self::Q5_1,
        Self::Q4_1,
        Self::Iq4Nl,
        Self::Iq4Xs,
        Self::Q3K,
        Self::Q2K,
        Self::Mxfp4,
    ];

    /// The smallest unit of a row: how many neighbouring numbers it holds, and in how many bytes.
    #[must_use]
    pub const fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::Bf16 | Self::F16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q6K => (256, 210),
            Self::Q5K => (256, 176),
            Self::Q4K => (256, 144),
            Self::Q5_0 => (32, 22),
            Self::Q4_0 | Self::Iq4Nl => (32, 18),
            Self::Q5_1 => (32, 24),
            Self::Q4_1 => (32, 20),
            Self::Iq4Xs => (256, 136),
            Self::Q3K => (256, 110),
            Self::Q2K => (256, 84),
            Self::Mxfp4 => (32, 17),
        }
    }

    /// Whether numbers are stored in blocks that share their scales.
    #[must_use]
    pub const fn has_blocks(self) -> bool {
        self.block().0 > 1
    }

    /// Bytes of `n` numbers of a row; `None` if they are not whole blocks, or too many to count.
    #[must_use]
    pub fn bytes(self, n: usize) -> Option<usize> {
        let (numbers, bytes) = self.block();
        if n.is_multiple_of(numbers) { (n / numbers).checked_mul(bytes) } else { None }
    }

    /// The name used in files and messages: `f32`, `bf16`, `f16`, `q8_0`, `q6_k` and so on.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q6K => "q6_k",
            Self::Q5K => "q5_k",
            Self::Q4K => "q4_k",
            Self::Q5_0 => "q5_0",
            Self::Q4_0 => "q4_0",
            Self::Q5_1 => "q5_1",
            Self::Q4_1 => "q4_1",
            Self::Iq4Nl => "iq4_nl",
            Self::Iq4Xs => "iq4_xs",
            Self::Q3K => "q3_k",
            Self::Q2K => "q2_k",
            Self::Mxfp4 => "mxfp4",
        }
    }

    /// Alignment of its bytes.
    pub(crate) const fn alignment(self) -> usize {
        if self.has_blocks() { 1 } else { self.block().1 }
    }
}
