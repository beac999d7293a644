//! Hugging Face's names of activations.

use super::fields::Fields;
use crate::Result;
use crate::decoder::Activation;

/// Whether this is one of the names of GELU's form with tanh.
fn is_tanh(name: &str) -> bool {
    ["gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh", "gelu_accurate"]
        .contains(&name)
}

/// The function of a plain feed-forward part.
pub fn plain(fields: &Fields, name: &str, default: &str) -> Result<Activation> {
    Ok(match fields.find_text(name)?.unwrap_or(default) {
        "gelu" | "gelu_python" => Activation::Gelu,
        name if is_tanh(name) => Activation::GeluTanh,
        "relu" => Activation::Relu,
        "relu2" => Activation::SquaredRelu,
        "silu" | "swish" => Activation::Silu,
        _ => {
            let known = "one of gelu, gelu_new, gelu_pytorch_tanh, relu, relu2, silu, swish";
            return fields.refuse(name, known);
        }
    })
}

/// The function of a gated one.
pub fn gated(fields: &Fields, name: &str, default: &str) -> Result<Activation> {
    Ok(match fields.find_text(name)?.unwrap_or(default) {
        "silu" | "swish" => Activation::SwiGlu,
        "gelu" | "gelu_python" => Activation::GeGlu,
        name if is_tanh(name) => Activation::GeGluTanh,
        _ => {
            let known = "one of silu, swish, gelu, gelu_new, gelu_pytorch_tanh";
            return fields.refuse(name, known);
        }
    })
}
