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
}

impl Dtype {
    /// Every format, single numbers first.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::Bf16,
        Self::F16,
        Self::Q8_0,
        Self::Q6K,
        Self::Q5K,
        Self::Q4K,
        Self::Q5_0,
        Self::Q4_0,
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
            Self::Q4_0 => (32, 18),
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

    /// The name used in files and messages: `f32`, `bf16`, `f16`, `q8_0`, `q6_k`, `q5_k`, `q4_k`, `q5_0`,
    /// `q4_0`.
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
        }
    }

    /// Alignment of its bytes.
    pub(crate) const fn alignment(self) -> usize {
        if self.has_blocks() { 1 } else { self.block().1 }
    }
}
