//! What a model runs on: the processor, or a GPU where this build can use one.

use std::str::FromStr;

use anyhow::Result;
use foreword::Cpu;
use foreword::kernels::{CODE_PATH_VARIABLE, ComputeDtype, CpuError};

#[cfg_attr(feature = "candle", path = "device/gpu.rs")]
#[cfg_attr(not(feature = "candle"), path = "device/cpu_only.rs")]
mod imp;

pub(crate) use imp::{Machine, failure, free_bytes, in_words, open, told};

use crate::exit::Given;

/// `--device`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// The GPU where this build and the machine have one, else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// The NVIDIA GPU of this number.
    Cuda(usize),
    /// The GPU of an Apple computer.
    Metal,
}

/// Something else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device is auto, cpu, cuda:0 (or another number) or metal")]
pub(crate) struct DeviceError;

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

/// The processor in words.
fn processor(cpu: &Cpu) -> String {
    let (path, n) = (cpu.path().instruction_set(), cpu.n_threads());
    let threads = if n == 1 { "thread" } else { "threads" };
    format!("code path {path}, {n} {threads}")
}

/// The processor, with this thread as one of its threads.
fn open_processor(n_threads: usize, dtype: ComputeDtype) -> Result<Cpu> {
    match Cpu::on_this_thread(n_threads) {
        Ok(cpu) => Ok(cpu.with_compute_dtype(dtype)),
        Err(CpuError::CodePath(error)) => Err(Given::wrong(format!("{CODE_PATH_VARIABLE}: {error}"))
            .hint(format!("unset {CODE_PATH_VARIABLE} to use the fastest code path"))
            .into()),
        Err(CpuError::Threads(error)) => Err(anyhow::Error::new(error).context("cannot start threads")),
    }
}

/// The error of a device that this build knows nothing of.
fn not_built(device: Device, feature: &str) -> Given {
    Given::wrong(format!("--device {device}: this foreword was built without {feature}")).hint(format!(
        "build it with `cargo build --release --features {feature}`, for which CONTRIBUTING.md says what is needed; or take \
         --device cpu"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_they_are_read() {
        for device in [Device::Auto, Device::Cpu, Device::Cuda(0), Device::Cuda(3), Device::Metal] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for wrong in ["cuda", "cuda:", "cuda:-1", "gpu", "CPU", ""] {
            assert_eq!(wrong.parse::<Device>(), Err(DeviceError), "{wrong}");
        }
    }
}
