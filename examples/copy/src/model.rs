//! The model: the crate's own language model, with or without cross-attention.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use burn_decoder::attention::MultiHeadAttentionConfig;
use burn_decoder::decoder::{
    Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, LanguageModelOutput, Positions, Request,
};
use burn_decoder::mask::Mask;

use super::args::{Architecture, MaskChoice, Settings};
use super::batch::Rows;
use super::failure::Failure;

/// Decides who sees whom in the string. This line is what the whole example is about.
pub fn mask(choice: MaskChoice) -> Mask {
    match choice {
        MaskChoice::LookAhead => Mask::look_ahead(),
        MaskChoice::None => Mask::all_visible(),
    }
}

/// What the settings ask for.
pub fn config(settings: &Settings, vocab_size: usize) -> LanguageModelConfig {
    let attention = MultiHeadAttentionConfig::new(settings.d_model, settings.heads);
    let feed_forward = FeedForwardConfig::new(settings.d_model, settings.d_ff);
    let cross_attention = match settings.architecture {
        Architecture::DecoderOnly => None,
        Architecture::Cross => Some(attention.clone()),
    };
    let layer =
        DecoderLayerConfig::new(attention, feed_forward).with_cross_attention(cross_attention);
    LanguageModelConfig::new(vocab_size, DecoderConfig::new(layer, settings.layers))
        .with_mask(mask(settings.mask))
}

/// A language model that knows where its memory comes from.
#[derive(Module, Debug)]
pub struct CopyModel {
    pub language: LanguageModel,
    #[module(skip)]
    pub architecture: Architecture,
}

impl CopyModel {
    pub fn new(
        config: &LanguageModelConfig,
        architecture: Architecture,
        device: &Device,
    ) -> Result<Self, Failure> {
        let language = config.init(device).map_err(|error| Failure::Input(error.to_string()))?;
        Ok(Self { language, architecture })
    }

    /// Scores of the next token at each place of the input, `[batch, queries, vocab_size]`.
    pub fn logits(&self, input: &Rows, memory: &Rows) -> Result<Tensor<3>, Failure> {
        let batch = self.input(memory)?.with_lengths(input.lengths.iter().copied());
        // The task's own tokens are in the vocabulary; a look at them would wait for a GPU.
        let request = Request::new().with_unchecked_tokens();
        Ok(self.language.forward(input.tokens.clone(), batch.asking(request))?.logits)
    }

    /// The vectors that enter the decoder, `[batch, queries, d_model]`.
    pub fn embed(&self, tokens: Tensor<2, Int>) -> Result<Tensor<3>, Failure> {
        Ok(self.language.embed(tokens, &Positions::default())?)
    }

    /// The model behind its embedding.
    pub fn forward(
        &self,
        embedded: Tensor<3>,
        lengths: &[usize],
        memory: &Rows,
        weights: bool,
    ) -> Result<LanguageModelOutput, Failure> {
        let batch = self.input(memory)?.with_lengths(lengths.iter().copied());
        let request = Request::new().with_weights(weights);
        Ok(self.language.forward_embedded(embedded, batch.asking(request))?)
    }

    /// What the model is told apart from its tokens. The memory is the embedded source: there is
    /// no encoder.
    pub fn input(&self, memory: &Rows) -> Result<Batch, Failure> {
        let input = Batch::new();
        match self.architecture {
            Architecture::DecoderOnly => Ok(input),
            Architecture::Cross => {
                let states = self.embed(memory.tokens.clone())?;
                let visible = Mask::lengths(memory.lengths.iter().copied());
                Ok(input.with_memory(states, visible))
            }
        }
    }
}
