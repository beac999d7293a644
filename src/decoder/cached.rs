//! The language model behind a cache: the same pass, for the new tokens alone.

use burn::module::ParamId;
use burn::tensor::{Int, Tensor};

use super::language_model::View;
use super::{LanguageModel, LanguageModelInput, LanguageModelOutput};
use crate::cache::KvCache;
use crate::mask::Past;
use crate::{Error, Result};

impl LanguageModel {
    /// Scores what comes after each new token, behind the tokens that the cache has seen.
    ///
    /// The logits are those that [`forward`](Self::forward) would give for the same places of the
    /// whole rows. What the first pass says of masks, positions and memory holds for the next ones,
    /// which need not say it again; if they do, they say it for the whole rows, from the first token
    /// on. Any number of tokens may come in one pass.
    ///
    /// ```
    /// # use burn_decoder::attention::MultiHeadAttentionConfig;
    /// # use burn_decoder::decoder::*;
    /// # use burn::tensor::{Int, Tensor};
    /// use burn_decoder::cache::CacheConfig;
    ///
    /// # let device = burn::tensor::Device::default();
    /// # let layer = DecoderLayerConfig::new(
    /// #     MultiHeadAttentionConfig::new(16, 2),
    /// #     FeedForwardConfig::new(16, 32),
    /// # );
    /// # let model = LanguageModelConfig::new(11, DecoderConfig::new(layer, 2)).init(&device)?;
    /// let mut cache = CacheConfig::new().init()?;
    /// let prompt = Tensor::<2, Int>::from_data([[3, 1, 4], [0, 2, 7]], &device);
    /// // Row 1 begins with a padded place. The cache remembers it.
    /// let input = LanguageModelInput::new().with_pad_counts([0, 1]);
    /// model.forward_cached(prompt, input, &mut cache)?;
    ///
    /// let next = Tensor::<2, Int>::from_data([[1], [8]], &device);
    /// let output = model.forward_cached(next, LanguageModelInput::new(), &mut cache)?;
    /// assert_eq!(output.logits.dims(), [2, 1, 11]);
    /// assert_eq!(cache.tokens(), 4);
    /// # Ok::<(), burn_decoder::Error>(())
    /// ```
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch, new tokens]`
    /// - logits: `[batch, new tokens, vocab_size]`
    ///
    /// # Errors
    ///
    /// Those of [`forward`](Self::forward); [`Error::Cache`] if the call does not fit the cache,
    /// and [`Error::CacheCheck`] if a check was asked for and failed. In all cases the cache is as
    /// it was before.
    pub fn forward_cached(
        &self,
        tokens: Tensor<2, Int>,
        input: LanguageModelInput,
        cache: &mut KvCache,
    ) -> Result<LanguageModelOutput> {
        if !input.unchecked_tokens {
            self.check_tokens(&tokens)?;
        }
        let [batch, new] = tokens.dims();
        let pass = cache.begin([batch, new], &tokens.device(), self.cached_layers(), input)?;
        self.check_memory(pass.input.memory.is_some())?;
        let view = View::of(&self.mask, &pass.input, pass.grid.clone(), pass.start)?;
        pass.check_own_keys(&self.mask, &view.mask)?;
        let embedded = self.embed_from(pass.start, tokens.clone(), &pass.input.positions)?;

        // Nothing that is asked of the caller can be wrong from here on.
        let input = pass.input.clone();
        let layers = cache.enter(pass);
        let output = self.decode(embedded, &view, &input, Some(layers));
        let checked = match cache.history_with(&tokens) {
            Some(all) => self.check_against_full(all, input, &output.logits),
            None => Ok(()),
        };
        cache.leave(tokens, checked.is_ok());
        checked.map(|()| output)
    }

    /// For each layer the parameter that makes its keys, and how much of its past it needs.
    pub(crate) fn cached_layers(&self) -> Vec<(ParamId, Past)> {
        let past = self.mask.past();
        let layers = self.decoder.layers.iter();
        layers.map(|layer| (layer.self_attention.key.weight.id, past)).collect()
    }

    /// Compares the logits of a cached pass with those of a pass over everything.
    fn check_against_full(
        &self,
        tokens: Tensor<2, Int>,
        input: LanguageModelInput,
        logits: &Tensor<3>,
    ) -> Result<()> {
        let [_, tokens_so_far] = tokens.dims();
        let [_, new, _] = logits.dims();
        let input = LanguageModelInput { unchecked_tokens: true, ..input };
        let full = self.forward(tokens, input)?.logits;
        let [_, all, _] = full.dims();
        let full = full.narrow(1, all - new, new);
        let largest: f64 = full.clone().abs().max().into_scalar();
        let difference: f64 = (full - logits.clone()).abs().max().into_scalar();
        // Rounding differs between the two ways by some epsilons in each of many steps.
        let epsilon = logits.dtype().finfo().map_or(1.0, |float| float.epsilon);
        let tolerance = epsilon.sqrt() * largest.max(1.0);
        if difference <= tolerance {
            return Ok(());
        }
        Err(Error::CacheCheck { tokens: tokens_so_far, difference, tolerance })
    }
}
