//! The device, chosen while the program runs: the one place that names backends.

use burn::tensor::Device;

use super::args::Backend;
use super::failure::Failure;

/// A device of the backend, or why there is none.
pub fn choose(backend: Backend) -> Result<Device, Failure> {
    match backend {
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)] // Burn 0.22 still has it, Burn 0.23 does not.
        Backend::Ndarray => Ok(Device::ndarray()),
        #[cfg(feature = "flex")]
        Backend::Flex => Ok(Device::flex()),
        #[cfg(feature = "wgpu")]
        Backend::Wgpu => Device::wgpu_options().init().map_err(|error| {
            Failure::Input(format!(
                "--backend wgpu: expected a GPU or a software Vulkan driver, got: {error}. \
                 Install a driver (mesa-vulkan-drivers has one for the CPU), or choose another \
                 backend"
            ))
        }),
        #[allow(unreachable_patterns)] // Reachable unless every backend is compiled in.
        missing => Err(not_compiled_in(missing)),
    }
}

#[allow(dead_code)] // Not called if every backend is compiled in.
fn not_compiled_in(backend: Backend) -> Failure {
    let name = match backend {
        Backend::Ndarray => "ndarray",
        Backend::Flex => "flex",
        Backend::Wgpu => "wgpu",
    };
    let compiled_in: Vec<&str> = [
        ("ndarray", cfg!(feature = "ndarray")),
        ("flex", cfg!(feature = "flex")),
        ("wgpu", cfg!(feature = "wgpu")),
    ]
    .into_iter()
    .filter_map(|(name, is_in)| is_in.then_some(name))
    .collect();
    Failure::Input(format!(
        "--backend {name}: expected a backend that is compiled in ({}), got {name}; \
         build with it: cargo run --release --features {name} --example copy -- --backend {name}",
        if compiled_in.is_empty() { "none is".into() } else { compiled_in.join(", ") },
    ))
}
