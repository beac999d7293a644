//! The devices that a case may name, and what they call themselves.

use burn::prelude::*;
#[cfg(feature = "wgpu")]
use burn::tensor::DeviceKind;

/// A name, and how to get the device.
type Named = (&'static str, fn() -> Device);

/// This machine's own arithmetic.
const CPUS: &[Named] = &[
    #[cfg(feature = "flex")]
    ("flex", Device::flex),
    #[cfg(feature = "ndarray")]
    ("ndarray", Device::ndarray),
];

/// The best adapter of each interface, and Vulkan in software.
const GPUS: &[Named] = &[
    #[cfg(feature = "wgpu")]
    ("wgpu", || Device::wgpu(DeviceKind::DefaultDevice)),
    #[cfg(feature = "wgpu")]
    ("software", || Device::wgpu(DeviceKind::Cpu)),
    #[cfg(feature = "vulkan")]
    ("vulkan", || Device::vulkan(DeviceKind::DefaultDevice)),
    #[cfg(feature = "metal")]
    ("metal", || Device::metal(DeviceKind::DefaultDevice)),
    #[cfg(feature = "webgpu")]
    ("webgpu", || Device::webgpu(DeviceKind::DefaultDevice)),
    #[cfg(feature = "cuda")]
    ("cuda", || Device::cuda(0)),
];

/// The device of that name, if its feature is on.
pub fn device(name: &str) -> Option<Device> {
    let (_, device) = CPUS.iter().chain(GPUS).find(|(known, _)| *known == name)?;
    Some(device())
}

/// Those that a bench runs on: all CPU backends, and the GPUs that one of its arguments names.
pub fn wanted(arguments: &[String]) -> Vec<&'static str> {
    let named = |name: &str| arguments.iter().any(|argument| argument.contains(name));
    let gpus = GPUS.iter().map(|(name, _)| *name).filter(|name| named(name));
    CPUS.iter().map(|(name, _)| *name).chain(gpus).collect()
}

/// Whether it is a GPU, or software that stands in for one.
pub fn is_gpu(name: &str) -> bool {
    GPUS.iter().any(|(gpu, _)| *gpu == name)
}

/// What the part calls itself, or how Burn writes the device.
pub fn adapter(device: &Device) -> String {
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if let Some(identity) = device.identity() {
        return identity.name;
    }
    format!("{device:?}")
}
