//! Tensors whose elements the CPU can read: what the crate's own CPU operations need of a backend.
//!
//! [`Host`] borrows a float tensor's elements by stride, without a copy where the backend allows
//! it, and makes a tensor of a vector. An operation written over it runs on each CPU backend, so a
//! backend is one small file in `backends` and no operation names one.

use burn::backend::{
    Backend, TensorMetadata,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, Shape};

use crate::kernels::coding::Coding;

/// A CPU backend with the element types that this crate's operations compute in.
pub(crate) trait Host: HostFloat<f64> + HostFloat<f32> + HostCodes {}

impl<B> Host for B where B: HostFloat<f64> + HostFloat<f32> + HostCodes {}

/// Reads tensors of numbers in fewer bits, as `None` where [`HostFloat::view`] gives it.
pub(crate) trait HostCodes: Backend {
    /// How the numbers of a float tensor in half precision are coded; `None` for other types.
    fn half(dtype: DType) -> Option<Coding>;

    /// The bits of a tensor in half precision.
    fn half_bits(tensor: &FloatTensor<Self>) -> Option<HostView<'_, u16, 4>>;

    /// The codes in row-major order, copied only if they are not already.
    fn contiguous_codes(codes: IntTensor<Self>) -> IntTensor<Self>;

    /// Codes of two bytes.
    fn codes_u16(codes: &IntTensor<Self>) -> Option<HostView<'_, u16, 4>>;

    /// Codes of one byte.
    fn codes_u8(codes: &IntTensor<Self>) -> Option<HostView<'_, u8, 4>>;
}

/// Reads and makes float tensors of element type `T`.
pub(crate) trait HostFloat<T>: Backend {
    /// The elements by stride, or `None` if the layout has negative strides or lies scattered.
    ///
    /// # Panics
    ///
    /// Panics if the tensor holds another element type or has another rank.
    fn view<const D: usize>(tensor: &FloatTensor<Self>) -> Option<HostView<'_, T, D>>;

    /// The same tensor in row-major order, copied only if it is not already.
    fn contiguous(tensor: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The elements of a row-major tensor of any rank, or `None` if it is not row-major.
    fn slice(tensor: &FloatTensor<Self>) -> Option<&[T]>;

    /// The same to write to, if the tensor is the only one that holds them, and nothing else.
    #[cfg_attr(not(feature = "optim"), allow(dead_code))]
    fn slice_mut(tensor: &mut FloatTensor<Self>) -> Option<&mut [T]>;

    /// A tensor that takes over a vector in row-major order.
    fn tensor(data: Vec<T>, shape: impl Into<Shape>) -> FloatTensor<Self>;
}

/// Elements by stride: index `i` stands at `data[Σ i[axis] · strides[axis]]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostView<'a, T, const D: usize> {
    pub data: &'a [T],
    pub shape: [usize; D],
    pub strides: [usize; D],
}

/// `tensor`, or a copy of it in row-major order if [`HostFloat::view`] can't read it as it lies.
pub(crate) fn readable<B: HostFloat<T>, T, const D: usize>(
    tensor: FloatTensor<B>,
) -> FloatTensor<B> {
    if B::view::<D>(&tensor).is_some() { tensor } else { B::contiguous(tensor) }
}

/// The elements of a tensor that went through [`readable`].
pub(crate) fn read<B: HostFloat<T>, T, const D: usize>(
    tensor: &FloatTensor<B>,
) -> HostView<'_, T, D> {
    B::view(tensor).expect("a readable tensor")
}

/// A tensor of f32 in row-major order, of any rank.
pub(crate) struct Flat<B: Backend>(FloatTensor<B>);

impl<B: HostFloat<f32>> Flat<B> {
    /// Copies only what is not row-major.
    pub(crate) fn new(tensor: FloatTensor<B>) -> Self {
        Self(if B::slice(&tensor).is_some() { tensor } else { B::contiguous(tensor) })
    }

    pub(crate) fn data(&self) -> &[f32] {
        B::slice(&self.0).expect("a row-major tensor")
    }

    /// A tensor of the same shape.
    pub(crate) fn like(&self, data: Vec<f32>) -> FloatTensor<B> {
        B::tensor(data, self.0.shape())
    }
}
