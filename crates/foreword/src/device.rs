//! The device of a model: the CPU, or a GPU if this build supports one.

use std::str::FromStr;

use crate::Cpu;
use crate::error::Result;
use crate::kernels::{CODE_PATH_VARIABLE, CpuError};

#[cfg_attr(feature = "candle", path = "device/gpu.rs")]
#[cfg_attr(not(feature = "candle"), path = "device/cpu_only.rs")]
mod imp;

pub use imp::{Machine, failure};
pub(crate) use imp::{free_bytes, in_words, name, open};

use crate::error::UserError;
use crate::model::Resources;

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The GPU if this build and the machine have one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The NVIDIA GPU with this index.
    Cuda(usize),
    /// The GPU of an Apple computer.
    Metal,
}

/// The text is not a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device is auto, cpu, cuda:0 (or another number) or metal")]
pub struct DeviceError;

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "metal" => Ok(Self::Metal),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or(DeviceError)?;
                number.parse().map(Self::Cuda).map_err(|_| DeviceError)
            }
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

/// Describes the CPU.
fn processor(cpu: &Cpu) -> String {
    let (path, n) = (cpu.path().instruction_set(), cpu.n_threads());
    let threads = if n == 1 { "thread" } else { "threads" };
    format!("code path {path}, {n} {threads}")
}

/// Opens the CPU.
fn open_processor(resources: &Resources) -> Result<Cpu> {
    let n_threads = resources.threads.unwrap_or(0);
    let cpu = if resources.on_this_thread { Cpu::on_this_thread(n_threads) } else { Cpu::new(n_threads) };
    match cpu {
        Ok(cpu) => Ok(cpu.with_compute_dtype(resources.dtype)),
        Err(CpuError::CodePath(error)) => Err(UserError::new(format!("{CODE_PATH_VARIABLE}: {error}"))
            .hint(format!("unset {CODE_PATH_VARIABLE} to use the fastest code path"))
            .into()),
        Err(CpuError::Threads(error)) => {
            Err(anyhow::Error::new(error).context("cannot start threads").into())
        }
    }
}

/// The error for a device that this build does not support.
fn not_built(device: Device, feature: &str) -> UserError {
    UserError::new(format!("--device {device}: this foreword was built without {feature}")).hint(format!(
        "build it with `cargo build --release --features {feature}`, for which CONTRIBUTING.md says what is needed; or take \
         --device cpu"
    ))
}
