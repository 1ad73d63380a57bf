//! A build without GPUs.

use std::any::Any;

use crate::Cpu;
use crate::error::Result;

use super::{Device, not_built};
use crate::model::Resources;

/// What a model runs on.
pub type Machine = Cpu;

/// The machine that was asked for.
pub(crate) fn open(resources: &Resources) -> Result<Machine> {
    let device = resources.device;
    match device {
        Device::Auto | Device::Cpu => super::open_processor(resources),
        Device::Cuda(_) => Err(not_built(device, "cuda").into()),
        Device::Metal => Err(not_built(device, "metal").into()),
    }
}

/// It in words, for those who want to know.
pub(crate) fn in_words(machine: &Machine) -> String {
    super::processor(machine)
}

/// Its name, where there was a choice.
pub(crate) fn name(_: &Machine) -> Option<&str> {
    None
}

/// Bytes that are free where the model is, itself included.
pub(crate) fn free_bytes(_: &crate::Model) -> Option<u64> {
    crate::system::free_bytes()
}

/// What a device failed with, and what to try; nothing fails like that here.
pub fn failure(_: &(dyn Any + Send)) -> Option<(String, &'static str)> {
    None
}
