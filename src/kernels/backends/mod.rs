//! One small file for each backend that the kernels run on.

mod devices;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "ndarray")]
mod ndarray;

#[cfg(test)]
pub(crate) use devices::address;
pub(crate) use devices::{HostBytes, first_keys, supports};
