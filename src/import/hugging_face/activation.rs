//! Hugging Face's names of activations.

use super::fields::Fields;
use crate::Result;
use crate::decoder::Activation;

/// The function of a plain feed-forward part.
pub fn plain(fields: &Fields, name: &str, default: &str) -> Result<Activation> {
    Ok(match fields.find_text(name)?.unwrap_or(default) {
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        "relu2" => Activation::SquaredRelu,
        "silu" | "swish" => Activation::Silu,
        _ => {
            let known =
                "one of gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, relu, relu2, silu, swish";
            return fields.refuse(name, known);
        }
    })
}

/// The function of a gated one.
pub fn gated(fields: &Fields, name: &str, default: &str) -> Result<Activation> {
    Ok(match fields.find_text(name)?.unwrap_or(default) {
        "silu" | "swish" => Activation::SwiGlu,
        "gelu" => Activation::GeGlu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeGluTanh,
        _ => {
            let known = "one of silu, swish, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast";
            return fields.refuse(name, known);
        }
    })
}
