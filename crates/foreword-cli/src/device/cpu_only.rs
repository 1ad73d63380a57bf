//! A build without GPUs.

use std::any::Any;

use anyhow::Result;
use foreword::kernels::ComputeDtype;
use foreword::{Cpu, Model};

use super::{Device, not_built};

/// What a model runs on.
pub(crate) type Machine = Cpu;

/// The machine that was asked for.
pub(crate) fn open(device: Device, n_threads: usize, dtype: ComputeDtype) -> Result<Machine> {
    match device {
        Device::Auto | Device::Cpu => super::open_processor(n_threads, dtype),
        Device::Cuda(_) => Err(not_built(device, "cuda").into()),
        Device::Metal => Err(not_built(device, "metal").into()),
    }
}

/// It in words, for those who want to know.
pub(crate) fn in_words(machine: &Machine) -> String {
    super::processor(machine)
}

/// Its name, where there was a choice.
pub(crate) fn told(_: &Machine) -> Option<&str> {
    None
}

/// Bytes that are free where the model is, itself included.
pub(crate) fn free_bytes(_: &Model<Machine>) -> Option<u64> {
    crate::memory::free_bytes()
}

/// What a device failed with, and what to try; nothing fails like that here.
pub(crate) fn failure(_: &(dyn Any + Send)) -> Option<(String, &'static str)> {
    None
}
