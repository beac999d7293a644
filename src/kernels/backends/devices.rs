//! What the kernels ask of a device by its backend.

use burn::backend::DispatchDevice;
use burn::tensor::{DType, Device, Tensor, s};

#[cfg(feature = "flex")]
#[cfg(test)]
use super::flex;
#[cfg(feature = "ndarray")]
use super::ndarray;

/// The first `keys` of `[batch, kv_heads, keys, head_dim]`, without a copy where the backend can.
pub(crate) fn first_keys(tensor: Tensor<4>, keys: usize) -> Tensor<4> {
    match tensor.device().as_dispatch() {
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => ndarray::first_keys(tensor, keys),
        // Not `narrow`, which refuses to leave nothing.
        _ => tensor.slice(s![.., .., 0..keys, ..]),
    }
}

/// Where the first element of a CPU tensor of f32 lies, to see whether something copies.
#[cfg(test)]
pub(crate) fn address(tensor: &Tensor<4>) -> *const f32 {
    let tensor = tensor.clone();
    match tensor.device().as_dispatch() {
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => ndarray::address(tensor),
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => flex::address(tensor),
        other => unreachable!("a CPU backend, not {other:?}"),
    }
}

/// Whether the crate's own CPU operations run on `device` (tracked by autodiff or not) for `dtype`.
pub(crate) fn supports(device: &Device, dtype: DType) -> bool {
    let device = device.clone().without_autodiff();
    match device.as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => {
            matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
        }
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => matches!(dtype, DType::F64 | DType::F32),
        // Also met where another crate enables a backend of Burn's that this crate's features do
        // not name: it has no operation there.
        #[allow(unreachable_patterns)]
        _ => {
            let _ = dtype;
            false
        }
    }
}

/// Whether the tensors of `device` lie in the host's memory: to read one waits for nothing.
pub(crate) fn is_host(device: &Device) -> bool {
    match device.clone().without_autodiff().as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => true,
        // Also met where another crate enables a backend of Burn's that this crate's features do not
        // name.
        #[allow(unreachable_patterns)]
        _ => false,
    }
}
