//! Burn's `Cube` backend: CUDA, Metal, Vulkan, WebGPU and the like.

use burn_cubecl::CubeDevice;

/// Whether a card stands behind the device, and not software on the CPU.
pub(super) fn is_card(device: &CubeDevice) -> bool {
    device.client().properties().identity.physical.is_some()
}
