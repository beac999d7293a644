//! Transformer decoders: layers, stacks, and a language model built from them.
//!
//! In reading order: [`Activation`], [`FeedForward`], [`Norm`], [`DecoderLayer`], [`Decoder`],
//! then what a model needs around a stack: [`PositionEmbedding`], [`LanguageModel`]. What is known of
//! a batch's rows is a [`Batch`], what a caller wants back a [`Request`].

mod activation;
mod cache_file;
mod cached;
mod feed_forward;
mod fingerprint;
mod language_model;
mod language_model_config;
mod language_model_input;
mod layer;
mod layer_config;
mod layer_masks;
mod pass_view;
mod position_embedding;
mod stack;
mod token_check;

pub use crate::attention::{Request, TokenCheck};
pub use crate::norm::{LayerNorm, Norm, NormConfig, RmsNorm};
pub use crate::sequence::{Batch, PositionIds, Positions};
pub use activation::Activation;
pub use feed_forward::{FeedForward, FeedForwardConfig};
pub use language_model::{LanguageModel, LanguageModelOutput};
pub use language_model_config::LanguageModelConfig;
pub use language_model_input::LanguageModelInput;
pub use layer::{DecoderLayer, DecoderLayerOutput, LayerContext, Memory};
pub use layer_config::{DecoderLayerConfig, NormPlacement, ResidualLayout};
pub use position_embedding::{Learned, PositionEmbedding, PositionEmbeddingConfig, Sinusoidal};
pub use stack::{Decoder, DecoderConfig, DecoderOutput};
