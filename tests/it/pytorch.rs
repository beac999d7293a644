//! Parameters under PyTorch's own names: set into a layer, and a layer's gradients read back out.
//!
//! PyTorch keeps `weight` as `[out, in]`, Burn as `[in, out]`; PyTorch packs the projections of
//! query, key and value into one, stacked in this order.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use burn_decoder::attention::MultiHeadAttention;
use burn_decoder::decoder::{DecoderLayer, Norm};

/// Where the tensors come from: a safetensors file or a `.pt`.
pub type Source<'a> = &'a dyn Fn(&str) -> TensorData;

/// Sets every parameter of `layer` from the tensors `{prefix}...`.
pub fn load_layer(layer: &mut DecoderLayer, source: Source, prefix: &str, device: &Device) {
    let name = |part: &str| format!("{prefix}{part}");
    load_attention(&mut layer.self_attention, source, &name("self_attn"), device);
    load_norm(&mut layer.self_attention_norm, source, &name("norm1"), device);
    if let Some(attention) = &mut layer.cross_attention {
        load_attention(attention, source, &name("multihead_attn"), device);
    }
    if let Some(norm) = &mut layer.cross_attention_norm {
        load_norm(norm, source, &name("norm2"), device);
    }
    load_linear(&mut layer.feed_forward.up, source, &name("linear1"), device);
    load_linear(&mut layer.feed_forward.down, source, &name("linear2"), device);
    load_norm(layer.feed_forward_norm.as_mut().unwrap(), source, &name("norm3"), device);
}

pub fn load_norm(norm: &mut Norm, source: Source, name: &str, device: &Device) {
    let Norm::LayerNorm(norm) = norm else { panic!("PyTorch's layers have LayerNorm") };
    norm.gamma = parameter(source(&format!("{name}.weight")), device);
    norm.beta = Some(parameter(source(&format!("{name}.bias")), device));
}

fn load_attention(attention: &mut MultiHeadAttention, source: Source, name: &str, device: &Device) {
    let weight = Tensor::<2>::from_data(source(&format!("{name}.in_proj_weight")), device);
    let bias = Tensor::<1>::from_data(source(&format!("{name}.in_proj_bias")), device);
    let parts = [&mut attention.query, &mut attention.key, &mut attention.value];
    for ((linear, weight), bias) in parts.into_iter().zip(weight.chunk(3, 0)).zip(bias.chunk(3, 0))
    {
        linear.weight = Param::from_tensor(weight.transpose());
        linear.bias = Some(Param::from_tensor(bias));
    }
    load_linear(&mut attention.output, source, &format!("{name}.out_proj"), device);
}

fn load_linear(linear: &mut Linear, source: Source, name: &str, device: &Device) {
    let weight = Tensor::<2>::from_data(source(&format!("{name}.weight")), device);
    linear.weight = Param::from_tensor(weight.transpose());
    linear.bias = Some(parameter(source(&format!("{name}.bias")), device));
}

fn parameter<const D: usize>(data: TensorData, device: &Device) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_data(data, device))
}

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
