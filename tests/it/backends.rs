//! The same test on every backend that is compiled in.
//!
//! ```ignore
//! on_each_backend! {
//!     fn outputs_match(device: Device) { ... }
//! }
//! ```
//!
//! makes the tests `outputs_match::ndarray`, `outputs_match::flex` and `outputs_match::wgpu`, each
//! under its feature. The wgpu tests run on software Vulkan (Mesa's lavapipe), one at a time. Where
//! there is no such adapter they say so and pass, unless `BURN_DECODER_REQUIRE_WGPU=1` is set: then
//! they fail.

use burn::tensor::Device;

macro_rules! on_each_backend {
    ($( $(#[$attribute:meta])* fn $name:ident($device:ident: Device) $body:block )*) => {
        $(
            $(#[$attribute])*
            mod $name {
                #[allow(unused_imports)]
                use super::*;

                fn run($device: burn::tensor::Device) $body

                #[cfg(feature = "ndarray")]
                #[test]
                fn ndarray() {
                    run(burn::tensor::Device::ndarray());
                }

                #[cfg(feature = "flex")]
                #[test]
                fn flex() {
                    run(burn::tensor::Device::flex());
                }

                #[cfg(feature = "wgpu")]
                #[test]
                fn wgpu() {
                    $crate::backends::on_wgpu(run);
                }
            }
        )*
    };
}

/// Runs `test` on the software adapter, or says why not.
#[cfg(feature = "wgpu")]
pub fn on_wgpu(test: impl FnOnce(Device)) {
    use std::sync::Mutex;

    // One at a time: shader compilation and lavapipe's own threads fill both cores already.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    // A test that failed poisons the lock; the next one may run all the same.
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());

    match wgpu_device() {
        Ok(device) => test(device),
        Err(why) => {
            let required = std::env::var("BURN_DECODER_REQUIRE_WGPU").is_ok_and(|set| set == "1");
            assert!(!required, "BURN_DECODER_REQUIRE_WGPU=1, but {why}");
            println!("skipped: {why}");
        }
    }
}

/// The software adapter, if this machine has one. Asks for the list of adapters, since to open one
/// that does not exist panics on a thread of Burn's.
#[cfg(feature = "wgpu")]
pub fn wgpu_device() -> Result<Device, &'static str> {
    use burn::tensor::{DeviceKind, DeviceType};
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
        Err("no software Vulkan adapter (on Debian and Ubuntu: mesa-vulkan-drivers)")
    }
}

/// The devices whose arithmetic is this machine's own: ndarray and flex.
pub fn cpus() -> Vec<Device> {
    vec![
        #[cfg(feature = "ndarray")]
        Device::ndarray(),
        #[cfg(feature = "flex")]
        Device::flex(),
    ]
}

/// Some device, for what does not depend on it.
pub fn any_device() -> Device {
    #[cfg(feature = "wgpu")]
    let other = || Device::wgpu(burn::tensor::DeviceKind::Cpu);
    #[cfg(not(feature = "wgpu"))]
    let other = || panic!("no backend is compiled in");
    cpus().into_iter().next().unwrap_or_else(other)
}

/// Whether this is one of [`cpus`].
pub fn is_cpu(device: &Device) -> bool {
    cpus().contains(device)
}

/// How much wider tolerances are on this device: 1 on a CPU backend, 10 on wgpu, where `exp` and
/// `tanh` are approximate and the order of sums is the driver's.
pub fn tolerance_factor(device: &Device) -> f64 {
    if is_cpu(device) { 1.0 } else { 10.0 }
}

on_each_backend! {
    fn a_device_computes(device: Device) {
        let one = burn::tensor::Tensor::<1>::ones([3], &device);
        assert_eq!((one.clone() + one).sum().into_scalar::<f32>(), 6.0);
    }
}
