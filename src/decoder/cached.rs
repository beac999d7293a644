//! The language model behind a cache: the same pass, for the new tokens alone.

use burn::module::ParamId;
use burn::tensor::{DType, Device, Int, Tensor};

use super::pass_view::TokenRange;
use super::{DecoderLayer, LanguageModel, LanguageModelInput, LanguageModelOutput};
use crate::attention::{MultiHeadAttention, Request};
use crate::cache::{CachedModel, CachedPass, KeyShape, KvCache};
use crate::mask::{Grid, LoweredMask, Past};
use crate::sequence::Batch;
use crate::weights::blocks;
use crate::{Error, Result, kernels};

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
    /// let padded = Batch::new().with_pad_counts([0, 1]);
    /// model.forward_cached(prompt, padded, &mut cache)?;
    ///
    /// let next = Tensor::<2, Int>::from_data([[1], [8]], &device);
    /// let output = model.forward_cached(next, Batch::new(), &mut cache)?;
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
        input: impl Into<LanguageModelInput>,
        cache: &mut KvCache,
    ) -> Result<LanguageModelOutput> {
        let LanguageModelInput { batch, request } = input.into();
        let checked = self.checked(tokens.clone(), &request)?;
        let [rows, new] = tokens.dims();
        let pass = cache.begin(self, [rows, new], &tokens.device(), batch)?;
        let known = cache.known(&pass);
        let place = TokenRange { rows, start: pass.start, new };
        // A model without layers keeps no keys, and its mask hides nothing from anyone.
        let whole = Grid::with_offset(rows, new, pass.start + new, pass.start as i64);
        let grid = |layer: usize| pass.grids.get(layer).unwrap_or(&whole);
        let view = self.decoder.view(known, pass.mask.as_ref(), place, grid)?;
        self.check_own_keys(&pass, known, view.masks())?;
        let embedded = self.embed_from(pass.start, checked.ids.clone(), &known.positions)?;
        let embedded = checked.marked(embedded);

        // Nothing that is asked of the caller can be wrong from here on.
        let past = cache.enter(pass);
        let output = self.decode(embedded, &view, past, &request);
        let checked = match cache.history_with(&tokens) {
            Some((all, batch)) => {
                let epsilon = cache.epsilon();
                self.check_against_full(all, batch, request, &output.logits, epsilon)
            }
            None => Ok(()),
        };
        cache.leave(tokens, checked.is_ok());
        checked.map(|()| output)
    }

    /// An error if a row can't be continued under the batch's mask.
    fn check_own_keys(
        &self,
        pass: &CachedPass,
        known: &Batch,
        masks: &[LoweredMask],
    ) -> Result<()> {
        if !pass.has_new_mask() {
            return Ok(());
        }
        self.decoder.masks.rules().zip(masks).try_for_each(|(own, mask)| {
            pass.check_own_keys(&known.behind_pads(own)?.lower(mask.grid())?, mask)
        })
    }

    /// Compares the logits of a cached pass with those of a pass over everything.
    fn check_against_full(
        &self,
        tokens: Tensor<2, Int>,
        batch: Batch,
        request: Request,
        logits: &Tensor<3>,
        cache_epsilon: Option<f64>,
    ) -> Result<()> {
        let [_, tokens_so_far] = tokens.dims();
        let [_, new, _] = logits.dims();
        let full = self.forward(tokens, batch.asking(request))?.logits;
        let [_, all, _] = full.dims();
        let full = full.narrow(1, all - new, new);
        let difference = (full.clone() - logits.clone()).abs().max();
        let both = Tensor::cat(vec![full.abs().max(), difference], 0).into_data(); // one wait
        let both: Vec<f64> = both.iter::<f64>().collect();
        let (largest, difference) = (both[0], both[1]);
        // Rounding differs between the two ways by some epsilons in each of many steps.
        let epsilon = logits.dtype().finfo().map_or(1.0, |float| float.epsilon);
        let epsilon = epsilon.max(cache_epsilon.unwrap_or(0.0));
        let tolerance = epsilon.sqrt() * largest.max(1.0);
        if difference <= tolerance {
            return Ok(());
        }
        Err(Error::CacheCheck { tokens: tokens_so_far, difference, tolerance })
    }
}

impl CachedModel for LanguageModel {
    fn device(&self) -> Device {
        self.embedding.weight.device()
    }

    fn key_parameters(&self) -> impl Iterator<Item = ParamId> {
        self.decoder.layers.iter().map(|layer| layer.self_attention.key.weight.id)
    }

    fn key_shapes(&self) -> Vec<KeyShape> {
        let dtype =
            |attention: &MultiHeadAttention| -> DType { attention.key.weight.base().dtype() };
        let sizes = |attention: &MultiHeadAttention| [attention.kv_heads(), attention.head_dim()];
        let shape = |layer: &DecoderLayer| KeyShape {
            own: sizes(&layer.self_attention),
            memory: layer.cross_attention.as_ref().map(sizes),
            dtype: dtype(&layer.self_attention),
        };
        self.decoder.layers.iter().map(shape).collect()
    }

    fn memory_width(&self) -> Option<usize> {
        let attention = self.decoder.layers.first()?.cross_attention.as_ref()?;
        let weight = &attention.key.weight;
        // Blocks lie by outputs: `[outputs, inputs]`.
        Some(blocks(weight).map_or_else(|| weight.dims()[0], |blocks| blocks.shape()[1]))
    }

    fn pasts(&self, batch: &Batch) -> Result<Vec<Past>> {
        let masks = &self.decoder.masks;
        let past = |own| Ok(batch.behind_pads(own)?.past());
        let pasts = masks.rules().map(past).collect::<Result<Vec<_>>>()?;
        Ok((0..self.decoder.layers.len()).map(|layer| pasts[masks.kind(layer)]).collect())
    }

    fn settings(&self) -> u64 {
        self.settings
    }

    fn samples(&self) -> Vec<u64> {
        self.past_samples(None)
    }

    fn sample(&self, index: usize) -> u64 {
        self.past_samples(Some(index)).first().copied().unwrap_or_default()
    }

    fn is_read_at_once(&self) -> bool {
        kernels::is_host(&self.embedding.weight.device())
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint_past()
    }
}
