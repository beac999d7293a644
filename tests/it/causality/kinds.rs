//! Every kind of layer of this crate.

use burn_decoder::attention::{
    AttentionSinks, HeadMapping, MultiHeadAttentionConfig, QkNormConfig, RotaryConfig,
    RotaryLayout, RotaryScaling,
};
use burn_decoder::decoder::{
    Activation, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig,
    NormConfig, NormPlacement, ResidualLayout,
};

pub const VOCAB_SIZE: usize = 13;
pub const D_MODEL: usize = 12;

/// Pairs of neighbours, part of the channels, and a stretched context.
fn neighbours() -> RotaryConfig {
    RotaryConfig::new().with_dim(Some(4)).with_layout(RotaryLayout::Interleaved).with_scaling(Some(
        RotaryScaling::Yarn {
            factor: 2.0,
            original_context: 16,
            beta_fast: 4.0,
            beta_slow: 1.0,
            attention_factor: None,
            truncate: true,
        },
    ))
}

/// The layer with another self-attention.
fn with_attention(
    mut layer: DecoderLayerConfig,
    change: impl Fn(MultiHeadAttentionConfig) -> MultiHeadAttentionConfig,
) -> DecoderLayerConfig {
    layer.self_attention = change(layer.self_attention);
    layer
}

/// Every kind of layer, each option at least once.
pub fn kinds() -> Vec<(&'static str, LanguageModelConfig)> {
    use Activation::*;
    let layer = |heads, kv_heads, activation| {
        DecoderLayerConfig::new(
            MultiHeadAttentionConfig::new(D_MODEL, heads).with_kv_heads(kv_heads),
            FeedForwardConfig::new(D_MODEL, 19).with_activation(activation),
        )
    };
    let placed = DecoderLayerConfig::with_norm_placement;
    let post = |layer: DecoderLayerConfig| placed(layer, NormPlacement::Post);
    let rms = |layer: DecoderLayerConfig| layer.with_norm(NormConfig::rms_norm());
    let cross = |layer: DecoderLayerConfig| {
        layer.with_cross_attention(Some(MultiHeadAttentionConfig::new(D_MODEL, 2)))
    };
    let layers = vec![
        ("pre, LayerNorm, ReLU", layer(3, None, Relu)),
        ("pre, LayerNorm, squared ReLU", layer(3, None, SquaredRelu)),
        ("pre, LayerNorm, GELU", layer(3, None, Gelu)),
        ("pre, RMSNorm, tanh GELU", rms(layer(3, None, GeluTanh))),
        ("pre, RMSNorm, SwiGLU, grouped heads", rms(layer(6, Some(2), SwiGlu))),
        ("post, LayerNorm, SiLU", post(layer(3, None, Silu))),
        ("post, RMSNorm, GeGLU, one key head", post(rms(layer(3, Some(1), GeGlu)))),
        ("sandwich, RMSNorm, GELU", rms(placed(layer(3, None, Gelu), NormPlacement::Sandwich))),
        ("norms on outputs, SwiGLU", placed(layer(3, None, SwiGlu), NormPlacement::Output)),
        (
            "parallel, LayerNorm, GELU",
            layer(3, None, Gelu).with_residual_layout(ResidualLayout::Parallel),
        ),
        (
            "parallel, one norm, quiet softmax",
            with_attention(layer(3, None, Gelu), |attention| {
                attention.with_sinks(AttentionSinks::Quiet)
            })
            .with_residual_layout(ResidualLayout::ParallelSharedNorm),
        ),
        (
            "rotary, norms of queries and keys, grouped heads",
            with_attention(rms(layer(6, Some(2), SwiGlu)), |attention| {
                attention
                    .with_head_dim(Some(4))
                    .with_rotary(Some(RotaryConfig::new()))
                    .with_qk_norm(Some(QkNormConfig::new(NormConfig::rms_norm())))
            }),
        ),
        (
            "rotary on neighbours, in part, YaRN, interleaved heads, norms across heads",
            with_attention(layer(6, Some(2), Silu), |attention| {
                let norm = NormConfig::RmsNorm { epsilon: 1e-6, unit_offset: true };
                attention
                    .with_head_dim(Some(6))
                    .with_head_mapping(HeadMapping::Interleaved)
                    .with_qk_norm(Some(QkNormConfig::new(norm).with_across_heads(true)))
                    .with_rotary(Some(neighbours()))
            }),
        ),
        (
            "ALiBi, learned sinks",
            with_attention(layer(3, None, Gelu), |attention| {
                attention.with_alibi(true).with_sinks(AttentionSinks::Learned)
            }),
        ),
        ("post, LayerNorm, tanh GeGLU, cross", post(cross(layer(3, None, GeGluTanh)))),
        ("pre, LayerNorm, GELU, cross", cross(layer(3, None, Gelu))),
    ];
    let model = |layer| LanguageModelConfig::new(VOCAB_SIZE, DecoderConfig::new(layer, 2));
    let mut models: Vec<_> = layers.into_iter().map(|(name, layer)| (name, model(layer))).collect();
    let (_, mut windows) = models[0].clone();
    windows.decoder.windows = vec![Some(3), None];
    windows =
        windows.with_logit_softcap(Some(2.0)).with_embedding_norm(Some(NormConfig::rms_norm()));
    models.insert(0, ("window and full in turn, softcap, embedding norm", windows));
    let (_, mut rotaries) = models[4].clone();
    rotaries.decoder.windows = vec![Some(3), None];
    let rotary = |base| Some(RotaryConfig::new().with_base(base));
    rotaries.decoder.rotaries = vec![rotary(100.0), rotary(5000.0)];
    let rotaries = rotaries.with_positions(None).with_tied_head(true).with_head_bias(true);
    models.insert(4, ("two rotations and windows in turn, tied head with a bias", rotaries));
    models
}
