//! Keys and values as a cache keeps them: as they were computed, or in fewer bits.
//!
//! In a float type that the device has they are a tensor of it; else their codes stand in a tensor of
//! whole numbers, which only the crate's own CPU kernel reads as it is.

use burn::backend::{
    Backend, Dispatch,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::coding::Coding;
use super::op::{Extra, FusedAttention};
use super::{Plan, reads_codes, reads_mixed};

/// Keys or values, `[batch, kv_heads, keys, head_dim]`.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    Float(Tensor<4>),
    Coded(Codes),
}

/// Rows of numbers in fewer bits.
#[derive(Clone, Debug)]
pub(crate) struct Codes {
    /// `[batch, kv_heads, keys, codes of a row]`
    pub(crate) codes: Tensor<4, Int>,
    pub(crate) coding: Coding,
    /// Numbers in a row, `head_dim`.
    pub(crate) width: usize,
}

impl Kept {
    /// `tensor` rounded to what `coding` holds; as it is without one.
    ///
    /// # Panics
    ///
    /// If the device [can't keep](Self::can_be_on) it.
    pub(crate) fn new(tensor: Tensor<4>, coding: Option<Coding>) -> Self {
        let Some(coding) = coding else { return Self::Float(tensor) };
        let device = tensor.device();
        match coding.float() {
            Some(float) if device.supports_dtype(float) => Self::Float(tensor.cast(float)),
            _ => {
                assert!(reads_codes(&device), "{coding:?}: expected a CPU device, got {device:?}");
                let shape = tensor.dims();
                let data = tensor.into_data().convert::<f32>();
                let numbers = data.as_slice().expect("numbers of f32");
                Self::coded(coding.encode(numbers, shape), coding, shape[3], &device)
            }
        }
    }

    /// What a file holds of it: floats, or the codes of rows of `width` numbers.
    pub(crate) fn of_data(
        data: TensorData,
        coding: Option<Coding>,
        width: usize,
        device: &Device,
    ) -> Self {
        let dtype = data.dtype();
        match coding {
            Some(coding) if !coding.float().is_some_and(|float| device.supports_dtype(float)) => {
                let (bytes, shape, _) = data.into_parts();
                let data = TensorData::from_bytes(bytes, shape, coding.codes());
                Self::coded(data, coding, width, device)
            }
            _ => Self::Float(Tensor::from_data(data, (device, dtype))),
        }
    }

    /// The same for a file: codes of two bytes as the floats that they are.
    pub(crate) fn into_data(self) -> TensorData {
        match self {
            Self::Float(tensor) => tensor.into_data(),
            Self::Coded(Codes { codes, coding, .. }) => {
                let (bytes, shape, dtype) = codes.into_data().into_parts();
                TensorData::from_bytes(bytes, shape, coding.float().unwrap_or(dtype))
            }
        }
    }

    fn coded(data: TensorData, coding: Coding, width: usize, device: &Device) -> Self {
        let codes = Tensor::from_data(data, (device, coding.codes()));
        Self::Coded(Codes { codes, coding, width })
    }

    /// Whether [`new`](Self::new) works on `device`.
    pub(crate) fn can_be_on(device: &Device, coding: Coding) -> bool {
        reads_codes(device) || coding.float().is_some_and(|float| device.supports_dtype(float))
    }

    /// `[batch, kv_heads, keys, head_dim]`
    pub(crate) fn dims(&self) -> [usize; 4] {
        match self {
            Self::Float(tensor) => tensor.dims(),
            Self::Coded(Codes { codes, width, .. }) => {
                let [batch, heads, keys, _] = codes.dims();
                [batch, heads, keys, *width]
            }
        }
    }

    /// The heads one behind the other, `times` times.
    pub(crate) fn repeat_heads(self, times: usize) -> Self {
        match self {
            Self::Float(tensor) => Self::Float(tensor.repeat_dim(1, times)),
            Self::Coded(of) => Self::Coded(Codes { codes: of.codes.repeat_dim(1, times), ..of }),
        }
    }

    /// All the numbers in floats: of codes, in floats of `dtype`.
    pub(crate) fn into_float(self, dtype: DType) -> Tensor<4> {
        let shape = self.dims();
        match self {
            Self::Float(tensor) => tensor,
            Self::Coded(Codes { codes, coding, width }) => {
                let device = codes.device();
                let data = TensorData::new(coding.decode(&codes.into_data(), width), shape);
                Tensor::from_data(data.convert_dtype(dtype), (&device, dtype))
            }
        }
    }
}

impl From<Tensor<4>> for Kept {
    fn from(tensor: Tensor<4>) -> Self {
        Self::Float(tensor)
    }
}

/// Attention under `plan`, where keys and values are kept alike. The output is that of
/// [`FusedAttention::attention_forward`].
pub(crate) fn attention(
    query: Tensor<4>,
    key: Kept,
    value: Kept,
    extra: Extra<Dispatch>,
    plan: Plan,
) -> Tensor<4> {
    let (device, dtype) = (query.device(), query.dtype());
    let query = query.into_dispatch();
    Tensor::from_dispatch(match (key, value) {
        (Kept::Coded(key), Kept::Coded(value)) => {
            let (coding, codes) = (key.coding, [key, value].map(|kept| kept.codes.into_dispatch()));
            let [key, value] = codes;
            Dispatch::coded_attention(query, key, value, extra, plan, coding)
        }
        (Kept::Float(key), Kept::Float(value)) => {
            // Kernels convert what they read, tile by tile.
            let alike = |tensor: Tensor<4>| match tensor.dtype() == dtype || reads_mixed(&device) {
                true => tensor,
                false => tensor.cast(dtype),
            };
            let [key, value] = [key, value].map(|tensor| alike(tensor).into_dispatch());
            Dispatch::attention_forward(query, key, value, extra, plan).0
        }
        _ => unreachable!("keys and values that are kept in two ways"),
    })
}

extend_cpus! {
    ()

    /// Attention over keys and values that stand in codes. Without a gradient: a cache is for inference.
    pub(crate) trait CodedAttention: Backend {
        /// # Shapes
        ///
        /// - query: `[batch, heads, queries, head_dim]`
        /// - key, value: `[batch, kv_heads, keys, codes of a row]`
        /// - output: `[batch, heads, queries, head_dim]`
        fn coded_attention(
            query: FloatTensor<Self>,
            key: IntTensor<Self>,
            value: IntTensor<Self>,
            #[extension_type] extra: Extra<Self>,
            plan: Plan,
            coding: Coding,
        ) -> FloatTensor<Self>;
    }
}
