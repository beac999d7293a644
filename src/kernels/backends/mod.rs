//! One small file for each backend that the kernels run on, and the one list of those on the CPU.

/// An operation of Burn on its CPU backends, and on those that are named in front of the trait.
macro_rules! extend_cpus {
    (($($others:tt)*) $($operation:tt)*) => {
        #[burn::backend::backend_extension(
            Flex: cfg(feature = "flex"),
            NdArray: cfg(feature = "ndarray"),
            $($others)*
        )]
        $($operation)*
    };
}

#[cfg(feature = "gpu")]
mod cube;
mod devices;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "ndarray")]
mod ndarray;

pub(crate) use devices::{
    HostBytes, first_codes, first_keys, is_host, map, prefers_fused, reads_codes, reads_mixed,
    supports, supports_attention,
};
#[cfg(test)]
pub(crate) use devices::{address, address_of_codes};

/// The CPU devices that are compiled in.
#[cfg(test)]
pub(crate) fn cpus() -> Vec<burn::tensor::Device> {
    vec![
        #[cfg(feature = "flex")]
        burn::tensor::Device::flex(),
        #[cfg(feature = "ndarray")]
        burn::tensor::Device::ndarray(),
    ]
}
