//! A build without GPU support.

use std::any::Any;

use crate::Cpu;
use crate::error::Result;

use super::{Device, not_built};
use crate::model::Resources;

/// The backend of a model.
pub type Machine = Cpu;

/// Opens the requested device.
pub(crate) fn open(resources: &Resources) -> Result<Machine> {
    let device = resources.device;
    match device {
        Device::Auto | Device::Cpu => super::open_processor(resources),
        Device::Cuda(_) => Err(not_built(device, "cuda").into()),
        Device::Metal => Err(not_built(device, "metal").into()),
    }
}

/// Describes the device, for verbose output.
pub(crate) fn in_words(machine: &Machine) -> String {
    super::processor(machine)
}

/// The name of the device, if there was a choice.
pub(crate) fn name(_: &Machine) -> Option<&str> {
    None
}

/// Free bytes on the device of the model, plus the size of the model.
pub(crate) fn free_bytes(_: &crate::Model) -> Option<u64> {
    crate::system::free_bytes()
}

/// Describes a device failure with a hint; this build has none.
pub fn failure(_: &(dyn Any + Send)) -> Option<(String, &'static str)> {
    None
}
