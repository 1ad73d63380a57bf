//! A build with GPU support.

use std::any::Any;

use crate::error::Result;
use crate::kernels::{Candle, ComputeDtype, DeviceError};

use super::{Device, not_built};
use crate::error::UserError;
use crate::model::Resources;

/// The backend of a model.
pub use crate::kernels::AnyBackend as Machine;

/// Opens the requested device. A GPU multiplies in single precision.
pub(crate) fn open(resources: &Resources) -> Result<Machine> {
    let machine = opened(resources)?;
    match (&machine, resources.dtype) {
        (Machine::Device(gpu), ComputeDtype::Bf16) => Err(UserError::new(format!(
            "--dtype bf16 is for the processor, and {} multiplies in single precision",
            gpu.name()
        ))
        .hint("leave --dtype out, or take --device cpu")
        .into()),
        _ => Ok(machine),
    }
}

fn opened(resources: &Resources) -> Result<Machine> {
    let device = resources.device;
    let cpu = || Ok(Machine::Cpu(super::open_processor(resources)?));
    let asked = |opened: Result<Candle, DeviceError>| {
        let told = |error: DeviceError| {
            UserError::new(format!("--device {device} can't be used: {error}"))
                .hint("see that its driver answers, or take --device cpu, or auto, which takes a GPU only where there is one")
        };
        Ok(Machine::Device(opened.map_err(told)?))
    };
    match device {
        Device::Cpu => cpu(),
        Device::Auto => match any() {
            Some(gpu) => Ok(Machine::Device(gpu)),
            None => cpu(),
        },
        Device::Cuda(number) if cfg!(feature = "cuda") => asked(Candle::cuda(number)),
        Device::Metal if cfg!(feature = "metal") => asked(Candle::metal()),
        Device::Cuda(_) => Err(not_built(device, "cuda").into()),
        Device::Metal => Err(not_built(device, "metal").into()),
    }
}

/// The first GPU that responds.
fn any() -> Option<Candle> {
    let cuda = cfg!(feature = "cuda").then(|| Candle::cuda(0).ok()).flatten();
    cuda.or_else(|| cfg!(feature = "metal").then(|| Candle::metal().ok()).flatten())
}

/// Describes the device, for verbose output.
pub(crate) fn in_words(machine: &Machine) -> String {
    match machine {
        Machine::Cpu(cpu) => super::processor(cpu),
        Machine::Device(device) => format!("on the device {}", device.name()),
    }
}

/// The name of the device, if there was a choice.
pub(crate) fn name(machine: &Machine) -> Option<&str> {
    Some(match machine {
        Machine::Cpu(_) => "cpu",
        Machine::Device(device) => device.name(),
    })
}

/// Free bytes on the device of the model, plus the size of the model.
pub(crate) fn free_bytes(model: &crate::Model) -> Option<u64> {
    match model.backbone.backend() {
        Machine::Cpu(_) => crate::system::free_bytes(),
        Machine::Device(device) => {
            let beside = device.free_bytes().map(|free| free + model.backbone.weight_bytes());
            beside.or_else(crate::system::free_bytes)
        }
    }
}

/// Describes a device failure with a hint, if the panic was one.
pub fn failure(payload: &(dyn Any + Send)) -> Option<(String, &'static str)> {
    let error = payload.downcast_ref::<DeviceError>()?;
    let hint = if error.is_out_of_memory() {
        "compute fewer tokens at a time with --micro-batch-tokens, or a run within --memory; see that no other program uses \
         the device; or take --device cpu"
    } else {
        "try again (an interrupted run goes on with --resume), or take --device cpu"
    };
    Some((error.to_string(), hint))
}
