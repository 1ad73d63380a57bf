//! Instruction sets by name, and code paths: the proof that this processor has one.
//!
//! Everything that queries the processor or the environment is here. Code that needs an instruction set takes a
//! [`CodePath`], and only detection creates one.

use std::fmt;
use std::str::FromStr;

/// The environment variable that limits which instructions are used.
pub const CODE_PATH_VARIABLE: &str = "FOREWORD_CODE_PATH";

/// The name of a set of processor instructions that kernels are compiled for. It says nothing about this processor;
/// [`InstructionSet::detect`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// x86-64 with AMX-BF16 and all of [`InstructionSet::Avx512Bf16`]: tile registers that multiply bf16.
    Amx,
    /// x86-64 with AVX512-BF16, AVX512-VL and all of [`InstructionSet::Avx512`]: products of pairs of bf16 numbers.
    Avx512Bf16,
    /// x86-64 with AVX-512F and all of [`InstructionSet::Avx2`]: 512-bit lanes, fused multiply-add.
    Avx512,
    /// x86-64 with AVX2, FMA and F16C: 256-bit lanes, fused multiply-add.
    Avx2,
    /// aarch64 with NEON: 128-bit lanes, fused multiply-add.
    Neon,
    /// What the target guarantees (SSE2 on x86-64), as the compiler uses it.
    Portable,
}

impl InstructionSet {
    /// Every instruction set, fastest first.
    pub const ALL: [Self; 6] =
        [Self::Amx, Self::Avx512Bf16, Self::Avx512, Self::Avx2, Self::Neon, Self::Portable];

    /// Its name in `FOREWORD_CODE_PATH`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    /// Whether a processor that has it also has all instructions of `other`.
    #[inline(always)]
    pub(super) fn includes(self, other: Self) -> bool {
        match other {
            Self::Portable => true,
            Self::Avx2 => matches!(self, Self::Amx | Self::Avx512Bf16 | Self::Avx512 | Self::Avx2),
            Self::Avx512 => matches!(self, Self::Amx | Self::Avx512Bf16 | Self::Avx512),
            Self::Avx512Bf16 => matches!(self, Self::Amx | Self::Avx512Bf16),
            Self::Amx | Self::Neon => self == other,
        }
    }

    /// The code path with these instructions, if this processor has them and the system allows their use.
    #[must_use]
    pub fn detect(self) -> Option<CodePath> {
        let is_available = match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512Bf16.detect().is_some() && amx::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => {
                Self::Avx512.detect().is_some()
                    && is_x86_feature_detected!("avx512bf16")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Self::Avx2.detect().is_some() && is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Amx | Self::Avx512Bf16 | Self::Avx512 | Self::Avx2 => false,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(not(target_arch = "aarch64"))]
            Self::Neon => false,
            Self::Portable => true,
        };
        is_available.then_some(CodePath(self))
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for InstructionSet {
    type Err = CodePathError;

    fn from_str(name: &str) -> Result<Self, CodePathError> {
        let found = Self::ALL.into_iter().find(|set| set.as_str() == name);
        found.ok_or_else(|| CodePathError::Unknown(name.to_owned()))
    }
}

/// An instruction set that this processor has. Only detection creates one, so whoever holds it may run the instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodePath(InstructionSet);

impl CodePath {
    /// The path of every processor.
    pub const PORTABLE: Self = Self(InstructionSet::Portable);

    /// Every path of this processor, fastest first.
    #[must_use]
    pub fn all_available() -> Vec<Self> {
        InstructionSet::ALL.into_iter().filter_map(InstructionSet::detect).collect()
    }

    /// The fastest path of this processor.
    #[must_use]
    pub fn fastest() -> Self {
        InstructionSet::ALL.into_iter().find_map(InstructionSet::detect).unwrap_or(Self::PORTABLE)
    }

    /// The path that the environment variable `FOREWORD_CODE_PATH` names; the fastest one if it is unset or empty.
    ///
    /// # Errors
    /// If it names no instruction set, or one that this processor does not have.
    pub fn from_env() -> Result<Self, CodePathError> {
        match std::env::var_os(CODE_PATH_VARIABLE) {
            Some(name) if !name.is_empty() => Self::named(&name.to_string_lossy()),
            _ => Ok(Self::fastest()),
        }
    }

    fn named(name: &str) -> Result<Self, CodePathError> {
        let set: InstructionSet = name.parse()?;
        set.detect().ok_or(CodePathError::Unavailable(set))
    }

    /// The instructions that this processor has.
    #[must_use]
    pub fn instruction_set(self) -> InstructionSet {
        self.0
    }

    /// The instructions that make products in bf16 faster than in single precision on this path: `AMX`, `AVX-512 BF16`, or
    /// none. Intel's `vdpbf16ps` takes as long as two multiply-adds.
    #[must_use]
    pub fn fast_bf16(self) -> Option<&'static str> {
        match self.0 {
            InstructionSet::Amx => Some("AMX"),
            InstructionSet::Avx512Bf16 if !is_intel() => Some("AVX-512 BF16"),
            _ => None,
        }
    }
}

/// Whether Intel made this processor.
#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
}

/// Whether Intel made this processor.
#[cfg(not(target_arch = "x86_64"))]
fn is_intel() -> bool {
    false
}

/// Why `FOREWORD_CODE_PATH` cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodePathError {
    /// No instruction set has this name.
    Unknown(String),
    /// This processor does not have it, or the system does not allow its use.
    Unavailable(InstructionSet),
}

impl fmt::Display for CodePathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "there is no code path {name:?}")?,
            Self::Unavailable(set) => write!(f, "the code path {set} cannot run on this machine")?,
        }
        let available: Vec<_> =
            CodePath::all_available().iter().map(|path| path.instruction_set().as_str()).collect();
        write!(f, "; this machine has {}", available.join(", "))
    }
}

impl std::error::Error for CodePathError {}

/// Only on Linux is permission for the tile registers requested.
#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
mod amx {
    pub(super) fn is_available() -> bool {
        false
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[allow(unsafe_code)]
mod amx {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    use std::sync::OnceLock;

    /// Whether this processor has tile registers that multiply bf16, and the system permits their use. The first call asks
    /// the system.
    pub(super) fn is_available() -> bool {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        *AVAILABLE.get_or_init(|| has_instructions() && is_permitted())
    }

    /// Tiles, products of bf16, and that the system saves both parts of the tile state (bits 17 and 18 of XCR0).
    fn has_instructions() -> bool {
        #[target_feature(enable = "xsave")]
        fn saved() -> u64 {
            // SAFETY: the system has enabled the instruction (OSXSAVE, checked below).
            unsafe { _xgetbv(0) }
        }
        let (tiles, bf16, osxsave) = (1 << 24, 1 << 22, 1 << 27);
        __cpuid(0).eax >= 7
            && __cpuid_count(7, 0).edx & (tiles | bf16) == tiles | bf16
            && __cpuid(1).ecx & osxsave != 0
            // SAFETY: a system that has enabled XSAVE has the instruction.
            && unsafe { saved() } >> 17 & 3 == 3
    }

    /// Requests the tile state, which Linux gives to a process only on request.
    fn is_permitted() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: the call reads and writes no memory of ours.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for set in InstructionSet::ALL {
            assert_eq!(set.to_string().parse(), Ok(set));
        }
        for wrong in ["", "AVX2", "sse2", "avx2 "] {
            assert_eq!(wrong.parse::<InstructionSet>(), Err(CodePathError::Unknown(wrong.to_owned())));
        }
        assert_eq!(size_of::<CodePath>(), 1);
    }

    /// `.ci/processors` reads the line.
    #[test]
    fn the_paths_of_this_processor() {
        let names = CodePath::all_available().into_iter().map(|path| path.instruction_set().as_str());
        println!("code paths: {}", names.collect::<Vec<_>>().join(" "));
    }

    #[test]
    fn a_path_is_one_that_this_processor_has() {
        let available = CodePath::all_available();
        assert_eq!(available.first(), Some(&CodePath::fastest()));
        assert_eq!(available.last(), Some(&CodePath::PORTABLE));
        for set in InstructionSet::ALL {
            let expected = set.detect().ok_or(CodePathError::Unavailable(set));
            assert_eq!(CodePath::named(set.as_str()), expected);
            assert_eq!(available.contains(&CodePath(set)), expected.is_ok());
        }
        // At most one of the two is there.
        let absent =
            [InstructionSet::Neon, InstructionSet::Avx2].into_iter().find(|set| set.detect().is_none());
        let message = CodePathError::Unavailable(absent.unwrap()).to_string();
        assert!(message.contains("cannot run on this machine; this machine has "), "{message}");
        assert!(message.ends_with("portable"), "{message}");
    }
}
