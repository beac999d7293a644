//! The gradients of a layer under PyTorch's own names and in its layout.
//!
//! PyTorch keeps `weight` as `[out, in]`, Burn as `[in, out]`; PyTorch packs the projections of
//! query, key and value into one, stacked in this order.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Gradients, Tensor, TensorData};
use burn_decoder::attention::MultiHeadAttention;
use burn_decoder::decoder::{DecoderLayer, Norm};

/// The gradient of every parameter of `layer`, by PyTorch's name and in its layout.
pub fn layer_gradients(
    layer: &DecoderLayer,
    gradients: &Gradients,
    prefix: &str,
) -> Vec<(String, TensorData)> {
    let mut found = Vec::new();
    let mut add = |part: &str, gradients: Vec<(&str, TensorData)>| {
        found.extend(
            gradients.into_iter().map(|(name, data)| (format!("{prefix}{part}.{name}"), data)),
        );
    };
    add("self_attn", attention_gradients(&layer.self_attention, gradients));
    add("norm1", norm_gradients(&layer.self_attention_norm, gradients));
    if let Some(attention) = &layer.cross_attention {
        add("multihead_attn", attention_gradients(attention, gradients));
    }
    if let Some(norm) = &layer.cross_attention_norm {
        add("norm2", norm_gradients(norm, gradients));
    }
    add("linear1", linear_gradients(&layer.feed_forward.up, gradients));
    add("linear2", linear_gradients(&layer.feed_forward.down, gradients));
    add("norm3", norm_gradients(layer.feed_forward_norm.as_ref().unwrap(), gradients));
    found
}

pub fn norm_gradients(norm: &Norm, gradients: &Gradients) -> Vec<(&'static str, TensorData)> {
    let Norm::LayerNorm(norm) = norm else { panic!("PyTorch's layers have LayerNorm") };
    vec![
        ("weight", gradient(&norm.gamma, gradients).into_data()),
        ("bias", gradient(norm.beta.as_ref().unwrap(), gradients).into_data()),
    ]
}

fn attention_gradients(
    attention: &MultiHeadAttention,
    gradients: &Gradients,
) -> Vec<(&'static str, TensorData)> {
    let packed = [&attention.query, &attention.key, &attention.value];
    let weights = packed.map(|linear| gradient(&linear.weight, gradients).transpose()).to_vec();
    let biases = packed.map(|linear| gradient(linear.bias.as_ref().unwrap(), gradients)).to_vec();
    let output = &attention.output;
    vec![
        ("in_proj_weight", Tensor::cat(weights, 0).into_data()),
        ("in_proj_bias", Tensor::cat(biases, 0).into_data()),
        ("out_proj.weight", gradient(&output.weight, gradients).transpose().into_data()),
        ("out_proj.bias", gradient(output.bias.as_ref().unwrap(), gradients).into_data()),
    ]
}

fn linear_gradients(linear: &Linear, gradients: &Gradients) -> Vec<(&'static str, TensorData)> {
    vec![
        ("weight", gradient(&linear.weight, gradients).transpose().into_data()),
        ("bias", gradient(linear.bias.as_ref().unwrap(), gradients).into_data()),
    ]
}

fn gradient<const D: usize>(parameter: &Param<Tensor<D>>, gradients: &Gradients) -> Tensor<D> {
    parameter.val().grad(gradients).expect("a gradient for every parameter")
}
