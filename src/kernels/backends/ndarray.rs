//! Burn's ndarray backend: the one file of the crate that names its types.

use burn::backend::{NdArray, ndarray::NdArrayTensor};
use burn::tensor::{DType, Int, Shape, Tensor, TensorData};

use crate::kernels::coding::Coding;
use crate::kernels::cpu::host::{HostCodes, HostFloat, HostView};

macro_rules! host_float {
    ($element:ty, $variant:ident) => {
        impl HostFloat<$element> for NdArray {
            fn view<const D: usize>(tensor: &NdArrayTensor) -> Option<HostView<'_, $element, D>> {
                let NdArrayTensor::$variant(storage) = tensor else {
                    panic!("expected a tensor of {}", stringify!($element));
                };
                let array = storage.view();
                let shape = array.shape().try_into().expect("the rank of the view");
                let mut strides = [0; D];
                for (stride, &signed) in strides.iter_mut().zip(array.strides()) {
                    *stride = usize::try_from(signed).ok()?;
                }
                let data = match array.to_slice_memory_order() {
                    Some(data) => data,
                    // A part of a larger array, as the filled slots of a cache are.
                    None => {
                        let steps = array.shape().iter().zip(&strides);
                        let last: usize = steps.map(|(&len, stride)| (len - 1) * stride).sum();
                        // SAFETY: without negative strides the array's pointer is its lowest
                        // element, and `last` the offset of its highest. Both lie in the one
                        // vector behind the array, so all between them does, initialised. Nobody
                        // writes to it while `tensor` is borrowed: who shares the vector copies
                        // it first.
                        unsafe { std::slice::from_raw_parts(array.as_ptr(), last + 1) }
                    }
                };
                Some(HostView { data, shape, strides })
            }

            fn contiguous(tensor: NdArrayTensor) -> NdArrayTensor {
                match tensor {
                    NdArrayTensor::$variant(storage) if !storage.view().is_standard_layout() => {
                        storage.view().as_standard_layout().into_owned().into_shared().into()
                    }
                    tensor => tensor,
                }
            }

            fn slice(tensor: &NdArrayTensor) -> Option<&[$element]> {
                let NdArrayTensor::$variant(storage) = tensor else {
                    panic!("expected a tensor of {}", stringify!($element));
                };
                storage.view().to_slice()
            }

            fn slice_mut(tensor: &mut NdArrayTensor) -> Option<&mut [$element]> {
                match tensor {
                    NdArrayTensor::$variant(storage) if storage.is_unique() => {
                        storage.ensure_owned().as_slice_mut()
                    }
                    _ => None,
                }
            }

            fn tensor(data: Vec<$element>, shape: impl Into<Shape>) -> NdArrayTensor {
                NdArrayTensor::from_data(TensorData::new(data, shape))
            }
        }
    };
}

host_float!(f32, F32);
host_float!(f64, F64);
// Codes of whole numbers, which are the same tensors here.
host_float!(u16, U16);
host_float!(u8, U8);

impl HostCodes for NdArray {
    fn half(_: DType) -> Option<Coding> {
        None
    }

    fn half_bits(_: &NdArrayTensor) -> Option<HostView<'_, u16, 4>> {
        unreachable!("ndarray has no tensors in half precision")
    }

    fn contiguous_codes(codes: NdArrayTensor) -> NdArrayTensor {
        <Self as HostFloat<u16>>::contiguous(<Self as HostFloat<u8>>::contiguous(codes))
    }

    fn codes_u16(codes: &NdArrayTensor) -> Option<HostView<'_, u16, 4>> {
        <Self as HostFloat<u16>>::view(codes)
    }

    fn codes_u8(codes: &NdArrayTensor) -> Option<HostView<'_, u8, 4>> {
        <Self as HostFloat<u8>>::view(codes)
    }
}

/// See [`first_keys`](super::first_keys). Burn's slice copies on this backend, although its arrays can
/// be parts of each other.
pub(super) fn first_keys(tensor: Tensor<4>, keys: usize) -> Tensor<4> {
    Tensor::from_primitive::<NdArray>(first_rows(on_ndarray(tensor), keys))
}

/// See [`first_codes`](super::first_codes).
pub(super) fn first_codes(codes: Tensor<4, Int>, keys: usize) -> Tensor<4, Int> {
    let codes = codes.try_into_primitive::<NdArray>().expect("a tensor of ndarray's");
    Tensor::from_primitive::<NdArray>(first_rows(codes, keys))
}

fn first_rows(tensor: NdArrayTensor, keys: usize) -> NdArrayTensor {
    macro_rules! part {
        ($storage:ident) => {{
            let mut array = $storage.into_shared();
            array.slice_each_axis_inplace(|axis| match axis.axis.index() {
                2 => (..keys as isize).into(),
                _ => (..).into(),
            });
            array.into()
        }};
    }
    match tensor {
        NdArrayTensor::F32(storage) => part!(storage),
        NdArrayTensor::F64(storage) => part!(storage),
        NdArrayTensor::U16(storage) => part!(storage),
        NdArrayTensor::U8(storage) => part!(storage),
        other => unreachable!("floats or codes, not {other:?}"),
    }
}

/// A tensor of u8 in row-major order.
pub(super) fn bytes(tensor: Tensor<2, Int>) -> Option<NdArrayTensor> {
    let tensor = match tensor.try_into_primitive::<NdArray>().ok()? {
        NdArrayTensor::U8(storage) if !storage.view().is_standard_layout() => {
            storage.view().as_standard_layout().into_owned().into_shared().into()
        }
        tensor => tensor,
    };
    byte_slice(&tensor).is_some().then_some(tensor)
}

/// The bytes of such a tensor.
pub(super) fn byte_slice(tensor: &NdArrayTensor) -> Option<&[u8]> {
    match tensor {
        NdArrayTensor::U8(storage) => storage.view().to_slice(),
        _ => None,
    }
}

/// Where the first element lies.
#[cfg(test)]
pub(super) fn address(tensor: Tensor<4>) -> *const f32 {
    let tensor = on_ndarray(tensor);
    <NdArray as HostFloat<f32>>::view::<4>(&tensor).expect("a view").data.as_ptr()
}

/// Where the first code lies.
#[cfg(test)]
pub(super) fn address_of_codes(codes: Tensor<4, Int>) -> *const u8 {
    let dtype = codes.dtype();
    let codes = codes.try_into_primitive::<NdArray>().expect("a tensor of this backend's");
    match dtype {
        DType::U8 => NdArray::codes_u8(&codes).expect("a view").data.as_ptr(),
        _ => NdArray::codes_u16(&codes).expect("a view").data.as_ptr().cast(),
    }
}

fn on_ndarray(tensor: Tensor<4>) -> NdArrayTensor {
    tensor.try_into_primitive::<NdArray>().expect("a tensor of ndarray's")
}
