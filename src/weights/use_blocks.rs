//! Projections and embeddings, whether their weights lie in blocks or not.

use burn::module::Param;
use burn::nn::{Embedding, Linear};
use burn::tensor::{DType, Int, Tensor, TensorData};

use super::{Blocks, blocks};
use crate::kernels;

/// [`Linear::forward`].
///
/// # Panics
///
/// If the last axis of `x` has another length than the weight's inputs, or the weight lies in blocks
/// and asks for a gradient.
pub(crate) fn linear<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    match blocks(&layer.weight) {
        None => kernels::linear(layer, x),
        Some(blocks) => {
            refuse_training(&layer.weight, blocks);
            multiply(blocks, x, layer.bias.as_ref().map(Param::val), true)
        }
    }
}

/// The scores of all vectors of an embedding, `x Eᵀ + bias`: a tied head.
///
/// # Shapes
///
/// - x: `[..., d_model]`
/// - output: `[..., vocab_size]`
///
/// # Panics
///
/// As [`linear`].
pub(crate) fn unembed<const D: usize>(
    embedding: &Embedding,
    x: Tensor<D>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    match blocks(&embedding.weight) {
        None => kernels::project(x, embedding.weight.val().transpose(), bias),
        Some(blocks) => {
            refuse_training(&embedding.weight, blocks);
            multiply(blocks, x, bias, false)
        }
    }
}

/// [`Embedding::forward`]; of blocks the vectors are f32.
///
/// # Panics
///
/// For a token outside the vocabulary, or if the table lies in blocks and asks for a gradient.
pub(crate) fn embed(embedding: &Embedding, tokens: Tensor<2, Int>) -> Tensor<3> {
    let Some(blocks) = blocks(&embedding.weight) else { return embedding.forward(tokens) };
    refuse_training(&embedding.weight, blocks);
    let [batch, queries] = tokens.dims();
    let [_, d_model] = blocks.shape();
    let device = embedding.weight.device();
    let flat = tokens.reshape([batch * queries]); // [batch * queries]
    let vectors = match blocks.on_host() {
        Some(weight) => {
            let data = flat.to_data();
            let numbers = weight.rows(data.iter::<i64>().map(|token| token as usize));
            let data = TensorData::new(numbers, [batch * queries, d_model]);
            Tensor::<2>::from_data(data, (&device, DType::F32))
        }
        None => blocks.numbers().select(0, flat.clone()),
    };
    let vectors = match blocks.adapter() {
        Some(adapter) => {
            let part = adapter.a.val().select(0, flat).matmul(adapter.b.val());
            vectors + part * adapter.scale
        }
        None => vectors,
    };
    vectors.reshape([batch, queries, d_model]) // [batch, queries, d_model]
}

/// Whether products with blocks run on a device.
#[cfg(feature = "import")]
pub(crate) fn keeps(device: &burn::tensor::Device) -> bool {
    kernels::supports(device, DType::F32)
}

/// `[vocab_size, d_model]` of an embedding.
pub(crate) fn shape(embedding: &Embedding) -> [usize; 2] {
    match blocks(&embedding.weight) {
        Some(blocks) => blocks.shape(),
        None => embedding.weight.dims(),
    }
}

/// `x Wᵀ + bias`, and what an adapter adds to `W`: of its transpose where `is_projection`.
fn multiply<const D: usize>(
    blocks: &Blocks,
    x: Tensor<D>,
    bias: Option<Tensor<1>>,
    is_projection: bool,
) -> Tensor<D> {
    let output = match blocks.on_host() {
        Some(weight) => weight.clone().project(x.clone(), bias),
        None => kernels::project(x.clone(), blocks.numbers().cast(x.dtype()).transpose(), bias),
    };
    let Some(adapter) = blocks.adapter() else { return output };
    let (a, b) = (adapter.a.val(), adapter.b.val());
    let (down, up) = if is_projection { (a, b) } else { (b.transpose(), a.transpose()) };
    let part = kernels::project(kernels::project(x, down, None), up, None);
    output + part * adapter.scale
}

/// Blocks have no gradient.
pub(super) fn refuse_training(weight: &Param<Tensor<2>>, blocks: &Blocks) {
    assert!(
        !weight.is_require_grad(),
        "training a weight that stays as it is stored, in {}: expected an ordinary parameter, or one that \
         asks for no gradient; load it with Precision::F32, or train adapters beside it by \
         Module::apply_lora, or freeze it",
        blocks.format()
    );
}
