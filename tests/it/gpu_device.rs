//! The GPU that the tests run on: the one place that chooses it. Unit tests may include this file,
//! too, so it names nothing of the crate.
//!
//! `BURN_DECODER_TEST_DEVICE` names it, `cpu` (software Vulkan, Mesa's lavapipe) if it is not set:
//!
//! | value | device | features |
//! |---|---|---|
//! | `cpu` | wgpu's software adapter | `wgpu` |
//! | `wgpu` | wgpu's best adapter; shaders in WGSL, unless `vulkan` or `metal` is on | `wgpu` |
//! | `vulkan`, `metal`, `webgpu` | the best adapter of that interface, shaders in its own language | of the same name |
//! | `cuda` | the first CUDA device | `cuda` |
//!
//! Where the software adapter was not asked for and is not there, tests say so and pass, unless
//! `BURN_DECODER_REQUIRE_WGPU=1` is set. A device that was asked for has to be there.

use burn::tensor::Device;
#[cfg(feature = "wgpu")]
use burn::tensor::DeviceKind;

/// The device to test on, or why there is none.
pub fn gpu_device() -> Result<Device, String> {
    let named = std::env::var("BURN_DECODER_TEST_DEVICE").ok();
    match named.as_deref() {
        None | Some("cpu") => software().map_err(|why| {
            let required = std::env::var("BURN_DECODER_REQUIRE_WGPU").is_ok_and(|set| set == "1");
            assert!(named.is_none() && !required, "{why}");
            why
        }),
        #[cfg(feature = "wgpu")]
        Some("wgpu") => Ok(Device::wgpu(DeviceKind::DefaultDevice)),
        #[cfg(feature = "vulkan")]
        Some("vulkan") => Ok(Device::vulkan(DeviceKind::DefaultDevice)),
        #[cfg(feature = "metal")]
        Some("metal") => Ok(Device::metal(DeviceKind::DefaultDevice)),
        #[cfg(feature = "webgpu")]
        Some("webgpu") => Ok(Device::webgpu(DeviceKind::DefaultDevice)),
        #[cfg(feature = "cuda")]
        Some("cuda") => Ok(Device::cuda(0)),
        Some(other) => panic!(
            "BURN_DECODER_TEST_DEVICE={other}: expected cpu, wgpu, vulkan, metal, webgpu or cuda, \
             and these tests built with the feature of that name"
        ),
    }
}

/// wgpu's software adapter. Asks for the list of adapters, since to open one that does not exist
/// panics on a thread of Burn's.
#[cfg(feature = "wgpu")]
fn software() -> Result<Device, String> {
    use burn::tensor::DeviceType;
    use std::sync::OnceLock;

    static FOUND: OnceLock<bool> = OnceLock::new();
    let software = Device::wgpu(DeviceKind::Cpu);
    let found = *FOUND.get_or_init(|| {
        std::panic::catch_unwind(|| Device::enumerate(DeviceType::Wgpu).into_vec())
            .is_ok_and(|devices| devices.contains(&Device::wgpu(DeviceKind::Cpu)))
    });
    if found {
        Ok(software)
    } else {
        Err("no software Vulkan adapter (on Debian and Ubuntu: mesa-vulkan-drivers)".into())
    }
}

#[cfg(not(feature = "wgpu"))]
fn software() -> Result<Device, String> {
    Err("no software adapter without the feature wgpu; name a BURN_DECODER_TEST_DEVICE".into())
}
