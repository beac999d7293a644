//! Transformer decoders: layers, stacks, and a language model built from them.
//!
//! In reading order: [`Activation`], [`FeedForward`], [`Norm`], [`DecoderLayer`], [`Decoder`],
//! then what a model needs around a stack: [`Positions`], [`PositionEmbedding`],
//! [`LanguageModel`].

mod activation;
mod cached;
mod feed_forward;
mod language_model;
mod layer;
mod norm;
mod position_embedding;
mod positions;
mod stack;

pub use activation::Activation;
pub use feed_forward::{FeedForward, FeedForwardConfig};
pub use language_model::{
    LanguageModel, LanguageModelConfig, LanguageModelInput, LanguageModelOutput,
};
pub use layer::{
    DecoderInput, DecoderLayer, DecoderLayerConfig, DecoderLayerOutput, Memory, NormPlacement,
};
pub use norm::{LayerNorm, Norm, NormConfig};
pub use position_embedding::{PositionEmbedding, PositionEmbeddingConfig, Sinusoidal};
pub use positions::{PositionIds, Positions};
pub use stack::{Decoder, DecoderConfig, DecoderOutput};
