//! Burn's ndarray backend: the one file of the crate that names its types.
#![allow(deprecated)]

use burn::backend::{NdArray, ndarray::NdArrayTensor};
use burn::tensor::{Shape, TensorData};
use half::{bf16, f16};

use super::{HostFloat, View};

macro_rules! host_float {
    ($element:ty, $variant:ident) => {
        impl HostFloat<$element> for NdArray {
            fn view<const D: usize>(tensor: &NdArrayTensor) -> Option<View<'_, $element, D>> {
                let NdArrayTensor::$variant(storage) = tensor else {
                    panic!("expected a tensor of {}", stringify!($element));
                };
                let array = storage.view();
                let shape = array.shape().try_into().expect("the rank of the view");
                let mut strides = [0; D];
                for (stride, &signed) in strides.iter_mut().zip(array.strides()) {
                    *stride = usize::try_from(signed).ok()?;
                }
                Some(View { data: array.to_slice_memory_order()?, shape, strides })
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

            fn tensor(data: Vec<$element>, shape: impl Into<Shape>) -> NdArrayTensor {
                NdArrayTensor::from_data(TensorData::new(data, shape))
            }
        }
    };
}

host_float!(f32, F32);
host_float!(f64, F64);

macro_rules! no_half {
    ($half:ty) => {
        impl HostFloat<$half> for NdArray {
            fn view<const D: usize>(_: &NdArrayTensor) -> Option<View<'_, $half, D>> {
                unreachable!("ndarray has no half precision")
            }

            fn contiguous(_: NdArrayTensor) -> NdArrayTensor {
                unreachable!("ndarray has no half precision")
            }

            fn slice(_: &NdArrayTensor) -> Option<&[$half]> {
                unreachable!("ndarray has no half precision")
            }

            fn tensor(_: Vec<$half>, _: impl Into<Shape>) -> NdArrayTensor {
                unreachable!("ndarray has no half precision")
            }
        }
    };
}

no_half!(f16);
no_half!(bf16);
