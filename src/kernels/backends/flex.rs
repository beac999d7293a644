//! Burn's flex backend: typed bytes behind a layout of strides.

use burn::backend::{
    Flex,
    flex::{FlexTensor, Layout},
};
use burn::tensor::{Bytes, DType, Int, Shape, Tensor};

use crate::kernels::cpu::host::{HostFloat, HostView};

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

            fn tensor(data: Vec<$element>, shape: impl Into<Shape>) -> FlexTensor {
                FlexTensor::new(Bytes::from_elems(data), Layout::contiguous(shape.into()), $dtype)
            }
        }
    };
}

host_float!(f32, DType::F32);
host_float!(f64, DType::F64);

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
