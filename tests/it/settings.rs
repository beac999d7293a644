//! A setting that passes is the setting that is used: numbers that f32 does not hold are refused
//! where they are given, not found as NaN in the outputs.

use burn_decoder::attention::{MultiHeadAttentionConfig, RotaryConfig, RotaryScaling};
use burn_decoder::decoder::{
    DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig, NormConfig,
};

use crate::backends::any_device;

#[test]
fn numbers_that_f32_does_not_hold_are_refused() {
    let device = any_device();
    let attention = || MultiHeadAttentionConfig::new(12, 2);
    let yarn = |attention_factor| RotaryScaling::Yarn {
        factor: 2.0,
        original_context: 16,
        beta_fast: 4.0,
        beta_slow: 1.0,
        attention_factor: Some(attention_factor),
        truncate: true,
    };
    let model = |attention: MultiHeadAttentionConfig, norm, softcap| {
        let layer = DecoderLayerConfig::new(attention, FeedForwardConfig::new(12, 24));
        let decoder = DecoderConfig::new(layer.with_norm(norm), 1);
        LanguageModelConfig::new(13, decoder).with_logit_softcap(softcap).init(&device).map(|_| ())
    };
    let norm = NormConfig::rms_norm;
    model(attention(), norm(), Some(30.0)).unwrap();
    for value in [1e300, 1e-300] {
        let rotary = RotaryConfig::new().with_scaling(Some(yarn(value)));
        let refused = [
            ("scale", model(attention().with_scale(Some(value)), norm(), None)),
            ("softcap", model(attention().with_softcap(Some(value)), norm(), None)),
            ("RotaryScaling", model(attention().with_rotary(Some(rotary)), norm(), None)),
            ("epsilon", model(attention(), norm().with_epsilon(value), None)),
            ("logit_softcap", model(attention(), norm(), Some(value))),
        ];
        for (field, result) in refused {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(field) && message.contains("got"), "{field}: {message}");
        }
    }
}
