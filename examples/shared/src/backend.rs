//! The backend, chosen while the program runs: the one place of the examples that names any.

use burn::tensor::Device;
use clap::ValueEnum;
use serde::Serialize;

/// One of the backends that this binary may have been built with.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Burn's ndarray, on the CPU.
    Ndarray,
    /// Burn's flex, on the CPU.
    Flex,
    /// Burn's wgpu, on a GPU or on software Vulkan.
    Wgpu,
}

/// The first that is compiled in.
impl Default for Backend {
    fn default() -> Self {
        match (cfg!(feature = "ndarray"), cfg!(feature = "flex"), cfg!(feature = "wgpu")) {
            (false, true, _) => Self::Flex,
            (false, false, true) => Self::Wgpu,
            _ => Self::Ndarray,
        }
    }
}

impl Backend {
    /// A device of the backend, or why there is none; `example` is the package that runs.
    pub fn device(self, example: &str) -> Result<Device, String> {
        match self {
            #[cfg(feature = "ndarray")]
            #[allow(deprecated)] // Burn 0.22 still has it, Burn 0.23 does not.
            Self::Ndarray => Ok(Device::ndarray()),
            #[cfg(feature = "flex")]
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Device::wgpu_options().init().map_err(|error| {
                format!(
                    "--backend wgpu: expected a GPU or a software Vulkan driver, got: {error}. \
                     Install a driver (mesa-vulkan-drivers has one for the CPU), or choose another \
                     backend"
                )
            }),
            #[allow(unreachable_patterns)] // Reachable unless every backend is compiled in.
            missing => Err(missing.not_compiled_in(example)),
        }
    }

    #[allow(dead_code)] // Not called if every backend is compiled in.
    fn not_compiled_in(self, example: &str) -> String {
        let name = match self {
            Self::Ndarray => "ndarray",
            Self::Flex => "flex",
            Self::Wgpu => "wgpu",
        };
        let compiled_in: Vec<&str> = [
            ("ndarray", cfg!(feature = "ndarray")),
            ("flex", cfg!(feature = "flex")),
            ("wgpu", cfg!(feature = "wgpu")),
        ]
        .into_iter()
        .filter_map(|(name, is_in)| is_in.then_some(name))
        .collect();
        format!(
            "--backend {name}: expected a backend that is compiled in ({}), got {name}; build \
             with it: cargo run --release -p {example} --features {name} -- --backend {name}",
            if compiled_in.is_empty() { "none is".into() } else { compiled_in.join(", ") },
        )
    }
}
