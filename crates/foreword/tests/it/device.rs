//! Devices by their names.

use foreword::device::{Device, DeviceError};

#[test]
fn devices_are_written_as_they_are_read() {
    for device in [Device::Auto, Device::Cpu, Device::Cuda(0), Device::Cuda(3), Device::Metal] {
        assert_eq!(device.to_string().parse(), Ok(device));
    }
    for wrong in ["cuda", "cuda:", "cuda:-1", "gpu", "CPU", ""] {
        assert_eq!(wrong.parse::<Device>(), Err(DeviceError), "{wrong}");
    }
}
