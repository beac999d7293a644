//! What the kernels ask of a device by its backend.

use burn::backend::DispatchDevice;
#[cfg(feature = "gpu")]
use burn::tensor::TensorData;
use burn::tensor::{DType, Device, Int, Tensor, s};

#[cfg(feature = "gpu")]
use super::cube;
#[cfg(feature = "flex")]
use super::flex;
#[cfg(feature = "ndarray")]
use super::ndarray;
use crate::kernels::Plan;
#[cfg(feature = "gpu")]
use crate::kernels::cube::map::pack;

/// The bytes behind a tensor on a device whose memory the CPU reads.
#[derive(Clone)]
pub(crate) enum HostBytes {
    #[cfg(feature = "flex")]
    Flex(burn::backend::flex::FlexTensor),
    #[cfg(feature = "ndarray")]
    NdArray(burn::backend::ndarray::NdArrayTensor),
}

impl HostBytes {
    /// Of a tensor of u8, without a copy if it is row-major; nothing on another device or of another
    /// type.
    pub fn of(bytes: Tensor<2, Int>) -> Option<Self> {
        let bytes = bytes.without_autodiff();
        if bytes.dtype() != DType::U8 {
            return None;
        }
        match bytes.device().as_dispatch() {
            #[cfg(feature = "ndarray")]
            DispatchDevice::NdArray(_) => ndarray::bytes(bytes).map(Self::NdArray),
            #[cfg(feature = "flex")]
            DispatchDevice::Flex(_) => flex::bytes(bytes).map(Self::Flex),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }

    pub fn get(&self) -> &[u8] {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex(tensor) => tensor.as_slice().expect("row-major bytes"),
            #[cfg(feature = "ndarray")]
            Self::NdArray(tensor) => ndarray::byte_slice(tensor).expect("row-major bytes"),
        }
    }
}

/// The first `keys` of `[batch, kv_heads, keys, head_dim]`, without a copy where the backend can.
pub(crate) fn first_keys(tensor: Tensor<4>, keys: usize) -> Tensor<4> {
    match tensor.device().as_dispatch() {
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => ndarray::first_keys(tensor, keys),
        // Not `narrow`, which refuses to leave nothing.
        _ => tensor.slice(s![.., .., 0..keys, ..]),
    }
}

/// The same of `[batch, kv_heads, keys, codes of a row]`.
pub(crate) fn first_codes(codes: Tensor<4, Int>, keys: usize) -> Tensor<4, Int> {
    match codes.device().as_dispatch() {
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => ndarray::first_codes(codes, keys),
        _ => codes.slice(s![.., .., 0..keys, ..]),
    }
}

/// Whether attention on `device` reads keys and values that stand in codes.
pub(crate) fn reads_codes(device: &Device) -> bool {
    is_host(device)
}

/// Whether attention on `device` reads keys and values of another float type than the queries'.
pub(crate) fn reads_mixed(device: &Device) -> bool {
    #[cfg(feature = "gpu")]
    if let DispatchDevice::Cube(_) = device.clone().without_autodiff().as_dispatch() {
        return true;
    }
    reads_codes(device)
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

/// The same of codes of one or two bytes.
#[cfg(test)]
pub(crate) fn address_of_codes(codes: &Tensor<4, Int>) -> *const u8 {
    let codes = codes.clone();
    match codes.device().as_dispatch() {
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => ndarray::address_of_codes(codes),
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => flex::address_of_codes(codes),
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

/// Whether the crate's attention runs on `device` (tracked by autodiff or not) for `dtype`.
pub(crate) fn supports_attention(device: &Device, dtype: DType) -> bool {
    #[cfg(feature = "gpu")]
    {
        let device = device.clone().without_autodiff();
        if let DispatchDevice::Cube(_) = device.as_dispatch() {
            return match dtype {
                DType::F32 => true,
                DType::F16 | DType::BF16 => device.supports_dtype(dtype),
                _ => false,
            };
        }
    }
    supports(device, dtype)
}

/// Whether it is faster there than tensor operations, where it runs. Software that plays a GPU works
/// through shared memory unit by unit, and is slower by it.
pub(crate) fn prefers_fused(device: &Device) -> bool {
    #[cfg(feature = "gpu")]
    {
        let device = device.clone().without_autodiff();
        if let DispatchDevice::Cube(device) = device.as_dispatch() {
            return cube::is_card(device);
        }
    }
    let _ = device;
    true
}

/// What the kernels read of a plan besides its numbers, as a tensor on `device`; nothing on a CPU.
pub(crate) fn map(plan: &Plan, device: &Device) -> Option<Tensor<1, Int>> {
    #[cfg(feature = "gpu")]
    {
        let device = device.clone().without_autodiff();
        if let DispatchDevice::Cube(_) = device.as_dispatch() {
            let map = pack(plan);
            let shape = [map.len()];
            return Some(Tensor::from_data(TensorData::new(map, shape), (&device, DType::I32)));
        }
    }
    let _ = (plan, device);
    None
}
