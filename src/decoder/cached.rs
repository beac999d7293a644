//! The language model behind a cache: the same pass, for the new tokens alone.

use std::collections::BTreeMap;

use burn::module::ParamId;
use burn::tensor::{Int, Tensor};

use super::language_model::View;
use super::stack::window_rule;
use super::{LanguageModel, LanguageModelInput, LanguageModelOutput};
use crate::cache::{KvCache, LayerPass, Pass};
use crate::mask::{Grid, LoweredMask, Mask, Past};
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
    /// # #[cfg(feature = "ndarray")] {
    /// # #[allow(deprecated)]
    /// # let device = burn::tensor::Device::ndarray();
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
    /// # }
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
        let pass = cache.begin([batch, new], &tokens.device(), self, input)?;
        self.check_memory(pass.input.memory.is_some())?;
        let masks = self.masks(&pass)?;
        let memory = pass.input.memory_of([batch, new], pass.start)?;
        let positions = pass.input.positions.ids(batch, pass.start, new)?;
        let embedded = self.embed_from(pass.start, tokens.clone(), &pass.input.positions)?;

        // Nothing that is asked of the caller can be wrong from here on.
        let input = pass.input.clone();
        let layers = cache.enter(pass).iter_mut().zip(&masks);
        let layers = layers.map(|(cache, mask)| LayerPass { cache, mask }).collect();
        // The layers' own masks stand in for it; without layers there is none.
        let all_visible = || LoweredMask::all_visible(Grid::square(batch, new));
        let mask = masks.first().cloned().unwrap_or_else(all_visible);
        let view = View { mask, positions, memory };
        let output = self.decode(embedded, &view, &input, Some(layers));
        let checked = match cache.history_with(&tokens) {
            Some(all) => self.check_against_full(all, input, &output.logits),
            None => Ok(()),
        };
        cache.leave(tokens, checked.is_ok());
        checked.map(|()| output)
    }

    /// What each layer sees of the keys that it has kept. Layers with the same window share one mask,
    /// and with it the dense tensor that a kernel may make of it.
    fn masks(&self, pass: &Pass) -> Result<Vec<LoweredMask>> {
        let rule = pass.input.rule(&self.mask)?;
        let mut known: BTreeMap<Option<usize>, LoweredMask> = BTreeMap::new();
        let mask_of = |(layer, grid): (usize, &Grid)| {
            let window = self.decoder.window(layer);
            if let Some(mask) = known.get(&window) {
                return Ok(mask.clone());
            }
            let mask = narrowed(&rule, window).lower(grid)?;
            let own = || narrowed(&pass.input.behind_pads(&self.mask)?, window).lower(grid);
            pass.check_own_keys(own, &mask)?;
            known.insert(window, mask.clone());
            Ok(mask)
        };
        pass.grids.iter().enumerate().map(mask_of).collect()
    }

    /// For each layer the parameter that makes its keys: tells models apart.
    pub(crate) fn key_parameters(&self) -> impl Iterator<Item = ParamId> {
        self.decoder.layers.iter().map(|layer| layer.self_attention.key.weight.id)
    }

    /// The same, and how much of its past each layer needs.
    pub(crate) fn pasts(
        &self,
        input: &LanguageModelInput,
    ) -> Result<impl Iterator<Item = (ParamId, Past)>> {
        let own = input.behind_pads(&self.mask)?;
        let past = move |layer| narrowed(&own, self.decoder.window(layer)).past();
        Ok(self.key_parameters().enumerate().map(move |(layer, key)| (key, past(layer))))
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

/// `rule` within the window of a layer.
fn narrowed(rule: &Mask, window: Option<usize>) -> Mask {
    window.map_or_else(|| rule.clone(), |keys| rule & &window_rule(keys))
}
