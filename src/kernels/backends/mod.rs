//! One small file for each backend that the kernels run on.

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
