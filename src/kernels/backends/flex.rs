//! Burn's flex backend: typed bytes behind a layout of strides.

use burn::backend::{
    Flex,
    flex::{FlexTensor, Layout},
};
use burn::tensor::{Bytes, DType, Int, Shape, Tensor};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::kernels::coding::Coding;
use crate::kernels::cpu::host::{HostCodes, HostFloat, HostView};

macro_rules! host_float {
    ($element:ty, $dtype:expr) => {
        impl HostFloat<$element> for Flex {
            fn view<const D: usize>(tensor: &FlexTensor) -> Option<HostView<'_, $element, D>> {
                let layout = tensor.layout();
                let mut strides = [0; D];
                for (stride, &signed) in strides.iter_mut().zip(layout.strides()) {
                    *stride = usize::try_from(signed).ok()?;
                }
                let data = &tensor.storage::<$element>()[layout.start_offset()..];
                Some(HostView { data, shape: layout.shape().dims(), strides })
            }

            fn contiguous(tensor: FlexTensor) -> FlexTensor {
                tensor.to_contiguous()
            }

            fn slice(tensor: &FlexTensor) -> Option<&[$element]> {
                tensor.as_slice()
            }

            fn slice_mut(tensor: &mut FlexTensor) -> Option<&mut [$element]> {
                let len = tensor.layout().num_elements();
                let whole = tensor.is_contiguous() && tensor.layout().start_offset() == 0;
                let data = tensor.try_storage_mut::<$element>()?;
                (whole && data.len() == len).then_some(data)
            }

            fn tensor(data: Vec<$element>, shape: impl Into<Shape>) -> FlexTensor {
                FlexTensor::new(Bytes::from_elems(data), Layout::contiguous(shape.into()), $dtype)
            }
        }
    };
}

host_float!(f32, DType::F32);
host_float!(f64, DType::F64);
host_float!(f16, DType::F16);
host_float!(bf16, DType::BF16);
// Codes of whole numbers, which are the same tensors here.
host_float!(u16, DType::U16);
host_float!(u8, DType::U8);

impl HostCodes for Flex {
    fn half(dtype: DType) -> Option<Coding> {
        match dtype {
            DType::F16 => Some(Coding::F16),
            DType::BF16 => Some(Coding::Bf16),
            _ => None,
        }
    }

    fn half_bits(tensor: &FlexTensor) -> Option<HostView<'_, u16, 4>> {
        fn bits<T>(view: HostView<'_, T, 4>) -> HostView<'_, u16, 4>
        where
            [T]: HalfFloatSliceExt,
        {
            let HostView { data, shape, strides } = view;
            HostView { data: data.reinterpret_cast(), shape, strides }
        }
        match tensor.dtype() {
            DType::F16 => <Self as HostFloat<f16>>::view(tensor).map(bits),
            _ => <Self as HostFloat<bf16>>::view(tensor).map(bits),
        }
    }

    fn contiguous_codes(codes: FlexTensor) -> FlexTensor {
        codes.to_contiguous()
    }

    fn codes_u16(codes: &FlexTensor) -> Option<HostView<'_, u16, 4>> {
        <Self as HostFloat<u16>>::view(codes)
    }

    fn codes_u8(codes: &FlexTensor) -> Option<HostView<'_, u8, 4>> {
        <Self as HostFloat<u8>>::view(codes)
    }
}

/// A tensor of u8 in row-major order.
pub(super) fn bytes(tensor: Tensor<2, Int>) -> Option<FlexTensor> {
    let tensor = tensor.try_into_primitive::<Flex>().ok()?.to_contiguous();
    tensor.as_slice::<u8>().is_some().then_some(tensor)
}

/// Where the first element lies.
#[cfg(test)]
pub(super) fn address(tensor: Tensor<4>) -> *const f32 {
    let tensor = tensor.try_into_primitive::<Flex>().expect("a tensor of flex's");
    <Flex as HostFloat<f32>>::view::<4>(&tensor).expect("a view").data.as_ptr()
}

/// Where the first code lies.
#[cfg(test)]
pub(super) fn address_of_codes(codes: Tensor<4, Int>) -> *const u8 {
    let dtype = codes.dtype();
    let codes = codes.try_into_primitive::<Flex>().expect("a tensor of this backend's");
    match dtype {
        DType::U8 => Flex::codes_u8(&codes).expect("a view").data.as_ptr(),
        _ => Flex::codes_u16(&codes).expect("a view").data.as_ptr().cast(),
    }
}
