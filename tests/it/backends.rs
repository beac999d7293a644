//! The same test on every backend that is compiled in.
//!
//! ```ignore
//! on_each_backend! {
//!     fn outputs_match(device: Device) { ... }
//! }
//! ```
//!
//! makes the tests `outputs_match::ndarray`, `outputs_match::flex` and `outputs_match::gpu`, each
//! under its feature. Those on the GPU run one at a time, on the device that `gpu_device` chooses.

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

                #[cfg(feature = "gpu")]
                #[test]
                fn gpu() {
                    $crate::backends::on_gpu(run);
                }
            }
        )*
    };
}

/// Runs `test` on the GPU, or says why not.
#[cfg(feature = "gpu")]
pub fn on_gpu(test: impl FnOnce(Device)) {
    use std::sync::Mutex;

    // One at a time: shader compilation and lavapipe's own threads fill both cores already, and
    // what is counted or measured on the device is the test's own.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    // A test that failed poisons the lock; the next one may run all the same.
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());

    match crate::gpu_device::gpu_device() {
        Ok(device) => test(device),
        Err(why) => println!("skipped: {why}"),
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
    #[cfg(feature = "gpu")]
    let other = || crate::gpu_device::gpu_device().expect("a device");
    #[cfg(not(feature = "gpu"))]
    let other = || panic!("no backend is compiled in");
    cpus().into_iter().next().unwrap_or_else(other)
}

/// Whether this is one of [`cpus`].
pub fn is_cpu(device: &Device) -> bool {
    cpus().contains(device)
}

/// How much wider tolerances are on this device: 1 on a CPU backend, 10 on a GPU, where `exp` and
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
